"""What the words of a command line name: files, folders, patterns that the shell left alone, and lists."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fastseg.cohort.job import Refused
from fastseg.cohort.plan.inputs import Walk, find_matching, find_volumes, is_pattern
from fastseg.cohort.plan.lists import Row, is_list_name, read_list
from fastseg.cohort.plan.places import Folders
from fastseg.errors import OptionError
from fastseg.outputs import is_volume_name

__all__ = ["Form", "Gathered", "Item", "counted", "gather", "parent"]

Form = Literal["file", "files", "list", "bids"]


@dataclass(frozen=True, slots=True)
class Item:
    """A volume on its way to a job.

    Parameters
    ----------
    path : as the user wrote it, or would
    real : absolute, without symbolic links
    name : relative to the data set
    below : folder of the results below OUT
    row : what is to be done with it
    """

    path: str
    real: str
    name: str
    below: str
    row: Row


@dataclass(frozen=True, slots=True)
class Gathered:
    """All that the words name; `root` is absolute, and the names of items and failures are relative to it."""

    items: list[Item]
    root: Path
    form: Form
    remarks: list[str]
    failures: list[Refused]


@dataclass(frozen=True, slots=True)
class _Volume:
    """A volume before it is known what all names are relative to: `name` is so to the folder `base`."""

    base: str
    name: str
    path: str
    real: str
    row: Row
    walked: bool = False


@dataclass(slots=True)
class _Harvest:
    folders: Folders
    volumes: list[_Volume] = field(default_factory=list)
    unreadable: list[tuple[str, Refused]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add_file(self, path: str, row: Row) -> None:
        base, name = os.path.split(path)
        self.volumes.append(_Volume(base or ".", name, path, self.folders.real_file(path), row))

    def add_walk(self, base: str, walk: Walk, row: Row, word: str) -> None:
        self.volumes += [
            _Volume(base, found.name, found.path, found.real, row, walked=True) for found in walk.volumes
        ]
        self.unreadable += [(base, refused) for refused in walk.unreadable]
        if walk.links:
            more = ", ..." if len(walk.links) > 1 else ""
            self.remarks.append(
                f"{word}: {counted(len(walk.links))} left out, being links to others: {walk.links[0]}{more}"
            )


def gather(words: Sequence[str], plain: Row, folders: Folders) -> Gathered:
    """Find the volumes that words name, each once.

    Parameters
    ----------
    words : at least one
    plain : what is to be done with a volume of which no list says more
    folders : that are known already

    Raises
    ------
    InputError
        A pattern matches nothing, or a list cannot be used.
    OptionError
        A list is wrong, or names a volume twice.
    """
    harvest = _Harvest(folders)
    lists = 0
    for word in words:
        path = Path(word)
        if path.is_dir() and not is_volume_name(word):  # a folder called x.nii.gz is told about as a file
            walk = find_volumes(word)
            harvest.add_walk(word, walk, plain, word)
            if not walk.volumes and not walk.unreadable and len(words) > 1:
                harvest.remarks.append(f"{word}: holds no .nii or .nii.gz volume")
        elif is_pattern(word):
            harvest.add_walk(*find_matching(word), plain, word)
        elif is_list_name(word):
            lists += 1
            table = read_list(path, plain.options, plain.frame)
            harvest.remarks += table.remarks
            for row in table.rows:
                harvest.add_file(row.source, row)
        else:
            harvest.add_file(word, plain)
    volumes = _each_once(harvest.volumes)
    alone = len(words) == 1 and not lists and len(volumes) == 1 and not volumes[0].walked
    form: Form = "list" if lists else "file" if alone else "files"
    bases = dict.fromkeys([*(each.base for each in volumes), *(base for base, _ in harvest.unreadable)])
    root, prefixes = _root(bases, str(Path(words[0]).parent) if lists and len(words) == 1 else None)
    items = []
    for each in volumes:
        name = prefixes[each.base] + each.name
        below = parent(each.name) if each.walked else parent(name) if each.row.where else ""
        items.append(Item(each.path, each.real, name, below, each.row))
    failures = [
        Refused((prefixes[base] + refused.name).rstrip("/") or base, refused.message, refused.status)
        for base, refused in harvest.unreadable
    ]
    return Gathered(items, Path(root), form, harvest.remarks, failures)


def parent(name: str) -> str:
    """Folder of a relative name; empty for one without.

    Examples
    --------
    >>> parent("sub-01/anat/t2.nii.gz"), parent("t2.nii.gz")
    ('sub-01/anat', '')
    """
    return name.rpartition("/")[0]


def counted(volumes: int) -> str:
    """A number of volumes in words.

    Examples
    --------
    >>> counted(1), counted(120)
    ('1 volume', '120 volumes')
    """
    return f"{volumes} volume{'' if volumes == 1 else 's'}"


def _each_once(volumes: Iterable[_Volume]) -> list[_Volume]:
    first: dict[str, _Volume] = {}
    for each in volumes:
        known = first.setdefault(each.real, each)
        if known is not each and known.row.where and each.row.where:
            raise OptionError(
                f"{each.row.where}: {each.path} stands in {known.row.where} already; "
                "keep one line, or segment it again in a run with another -o"
            )
    return list(first.values())


def _root(bases: Iterable[str], of_list: str | None) -> tuple[str, dict[str, str]]:
    """The folder that holds all folders, and how each is called relative to it, with a slash at the end."""
    absolute = {base: _absolute(base) for base in bases}
    root = os.path.commonpath([*absolute.values()]) if absolute else _absolute(of_list or ".")
    if of_list is not None and os.path.commonpath([root, _absolute(of_list)]) == _absolute(of_list):
        root = _absolute(of_list)
    inside = len(root.rstrip("/")) + 1
    return root, {base: f"{path[inside:]}/".lstrip("/") for base, path in absolute.items()}


def _absolute(folder: str) -> str:
    # Only what really is there tells where x/.. leads.
    path = Path(folder)
    return os.path.realpath(path) if ".." in path.parts else str(path.absolute())
