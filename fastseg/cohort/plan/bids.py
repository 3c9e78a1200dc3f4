"""BIDS data sets: which volumes are meant, which contrast they have, and how results are described.

A plain walk of sub-*/[ses-*/]datatype, without a database; names are parsed no further than needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from fastseg.cohort.job import Refused
from fastseg.cohort.plan.inputs import Found, is_folder, scan, unreadable
from fastseg.errors import InputError, OptionError
from fastseg.outputs import is_result_name, is_volume_name, split_suffix

__all__ = ["DEFAULT_SUFFIXES", "BidsIndex", "contrast_of_suffix", "dataset_description", "index_bids"]

#: Suffixes that are taken unless others are asked for.
DEFAULT_SUFFIXES = ("T1w", "T2w", "T2star", "T2starw")

_CONTRASTS = {"T1w": "t1", "T2w": "t2", "T2star": "t2s", "T2starw": "t2s", "dwi": "dwi"}
_BIDS_VERSION = "1.9.0"
_DESCRIPTION = "dataset_description.json"


@dataclass(slots=True)
class BidsIndex:
    """What of a data set is meant.

    Parameters
    ----------
    volumes : by suffix, each list sorted; names are relative to the data set
    unreadable : folders that could not be read
    remarks : what is odd, one line each
    """

    volumes: dict[str, list[Found]]
    unreadable: list[Refused] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def contrast_of_suffix(suffix: str) -> str:
    """Contrast that a BIDS suffix stands for.

    Examples
    --------
    >>> contrast_of_suffix("T2starw"), contrast_of_suffix("PDw")
    ('t2s', 'auto')
    """
    return _CONTRASTS.get(suffix, "auto")


def index_bids(
    root: Path,
    *,
    participants: Iterable[str] = (),
    sessions: Iterable[str] = (),
    suffixes: Iterable[str] = (),
) -> BidsIndex:
    """Find the volumes of a data set.

    derivatives/, sourcedata/, code/ and hidden folders are no participants, so they are not walked.

    Parameters
    ----------
    root : of the data set
    participants, sessions : labels, with or without "sub-" and "ses-"; none: all
    suffixes : of the volumes; none: `DEFAULT_SUFFIXES`

    Raises
    ------
    InputError
        The data set is not a folder that can be read.
    OptionError
        A label or a suffix that was asked for is nowhere.
    """
    wanted = [_with_prefix("sub-", label) for label in participants]
    visits = [_with_prefix("ses-", label) for label in sessions]
    asked = list(dict.fromkeys(suffixes))
    index = BidsIndex({suffix: [] for suffix in asked or DEFAULT_SUFFIXES})
    try:
        people = [each.name for each in scan(str(root)) if each.name.startswith("sub-") and is_folder(each)]
    except OSError as error:
        raise InputError(
            f"{root}: no BIDS data set can be read there ({error.strerror}); name its folder"
        ) from error
    _refuse_absent("participant", wanted, people, f"is in {root}")
    if not people:
        index.remarks.append(f"{root}: has no folder sub-*; is it a BIDS data set?")
    elif not (root / _DESCRIPTION).is_file():
        index.remarks.append(f"{root}: has no {_DESCRIPTION}, which BIDS asks for")
    met: set[str] = set()
    misnamed: list[str] = []
    for person in people:
        if wanted and person not in wanted:
            continue
        for folder in _datatypes(str(root), person, visits, met, index.unreadable):
            _take(index, str(root), folder, person, misnamed)
    _refuse_absent("session", visits, met, "is in the participants that were chosen")
    _refuse_absent(
        "suffix", asked, [each for each, found in index.volumes.items() if found], "is in what was chosen"
    )
    if misnamed:
        index.remarks.append(
            f"{len(misnamed)} volumes are not named after their participant and were left out: {misnamed[0]}"
            + (", ..." if len(misnamed) > 1 else "")
        )
    return index


def _with_prefix(prefix: str, label: str) -> str:
    return prefix + label.removeprefix(prefix)


def _refuse_absent(what: str, asked: Iterable[str], there: Iterable[str], where: str) -> None:
    there = set(there)
    for each in asked:
        if each not in there:
            some = ", ".join(sorted(there)[:3]) + (", ..." if len(there) > 3 else "")
            raise OptionError(f"{what} {each}: none {where}" + (f"; there are {some}" if there else ""))


def _datatypes(
    root: str, person: str, visits: list[str], met: set[str], failures: list[Refused]
) -> Iterator[str]:
    """Folders of a participant that may hold volumes, relative to the data set."""
    for name in _folders(root, person, failures):
        if not name.startswith("ses-"):
            if not visits:
                yield f"{person}/{name}"
            continue
        met.add(name)
        if not visits or name in visits:
            for datatype in _folders(root, f"{person}/{name}", failures):
                yield f"{person}/{name}/{datatype}"


def _folders(root: str, name: str, failures: list[Refused]) -> list[str]:
    try:
        return [each.name for each in scan(f"{root}/{name}") if is_folder(each)]
    except OSError as error:
        failures.append(unreadable(name, error))
        return []


def _take(index: BidsIndex, root: str, folder: str, person: str, misnamed: list[str]) -> None:
    real = os.path.realpath(f"{root}/{folder}")
    try:
        entries = scan(f"{root}/{folder}")
    except OSError as error:
        index.unreadable.append(unreadable(folder, error))
        return
    for entry in entries:
        if not is_volume_name(entry.name):
            continue
        suffix = split_suffix(entry.name)[0].rpartition("_")[2]
        if suffix not in index.volumes or is_result_name(entry.name):
            continue
        if not entry.name.startswith(f"{person}_"):
            misnamed.append(f"{folder}/{entry.name}")
            continue
        # Each name is a volume of its own, also where two lead to one file: DataLad stores equal files once.
        is_link = entry.is_symlink()
        if is_link or entry.is_file():
            target = os.path.realpath(entry.path) if is_link else f"{real}/{entry.name}"
            index.volumes[suffix].append(Found(entry.path, f"{folder}/{entry.name}", target))


def dataset_description(source: Path, out: Path) -> dict[str, object]:
    """What BIDS asks for at the top of a derivative data set, as JSON values.

    Parameters
    ----------
    source : data set that the volumes are of
    out : top of the results; the data set is named relative to it, so that nothing of the machine gets in
    """
    from fastseg import __version__

    known = _description_of(source)
    origin: dict[str, object] = {"URL": quote(os.fsencode(os.path.relpath(source.resolve(), out.resolve())))}
    if isinstance(known.get("DatasetDOI"), str):
        origin["DOI"] = known["DatasetDOI"]
    name = known.get("Name")
    return {
        "Name": f"fastseg of {name}" if isinstance(name, str) and name else "fastseg",
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "fastseg", "Version": __version__}],
        "SourceDatasets": [origin],
    }


def _description_of(source: Path) -> dict[str, object]:
    """Give what the data set says of itself; nothing where that cannot be read."""
    try:
        known = json.loads((source / _DESCRIPTION).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
