"""What to do with a volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastseg.errors import OptionError
from fastseg.networks.network import CONTRASTS
from fastseg.quirks import MENDED, Quirks

__all__ = ["Detector", "Kernel", "Options"]

Kernel = Literal["2d", "3d"]
Detector = Literal["svm", "cnn", "file"]


@dataclass(frozen=True, slots=True)
class Options:
    """What to do with a volume.

    Parameters
    ----------
    contrast : t1, t2, t2s or dwi
    kernel : network that works slice by slice, or on blocks of slices
    detector : how the centerline is found; None: svm where the pack has one for the contrast, else cnn
    threshold : probability above which a voxel is cord, 0 to 1; None: the network's own
    soft : give probabilities instead of a mask
    brain : whether the field of view may hold brain above the cord (cnn of SCT only); None: t1 and t2
    quirks : which of SCT's quirks to keep

    Raises
    ------
    OptionError
        An option is out of range, or two do not go together.
    """

    contrast: str
    kernel: Kernel = "2d"
    detector: Detector | None = None
    threshold: float | None = None
    soft: bool = False
    brain: bool | None = None
    quirks: Quirks = MENDED

    def __post_init__(self) -> None:
        if self.contrast not in CONTRASTS:
            raise OptionError(f"contrast {self.contrast!r}: choose one of {', '.join(CONTRASTS)}")
        if self.kernel not in ("2d", "3d"):
            raise OptionError(f"kernel {self.kernel!r}: choose 2d or 3d")
        if self.detector not in (None, "svm", "cnn", "file"):
            raise OptionError(f"centerline {self.detector!r}: choose svm, cnn or file")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise OptionError(f"threshold {self.threshold:g}: must lie between 0 and 1")
        if self.brain and self.detector == "svm":
            raise OptionError("brain is for the cnn detector only: leave it out, or choose centerline cnn")
