"""Segmenting the volumes of the list, one way after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import cast, get_args

import numpy as np

from fastseg.engines.compute import AUTO, Compute
from fastseg.errors import CordNotFound, FastsegError, InputError
from fastseg.options import Detector, Kernel, Options
from fastseg.segmenter import Segmentation, Segmenter
from fastseg.volume import SCT_RPI, Volume
from tools.evaluation.cord_free import CordFree
from tools.evaluation.metrics import Accuracy, LineError, compare, compare_line, covered
from tools.evaluation.volumes import Case

__all__ = [
    "CENTERLINES",
    "KERNELS",
    "FreeResult",
    "Load",
    "Result",
    "Run",
    "Watch",
    "evaluate",
    "evaluate_cord_free",
]

#: Networks that work in different ways, as `Options` allows them.
KERNELS: tuple[str, ...] = get_args(Kernel)
#: Where a centerline can come from: every detector, and the reference mask.
CENTERLINES: tuple[str, ...] = (*(each for each in get_args(Detector) if each != "file"), "reference")

#: Reads a case: image and reference mask.
Load = Callable[[Case], tuple[Volume, Volume]]
#: Sees every mask before it is forgotten: case, run, image, reference, mask.
Watch = Callable[[Case, "Run", Volume, Volume, Volume], None]


@dataclass(frozen=True, slots=True)
class Run:
    """One way to segment all volumes.

    Parameters
    ----------
    models : pack, by name or folder
    kernel : one of `KERNELS`
    centerline : one of `CENTERLINES`
    contrast : given to every volume, "auto" among them; None: each volume's own
    threshold : None: the pack's own
    compute : what the networks run on
    """

    models: str = "default"
    kernel: str = "2d"
    centerline: str = "auto"
    contrast: str | None = None
    threshold: float | None = None
    compute: Compute = AUTO

    @property
    def title(self) -> str:
        """Short name, unique among the runs of one report."""
        parts = [self.kernel, f"{self.centerline} centerline"]
        parts += [f"contrast {self.contrast}"] * (self.contrast is not None)
        return ", ".join(parts)

    def options(self, contrast: str) -> Options:
        """Options for a volume of a contrast.

        Raises
        ------
        OptionError
            An option is not known.
        """
        detector = "file" if self.centerline == "reference" else self.centerline
        return Options(
            contrast=self.contrast or contrast,
            kernel=cast(Kernel, self.kernel),
            detector=cast(Detector, detector),
            threshold=self.threshold,
        )

    def at(self, threshold: float) -> Run:
        """The same run with a threshold."""
        return replace(self, threshold=threshold)

    def segmenter(self, contrast: str) -> Segmenter:
        """Make a segmenter for volumes of a contrast; it is not open yet."""
        return Segmenter(self.options(contrast), models=self.models, compute=self.compute)


@dataclass(frozen=True, slots=True)
class Result:
    """How one volume came out of one run.

    Parameters
    ----------
    case, run : which
    failure : why there is no mask; empty where there is one
    threshold : that was applied; nan where it is not known
    detector : what found the centerline; empty where nothing did
    accuracy, line : None where the volume failed
    notes : of the segmentation
    seconds : wall time of the segmentation
    """

    case: Case
    run: Run
    failure: str = ""
    threshold: float = float("nan")
    detector: str = ""
    accuracy: Accuracy | None = None
    line: LineError | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def dice(self) -> float:
        """Dice; 0 where the volume failed."""
        return self.accuracy.dice if self.accuracy is not None else 0.0


@dataclass(frozen=True, slots=True)
class FreeResult:
    """What was reported on cord-free slices.

    Parameters
    ----------
    name, contrast, run : which
    phantom : whether no slice of the volume holds a cord
    slices : cord-free slices
    reported : how many of them have voxels in our mask
    found_percent : of the other slices in which the reference has voxels, those on which ours has a voxel in
        common with it; nan for a phantom
    failure : why there is no mask. That no cord was found is the right answer to a phantom.
    """

    name: str
    contrast: str
    run: Run
    phantom: bool
    slices: int = 0
    reported: int = 0
    found_percent: float = float("nan")
    failure: str = ""


def evaluate(cases: Iterable[Case], run: Run, load: Load, watch: Watch | None = None) -> Iterator[Result]:
    """Segment every case and compare it with its reference.

    Parameters
    ----------
    cases : in the order of the results
    run : how
    load : reads a case
    watch : sees every mask

    Notes
    -----
    A case that raises a FastsegError is a result with the reason.
    """
    with _Opened(run) as opened:
        for case in cases:
            try:
                image, reference = load(case)
                found = opened.segment(image, case.contrast, reference)
            except FastsegError as error:
                threshold = float("nan") if run.threshold is None else run.threshold
                yield Result(case, run, _reason(error), threshold)
                continue
            if watch is not None:
                watch(case, run, image, reference, found.mask)
            yield Result(
                case,
                run,
                threshold=found.threshold,
                detector=found.detector,
                accuracy=compare(found.mask, reference),
                line=compare_line(found.centerline, reference),
                notes=found.notes,
                seconds=sum(found.seconds.values()),
            )


def evaluate_cord_free(cases: Iterable[CordFree], run: Run, load: Load) -> Iterator[FreeResult]:
    """Segment volumes with cord-free slices, and count those on which a cord is reported.

    Notes
    -----
    A phantom that is refused, or in which no cord is found, has no false alarm. Elsewhere the same is a
    failure, and no slice of it counts: a detector that never finds anything gains nothing.
    """
    with _Opened(run) as opened:
        for case in cases:
            result = FreeResult(case.name, case.contrast, run, phantom=case.source is None)
            try:
                image, free = case.make()
            except FastsegError as error:
                yield replace(result, failure=_reason(error))
                continue
            try:
                mask = opened.segment(image, case.contrast, None).mask
            except FastsegError as error:
                silent = case.source is None and isinstance(error, CordNotFound | InputError)
                yield replace(result, slices=int(free.sum()) * silent, failure=_reason(error))
                continue
            ours = np.asarray(mask.reoriented(SCT_RPI).voxels) > 0.5
            result = replace(result, slices=int(free.sum()), reported=int((covered(ours) & free).sum()))
            if case.source is not None:
                theirs = np.asarray(load(case.source)[1].reoriented(SCT_RPI).voxels)
                held = covered(theirs) & ~free
                found = covered(ours & theirs)[held]
                result = replace(result, found_percent=float(100 * found.mean()) if len(found) else np.nan)
            yield result


class _Opened:
    """Segmenters of one run, one for each contrast, opened when they are first needed.

    One that cannot be opened raises the same error for every volume.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._stack = ExitStack()
        self._segmenters: dict[str, Segmenter | FastsegError] = {}

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def segment(self, image: Volume, contrast: str, reference: Volume | None) -> Segmentation:
        """Segment an image; the reference lends its centerline where the run asks for it."""
        if contrast not in self._segmenters:
            try:
                self._segmenters[contrast] = self._stack.enter_context(self._run.segmenter(contrast))
            except FastsegError as error:
                self._segmenters[contrast] = error
        segmenter = self._segmenters[contrast]
        if isinstance(segmenter, FastsegError):
            raise segmenter
        given = None
        if self._run.centerline == "reference" and reference is not None:
            given = Volume(np.asarray(reference.voxels, np.uint8), reference.grid)
        return segmenter.segment(image, given)


def _reason(error: FastsegError) -> str:
    return f"{type(error).__name__}: {error}"
