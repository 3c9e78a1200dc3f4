"""Lists of volumes with options of their own: TSV and CSV files, and the lines of a stream.

============ ==============================================================================
column       what it says; an empty cell and n/a say nothing
============ ==============================================================================
input        the volume; also called path or file
contrast     t1, t2, t2s, dwi or auto
centerline   auto, svm or cnn; or a file with a centerline or mask drawn on the volume
kernel       2d, 2d-light or 3d
threshold    0 to 1; -1 means soft
soft         true or false
frame        of a 4D volume: a number from 0, or mean
output       the mask, relative to OUT
============ ==============================================================================
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from fastseg.errors import InputError, OptionError
from fastseg.options import Options
from fastseg.outputs import is_volume_name

if TYPE_CHECKING:
    from fastseg.nifti_header import Frame

__all__ = ["Row", "RowList", "is_list_name", "parse_line", "read_list"]

_COLUMNS = ("input", "contrast", "centerline", "kernel", "threshold", "soft", "frame", "output")
_ALIASES = {"path": "input", "file": "input"}
_METHODS = ("auto", "svm", "cnn")
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Row:
    """One volume of a list.

    Parameters
    ----------
    where : in the list, for messages
    source : the volume
    options : those of the command line, with what the row says instead
    frame : of a 4D file, which of its volumes
    centerline : drawn on the volume; empty: none
    method_given : whether the row says how the centerline is found
    output : mask, relative to the output folder; empty: as named by the scheme
    """

    where: str
    source: str
    options: Options
    frame: Frame | None = None
    centerline: str = ""
    method_given: bool = False
    output: str = ""


@dataclass(frozen=True, slots=True)
class RowList:
    """All rows of a file, and what is odd about it."""

    rows: list[Row]
    remarks: list[str]


def is_list_name(word: str) -> bool:
    """Whether the name is that of a list."""
    return word.lower().endswith((".tsv", ".csv"))


def read_list(path: Path, options: Options, frame: Frame | None = None) -> RowList:
    """Read a list of volumes.

    Relative paths are relative to the folder of the list; where nothing of that name is there, to the current
    folder.

    Parameters
    ----------
    path : .tsv, or .csv with commas or semicolons; its first line names the columns
    options, frame : where a row says nothing

    Raises
    ------
    InputError
        The file cannot be read, or is no list.
    OptionError
        A cell is out of range, or two do not go together.
    """
    try:
        # Names need not be UTF-8: what is not becomes what the operating system's names become.
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: the list cannot be read ({error.strerror}); name another") from error
    first = text.partition("\n")[0]
    comma = ";" if first.count(";") > first.count(",") else ","
    delimiter = "\t" if path.name.lower().endswith(".tsv") else comma
    lines = _lines(path, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    _, head = next(lines, (1, []))
    names = [_ALIASES.get(name, name) for name in (cell.strip().lower() for cell in head)]
    for name in _COLUMNS:
        if names.count(name) > 1:
            raise InputError(f"{path} line 1: two columns say {name}; keep one")
    if "input" not in names:
        raise InputError(f"{path} line 1: no column input; let the first line name the columns")
    unknown = [cell.strip() for cell, name in zip(head, names, strict=True) if name not in _COLUMNS]
    remarks = [f"{path}: columns that are not used: {', '.join(map(repr, unknown))}"] if unknown else []
    rows = []
    folder = str(path.parent)
    for number, cells in lines:
        where = f"{path} line {number}"
        if len(cells) > len(names):
            raise InputError(f"{where}: {len(cells)} cells for {len(names)} columns; mend the line")
        rows.append(_row(dict(zip(names, cells, strict=False)), options, frame, where, folder))
    return RowList(rows, remarks)


def parse_line(line: bytes | str, where: str, options: Options, frame: Frame | None = None) -> Row | None:
    """Read a line of a stream: a path, or a JSON object with the columns of a list as keys.

    Parameters
    ----------
    line : with or without its end; a name in bytes need not be UTF-8
    where : for messages
    options, frame : where the line says nothing

    Returns
    -------
    row : paths are relative to the current folder; None for an empty line

    Raises
    ------
    OptionError
        The line is neither, or a value is out of range.
    """
    text = (os.fsdecode(line) if isinstance(line, bytes) else line).rstrip("\r\n")
    if not text.strip():
        return None
    if not text.lstrip().startswith("{"):
        return _row({"input": text}, options, frame, where)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{where}: is no JSON object ({error}); mend it") from error
    unknown = [key for key in values if _ALIASES.get(key, key) not in _COLUMNS]
    if unknown:
        raise OptionError(f"{where}: unknown key {unknown[0]!r}; there are {', '.join(_COLUMNS)}")
    cells: dict[str, str] = {}
    for key, value in values.items():
        name = _ALIASES.get(key, key)
        if name in cells:
            raise OptionError(f"{where}: two keys say {name}; keep one")
        cells[name] = _cell(name, value, where)
    return _row(cells, options, frame, where)


def _cell(name: str, value: Any, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    raise OptionError(f"{where}: {name} is neither text nor a number")


def _lines(path: Path, reader: Any) -> Iterator[tuple[int, Sequence[str]]]:
    """Rows that are not empty, with the numbers of the lines on which they begin."""
    begins = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path} line {begins}: cannot be read ({error}); mend its quotes") from error


def _row(
    cells: Mapping[str, str], options: Options, frame: Frame | None, where: str, folder: str | None = None
) -> Row:
    # A name may begin or end with a space; what else is in a cell may not.
    said = {name: cell.strip() for name, cell in cells.items() if cell.strip() not in ("", "n/a")}
    if "input" not in said:
        raise OptionError(f"{where}: names no input")
    if any("\0" in cell for cell in said.values()):
        raise OptionError(f"{where}: holds a NUL, which no name of a file may; mend it")
    centerline, detector = said.get("centerline", ""), None
    if centerline.lower() in _METHODS:
        centerline, detector = "", centerline.lower()
    elif centerline:
        centerline, detector = _resolved(cells["centerline"], folder), "file"
        if not Path(centerline).is_file():
            said_there = cells["centerline"]
            raise OptionError(f"{where}: centerline {said_there!r} is neither auto, svm or cnn, nor a file")
    try:
        changed = _changed(
            options,
            said.get("contrast", "").lower(),
            detector,
            said.get("kernel", "").lower(),
            said.get("threshold"),
            said.get("soft"),
        )
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from error
    return Row(
        where,
        _resolved(cells["input"], folder),
        changed,
        _frame(said["frame"], where) if "frame" in said else frame,
        centerline,
        detector is not None,
        _output(said["output"], where) if "output" in said else "",
    )


@lru_cache(maxsize=1024)
def _changed(
    options: Options,
    contrast: str,
    detector: str | None,
    kernel: str,
    threshold: str | None,
    soft: str | None,
) -> Options:
    """Options with what a row says instead; equal rows share one."""
    changes: dict[str, Any] = {}
    if contrast:
        changes["contrast"] = contrast
    if detector:
        changes["detector"] = detector
    if kernel:
        changes["kernel"] = kernel
    if soft is not None:
        if soft.lower() not in _TRUTHS:
            raise OptionError(f"soft {soft!r}: write true or false")
        changes["soft"] = _TRUTHS[soft.lower()]
        if changes["soft"]:
            changes["threshold"] = None
    if threshold is not None:
        try:
            value = float(threshold)
        except ValueError as error:
            raise OptionError(f"threshold {threshold!r}: must lie between 0 and 1") from error
        if value == -1:
            changes |= {"soft": True, "threshold": None}
        elif changes.get("soft"):
            raise OptionError("threshold and soft exclude each other: leave one of them empty")
        else:
            changes |= {"soft": False, "threshold": value}
    return replace(options, **changes) if changes else options


def _frame(cell: str, where: str) -> Frame:
    if cell.lower() == "mean":
        return "mean"
    if not (cell.isascii() and cell.isdecimal()):
        raise OptionError(f"{where}: frame {cell!r} is neither 'mean' nor the number of a volume (from 0)")
    return int(cell)


def _output(cell: str, where: str) -> str:
    place = PurePath(cell)
    if place.is_absolute() or ".." in place.parts:
        raise OptionError(f"{where}: output {cell!r} must lie in the output folder: give a relative path")
    if not is_volume_name(cell):
        raise OptionError(f"{where}: output {cell!r} is no name of a volume: let it end in .nii.gz or .nii")
    return cell


def _resolved(written: str, folder: str | None) -> str:
    """Path in the folder of a list, or in the current one where only there something is so called."""
    if folder is None:
        return written
    beside = os.path.join(folder, written)  # noqa: PTH118  of 100,000 strings
    return written if not os.path.lexists(beside) and os.path.lexists(written) else beside
