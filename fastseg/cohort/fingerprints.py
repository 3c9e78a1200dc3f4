"""By what files are known again: size, time, content."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Fingerprint", "file_digest", "fingerprint_record", "is_unchanged", "version_of"]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """By what a file is known again.

    Parameters
    ----------
    bytes : its size
    mtime_ns : when it was last written
    sha256 : of its content
    """

    bytes: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Fingerprint:
        """Read a file to its end."""
        before = path.stat()
        return cls(before.st_size, before.st_mtime_ns, file_digest(path))


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes; an OSError for what is no file, as a pipe: it would be waited for."""
    if not path.is_file():
        raise OSError(errno.EINVAL, "no regular file", str(path))
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def version_of(path: Path) -> tuple[int, int, int]:
    """What differs when a file was written to or replaced."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def is_unchanged(path: Path, known: Mapping[str, Any]) -> bool:
    """Whether a file is what it was: by size and time, or where the time is another one, by content."""
    try:
        status = path.stat()
        if status.st_size != known.get("bytes", status.st_size):
            return False
        return status.st_mtime_ns == known.get("mtime_ns") or file_digest(path) == known.get("sha256")
    except (OSError, ValueError):  # a name with a NUL in it
        return False


def fingerprint_record(prints: Mapping[str, Fingerprint]) -> dict[str, dict[str, object]]:
    """Fingerprints as JSON values."""
    return {role: asdict(each) for role, each in prints.items()}
