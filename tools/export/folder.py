"""The folder of an export: written whole or not at all, and never over what somebody else put there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fastseg.errors import OutputError

__all__ = ["check_target", "write_folder"]

#: First line of README.txt, by which an export is known again.
TITLE = "Networks of fastseg for the Spinal Cord Toolbox (SCT)"

_README = "README.txt"


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a folder that may not be written.

    Raises
    ------
    OutputError
        It is a file, or holds something: with `force`, something other than an earlier export.
    """
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise OutputError(f"{target} is not a folder: choose another --out")
    try:
        files = sorted(target.iterdir())
        ours = (target / _README).is_file() and (target / _README).read_text().startswith(TITLE)
    except (OSError, ValueError) as error:
        raise OutputError(f"{target} cannot be read ({error}): choose another --out") from error
    if files and not force:
        raise OutputError(f"{target} is not empty: choose another --out, or replace an export with --force")
    if files and not ours:
        raise OutputError(f"{target} holds {files[0].name} and is no export: choose another --out")


def write_folder(target: Path, contents: Mapping[str, bytes], *, force: bool) -> None:
    """Write files into a new folder, or in place of an earlier export.

    It is built in a hidden folder beside its place and then renamed, so nobody sees half of it.

    Parameters
    ----------
    target : the folder
    contents : bytes of every file, by its path below the folder, README.txt among them
    force : replace an earlier export; files that it did not write stop it

    Raises
    ------
    OutputError
        See `check_target`; or the folder cannot be written.
    """
    target = target.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as workshop:
            # A folder made by mkdir has the user's usual permissions; mkdtemp's is closed to others.
            built, aside = Path(workshop) / "built", Path(workshop) / "replaced"
            for name, content in contents.items():
                path = built / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            check_target(target, force=force)
            if not force or not target.is_dir() or not any(target.iterdir()):
                built.rename(target)  # onto nothing, or an empty folder
                return
            _refuse_strangers(target)
            target.rename(aside)
            try:
                built.rename(target)
            except OSError:
                aside.rename(target)
                raise
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written ({error.strerror or error}): choose another --out"
        ) from error


def _refuse_strangers(target: Path) -> None:
    """See that an earlier export, which is about to go, holds nothing but what its README.txt lists."""
    listed = (target / _README).read_text().split()
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target).as_posix()
        if path.is_symlink() or (path.name != _README and not path.is_dir() and name not in listed):
            raise OutputError(
                f"{target} holds {name}, which no export wrote: move it, or choose another --out"
            )
