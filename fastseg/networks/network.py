"""What a network is: a file and the facts that are needed to feed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

__all__ = [
    "ANY_CONTRAST",
    "CONTRASTS",
    "PRECISIONS",
    "Acceptance",
    "EngineRecord",
    "Network",
    "Precision",
    "Role",
    "SvmModel",
]

#: The contrasts that the command line takes, with SCT's names.
CONTRASTS = ("t1", "t2", "t2s", "dwi")

#: Stands for a contrast that was not said. A network or SVM may be used for it only if its pack says so.
ANY_CONTRAST = "auto"

#: Precisions, other than fp32, that a pack may say what a network loses in.
PRECISIONS = ("tf32", "fp16", "bf16", "int8")


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
    SEGMENT_2D_LIGHT
        The same, by a smaller network.
    SEGMENT_3D
        Blocks of such crops: of a fixed depth, or, where the depth is 0, as deep as the volume, up to 48
        slices; gives the probability of cord.
    """

    DETECT_BLOCKS = "detect_blocks"
    DETECT_SLICES = "detect_slices"
    SEGMENT_2D = "segment_2d"
    SEGMENT_2D_LIGHT = "segment_2d_light"
    SEGMENT_3D = "segment_3d"


@dataclass(frozen=True, slots=True)
class Precision:
    """What a network loses in another precision than fp32, measured on real volumes.

    Parameters
    ----------
    max_difference : largest difference of a probability
    flipped_per_million : voxels of the crops that change sides of the threshold, of a million
    dice : of the two masks
    """

    max_difference: float
    flipped_per_million: float
    dice: float


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """How an engine did with a network on real volumes, next to the reference engine in the same run.

    Parameters
    ----------
    name : engine and precision: "openvino fp32"
    capability : what it ran on: as `fastseg.engines.machine.capability` says, or "sm_90" for a GPU. On others
        it may be slower, or round in another way.
    max_difference, flipped_per_million, dice : as in `Precision`, but of the engine itself
    speed : how many times as fast as the reference engine with one thread
    """

    name: str
    capability: str
    max_difference: float
    flipped_per_million: float
    dice: float
    speed: float


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What a network may lose in an engine that is chosen for the user; see `EngineRecord`.

    Parameters
    ----------
    flipped_per_million : at most so many voxels change sides of the threshold
    dice : at least so much, of the two masks
    """

    flipped_per_million: float
    dice: float

    def takes(self, record: EngineRecord | Precision) -> bool:
        """Whether what was measured is good enough."""
        return record.flipped_per_million <= self.flipped_per_million and record.dice >= self.dice


@dataclass(frozen=True, slots=True)
class Network:
    """One ONNX file and how to use it.

    Parameters
    ----------
    path : file with the network
    sha256 : of the file's bytes; it is checked before the file is used
    role : what the network does
    contrasts : contrasts it may be used for; with `ANY_CONTRAST` also where none is given
    spatial : input size without batch and channel: (x, y) or (x, y, z); 0 where any size is taken
    channels_last : True where the file wants (N, x, y, C); engines take and give (N, C, x, y[, z]) always
    mean, std : applied as (value - mean) / std before the network, unless its graph does it
    thresholds : probability above which a voxel is cord, by contrast
    pack : name of the pack the network belongs to
    precision : what it loses in other precisions, by their names of `PRECISIONS`; none where nobody measured
    macs_millions : multiplications and additions of one item, in millions: a crop, a slice of a block, a
        whole slice of 144 x 144; None where nobody counted
    acceptance : what it may lose in an engine that nobody asked for; None: nothing was said, so the reference
        engine is taken
    engines : how other engines did with it, where that was measured
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
    precision: Mapping[str, Precision] = field(default_factory=dict)
    macs_millions: float | None = None
    acceptance: Acceptance | None = None
    engines: tuple[EngineRecord, ...] = ()

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
    contrast : contrast it was trained for; `ANY_CONTRAST`: used where none is given
    pack : name of the pack the model belongs to
    """

    path: Path
    sha256: str
    contrast: str
    pack: str
