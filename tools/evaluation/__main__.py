"""The command line of tools/evaluate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TypeVar

from fastseg.engines.compute import Compute
from fastseg.errors import FastsegError, InputError, NetworkError
from fastseg.networks.packs import find_pack, pack_digest
from fastseg.outputs import write_file
from fastseg.volume import Volume
from tools.evaluation.calibration import leave_one_out
from tools.evaluation.cord_free import CordFree, cord_free_cases
from tools.evaluation.overlays import WorstSlices
from tools.evaluation.report import Outcome, Report
from tools.evaluation.runs import (
    CENTERLINES,
    KERNELS,
    FreeResult,
    Load,
    Result,
    Run,
    evaluate,
    evaluate_cord_free,
)
from tools.evaluation.summary import missed_dice
from tools.evaluation.volumes import LIST, Case, default_data, load_case, read_list

_CHECKOUT = Path(__file__).resolve().parents[2]
#: What --leave-one-out tries where --thresholds says nothing.
_THRESHOLDS = tuple(round(0.05 * n, 2) for n in range(4, 15))

_DESCRIPTION = """\
Segment real volumes and compare with their reference masks: Dice, distances, areas, centerline, false alarms.

  tools/evaluate                                   the default pack, as fastseg run takes it
  tools/evaluate --centerline all                  every detector, and the reference's own centerline
  tools/evaluate --kernel 2d --kernel 3d           both networks, side by side
  tools/evaluate --models PACK --json new.json --markdown new.md --overlays worst/
  tools/evaluate --leave-one-out --no-cord-free    thresholds from the other people's volumes
  tools/evaluate --volume 'gm*' --check            some volumes; fails where one misses its Dice
"""

_Item = TypeVar("_Item", Result, FreeResult)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the evaluation.

    Returns
    -------
    code : 0; 1 with --check where a volume misses its Dice; 2 where something is wrong with the input
    """
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except FastsegError as error:
        print(f"tools/evaluate: error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    listing = read_list(options.list_file)
    cases = {case.name: case for case in listing.cases}
    if not options.data.is_dir():
        raise InputError(f"{options.data}: no such folder: name the folder with the volumes (--data DIR)")

    @cache
    def load(case: Case) -> tuple[Volume, Volume]:
        return load_case(case, options.data)

    free = cord_free_cases(listing.phantoms, listing.slabs, cases, load)
    chosen, chosen_free = _chosen(options.volume, listing.cases, free)
    if options.list:
        _print_list(chosen, () if options.no_cord_free else chosen_free)
        return 0
    pack = find_pack(options.models)
    runs, notes = _runs(
        options, {case.contrast for case in chosen} or {case.contrast for case in chosen_free}
    )
    worst = WorstSlices(options.worst, per_volume=options.per_volume) if options.overlays else None
    outcomes = tuple(_outcome(run, options, chosen, chosen_free, load, worst) for run in runs)
    name = f"{pack.name} {pack.version}, sha256 of its files' digests {pack_digest(pack)[:12]}"
    report = Report(name, outcomes, listing.limits, notes)
    if options.json:
        write_file(options.json, report.json().encode())
    if options.markdown:
        write_file(options.markdown, report.markdown().encode())
    else:
        print(report.markdown(), end="")
    if worst is not None:
        worst.write(options.overlays)
    missed = [result for outcome in outcomes for result in missed_dice(outcome.results)]
    for result in missed if options.check else ():
        reason = result.failure or f"Dice {result.dice:.3f}"
        print(f"missed: {result.case.name} ({result.run.title}): {reason}", file=sys.stderr)
    return 1 if options.check and missed else 0


def _outcome(
    run: Run,
    options: argparse.Namespace,
    cases: Sequence[Case],
    free: Sequence[CordFree],
    load: Load,
    worst: WorstSlices | None,
) -> Outcome:
    """Do all that is asked for with one run."""
    results = tuple(_told(evaluate(cases, run, load, worst), options.quiet))
    sweep = {}
    for threshold in _swept(options):
        swept = evaluate(cases, run.at(threshold), load)
        sweep[threshold] = tuple(_told(swept, options.quiet, f"threshold {threshold:g}"))
    choices = tuple(leave_one_out(sweep, results)) if options.leave_one_out else ()
    alarms: tuple[FreeResult, ...] = ()
    # The reference has no centerline where there is no cord.
    if not options.no_cord_free and run.centerline != "reference":
        alarms = tuple(_told(evaluate_cord_free(free, run, load), options.quiet))
    return Outcome(run, results, alarms, sweep, choices)


def _told(results: Iterable[_Item], quiet: bool, said: str = "") -> Iterator[_Item]:
    """Pass results on, and say on stderr that they are there."""
    for result in results:
        if isinstance(result, Result):
            name, found = result.case.name, f"Dice {result.dice:.3f}"
        else:
            name, found = result.name, f"cord on {result.reported} of {result.slices} cord-free slices"
        if not quiet:
            print(f"{name:28} {result.run.title:28} {said} {result.failure or found}", file=sys.stderr)
        yield result


def _chosen(
    patterns: Sequence[str], cases: Sequence[Case], free: Sequence[CordFree]
) -> tuple[list[Case], list[CordFree]]:
    """Volumes whose name matches one of the patterns; all without any."""
    names = [*(case.name for case in cases), *(each.name for each in free)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"no volume is called {pattern!r}: tools/evaluate --list shows their names")

    def wanted(name: str) -> bool:
        return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)

    return [each for each in cases if wanted(each.name)], [each for each in free if wanted(each.name)]


def _runs(options: argparse.Namespace, contrasts: Iterable[str]) -> tuple[list[Run], tuple[str, ...]]:
    """The runs that are asked for; of "all" those that the pack has networks for, and what was left out."""
    compute = Compute(options.engine, options.device, options.precision, options.threads)
    everything = "all" in options.centerline
    centerlines = CENTERLINES if everything else tuple(dict.fromkeys(options.centerline or ["auto"]))
    runs, notes = [], []
    for kernel in dict.fromkeys(options.kernel or ["2d"]):
        for centerline in centerlines:
            run = Run(
                models=options.models,
                kernel=kernel,
                centerline=centerline,
                contrast=options.contrast,
                threshold=options.threshold,
                compute=compute,
            )
            missing = _missing(run, contrasts)
            if missing is None:
                runs.append(run)
            elif everything:
                notes.append(f"Left out: {run.title} ({missing}).")
            else:
                raise missing
    return runs, tuple(notes)


def _missing(run: Run, contrasts: Iterable[str]) -> NetworkError | None:
    """What the pack lacks for a run in every contrast; None where there is one that works."""
    lacks = None
    for contrast in sorted(contrasts):
        try:
            with run.segmenter(contrast):
                return None
        except NetworkError as error:
            lacks = error
    return lacks


def _swept(options: argparse.Namespace) -> tuple[float, ...]:
    return options.thresholds or (_THRESHOLDS if options.leave_one_out else ())


def _print_list(cases: Sequence[Case], free: Sequence[CordFree]) -> None:
    for case in cases:
        asked = "     " if case.at_least is None else f"{case.at_least:.3f}"
        counted = " " if case.counted else "*"
        print(f"{case.name:28}{counted} {case.contrast:4} {case.person:14} {asked}  {case.reference}")
    for each in free:
        print(f"{each.name:28}  {each.contrast:4} {'':14}        cord-free slices")


def _thresholds(text: str) -> tuple[float, ...]:
    try:
        values = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: numbers with commas between them") from None
    if not all(0 <= value <= 1 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r}: thresholds lie between 0 and 1")
    return tuple(values)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/evaluate",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what is evaluated")
    what.add_argument("--models", default="default", metavar="PACK", help="pack, by name or folder")
    what.add_argument(
        "--kernel", action="append", choices=KERNELS, help="network; may be repeated (default: 2d)"
    )
    what.add_argument(
        "--centerline",
        action="append",
        choices=(*CENTERLINES, "all"),
        default=[],
        help="what finds the centerline; may be repeated (default: auto, as fastseg run). reference: the "
        "centre of the reference mask on each slice; all: every one that the pack has",
    )
    what.add_argument(
        "--contrast",
        metavar="NAME",
        help="run every volume as this, auto among them (default: each as it is)",
    )
    what.add_argument("--threshold", type=float, metavar="P", help="instead of the pack's own")
    for name in ("engine", "device", "precision"):
        what.add_argument(f"--{name}", default="auto", metavar="NAME", help="as of fastseg run")
    what.add_argument("--threads", type=_count, default=1, metavar="N", help="threads of the engine")
    volumes = parser.add_argument_group("volumes")
    volumes.add_argument(
        "--data",
        type=Path,
        default=default_data(_CHECKOUT),
        metavar="DIR",
        help="folder with the volumes (default: ../shared/data beside the checkout)",
    )
    volumes.add_argument(
        "--volume",
        action="append",
        default=[],
        metavar="NAME",
        help="only these; * and ? match; may be repeated",
    )
    volumes.add_argument("--no-cord-free", action="store_true", help="leave out the cord-free slices")
    volumes.add_argument("--list", action="store_true", help="print the volumes and stop")
    volumes.add_argument(
        "--list-file",
        type=Path,
        default=LIST,
        metavar="FILE",
        help="another list than tools/evaluation/volumes.toml",
    )
    calibration = parser.add_argument_group("thresholds")
    calibration.add_argument(
        "--thresholds",
        type=_thresholds,
        default=(),
        metavar="P,P,...",
        help="Dice and area bias for each of these",
    )
    calibration.add_argument(
        "--leave-one-out",
        action="store_true",
        help="each volume with the threshold that other people's volumes choose (of --thresholds, or of "
        "0.2, 0.25, ... 0.7)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--markdown", type=Path, metavar="FILE", help="tables (default: on stdout)")
    output.add_argument("--json", type=Path, metavar="FILE", help="all numbers")
    output.add_argument("--overlays", type=Path, metavar="DIR", help="pictures of the worst slices")
    output.add_argument("--worst", type=_count, default=12, metavar="N", help="how many (default: 12)")
    output.add_argument("--per-volume", type=_count, metavar="N", help="at most so many of one volume")
    output.add_argument("--check", action="store_true", help="exit with 1 where a volume misses its Dice")
    output.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser


if __name__ == "__main__":
    sys.exit(main())
