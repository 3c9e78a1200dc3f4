"""Trees of empty files: plans are made before anything is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let a folder be unreadable, also to root."""
    scandir = os.scandir

    def refuse(path: object = ".") -> object:
        if Path(os.fspath(path)).resolve() == folder.resolve():  # type: ignore[call-overload]
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)  # type: ignore[call-overload]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        yield
