"""The outcome of an evaluation as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from tools.evaluation.calibration import Choice, Sweep, choose, scores
from tools.evaluation.runs import FreeResult, Result, Run
from tools.evaluation.summary import METRICS, Metric, Summary, free_percent, summaries, targets
from tools.evaluation.volumes import Limits

__all__ = ["Outcome", "Report"]

_NONE = "-"


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that one run gave.

    Parameters
    ----------
    run : which
    results : with the pack's own thresholds, or the one that was asked for
    free : volumes with cord-free slices
    sweep : by threshold; empty where none was asked for
    choices : leave one person out; empty where it was not asked for
    """

    run: Run
    results: tuple[Result, ...]
    free: tuple[FreeResult, ...]
    sweep: Sweep
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation.

    Parameters
    ----------
    pack : name, version and digest, in words
    outcomes : one per run
    limits : for the targets
    notes : what was left out, one sentence each
    """

    pack: str
    outcomes: tuple[Outcome, ...]
    limits: Limits
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Tables for people."""
        parts = ["# Evaluation", f"Pack: {self.pack}", *self.notes]
        if len(self.outcomes) > 1:
            parts += ["## Dice of all runs", _comparison(self.outcomes)]
        for outcome in self.outcomes:
            parts += [f"## {outcome.run.title}", *_sections(outcome, self.limits)]
        parts += [_LEGEND]
        return "\n\n".join(parts) + "\n"

    def json(self) -> str:
        """All numbers, for programs; what is not a number is null."""
        content = {
            "format": 1,
            "pack": self.pack,
            "notes": self.notes,
            "limits": asdict(self.limits),
            "runs": [_outcome_json(outcome, self.limits) for outcome in self.outcomes],
        }
        return json.dumps(_finite(content), indent=1, ensure_ascii=False) + "\n"


_LEGEND = """\
Measured on the native grid, over the slices in which the reference has voxels. *found*: slices on which mask
and reference overlap. *over 8 mm*: slices whose centerline is that far off or missing. *beyond*: slices with
our mask but without reference. A volume that failed has Dice 0. Volumes with an asterisk are in no mean."""


def _sections(outcome: Outcome, limits: Limits) -> Iterable[str]:
    yield "### Volumes"
    yield _volume_table(outcome.results)
    yield from _failures((result.case.name, result.failure) for result in outcome.results)
    yield "### Contrasts"
    yield _summary_table(summaries(outcome.results))
    reached = targets(outcome.results, outcome.free, limits)
    if reached:
        yield "### Targets"
        yield _table(
            ("target", "", "found"),
            [(each.what, "reached" if each.reached else "**missed**", each.found) for each in reached],
        )
    if outcome.free:
        yield "### Slices without a cord"
        yield _free_table(outcome.free)
        yield from _failures((result.name, result.failure) for result in outcome.free)
    if outcome.sweep:
        yield "### Thresholds"
        yield "Means over people; the threshold in bold is the one that all of them choose."
        yield _sweep_table(outcome.sweep)
    if outcome.choices:
        chosen = [choice.result for choice in outcome.choices]
        yield "### Leave one person out"
        yield (
            "Each volume with the threshold that the other people's volumes of its contrast choose; with the "
            "pack's own where there are none (0 people)."
        )
        yield _choice_table(outcome.choices)
        yield _summary_table(summaries(chosen))


def _comparison(outcomes: Sequence[Outcome]) -> str:
    """Mean Dice by contrast and run; smallest in brackets."""
    columns = {outcome.run.title: summaries(outcome.results) for outcome in outcomes}
    titles = list(dict.fromkeys(each.title for column in columns.values() for each in column))
    rows = []
    for title in titles:
        cells = []
        for column in columns.values():
            found = next((each for each in column if each.title == title), None)
            cells.append(f"{found.mean['dice']:.3f} ({found.worst['dice'][0]:.3f})" if found else _NONE)
        rows.append((title, *cells))
    return _table(("contrast", *columns), rows) + "\n\nMean over volumes, in brackets the smallest."


def _volume_table(results: Sequence[Result]) -> str:
    titles = ["volume", "contrast", "Dice", "asked", *(m.title for m in METRICS[1:]), "slices", "beyond"]
    rows = []
    for result in results:
        name = result.case.name + ("" if result.case.counted else " \\*")
        asked = _NONE if result.case.at_least is None else f"{result.case.at_least:.3f}"
        dice = "failed" if result.failure else f"{result.dice:.3f}"
        if result.case.at_least is not None and result.dice < result.case.at_least:
            dice = f"**{dice}**"
        others = [_cell(metric, metric.read(result)) for metric in METRICS[1:]]
        accuracy = result.accuracy
        ends = [str(accuracy.slices), str(accuracy.slices_beyond)] if accuracy else [_NONE, _NONE]
        rows.append((name, result.case.contrast, dice, asked, *others, *ends))
    return _table(titles, rows)


def _summary_table(found: Sequence[Summary]) -> str:
    rows = []
    for each in found:
        mean = [_cell(metric, each.mean[metric.key]) for metric in METRICS]
        worst = [_cell(metric, each.worst[metric.key][0]) for metric in METRICS]
        rows.append((each.title, f"{each.volumes} ({each.failed})", "mean", *mean))
        rows.append(("", "", "worst", *worst))
    return _table(("contrast", "volumes (failed)", "", *(metric.title for metric in METRICS)), rows)


def _free_table(results: Sequence[FreeResult]) -> str:
    rows = [
        (
            result.name,
            result.contrast,
            str(result.slices) if result.slices else "failed",
            _percent(free_percent([result])),
            _percent(result.found_percent),
        )
        for result in results
    ]
    for phantom, title in ((True, "**phantoms**"), (False, "**real volumes**"), (None, "**all**")):
        some = [result for result in results if phantom is None or result.phantom is phantom]
        rows.append((title, "", str(sum(each.slices for each in some)), _percent(free_percent(some)), ""))
    return _table(("volume", "contrast", "cord-free slices", "reported %", "found elsewhere %"), rows)


def _sweep_table(sweep: Sweep) -> str:
    contrasts = dict.fromkeys(
        result.case.contrast for results in sweep.values() for result in results if result.case.counted
    )
    rows = []
    for contrast in contrasts:
        found = scores(sweep, contrast)
        best = choose(found)
        for each in found:
            threshold = f"**{each.threshold:g}**" if each.threshold == best else f"{each.threshold:g}"
            bias = _NONE if math.isnan(each.area_bias_percent) else f"{each.area_bias_percent:+.1f}"
            rows.append((contrast, threshold, f"{each.dice:.4f}", f"{each.worst:.3f}", bias))
    return _table(("contrast", "threshold", "Dice", "worst", "area bias %"), rows)


def _choice_table(choices: Sequence[Choice]) -> str:
    rows = []
    for choice in choices:
        result = choice.result
        name = result.case.name + ("" if result.case.counted else " \\*")
        bias = METRICS[3]
        rows.append(
            (
                name,
                result.case.contrast,
                result.case.person,
                str(choice.people),
                _NONE if math.isnan(result.threshold) else f"{result.threshold:g}",
                "failed" if result.failure else f"{result.dice:.3f}",
                _cell(bias, bias.read(result)),
            )
        )
    return _table(("volume", "contrast", "person", "people", "threshold", "Dice", "area bias %"), rows)


def _failures(pairs: Iterable[tuple[str, str]]) -> Iterable[str]:
    lines = [f"- {name}: {reason}" for name, reason in pairs if reason]
    if lines:
        yield "\n".join(lines)


def _cell(metric: Metric, value: float) -> str:
    if math.isnan(value):
        return _NONE
    sign = "+" if metric.key == "area_bias_percent" else ""
    return f"{value:{sign}.{metric.digits}f}"


def _percent(value: float) -> str:
    return _NONE if math.isnan(value) else f"{value:.1f}"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _outcome_json(outcome: Outcome, limits: Limits) -> dict[str, object]:
    results = outcome.results
    return {
        "run": asdict(outcome.run),
        "volumes": [_result_json(result) for result in results],
        "contrasts": [asdict(each) for each in summaries(results)],
        "targets": [asdict(each) for each in targets(results, outcome.free, limits)],
        "cord_free": {
            "percent": free_percent(outcome.free),
            "volumes": [{k: v for k, v in asdict(each).items() if k != "run"} for each in outcome.free],
        },
        "thresholds": {
            str(threshold): [_result_json(result) for result in results]
            for threshold, results in outcome.sweep.items()
        },
        "leave_one_out": [
            {"people": choice.people, **_result_json(choice.result)} for choice in outcome.choices
        ],
    }


def _result_json(result: Result) -> dict[str, object]:
    values = {key: value for key, value in asdict(result).items() if key not in ("case", "run")}
    case = result.case
    facts = {key: getattr(case, key) for key in ("contrast", "person", "reference", "at_least", "counted")}
    return {"volume": case.name, **facts, **values}


def _finite(value: object) -> object:
    """The same with None for what JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
