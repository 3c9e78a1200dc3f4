"""fastseg view: points by hand, from the terminal's side; tests/browser has the page's."""

from __future__ import annotations

import csv
import json
import signal
import sys
import webbrowser
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from fastseg import serving
from fastseg.cli import sitting
from fastseg.cohort.job import Job
from fastseg.cohort.plan.planning import Wanted, plan
from fastseg.options import Options
from fastseg.phantom import make_phantom
from tests.phantom_files import fastseg, files_below, save, save_phantom, voxels_of
from tests.unit.viewer.page_client import ask, cord_points, save_hidden_cord, viewing

_DRAWN = ["t2.nii.gz", "t2_centerline.nii.gz", "t2_labels.nii.gz", "t2_points.json"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def points(here: Path) -> list[list[float]]:
    """Of t2.nii.gz, which is here as well."""
    image, mask = make_phantom("t2", n_slices=6)
    save_phantom(here / "t2.nii.gz")
    return cord_points(image, mask)


def _statuses(out: Path) -> dict[str, str]:
    rows = csv.DictReader((out / "summary.tsv").read_text().splitlines(), delimiter="\t")
    return {row["name"]: row["status"] for row in rows}


def _sidecar(path: Path) -> Any:
    return json.loads(path.read_text())["Fastseg"]


def test_points_become_files_and_the_files_a_segmentation(here: Path, points: list[list[float]]) -> None:
    with viewing("view", "t2.nii.gz", cwd=here) as view:
        view.wait_for_page()
        view.ask("PUT", "points", {"number": 0, "points": points})
        assert view.ask("POST", "save", {"number": 0}).json["over"]
        code, out, err = view.end()
    assert (code, out) == (0, "t2_points.json\n")
    assert "ssh -N -L" in err  # there is no screen here
    assert files_below(here) == _DRAWN
    true = make_phantom("t2", n_slices=6)[1].voxels > 0
    for form in ("points.json", "labels.nii.gz", "centerline.nii.gz"):
        code, _, err = fastseg("run", "t2.nii.gz", "--file-centerline", f"t2_{form}", "-o", form[:4])
        assert (code, "holds 3 labels" in err) == (0, form == "labels.nii.gz")
        mask = voxels_of(here / form[:4] / "t2_seg.nii.gz")
        assert 2 * (mask * true).sum() / (mask.sum() + true.sum()) > 0.9  # as without points


def test_drawn_files_are_no_inputs_of_a_cohort(here: Path, points: list[list[float]]) -> None:
    (here / "t2_points.json").write_text(json.dumps(points))
    for name in ("t2_labels", "t2_centerline"):
        save_phantom(here / f"{name}.nii.gz")
    code, _, err = fastseg("run", ".", "-o", "out")
    assert (code, _statuses(here / "out")) == (0, {"t2.nii.gz": "ok"})
    assert "drawn by hand" not in err  # they are not beside the mask


def test_a_page_that_is_opened_again_goes_on(here: Path, points: list[list[float]]) -> None:
    (here / "p.json").write_text(json.dumps(points))
    with viewing("view", "t2.nii.gz", "-o", "p.json", "--no-browser", cwd=here) as view:
        view.wait_for_page()
        assert np.allclose(view.ask("GET", "sitting.json").json["volumes"][0]["points"], points)
        view.ask("POST", "skip", {"number": 0})
        assert view.end()[0] == 4
    assert json.loads((here / "p.json").read_text()) == points


def test_cancelling_in_the_page_writes_nothing(here: Path, points: list[list[float]]) -> None:
    with viewing("view", "t2.nii.gz", cwd=here) as view:
        view.wait_for_page()
        view.ask("PUT", "points", {"number": 0, "points": points})
        assert view.ask("POST", "cancel", {}).json["cancelled"]
        code, out, err = view.end()
    assert (code, out) == (130, "")
    assert "fastseg: cancelled; nothing was saved\n" in err
    assert files_below(here) == ["t2.nii.gz"]


def test_a_wrong_token_is_refused_and_the_sitting_goes_on(here: Path, points: list[list[float]]) -> None:
    with viewing("view", "t2.nii.gz", cwd=here) as view:
        url = view.wait_for_page()
        view.url = f"{url[:-2]}/"
        assert view.ask("POST", "cancel", {}).status == 404
        assert view.ask("GET", "sitting.json").status == 404
        view.url = url
        assert view.ask("POST", "save", {"number": 0, "points": points}).status == 200
        assert view.end()[0] == 0


def test_the_terminal_saves_skips_and_cancels(here: Path, points: list[list[float]]) -> None:
    with viewing("view", "t2.nii.gz", cwd=here, terminal=True) as view:
        view.wait_for_page()
        view.wait_to_hear("Enter saves the volume that is shown, s skips it, q cancels; so do the buttons")
        view.type("\n")
        view.wait_to_hear("there is no point yet: click on the cord first")
        view.type("what?\n")
        view.wait_to_hear("Enter saves the volume that is shown, s skips it, q cancels\n")
        view.ask("PUT", "points", {"number": 0, "points": points})
        view.type("\n")
        code, out, _ = view.end()
    assert (code, out, files_below(here)) == (0, "t2_points.json\n", _DRAWN)
    for typed, code in (("s\n", 4), ("Q\n", 130)):
        with viewing("view", "t2.nii.gz", cwd=here, terminal=True) as view:
            view.wait_for_page()
            view.type(typed)
            assert view.end()[0] == code


def test_ctrl_c_ends_it_and_says_so(here: Path, points: list[list[float]]) -> None:
    with viewing("view", "t2.nii.gz", cwd=here) as view:
        view.wait_for_page()
        view.process.send_signal(signal.SIGINT)
        code, _, err = view.end()
    assert code == 130
    assert "fastseg: interrupted; 0 of 1 volumes have points, which stay\n" in err
    with viewing("view", "t2.nii.gz", cwd=here) as view:
        view.wait_for_page()
        view.process.terminate()
        assert view.end()[0] == 143


def test_a_page_that_falls_silent_is_told_once(
    here: Path, points: list[list[float]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Silent:
        silent_seconds = 91.0

    class Page:
        url = "http://127.0.0.1:1/t/"

    page, clock = Page(), Silent()
    warned = sitting._look_after(page, clock, warned=False)  # type: ignore[arg-type]
    warned = sitting._look_after(page, clock, warned=warned)  # type: ignore[arg-type]
    assert warned
    assert capsys.readouterr().err.count("seems to be closed") == 1
    clock.silent_seconds = 1.0
    assert not sitting._look_after(page, clock, warned=warned)  # type: ignore[arg-type]


def _draws(monkeypatch: pytest.MonkeyPatch, *steps: tuple[str, dict[str, Any]]) -> list[str]:
    """Let a page be opened that asks for these; gives the URLs at which it was."""
    urls: list[str] = []

    def draw(url: str) -> bool:
        urls.append(url)
        for path, body in steps:
            ask(url, "POST", path, body)
        return True

    monkeypatch.setattr(serving, "is_remote", lambda: False)
    monkeypatch.setattr(webbrowser, "open", draw)
    return urls


def test_a_browser_is_opened_where_there_is_a_screen(
    here: Path, points: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = _draws(monkeypatch, ("save", {"number": 0, "points": points}))
    code, out, err = fastseg("view", "t2.nii.gz")
    assert (code, out, len(urls)) == (0, "t2_points.json\n", 1)
    assert (urls[0] in err, "ssh" in err) == (True, False)


def test_centerline_viewer_draws_before_the_centerline_is_written(
    here: Path, points: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _draws(monkeypatch, ("save", {"number": 0, "points": points}))
    assert fastseg("centerline", "t2.nii.gz", "--centerline", "viewer")[:2] == (0, "t2_centerline.nii.gz\n")
    drawn = voxels_of(here / "t2_centerline.nii.gz")
    assert drawn.sum(axis=(0, 1)).tolist() == [1] * 6
    given = fastseg("centerline", "t2.nii.gz", "--file-centerline", "t2_points.json", "-o", "x.nii.gz")
    assert given == (0, "x.nii.gz\n", "")
    assert (voxels_of(here / "x.nii.gz") == drawn).all()
    _draws(monkeypatch, ("cancel", {}))
    assert fastseg("centerline", "t2.nii.gz", "--centerline", "viewer", "-o", "y.nii.gz")[0] == 130
    assert not (here / "y.nii.gz").exists()
    words = ("centerline", "t2.nii.gz", "--centerline", "viewer", "--file-centerline", "t2_points.json")
    assert fastseg(*words)[0] == 2


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "give INPUT, or --failed OUT_DIR"),
        (("t2.nii.gz", "--failed", "out"), 2, "give INPUT, or --failed OUT_DIR"),
        (("t2.nii.gz", "--flagged"), 2, "go with --failed"),
        (("--failed", "out", "-o", "p.json"), 2, "-o goes with INPUT"),
        (("--failed", "."), 5, "no run of fastseg wrote there"),
        (("no.nii.gz",), 4, "no such file"),
        ((".",), 4, "is a folder, not a volume"),
        (("t2.nii.gz", "-o", "p.txt"), 2, "ends in .json"),
        (("t2.nii.gz", "-o", "t2.nii.gz/p.json"), 4, "is a file where a folder is needed"),
        (("4d.nii.gz",), 4, "--4d"),
    ],
)
def test_what_cannot_be_shown_is_told_in_one_line(
    here: Path, points: list[list[float]], words: tuple[str, ...], code: int, told: str
) -> None:
    save(here / "4d.nii.gz", np.zeros((4, 4, 4, 2), np.uint8), np.eye(4))
    found, out, err = fastseg("view", *words)
    assert (found, out) == (code, "")
    assert told in err


# --- volumes of a run


def _jobs(here: Path, *words: str) -> list[Job]:
    return plan(words, here / "out", Wanted(Options())).jobs


def test_the_volumes_of_a_run_are_drawn_on_before_it_begins(
    here: Path, points: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        save_phantom(here / "in" / f"{name}.nii.gz")
    (here / "in" / "bad.nii.gz").write_text("no volume")
    (here / "list.csv").write_text(
        "input,centerline\nin/a.nii.gz,\nin/b.nii.gz,\nin/bad.nii.gz,\nin/c.nii.gz,svm\n"
    )
    _draws(monkeypatch, ("save", {"number": 0, "points": points}), ("skip", {"number": 1}))
    drawn, skipped, bad, named = sitting.with_points(_jobs(here, "list.csv"))
    assert (drawn.centerline, drawn.options.detector) == (drawn.outputs.points, "file")
    assert (skipped.skip, skipped.centerline) == ("no points were drawn on it", None)
    assert (bad.skip, bad.options.detector) == ("", "auto")
    assert (named.skip, named.options.detector) == ("", "svm")


def test_volumes_that_have_points_are_drawn_on_only_when_that_is_wished(
    here: Path, points: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = _draws(monkeypatch, ("skip", {"number": 0}))
    (here / "out").mkdir()
    (here / "out" / "t2_points.json").write_text(json.dumps(points))
    jobs = _jobs(here, "t2.nii.gz")
    assert (sitting.with_points(jobs), urls) == (jobs, [])
    assert (sitting.with_points(jobs, again=True), len(urls)) == (jobs, 1)


def test_a_cancelled_sitting_cancels_its_run(
    here: Path, points: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _draws(monkeypatch, ("cancel", {}))
    with pytest.raises(click.exceptions.Exit) as caught:
        sitting.with_points(_jobs(here, "t2.nii.gz"))
    assert caught.value.exit_code == 130


def _run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command line as a process of its own would be: the ledger keeps its words."""
    monkeypatch.setattr(sys, "argv", ["fastseg", *words])
    return fastseg(*words)[0]


def test_points_for_a_failed_volume_are_taken_by_the_next_run(here: Path) -> None:
    """Only that volume is done again, and the third run finds all of them done."""
    save_phantom(here / "in" / "s" / "good.nii.gz")
    points = save_hidden_cord(here / "in" / "s" / "hidden.nii.gz")
    run = ("run", "in", "-o", "out", "--save-centerline")
    code, _, err = fastseg(*run)
    assert code == 3
    assert "to click on the cord where none was found: fastseg view --failed out\n" in err
    assert _statuses(here / "out") == {"s/good.nii.gz": "ok", "s/hidden.nii.gz": "no_cord"}
    (here / "out" / "s").mkdir(exist_ok=True)
    (here / "out" / "s" / "hidden_points.json").write_text(json.dumps(points))
    code, _, err = fastseg(*run)
    assert code == 0
    assert "1 volume has points drawn by hand, taken as centerline: out/s/hidden_points.json" in err
    assert [line.split()[0] for line in err.splitlines() if ".nii.gz" in line and "hand" not in line] == [
        "cached",
        "ok",
    ]
    assert _sidecar(here / "out" / "s" / "hidden_seg.json")["Centerline"] == "file"
    assert _sidecar(here / "out" / "s" / "good_seg.json")["Centerline"] != "file"
    code, _, err = fastseg(*run)
    assert (code, "2 cached" in err) == (0, True)
    (here / "out" / "s" / "hidden_points.json").write_text(json.dumps(points[:2]))
    assert "1 cached, 1 ok" in fastseg(*run)[2]


def test_failed_volumes_are_drawn_on_in_one_sitting_and_run_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = {name: save_hidden_cord(here / "in" / f"{name}.nii.gz") for name in ("b", "a", "c")}
    save_phantom(here / "in" / "good.nii.gz")
    assert _run(monkeypatch, "run", "in", "-o", "out", "--overwrite") == 3
    (here / "elsewhere").mkdir()
    with viewing("view", "--failed", here / "out", cwd=here / "elsewhere") as view:
        view.wait_for_page()
        record = view.ask("GET", "sitting.json").json
        assert [each["name"] for each in record["volumes"]] == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
        assert view.ask("POST", "save", {"number": 0, "points": hidden["a"]}).json["current"] == 1
        view.ask("POST", "skip", {"number": 1})
        assert view.ask("POST", "save", {"number": 2, "points": hidden["c"]}).json["over"]
        code, out, err = view.end()
    assert code == 3  # b is as it was
    assert sorted(out.splitlines()) == ["out/a_seg.nii.gz", "out/c_seg.nii.gz", "out/good_seg.nii.gz"]
    assert "fastseg: taking up the points of 2 volumes: fastseg run in -o out\n" in err
    assert _statuses(here / "out") == {
        "a.nii.gz": "ok", "b.nii.gz": "no_cord", "c.nii.gz": "ok", "good.nii.gz": "ok",
    }  # fmt: skip
    drawn = [name for name in files_below(here / "out") if name.startswith("a_")]
    assert drawn == ["a_labels.nii.gz", "a_points.json", "a_seg.json", "a_seg.nii.gz"]


def test_what_was_drawn_before_ctrl_c_is_run_when_the_rest_is_drawn(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = {name: save_hidden_cord(here / "in" / f"{name}.nii.gz") for name in ("a", "b")}
    assert _run(monkeypatch, "run", "in", "-o", "out") == 4
    with viewing("view", "--failed", "out", cwd=here) as view:
        view.wait_for_page()
        view.ask("POST", "save", {"number": 0, "points": hidden["a"]})
        view.process.send_signal(signal.SIGINT)
        code, _, err = view.end()
    assert (code, "1 of 2 volumes have points, which stay" in err) == (130, True)
    assert _statuses(here / "out")["a.nii.gz"] == "no_cord"
    with viewing("view", "--failed", "out", "--no-run", cwd=here) as view:
        view.wait_for_page()
        assert "1 volume with points already, which no run has taken yet" in view.said
        assert len(view.ask("GET", "sitting.json").json["volumes"]) == 1
        view.ask("POST", "save", {"number": 0, "points": hidden["b"]})
        code, _, err = view.end()
    assert code == 0
    assert f"to segment them, in the same way as before: cd {here} && fastseg run in -o out\n" in err
    assert fastseg("view", "--failed", "out")[0] == 0
    assert set(_statuses(here / "out").values()) == {"ok"}
    code, _, err = fastseg("view", "--failed", "out")
    assert (code, err) == (0, "fastseg: out: the ledger knows no volume without a cord\n")
