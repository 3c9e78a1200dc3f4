"""One volume from file to files: the steps that one process, many threads and other machines all take.

A `Work` passes through `read`, `prepare`, `finish` and `write`, in this order and in any thread, and between
`prepare` and `finish` the engine answers its question. `segment_file` does all of it at once.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastseg.cohort.failures import failure_of
from fastseg.cohort.fingerprints import Fingerprint, file_digest, version_of
from fastseg.cohort.job import Job, Outcome, Status
from fastseg.cohort.rescue import Attempt, ladder
from fastseg.cohort.segmenters import Segmenters
from fastseg.cohort.showing import Showing, draw_sheet, show
from fastseg.csa import write_csa
from fastseg.drawn import read_drawn
from fastseg.errors import CordNotFound, FastsegError, InputError, OutputError
from fastseg.networks.network import ANY_CONTRAST
from fastseg.nifti import Template, read_volume, write_volume
from fastseg.outputs import Kind, publish
from fastseg.profiling import Recorder, recording, span
from fastseg.quality import name_note
from fastseg.segmenter import Prepared, Segmentation, Segmenter
from fastseg.sidecar import sidecar, write_json
from fastseg.volume import SCT_RPI, Volume

if TYPE_CHECKING:
    from fastseg.qc.pictures import Sheet

__all__ = ["Manner", "Work", "segment_file"]

_Content = TypeVar("_Content")


@dataclass(frozen=True, slots=True)
class Manner:
    """How all volumes of a run are worked on.

    Parameters
    ----------
    kinds : results to write
    rescue : whether flagged and failed volumes are tried again with other methods
    tag : names the run in the names of its temporary files, so that a later run knows which to remove
    durable : whether files are on the disk, not only in its cache, before they get their names
    showing : the QC report that volumes are shown in; None: nowhere
    """

    kinds: tuple[Kind, ...] = ("mask", "sidecar")
    rescue: bool = False
    tag: str = ""
    durable: bool = False
    showing: Showing | None = None


@dataclass(slots=True)
class Work:
    """A volume on its way.

    Parameters
    ----------
    job : what is to be done
    manner : how
    segmenters : the networks
    recorder : of all its steps
    inferred : seconds of inference that others measured, of batches that it shared
    cancelled : whether it was given up: none of its files may appear any more
    fingerprints : of its inputs, by role
    prepared : between `prepare` and `finish`
    result : that is written, from the last `finish` on
    attempts : that were made
    """

    job: Job
    manner: Manner
    segmenters: Segmenters
    recorder: Recorder = field(default_factory=Recorder)
    inferred: float = 0.0
    cancelled: bool = False
    fingerprints: dict[str, Fingerprint] = field(default_factory=dict)
    prepared: Prepared | None = None
    result: Segmentation | None = None
    attempts: list[Attempt] = field(default_factory=list)
    _seen: dict[Path, tuple[int, int, int]] = field(default_factory=dict)
    _volume: Volume | None = None
    _template: Template | None = None
    _centerline: Volume | None = None
    _rungs: list[Attempt] | None = None
    _best: Segmentation | None = None
    _failure: FastsegError | None = None
    _description: dict[str, Any] = field(default_factory=dict)  # as the sidecar has it
    _sheet: Sheet | None = None

    def read(self) -> None:
        """Read the volume, and the centerline that was drawn on it.

        Raises
        ------
        InputError
            A file cannot be used, or changed while it was read.
        """
        with recording(self.recorder, self.job.name), span("read"):
            source, line = self.job.source, self.job.centerline
            self._volume, self._template = self._read(
                source, "input", lambda: read_volume(source, frame=self.job.frame)
            )
            if line is not None:
                grid = self._volume.grid
                self._centerline, notes = self._read(line, "centerline", lambda: read_drawn(line, grid))
                self._template = replace(self._template, notes=(*self._template.notes, *notes))

    def _read(self, path: Path, role: str, load: Callable[[], _Content]) -> _Content:
        """Read a file that nobody may write to meanwhile, and take its fingerprint."""
        with suppress(OSError):  # where it is not there, the reader says so
            self._seen[path] = version_of(path)
        content = load()
        try:
            fingerprint = Fingerprint.of(path)
            after = version_of(path)
        except OSError as error:
            raise InputError(
                f"{path}: went away while it was read ({error.strerror}); run it again"
            ) from error
        if self._seen.get(path) != after:
            raise InputError(f"{path}: changed while it was read; run it again when it is complete")
        self.fingerprints[role] = fingerprint
        return content

    @property
    def segmenter(self) -> Segmenter:
        """Of the present attempt."""
        return self.segmenters.of(self._attempt.options)

    @property
    def _attempt(self) -> Attempt:
        if self._rungs is None:
            first = Attempt("as asked", self.job.options)
            self._rungs = [first]
            if self.manner.rescue:
                self._rungs += ladder(self.job.options, self.segmenters.of(self.job.options).pack)
        return self._rungs[len(self.attempts)]

    def prepare(self) -> bool:
        """Find the cord and cut the crops around it.

        Returns
        -------
        ready : whether there is something to ask the engine; if not, go on with `write`: what an earlier
            attempt gave is taken

        Raises
        ------
        CordNotFound, InputError, InferenceError
            As in `Segmenter.prepare`, where no further attempt is left.
        """
        while True:
            assert self._volume is not None
            try:
                with recording(self.recorder, self.job.name):
                    self.prepared = self.segmenter.prepare(self._volume, self._centerline)
            except FastsegError as error:  # what stops an attempt at a rescue does not undo those before it
                if not (isinstance(error, CordNotFound) or self.attempts):
                    raise
                if self._settle(None, error):
                    return False
                continue
            if not (self.manner.rescue or self.manner.showing or "overlay" in self.manner.kinds):
                self._volume = self._centerline = None  # the crops are all that is still needed
            return True

    def finish(self, answers: Sequence[NDArray[np.float32]]) -> bool:
        """Make the result from the engine's answers.

        Returns
        -------
        done : whether to go on with `write`; if not, with `prepare`: there is another attempt to make

        Raises
        ------
        CordNotFound
            The network saw no cord, and no further attempt is left.
        """
        assert self.prepared is not None
        prepared, self.prepared = self.prepared, None
        try:
            with recording(self.recorder, self.job.name):
                result = self.segmenter.finish(prepared, answers)
        except CordNotFound as error:
            return self._settle(None, error)
        return self._settle(result, None)

    def _settle(self, result: Segmentation | None, error: FastsegError | None) -> bool:
        """Note how an attempt ended; whether it was the last one that has to be made."""
        flags = result.quality.flags if result is not None else ()
        status = Status.OK_FLAGGED if flags else Status.OK
        if error is not None:
            status, _ = failure_of(error, self.job.source)
        rungs = self._rungs or []
        self.attempts.append(replace(self._attempt, status=status, flags=flags))
        if result is not None and (
            self._best is None or len(flags) < len(self._best.quality.flags)
        ):  # of equals the first: what was asked for
            self._best = result
        self._failure = self._failure or error
        if status is not Status.OK and len(self.attempts) < len(rungs):
            return False
        if self._best is None:
            assert self._failure is not None
            raise self._failure
        self.result = self._best
        if self.manner.showing is not None:
            with recording(self.recorder, self.job.name), span("qc"):
                self._sheet = draw_sheet(self.job.name, self._volume, self.result, self._level)
        return True

    def write(self) -> Outcome:
        """Write the files, all or none.

        Raises
        ------
        OutputError
            Something cannot be written.
        """
        assert self.result is not None
        result, manner = self.result, self.manner
        with (
            recording(self.recorder, self.job.name),
            span("write"),
            publish(self.job.outputs.mask, tag=manner.tag, durable=manner.durable) as stage,
        ):
            digests = self._write_files(stage)
            if self.cancelled:
                raise OutputError(f"{self.job.outputs.mask}: the volume was given up; run it again")
        if manner.showing is not None and not self._description:
            self._describe()
        outcome = Outcome(
            self.job,
            Status.OK_FLAGGED if result.quality.flags else Status.OK,
            notes=tuple(self._notes()),
            flags=result.quality.flags,
            measures=dict(result.quality.measures),
            seconds=self.seconds(),
            record=self._record() | {"outputs": digests, "engines": dict(result.engines)},
        )
        return self._shown(outcome)

    def _write_files(self, stage: Path) -> dict[str, str]:
        """Write what is wanted into a folder; gives the digests by kind."""
        assert self.result is not None
        assert self._template is not None
        job, kinds, result = self.job, self.manner.kinds, self.result
        outputs, template = job.outputs, self._template
        if "overlay" in kinds:
            self._draw(stage / outputs.overlay.name)
        if "centerline" in kinds:
            grid = result.mask.grid.reoriented(SCT_RPI)
            line = Volume(result.centerline.mask(grid), grid).reoriented(result.mask.grid.axcodes)
            write_volume(line.voxels, template, stage / outputs.centerline.name)
        if "csa" in kinds:
            threshold = result.threshold if job.options.soft else 0.0
            write_csa(stage / outputs.csa.name, result.mask, threshold=threshold)
        write_volume(result.mask.voxels, template, stage / outputs.mask.name)
        if "sidecar" in kinds:
            write_json(self._describe(), stage / outputs.sidecar.name)
        paths = zip(kinds, outputs.of_kinds(kinds), strict=True)
        return {kind: file_digest(stage / path.name) for kind, path in paths}

    def _describe(self) -> dict[str, Any]:
        assert self.result is not None
        assert self._template is not None
        job = self.job
        self._description = sidecar(
            replace(self.result, seconds=self.seconds()),
            self._template,
            options=self._taken.options,
            pack=self.segmenters.of(job.options).pack,
            frame=job.frame,
            source=job.name,
            sha256=self.fingerprints["input"].sha256,
            attempts=[attempt.record() for attempt in self.attempts] if len(self.attempts) > 1 else (),
        )
        return self._description

    @property
    def _taken(self) -> Attempt:
        """The attempt whose result is written."""
        assert self.result is not None
        flags = self.result.quality.flags
        good = [a for a in self.attempts if a.status.success and a.flags == flags]
        return good[0]

    @property
    def _level(self) -> float:
        """Above which the result is cord."""
        assert self.result is not None
        return self.result.threshold if self.job.options.soft else 0.5

    def seconds(self) -> dict[str, float]:
        """Wall time by step."""
        seconds = self.recorder.seconds()
        if self.inferred:
            seconds["predict"] = seconds.get("predict", 0.0) + self.inferred
        return seconds

    def _notes(self) -> list[str]:
        assert self.result is not None
        assert self._template is not None
        named = name_note(self.job.source.name, self.job.options.contrast)
        rescued = []
        if len(self.attempts) > 1:
            rescued = [f"rescue: the result is that of {self._taken.label}"]
        return [
            *([named] if named else []),
            *self._template.notes,
            *self.result.notes,
            *self.result.quality.reasons,
            *rescued,
        ]

    def _draw(self, path: Path) -> None:
        from fastseg.preview import overlay_png

        assert self.result is not None
        assert self._volume is not None
        contrast = self.job.options.contrast
        overlay_png(
            self._volume,
            self.result.mask,
            self.result.centerline,
            path,
            name=self.job.source.name,
            contrast=contrast if contrast != ANY_CONTRAST else "",
            threshold=self._level,
        )

    def failed(self, error: BaseException) -> Outcome:
        """What came of it when a step raised."""
        status, message = failure_of(error, self.job.source)
        if status is Status.BAD_INPUT and not self.fingerprints:
            with suppress(OSError):  # so that a later run knows it again
                fingerprint, now = Fingerprint.of(self.job.source), version_of(self.job.source)
                if self._seen.get(self.job.source, now) == now:  # what was read, and not what came since
                    self.fingerprints["input"] = fingerprint
        record = self._record()
        if not isinstance(error, FastsegError | MemoryError):
            record["traceback"] = "".join(traceback.format_exception(error))
        return self._shown(Outcome(self.job, status, message, seconds=self.seconds(), record=record))

    def _shown(self, outcome: Outcome) -> Outcome:
        """Put the volume into the QC report."""
        if self.manner.showing is None or self.cancelled:
            return outcome
        with recording(self.recorder, self.job.name), span("qc"):
            if outcome.status.success:
                shown = show(
                    outcome,
                    self.manner.showing,
                    sheet=self._sheet,
                    result=self.result,
                    level=self._level,
                    description=self._description,
                )
            else:
                sheet = draw_sheet(self.job.name, self._volume, None)
                shown = show(outcome, self.manner.showing, sheet=sheet)
        return replace(shown, seconds=self.seconds())

    def _record(self) -> dict[str, object]:
        record: dict[str, object] = {"fingerprints": dict(self.fingerprints)}
        if len(self.attempts) > 1:
            record["attempts"] = [attempt.record() for attempt in self.attempts]
        return record

    def reset(self) -> None:
        """Forget everything but the job, to start anew."""
        fresh = Work(self.job, self.manner, self.segmenters)
        for name in self.__slots__:
            setattr(self, name, getattr(fresh, name))


def segment_file(work: Work) -> Outcome:
    """Do all steps of one volume in this thread; a failure is an outcome too."""
    try:
        work.read()
        ready = work.prepare()
        while ready:
            assert work.prepared is not None
            with recording(work.recorder, work.job.name), span("predict"):
                answers = [work.segmenter.engine.infer(batch) for batch in work.prepared.question.batches]
            ready = not work.finish(answers) and work.prepare()
        return work.write()
    except Exception as error:
        return work.failed(error)
