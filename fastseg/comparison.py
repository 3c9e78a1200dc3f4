"""How two masks differ: voxels, volumes, areas, headers. For two files, or for two trees of files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastseg.errors import InputError
from fastseg.nifti import Template, read_volume
from fastseg.outputs import split_suffix
from fastseg.volume import SCT_RPI, Volume

__all__ = [
    "Difference",
    "Pairs",
    "SoftDifference",
    "compare_files",
    "compare_headers",
    "compare_masks",
    "match",
]

_SUFFIXES = (".nii.gz", ".nii")
# Fields of a header that place the voxels; a difference beyond float32's rounding is shown.
_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class SoftDifference:
    """How two masks of probabilities differ: largest and mean absolute difference.

    The mean is over voxels where either is not 0.
    """

    largest: float
    mean: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How two masks on one grid differ, A and B, after the threshold.

    Parameters
    ----------
    dice : 1 for two empty masks
    voxels : of A and of B
    differing : voxels that are cord in one of them only
    volumes_mm3 : of A and of B
    mean_areas_mm2 : of A and of B, over the axial slices that each covers; nan for an empty mask
    area_percent : how much larger B's mean area is, in % of A's
    slices : axial slices that A and B cover
    slices_in_one : slices covered by A only, and by B only
    centre_mm : distance between the two centres of mass; nan where a mask is empty
    soft : for masks that hold more than 0 and one other value, the same in both
    headers : one entry for each thing in which the files' headers differ
    """

    dice: float
    voxels: tuple[int, int]
    differing: int
    volumes_mm3: tuple[float, float]
    mean_areas_mm2: tuple[float, float]
    area_percent: float
    slices: tuple[int, int]
    slices_in_one: tuple[int, int]
    centre_mm: float
    soft: SoftDifference | None
    headers: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether all voxels are the same, values of soft masks included; headers may differ."""
        return self.differing == 0 and (self.soft is None or self.soft.largest == 0)


@dataclass(frozen=True, slots=True)
class Pairs:
    """What belongs together in two trees, by path relative to their roots, without .nii or .nii.gz.

    Parameters
    ----------
    both : name -> file in A, file in B
    only_a, only_b : files without a partner
    """

    both: Mapping[str, tuple[Path, Path]]
    only_a: tuple[Path, ...]
    only_b: tuple[Path, ...]


def compare_masks(a: Volume, b: Volume, *, threshold: float = 0.5) -> Difference:
    """Compare two masks of one space; B may have its axes in another order or direction.

    Parameters
    ----------
    a, b : 0/1, or probabilities
    threshold : value above which a voxel is cord

    Raises
    ------
    InputError
        The grids are different.

    Examples
    --------
    >>> from fastseg.phantom import make_phantom
    >>> _, mask = make_phantom("t2", n_slices=4)
    >>> same = compare_masks(mask, mask.reoriented(("P", "S", "R")))
    >>> same.dice, same.differing, same.slices
    (1.0, 0, (4, 4))
    """
    a, b = a.reoriented(SCT_RPI), b.reoriented(SCT_RPI)
    _check_same_grid(a, b)
    first, second = _cord(a, threshold), _cord(b, threshold)
    counts = int(first.sum()), int(second.sum())
    common = int((first & second).sum())
    zooms = a.grid.zooms
    covered = first.any(axis=(0, 1)), second.any(axis=(0, 1))
    slices = int(covered[0].sum()), int(covered[1].sum())
    area_a, area_b = (
        n * zooms[0] * zooms[1] / deep if deep else math.nan for n, deep in zip(counts, slices, strict=True)
    )
    return Difference(
        dice=2 * common / sum(counts) if any(counts) else 1.0,
        voxels=counts,
        differing=sum(counts) - 2 * common,
        volumes_mm3=(counts[0] * math.prod(zooms), counts[1] * math.prod(zooms)),
        mean_areas_mm2=(area_a, area_b),
        area_percent=100 * (area_b / area_a - 1),
        slices=slices,
        slices_in_one=(int((covered[0] & ~covered[1]).sum()), int((covered[1] & ~covered[0]).sum())),
        centre_mm=float(np.linalg.norm(_centre(first, a) - _centre(second, a))),
        soft=_soft(a.voxels, b.voxels),
    )


def compare_headers(a: Template, b: Template) -> tuple[str, ...]:
    """Name everything in which two headers differ that places or types the voxels.

    Returns
    -------
    differences : such as ``qform_code 1 / 0``; A before the stroke, B after it
    """
    found = []
    if a.shape != b.shape:
        found.append(f"shape {_by(a.shape)} / {_by(b.shape)}")
    zooms = [tuple(float(z) for z in each.header["pixdim"][1:4]) for each in (a, b)]
    if not np.allclose(zooms[0], zooms[1], rtol=_TOLERANCE, atol=0):
        found.append(f"zooms {_by(zooms[0])} / {_by(zooms[1])}")
    affines = [np.asarray(each.header.get_best_affine(), np.float64) for each in (a, b)]
    if not np.allclose(affines[0], affines[1], rtol=_TOLERANCE, atol=_TOLERANCE):
        found.append(f"affine by up to {np.abs(affines[0] - affines[1]).max():.3g}")
    for code in ("qform_code", "sform_code"):
        if int(a.header[code]) != int(b.header[code]):
            found.append(f"{code} {int(a.header[code])} / {int(b.header[code])}")
    kinds = [each.header.get_data_dtype().newbyteorder("=").name for each in (a, b)]
    if kinds[0] != kinds[1]:
        found.append(f"datatype {kinds[0]} / {kinds[1]}")
    units = [int(each.header["xyzt_units"]) for each in (a, b)]
    if units[0] != units[1]:
        found.append(f"units {units[0]} / {units[1]}")
    return tuple(found)


def compare_files(a: Path, b: Path, *, threshold: float = 0.5) -> Difference:
    """Read two masks and compare them, headers included.

    Raises
    ------
    InputError
        A file cannot be read, or the grids are different.
    """
    (first, template_a), (second, template_b) = read_volume(a), read_volume(b)
    found = compare_masks(first, second, threshold=threshold)
    names = (name for name in Difference.__dataclass_fields__ if name != "headers")
    return Difference(
        **{name: getattr(found, name) for name in names}, headers=compare_headers(template_a, template_b)
    )


def match(a: Path, b: Path, *, suffix: str = "") -> Pairs:
    """Find what belongs together in two trees of masks; two files belong together whatever their names.

    Parameters
    ----------
    a, b : two files or two folders
    suffix : take only files whose name ends so, before .nii or .nii.gz

    Raises
    ------
    InputError
        One is a file and the other a folder, one is not there, or a tree holds one volume both as .nii and
        as .nii.gz.
    """
    for path in (a, b):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    if a.is_dir() != b.is_dir():
        raise InputError(f"{a} and {b}: one is a file and one a folder; give two of a kind")
    if not a.is_dir():
        return Pairs({a.name: (a, b)}, (), ())
    first, second = _volumes(a, suffix), _volumes(b, suffix)
    return Pairs(
        {name: (first[name], second[name]) for name in sorted(first.keys() & second.keys())},
        tuple(first[name] for name in sorted(first.keys() - second.keys())),
        tuple(second[name] for name in sorted(second.keys() - first.keys())),
    )


def _volumes(root: Path, suffix: str) -> dict[str, Path]:
    """Volumes of a tree by relative path without ending; hidden files and folders are left out."""
    found: dict[str, Path] = {}
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for file in sorted(files):
            path = Path(folder) / file
            stem, _ = split_suffix(path)
            if file.startswith(".") or not file.lower().endswith(_SUFFIXES) or not stem.endswith(suffix):
                continue
            name = (path.relative_to(root).parent / stem).as_posix()
            if name in found:
                raise InputError(f"{found[name]} and {path}: the same volume twice; remove one of them")
            found[name] = path
    return found


def _check_same_grid(a: Volume, b: Volume) -> None:
    if a.grid.shape != b.grid.shape:
        raise InputError(
            f"different grids, {_by(a.grid.shape)} and {_by(b.grid.shape)} voxels: "
            "resample one mask onto the other"
        )
    if not a.grid.same_space(b.grid, tolerance_mm=max(1e-3, 0.01 * min(a.grid.zooms))):
        raise InputError(
            "different grids: the shapes agree, but the affines put the voxels at different places; mend the "
            "header that is wrong, or resample one mask onto the other"
        )


def _cord(mask: Volume, threshold: float) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = mask.voxels > threshold
    return inside


def _centre(inside: NDArray[np.bool_], mask: Volume) -> NDArray[np.float64]:
    """Centre of mass in world millimetres."""
    where = np.nonzero(inside)
    if not len(where[0]):
        return np.full(3, math.nan)
    middle = [float(axis.mean()) for axis in where]
    return np.asarray(mask.grid.affine[:3] @ [*middle, 1.0], np.float64)


def _soft(a: NDArray[np.generic], b: NDArray[np.generic]) -> SoftDifference | None:
    highest = sorted(float(np.asarray(each, np.float64).max()) for each in (a, b))
    if not (_is_soft(a) or _is_soft(b) or 0 < highest[0] < highest[1]):
        return None
    first, second = (np.nan_to_num(np.asarray(each, np.float64)) for each in (a, b))
    apart = np.abs(first - second)
    somewhere = (first != 0) | (second != 0)
    if not somewhere.any():
        return SoftDifference(0.0, 0.0)
    return SoftDifference(float(apart.max()), float(apart[somewhere].mean()))


def _is_soft(voxels: NDArray[np.generic]) -> bool:
    """Whether there is a value between 0 and the largest."""
    return bool(((voxels != 0) & (voxels != voxels.max())).any())


def _by(numbers: tuple[float, ...]) -> str:
    return " x ".join(f"{number:.6g}" for number in numbers)
