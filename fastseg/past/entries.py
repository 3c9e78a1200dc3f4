"""The entry of one volume that a run of the past finished with: what is shown of it, and what is said."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastseg.cohort.failures import failure_of
from fastseg.cohort.fingerprints import file_digest
from fastseg.cohort.job import Status
from fastseg.cohort.memory import budget_bytes, rss_bytes
from fastseg.errors import InputError, OutputError
from fastseg.nifti import probe_volume
from fastseg.outputs import outputs_of
from fastseg.past.seen import Seen, line_of, look
from fastseg.past.volumes import Finished, Found, Places, Reasons, read_record, reasons_of
from fastseg.qc.editors import commands, manual_path
from fastseg.qc.entry import areas_of, detail_of, header_of, row_of
from fastseg.qc.pictures import Sheet, draw
from fastseg.qc.report import id_of, write_volume_files
from fastseg.volume import SCT_RPI

__all__ = ["Made", "Maker"]

_logger = logging.getLogger(__name__)

# Of an entry under way, per voxel of the image: what was read, its scaled copy, the mask.
_PER_VOXEL, _FIXED = 14, 20_000_000


@dataclass(frozen=True, slots=True)
class Made:
    """What came of an entry.

    Parameters
    ----------
    name : of the volume
    row : of the report; None: the one that is there still holds
    pictures : whether it has any
    corrected : whether it shows a mask corrected by hand
    lost : whether the image was not found
    remarks : what the user should know beside what the entry says
    """

    name: str
    row: dict[str, Any] | None = None
    pictures: bool = False
    corrected: bool = False
    lost: bool = False
    remarks: tuple[str, ...] = ()


class Maker:
    """Makes entries, in any thread.

    Parameters
    ----------
    folder : of the report, which is entered already
    places : where images may lie
    known : rows of the report by id; none: all entries are made anew
    dataset, subject : for all entries; empty: from the folder of the images, and from names
    top : output folder, to which sidecars of corrected masks name the automatic one relatively
    """

    def __init__(
        self,
        folder: Path,
        places: Places,
        known: Mapping[str, dict[str, Any]],
        *,
        dataset: str,
        subject: str,
        top: Path,
    ) -> None:
        self._folder, self._places, self._known = folder, places, known
        self._dataset, self._subject, self._top = dataset, subject, top.absolute()
        self._room = _Room(max(budget_bytes() - rss_bytes(), 0))

    def make(self, volume: Finished) -> Made:
        """Make the entry of a volume; what is wrong with its files is said in the entry.

        Raises
        ------
        OutputError
            The report cannot be written.
        """
        try:
            return self._make(volume)
        except OutputError:
            raise
        except Exception as error:  # a bug, or no memory: it costs this entry alone
            _logger.debug("%s: no entry", volume.name, exc_info=True)
            _, message = failure_of(error, volume.mask)
            seen = Seen(Status.ERROR, f"no entry could be made: {message}")
            return self._write(volume, seen, None, None, {}, "")

    def _make(self, volume: Finished) -> Made:
        manual = manual_path(volume.mask)
        # What lies there of a volume that failed is of an earlier run.
        there = (volume.mask, manual) if volume.status.success else (manual,)
        digests = {volume.mask: "", **{path: _digest(path) for path in there}}
        if digests[manual] == digests[volume.mask]:  # a copy that was opened, and not saved
            digests[manual] = ""
        nothing = volume.status is Status.SKIPPED and not any(digests.values())
        found = None if nothing else self._places.find(volume)
        kept = self._kept(volume, digests[manual] or digests[volume.mask], bool(digests[manual]), found)
        if kept is not None:
            return kept
        record = read_record(outputs_of(volume.mask).sidecar)
        with self._room.taken(_needed(found)):
            seen = look(volume, found, record, digests, self._top)
            shown = digests[manual if seen.corrected else volume.mask] if seen.mask is not None else ""
            made = self._write(volume, seen, found, self._draw(volume, seen), record, shown)
        lost = found is None and not nothing
        return Made(made.name, made.row, made.pictures, made.corrected, lost, tuple(seen.remarks))

    def _kept(self, volume: Finished, digest: str, corrected: bool, found: Found | None) -> Made | None:
        """The entry that is there, if it shows what there is to show."""
        key = id_of(volume.mask)
        row = self._known.get(key)
        if (
            row is None
            or (row["mask"], row["manual"]) != (digest[:12], corrected)
            or (row["name"], row["status"]) != (volume.name, volume.status)
            or row["dataset"] != (self._dataset or row["dataset"])
            or row["subject"] != (self._subject or row["subject"])
            or not (row["pictures"] or found is None or volume.status is Status.BAD_INPUT)
            or not (self._folder / "volumes" / key[:2] / f"{key}.js").is_file()
        ):
            return None
        lost = found is None and volume.status is not Status.SKIPPED
        return Made(volume.name, None, row["pictures"], corrected, lost)

    def _draw(self, volume: Finished, seen: Seen) -> Sheet | None:
        if seen.image is None:
            return None
        slices = [] if seen.corrected else reasons_of(volume).slices.values()
        shown = sorted({z for each in slices for z in each})
        try:
            return draw(seen.image, seen.mask, line_of(volume, seen), threshold=seen.level, shown=shown)
        except Exception as error:  # whatever it is, the rest of the entry is worth having
            _logger.debug("%s: no picture", volume.name, exc_info=True)
            seen.notes.append(f"no picture: {failure_of(error, volume.mask)[1]}")
            return None

    def _write(
        self,
        volume: Finished,
        seen: Seen,
        found: Found | None,
        sheet: Sheet | None,
        record: Mapping[str, Any],
        shown: str,
    ) -> Made:
        """Write the files of an entry, and give its row."""
        manual, reasons = manual_path(volume.mask), reasons_of(volume)
        areas = areas_of(seen.mask, seen.level) if seen.mask is not None else []
        pitch = seen.mask.grid.reoriented(SCT_RPI).zooms[2] if seen.mask is not None else 0.0
        automatic = not seen.corrected
        measures = volume.measures if automatic else _measured(areas, pitch)
        there = manual if seen.corrected else volume.mask if seen.mask is not None else None
        row = row_of(
            name=volume.name,
            mask=volume.mask,
            dataset=self._dataset or self._places.dataset_of(volume, found),
            contrast=volume.contrast,
            status=seen.status,
            subject=self._subject,
            flags=volume.flags if automatic else (),
            measures=measures,
            slices=len(areas) if seen.mask is not None else None,
            message=seen.message,
            seconds=volume.seconds,
            engines=volume.engines,
            mask_sha256=shown,
            pictures=sheet is not None,
            manual=seen.corrected,
        )
        detail = detail_of(
            image=found.path if found is not None else None,
            mask=volume.mask,
            manual=manual,
            commands=commands(found.path, there, manual) if found is not None else {},
            areas=areas,
            pitch_mm=pitch,
            flag_slices=_slices(reasons, areas) if automatic else {},
            reasons=reasons.sentences if automatic else {},
            notes=[*seen.notes, *reasons.others],
            measures=measures,
            header=_header(volume, record),
        )
        write_volume_files(self._folder, row, detail, sheet)
        return Made(volume.name, row, sheet is not None, seen.corrected)


def _measured(areas: Sequence[Sequence[float]], pitch: float) -> dict[str, float]:
    """What is measured of a mask that no network made."""
    area = [mm2 for _, mm2 in areas]
    return {"LengthMm": len(area) * pitch, "MedianAreaMm2": float(np.median(area))}


def _slices(reasons: Reasons, areas: Sequence[Sequence[float]]) -> dict[str, list[int]]:
    """Slices of flags: of gaps all of them, of others those that their reasons name."""
    slices = dict(reasons.slices)
    if "missing_slices" in slices and areas:
        z = [int(each) for each, _ in areas]
        slices["missing_slices"] = sorted({*range(z[0], z[-1])} - {*z})
    return slices


def _header(volume: Finished, record: Mapping[str, Any]) -> dict[str, Any]:
    """How the mask was made: as its sidecar says, else as the ledger does."""
    with suppress(TypeError, ValueError, AttributeError):  # where somebody wrote to the sidecar
        if record:
            return header_of(record)
    facts = {"Contrast": volume.contrast, "Engines": volume.engines, "Seconds": volume.seconds}
    sha256 = volume.known.get("sha256")
    return header_of({"Fastseg": facts | ({"InputSha256": sha256} if isinstance(sha256, str) else {})})


def _digest(path: Path) -> str:
    """The sha256 of a file; empty where it is missing or cannot be read."""
    try:
        return file_digest(path)
    except OSError:
        return ""


def _needed(found: Found | None) -> int:
    """Bytes that an entry takes while it is made."""
    if found is not None:
        with suppress(InputError):
            facts = probe_volume(found.path)
            return _FIXED + math.prod(facts.grid.shape) * (_PER_VOXEL + facts.dtype.itemsize)
    return _FIXED


class _Room:
    """Memory that entries under way share; one that takes all of it, or more, is made alone."""

    def __init__(self, n_bytes: int) -> None:
        self._all = self._left = n_bytes
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, n_bytes: int) -> Iterator[None]:
        taken = min(n_bytes, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= taken)
            self._left -= taken
        try:
            yield
        finally:
            with self._changed:
                self._left += taken
                self._changed.notify_all()
