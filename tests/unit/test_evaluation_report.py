"""Means, targets, thresholds and tables of tools/evaluate, on results made by hand."""

from __future__ import annotations

import doctest
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from tools.evaluation import calibration, metrics
from tools.evaluation.calibration import Score, choose, leave_one_out, scores
from tools.evaluation.metrics import Accuracy, LineError
from tools.evaluation.report import Outcome, Report
from tools.evaluation.runs import FreeResult, Result, Run
from tools.evaluation.summary import free_percent, missed_dice, summaries, targets
from tools.evaluation.volumes import Case, Limits

_LIMITS = Limits(16, 5, 2.5, 6, 5)


def _result(name, dice, *, contrast="t2", person="", bias=1.0, **case):
    accuracy = Accuracy(10, dice, 1.5, 0.5, bias, 4.0, 100.0, 3)
    line = LineError(0.5, 1.0, 2.0, 0.0, 100.0)
    volume = Case(name, "i", "m", contrast, person or name, "manual", **case)
    return Result(volume, Run(), threshold=0.5, detector="cnn", accuracy=accuracy, line=line)


def _failed(name, **case):
    volume = Case(name, "i", "m", "t2", name, "manual", **case)
    return Result(volume, Run(), failure="CordNotFound: no cord")


def _free(name, slices, reported, *, phantom=False, failure=""):
    return FreeResult(name, "t2", Run(), phantom, slices, reported, 90.0, failure)


@pytest.mark.parametrize("module", [calibration, metrics])
def test_examples_are_true(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


# --- summaries


def test_summary_has_mean_and_worst_of_each_contrast_and_of_all():
    found = summaries(
        [_result("a", 0.9, bias=-8), _result("b", 0.8, bias=4), _result("c", 0.6, contrast="t1", bias=0)]
    )
    assert [each.title for each in found] == ["t2", "t1", "all"]
    assert found[0].mean["dice"] == pytest.approx(0.85)
    assert found[0].worst["dice"] == (0.8, "b")
    assert found[0].mean["area_bias_percent"] == pytest.approx(-2)
    assert found[0].worst["area_bias_percent"] == (-8, "a")
    assert found[2].mean["dice"] == pytest.approx(2.3 / 3)
    assert found[2].worst["dice"] == (0.6, "c")


def test_failed_volume_lowers_the_dice_and_has_no_distance():
    (found,) = summaries([_result("a", 0.9), _failed("b")])
    assert (found.volumes, found.failed) == (2, 1)
    assert found.mean["dice"] == pytest.approx(0.45)
    assert found.mean["hausdorff95_mm"] == pytest.approx(1.5)
    assert found.worst["found_percent"] == (0, "b")
    assert found.worst["line_lost_percent"] == (100, "b")


def test_second_reference_is_in_no_mean():
    (found,) = summaries([_result("a", 0.9), _result("b", 0.1, counted=False)])
    assert found.volumes == 1
    assert found.mean["dice"] == pytest.approx(0.9)


def test_volume_at_its_dice_is_not_missed_and_one_that_failed_is():
    results = [
        _result("a", 0.95, at_least=0.95),
        _result("b", 0.949, at_least=0.95),
        _failed("c", at_least=0.9),
        _failed("d"),
    ]
    assert [result.case.name for result in missed_dice(results)] == ["b", "c"]


def test_false_alarms_weigh_by_slices():
    assert free_percent([_free("a", 10, 1), _free("b", 30, 7)]) == pytest.approx(20)
    assert math.isnan(free_percent([_free("a", 0, 0, failure="x")]))


def test_targets_name_what_misses_them():
    results = [_result("a", 0.95, bias=17, at_least=0.9), _result("b", 0.8, bias=-1, at_least=0.9)]
    far = replace(results[1], line=LineError(1, 3, 5.9, 0, 100))
    found = {each.what: each for each in targets([results[0], far], [_free("x", 100, 5)], _LIMITS)}
    assert not found["Dice of each volume"].reached
    assert "b 0.800 (0.900)" in found["Dice of each volume"].found
    assert found["area bias of each volume at most 16 %"].found == "missed: a 17.0 %"
    assert found["centerline error of each volume, p95 at most 2.5 mm"].found == "missed: b 3.0 mm"
    assert found["centerline error of each slice at most 6 mm"].reached
    assert not found["mean area bias within ±5 %"].reached
    assert found["cord on at most 5 % of the cord-free slices"].reached


def test_area_bias_counts_either_way():
    (_, bias, *_) = targets([_result("a", 0.95, bias=-17, at_least=0.9)], [], _LIMITS)
    assert not bias.reached


# --- thresholds


def _sweep(**dice):
    """Name of person and volume -> Dice at thresholds 0.3 and 0.5."""
    return {
        threshold: [
            replace(_result(name, values[index], person=name.split("_")[0]), threshold=threshold)
            for name, values in dice.items()
        ]
        for index, threshold in enumerate((0.3, 0.5))
    }


def test_each_person_weighs_the_same():
    low, high = scores(_sweep(ann_1=(1.0, 0.5), ann_2=(0.8, 0.5), bob_1=(0.5, 0.7)), "t2")
    assert low.dice == pytest.approx((0.9 + 0.5) / 2)
    assert high.dice == pytest.approx((0.5 + 0.7) / 2)
    assert (low.worst, high.worst) == (0.5, 0.5)
    assert scores(_sweep(ann_1=(1.0, 0.5)), "t1") == []


def test_best_dice_chooses_and_among_equals_the_area():
    assert choose([Score(0.3, 0.90, 0, 1), Score(0.5, 0.95, 0, 30)]) == 0.5
    assert choose([Score(0.3, 0.949, 0, -1), Score(0.5, 0.950, 0, 30), Score(0.7, 0.9495, 0, 2)]) == 0.3
    assert choose([Score(0.3, 0, 0, math.nan), Score(0.6, 0, 0, math.nan)]) == 0.6


def test_threshold_of_a_volume_is_never_chosen_by_its_own_person():
    # Ann's volumes want 0.3, Bob's and Cid's want 0.5.
    sweep = _sweep(ann_1=(0.9, 0.2), ann_2=(0.9, 0.2), bob_1=(0.6, 0.7), cid_1=(0.6, 0.7))
    own = [_result(name, 0.0, person=name.split("_")[0]) for name in ("ann_1", "ann_2", "bob_1", "cid_1")]
    found = leave_one_out(sweep, own)
    assert [choice.result.case.name for choice in found] == ["ann_1", "ann_2", "bob_1", "cid_1"]
    assert [choice.result.threshold for choice in found] == [0.5, 0.5, 0.3, 0.3]
    assert [choice.result.dice for choice in found] == [0.2, 0.2, 0.6, 0.6]
    assert [choice.people for choice in found] == [2, 2, 2, 2]


def test_only_person_of_a_contrast_keeps_the_threshold_of_the_pack():
    own = [_result("ann_1", 0.77, person="ann")]
    (found,) = leave_one_out(_sweep(ann_1=(0.9, 0.2)), own)
    assert found.people == 0
    assert found.result is own[0]


def test_volumes_that_do_not_count_choose_nothing():
    sweep = _sweep(ann_1=(0.5, 0.5), bob_1=(0.9, 0.1))
    silent = {
        threshold: [replace(r, case=replace(r.case, counted=r.case.person == "ann")) for r in results]
        for threshold, results in sweep.items()
    }
    assert [each.dice for each in scores(silent, "t2")] == [0.5, 0.5]


# --- tables


def _report(*outcomes):
    return Report("default 1", tuple(outcomes), _LIMITS, ("Left out: nothing.",))


def _outcome(**run):
    results = (
        _result("good", 0.95, at_least=0.9, bias=-3.14),
        _result("bad", 0.8, at_least=0.9),
        _result("again", 0.7, counted=False),
        _failed("lost"),
    )
    free = (_free("phantom", 20, 0, phantom=True), _free("slab", 10, 3), _free("none", 0, 0, failure="why"))
    return Outcome(replace(Run(), **run), results, free, {}, ())


def _cells(text, name):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown_has_a_row_for_every_volume():
    text = _report(_outcome()).markdown()
    titles = _cells(text, "volume | contrast | Dice")
    row = dict(zip(titles, _cells(text, "good"), strict=True))
    assert (row["Dice"], row["asked"], row["area bias %"], row["beyond"]) == ("0.950", "0.900", "-3.1", "3")
    assert _cells(text, "bad")[2] == "**0.800**"
    assert _cells(text, r"again \*")[2:4] == ["0.700", "-"]
    assert _cells(text, "lost")[2:6] == ["failed", "-", "-", "-"]
    assert "- lost: CordNotFound: no cord" in text
    assert _cells(text, "slab")[2:4] == ["10", "30.0"]
    assert _cells(text, "**all**")[2:4] == ["30", "10.0"]
    assert "- none: why" in text
    assert "Left out: nothing." in text


def test_every_row_of_a_table_has_as_many_cells_as_its_head():
    sweep = _sweep(ann_1=(0.9, 0.2), bob_1=(0.6, 0.7))
    own = list(sweep[0.5])
    outcome = replace(_outcome(), results=tuple(own), sweep=sweep, choices=tuple(leave_one_out(sweep, own)))
    text = _report(outcome, _outcome(kernel="3d")).markdown()
    widths = set()
    for line in text.splitlines():
        if line.startswith("|"):
            widths.add(line.count("|"))
        else:
            assert len(widths) <= 1
            widths = set()


def test_runs_are_set_side_by_side():
    text = _report(_outcome(), _outcome(kernel="3d")).markdown()
    assert "| contrast | 2d, auto centerline | 3d, auto centerline |" in text
    assert "0.583 (0.000)" in text  # of 0.95, 0.8 and a failure
    assert "Dice of all runs" not in _report(_outcome()).markdown()


def test_thresholds_are_shown_with_the_one_that_is_chosen():
    sweep = _sweep(ann_1=(0.9, 0.2), bob_1=(0.6, 0.7))
    own = list(sweep[0.5])
    outcome = replace(_outcome(), results=tuple(own), sweep=sweep, choices=tuple(leave_one_out(sweep, own)))
    text = _report(outcome).markdown()
    assert "| t2 | **0.3** | 0.7500 | 0.600 | +1.0 |" in text
    assert "| t2 | 0.5 | 0.4500 | 0.200 | +1.0 |" in text
    assert "| ann_1 | t2 | ann | 1 | 0.5 | 0.200 | +1.0 |" in text


def test_json_is_strict_and_holds_every_number():
    sweep = _sweep(ann_1=(0.9, 0.2))
    outcome = replace(_outcome(), sweep=sweep, choices=tuple(leave_one_out(sweep, [sweep[0.5][0]])))
    text = _report(outcome).json()
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (run,) = read["runs"]
    assert run["run"]["kernel"] == "2d"
    good, lost = run["volumes"][0], run["volumes"][3]
    assert (good["volume"], good["accuracy"]["dice"], good["line"]["p95_mm"]) == ("good", 0.95, 1.0)
    assert (lost["failure"], lost["accuracy"], lost["threshold"]) == ("CordNotFound: no cord", None, None)
    assert run["cord_free"]["percent"] == 10
    assert run["thresholds"]["0.3"][0]["accuracy"]["dice"] == 0.9
    assert run["leave_one_out"][0]["people"] == 0
    assert np.isclose(run["contrasts"][0]["mean"]["dice"], 1.75 / 3)
