"""From the words of a command line to jobs: everything is decided here, before any volume is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from fastseg.cohort.job import Job, Refused
from fastseg.cohort.plan.bids import contrast_of_suffix, index_bids
from fastseg.cohort.plan.exclusion import Exclusions
from fastseg.cohort.plan.lists import Row
from fastseg.cohort.plan.naming import Scheme, name_outputs
from fastseg.cohort.plan.places import Claims, Folders
from fastseg.cohort.plan.words import Form, Gathered, Item, counted, gather, parent
from fastseg.errors import OptionError
from fastseg.options import Options
from fastseg.outputs import POINTS, Kind, Outputs, is_volume_name, outputs_of, points_name, split_suffix

if TYPE_CHECKING:
    from fastseg.nifti_header import Frame

__all__ = ["PARTICIPANT", "Plan", "Selection", "Wanted", "job_of", "outputs_for", "plan"]

#: The third and last word of a command line that names a BIDS data set.
PARTICIPANT = "participant"

_FIELDS = ("{stem}", "{folder}", "{below}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is the same for all volumes of a command line.

    Parameters
    ----------
    options : for all volumes that nothing else is said of
    contrast_given : whether the contrast was chosen; it then goes before that of a BIDS suffix
    frame : of 4D files, which of their volumes
    file_centerline : drawn on the one volume; or a pattern for many, in which ``{stem}`` is the name of the
        volume without .nii.gz, ``{folder}`` its folder, and ``{below}`` that folder relative to the data set
    kinds : what is written of each volume
    naming : scheme of the names; None: neuropoly for BIDS data sets, else sct
    """

    options: Options
    contrast_given: bool = False
    frame: Frame | None = None
    file_centerline: str | None = None
    kinds: tuple[Kind, ...] = ("mask",)
    naming: Scheme | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of the volumes are meant.

    Parameters
    ----------
    participants, sessions : labels of a BIDS data set, with or without "sub-" and "ses-"; none: all
    suffixes : of a BIDS data set; none: T1w, T2w, T2star and T2starw
    excluded : patterns, participants and lists, as `fastseg.cohort.plan.exclusion.Exclusions` takes them
    excluded_yml : files like SCT's qc_fail.yml
    """

    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    excluded_yml: tuple[Path | str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command line means.

    Parameters
    ----------
    jobs : in the order in which they were named, folders sorted; no two write the same file
    root : absolute, the data set, to which the names of jobs are relative
    out : folder of all results
    form : in which the volumes were named: one file, files and folders, lists, or a BIDS data set
    remarks : what the user should know, one line each
    failures : folders that could not be read; their volumes are missing in `jobs`
    """

    jobs: list[Job]
    root: Path
    out: Path
    form: Form
    remarks: tuple[str, ...] = ()
    failures: tuple[Refused, ...] = ()


def plan(
    words: Sequence[str | Path], out: Path | None, wanted: Wanted, selection: Selection | None = None
) -> Plan:
    """Find the volumes and decide what is done with each, before any of them is read.

    Parameters
    ----------
    words : files, folders, patterns that the shell did not expand, and lists (.tsv, .csv); or the three words
        ``BIDS_DIR OUT_DIR participant``
    out : folder of the results, or a file for one volume; None: the current folder
    wanted : what is the same for all volumes
    selection : which of the volumes are meant; None: all

    Raises
    ------
    InputError
        A pattern matches nothing, a list cannot be used, there is no such data set.
    OptionError
        Words or options do not go together, two volumes would write the same file, an output is an input, or
        a label is nowhere.
    OutputError
        Nothing can be written where the results should go.
    """
    chosen = selection or Selection()
    given = [os.fspath(word) for word in words]
    if not given:
        raise OptionError("no input: name a file, a folder or a list")
    if "-" in given:
        raise OptionError("- reads the volumes from stdin: it is the one input; a file so called is ./-")
    excluded = Exclusions(chosen.excluded, chosen.excluded_yml)
    folders = Folders()
    as_file = None
    if len(given) == 3 and given[2] == PARTICIPANT:
        if out is not None:
            raise OptionError(f"the second word before {PARTICIPANT} is the output folder: leave -o away")
        top = Path(given[1])
        found = _of_data_set(Path(given[0]), top, wanted, chosen)
    else:
        if chosen.participants or chosen.sessions or chosen.suffixes:
            raise OptionError(
                "participants, sessions and suffixes are chosen in BIDS data sets only: "
                f"give BIDS_DIR OUT_DIR {PARTICIPANT}"
            )
        found = gather(given, Row("", "", wanted.options, wanted.frame), folders)
        top = out if out is not None else Path()
        if out is not None and is_volume_name(out) and not out.is_dir():
            if len(found.items) != 1:
                raise OptionError(
                    f"-o {out} is one file, but there are {len(found.items)} inputs: give a folder"
                )
            top, as_file = out.parent, out
    jobs = _jobs(found, top, wanted, excluded, outputs_of(as_file) if as_file is not None else None)
    _check(jobs, found, wanted.kinds, folders)
    failures = tuple(each for each in found.failures if not excluded.reason(f"{each.name}/"))
    remarks = (*found.remarks, *excluded.unmet(), *_told_by_hand(jobs))
    return Plan(jobs, found.root, top, found.form, remarks, failures)


def _of_data_set(root: Path, out: Path, wanted: Wanted, chosen: Selection) -> Gathered:
    if root.resolve() == out.resolve():
        raise OptionError(f"{out} is the data set itself: choose {out / 'derivatives' / 'fastseg'}")
    index = index_bids(
        root, participants=chosen.participants, sessions=chosen.sessions, suffixes=chosen.suffixes
    )
    items: list[Item] = []
    told: list[str] = []
    for suffix, volumes in index.volumes.items():
        options = wanted.options
        if not wanted.contrast_given:
            options = replace(options, contrast=contrast_of_suffix(suffix))
        if volumes:
            told.append(f"{suffix}: {counted(len(volumes))}, contrast {options.contrast}")
        row = Row("", "", options, wanted.frame)
        items += [Item(each.path, each.real, each.name, parent(each.name), row) for each in volumes]
    items.sort(key=lambda item: item.name.split("/"))
    return Gathered(items, root.absolute(), "bids", [*told, *index.remarks], index.unreadable)


def _jobs(
    found: Gathered, top: Path, wanted: Wanted, excluded: Exclusions, given: Outputs | None
) -> list[Job]:
    jobs = []
    by_hand = _ByHand()
    below, folder = "", top  # one Path for all volumes of a folder
    for item in found.items:
        if item.below != below:
            below, folder = item.below, top / item.below
        outputs = given or outputs_for(item, top, folder, wanted, data_set=found.form == "bids")
        jobs.append(job_of(item, outputs, wanted, excluded.reason(item.name), has_points=by_hand.has_points))
    drawn = wanted.file_centerline
    if drawn is not None and not any(field in drawn for field in _FIELDS):
        using = sum(job.centerline == Path(drawn) and not job.skip for job in jobs)
        if using > 1:
            raise OptionError(
                f"--file-centerline is for one input, not for {using}: put {', '.join(_FIELDS[:-1])} or "
                f"{_FIELDS[-1]} into its name, or give a list"
            )
    return jobs


def outputs_for(item: Item, top: Path, folder: Path, wanted: Wanted, *, data_set: bool = False) -> Outputs:
    """Name the outputs of an item.

    Parameters
    ----------
    item : of which they are
    top : folder of all results
    folder : of its results
    wanted : by what scheme they are named
    data_set : whether it is of a BIDS data set

    Raises
    ------
    OptionError
        The scheme cannot name them.
    """
    if item.row.output:
        return outputs_of(top / item.row.output)
    scheme = wanted.naming or ("neuropoly" if data_set else "sct")
    # Of single volumes, SCT calls soft results as it calls masks.
    soft = item.row.options.soft and (data_set or scheme != "sct")
    return name_outputs(scheme, folder, split_suffix(item.path)[0], soft=soft)


def job_of(
    item: Item,
    outputs: Outputs,
    wanted: Wanted,
    skip: str = "",
    *,
    has_points: Callable[[Outputs], bool] = lambda outputs: outputs.points.exists(),
) -> Job:
    """Make a job of an item.

    Points that were drawn by hand and lie beside its mask are its centerline, unless another one is named, or
    its row says how the cord is found.

    Parameters
    ----------
    item : the volume
    outputs : where its results go
    wanted : what is the same for all volumes
    skip : why the user excluded it
    has_points : whether points lie beside the mask

    Raises
    ------
    OptionError
        The centerline is to come from a file, and none is named.
    """
    row = item.row
    options, centerline = row.options, row.centerline
    if not row.method_given and wanted.file_centerline is not None:
        centerline = _centerline_of(wanted.file_centerline, item)
    elif not row.method_given and has_points(outputs):
        centerline = str(outputs.points)
    if centerline and options.detector != "file":
        options = _with_file(options)
    elif not centerline and options.detector == "file":
        where = row.where or item.path
        raise OptionError(f"{where}: no file is named for the centerline: give --file-centerline FILE")
    drawn = Path(centerline) if centerline else None
    return Job(item.name, Path(item.path), outputs, options, row.frame, drawn, skip)


class _ByHand:
    """What was drawn by hand; folders are looked at once each, files not at all."""

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}

    def has_points(self, outputs: Outputs) -> bool:
        """Whether points lie beside the mask."""
        names = self._names.get(outputs.folder)
        if names is None:
            names = frozenset[str]()
            with suppress(OSError), os.scandir(outputs.folder) as entries:  # most often it is not there yet
                names = frozenset(each.name for each in entries if each.name.endswith(POINTS))
            self._names[outputs.folder] = names
        return bool(names) and points_name(outputs.mask_name) in names


def _told_by_hand(jobs: Sequence[Job]) -> list[str]:
    """Say of how many volumes points were found that nobody named."""
    given = [job for job in jobs if job.centerline is not None and not job.skip]
    drawn = [job for job in given if job.centerline == job.outputs.points]
    if not drawn:
        return []
    have, more = ("has", "") if len(drawn) == 1 else ("have", ", ...")
    return [
        f"{counted(len(drawn))} {have} points drawn by hand, taken as centerline: {drawn[0].centerline}{more}"
    ]


def _centerline_of(pattern: str, item: Item) -> str:
    folder = parent(item.path) or ("/" if item.path.startswith("/") else ".")
    values = (split_suffix(item.path)[0], folder, parent(item.name) or ".")
    for field, value in zip(_FIELDS, values, strict=True):
        pattern = pattern.replace(field, value)
    return pattern


@lru_cache
def _with_file(options: Options) -> Options:
    return replace(options, detector="file")


def _check(jobs: list[Job], found: Gathered, kinds: tuple[Kind, ...], folders: Folders) -> None:
    """Refuse what would go wrong at the end of the run."""
    inputs = {item.real for item in found.items}
    inputs |= {folders.real_file(str(job.centerline)) for job in jobs if job.centerline is not None}
    claims = Claims(kinds, folders, inputs)
    writing = [job for job in jobs if not job.skip]
    for job in writing:
        claims.write(str(job.source), job.outputs)
    for folder in dict.fromkeys(job.outputs.folder for job in writing):
        folders.check_writable(folder)
