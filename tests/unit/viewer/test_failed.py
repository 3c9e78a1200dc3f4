"""Which volumes of past runs are drawn on, and what runs them again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fastseg.cohort.ledger import History
from fastseg.viewer.failed import Failed, Found, Rerun, find_failed, reruns


def _history(*lines: dict[str, Any]) -> History:
    history = History()
    for at, line in enumerate(lines):
        history.add({"at": f"2026-01-01T00:00:{at:02}", **line})
    return history


def _run(*command: str, root: str = "/data", cwd: str = "/") -> dict[str, Any]:
    return {"event": "run", "command": [*command], "root": root, "cwd": cwd}


def _end(name: str, status: str = "no_cord", **facts: Any) -> dict[str, Any]:
    mask = f"{name.removesuffix('.nii.gz')}_seg.nii.gz"
    return {"event": "end", "mask": mask, "name": name, "status": status, **facts}


def _names(found: list[Failed]) -> list[str]:
    return [each.drawing.name for each in found]


def test_volumes_without_a_cord_are_found_by_name() -> None:
    history = _history(
        _run("run", "x"), _end("b.nii.gz"), _end("a.nii.gz"), _end("c.nii.gz", "ok_flagged"),
        _end("d.nii.gz", "bad_input"), _end("e.nii.gz", "ok"), _end("f.nii.gz"), _end("f.nii.gz", "ok"),
    )  # fmt: skip
    found = find_failed(history, Path("out"))
    assert (_names(found.volumes), found.lost, found.named) == (["a.nii.gz", "b.nii.gz"], [], [])
    drawing = found.volumes[0].drawing
    assert (drawing.image, drawing.target) == (Path("/data/a.nii.gz"), Path("out/a_points.json"))
    assert [path.name for path in drawing.files] == ["a_points.json", "a_labels.nii.gz"]
    flagged = find_failed(history, Path("out"), flagged=True)
    assert _names(flagged.volumes) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]


def test_volumes_of_old_runs_need_the_data_set() -> None:
    history = _history({"event": "run", "command": ["run", "x"]}, _end("s/a.nii.gz"))
    assert find_failed(history, Path("out")) == Found([], ["s/a.nii.gz"], [])
    found = find_failed(history, Path("out"), inputs=Path("moved"))
    assert (found.volumes[0].drawing.image, found.lost) == (Path("moved/s/a.nii.gz"), [])


def test_volumes_whose_centerline_was_named_are_not_drawn_on(tmp_path: Path) -> None:
    """No points would be taken: what the user named goes before them."""
    named = {"centerline": {"bytes": 1, "mtime_ns": 1}}
    history = _history(_run("run", "list.csv"), _end("a.nii.gz", inputs=named))
    assert find_failed(history, tmp_path) == Found([], [], ["a.nii.gz"])
    (tmp_path / "a_points.json").touch()
    assert _names(find_failed(history, tmp_path).volumes) == ["a.nii.gz"]


@pytest.mark.parametrize(
    ("words", "chosen", "frame"),
    [
        (["run", "x", "--4d", "2"], None, 2),
        (["run", "x", "--4d=mean"], None, "mean"),
        (["run", "x"], None, None),
        (["run", "x", "--4d", "2"], 0, 0),
        (["run", "--4d"], None, None),
    ],
)
def test_a_volume_is_shown_with_the_frame_that_was_run(
    words: list[str], chosen: int | None, frame: object
) -> None:
    (volume,) = find_failed(_history(_run(*words), _end("a.nii.gz")), Path("out"), frame=chosen).volumes
    assert volume.drawing.frame == frame


def test_points_wait_until_a_run_has_taken_them(tmp_path: Path) -> None:
    def found(**facts: Any) -> bool:
        history = _history(_run("run", "x"), _end("a.nii.gz", **facts))
        return find_failed(history, tmp_path).volumes[0].waits

    points = tmp_path / "a_points.json"
    assert not found()
    points.write_text("[[1, 2, 3]]")
    assert found()
    status = points.stat()
    taken = {"centerline": {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}}
    assert not found(inputs=taken)
    os.utime(points, (1, 1))
    assert found(inputs=taken)


def test_each_volume_is_run_again_by_its_own_command() -> None:
    history = _history(
        _run("run", "x", "-o", "out", "--overwrite"),
        _end("a.nii.gz"),
        _run("run", "y", "-o", "out", "--retry-failed", cwd="/tmp"),
        _end("b.nii.gz"),
        _run("run", "z", "-o", "out"),
    )
    first, second = find_failed(history, Path("out")).volumes
    assert reruns(history, [first]) == [Rerun(("run", "x", "-o", "out"), "/")]
    assert reruns(history, [second]) == [Rerun(("run", "y", "-o", "out"), "/tmp")]
    assert len(reruns(history, [first, second, first])) == 2


def test_all_parts_of_a_job_array_are_run_again() -> None:
    """Which of them a volume is of, only its place in the list says."""
    history = _history(
        _run("run", "x", "--shard", "1/2"),
        _run("run", "x", "--shard=2/2"),
        _run("run", "other"),
        _run("run", "x", "--shard", "1/2"),
        _end("a.nii.gz"),
    )
    volumes = find_failed(history, Path("out")).volumes
    assert [each.words for each in reruns(history, volumes)] == [
        ("run", "x", "--shard", "1/2"),
        ("run", "x", "--shard=2/2"),
    ]


@pytest.mark.parametrize(
    ("rerun", "by_itself"),
    [
        (Rerun(("run", "x"), "/"), True),
        (Rerun(("run", "-", "-o", "out"), "/"), False),
        (Rerun(("run", "x"), "/no/such/folder"), False),
        (Rerun(("run", "x"), ""), False),
        (Rerun((), "/"), False),
        (Rerun(("deepseg-sc", "x"), "/"), False),
    ],
)
def test_only_a_command_that_is_written_down_whole_runs_by_itself(rerun: Rerun, by_itself: bool) -> None:
    assert rerun.by_itself is by_itself


def test_a_ledger_that_says_nothing_of_its_runs_breaks_nothing() -> None:
    history = _history(_end("a.nii.gz"), {"event": "run", "command": 7})
    found = find_failed(history, Path("out"), inputs=Path("in"))
    assert reruns(history, found.volumes) == [Rerun((), "")]


@pytest.mark.parametrize("frame", [0, 3, "mean"])
def test_a_volume_of_a_list_is_shown_with_its_own_frame(frame: int | str) -> None:
    history = _history(_run("run", "list.csv", "--4d", "7"), _end("a.nii.gz", frame=frame))
    assert find_failed(history, Path("out")).volumes[0].drawing.frame == frame
