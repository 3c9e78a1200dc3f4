"""Thresholds: how good each one is for a contrast, and which one other people's volumes would choose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tools.evaluation.runs import Result

__all__ = ["Choice", "Score", "Sweep", "choose", "leave_one_out", "scores"]

#: Thresholds whose Dice is this near to the best are as good; among them the area decides.
_AS_GOOD = 0.002

#: Results of one run by threshold, each with the same volumes in the same order.
Sweep = Mapping[float, Sequence[Result]]


@dataclass(frozen=True, slots=True)
class Score:
    """How good a threshold is for a contrast.

    Parameters
    ----------
    threshold : 0..1
    dice : mean over people of the mean over their volumes; a volume that failed has 0
    worst : smallest Dice of a volume
    area_bias_percent : mean over people as above, of volumes that did not fail; nan where all did
    missed : volumes that do not reach the Dice that is asked of them
    """

    threshold: float
    dice: float
    worst: float
    area_bias_percent: float
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """A volume with the threshold that other people's volumes of its contrast choose.

    Parameters
    ----------
    result : with that threshold
    people : how many chose; 0: there are none, and the threshold is the pack's own
    """

    result: Result
    people: int


def scores(sweep: Sweep, contrast: str, *, without: str = "") -> list[Score]:
    """Score every threshold on the volumes of a contrast that count.

    Each person weighs the same, however many of their volumes there are.

    Parameters
    ----------
    without : person to leave out
    """
    found = []
    for threshold in sorted(sweep):
        people = _by_person(
            result
            for result in sweep[threshold]
            if result.case.counted and result.case.contrast == contrast and result.case.person != without
        )
        if not people:
            return []
        every = [result for results in people.values() for result in results]
        found.append(
            Score(
                threshold,
                dice=_mean_of_means(people, lambda result: result.dice),
                worst=min(result.dice for result in every),
                area_bias_percent=_mean_of_means(people, _area_bias),
                missed=sum(result.dice < (result.case.at_least or 0) for result in every),
            )
        )
    return found


def choose(candidates: Sequence[Score]) -> float:
    """Choose a threshold, of those with Dice within 0.002 of the best.

    The one with which the fewest volumes miss the Dice that is asked of them; then the one with the smallest
    area bias; of two that are equally good, the one nearer to the middle of the range.

    Examples
    --------
    >>> choose([Score(0.3, 0.951, 0.9, 9.0), Score(0.4, 0.950, 0.9, 1.0), Score(0.5, 0.93, 0.9, 0.0)])
    0.4
    """
    best = max(score.dice for score in candidates)
    good = [score for score in candidates if score.dice >= best - _AS_GOOD]

    def badness(score: Score) -> tuple[int, float, float]:
        bias = score.area_bias_percent
        return (score.missed, math.inf if math.isnan(bias) else abs(bias), abs(score.threshold - 0.5))

    return min(good, key=badness).threshold


def leave_one_out(sweep: Sweep, own: Sequence[Result]) -> list[Choice]:
    """Take each volume's result at the threshold that the other people's volumes of its contrast choose.

    Parameters
    ----------
    own : results with the pack's own thresholds, for volumes whose contrast no other person has
    """
    found = []
    for result in own:
        case = result.case
        candidates = scores(sweep, case.contrast, without=case.person)
        if not candidates:
            found.append(Choice(result, 0))
            continue
        swept = sweep[choose(candidates)]
        people = _by_person(
            each
            for each in swept
            if each.case.counted and each.case.contrast == case.contrast and each.case.person != case.person
        )
        found.append(Choice(next(each for each in swept if each.case.name == case.name), len(people)))
    return found


def _by_person(results: Iterable[Result]) -> dict[str, list[Result]]:
    people: dict[str, list[Result]] = {}
    for result in results:
        people.setdefault(result.case.person, []).append(result)
    return people


def _mean_of_means(people: Mapping[str, Sequence[Result]], read: Callable[[Result], float]) -> float:
    means = []
    for results in people.values():
        values = [value for value in map(read, results) if not math.isnan(value)]
        if values:
            means.append(math.fsum(values) / len(values))
    return math.fsum(means) / len(means) if means else math.nan


def _area_bias(result: Result) -> float:
    return result.accuracy.area_bias_percent if result.accuracy is not None else math.nan
