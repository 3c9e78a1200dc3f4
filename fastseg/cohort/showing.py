"""What a run adds to a QC report: pictures and facts of each volume, drawn while its voxels are at hand.

Whatever works on a volume writes its files into the report; the process that hears of all volumes adds their
rows. A report that cannot be written costs no mask: the volume's outcome says so in a note.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fastseg.errors import OutputError
from fastseg.profiling import span

if TYPE_CHECKING:
    from fastseg.cohort.job import Job, Outcome
    from fastseg.qc.pictures import Sheet
    from fastseg.segmenter import Segmentation
    from fastseg.volume import Volume

__all__ = ["Showing", "Shown", "draw_sheet", "show", "show_alone"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Showing:
    """Where volumes are shown.

    Parameters
    ----------
    folder : of the report, absolute
    dataset, subject : as the user named them; an empty subject is that of each file's name
    """

    folder: Path
    dataset: str = ""
    subject: str = ""


def draw_sheet(
    name: str, image: Volume | None, result: Segmentation | None, level: float = 0.5
) -> Sheet | None:
    """Draw a volume, with its mask if it has one; None, and a word in the log, where that fails.

    Parameters
    ----------
    name : of the volume
    image : None: its voxels are no longer at hand, and nothing is drawn
    result : of it
    level : above which the result is cord
    """
    from fastseg.qc.pictures import draw

    if image is None:
        return None
    try:
        if result is None:
            return draw(image, None)
        odd = {z for slices in result.quality.slices.values() for z in slices}
        return draw(image, result.mask, result.centerline, threshold=level, shown=sorted(odd))
    except Exception as error:  # a bug in a picture is no reason to lose a mask
        _logger.warning("%s: its QC picture could not be drawn (%r)", name, error)
        _logger.debug("", exc_info=error)
        return None


def show(
    outcome: Outcome,
    showing: Showing,
    *,
    sheet: Sheet | None,
    result: Segmentation | None = None,
    level: float = 0.5,
    description: Mapping[str, Any] | None = None,
) -> Outcome:
    """Write a volume's files into the report; gives the outcome with its row.

    Where the report cannot be written, the outcome says so in a note: the mask is there all the same.

    Parameters
    ----------
    outcome : of the volume
    showing : where
    sheet : from `draw_sheet`
    result : None where there is none
    level : above which the result is cord
    description : as the sidecar has it
    """
    from fastseg.qc.report import write_volume_files

    row, detail = _row_and_detail(outcome, showing, sheet, result, level, description or {})
    try:
        write_volume_files(showing.folder, row, detail, sheet)
    except OutputError as error:
        row["pictures"] = False
        outcome = replace(outcome, notes=(*outcome.notes, f"not in the QC report: {error}"))
    return replace(outcome, record={**outcome.record, "qc": row})


def _row_and_detail(
    outcome: Outcome,
    showing: Showing,
    sheet: Sheet | None,
    result: Segmentation | None,
    level: float,
    description: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    from fastseg.qc.editors import commands, manual_path
    from fastseg.qc.entry import areas_of, detail_of, header_of
    from fastseg.volume import SCT_RPI

    job = outcome.job
    mask, manual = job.outputs.mask, manual_path(job.outputs.mask)
    areas = areas_of(result.mask, level) if result is not None else []
    quality = result.quality if result is not None else None
    row = _row(outcome, showing, slices=len(areas) if result is not None else None) | {
        "pictures": sheet is not None
    }
    detail = detail_of(
        image=job.source,
        mask=mask,
        manual=manual,
        commands=commands(job.source, mask if result is not None else None, manual),
        areas=areas,
        pitch_mm=result.mask.grid.reoriented(SCT_RPI).zooms[2] if result is not None else 0.0,
        flag_slices=quality.slices if quality is not None else {},
        reasons=dict(zip(quality.flags, quality.reasons, strict=True)) if quality is not None else {},
        notes=[note for note in outcome.notes if quality is None or note not in quality.reasons],
        measures=outcome.measures,
        header=header_of(description),
    )
    return row, detail


def show_alone(
    showing: Showing,
    job: Job,
    image: Volume,
    result: Segmentation | None,
    description: Mapping[str, Any] | None = None,
    *,
    message: str = "",
) -> Outcome:
    """Show a volume that was not worked on by a run; gives its outcome.

    Parameters
    ----------
    image : of the job
    result : of it, written already; None: no cord was found
    description : as a sidecar would have it
    message : why there is no result

    Raises
    ------
    OutputError
        The report cannot be written.
    """
    from fastseg.cohort.job import Outcome, Status
    from fastseg.qc.report import Report
    from fastseg.sidecar import file_sha256

    outcome, level = Outcome(job, Status.NO_CORD, message), 0.5
    if result is not None:
        level = result.threshold if job.options.soft else level
        quality = result.quality
        outcome = Outcome(
            job,
            Status.OK_FLAGGED if quality.flags else Status.OK,
            notes=(*result.notes, *quality.reasons),
            flags=quality.flags,
            measures=quality.measures,
            seconds=result.seconds,
            record={"outputs": {"mask": file_sha256(job.outputs.mask)}, "engines": dict(result.engines)},
        )
    sheet = draw_sheet(job.name, image, result, level)
    with Report(showing.folder) as report:
        row, detail = _row_and_detail(outcome, showing, sheet, result, level, description or {})
        report.add(row, detail, sheet)
    return replace(outcome, record={**outcome.record, "qc": row})


def _row(outcome: Outcome, showing: Showing, slices: int | None = None) -> dict[str, Any]:
    from fastseg.qc.entry import row_of

    outputs = outcome.record.get("outputs", {})
    engines = outcome.record.get("engines", {})
    assert isinstance(outputs, dict)
    assert isinstance(engines, dict)
    return row_of(
        name=outcome.job.name,
        mask=outcome.job.outputs.mask,
        dataset=showing.dataset,
        subject=showing.subject,
        contrast=outcome.job.options.contrast,
        status=outcome.status,
        flags=outcome.flags,
        measures=outcome.measures,
        slices=slices,
        message=outcome.message,
        seconds=outcome.seconds,
        engines=engines,
        mask_sha256=outputs.get("mask", ""),
    )


class Shown:
    """The report as the process that hears of all volumes sees it: it adds their rows.

    A context manager; when it is left, the page shows all of them.

    Parameters
    ----------
    showing : where
    out, root : of the run: folder of its results, and of its images

    Raises
    ------
    OutputError
        The report cannot be written.
    """

    def __init__(self, showing: Showing, out: Path, root: Path) -> None:
        from fastseg.qc.report import Report

        self.showing, self.out, self.root = showing, out, root
        self._report = Report(showing.folder)
        #: Whether there is something to show that this run did not make, for `fastseg.past.build`: results of
        #: earlier runs, corrected masks.
        self.earlier = False
        #: What the user should know at the end, one line each.
        self.remarks: list[str] = []
        #: How many volumes were shown.
        self.count = 0

    def __enter__(self) -> Self:
        self._report.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._report.__exit__(kind, error, trace)
        except OutputError as failure:  # masks are there all the same
            _logger.warning("the QC report does not show all volumes: %s", failure)

    @property
    def folder(self) -> Path:
        """Of the report."""
        return self.showing.folder

    def note(self, outcome: Outcome) -> None:
        """Add a volume's row. Whoever failed without a picture has a row all the same."""
        from fastseg.cohort.job import Status
        from fastseg.qc.editors import manual_path

        if outcome.status is Status.SKIPPED:
            return
        if outcome.status is Status.CACHED or "earlier" in outcome.record:
            self.earlier = True
            return
        # What is shown in its place is the business of who reads what lies there.
        self.earlier = self.earlier or manual_path(outcome.job.outputs.mask).exists()
        row = outcome.record.get("qc") or _row(outcome, self.showing)
        assert isinstance(row, dict)
        try:
            with span("qc"):
                self._report.note(row)
        except OutputError as failure:
            self.remarks = [f"not all volumes are in the QC report: {failure}"]
        else:
            self.count += 1
