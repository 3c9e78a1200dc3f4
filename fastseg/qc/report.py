"""The folder of a report: files of each volume, journals of rows, and the index that the page reads.

Many processes may write to one report, on several machines. Whatever has its name is whole: files are renamed
to it, and rows are lines of journals (`fastseg.qc.journal`). The index is made from these, at any time anew.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from hashlib import sha256
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fastseg.errors import OutputError
from fastseg.outputs import not_writable, write_file
from fastseg.qc import journal
from fastseg.qc.identity import identify, identity
from fastseg.qc.marks import FLAGS, read_flags, renew_lists
from fastseg.qc.sct_form import sct_entry

if TYPE_CHECKING:
    from fastseg.qc.pictures import Sheet

__all__ = ["Report", "check_writable", "id_of", "page_files", "script_json", "write_volume_files"]

# An index is made after so many seconds, and again when making it takes less than this share of the time.
_FIRST_SECONDS, _SHARE = 3.0, 0.02
# How long the last index of a run waits for other processes.
_PATIENCE_SECONDS = 60.0
# What a killed process left half-written is removed after so long.
_STALE_SECONDS = 3600.0
_INERT = re.compile(rb"[ -%'-;=?-~]*\n?")
_ESCAPES = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"))


def script_json(value: object) -> str:
    """JSON that is inert in a script: ASCII, and without what could end the script or begin a tag.

    Numbers that are not finite become null.

    Examples
    --------
    >>> script_json({"name": "</script>", "area": float("nan")})
    '{"name":"\\\\u003c/script\\\\u003e","area":null}'
    """
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)
    for letter, escape in _ESCAPES:
        text = text.replace(letter, escape)
    return text


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def id_of(mask: Path) -> str:
    """Name a volume in the report: by where its mask lies, or would lie.

    Returns
    -------
    id : 16 hexadecimal digits
    """
    return sha256(os.fsencode(os.path.abspath(mask))).hexdigest()[:16]  # noqa: PTH100  # resolves no links


def page_files() -> dict[str, bytes]:
    """Files of the page by name, without those of the page of one volume, which only a server shows."""
    folder = resources.files("fastseg.qc").joinpath("page")
    names = sorted(
        each.name
        for each in folder.iterdir()
        if each.is_file() and not each.name.startswith(("volume.", "."))
    )
    return {name: folder.joinpath(name).read_bytes() for name in names}


def check_writable(folder: Path) -> None:
    """Make a report's folder ready, if it is not.

    Raises
    ------
    OutputError
        It cannot be written, holds something else, or is of another version of fastseg.
    """
    with _writing(folder):
        (folder / journal.FOLDER).mkdir(parents=True, exist_ok=True)
        identify(folder)
        probe = journal.temporary(folder)
        probe.write_bytes(b"fastseg\n")
        probe.unlink()


def write_volume_files(
    folder: Path, row: Mapping[str, Any], detail: Mapping[str, Any], sheet: Sheet | None
) -> None:
    """Write the files of one volume: its pictures, its details, and its entry in SCT's form.

    May run anywhere and several times; what is there is replaced, one whole file after the other.

    Parameters
    ----------
    folder : of the report
    row, detail : from `fastseg.qc.entry`; the layout of the sheet is added
    sheet : None: pictures of an earlier result are removed

    Raises
    ------
    OutputError
        Something cannot be written.
    """
    key = _checked(row["id"])
    place = folder / "volumes" / key[:2]
    pictures = {".jpg": sheet.image, ".png": sheet.outline, "_thumb.jpg": sheet.thumbnail} if sheet else {}
    shown = {**detail, "sheet": sheet.layout if sheet else None}
    entry = sct_entry(row, detail, f"volumes/{key[:2]}/{key}")
    with _writing(place):
        for each in (place, folder / "_json"):
            each.mkdir(parents=True, exist_ok=True)
        for tail in (".jpg", ".png", "_thumb.jpg"):
            if tail in pictures:
                _replace(folder, place / (key + tail), pictures[tail])
            else:
                (place / (key + tail)).unlink(missing_ok=True)
        script = f'fastsegDetail("{key}", {script_json(shown)});\n'
        _replace(folder, place / f"{key}.js", script.encode())
        _replace(folder, folder / "_json" / f"qc_{key}.json", script_json(entry).encode())


class Report:
    """A report on the disk.

    A context manager for those who write to it; who only reads needs not enter it.

    Parameters
    ----------
    folder : of the report; made when it is entered and missing

    Raises
    ------
    OutputError
        The folder cannot be written, holds something else, or is of another version of fastseg.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._journal = journal.Journal(folder)
        self._lock = threading.Lock()
        self._next = time.monotonic() + _FIRST_SECONDS

    def __enter__(self) -> Self:
        check_writable(self.folder)
        with _writing(self.folder):
            self._remove_parts()
            self._write_page()
        self._next = time.monotonic() + _FIRST_SECONDS
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()
        if error is None:
            self.publish()
        else:  # what went wrong first is what the user has to hear of
            with suppress(OutputError):
                self.publish()

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What report.json says: ``version``, ``uuid`` and when it was ``made``.

        Raises
        ------
        OutputError
            It is no report, or one of another version.
        """
        return identity(self.folder)

    def add(self, row: Mapping[str, Any], detail: Mapping[str, Any], sheet: Sheet | None) -> None:
        """Write a volume's files and its row; now and then make the index.

        Raises
        ------
        OutputError
            Something cannot be written.
        """
        row = {**row, "pictures": sheet is not None}
        write_volume_files(self.folder, row, detail, sheet)
        self.note(row)

    def note(self, row: Mapping[str, Any]) -> None:
        """Write the row of a volume whose files are there; now and then make the index.

        May be called from several threads.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        _checked(row["id"])
        self._journal.append(script_json(row).encode())
        if time.monotonic() >= self._next and self._lock.acquire(blocking=False):
            try:
                self._publish(0.0)
            finally:
                self._lock.release()

    def rows(self) -> list[dict[str, Any]]:
        """The row of each volume, the worst first.

        Raises
        ------
        OutputError
            A journal cannot be read.
        """
        with _reading(self.folder):
            rows = journal.newest(self.folder, seen=lambda row, _: row)
        return sorted(rows.values(), key=_order)

    def detail(self, key: str) -> dict[str, Any] | None:
        """What the file of a volume says; None where there is none that can be read.

        Raises
        ------
        OutputError
            The key is no id of a volume.
        """
        _checked(key)
        begin, end = f'fastsegDetail("{key}", ', ");"
        with suppress(OSError, ValueError, RecursionError):
            path = self.folder / "volumes" / key[:2] / f"{key}.js"
            text = path.read_bytes().decode("ascii").rstrip("\n")
            if text.startswith(begin) and text.endswith(end):
                detail = json.loads(text[len(begin) : -len(end)])
                return detail if isinstance(detail, dict) else None
        return None

    def publish(self) -> None:
        """Make index.js from all journals, so that no row that is written by now is missing; renew the lists.

        Raises
        ------
        OutputError
            It cannot be written, or a journal cannot be read.
        """
        with self._lock:
            self._publish(_PATIENCE_SECONDS)
        if (self.folder / FLAGS).exists():  # what was judged may have been made anew
            renew_lists(self.folder, self.rows())

    def _publish(self, wait: float) -> None:
        """Make the index, or leave it to the process that is making one if there is no time to wait."""
        seconds = 0.0
        with _writing(self.folder), journal.locked(self.folder / journal.FOLDER / ".lock", wait) as turn:
            # The second of two others who made one meanwhile began after we asked: ours is in it.
            if turn.passed < 2 and (turn.alone or wait):  # who holds the lock for so long is stuck
                began = time.monotonic()
                if turn.alone:
                    journal.merge(self.folder)
                self._write_index()
                seconds = time.monotonic() - began
        self._next = time.monotonic() + max(_FIRST_SECONDS, seconds / _SHARE)

    def _write_index(self) -> None:
        rows = journal.newest(self.folder, seen=_script_row)
        head = script_json({**self.identity, "volumes": [], "marks": read_flags(self.folder)})
        before, after = head.split('"volumes":[]', 1)
        part = journal.temporary(self.folder)
        try:
            with part.open("w", encoding="ascii") as stream:
                stream.write(f'fastsegIndex({before}"volumes":[')
                for number, (_, _, text) in enumerate(sorted(rows.values())):
                    stream.write((",\n" if number else "\n") + text)
                stream.write(f"]{after});\n")
            part.replace(self.folder / "index.js")
        finally:
            part.unlink(missing_ok=True)

    def _write_page(self) -> None:
        for name, content in page_files().items():
            path = self.folder / name if name == "index.html" else self.folder / "page" / name
            if not (path.is_file() and path.read_bytes() == content):
                path.parent.mkdir(exist_ok=True)
                _replace(self.folder, path, content)

    def _remove_parts(self) -> None:
        for path in journal.temporary(self.folder).parent.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()


def _order(row: Mapping[str, Any]) -> tuple[float, str]:
    return -row["severity"], row["name"]


def _script_row(row: Mapping[str, Any], line: bytes) -> tuple[float, str, str]:
    """A row as it goes into the index, behind its place in it."""
    if _INERT.fullmatch(line):  # as we write them
        return *_order(row), line.decode("ascii").strip()
    return *_order(row), script_json(row)


def _checked(key: object) -> str:
    if not journal.is_id(key):
        raise OutputError(f"{str(key)[:40]!r} is no id of a volume: make it with id_of")
    return str(key)


def _replace(folder: Path, path: Path, content: bytes) -> None:
    write_file(path, content, temporary=journal.temporary(folder), place=journal.PLACE)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise not_writable(path, error, journal.PLACE) from error


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be read ({error.strerror}); mend its permissions") from error
