"""The command line of tools/quality_thresholds: what the quality flags catch, and what they should not."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import numpy as np

from fastseg.errors import FastsegError, InputError
from fastseg.options import Options
from fastseg.outputs import write_file
from fastseg.quality import LIMITS
from fastseg.segmenter import Segmenter
from fastseg.volume import SCT_RPI, Volume
from tools.evaluation.cord_free import cord_free_cases
from tools.evaluation.metrics import covered
from tools.evaluation.quality_trials import Trial, Trouble, trials
from tools.evaluation.volumes import LIST, Case, default_data, load_case, read_list

__all__ = ["BAD", "GOOD", "Judged", "judge", "main", "markdown", "read_results"]

#: A Dice from which on a result is good, and below which it is bad.
GOOD, BAD = 0.9, 0.8

_CHECKOUT = Path(__file__).resolve().parents[2]
_DESCRIPTION = """\
Segment real volumes as they are, with other options and damaged, and compare the Dice with the quality flags:
good results should have none, bad ones at least one. The limits in fastseg/quality.py come from its tables.
"""


@dataclass(frozen=True)
class Judged:
    """A result beside what its flags say.

    Parameters
    ----------
    volume, change, damaged : of the `Trial`
    dice : on the slices of the reference and those without a cord; nan where there is no mask
    measures, flags : of `fastseg.quality.Quality`
    failure : why there is no mask
    """

    volume: str
    change: str
    damaged: bool
    dice: float = float("nan")
    measures: Mapping[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    failure: str = ""

    @property
    def group(self) -> str:
        """What the user got: good, fair, bad or refused."""
        if self.failure:
            return "refused"
        return "good" if self.dice >= GOOD else "bad" if self.dice < BAD else "fair"


def judge(wanted: Iterable[Trial], models: str = "default") -> Iterator[Judged]:
    """Segment every trial's volume. A trial that cannot be made from its volume is left out.

    Parameters
    ----------
    models : pack, by name or folder
    """
    with ExitStack() as stack:

        @cache
        def opened(options: Options) -> Segmenter:
            return stack.enter_context(Segmenter(options, models=models))

        for trial in wanted:
            try:
                trouble = trial.make()
            except InputError:
                continue
            found = Judged(trial.volume, trial.change, trial.damaged)
            try:
                result = opened(trial.options).segment(trouble.image, trouble.given)
            except FastsegError as error:
                yield replace(found, failure=f"{type(error).__name__}: {error}")
                continue
            quality = result.quality
            dice = _dice(result.mask, trouble)
            yield replace(found, dice=dice, measures=quality.measures, flags=quality.flags)


def _dice(mask: Volume, trouble: Trouble) -> float:
    ours = np.asarray(mask.reoriented(SCT_RPI).voxels) > 0.5
    theirs = np.zeros_like(ours)
    if trouble.reference is not None:
        theirs |= np.asarray(trouble.reference.reoriented(SCT_RPI).voxels)
    theirs[..., trouble.free] = False
    looked_at = covered(theirs) | trouble.free
    both = ours[..., looked_at].sum() + theirs[..., looked_at].sum()
    return float(2 * (ours & theirs).sum() / both) if both else 1.0


# --- tables


def markdown(results: Sequence[Judged]) -> str:
    """Tables for docs/quality.md."""
    plain = [each for each in results if not each.damaged and not each.change]
    parts = [
        ("Results by Dice", _groups(results)),
        ("Volumes as they are", _volumes(plain)),
        ("Limits", _limits(results)),
        ("Changes", _changes(results)),
        ("Bad results without a flag", _volumes([each for each in results if _missed(each)])),
    ]
    return "\n".join(f"## {title}\n\n{table}" for title, table in parts)


def _missed(result: Judged) -> bool:
    return result.group == "bad" and not result.flags


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def _flagged(results: Iterable[Judged]) -> str:
    results = list(results)
    return f"{sum(bool(each.flags) for each in results)} of {len(results)}"


def _groups(results: Sequence[Judged]) -> str:
    kinds = {
        "as it is": [each for each in results if not each.damaged and not each.change],
        "other options": [each for each in results if not each.damaged and each.change],
        "damaged": [each for each in results if each.damaged],
    }
    rows = [
        [
            kind,
            *(_flagged(each for each in members if each.group == group) for group in ("good", "fair", "bad")),
            sum(each.group == "refused" for each in members),
        ]
        for kind, members in kinds.items()
    ]
    head = [
        "",
        f"flagged of Dice ≥ {GOOD:g}",
        "flagged of those between",
        f"flagged of Dice < {BAD:g}",
        "refused",
    ]
    return _table(head, rows)


def _volumes(results: Sequence[Judged]) -> str:
    rows = [
        [
            each.volume,
            each.change,
            "" if each.failure else f"{each.dice:.3f}",
            each.failure or ", ".join(each.flags),
        ]
        for each in results
    ]
    return _table(["volume", "change", "Dice", "flags"], rows)


def _limits(results: Sequence[Judged]) -> str:
    """What each limit does, beside the range of its measure where nothing is damaged and all is well."""
    good = [each for each in results if each.group == "good"]
    well = [each for each in good if not each.damaged]
    bad = [each for each in results if each.group == "bad"]
    rows = []
    for limit in LIMITS:
        values = [each.measures[limit.measure] for each in well]
        bad_values = [each.measures[limit.measure] for each in bad]
        rows.append(
            [
                limit.flag,
                f"{limit.measure} {'<' if limit.below else '>'} {limit.value:g}",
                _range(values),
                _range(bad_values),
                sum(limit.flag in each.flags for each in well),
                sum(limit.flag in each.flags for each in good)
                - sum(limit.flag in each.flags for each in well),
                sum(limit.flag in each.flags for each in bad),
                sum(each.flags == (limit.flag,) for each in bad),
            ]
        )
    head = ["flag", "limit", "good", "bad", "flags good", "flags good of damaged", "flags bad", "alone"]
    return _table(head, rows)


def _range(values: Sequence[float]) -> str:
    """Smallest, 10 %, 90 % and largest."""
    return " ".join(f"{value:.3g}" for value in np.percentile(values, [0, 10, 90, 100])) if values else ""


def _changes(results: Sequence[Judged]) -> str:
    rows = []
    for change in dict.fromkeys(each.change for each in results):
        members = [each for each in results if each.change == change]
        found = [each.dice for each in members if not each.failure]
        rows.append(
            [
                change or "as it is",
                f"{min(found):.2f} to {max(found):.2f}" if found else "",
                *(
                    _flagged(each for each in members if each.group == group)
                    for group in ("good", "fair", "bad")
                ),
                sum(each.group == "refused" for each in members),
            ]
        )
    return _table(["change", "Dice", "flagged good", "flagged fair", "flagged bad", "refused"], rows)


# --- command


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge all trials.

    Returns
    -------
    code : 0; 2 where something is wrong with the input
    """
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except FastsegError as error:
        print(f"tools/quality_thresholds: error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    results = read_results(options.results) if options.results else _judged_anew(options)
    if options.json:
        write_file(options.json, "".join(json.dumps(asdict(each)) + "\n" for each in results).encode())
    if options.markdown:
        write_file(options.markdown, markdown(results).encode())
    else:
        print(markdown(results), end="")


def read_results(path: Path) -> list[Judged]:
    """Read what --json wrote, with the flags that its measures have by the limits of today.

    Raises
    ------
    InputError
        The file cannot be read, or was written by another version.
    """
    try:
        results = [Judged(**json.loads(line)) for line in path.read_text().splitlines()]
        return [
            replace(each, flags=tuple(limit.flag for limit in LIMITS if limit.broken(each.measures)))
            if each.measures
            else each
            for each in results
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: no results of this tool ({error!r}): write them again with --json"
        ) from error


def _judged_anew(options: argparse.Namespace) -> list[Judged]:
    if not options.data.is_dir():
        raise InputError(f"{options.data}: no such folder: name the folder with the volumes (--data DIR)")
    listing = read_list(options.list_file)

    @cache
    def load(case: Case) -> tuple[Volume, Volume]:
        return load_case(case, options.data)

    free = cord_free_cases(listing.phantoms, listing.slabs, {case.name: case for case in listing.cases}, load)
    # An image with several references is one trial, with the one that is listed first.
    first = {case.image: case for case in reversed(listing.cases)}
    wanted = [
        each
        for each in trials([case for case in listing.cases if first[case.image] is case], free, load)
        if _is_wanted(each, options)
    ]
    if not wanted:
        raise InputError("no trial has that name: leave out --volume and --change to run all of them")
    results = []
    for result in judge(wanted, options.models):
        results.append(result)
        said = result.failure or f"{result.dice:.3f} {' '.join(result.flags)}"
        print(f"{result.volume:16} {result.change:28} {said}", file=sys.stderr)
    return results


def _is_wanted(trial: Trial, options: argparse.Namespace) -> bool:
    pairs = ((trial.volume, options.volume), (trial.change or "as it is", options.change))
    return all(not names or any(fnmatchcase(value, name) for name in names) for value, names in pairs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/quality_thresholds",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", default="default", metavar="PACK", help="pack, by name or folder")
    parser.add_argument(
        "--data", type=Path, default=default_data(_CHECKOUT), metavar="DIR", help="real volumes"
    )
    parser.add_argument("--list-file", type=Path, default=LIST, metavar="FILE", help="another volumes.toml")
    for name in ("volume", "change"):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="NAME", help="only these; * and ? match"
        )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="tables of what --json wrote, by today's limits; runs nothing",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="tables (default: on stdout)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every result, as JSON lines")
    return parser


if __name__ == "__main__":
    sys.exit(main())
