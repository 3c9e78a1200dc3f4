"""Volumes that runs of the past finished with: what was written down of them, and where their images are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fastseg.cohort.fingerprints import is_unchanged
from fastseg.cohort.job import Outcome, Status
from fastseg.cohort.ledger import History
from fastseg.outputs import is_volume_name, points_name, split_suffix
from fastseg.qc.editors import manual_path
from fastseg.quality import LIMITS

__all__ = [
    "Finished",
    "Found",
    "Places",
    "Reasons",
    "centerline_path",
    "of_ledger",
    "of_outcome",
    "of_sidecars",
    "read_record",
    "reasons_of",
]

# A sidecar has a few kB; whatever has more is none.
_SIDECAR_BYTES = 4_000_000
_WHERE = re.compile(r"slice (\d+)(?: to (\d+))?")


@dataclass(frozen=True, slots=True)
class Finished:
    """A volume that a run finished with.

    Parameters
    ----------
    name : of the volume, relative to its data set
    mask : absolute path of its mask, whether that is there or not
    status : how it ended
    message : why it failed
    notes : what was noticed on the way, with the reasons of flags where a ledger tells
    flags, measures, seconds, engines, contrast : as the run told
    known : by what its image is known again, as far as that was written down: bytes, mtime_ns, sha256
    digests : sha256 of the mask as runs wrote it; none: not known
    """

    name: str
    mask: Path
    status: Status
    message: str = ""
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    engines: Mapping[str, str] = field(default_factory=dict)
    contrast: str = ""
    known: Mapping[str, Any] = field(default_factory=dict)
    digests: tuple[str, ...] = ()


def of_ledger(history: History, out: Path) -> Iterator[Finished]:
    """Volumes of an output folder's ledgers, in the order in which they first ended.

    Parameters
    ----------
    history : from `fastseg.cohort.ledger.read_ledgers`
    out : the output folder
    """
    top = out.absolute()
    for mask, line in history.ends.items():
        written = (line.get(which, {}).get("mask") for which in ("outputs", "older"))
        yield Finished(
            name=line.get("name", mask),
            mask=top / mask,
            status=_status(line.get("status")),
            message=line.get("message", ""),
            notes=tuple(line.get("notes", ())),
            flags=tuple(line.get("flags", ())),
            measures=_numbers(line.get("measures")),
            seconds=_numbers(line.get("seconds")),
            engines=_texts(line.get("engines")),
            contrast=line.get("contrast", ""),
            known=line.get("inputs", {}).get("input", {}),
            digests=tuple(each for each in written if isinstance(each, str)),
        )


def of_outcome(outcome: Outcome) -> Finished:
    """A volume that was finished just now, and is in no ledger."""
    written = outcome.record.get("outputs")
    mask = written.get("mask") if isinstance(written, Mapping) else None
    return Finished(
        name=outcome.job.name,
        mask=outcome.job.outputs.mask.absolute(),
        status=outcome.status,
        message=outcome.message,
        notes=outcome.notes,
        flags=outcome.flags,
        measures=outcome.measures,
        seconds=outcome.seconds,
        engines=_texts(outcome.record.get("engines")),
        contrast=outcome.job.options.contrast,
        digests=(mask,) if isinstance(mask, str) else (),
    )


def of_sidecars(out: Path) -> list[Finished]:
    """Volumes of a folder without a ledger: masks beside which a sidecar says that fastseg made them.

    Hidden folders are not looked into.
    """
    found = []
    for folder, folders, files in os.walk(out.absolute()):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        masks = sorted(each for each in files if is_volume_name(each))
        # Whatever their sidecars say, which may be copies too.
        corrected = {manual_path(Path(each)).name for each in masks}
        for mask in masks:
            name = f"{split_suffix(mask)[0]}.json"
            record = read_record(Path(folder, name)) if name in files and mask not in corrected else {}
            if record:
                found.append(_of_record(record, Path(folder, mask)))
    return found


def _of_record(record: Mapping[str, Any], mask: Path) -> Finished:
    block = record["Fastseg"]
    sources = record.get("Sources")
    first = sources[0] if isinstance(sources, list) and sources else ""
    sha256 = block.get("InputSha256")
    return Finished(
        name=first if isinstance(first, str) and first else mask.name,
        mask=mask,
        status=_status(block.get("Status")),
        notes=_words(block.get("Notes")),
        flags=_words(block.get("Flags")),
        measures=_numbers(block.get("Quality")),
        seconds=_numbers(block.get("Seconds")),
        engines=_texts(block.get("Engines")),
        contrast=str(block.get("Contrast", "")),
        known={"sha256": sha256} if isinstance(sha256, str) else {},
    )


def read_record(path: Path) -> dict[str, Any]:
    """What a sidecar of fastseg says; nothing where it is missing, damaged, or of another program."""
    try:
        if path.stat().st_size > _SIDECAR_BYTES:
            return {}
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    makers = record.get("GeneratedBy") if isinstance(record, dict) else None
    makers = makers if isinstance(makers, list) else []
    ours = any(isinstance(maker, dict) and maker.get("Name") == "fastseg" for maker in makers)
    return record if ours and isinstance(record.get("Fastseg"), dict) else {}


def centerline_path(mask: Path) -> Path:
    """Where the centerline of a mask lies if one was saved, by whatever scheme they are named.

    Examples
    --------
    >>> centerline_path(Path("sub-01_T2w_label-SC_softseg.nii.gz")).name
    'sub-01_T2w_label-SC_centerline.nii.gz'
    >>> centerline_path(Path("sub-01_label-SC_desc-T2w_mask.nii.gz")).name
    'sub-01_label-centerline_desc-T2w_mask.nii.gz'
    """
    stem = points_name(mask.name).removesuffix("_points.json")
    ending = "_mask" if "_label-centerline_desc-" in stem else "_centerline"
    return mask.with_name(stem + ending + split_suffix(mask)[1])


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why a volume has its flags.

    Parameters
    ----------
    sentences : one for each flag
    slices : of SCT_RPI that the sentences name
    others : notes that are no such sentence
    """

    sentences: dict[str, str]
    slices: dict[str, list[int]]
    others: list[str]


def reasons_of(volume: Finished) -> Reasons:
    """Tell the reasons of flags from other notes: a ledger has them in one list, a sidecar has no reasons.

    Examples
    --------
    >>> notes = ("scl_slope is 0", "the centre moves by 7.0 mm from slice 3 to 4")
    >>> flag, measures = "centre_jump", {"CentreJumpMm": 7.0}
    >>> moved = Finished("a", Path("/a"), Status.OK_FLAGGED, "", notes, (flag,), measures)
    >>> reasons_of(moved).slices, reasons_of(moved).others
    ({'centre_jump': [3, 4]}, ['scl_slope is 0'])
    """
    found = Reasons({}, {}, [*volume.notes])
    for limit in LIMITS:
        if limit.flag not in volume.flags or limit.measure not in volume.measures:
            continue
        sentence = limit.reason.format(value=volume.measures[limit.measure], where="")
        said = next((note for note in found.others if note.startswith(sentence)), sentence)
        found.sentences[limit.flag] = said
        if said in found.others:
            found.others.remove(said)
        if where := _WHERE.search(said, len(sentence)):
            found.slices[limit.flag] = [int(each) for each in where.groups() if each is not None]
    return found


# --- images


@dataclass(frozen=True, slots=True)
class Found:
    """An image, and whether it is another file than the one that was segmented."""

    path: Path
    changed: bool = False


class Places:
    """Folders in which the images of an output folder may lie.

    What the user named and what the ledger says counts, also where the image changed since. Elsewhere a file
    has to be the very one that was segmented.

    Parameters
    ----------
    out : output folder
    runs : lines of its ledgers; newer ones name the root of the data set, older ones the words alone
    inputs : that the user named; None: none
    """

    def __init__(self, out: Path, runs: Iterable[Mapping[str, Any]], inputs: Path | None = None) -> None:
        named = [inputs] if inputs is not None else []
        guessed: list[Path] = []
        for run in reversed([*runs]):
            if isinstance(run.get("root"), str):
                named.append(Path(run["root"]))
            guessed += _folders_of_words(run)
        sources = _source_data_sets(out)
        guessed += [*sources, out, out.absolute().parent, Path()]
        self._inputs = inputs
        self._likeliest = (*named, *sources, out)[0]
        self._named = _existing(named)
        self._guessed = [each for each in _existing(guessed) if each not in self._named]

    def dataset_of(self, volume: Finished, found: Found | None) -> str:
        """Name of the data set of a volume, as far as it can be told: that of its folder."""
        folder = self._likeliest
        parts = Path(volume.name).parts
        if found is not None and found.path.parts[-len(parts) :] == parts:
            folder = found.path.parents[len(parts) - 1]
        return folder.resolve().name

    def find(self, volume: Finished) -> Found | None:
        """Find the image of a volume; None where it is nowhere."""
        changed = None
        for folder in self._named:
            path = folder / volume.name
            if path.is_file():
                if not volume.known or is_unchanged(path, volume.known):
                    return Found(path.absolute())
                changed = changed or Found(path.absolute(), changed=True)
        if volume.known:
            guesses = [each / volume.name for each in self._guessed]
            # The user's folder may hold the images without their folders; single masks lie beside theirs.
            beside = [*self._named[: self._inputs is not None], volume.mask.parent]
            guesses += [each / Path(volume.name).name for each in beside]
            for path in guesses:
                if path != volume.mask and is_unchanged(path, volume.known):
                    return Found(path.absolute())
        return changed


def _existing(folders: Iterable[Path]) -> list[Path]:
    return [each for each in dict.fromkeys(folders) if each.is_dir()]


def _folders_of_words(run: Mapping[str, Any]) -> list[Path]:
    """Folders that the words of a command line name, or that hold what they name."""
    words = run.get("command")
    base = Path(run["cwd"]) if isinstance(run.get("cwd"), str) else Path()
    folders, of_files = [], []
    for word in words if isinstance(words, list) else ():
        if isinstance(word, str) and word and "\0" not in word and not word.startswith("-"):
            path = base / word
            folders.append(path if path.is_dir() and not is_volume_name(word) else path.parent)
            of_files += [path.parent] * is_volume_name(word)
    # Files of several folders are named relative to the one that holds all of these.
    real = [os.path.realpath(each) for each in _existing(of_files)]
    return [*folders, *([Path(os.path.commonpath(real))] if real else [])]


def _source_data_sets(out: Path) -> list[Path]:
    """Data sets of which the results in a folder say that they are derivatives."""
    try:
        record = json.loads((out / "dataset_description.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    sources = record.get("SourceDatasets") if isinstance(record, dict) else None
    urls = (
        [each.get("URL") for each in sources if isinstance(each, dict)] if isinstance(sources, list) else []
    )
    return [out / unquote(url) for url in urls if isinstance(url, str) and "\0" not in unquote(url)]


# --- what files say that others may have written to


def _status(text: object) -> Status:
    return Status(text) if isinstance(text, str) and text in [*Status] else Status.ERROR


def _numbers(found: object) -> dict[str, float]:
    values = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in values if type(value) in (int, float)}


def _texts(found: object) -> dict[str, str]:
    values = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in values if isinstance(value, str)}


def _words(found: object) -> tuple[str, ...]:
    return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()
