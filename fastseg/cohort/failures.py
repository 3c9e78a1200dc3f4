"""What an exception says about a volume."""

from __future__ import annotations

import traceback
from pathlib import Path

from fastseg.cohort.job import Status
from fastseg.errors import CordNotFound, FastsegError, InferenceError, InputError

__all__ = ["failure_of", "where"]


def failure_of(error: BaseException, path: Path) -> tuple[Status, str]:
    """Status of a volume that failed, and why, on one line without the volume's own name.

    Parameters
    ----------
    error : that ended the work on it
    path : of the volume, as it stands in messages
    """
    text = " ".join(str(error).split()).removeprefix(f"{path}: ")
    if isinstance(error, CordNotFound):
        return Status.NO_CORD, text
    if isinstance(error, InputError):
        return Status.BAD_INPUT, text
    if isinstance(error, MemoryError) or (
        isinstance(error, InferenceError) and ("bad_alloc" in text or "allocate memory" in text)
    ):
        return Status.OUT_OF_MEMORY, "the memory does not suffice: close other programs, or crop the volume"
    if isinstance(error, FastsegError):
        return Status.ERROR, text
    bug = f"{type(error).__name__}: {text} (in {where(error)}; a bug: please report it, with -v)"
    return Status.ERROR, bug


def where(error: BaseException) -> str:
    """File and line of fastseg in which an exception arose."""
    place = "fastseg"
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if module.startswith("fastseg."):
            place = f"{module.replace('.', '/')}.py:{line}"
    return place
