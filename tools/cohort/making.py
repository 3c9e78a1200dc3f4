"""Makes the files of a cohort: the same few volumes again and again, each time changed a little."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np

from fastseg.nifti import new_template, write_volume
from fastseg.outputs import write_file
from fastseg.volume import Grid, Volume
from tools.cohort.sources import Kind, Source, load, sequence

__all__ = ["Made", "make_cohort", "vary"]

# Orders of axes that scanners and converters write.
_ORDERS = (
    ("R", "A", "S"),
    ("L", "A", "S"),
    ("L", "P", "S"),
    ("R", "P", "I"),
    ("P", "S", "R"),
    ("A", "S", "R"),
    ("P", "I", "L"),
)
# Standard deviation of the noise that is added, as a part of the brightest voxels.
_NOISE = 0.01
# Voxels that are cut off a side, at most: so many, and this part of the axis.
_CUT, _CUT_PART = 3, 1 / 16
_SUFFIXES = {"t1": "T1w", "t2": "T2w", "t2s": "T2starw"}


@dataclass(frozen=True, slots=True)
class Made:
    """One file of a cohort.

    Parameters
    ----------
    path : below the cohort's folder
    origin : what it was made of: a file below the data folder, or "phantom"
    grid : of the volume
    """

    path: Path
    origin: str
    grid: Grid


def make_cohort(
    folder: Path, kind: Kind, volumes: int, *, seed: int = 0, data: Path | None = None, bids: bool = False
) -> Iterator[Made]:
    """Write a cohort; equal arguments give equal files, and the first of many volumes are those of few.

    Parameters
    ----------
    folder : made when missing
    volumes : how many
    seed : other changes, and other phantoms
    data : folder with real volumes; where it is None or lacks one, a phantom of the same size stands in
    bids : as a BIDS data set, a participant for each volume

    Yields
    ------
    made : when it is written

    Raises
    ------
    InputError, OutputError
        A real volume cannot be read, or a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if bids:
        _describe(folder, kind)

    @cache
    def base(source: Source) -> tuple[Volume, str]:
        return load(source, None if kind == "phantoms" else data, seed)

    for index, source in enumerate(islice(sequence(kind, bids=bids), volumes)):
        volume, origin = base(source)
        changed = vary(volume, np.random.default_rng([seed, index]))
        path = _name(index + 1, source.contrast, bids=bids)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_volume(changed.voxels, new_template(changed.grid, "made by fastseg"), folder / path)
        yield Made(path, origin, changed.grid)


def vary(volume: Volume, random: np.random.Generator) -> Volume:
    """Cut off a few voxels on each side, add noise, and write the axes in another order."""
    cuts = [min(_CUT, int(n * _CUT_PART)) for n in volume.grid.shape]
    start = np.array([random.integers(0, cut + 1) for cut in cuts])
    stop = np.array(volume.grid.shape) - [random.integers(0, cut + 1) for cut in cuts]
    part = volume.voxels[tuple(map(slice, start, stop))]
    affine = volume.grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    nx, ny, nz = part.shape
    spread = _NOISE * float(np.percentile(part, 99))
    noisy = part + spread * random.standard_normal(part.shape, np.float32)
    if part.dtype.kind in "iu":
        limits = np.iinfo(part.dtype)
        noisy = np.rint(noisy).clip(limits.min, limits.max)
    return Volume(noisy.astype(part.dtype), Grid((nx, ny, nz), affine)).reoriented(
        _ORDERS[random.integers(len(_ORDERS))]
    )


def _name(number: int, contrast: str, *, bids: bool) -> Path:
    if not bids:
        return Path(f"volume-{number:04d}_{contrast}.nii.gz")
    subject = f"sub-{number:04d}"
    return Path(subject, "anat", f"{subject}_{_SUFFIXES[contrast]}.nii.gz")


def _describe(folder: Path, kind: Kind) -> None:
    description = {
        "Name": f"Cohort of changed copies for benchmarks ({kind})",
        "BIDSVersion": "1.9.0",
        "DatasetType": "raw",
        "GeneratedBy": [{"Name": "tools/make_cohort of fastseg"}],
    }
    write_file(folder / "dataset_description.json", json.dumps(description, indent=2).encode() + b"\n")
