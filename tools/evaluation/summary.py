"""Means and worst cases over volumes, and whether the targets are reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tools.evaluation.runs import FreeResult, Result
from tools.evaluation.volumes import Limits

__all__ = ["METRICS", "Metric", "Summary", "Target", "free_percent", "missed_dice", "summaries", "targets"]


@dataclass(frozen=True)
class Metric:
    """One column of the tables.

    Parameters
    ----------
    key : in JSON
    title : in Markdown, with the unit
    digits : after the decimal point
    read : value of a result; nan where it has none
    badness : larger is worse
    """

    key: str
    title: str
    digits: int
    read: Callable[[Result], float]
    badness: Callable[[float], float] = lambda value: value


def _accuracy(name: str) -> Callable[[Result], float]:
    return lambda result: float(getattr(result.accuracy, name)) if result.accuracy else math.nan


def _line(name: str) -> Callable[[Result], float]:
    return lambda result: float(getattr(result.line, name)) if result.line else math.nan


def _found(result: Result) -> float:
    return result.accuracy.found_percent if result.accuracy else 0.0


def _lost(result: Result) -> float:
    return result.line.lost_percent if result.line else 100.0


#: The columns. A volume that failed has Dice 0, found 0 % and lost 100 %, and no value of the others.
METRICS = (
    Metric("dice", "Dice", 3, lambda result: result.dice, lambda value: -value),
    Metric("hausdorff95_mm", "HD95 mm", 2, _accuracy("hausdorff95_mm")),
    Metric("surface_mm", "surface mm", 2, _accuracy("surface_mm")),
    Metric("area_bias_percent", "area bias %", 1, _accuracy("area_bias_percent"), abs),
    Metric("slice_area_error_percent", "slice area error %", 1, _accuracy("slice_area_error_percent")),
    Metric("line_mean_mm", "centerline mean mm", 2, _line("mean_mm")),
    Metric("line_p95_mm", "p95 mm", 2, _line("p95_mm")),
    Metric("line_max_mm", "max mm", 2, _line("max_mm")),
    Metric("line_lost_percent", "over 8 mm %", 1, _lost),
    Metric("found_percent", "found %", 1, _found, lambda value: -value),
)


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and worst of every metric over some volumes.

    Parameters
    ----------
    title : contrast, or "all"
    volumes : that count
    failed : of these
    mean : by the metric's key; nan where no volume has a value
    worst : by the metric's key: value and volume
    """

    title: str
    volumes: int
    failed: int
    mean: dict[str, float]
    worst: dict[str, tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Target:
    """Something that is asked of a run.

    Parameters
    ----------
    what : the target, in words
    reached : whether it is
    found : what was found instead, in words
    """

    what: str
    reached: bool
    found: str


def summaries(results: Iterable[Result]) -> list[Summary]:
    """One summary per contrast in the order of the results, and one of all where there are several.

    Only volumes that count are part of them.
    """
    counted = [result for result in results if result.case.counted]
    contrasts = list(dict.fromkeys(result.case.contrast for result in counted))
    found = [_summary(c, [r for r in counted if r.case.contrast == c]) for c in contrasts]
    return [*found, _summary("all", counted)] if len(found) > 1 else found


def _summary(title: str, results: Sequence[Result]) -> Summary:
    mean, worst = {}, {}
    for metric in METRICS:
        values = [(metric.read(result), result.case.name) for result in results]
        values = [(value, name) for value, name in values if not math.isnan(value)]
        mean[metric.key] = math.fsum(value for value, _ in values) / len(values) if values else math.nan
        worst[metric.key] = max(values, key=lambda pair: metric.badness(pair[0]), default=(math.nan, ""))
    return Summary(title, len(results), sum(bool(each.failure) for each in results), mean, worst)


def missed_dice(results: Iterable[Result]) -> list[Result]:
    """Results below the Dice that their volume has to reach."""
    return [each for each in results if each.case.at_least is not None and each.dice < each.case.at_least]


def free_percent(results: Iterable[FreeResult]) -> float:
    """Cord-free slices on which a cord is reported, in percent of all; nan without any."""
    results = list(results)
    slices = sum(result.slices for result in results)
    return 100 * sum(result.reported for result in results) / slices if slices else math.nan


def targets(results: Sequence[Result], free: Sequence[FreeResult], limits: Limits) -> list[Target]:
    """Say of each target whether the results of a run reach it."""
    found: list[Target] = []
    asked = [result for result in results if result.case.at_least is not None]
    if asked:
        missed = missed_dice(asked)
        names = ", ".join(f"{r.case.name} {r.dice:.3f} ({r.case.at_least:.3f})" for r in missed)
        found.append(
            Target(
                "Dice of each volume",
                not missed,
                f"{len(asked) - len(missed)} of {len(asked)}" + (f"; missed: {names}" if names else ""),
            )
        )
    counted = [result for result in results if result.case.counted]
    bounds = (
        ("area_bias_percent", "area bias of each volume", limits.area_bias_percent, "%"),
        ("line_p95_mm", "centerline error of each volume, p95", limits.centerline_p95_mm, "mm"),
        ("line_max_mm", "centerline error of each slice", limits.centerline_max_mm, "mm"),
    )
    for key, what, bound, unit in bounds:
        found += _bounded(key, what, bound, unit, counted)
    biases = [r.accuracy.area_bias_percent for r in counted if r.accuracy is not None]
    if biases:
        mean, bound = math.fsum(biases) / len(biases), limits.mean_area_bias_percent
        found.append(Target(f"mean area bias within ±{bound:g} %", abs(mean) <= bound, f"{mean:+.1f} %"))
    percent = free_percent(free)
    if not math.isnan(percent):
        bound = limits.cord_free_percent
        what = f"cord on at most {bound:g} % of the cord-free slices"
        found.append(Target(what, percent <= bound, f"{percent:.1f} %"))
    return found


def _bounded(key: str, what: str, bound: float, unit: str, results: Sequence[Result]) -> list[Target]:
    metric = next(metric for metric in METRICS if metric.key == key)
    values = [(metric.badness(metric.read(result)), result.case.name) for result in results]
    values = [(value, name) for value, name in values if not math.isnan(value)]
    if not values:
        return []
    above = sorted((pair for pair in values if pair[0] > bound), reverse=True)
    said = ", ".join(f"{name} {value:.1f}" for value, name in above)
    largest = max(values)
    found = f"missed: {said} {unit}" if said else f"largest: {largest[1]} {largest[0]:.1f} {unit}"
    return [Target(f"{what} at most {bound:g} {unit}", not above, found)]
