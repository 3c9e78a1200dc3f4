"""The report of runs of the past, from what they left in their output folder, and of corrected masks."""

from __future__ import annotations

import fnmatch
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastseg.cohort.ledger import read_ledgers
from fastseg.errors import InputError
from fastseg.outputs import split_suffix
from fastseg.past.entries import Made, Maker
from fastseg.past.volumes import Finished, Places, of_ledger, of_outcome, of_sidecars
from fastseg.qc.editors import manual_path
from fastseg.qc.report import Report

if TYPE_CHECKING:
    from fastseg.cohort.job import Outcome
    from fastseg.cohort.showing import Showing

__all__ = ["Built", "build_report", "is_report", "selection", "show_corrected"]

# Names that a remark gives; the report has the others.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Built:
    """What came of building a report.

    Parameters
    ----------
    total : volumes of the output folder
    drawn : entries that were made, or made anew
    kept : entries that were there already
    without_pictures : of all, those that have no picture
    corrected : of all, those that show a mask corrected by hand
    remarks : what the user should know, one line each
    """

    total: int
    drawn: int
    kept: int
    without_pictures: int
    corrected: int
    remarks: tuple[str, ...] = ()

    def text(self) -> str:
        """All of it on one line.

        Examples
        --------
        >>> Built(5, 2, 3, 1, 0).text()
        '5 volumes: 2 entries made, 3 unchanged, 1 without pictures'
        """
        parts = [f"{self.drawn} entries made" if self.drawn != 1 else "1 entry made"]
        parts += [f"{self.kept} unchanged"] * bool(self.kept)
        parts += [f"{self.corrected} corrected by hand"] * bool(self.corrected)
        parts += [f"{self.without_pictures} without pictures"] * bool(self.without_pictures)
        return f"{self.total} volume{'s' * (self.total != 1)}: {', '.join(parts)}"


def is_report(folder: Path) -> bool:
    """Whether a folder is a report, and not the output folder of a run."""
    return (folder / "report.json").is_file()


def build_report(
    out: Path,
    folder: Path,
    *,
    inputs: Path | None = None,
    dataset: str = "",
    subject: str = "",
    overwrite: bool = False,
    threads: int = 1,
    on_volume: Callable[[int, int, str], None] | None = None,
) -> Built:
    """Make the entries of all volumes that runs finished with, and read corrected masks into them.

    Entries that are there already and show the same mask are kept. What is wrong with one volume, a damaged
    mask or an image that is gone, is said in its entry.

    Parameters
    ----------
    out : output folder of runs; where it has no ledger, masks with sidecars below it are taken
    folder : of the report, which may be there already
    inputs : folder that the images lie in; None: where the ledger says, or where the very files that were
        segmented are found
    dataset, subject : for all entries; empty: from the folder of the images, and from names
    overwrite : whether entries are made anew that are there already
    threads : entries that are made at once; they share the memory that is free
    on_volume : is told how many volumes of how many are done, and the name of the last

    Raises
    ------
    InputError
        There are no results in `out`, or no folder `inputs`.
    OutputError
        The ledger cannot be read, or the report not be written.
    """
    if inputs is not None and not inputs.is_dir():
        raise InputError(f"{inputs}: no such folder; give --inputs the folder that the images lie in")
    history = read_ledgers(out)
    volumes: Iterable[Finished] = of_ledger(history, out)
    total = len(history.ends)
    if not total:
        volumes = listed = of_sidecars(out)
        total = len(listed)
    if not total:
        raise InputError(
            f"{out}: holds no ledger of a run, and no mask with a sidecar of fastseg; give the folder of "
            "a run's results"
        )
    places = Places(out, history.runs, inputs)
    with Report(folder) as report:
        known = {} if overwrite else {row["id"]: row for row in report.rows()}
        maker = Maker(folder, places, known, dataset=dataset, subject=subject, top=out)
        tally = _Tally(total)
        for made in _in_threads(maker.make, volumes, threads):
            if made.row is not None:
                report.note(made.row)
            tally.add(made)
            if on_volume is not None:
                on_volume(tally.done, total, made.name)
    return tally.built()


def show_corrected(outcome: Outcome, showing: Showing, out: Path) -> tuple[str, ...]:
    """Show the mask that was corrected by hand, if there is one, in place of the one that was just made.

    Parameters
    ----------
    outcome : of a volume that has no ledger
    showing : report that has its entry
    out : folder of its results

    Returns
    -------
    remarks : what the user should know

    Raises
    ------
    OutputError
        The report cannot be written.
    """
    volume = of_outcome(outcome)
    if not manual_path(volume.mask).exists():
        return ()
    folder = outcome.job.source.absolute().parents[len(Path(volume.name).parts) - 1]
    places = Places(out, (), folder)
    with Report(showing.folder) as report:
        maker = Maker(showing.folder, places, {}, dataset=showing.dataset, subject=showing.subject, top=out)
        made = maker.make(volume)
        if made.row is not None:
            report.note(made.row)
    return made.remarks


def _in_threads(
    make: Callable[[Finished], Made], volumes: Iterable[Finished], threads: int
) -> Iterator[Made]:
    """Make entries in order; no more wait than keep the threads busy."""
    coming = iter(volumes)
    with ThreadPoolExecutor(max(threads, 1), "qc") as pool:
        ahead: deque[Future[Made]] = deque()
        try:
            while True:
                for volume in islice(coming, 2 * threads + 1 - len(ahead)):
                    ahead.append(pool.submit(make, volume))
                if not ahead:
                    return
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


class _Tally:
    """Counts what was made, and collects what is to be said of many volumes in one line."""

    def __init__(self, total: int) -> None:
        self._total = total
        self.done = self._drawn = self._bare = self._corrected = 0
        self._lost: list[str] = []
        self._n_lost = 0
        self._remarks: list[str] = []

    def add(self, made: Made) -> None:
        self.done += 1
        self._drawn += made.row is not None
        self._bare += not made.pictures
        self._corrected += made.corrected
        self._remarks += made.remarks
        if made.lost:
            self._n_lost += 1
            self._lost += [made.name] if len(self._lost) < _NAMED else []

    def built(self) -> Built:
        remarks = [*self._remarks]
        if self._n_lost:
            more = ", ..." if self._n_lost > len(self._lost) else ""
            remarks.append(
                f"{self._n_lost} of {self._total} images were not found, their entries have no pictures: "
                f"{', '.join(self._lost)}{more}; give --inputs DIR, the folder that they lie in"
            )
        return Built(
            self._total, self._drawn, self.done - self._drawn, self._bare, self._corrected, tuple(remarks)
        )


def selection(rows: Sequence[Mapping[str, Any]], patterns: Sequence[str] = ()) -> list[str]:
    """Choose entries of a report, the worst first.

    Parameters
    ----------
    rows : of `fastseg.qc.report.Report.rows`
    patterns : names of volumes, with or without folders and .nii.gz, in which * and ? stand for others; none:
        volumes that failed or are flagged

    Returns
    -------
    ids : of the entries

    Raises
    ------
    InputError
        A pattern names no volume of the report.
    """
    worst = sorted(rows, key=lambda row: (-row["severity"], row["name"]))
    if not patterns:
        return [row["id"] for row in worst if row["severity"] > 0]
    chosen: set[str] = set()
    for pattern in patterns:
        found = {row["id"] for row in rows if _is_meant(row, pattern)}
        if not found:
            raise InputError(f"--select {pattern}: no volume of the report has such a name; see its table")
        chosen |= found
    return [row["id"] for row in worst if row["id"] in chosen]


def _is_meant(row: Mapping[str, Any], pattern: str) -> bool:
    name = str(row["name"])
    base = name.rpartition("/")[2]
    said = (name, base, split_suffix(base)[0], row["subject"], row["id"])
    return any(each == pattern or fnmatch.fnmatchcase(each, pattern) for each in said)
