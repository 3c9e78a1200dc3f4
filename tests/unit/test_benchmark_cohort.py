"""benchmarks.cohort: how turns become lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cohort_lines import Case, Turn, lines_of
from benchmarks.runner import Target

_CHECKOUT = Path(__file__).resolve().parents[2]


def _case(targets: tuple[Target, ...] = (), **how: Any) -> Case:
    return Case("a title", {}, {"volumes": 2}, targets, **how)


def test_a_stream_is_compared_with_its_floor_turn_by_turn() -> None:
    # A machine that is twice as slow in the second turn: the stream is at 1.1 of its floor in both.
    turns = {
        "fastseg": [Turn(9, 5.5), Turn(19, 11)],
        "alone": [Turn(10, 10.5), Turn(20, 30)],
    }
    case = _case((Target("fastseg", "wall_to_floor", 1.2),), floor="alone", above_floor=("fastseg",))
    stream, alone = lines_of("stream", case, turns, 2)
    assert stream["wall_to_floor"] == 1.1
    assert (stream["target"], stream["target_holds"]) == ("wall_to_floor < 1.2", True)
    assert "wall_to_floor" not in alone
    assert "target" not in alone


def test_ratios_are_those_of_medians_to_the_first_contender() -> None:
    turns = {
        "fastseg": [Turn(1, 2, 100), Turn(2, 2, 110), Turn(9, 9, 120)],
        "loop": [Turn(4, 8, 50), Turn(4, 9, 55), Turn(5, 9, 60)],
    }
    case = _case((Target("loop", "wall_ratio", 4, at_least=True),))
    first, loop = lines_of("loop", case, turns, 2)
    assert (first["ratio"], first["wall_ratio"], first["rss_ratio"]) == (1, 1, 1)
    assert (loop["ratio"], loop["wall_ratio"], loop["rss_ratio"]) == (2, 4.5, 0.5)
    assert (loop["wall_seconds_min"], loop["wall_seconds_median"], loop["rss_mb_peak"]) == (8, 9, 60)
    assert loop["target_holds"] is True


def test_masks_that_differ_from_the_first_contenders_are_counted() -> None:
    turns = {
        "few": [Turn(1, 1, masks={"a": "1"})],
        "many": [Turn(1, 1, masks={"a": "1", "b": "2"}), Turn(1, 1, masks={"a": "9", "b": "2"})],
    }
    few, many = lines_of("memory", _case(), turns, 2)
    assert (few["masks"], few["different_masks"]) == (1, 0)
    assert (many["masks"], many["different_masks"]) == (2, 1)


def test_idle_cores_are_what_nobody_used() -> None:
    cores = os.cpu_count() or 1
    line = lines_of("stream", _case(), {"fastseg": [Turn(0.5 * cores, 1, others=0.25 * cores)]}, 2)[0]
    assert line["idle_share_median"] == 0.25


def test_shares_of_stages_add_up() -> None:
    stages = {"stages_cpu_seconds": {"read": 1.0, "infer": 3.0}}
    line = lines_of("stream", _case(), {"fastseg": [Turn(4, 2, stages=stages)]}, 2)[0]
    assert line["stages_share"] == {"read": 0.25, "infer": 0.75}
    assert line["busiest_stage"] == "infer"


@pytest.mark.slow
def test_a_small_cohort_is_timed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.cohort", "--volumes", "2", "--many", "4"]
    command += ["--repetitions", "1", "--work", str(tmp_path), "--data", str(tmp_path / "no-data")]
    cases = [word for case in ("stream-small", "loop-small") for word in ("--case", case)]
    done = subprocess.run(
        [*command, *cases], cwd=_CHECKOUT, capture_output=True, text=True, timeout=300, check=True
    )
    machine, *lines = map(json.loads, done.stdout.splitlines())
    assert machine["benchmark"] == "benchmarks.cohort"
    assert [line["case"] for line in lines] == ["stream-small"] * 4 + ["loop-small"] * 3
    assert {line["masks"] for line in lines} == {2}
    assert {line["different_masks"] for line in lines} == {0}
    assert list(tmp_path.iterdir()) == []
