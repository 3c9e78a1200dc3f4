"""Journals of a report: one file for each writing process, a JSON row a line, only ever added to.

A line goes to the disk in one write, so that what a killed process leaves is at most one line that is cut
off. Of one volume the row with the newest time counts.

A writer holds the lock of its journal while it lives: the lock is the operating system's and dies with it.
So one can tell which journals nobody writes to any more, and put many of them together.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastseg.outputs import not_writable

__all__ = ["FOLDER", "PLACE", "Journal", "Turn", "is_id", "locked", "merge", "newest", "temporary"]

#: Folder of the journals in a report.
FOLDER = "journal"
#: What to choose another one of where a report cannot be written.
PLACE = "folder for the report"
# So many journals are read one by one.
_MANY = 50
# So often they may be put together while they are read.
_ATTEMPTS = 5
# A journal that another machine wrote is left alone for so long: not every file system tells it of our locks.
_OLD_SECONDS = 86_400.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

_ID = re.compile(r"[0-9a-f]{16}")
_NUMBERS = ("severity", "seconds", "slices", "length_mm", "area_mm2")
# Types of what a row says: the page and its readers rely on them.
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("id", "name", "status", "at"), str),
    **dict.fromkeys(("dataset", "subject", "contrast", "message", "engine", "mask"), str),
    **dict.fromkeys(_NUMBERS[:2], (int, float)),
    **dict.fromkeys(_NUMBERS[2:], (int, float, type(None))),
    **dict.fromkeys(("manual", "pictures"), bool),
    "flags": list,
}


def is_id(text: object) -> bool:
    """Whether it is the id of a volume: only such a thing may become a part of a path."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line as a row, if it is one of ours and whole."""
    with suppress(ValueError, RecursionError, OverflowError):
        row = _decoder.decode(line.decode())
        if (
            isinstance(row, dict)
            and is_id(row.get("id"))
            and all(map(isinstance, map(row.get, _TYPES), _TYPES.values()))
            and math.isfinite(math.fsum(row[key] or 0 for key in _NUMBERS))
            and all(isinstance(flag, str) for flag in row["flags"])
        ):
            return row
    return None


def newest(report: Path, *, seen: Callable[[dict[str, Any], bytes], Any]) -> dict[str, Any]:
    """The newest row of each volume; lines that are torn, or that something else wrote, are passed over.

    Parameters
    ----------
    report : its folder
    seen : makes of a row and its line, which ends as it stands there, what is to be kept of it

    Returns
    -------
    kept : by the id of the volume

    Raises
    ------
    OSError
        A journal cannot be read.
    """
    for attempt in range(_ATTEMPTS):
        kept: dict[str, tuple[str, Any]] = {}
        try:
            for path in sorted((report / FOLDER).glob("*.jsonl")):
                _take(path, kept, seen)
        except FileNotFoundError:  # in this moment it was put together with others: its rows are there now
            if attempt + 1 == _ATTEMPTS:
                raise
            continue
        break
    return {key: value for key, (_, value) in kept.items()}


def _take(path: Path, kept: dict[str, tuple[str, Any]], seen: Callable[[dict[str, Any], bytes], Any]) -> None:
    with path.open("rb") as stream:
        for line in stream:
            row = _parsed(line)
            if row is not None and row["at"] >= kept.get(row["id"], ("",))[0]:
                kept[row["id"]] = row["at"], seen(row, line)


class Journal:
    """The journal of this process. It is made with its first line; lines may come from several threads.

    Parameters
    ----------
    report : folder of the report
    """

    def __init__(self, report: Path) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._file = -1
        self._process = 0
        self._cut = False
        self._path = report / FOLDER

    def append(self, line: bytes) -> None:
        """Add a line, without its end.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        with self._lock:
            try:
                self._open()
                # What an earlier write left of its line becomes a line of its own.
                content = b"\n" * self._cut + line + b"\n"
                self._cut = True
                written = os.write(self._file, content)
                if written < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._cut = False
            except OSError as error:
                raise not_writable(self._path, error, PLACE) from error

    def close(self) -> None:
        """Let go of the journal; a later line opens another one."""
        with self._lock:
            self._close()

    def _open(self) -> None:
        if self._file >= 0:
            # Two processes that forked apart, or a journal that somebody removed: another one is begun.
            with suppress(OSError):
                if self._process == os.getpid() and os.fstat(self._file).st_nlink:
                    return
            self._close()
        self._process = os.getpid()
        host = re.sub(r"[^A-Za-z0-9_.]", "-", socket.gethostname())[:64]
        self._path = self._report / FOLDER / f"{host}-{self._process}-{secrets.token_hex(4)}.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file, self._cut = os.open(self._path, flags, 0o666), False
        _try_lock(self._file)

    def _close(self) -> None:
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
        self._file = -1


def merge(report: Path, *, many: int = _MANY) -> int:
    """Put the journals to which nobody writes any more together, where there are many; gives how many.

    Only one process at a time may do it. A kill at any moment loses no row: the journals go when the file
    with all of their rows has its name.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    if len(list((report / FOLDER).glob("*.jsonl"))) <= many:
        return 0
    kept: dict[str, tuple[str, Any]] = {}
    ended: list[Path] = []
    for path in sorted((report / FOLDER).glob("*.jsonl")):
        with path.open("rb") as stream:
            if _is_done(path) and _try_lock(stream.fileno()) is True:
                _take(path, kept, lambda _, line: line)
                ended.append(path)
    if len(ended) < 2:
        return 0
    rows = b"".join(line.rstrip(b"\n") + b"\n" for _, line in kept.values())
    target = report / FOLDER / f"merged-{secrets.token_hex(8)}.jsonl"
    part = temporary(report)
    with part.open("wb") as stream:
        stream.write(rows)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(target)
    for path in ended:
        path.unlink(missing_ok=True)
    return len(ended)


def _is_done(path: Path) -> bool:
    """Whether the lock of a journal can be believed: it is of this machine, or has not grown for long."""
    host = re.sub(r"[^A-Za-z0-9_.]", "-", socket.gethostname())[:64]
    here = path.name.startswith((f"{host}-", "merged-"))
    return here or time.time() - path.stat().st_mtime > _OLD_SECONDS


def _try_lock(file: int) -> bool | None:
    """Take the lock of an open file, if nobody has it; None where the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


@dataclass(frozen=True, slots=True)
class Turn:
    """Somebody's turn at a lock.

    Parameters
    ----------
    alone : whether nobody else has the lock; also true where the file system has none
    passed : how many others had a turn, and ended it well, while one waited
    """

    alone: bool
    passed: int = 0


@contextmanager
def locked(path: Path, wait: float = 60.0) -> Iterator[Turn]:
    """Hold a lock of the report. Its file grows by a byte with each turn that ends well.

    Parameters
    ----------
    path : of the lock; made when missing
    wait : seconds to wait for whoever has it

    Raises
    ------
    OSError
        The file cannot be made.
    """
    until = time.monotonic() + wait
    with path.open("ab", buffering=0) as stream:
        before = os.fstat(stream.fileno()).st_size
        taken = _try_lock(stream.fileno())
        while taken is False and time.monotonic() < until:
            time.sleep(0.02)
            taken = _try_lock(stream.fileno())
        yield Turn(taken is not False, os.fstat(stream.fileno()).st_size - before if taken else 0)
        if taken:
            stream.write(b".")


def temporary(report: Path) -> Path:
    """Name a file that nobody else writes to, on the file system of the report, in a folder that is there."""
    folder = report / FOLDER / ".parts"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / secrets.token_hex(8)
