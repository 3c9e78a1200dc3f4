"""--centerline viewer of the commands that segment: the page comes first, then the masks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastseg.qc.report import Report
from tests.phantom_files import fastseg, files_below, voxels_of
from tests.unit.viewer.page_client import save_hidden_cord, viewing


@pytest.fixture
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """Of t2.nii.gz in the current folder, whose cord no detector finds."""
    monkeypatch.chdir(tmp_path)
    points = save_hidden_cord(tmp_path / "t2.nii.gz")
    assert fastseg("run", "t2.nii.gz", "-c", "t2", "-o", "out")[0] == 4
    return points


def test_a_volume_is_drawn_on_and_then_segmented(tmp_path: Path, points: list[list[float]]) -> None:
    words = ("run", "t2.nii.gz", "-c", "t2", "-o", "out", "--centerline", "viewer", "--qc", "qc")
    with viewing(*words, cwd=tmp_path) as view:
        view.wait_for_page()
        assert view.ask("POST", "save", {"number": 0, "points": points}).json["over"]
        code, out, err = view.end()
    assert (code, out) == (0, "out/t2_seg.nii.gz\n"), err
    assert voxels_of(tmp_path / "out" / "t2_seg.nii.gz").any(axis=(0, 1)).all()
    assert json.loads((tmp_path / "out" / "t2_seg.json").read_text())["Fastseg"]["Centerline"] == "file"
    (row,) = Report(tmp_path / "qc").rows()
    assert row["status"] == "ok"


def test_the_same_run_again_takes_the_points_without_a_page(
    tmp_path: Path, points: list[list[float]]
) -> None:
    words = ("run", "t2.nii.gz", "-c", "t2", "-o", "out", "--centerline", "viewer")
    with viewing(*words, cwd=tmp_path) as view:
        view.wait_for_page()
        view.ask("POST", "save", {"number": 0, "points": points})
        assert view.end()[0] == 0
    before = (tmp_path / "out" / "t2_seg.nii.gz").read_bytes()
    (tmp_path / "out" / "t2_seg.nii.gz").unlink()
    (tmp_path / "out" / "t2_seg.json").unlink()
    code, _, err = fastseg(*words)
    assert code == 0, err
    assert "drawn by hand" in err
    assert (tmp_path / "out" / "t2_seg.nii.gz").read_bytes() == before


def test_cancelling_ends_the_run_with_130_and_nothing_is_segmented(
    tmp_path: Path, points: list[list[float]]
) -> None:
    before = files_below(tmp_path)
    with viewing("run", "t2.nii.gz", "-o", "out", "--centerline", "viewer", cwd=tmp_path) as view:
        view.wait_for_page()
        view.ask("POST", "cancel", {})
        code, out, err = view.end()
    assert (code, out) == (130, "")
    assert "cancelled" in err
    assert files_below(tmp_path) == before


def test_scts_own_spelling_opens_the_same_page(tmp_path: Path, points: list[list[float]]) -> None:
    words = ("deepseg-sc", "-i", "t2.nii.gz", "-c", "t2", "-centerline", "viewer", "-ofolder", "sct")
    with viewing(*words, cwd=tmp_path) as view:
        view.wait_for_page()
        assert view.ask("POST", "save", {"number": 0, "points": points}).json["over"]
        code, out, err = view.end()
    assert (code, out) == (0, "sct/t2_seg.nii.gz\n"), err
    assert voxels_of(tmp_path / "sct" / "t2_seg.nii.gz").any()
    assert (tmp_path / "sct" / "t2_points.json").is_file()
    with viewing(*words, cwd=tmp_path) as view:
        view.wait_for_page()
        view.ask("POST", "cancel", {})
        assert view.end()[0] == 130


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-", "--centerline", "viewer"), "not stdin"),
        (("t2.nii.gz", "--centerline", "viewer", "--file-centerline", "x.nii"), "exclude each other"),
    ],
)
def test_what_does_not_go_with_the_viewer_is_told(
    points: list[list[float]], words: tuple[str, ...], said: str
) -> None:
    code, out, err = fastseg("run", *words, "-o", "other")
    assert (code, out) == (2, "")
    assert said in err
