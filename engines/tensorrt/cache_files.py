"""Files of a cache that several processes share: private, whole or not there, one writer at a time.

Plans are native code that runs with the rights of whoever loads them. So nothing is read that somebody else
could have put there, and nothing that a writer left half-done.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

from fastseg.errors import OptionError

__all__ = [
    "Hold",
    "Untrusted",
    "distrust",
    "forget_leftovers",
    "limit_bytes",
    "locked",
    "make_private",
    "read_private",
    "remove",
    "usual_folder",
    "write_private",
]

_FOLDER, _LIMIT = "FASTSEG_ENGINES", "FASTSEG_ENGINES_GB"
# A policy, not a measurement: plans of the default pack's networks are a few megabytes each.
_USUAL_LIMIT_GB = 4.0
# How long a killed writer's file is left alone where the file system cannot say whether he lives.
_SURELY_DEAD_SECONDS = 86_400.0
_POLL_SECONDS = 0.05
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Untrusted(Exception):
    """Somebody else could have written what was to be read."""


class Hold(Enum):
    """What became of a lock: it is ours, somebody else's, or there is none to be had."""

    OURS = "ours"
    BUSY = "busy"
    NONE = "none"


def usual_folder() -> Path | None:
    """FASTSEG_ENGINES, else fastseg/engines in the user's cache folder; None where the user has no home."""
    chosen = os.environ.get(_FOLDER)
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        root = Path(os.environ.get("XDG_CACHE_HOME", ""))
        # A relative one is to be ignored, says the XDG base directory specification.
        return (root if root.is_absolute() else Path.home() / ".cache") / "fastseg" / "engines"
    except RuntimeError:  # of Path.home
        return None


def limit_bytes() -> int:
    """What the cache may hold: FASTSEG_ENGINES_GB, else 4 GB.

    Raises
    ------
    OptionError
        The variable is no number, or a negative one.
    """
    text = os.environ.get(_LIMIT) or str(_USUAL_LIMIT_GB)
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0 <= size < math.inf:
        raise OptionError(f"{_LIMIT}={text}: give the gigabytes that the engine cache may hold, as 4 or 0.5")
    return int(size * 1e9)


def distrust(folder: Path) -> str:
    """Why nothing may be loaded from a folder; empty where nothing is wrong, or where there is none yet."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"cannot be looked at ({error.strerror or error})"
    if not stat.S_ISDIR(status.st_mode):
        return "is no folder"
    return _suspicion(status)


def _suspicion(status: os.stat_result) -> str:
    if status.st_uid not in (os.geteuid(), 0):
        return "belongs to another user"
    if status.st_mode & _OTHERS_MAY_WRITE:
        return "may be written by others (chmod go-w)"
    return ""


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may look into, unless it is there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def read_private(path: Path, most: int) -> bytes:
    """Read a file that only its owner, or root, can have written.

    Parameters
    ----------
    most : bytes that it may hold

    Raises
    ------
    Untrusted
        It is a link, no file, too large, another user's, or others may write it.
    OSError
        It is not there, or cannot be read.
    """
    # Without O_NONBLOCK, a pipe of that name would hold us up for ever.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Untrusted("it is a link") from error
        raise
    with os.fdopen(handle, "rb") as stream:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise Untrusted("it is no file")
        why = _suspicion(status)
        if why:
            raise Untrusted(f"it {why}")
        if status.st_size > most:
            raise Untrusted(f"it holds {status.st_size} bytes, where {most} were expected")
        return stream.read(most)


def write_private(path: Path, content: bytes) -> None:
    """Let a file appear whole, and on the disk, in the place of what is there.

    Raises
    ------
    OSError
        It cannot be written; a temporary file is removed, unless this process is killed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(temporary, flags, 0o600)
    try:
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(handle, left) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        temporary.replace(path)
    except BaseException:
        remove(temporary)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Bring names onto the disk; some network file systems cannot."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(path: Path) -> bool:
    """Remove a file; gives whether it is gone."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def forget_leftovers(folder: Path, stem: str, hold: Hold) -> int:
    """Remove what killed writers of files that begin with `stem` left; gives how many there were.

    Parameters
    ----------
    hold : whether the lock of these files is ours; without, only what is a day old is removed
    """
    gone = 0
    for path in folder.glob(f".{stem}.*.tmp"):
        with contextlib.suppress(OSError):
            if hold is Hold.OURS or time.time() - path.lstat().st_mtime > _SURELY_DEAD_SECONDS:
                path.unlink()
                gone += 1
    return gone


@contextlib.contextmanager
def locked(
    path: Path, *, patience_seconds: float = 0.0, waiting: Callable[[], None] = lambda: None
) -> Iterator[Hold]:
    """Take a lock among processes and threads, which dies with its process.

    Parameters
    ----------
    path : of the lock; it is there only while somebody holds it, or was killed
    patience_seconds : how long to wait for somebody else
    waiting : called once if that is necessary

    Yields
    ------
    hold : whether it is ours. There is no lock in folders that cannot be written, and on file systems
        without locks.
    """
    handle: int | None = None
    try:
        handle = _take(path, patience_seconds, waiting)
        hold = Hold.BUSY if handle is None else Hold.OURS
    except OSError:
        hold = Hold.NONE
    try:
        yield hold
    finally:
        if handle is not None:
            # Before it is let go: whoever waits for this file looks whether it is still the one of that name.
            remove(path)
            os.close(handle)


def _take(path: Path, patience_seconds: float, waiting: Callable[[], None]) -> int | None:
    deadline = time.monotonic() + patience_seconds
    said = False
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        ours = False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = _is_called(handle, path)
            if ours:
                return handle
            continue  # the one before us removed it: by now there is another, or none
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return None
        finally:
            if not ours:
                os.close(handle)
        if not said:
            waiting()
            said = True
        time.sleep(_POLL_SECONDS)


def _is_called(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False
