"""What to do with a volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from fastseg.errors import OptionError
from fastseg.networks.network import ANY_CONTRAST, CONTRASTS
from fastseg.quirks import MENDED, Quirks

__all__ = ["Detector", "Kernel", "Options"]

Kernel = Literal["2d", "2d-light", "3d"]
Detector = Literal["auto", "svm", "cnn", "file"]


@dataclass(frozen=True, slots=True)
class Options:
    """What to do with a volume.

    Parameters
    ----------
    contrast : t1, t2, t2s or dwi; auto: networks that need not know it, where the pack has them
    kernel : network that works slice by slice, a smaller one that does, or one for blocks of slices
    detector : how the centerline is found; auto: by the detector that the pack names, and where that one
        finds nothing, by the other one it has
    threshold : probability above which a voxel is cord, 0 to 1; None: the network's own
    soft : give probabilities instead of a mask
    brain : whether the field of view may hold brain above the cord (cnn of SCT only); None: t1 and t2
    quirks : which of SCT's quirks to keep

    Raises
    ------
    OptionError
        An option is out of range, or two do not go together.
    """

    contrast: str = ANY_CONTRAST
    kernel: Kernel = "2d"
    detector: Detector = "auto"
    threshold: float | None = None
    soft: bool = False
    brain: bool | None = None
    quirks: Quirks = MENDED

    def __post_init__(self) -> None:
        if self.contrast not in (ANY_CONTRAST, *CONTRASTS):
            raise OptionError(
                f"contrast {self.contrast!r}: choose one of {', '.join((ANY_CONTRAST, *CONTRASTS))}"
            )
        for name, value, known in (
            ("kernel", self.kernel, get_args(Kernel)),
            ("centerline", self.detector, get_args(Detector)),
        ):
            if value not in known:
                raise OptionError(f"{name} {value!r}: choose {', '.join(known[:-1])} or {known[-1]}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise OptionError(f"threshold {self.threshold:g}: must lie between 0 and 1")
        if self.brain and self.detector == "svm":
            raise OptionError("brain is for the cnn detector only: leave it out, or choose centerline cnn")
