"""The list of volumes, volumes.toml, and reading what it names."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fastseg.errors import InputError
from fastseg.networks.network import CONTRASTS
from fastseg.nifti import read_volume
from fastseg.volume import Volume

__all__ = [
    "LIST",
    "Case",
    "Limits",
    "Listing",
    "Phantoms",
    "Slab",
    "default_data",
    "load_case",
    "read_list",
]

#: The list that belongs to the checkout.
LIST = Path(__file__).with_name("volumes.toml")
#: Volumes of a diffusion series with a b-value above this are diffusion-weighted; s/mm².
_WEIGHTED = 100.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Case:
    """A volume and its reference mask.

    Parameters
    ----------
    name : unique
    image, mask : paths relative to the data root
    contrast : t1, t2, t2s or dwi
    person : whose anatomy it is
    reference : what the mask is, in words
    at_least : Dice to reach; None: no claim
    counted : whether it is part of the means
    offset : voxel of the image, in the file's axes, where the mask's first voxel lies; None: one grid
    bvals : FSL's file of b-values of a 4D image, of which the mean of the weighted volumes is taken
    """

    name: str
    image: str
    mask: str
    contrast: str
    person: str
    reference: str
    at_least: float | None = None
    counted: bool = True
    offset: tuple[int, int, int] | None = None
    bvals: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What is asked of the volumes that count.

    Parameters
    ----------
    area_bias_percent : of every volume, either way
    mean_area_bias_percent : of the mean over volumes, either way
    centerline_p95_mm, centerline_max_mm : of every volume
    cord_free_percent : cord-free slices on which a cord is reported
    """

    area_bias_percent: float
    mean_area_bias_percent: float
    centerline_p95_mm: float
    centerline_max_mm: float
    cord_free_percent: float


@dataclass(frozen=True, slots=True)
class Phantoms:
    """Phantoms without a cord: every body in every contrast."""

    bodies: tuple[str, ...]
    contrasts: tuple[str, ...]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Slab:
    """Real volumes that get a cord-free third: every volume with every fill at every end."""

    volumes: tuple[str, ...]
    fills: tuple[str, ...]
    ends: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """All that volumes.toml says."""

    cases: tuple[Case, ...]
    limits: Limits
    phantoms: Phantoms | None
    slabs: tuple[Slab, ...]


def default_data(checkout: Path) -> Path:
    """Folder with the volumes, beside the checkout."""
    return checkout.parent / "shared" / "data"


def read_list(path: Path = LIST) -> Listing:
    """Read the list of volumes.

    Raises
    ------
    InputError
        The file is not TOML, a key is missing or not known, a value makes no sense, or a name comes twice.
    """
    try:
        tables = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: the list of volumes cannot be read ({error}): mend it") from error
    unknown = tables.keys() - {"volume", "limits", "phantoms", "slab"}
    if unknown:
        raise InputError(f"{path.name}: {min(unknown)!r} is not a table of the list: remove it")
    cases = tuple(
        _checked(_entry(Case, table, f"[[volume]] {table.get('name', number)}"))
        for number, table in enumerate(tables.get("volume", []), 1)
    )
    names = [case.name for case in cases]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path.name}: two volumes have the name {name!r}: rename one")
    slabs = tuple(_entry(Slab, table, "[[slab]]") for table in tables.get("slab", []))
    for name in (name for slab in slabs for name in slab.volumes):
        if name not in names:
            raise InputError(f"{path.name}: [[slab]] names {name!r}, which is not in the list: add it")
    return Listing(
        cases,
        _entry(Limits, tables.get("limits", {}), "[limits]"),
        _entry(Phantoms, tables["phantoms"], "[phantoms]") if "phantoms" in tables else None,
        slabs,
    )


def load_case(case: Case, data: Path) -> tuple[Volume, Volume]:
    """Read an image and its reference mask.

    Parameters
    ----------
    data : root of the paths in the list

    Returns
    -------
    image : as in the file; for a diffusion series the mean of its weighted volumes, float32
    reference : bool, on the image's grid and in its orientation

    Raises
    ------
    InputError
        A file cannot be read, the mask does not fit the image, or it is empty.
    """
    image = _mean_weighted(case, data) if case.bvals else read_volume(data / case.image)[0]
    mask = read_volume(data / case.mask)[0]
    if not np.any(mask.voxels):
        raise InputError(f"{case.mask}: the reference mask is empty: take {case.name!r} out of the list")
    if case.offset is not None:
        return image, Volume(_pasted(case, image, mask), image.grid)
    turned = mask.reoriented(image.grid.axcodes)
    if not turned.grid.same_space(image.grid, tolerance_mm=0.1 * min(image.grid.zooms)):
        raise InputError(f"{case.mask}: not on the grid of {case.image}: give its offset in the list")
    return image, Volume(np.asarray(turned.voxels) != 0, image.grid)


def _mean_weighted(case: Case, data: Path) -> Volume:
    assert case.bvals is not None
    try:
        bvals = np.loadtxt(data / case.bvals).ravel()
    except (OSError, ValueError) as error:
        raise InputError(f"{case.bvals}: the b-values cannot be read ({error}): mend the list") from error
    frames = np.flatnonzero(bvals > _WEIGHTED)
    if not len(frames):
        raise InputError(f"{case.bvals}: no b-value is above {_WEIGHTED:g} s/mm2: mend the list")
    read = [read_volume(data / case.image, frame=int(frame))[0] for frame in frames]
    mean = np.asarray(np.mean([volume.voxels for volume in read], axis=0, dtype=np.float64), np.float32)
    return Volume(mean, read[0].grid)


def _pasted(case: Case, image: Volume, mask: Volume) -> NDArray[np.bool_]:
    """The mask of a crop on the grid of what it was cut from."""
    assert case.offset is not None
    ends = np.add(case.offset, mask.grid.shape)
    same_axes = np.allclose(mask.grid.zooms, image.grid.zooms, rtol=0.01)
    if not same_axes or mask.grid.axcodes != image.grid.axcodes or (ends > image.grid.shape).any():
        raise InputError(
            f"{case.mask}: no crop of {case.image} at {case.offset}: mend the offset in the list"
        )
    whole = np.zeros(image.grid.shape, np.bool_)
    whole[tuple(slice(low, high) for low, high in zip(case.offset, ends, strict=True))] = mask.voxels != 0
    return whole


def _entry(kind: type[_T], table: Mapping[str, object], where: str) -> _T:
    """A dataclass from a table with its fields as keys; lists become tuples."""
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(table.keys() - known.keys())
    if unknown:
        raise InputError(f"volumes.toml: {where}: {unknown[0]!r} is not a key of it: remove it")
    for name, field in known.items():
        if name not in table and field.default is MISSING:
            raise InputError(f"volumes.toml: {where}: {name!r} is missing: add it")
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in table.items()})


def _checked(case: Case) -> Case:
    where = f"volumes.toml: [[volume]] {case.name}"
    if case.contrast not in CONTRASTS:
        raise InputError(f"{where}: contrast {case.contrast!r}: choose one of {', '.join(CONTRASTS)}")
    if case.at_least is not None and not 0 < case.at_least < 1:
        raise InputError(f"{where}: at_least {case.at_least!r}: a Dice lies between 0 and 1")
    if case.offset is not None and (len(case.offset) != 3 or min(case.offset) < 0):
        raise InputError(f"{where}: offset {case.offset!r}: give three voxel numbers from 0")
    if any(Path(each).is_absolute() or ".." in Path(each).parts for each in (case.image, case.mask)):
        raise InputError(f"{where}: paths are relative to the data root and stay below it")
    return case
