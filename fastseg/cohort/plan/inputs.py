"""Volumes below folders, and those that a pattern means.

Names are strings here and folders are read with `os.scandir`, which tells files, folders and links apart
without asking the disk about each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from fastseg.cohort.job import Refused, Status
from fastseg.errors import InputError
from fastseg.outputs import is_result_name, is_volume_name

__all__ = [
    "Found",
    "Walk",
    "find_matching",
    "find_volumes",
    "is_folder",
    "is_pattern",
    "scan",
    "unreadable",
]

_MAGIC = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Found:
    """A volume below a folder.

    Parameters
    ----------
    path : as the user would write it
    name : relative to that folder
    real : absolute, without symbolic links: what tells whether two are the same
    """

    path: str
    name: str
    real: str


@dataclass(frozen=True, slots=True)
class Walk:
    """What was found below a folder.

    Parameters
    ----------
    volumes : sorted by folder and name, each real file once
    unreadable : folders that could not be read; their names are relative to the folder
    links : names of files that were left out because they lead to another volume of the list
    """

    volumes: list[Found]
    unreadable: list[Refused]
    links: list[str]


def find_volumes(
    folder: str,
    *,
    enter: Callable[[tuple[str, ...]], bool] = lambda parts: True,
    take: Callable[[tuple[str, ...]], bool] = lambda parts: True,
) -> Walk:
    """Every volume below a folder that is neither hidden nor a result.

    Symbolic links to folders are followed, but to none that is walked anyway, nor to one that holds the link.

    Parameters
    ----------
    folder : to walk, as the user wrote it
    enter, take : whether a folder is entered and a volume taken, by the parts of its name below `folder`
    """
    top = os.path.realpath(folder)
    files: list[Found] = []
    links: list[Found] = []
    unreadable_ones: list[Refused] = []
    seen = {top}
    # Links wait until all else is walked: a volume then has the name that does not lead through one.
    folders: list[tuple[tuple[str, ...], str]] = [((), top)]
    linked: list[tuple[tuple[str, ...], str]] = []
    while folders or linked:
        if not folders:
            linked.sort(reverse=True)
            parts, real = linked.pop()
            if real in seen:
                continue
            seen.add(real)
            folders.append((parts, real))
        parts, real = folders.pop()
        given = "/".join((folder.rstrip("/"), *parts)) if parts else folder
        try:
            entries = scan(given)
        except OSError as error:
            unreadable_ones.append(unreadable("/".join(parts), error))
            continue
        for entry in entries:
            below = (*parts, entry.name)
            if is_folder(entry):
                if not enter(below):
                    continue
                if not entry.is_symlink():
                    inner = f"{real.rstrip('/')}/{entry.name}"
                    if inner not in seen:
                        seen.add(inner)
                        folders.append((below, inner))
                elif not _holds(target := os.path.realpath(entry.path), real):
                    linked.append((below, target))
            elif is_volume_name(entry.name) and not is_result_name(entry.name) and take(below):
                name = "/".join(below)
                if not entry.is_symlink():
                    if entry.is_file():  # and no pipe, which would be waited for
                        files.append(Found(entry.path, name, f"{real.rstrip('/')}/{entry.name}"))
                else:
                    links.append(Found(entry.path, name, os.path.realpath(entry.path)))
    taken = {found.real for found in files}
    left_out = []
    for found in sorted(links, key=_order):
        if found.real in taken:
            left_out.append(found.name)
        else:
            taken.add(found.real)
            files.append(found)
    return Walk(sorted(files, key=_order), unreadable_ones, left_out)


def _order(found: Found) -> list[str]:
    return found.name.split("/")


def scan(folder: str) -> list[os.DirEntry[str]]:
    """Entries of a folder that are not hidden, sorted by name; raises OSError."""
    with os.scandir(folder) as entries:
        return sorted((each for each in entries if not each.name.startswith(".")), key=lambda each: each.name)


def unreadable(name: str, error: OSError) -> Refused:
    """Say that a folder cannot be read: that its volumes are missing must not go unnoticed."""
    why = error.strerror or str(error)
    message = f"the folder cannot be read ({why}): mend its permissions, or exclude it"
    return Refused(name, message, Status.ERROR)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # links that lead in a circle
        return False


def _holds(folder: str, inner: str) -> bool:
    return f"{inner}/".startswith(f"{folder.rstrip('/')}/")


def is_pattern(word: str) -> bool:
    """Whether a word is a pattern that the shell left alone: it has one of ``*?[`` and is no file."""
    return not _MAGIC.isdisjoint(word) and not os.path.lexists(word)


def find_matching(pattern: str) -> tuple[str, Walk]:
    """Volumes that a pattern means, and those in folders that it means; ``**`` stands for any depth.

    Hidden files and results are left out, as below folders.

    Returns
    -------
    folder : the part of the pattern that names a folder; names of the volumes are relative to it
    walk : what was found

    Raises
    ------
    InputError
        Nothing was found.
    """
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if not _MAGIC.isdisjoint(part))
    folder, wanted = str(Path(*parts[:fixed])), parts[fixed:]

    def meant(name: tuple[str, ...]) -> bool:
        return any(_matches(name[:count], wanted) for count in range(1, len(name) + 1))

    def may_hold(name: tuple[str, ...]) -> bool:
        return _leads_to(name, wanted) or meant(name)

    walk = find_volumes(folder, enter=may_hold, take=meant) if Path(folder).is_dir() else Walk([], [], [])
    if not walk.volumes and not walk.unreadable:
        raise InputError(
            f"{pattern}: matches no .nii or .nii.gz volume (hidden files and results are left out); "
            "mend the pattern"
        )
    return folder, walk


def _matches(name: Sequence[str], wanted: Sequence[str]) -> bool:
    if not wanted:
        return not name
    if wanted[0] == "**":
        return any(_matches(name[start:], wanted[1:]) for start in range(len(name) + 1))
    return bool(name) and fnmatchcase(name[0], wanted[0]) and _matches(name[1:], wanted[1:])


def _leads_to(name: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether something below a folder of this name may match."""
    for part, pattern in zip(name, wanted, strict=False):
        if pattern == "**":
            return True
        if not fnmatchcase(part, pattern):
            return False
    return len(name) < len(wanted)
