"""What a network is: a file and the facts that are needed to feed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

__all__ = ["CONTRASTS", "Network", "Role", "SvmModel"]

#: The contrasts that the command line takes, with SCT's names.
CONTRASTS = ("t1", "t2", "t2s", "dwi")


class Role(StrEnum):
    """What a network does, and how it wants to be fed.

    Axes are x (right to left) and y (posterior to anterior) of SCT_RPI, then z.

    DETECT_BLOCKS
        SCT's detector: 80 x 80 blocks at 0.5 mm, values 0..255 of the whole volume's 2nd/98th percentile;
        gives the probability of cord.
    DETECT_SLICES
        Whole slices at 1 mm in plane, values = intensity / 99.7th percentile of the volume, clipped to
        0..1.2; gives a heat map, a blob around the cord's centre.
    SEGMENT_2D
        Square crops around the centerline at 0.5 mm, values 0..255; gives the probability of cord.
    SEGMENT_3D
        Blocks of such crops, 48 slices deep; gives the probability of cord.
    """

    DETECT_BLOCKS = "detect_blocks"
    DETECT_SLICES = "detect_slices"
    SEGMENT_2D = "segment_2d"
    SEGMENT_3D = "segment_3d"


@dataclass(frozen=True, slots=True)
class Network:
    """One ONNX file and how to use it.

    Parameters
    ----------
    path : file with the network
    sha256 : of the file's bytes; it is checked before the file is used
    role : what the network does
    contrasts : contrasts it may be used for
    spatial : input size without batch and channel: (x, y) or (x, y, z); 0 where any size is taken
    channels_last : True where the file wants (N, x, y, C); engines take and give (N, C, x, y[, z]) always
    mean, std : applied as (value - mean) / std before the network, unless its graph does it
    thresholds : probability above which a voxel is cord, by contrast
    pack : name of the pack the network belongs to
    """

    path: Path
    sha256: str
    role: Role
    contrasts: tuple[str, ...]
    spatial: tuple[int, ...]
    channels_last: bool
    mean: float
    std: float
    thresholds: Mapping[str, float]
    pack: str

    @property
    def name(self) -> str:
        """Short name for logs and records."""
        return f"{self.pack}/{self.path.stem}"


@dataclass(frozen=True, slots=True)
class SvmModel:
    """Coefficients of the HOG + linear SVM detector for one contrast.

    Parameters
    ----------
    path : .npy file with 577 float32: 576 weights in OpenCV's order and the bias
    sha256 : of the file's bytes
    contrast : contrast it was trained for
    pack : name of the pack the model belongs to
    """

    path: Path
    sha256: str
    contrast: str
    pack: str
