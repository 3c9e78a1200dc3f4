"""What the user excludes: patterns of file names, participants, lists of these, and what a QC page marked.

Marks come as SCT's lists (``qc_fail.yml``), or as ``qc_flags.json`` of fastseg's page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path
from typing import Any

from fastseg.errors import InputError
from fastseg.outputs import is_volume_name, split_suffix

__all__ = ["Exclusions"]

# Marks of the QC page.
_USELESS = ("Fail", "Artifact")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


@dataclass(frozen=True, slots=True)
class _Entry:
    text: str
    origin: str


class Exclusions:
    """Everything that is excluded, and what of it was met.

    An entry without wildcards is looked up and not searched for, so that lists may be long. One with
    wildcards also means the file of just that name.

    Parameters
    ----------
    words : each a pattern of a file name or of a name relative to the data set; a participant ("sub-" may be
        left out) or participant/session; or a text file with one of these a line, in which # begins a comment
    yml : files like SCT's qc_fail.yml: lists of image file names, under keys or not; or qc_flags.json, whose
        volumes marked Fail or Artifact are meant, by exactly their names; not, as in the lists, by marks that
        were given to an earlier mask

    Raises
    ------
    InputError
        A file cannot be read, or is not what it should be.
    """

    def __init__(self, words: Iterable[str] = (), yml: Iterable[Path | str] = ()) -> None:
        self._entries: list[_Entry] = []
        self._met: set[int] = set()
        self._files: dict[str, int] = {}
        self._people: dict[str, int] = {}
        self._patterns: list[tuple[re.Pattern[str], int]] = []
        files = [Path(each) for each in yml]
        for word in words:
            path = Path(word)
            if is_volume_name(word) or not path.is_file():
                self._add(word, "--exclude")
            elif path.suffix in (".yml", ".yaml", ".json"):
                files.append(path)
            else:
                for line in _lines(path):
                    self._add(line, path.name)
        for path in files:
            if path.suffix == ".json":
                for name, verdict in _marked_names(path):
                    self._add_file(name, self._note(name, f"{verdict} in {path.name}"))
                continue
            for name, key in _yaml_names(path):
                self._add(name, f"{key} of {path.name}" if key else path.name)

    def reason(self, name: str) -> str:
        """Why a volume is excluded; empty if it is not.

        Parameters
        ----------
        name : of the volume, relative to the data set; of a folder, with a slash at its end
        """
        if not self._entries:
            return ""
        *folders, last = name.split("/")
        stem = split_suffix(last)[0]
        place = "/".join((*folders, stem))
        met = [self._files[key] for key in {stem, place} if key in self._files]
        labels = [each for each in stem.split("_") if each.startswith(("sub-", "ses-"))]
        for parts in (folders, labels):
            for start, first in enumerate(parts):
                keys = [first, *("/".join((first, second)) for second in parts[start + 1 : start + 2])]
                met += [self._people[key] for key in keys if key in self._people]
        met += [
            index
            for pattern, index in self._patterns
            if any(pattern.fullmatch(text) for text in (name, place, last, stem))
        ]
        self._met.update(met)
        if not met:
            return ""
        entry = self._entries[min(met)]
        return f"excluded by {entry.text!r} ({entry.origin})"

    def unmet(self) -> list[str]:
        """Say which entries excluded nothing, one line for each place where they stand."""
        idle: dict[str, list[str]] = {}
        for index, entry in enumerate(self._entries):
            if index not in self._met:
                idle.setdefault(entry.origin, []).append(entry.text)
        return [
            f"{origin}: no volume is excluded by {', '.join(map(repr, texts[:3]))}"
            + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
            for origin, texts in idle.items()
        ]

    def _add(self, text: str, origin: str) -> None:
        index = self._note(text, origin)
        clean = text.removeprefix("./").strip("/")
        self._add_file(clean, index)
        if not {"*", "?", "["}.isdisjoint(clean):
            self._patterns.append((re.compile(translate(clean)), index))
            return
        *folders, last = clean.split("/")
        if not is_volume_name(last) and len(folders) < 2:
            participant, *session = (*folders, last)
            key = "sub-" + participant.removeprefix("sub-")
            for visit in session:
                key += "/ses-" + visit.removeprefix("ses-")
            self._people.setdefault(key, index)

    def _note(self, text: str, origin: str) -> int:
        """Note an entry; gives its number."""
        self._entries.append(_Entry(text, origin))
        return len(self._entries) - 1

    def _add_file(self, name: str, index: int) -> None:
        """Exclude the file of a name, with or without folders and suffix."""
        *folders, last = name.split("/")
        self._files.setdefault("/".join((*folders, split_suffix(last)[0])), index)


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give another --exclude") from error
    for line in text.splitlines():
        entry = line.partition("#")[0].strip()
        if entry:
            yield entry


def _yaml_names(path: Path) -> Iterator[tuple[str, str]]:
    """Names in a YAML file, each with the key under which it stands.

    The nodes are read and no values are made of them: they know their lines, and 01 stays 01.
    """
    import yaml

    try:
        root = yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give another --exclude-yml") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path} line {line}: is no YAML ({error.problem}); mend it") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: is no YAML text in UTF-8; write it again") from error
    if root is None:
        return
    lists = root.value if isinstance(root, yaml.MappingNode) else [(None, root)]
    for key, node in lists:
        if isinstance(node, yaml.ScalarNode) and key is not None and node.value in ("", "null", "~"):
            continue
        if not isinstance(node, yaml.SequenceNode):
            raise _unexpected(path, node)
        for each in node.value:
            if not isinstance(each, yaml.ScalarNode) or not each.value:
                raise _unexpected(path, each)
            yield _PAIR.sub(_joined, each.value), str(key.value) if key is not None else ""


def _joined(pair: re.Match[str]) -> str:
    """One letter of the two halves in which JSON writes it: YAML takes them for two letters."""
    return pair[0].encode("utf-16", "surrogatepass").decode("utf-16")


def _marked_names(path: Path) -> Iterator[tuple[str, str]]:
    """Names in qc_flags.json that are marked as useless, each with its mark."""
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give another --exclude-yml") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no JSON; export it again from the QC page") from error
    marks = record.get("marks") if isinstance(record, dict) else None
    for mark in marks if isinstance(marks, list) else (None,):
        if not isinstance(mark, dict) or not isinstance(mark.get("name"), str):
            raise InputError(
                f"{path}: is no qc_flags.json of a QC page of fastseg; export it again from there"
            )
        if mark.get("qc") in _USELESS and mark.get("earlier") is not True:
            yield mark["name"], mark["qc"]


def _unexpected(path: Path, node: Any) -> InputError:
    return InputError(
        f"{path} line {node.start_mark.line + 1}: is no list of image file names, as under FILES_SEG of "
        "qc_fail.yml; mend it"
    )
