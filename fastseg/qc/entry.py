"""What the report says about a volume: its row in the table, its details, how bad it is. All plain JSON."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastseg.outputs import split_suffix
from fastseg.qc.report import id_of
from fastseg.quality import LIMITS, Limit
from fastseg.volume import SCT_RPI, Volume

__all__ = ["areas_of", "detail_of", "header_of", "row_of", "severity"]

# What failed comes before what is flagged; what cannot be helped comes after what can.
_FAILED = {"no_cord": 100.0, "out_of_memory": 101.0, "bad_input": 102.0, "error": 103.0}
_SUBJECT = re.compile(r"(?:^|[/_])(sub-[A-Za-z0-9]+)")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z0-9])")

# Keys of a sidecar that have another name in the report; what the report says elsewhere has none.
_LABELS = {
    "Centerline": "Detector",
    "InputSha256": "Input sha256",
    **dict.fromkeys(("Status", "Flags", "Notes", "Quality"), ""),
}
_STEPS = {"detect": "Detection", "segment": "Segmentation"}


def severity(status: str, flags: Iterable[str], measures: Mapping[str, float]) -> float:
    """How urgently somebody should look at a volume.

    Parameters
    ----------
    status : of `fastseg.cohort.job.Status`
    flags, measures : of `fastseg.quality.Quality`

    Returns
    -------
    severity : 100 and more for what failed; else the number of flags, and below 1 more for how far the worst
        measure is beyond its limit; 0 for what is as it should be

    Examples
    --------
    >>> severity("ok", (), {}), severity("no_cord", (), {})
    (0.0, 100.0)
    >>> severity("ok_flagged", ["small_area"], {"MedianAreaMm2": 15.0})
    1.5
    >>> severity("ok_flagged", ["large_area"], {"MedianAreaMm2": 480.0})
    1.75
    """
    if status in _FAILED:
        return _FAILED[status]
    raised = list(flags)
    beyond = [_beyond(limit, measures) for limit in LIMITS if limit.flag in raised]
    return len(raised) + min(max(beyond, default=0.0), 0.999)


def _beyond(limit: Limit, measures: Mapping[str, float]) -> float:
    """How far a measure is beyond its limit: 0.5 at half or twice of it, whatever its unit."""
    value = float(measures.get(limit.measure, math.nan))
    if not math.isfinite(value):
        return 0.0
    if limit.below:
        return min(max(1 - value / limit.value, 0.0), 1.0)
    scale = limit.value or 1.0
    return max(1 - scale / max(scale + value - limit.value, scale), 0.0)


def row_of(
    *,
    name: str,
    mask: Path,
    dataset: str,
    contrast: str,
    status: str,
    subject: str = "",
    flags: Sequence[str] = (),
    measures: Mapping[str, float] | None = None,
    slices: int | None = None,
    message: str = "",
    seconds: Mapping[str, float] | None = None,
    engines: Mapping[str, str] | None = None,
    mask_sha256: str = "",
    pictures: bool = False,
    manual: bool = False,
    at: str = "",
) -> dict[str, Any]:
    """Describe a volume on one line of the table.

    Parameters
    ----------
    name : of the volume, relative to its data set
    mask : the result, also where there is none: the volume is known by this path
    dataset : its name
    contrast : that was given
    status : of `fastseg.cohort.job.Status`
    subject : empty: the participant that the name tells, else its folder, else its file
    flags, measures : of `fastseg.quality.Quality`
    slices : with cord; None: not known
    message : why it failed
    seconds : wall time by step
    engines : what ran, by step
    mask_sha256 : of the mask's file; empty where there is none
    pictures : whether there are any
    manual : whether the mask was corrected by hand
    at : ISO 8601 time in UTC; empty: now
    """
    known = measures or {}
    return {
        "id": id_of(mask),
        "name": name,
        "dataset": dataset,
        "subject": subject or _subject(name),
        "contrast": contrast,
        "status": str(status),
        "flags": list(flags),
        "severity": 0.0 if manual else round(severity(status, flags, known), 3),
        "message": message,
        "slices": None if slices is None else int(slices),
        "length_mm": _rounded(known.get("LengthMm"), 1),
        "area_mm2": _rounded(known.get("MedianAreaMm2"), 1),
        "seconds": _rounded(sum((seconds or {}).values()), 3) or 0.0,
        "engine": ", ".join(dict.fromkeys((engines or {}).values())),
        "manual": manual,
        "mask": mask_sha256[:12],
        "pictures": pictures,
        "at": at or datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
    }


def detail_of(
    *,
    image: Path | None,
    mask: Path,
    manual: Path,
    commands: Mapping[str, str] | None = None,
    areas: Iterable[Sequence[float]] = (),
    pitch_mm: float = 0.0,
    flag_slices: Mapping[str, Iterable[int]] | None = None,
    reasons: Mapping[str, str] | None = None,
    notes: Iterable[str] = (),
    measures: Mapping[str, float] | None = None,
    header: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Describe a volume when it is looked at; its pictures' layout is added by who writes them.

    Parameters
    ----------
    image : its file; None: not known
    mask : the result
    manual : where a corrected mask belongs
    commands : that open both in an editor, by the name of the editor
    areas : from `areas_of`
    pitch_mm : from slice to slice
    flag_slices : of each flag that is of some slices only, in SCT_RPI
    reasons : a sentence for each flag
    notes : what else was noticed
    measures : of `fastseg.quality.Quality`
    header : how it was made, from `header_of`
    """
    paths = {"image": image, "mask": mask, "manual": manual}
    return {
        "sheet": None,
        "areas": [[int(z), _rounded(area, 2)] for z, area in areas],
        "pitch_mm": _rounded(pitch_mm, 4) or 0.0,
        "flag_slices": {flag: [int(z) for z in slices] for flag, slices in (flag_slices or {}).items()},
        "reasons": dict(reasons or {}),
        "notes": list(notes),
        "measures": {name: _rounded(value, 4) for name, value in (measures or {}).items()},
        "header": dict(header or {}),
        "paths": {what: str(path.absolute()) if path else "" for what, path in paths.items()},
        "commands": dict(commands or {}),
    }


def header_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Say how a mask was made, for people.

    Parameters
    ----------
    record : from `fastseg.sidecar.sidecar`, or that was read from a file

    Returns
    -------
    header : texts by label, or texts by label by label; what the report says elsewhere is left out

    Examples
    --------
    >>> header_of({"GeneratedBy": [{"Name": "fastseg", "Version": "1.0"}],
    ...            "Fastseg": {"Contrast": "t2", "Soft": False, "Seconds": {"read": 0.25}, "Flags": []}})
    {'Version': 'fastseg 1.0', 'Contrast': 't2', 'Soft': 'no', 'Seconds': {'read': '0.25', 'total': '0.25'}}
    """
    makers = [each for each in record.get("GeneratedBy", ()) if isinstance(each, Mapping)]
    header: dict[str, Any] = {}
    if makers:
        header["Version"] = f"{makers[0].get('Name', '')} {makers[0].get('Version', '')}".strip()
    for key, value in record.get("Fastseg", {}).items():
        label = _LABELS.get(key, _label(key))
        if key == "Seconds" and isinstance(value, Mapping):
            value = {**value, "total": round(sum(value.values()), 4)}
        if key in ("Networks", "Engines") and isinstance(value, Mapping):
            value = {_STEPS.get(step, step): each for step, each in value.items()}
        told = _told(value)
        if label and told not in ("", {}):
            header[label] = told
    return header


def _label(key: str) -> str:
    """A key in words.

    Examples
    --------
    >>> _label("SlicesCovered"), _label("VolumeMm3")
    ('Slices covered', 'Volume mm3')
    """
    first, *others = _HUMP.sub(" ", key).split(" ")
    return (
        " ".join([first, *(other.lower() for other in others)]).replace("mm 3", "mm3").replace("mm 2", "mm2")
    )


def _told(value: object) -> Any:
    """A value in words; a mapping stays one, of one level."""
    if isinstance(value, Mapping) and "Name" in value:
        digest = str(value.get("Sha256") or value.get("Digest") or "").removeprefix("sha256:")
        return f"{value['Name']} ({digest[:12]})" if digest else str(value["Name"])
    if isinstance(value, Mapping):
        return {_label(str(key)): _flat(_told(each)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return {str(number): _flat(_told(each)) for number, each in enumerate(value, 1)}
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _flat(told: object) -> str:
    return ", ".join(map(str, told.values())) if isinstance(told, Mapping) else str(told)


def areas_of(mask: Volume, threshold: float = 0.5) -> list[list[float]]:
    """Measure the cord on each slice, in the axial voxel plane.

    Parameters
    ----------
    mask : any orientation, 0/1 or soft
    threshold : above which a voxel is cord

    Returns
    -------
    areas : [z, mm2] of each slice of SCT_RPI that has cord, from the lowest to the highest

    Notes
    -----
    The mask is read once, in the order in which it lies in memory, for the largest value of each of its
    planes; voxels are counted in the box of those that have cord.

    Examples
    --------
    >>> from fastseg.volume import Grid
    >>> voxels = np.zeros((9, 9, 4), np.uint8)
    >>> voxels[3:6, 3:6, 1:3] = 1
    >>> areas_of(Volume(voxels, Grid(voxels.shape, np.diag([0.5, 0.5, 4.0, 1.0]))))
    [[1, 2.25], [2, 2.25]]
    """
    turned = mask.reoriented(SCT_RPI)
    voxels = turned.voxels
    reduce = np.fmax.reduce if np.issubdtype(voxels.dtype, np.floating) else np.maximum.reduce
    first_z = 0
    # The slowest axis first: its planes lie together, and leave the others less to read.
    for axis in sorted(range(3), key=lambda axis: -abs(voxels.strides[axis])):
        others = tuple(each for each in range(3) if each != axis)
        there = np.flatnonzero(reduce(_forwards(voxels, others), axis=others) > threshold)
        if not len(there):
            return []
        voxels = voxels[tuple(slice(there[0], there[-1] + 1) if a == axis else slice(None) for a in range(3))]
        first_z = int(there[0]) if axis == 2 else first_z
    counts = (voxels > threshold).sum(axis=(0, 1))
    x_mm, y_mm, _ = turned.grid.zooms
    return [[int(z) + first_z, round(float(counts[z]) * x_mm * y_mm, 4)] for z in np.flatnonzero(counts)]


def _forwards(voxels: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """The same planes, read forwards through the memory: backwards takes three times as long."""
    steps = (-1 if axis in axes and stride < 0 else 1 for axis, stride in enumerate(voxels.strides))
    return voxels[tuple(slice(None, None, step) for step in steps)]


def _subject(name: str) -> str:
    found = _SUBJECT.search(name)
    if found:
        return found[1]
    folder, _, last = name.rpartition("/")
    return folder.rpartition("/")[2] or split_suffix(last)[0]


def _rounded(value: float | None, digits: int) -> float | None:
    return round(float(value), digits) if value is not None and math.isfinite(value) else None
