"""What people said about volumes, in the report's folder: Pass, Fail, Artifact, a rank.

``qc_flags.json`` is the truth; ``qc_pass.yml``, ``qc_fail.yml`` and ``qc_artifact.yml`` are lists of images
made from it, under the key that SCT gives segmentations. A mark that was given to an earlier mask of its
volume is in none of the lists, and says so: nobody has judged the mask that is there.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastseg.errors import InputError
from fastseg.outputs import not_writable, write_file
from fastseg.qc import journal
from fastseg.qc.identity import identity

__all__ = ["FLAGS", "VERDICTS", "read_flags", "renew_lists", "save_flags", "yaml_list"]

#: Name of the file of marks.
FLAGS = "qc_flags.json"
#: What may be said about a volume.
VERDICTS = ("Pass", "Fail", "Artifact")

_VERSION = 1
# More is none that somebody marked, and no name that a file system has.
_MOST_MARKS, _LONGEST = 1_000_000, 8192
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/ -]*(?<! )")
# What YAML does not let stand as it is, also in quotes, but JSON does.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def read_flags(folder: Path) -> list[dict[str, Any]]:
    """The marks of a report; none where there is no file of them, or one that is damaged."""
    with suppress(OSError, ValueError, RecursionError, InputError):
        return _sound(json.loads((folder / FLAGS).read_bytes()))
    return []


def save_flags(
    folder: Path, record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Add marks to those of a report, and write its lists anew.

    Several people may mark at once: of each volume the newest mark counts, be it given here or there already.

    Parameters
    ----------
    folder : of the report
    record : as in qc_flags.json
    rows : of the report, whose volumes the lists name

    Returns
    -------
    marks : all of them

    Raises
    ------
    InputError
        The record is not what it should be, or belongs to another report.
    OutputError
        The folder holds no report, or cannot be written.
    """
    given = _sound(record)
    uuid = identity(folder)["uuid"]
    if record.get("report") != uuid:
        raise InputError(f"{FLAGS}: these marks are of another report; import them in its page, by names")
    try:
        with journal.locked(folder / journal.FOLDER / ".marks"):
            marks = {mark["id"]: mark for mark in read_flags(folder)}
            for mark in given:
                if mark["at"] >= marks.get(mark["id"], {"at": ""})["at"]:
                    marks[mark["id"]] = mark
            merged = list(marks.values())
            _write_all(folder, uuid, merged, rows)
    except OSError as error:
        raise not_writable(folder, error, journal.PLACE) from error
    return merged


def renew_lists(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Take marks out of the lists whose masks were made anew since; without marks nothing is done.

    Parameters
    ----------
    folder, rows : of the report

    Raises
    ------
    OutputError
        The folder holds no report, or cannot be written.
    """
    uuid = identity(folder)["uuid"]
    try:
        with journal.locked(folder / journal.FOLDER / ".marks"):
            marks = read_flags(folder)
            if marks:
                _write_all(folder, uuid, marks, rows)
    except OSError as error:
        raise not_writable(folder, error, journal.PLACE) from error


def _write_all(
    folder: Path, uuid: str, marks: Sequence[dict[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write the file of marks and the lists, where they are not so already."""
    names, masks = _names(rows), {row["id"]: row["mask"] for row in rows}
    earlier = {mark["id"] for mark in marks if mark["mask"] != masks.get(mark["id"], mark["mask"])}
    told = [mark | {"earlier": True} if mark["id"] in earlier else mark for mark in marks]
    content = {"version": _VERSION, "report": uuid, "marks": told}
    _write(folder, FLAGS, json.dumps(content, indent=1) + "\n")
    for verdict in VERDICTS:
        listed = [
            names.get(mark["id"], mark["name"])
            for mark in marks
            if mark["qc"] == verdict and mark["id"] not in earlier
        ]
        _write(folder, f"qc_{verdict.lower()}.yml", yaml_list(sorted(listed)))


def yaml_list(names: Iterable[str]) -> str:
    r"""List images under SCT's key for segmentations; hostile names are quoted as in JSON.

    Examples
    --------
    >>> print(yaml_list(["sub-01_T2w.nii.gz", "a: b.nii"]), end="")
    FILES_SEG:
    - sub-01_T2w.nii.gz
    - "a: b.nii"
    >>> yaml_list([])
    'FILES_SEG: []\n'
    """
    lines = [f"- {name if _PLAIN.fullmatch(name) else _quoted(name)}\n" for name in names]
    return "FILES_SEG:\n" + "".join(lines) if lines else "FILES_SEG: []\n"


def _quoted(name: str) -> str:
    """Only what has to be is escaped: readers of YAML do not put pairs of surrogates together."""
    text = json.dumps(name, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _names(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The name of each volume in the lists: the image's own where no other has it, else with its folders."""
    full = {row["id"]: row["name"] for row in rows}
    counts = Counter(name.rpartition("/")[2] for name in full.values())
    return {
        key: name if counts[name.rpartition("/")[2]] > 1 else name.rpartition("/")[2]
        for key, name in full.items()
    }


def _write(folder: Path, name: str, text: str) -> None:
    path, content = folder / name, text.encode()
    if not (path.is_file() and path.read_bytes() == content):
        write_file(path, content, temporary=journal.temporary(folder), place=journal.PLACE)


def _sound(record: object) -> list[dict[str, Any]]:
    """The marks in a record, with nothing besides what belongs there."""
    if not isinstance(record, Mapping) or record.get("version") != _VERSION:
        raise InputError(f"{FLAGS}: is not of version {_VERSION}; export it again from the page")
    marks = record.get("marks")
    if not isinstance(marks, list) or len(marks) > _MOST_MARKS:
        raise InputError(f"{FLAGS}: has no list of marks; export it again from the page")
    for number, mark in enumerate(marks):
        if not _is_mark(mark):
            raise InputError(
                f"{FLAGS}: mark {number} is not what it should be; export it again from the page"
            )
    return [{key: mark[key] for key in ("id", "name", "qc", "rank", "mask", "at")} for mark in marks]


def _is_mark(mark: object) -> bool:
    return (
        isinstance(mark, Mapping)
        and journal.is_id(mark.get("id"))
        and all(
            isinstance(mark.get(key), str) and len(mark[key]) <= _LONGEST for key in ("name", "mask", "at")
        )
        and mark.get("qc") in ("", *VERDICTS)
        and "rank" in mark
        and (mark["rank"] is None or (type(mark["rank"]) is int and 0 <= mark["rank"] <= 9))
    )
