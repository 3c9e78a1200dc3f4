"""The volumes that cohorts are made of, and which of them follows which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Literal, get_args

from fastseg.nifti import read_volume
from fastseg.phantom import make_phantom
from fastseg.volume import Volume

__all__ = ["KINDS", "Kind", "Source", "default_data", "load", "sequence"]

#: What a cohort is made of: sizes mixed; the size of sct_testing only; sizes mixed and no real volume.
Kind = Literal["mix", "small", "phantoms"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Source:
    """A volume, and what a phantom of the same size has to look like.

    Parameters
    ----------
    contrast : t1, t2, t2s or dwi
    path : below the data folder; empty for what is always a phantom
    shape : voxels from side to side, back to front, and along the body
    zooms : of these axes, mm
    axcodes : order of the axes in the file, nibabel's codes
    """

    contrast: str
    path: str
    shape: tuple[int, int, int]
    zooms: tuple[float, float, float]
    axcodes: tuple[str, str, str]


_PSR, _RAS, _LAS, _LPS = ("P", "S", "R"), ("R", "A", "S"), ("L", "A", "S"), ("L", "P", "S")

# Small crops of necks, 8,000 to 250,000 voxels.
_SMALL = (
    Source("t2", "sct_testing/t2/t2.nii.gz", (52, 60, 55), (1, 1, 1), _PSR),
    Source("t2s", "sct_testing/t2s/t2s.nii.gz", (49, 54, 9), (0.5, 0.5, 7.5), _LAS),
    Source("t1", "sct_testing/t1/t1w.nii.gz", (42, 76, 77), (1, 1, 1), _RAS),
    Source("dwi", "sct_testing/dmri/dwi_mean.nii.gz", (40, 42, 5), (0.84, 0.84, 17.5), _LAS),
)
# Few thick axial slices with a large field of view.
_AXIAL = (
    Source("t2s", "sct_testing/t2s/t2s_uncropped.nii.gz", (320, 320, 11), (0.5, 0.5, 7.5), _LAS),
    Source(
        "t2s",
        "sub-gm10062/ses-1/anat/sub-gm10062_ses-1_T2star.nii.gz",
        (256, 256, 20),
        (0.7, 0.7, 2.5),
        _LAS,
    ),
    Source("t2s", "sub-gm9604/anat/sub-gm9604_T2star.nii.gz", (288, 288, 20), (0.6, 0.6, 3.0), _LPS),
    Source("t2s", "sub-gm9418/anat/sub-gm9418_T2star.nii.gz", (384, 384, 17), (0.5, 0.5, 3.0), _LAS),
)
# Half a spine at 1 mm.
_SAGITTAL = (
    Source("t2", "sub-errsm11/anat/sub-errsm11_T2w.nii.gz", (52, 384, 216), (1, 1, 1), _PSR),
    Source("t2", "sub-tutlumbar/anat/sub-tutlumbar_T2w.nii.gz", (38, 257, 201), (1, 1, 1), _RAS),
    Source("t2s", "sub-errsm21/anat/sub-errsm21_T2star.nii.gz", (52, 384, 185), (1, 1, 1), _PSR),
    Source("t2", "sub-errsm30/anat/sub-errsm30_T2w.nii.gz", (52, 384, 185), (1, 1, 1), _PSR),
)
# 320 x 320 x 60, axial and sagittal.
_LARGE = (
    Source("t2", "", (320, 320, 60), (0.7, 0.7, 2.5), _LAS),
    Source("t1", "", (60, 320, 320), (0.9, 0.8, 0.8), _PSR),
)
# Of twenty volumes: eleven small, five axial, three sagittal, one large.
_ORDER = "SASVSASVSASSASVSASSL"
_POOLS = {"S": _SMALL, "A": _AXIAL, "V": _SAGITTAL, "L": _LARGE}


def sequence(kind: Kind, *, bids: bool = False) -> Iterator[Source]:
    """What a cohort's volumes are made of, one after another without end.

    Parameters
    ----------
    bids : without mean diffusion-weighted images, which have no place among a data set's raw images
    """
    pools = {
        letter: cycle([source for source in pool if not (bids and source.contrast == "dwi")])
        for letter, pool in _POOLS.items()
    }
    for letter in cycle("S" if kind == "small" else _ORDER):
        yield next(pools[letter])


def load(source: Source, data: Path | None, seed: int) -> tuple[Volume, str]:
    """Read a volume, or draw the phantom that stands in for it.

    Parameters
    ----------
    data : folder with real volumes, which need not be there; None: phantoms only
    seed : of the phantom

    Returns
    -------
    volume, origin : and its file below `data`, or "phantom"

    Raises
    ------
    InputError
        The file cannot be used.
    """
    if data is not None and source.path and (data / source.path).is_file():
        return read_volume(data / source.path)[0], source.path
    nx, ny, nz = source.shape
    image, _ = make_phantom(
        source.contrast,
        shape=(nx, ny),
        n_slices=nz,
        zooms=source.zooms,
        axcodes=source.axcodes,
        seed=seed,
    )
    return image, "phantom"


def default_data() -> Path:
    """Folder of real volumes beside the checkout."""
    return Path(__file__).resolve().parents[3] / "shared" / "data"
