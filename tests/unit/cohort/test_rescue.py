from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fastseg.cohort.job import Outcome
from fastseg.cohort.rescue import ladder
from fastseg.cohort.work import Manner, Work, segment_file
from fastseg.errors import InputError, NetworkError
from fastseg.networks.network import Role
from fastseg.networks.packs import Pack, find_pack
from fastseg.options import Options
from tests.unit.cohort.fake_segmenters import FakeSegmenters, jobs_of

_MANNER = Manner(kinds=("mask", "sidecar"), rescue=True)


@pytest.fixture(scope="module")
def pack() -> Pack:
    return find_pack("default")


def labels(options: Options, pack: Pack) -> list[str]:
    return [attempt.label for attempt in ladder(options, pack)]


def test_the_ladder_leaves_out_what_was_asked_for(pack: Pack) -> None:
    assert labels(Options(kernel="3d"), pack) == ["centerline svm"]
    assert labels(Options(detector="svm"), pack) == [
        "kernel 3d",
        "centerline cnn",
        "centerline cnn, kernel 3d",
    ]
    assert labels(Options(kernel="2d-light", detector="cnn"), pack) == [
        "kernel 3d",
        "centerline svm",
        "centerline svm, kernel 3d",
    ]


def test_a_centerline_that_was_given_is_kept(pack: Pack) -> None:
    assert labels(Options(detector="file"), pack) == ["kernel 3d"]
    assert labels(Options(detector="file", kernel="3d"), pack) == []


def test_the_ladder_has_only_what_the_pack_has(pack: Pack) -> None:
    flat = replace(pack, networks=tuple(n for n in pack.networks if n.role is not Role.SEGMENT_3D))
    assert labels(Options(), flat) == ["centerline svm"]
    assert labels(Options(), replace(flat, svm_models=())) == []


def test_other_options_stay_as_they_were(pack: Pack) -> None:
    for attempt in ladder(Options(contrast="t1", soft=True, threshold=0.3, brain=True), pack):
        assert (attempt.options.contrast, attempt.options.soft, attempt.options.threshold) == (
            "t1",
            True,
            0.3,
        )
        assert attempt.options.brain is (None if attempt.options.detector == "svm" else True)


def rescued(
    tmp_path: Path, results: Sequence[Sequence[str] | None], manner: Manner = _MANNER
) -> tuple[Outcome, int, dict[str, object]]:
    """Run one volume whose attempts give these flags, or find no cord; gives how many were made, too."""
    (job,) = jobs_of(tmp_path, [1])
    given = iter(results)
    made = 0

    def flags(options: Options, number: int) -> Sequence[str] | None:
        nonlocal made
        made += 1
        return next(given)

    outcome = segment_file(Work(job, manner, FakeSegmenters(flags=flags)))  # type: ignore[arg-type]
    sidecar = job.outputs.sidecar
    return outcome, made, json.loads(sidecar.read_text())["Fastseg"] if sidecar.exists() else {}


def test_a_good_result_is_not_tried_again(tmp_path: Path) -> None:
    outcome, made, record = rescued(tmp_path, [()])
    assert (str(outcome.status), made) == ("ok", 1)
    assert "Attempts" not in record
    assert "attempts" not in outcome.record


def test_without_rescue_a_flagged_result_stays(tmp_path: Path) -> None:
    outcome, made, _ = rescued(tmp_path, [("holes",)], Manner(("mask", "sidecar")))
    assert (str(outcome.status), made) == ("ok_flagged", 1)


def test_the_first_attempt_without_flags_ends_it(tmp_path: Path) -> None:
    outcome, made, record = rescued(tmp_path, [("holes", "short"), ()])
    assert (str(outcome.status), made, outcome.flags) == ("ok", 2, ())
    assert (record["Kernel"], record["Status"]) == ("3d", "ok")
    assert outcome.notes[-1] == "rescue: the result is that of kernel 3d"


def test_of_flagged_attempts_the_one_with_the_fewest_flags_wins_and_of_equals_the_first(
    tmp_path: Path,
) -> None:
    for k, (results, winner) in enumerate(
        [
            ([("a", "b"), ("a",), ("b",), ("a",)], "kernel 3d"),
            ([("a",), ("b",), ("a",), ("b",)], "as asked"),
            ([("a", "b", "c"), ("a", "b"), None, ("c",)], "centerline svm, kernel 3d"),
            ([None, ("a", "b"), ("b", "a"), None], "kernel 3d"),
        ]
    ):
        outcome, made, record = rescued(tmp_path / str(k), results)
        assert (str(outcome.status), made) == ("ok_flagged", 4)
        assert outcome.notes[-1] == f"rescue: the result is that of {winner}"
        assert list(outcome.flags) == record["Flags"]


def test_all_attempts_are_recorded_in_sidecar_and_outcome(tmp_path: Path) -> None:
    outcome, _, record = rescued(tmp_path, [("a", "b"), None, (), ()])
    assert outcome.record["attempts"] == record["Attempts"] == [
        {"Kernel": "2d", "Centerline": "auto", "Status": "ok_flagged", "Flags": ["a", "b"]},
        {"Kernel": "3d", "Centerline": "auto", "Status": "no_cord", "Flags": []},
        {"Kernel": "2d", "Centerline": "svm", "Status": "ok", "Flags": []},
    ]  # fmt: skip
    assert (record["Kernel"], record["Flags"]) == ("2d", [])


def test_where_no_attempt_sees_a_cord_the_first_ones_words_are_told(tmp_path: Path) -> None:
    outcome, made, record = rescued(tmp_path, [None] * 4)
    assert (str(outcome.status), made, record) == ("no_cord", 4, {})
    assert outcome.message == "no spinal cord was found; check the field of view"
    attempts = outcome.record["attempts"]
    assert isinstance(attempts, list)
    assert len(attempts) == 4


@pytest.mark.parametrize("error", [InputError("the field of view is too small"), NetworkError("is damaged")])
def test_an_attempt_that_cannot_be_made_does_not_undo_those_before_it(
    tmp_path: Path, error: Exception
) -> None:
    prepared = 0

    def on(step: str, numbers: list[int]) -> None:
        nonlocal prepared
        prepared += step == "prepare"
        if step == "prepare" and prepared > 1:
            raise error

    (job,) = jobs_of(tmp_path, [1])
    segmenters = FakeSegmenters(on=on, flags=lambda options, number: ("holes",))
    outcome = segment_file(Work(job, _MANNER, segmenters))  # type: ignore[arg-type]
    assert (str(outcome.status), outcome.flags, prepared) == ("ok_flagged", ("holes",), 4)
    assert outcome.notes[-1] == "rescue: the result is that of as asked"


def test_a_volume_that_cannot_be_used_is_not_tried_again(tmp_path: Path) -> None:
    prepared = 0

    def on(step: str, numbers: list[int]) -> None:
        nonlocal prepared
        prepared += 1
        raise InputError("all voxels are equal; check the file")

    (job,) = jobs_of(tmp_path, [1])
    outcome = segment_file(Work(job, _MANNER, FakeSegmenters(on=on)))  # type: ignore[arg-type]
    assert (str(outcome.status), prepared) == ("bad_input", 1)
