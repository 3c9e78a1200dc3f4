"""What there is to see of a finished volume: its image, its mask or a corrected one, and what is odd."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastseg.centerline import Centerline
from fastseg.cohort.job import Status
from fastseg.errors import InputError, OutputError
from fastseg.nifti import read_volume
from fastseg.nifti_header import Frame
from fastseg.past.corrected import describe_corrected, on_grid, read_corrected, read_mask
from fastseg.past.volumes import Finished, Found, centerline_path, reasons_of
from fastseg.qc.editors import manual_path
from fastseg.volume import SCT_RPI, Volume

__all__ = ["Seen", "line_of", "look"]


@dataclass(slots=True)
class Seen:
    """What was read of a volume, and what there is to say about it.

    Parameters
    ----------
    status, message : as the run told; a mask that is gone or damaged by now is an error
    notes : for the entry, one sentence each
    level : above which a voxel of the mask is cord
    image : None where it cannot be shown
    mask : that is shown, on the image's grid if there is an image; None where there is none
    corrected : whether it was corrected by hand
    remarks : what the user should know beside what the entry says
    """

    status: Status
    message: str = ""
    notes: list[str] = field(default_factory=list)
    level: float = 0.5
    image: Volume | None = None
    mask: Volume | None = None
    corrected: bool = False
    remarks: list[str] = field(default_factory=list)


def look(
    volume: Finished,
    found: Found | None,
    record: Mapping[str, Any],
    digests: Mapping[Path, str],
    top: Path,
) -> Seen:
    """Read the image and the mask of a volume.

    Parameters
    ----------
    volume : that a run finished with
    found : its image; None: nowhere
    record : sidecar of the mask; empty where there is none
    digests : sha256 of the mask and of the corrected one; empty for what is not there, or does not count
    top : output folder, to which the sidecar of a corrected mask names the automatic one relatively
    """
    seen = Seen(volume.status, volume.message)
    block = record.get("Fastseg", {})
    if block.get("Soft") is True and type(block.get("Threshold")) in (int, float):
        seen.level = float(block["Threshold"])
    _take_image(seen, volume, found, _frame(block))
    trouble = _take_mask(seen, volume, digests[volume.mask], changed=found is not None and found.changed)
    manual = manual_path(volume.mask)
    if digests[manual]:
        _take_corrected(seen, volume, manual)
        if seen.corrected:
            _describe(seen, volume, manual, top)
    if trouble and seen.corrected:
        seen.notes.append(trouble)
    elif trouble:
        seen.status, seen.message = Status.ERROR, trouble
    return seen


def _take_image(seen: Seen, volume: Finished, found: Found | None, frame: Frame | None) -> None:
    if found is None:
        if volume.status is not Status.SKIPPED:
            seen.notes.append("no picture: the image was not found; give fastseg qc build --inputs DIR")
        return
    try:
        seen.image, _ = read_volume(found.path, frame=frame)
    except InputError as error:
        if volume.status is not Status.BAD_INPUT:  # else the message says so already
            seen.notes.append(f"no picture, the image cannot be used: {_said(error, found.path)}")
    if found.changed:
        seen.notes.append("the image was changed since it was segmented")


def _take_mask(seen: Seen, volume: Finished, digest: str, *, changed: bool) -> str:
    """Read the mask of the run; gives what is wrong with it."""
    if not digest:
        due = volume.status in (Status.OK, Status.OK_FLAGGED)
        return "the mask is gone; run the volume again" if due else ""
    if volume.digests and digest not in volume.digests:
        seen.notes.append("the mask was changed since fastseg wrote it")
    try:
        mask = read_mask(volume.mask, None)
    except InputError as error:
        return f"the mask cannot be used: {_said(error, volume.mask)}"
    try:
        seen.mask = on_grid(mask, seen.image.grid, volume.mask) if seen.image is not None else mask
    except InputError as error:
        if not changed:
            return f"the mask cannot be used: {_said(error, volume.mask)}"
        seen.image, seen.mask = None, mask
        seen.notes.append("no picture: the image that is there now has another grid")
    return ""


def _take_corrected(seen: Seen, volume: Finished, manual: Path) -> None:
    """Read a corrected mask, which then is shown; what the run said of its own becomes a note."""
    reference = seen.image or seen.mask
    try:
        grid = reference.grid if reference is not None else None
        seen.mask = read_corrected(manual, grid, level=seen.level)
    except InputError as error:
        seen.notes.append(f"the corrected mask {manual.name} is not shown: {_said(error, manual)}")
        return
    seen.corrected = True
    seen.notes.append(f"corrected by hand: {manual.name}")
    automatic = [*reasons_of(volume).sentences.values()]
    if {"MedianAreaMm2", "LengthMm"} <= volume.measures.keys():
        area, length = (volume.measures[name] for name in ("MedianAreaMm2", "LengthMm"))
        automatic.insert(0, f"{area:.0f} mm2 in the median, {length:.0f} mm long")
    if automatic:
        seen.notes.append(f"the automatic mask: {'; '.join(automatic)}")


def _describe(seen: Seen, volume: Finished, manual: Path, top: Path) -> None:
    sources = [volume.name]
    if volume.status.success:
        with suppress(ValueError):
            sources.append(volume.mask.relative_to(top).as_posix())
    try:
        remark = describe_corrected(manual, sources=sources)
    except OutputError as error:  # the results may be somebody else's; the report need not be
        remark = f"its sidecar was not written: {error}"
    if remark:
        seen.remarks.append(f"{volume.name}: {remark}")


def _said(error: Exception, path: Path) -> str:
    """What is wrong with a file, without its path."""
    return " ".join(str(error).split()).removeprefix(f"{path}: ")


def _frame(block: Mapping[str, Any]) -> Frame | None:
    """Which volume of a 4D file was segmented."""
    frame = block.get("Frame")
    return frame if type(frame) is int or frame == "mean" else None


def line_of(volume: Finished, seen: Seen) -> Centerline | None:
    """The centerline that was saved, if it can be used; pictures follow the mask otherwise.

    That of a corrected mask is left alone: it may be what was wrong.
    """
    if seen.image is None or seen.mask is None or seen.corrected:
        return None
    try:
        line = read_mask(centerline_path(volume.mask), seen.image.grid).reoriented(SCT_RPI)
    except InputError:
        return None
    x, y, z = np.nonzero(line.voxels)
    if not len(z):
        return None
    levels, where = np.unique(z, return_inverse=True)
    counts = np.bincount(where)
    points = [np.bincount(where, each) / counts for each in (x, y)]
    return Centerline(line.grid, np.column_stack([*points, levels]))
