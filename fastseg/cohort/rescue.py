"""What else to try where a result is flagged or no cord was found: the rescue ladder.

The steps are those that SCT's users take by hand when a segmentation fails: the 3D network, another way to
find the centerline, both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastseg.cohort.job import Status
from fastseg.networks.network import Role
from fastseg.networks.packs import Pack
from fastseg.options import Detector, Options

__all__ = ["Attempt", "ladder"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to segment a volume, and what came of it.

    Parameters
    ----------
    label : for people
    options : that were taken
    status, flags : how it ended
    """

    label: str
    options: Options
    status: Status = Status.ERROR
    flags: tuple[str, ...] = ()

    def record(self) -> dict[str, object]:
        """As JSON values, for sidecars and ledgers."""
        return {
            "Kernel": self.options.kernel,
            "Centerline": self.options.detector,
            "Status": str(self.status),
            "Flags": list(self.flags),
        }


def ladder(options: Options, pack: Pack) -> list[Attempt]:
    """What to try after a first attempt, in this order; only what the pack has networks for.

    Parameters
    ----------
    options : of the first attempt
    pack : of its networks

    Examples
    --------
    >>> from fastseg.networks.packs import find_pack
    >>> [attempt.label for attempt in ladder(Options(), find_pack("default"))]
    ['kernel 3d', 'centerline svm', 'centerline svm, kernel 3d']
    """
    kernels = [options.kernel]
    if options.kernel != "3d" and pack.has(Role.SEGMENT_3D, options.contrast):
        kernels.append("3d")
    there = pack.detectors(options.contrast)
    first: Detector = there[0] if options.detector == "auto" and there else options.detector
    detectors: list[Detector] = [options.detector]
    if first != "file":
        detectors += [other for other in there if other != first]
    rungs = []
    for detector in detectors:
        for kernel in kernels:
            changed = [f"centerline {detector}"] * (detector != options.detector)
            changed += [f"kernel {kernel}"] * (kernel != options.kernel)
            if changed:
                brain = options.brain if detector != "svm" else None  # only the networks ask
                rung = replace(options, detector=detector, kernel=kernel, brain=brain)
                rungs.append(Attempt(", ".join(changed), rung))
    return rungs
