"""What is done, kept in the output folder: one JSON object a line, only ever added to.

A line says that a run began, that work on a volume began, or how a volume ended. The last one that ended a
volume counts. A line that a killed run left half-written, and lines that something else wrote, are passed
over.

The lock is the operating system's and dies with its process. A run of one shard shares the folder's lock with
other shards of the same number, and has a ledger and a lock of its own.
"""

from __future__ import annotations

import datetime
import errno
import fcntl
import heapq
import json
import os
import re
import threading
import zlib
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from fastseg.errors import OptionError, OutputError

__all__ = ["FOLDER", "History", "Ledger", "Shard", "read_ledgers"]

#: Folder of ledgers and locks inside the output folder; hidden, so that data sets stay valid.
FOLDER = ".fastseg"

_EVENTS = ("run", "begin", "end")
# Of what a line may say.
_TYPES: dict[str, type] = {
    **dict.fromkeys(("mask", "name", "at", "key", "status", "message", "contrast", "log"), str),
    **dict.fromkeys(("inputs", "outputs", "measures", "seconds", "engines"), dict),
    **dict.fromkeys(("flags", "notes"), list),
}
# How each of our lines begins: a part of one is what a killed run left.
_BEGINNING = b'{"event": "'


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several parts of a list, for job arrays.

    Parameters
    ----------
    index : from 1
    count : parts in all

    Examples
    --------
    >>> Shard.parse("3/10").name
    '3-of-10'
    >>> [Shard(2, 3).holds(k) for k in range(6)]
    [False, True, False, False, True, False]
    """

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "i/n".

        Raises
        ------
        OptionError
            It is not that, or i is not one of 1 to n.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise OptionError(f"--shard {text}: give i/n with i from 1 to n, as 3/10")
        return cls(int(found[1]), int(found[2]))

    @property
    def name(self) -> str:
        """For file names; empty where there is one part only."""
        return f"{self.index}-of-{self.count}" if self.count > 1 else ""

    def share(self, total: int) -> int:
        """How many of so many items are in this part."""
        return len(range(self.index - 1, total, self.count))

    def holds(self, number: int) -> bool:
        """Whether the item of a number, from 0, is in this part."""
        return number % self.count == self.index - 1


class _Packed(MutableMapping[str, dict[str, Any]]):
    """Lines by key, packed: those of 100,000 volumes would take half a gigabyte as dictionaries."""

    def __init__(self) -> None:
        self._packed: dict[str, bytes] = {}

    def __getitem__(self, key: str) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(zlib.decompress(self._packed[key]))
        return line

    def __setitem__(self, key: str, line: dict[str, Any]) -> None:
        self._packed[key] = zlib.compress(json.dumps(line).encode(), 1)

    def __delitem__(self, key: str) -> None:
        del self._packed[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


@dataclass(slots=True)
class History:
    """What ledgers say.

    Parameters
    ----------
    ends : the last end of each volume, by the path of its mask below the output folder
    begun : how often work on a volume began since it last ended: its run was killed
    runs : the lines of runs
    foreign : lines that are none of ours
    torn : lines that were cut off since the last run of their ledger began: it was killed
    """

    ends: _Packed = field(default_factory=lambda: _Packed())
    begun: dict[str, int] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    foreign: int = 0
    torn: int = 0

    def add(self, line: Mapping[str, Any]) -> None:
        """Take one line in."""
        if line["event"] == "run":
            self.runs.append(dict(line))
        elif line["event"] == "begin":
            self.begun[line["mask"]] = self.begun.get(line["mask"], 0) + 1
        else:
            self.begun.pop(line["mask"], None)
            earlier = self.ends.get(line["mask"], {})
            # A volume that failed now may still have the files of an earlier run.
            older = {**_digests(earlier, "older"), **_digests(earlier, "outputs")}
            self.ends[line["mask"]] = dict(line) | {"older": older}


def read_ledgers(out: Path) -> History:
    """Read all ledgers of an output folder.

    Raises
    ------
    OutputError
        One cannot be read.
    """
    history = History()
    ledgers = [_lines(path, history) for path in sorted((out / FOLDER).glob("ledger*.jsonl"))]
    # Each in its own order, also where a clock was set back; those of shards as they followed each other.
    for line in heapq.merge(*ledgers, key=lambda line: str(line.get("at", ""))):
        history.add(line)
    return history


def _lines(path: Path, history: History) -> Iterator[dict[str, Any]]:
    """What a ledger says, line by line; counts what is no line of ours."""
    torn = 0
    try:
        with path.open("rb") as stream:
            for line in stream:
                parsed = _parsed(line)
                if parsed is not None:
                    torn = 0 if parsed["event"] == "run" else torn
                    yield parsed
                elif line.strip():
                    cut = _is_cut_off(line)
                    torn += cut
                    history.foreign += not cut
    except OSError as error:
        raise OutputError(f"{path}: cannot be read ({error.strerror}); mend its permissions") from error
    history.torn += torn


def _is_cut_off(line: bytes) -> bool:
    """Whether it is the beginning of a line of ours."""
    with suppress(ValueError, RecursionError):
        json.loads(line)
        return False
    return _BEGINNING.startswith(line[: len(_BEGINNING)].rstrip(b"\n"))


def _digests(line: Mapping[str, Any], field: str) -> dict[str, str]:
    digests = line.get(field, {})
    return digests if isinstance(digests, dict) else {}


def _parsed(line: bytes) -> dict[str, Any] | None:
    with suppress(ValueError, RecursionError):
        parsed = json.loads(line)
        if isinstance(parsed, dict) and parsed.get("event") in _EVENTS and _is_sound(parsed):
            return parsed
    return None


def _is_sound(line: Mapping[str, Any]) -> bool:
    """Whether what is there has the types that readers rely on."""
    typed = all(isinstance(line[name], kind) for name, kind in _TYPES.items() if name in line)
    words = [word for name in ("flags", "notes") for word in line.get(name, ())] if typed else []
    inputs = line.get("inputs", {}).values() if typed else ()
    return (
        typed
        and (line["event"] == "run" or "mask" in line)
        and all(isinstance(word, str) for word in words)
        and all(isinstance(known, dict) for known in inputs)
    )


class Ledger:
    """The ledger that this run writes, and the lock of its output folder.

    A context manager; `begin` and `end` may be called from several threads.

    Parameters
    ----------
    out : output folder, made when missing
    shard : whose ledger it is

    Raises
    ------
    OptionError
        Another run works in the folder.
    OutputError
        The ledger cannot be written.
    """

    def __init__(self, out: Path, shard: Shard = Shard()) -> None:
        self._out, self._shard = out, shard
        self._folder = out / FOLDER
        #: Temporary file of this run alone: what a killed one left there is replaced or removed.
        self.scratch = self._folder / f"{self.tag}.tmp"
        self._path = self._folder / f"ledger{f'-{shard.name}' * bool(shard.name)}.jsonl"
        self._stream: IO[bytes] | None = None
        self._cut = False
        self._stack = ExitStack()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        with _writing(self._path):
            self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self._take_locks(stack)
            with _writing(self._path):
                self.scratch.unlink(missing_ok=True)
                # Without a buffer: what found no space must not be written later, at the wrong place.
                stream = stack.enter_context(self._path.open("ab", buffering=0))
                self._cut = stream.tell() > 0 and not _ends_with_newline(self._path)
            self._stream = stream
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock, _writing(self._path):
            self._stream = None
            self._stack.close()

    @property
    def tag(self) -> str:
        """Names this run's temporary files."""
        return f"run{self._shard.name}"

    def run(self, **facts: object) -> None:
        """Note that a run begins."""
        self._append({"event": "run", "at": _now(), **facts})

    def begin(self, mask: str, name: str) -> None:
        """Note that work on a volume begins, before any of its files appear.

        It is on the disk when this returns: after a loss of power, files without it would be taken for
        somebody else's.
        """
        self._append({"event": "begin", "mask": mask, "at": _now(), "name": name})

    def end(self, mask: str, **facts: object) -> None:
        """Note how a volume ended; it is on the disk when this returns."""
        self._append({"event": "end", "mask": mask, "at": _now(), **facts})

    def _append(self, line: Mapping[str, object]) -> None:
        # Names that are not UTF-8 hold lone surrogates, which ASCII JSON can say.
        content = json.dumps(line).encode() + b"\n"
        with self._lock, _writing(self._path):
            if self._stream is None:
                raise OutputError(f"{self._path}: the ledger is closed")
            if self._cut:  # what a killed run, or a full disk, left becomes a line of its own
                content = b"\n" + content
            self._cut = True
            while content:
                content = content[self._stream.write(content) :]
            self._cut = False
            os.fsync(self._stream.fileno())

    def _take_locks(self, stack: ExitStack) -> None:
        """The folder's lock, shared among shards; a shard's own; and none of another division's."""
        whole = not self._shard.name
        self._flock(stack, "lock", exclusive=whole)
        if whole:
            return
        self._flock(stack, f"lock-{self._shard.name}", exclusive=True)
        for path in self._folder.glob("lock-*-of-*"):
            if not path.name.endswith(f"-of-{self._shard.count}"):
                with ExitStack() as tried:
                    self._flock(tried, path.name, exclusive=False)

    def _flock(self, stack: ExitStack, name: str, *, exclusive: bool) -> None:
        path = self._folder / name
        with _writing(path):
            stream = stack.enter_context(path.open("ab"))
        try:
            fcntl.flock(stream, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise OptionError(
                    f"{self._out}: another run of fastseg works there: wait for it, or choose another "
                    "output folder"
                ) from error
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            raise OutputError(
                f"{path}: its file system has no locks, so two runs could spoil each other; choose another "
                "output folder (a Lustre file system has to be mounted with -o flock)"
            ) from error


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def _now() -> str:
    """Time as the ledger has it: in the order of the alphabet."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); free space there, or choose another "
            "output folder"
        ) from error
