"""Reports of runs of the past: what is found and kept, what is said where something is gone or changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.errors import InputError, OutputError
from fastseg.past import entries as past_entries
from fastseg.past.build import Built, build_report, selection
from fastseg.qc.editors import manual_path
from fastseg.qc.pictures import draw
from fastseg.qc.report import Report
from tests.unit.past.past_runs import PastRun, details, digest, entries, save_mask


@pytest.fixture
def run(tmp_path: Path) -> PastRun:
    return PastRun(tmp_path / "study")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "report"


def _notes(report: Path, mask: Path) -> str:
    return " | ".join(details(report, mask)["notes"])


# --- what an entry says


def test_an_entry_says_what_the_ledger_and_the_sidecar_say(run: PastRun, report: Path) -> None:
    notes = ["odd header", "the centre moves by 7.0 mm from slice 3 to 4"]
    mask = run.add(
        "sub-01/anat/sub-01_T2w.nii.gz",
        status="ok_flagged",
        flags=["centre_jump"],
        notes=notes,
        measures={"MedianAreaMm2": 80.0, "LengthMm": 15.0, "CentreJumpMm": 7.0},
    )
    run.sidecar(mask, "sub-01/anat/sub-01_T2w.nii.gz", Kernel="2d", Threshold=0.35)
    built = build_report(run.out, report)
    assert (built.total, built.drawn, built.without_pictures, built.remarks) == (1, 1, 0, ())
    row = entries(report)["sub-01/anat/sub-01_T2w.nii.gz"]
    assert (row["dataset"], row["subject"], row["contrast"]) == ("data", "sub-01", "t2")
    assert (row["status"], row["flags"], row["slices"]) == ("ok_flagged", ["centre_jump"], 6)
    assert (row["area_mm2"], row["length_mm"], row["seconds"]) == (80.0, 15.0, 0.4)
    assert 1 < row["severity"] < 2
    assert row["pictures"]
    assert row["mask"] == digest(mask)[:12]
    detail = details(report, mask)
    assert detail["reasons"] == {"centre_jump": notes[1]}
    assert detail["flag_slices"] == {"centre_jump": [3, 4]}
    assert detail["notes"] == ["odd header"]
    assert {3, 4} <= {tile["z"] for tile in detail["sheet"]["tiles"]}
    assert [z for z, _ in detail["areas"]] == [0, 1, 2, 3, 4, 5]
    assert detail["pitch_mm"] == 2.5
    assert detail["header"]["Kernel"] == "2d"
    assert detail["paths"]["image"] == str(run.data / "sub-01/anat/sub-01_T2w.nii.gz")
    assert str(manual_path(mask)) in detail["commands"]["ITK-SNAP"]


def test_gaps_are_shown_with_all_their_slices(run: PastRun, report: Path) -> None:
    def with_a_gap(voxels: Any) -> Any:
        voxels[..., 2:4] = 0
        return voxels

    mask = save_mask(run.out / "t2_seg.nii.gz", with_a_gap)
    run.end(
        "t2_seg.nii.gz",
        "t2.nii.gz",
        run.image("t2.nii.gz"),
        status="ok_flagged",
        flags=["missing_slices"],
        notes=["no cord on 2 slices between others, the first of them slice 2"],
        measures={"MissingSlices": 2.0},
    )
    build_report(run.out, report)
    assert details(report, mask)["flag_slices"] == {"missing_slices": [2, 3]}


def test_pictures_show_flagged_slices_and_follow_a_centerline_that_was_saved(
    run: PastRun, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, Any]] = []

    def noting(image: Any, mask: Any, line: Any, *, shown: Any, **others: Any) -> Any:
        asked.append((line, shown))
        return draw(image, mask, line, shown=shown, **others)

    def line(voxels: Any) -> Any:
        voxels[...] = 0
        voxels[30, 20, :5] = voxels[32, 20, 0] = 1
        return voxels

    notes = ["the centre moves by 7.0 mm from slice 3 to 4"]
    run.add(
        "t2.nii.gz",
        status="ok_flagged",
        flags=["centre_jump"],
        notes=notes,
        measures={"CentreJumpMm": 7.0},
    )
    monkeypatch.setattr(past_entries, "draw", noting)
    build_report(run.out, report)
    save_mask(run.out / "t2_centerline.nii.gz", line)
    build_report(run.out, report, overwrite=True)
    (without, first), (with_line, second) = asked
    assert first == second == [3, 4]
    assert without is None
    # Phantoms run from left to right, lines of the report from right to left.
    assert with_line.points.tolist() == [[63 - 31, 20, 0], *([63 - 30, 20, z] for z in range(1, 5))]


def test_the_data_set_and_subject_are_those_that_are_given(run: PastRun, report: Path) -> None:
    run.add("t2.nii.gz")
    build_report(run.out, report, dataset="Study", subject="P7")
    row = entries(report)["t2.nii.gz"]
    assert (row["dataset"], row["subject"]) == ("Study", "P7")
    build_report(run.out, report, dataset="Other")
    assert entries(report)["t2.nii.gz"]["dataset"] == "Other"


def test_a_soft_result_is_measured_and_drawn_at_its_threshold(run: PastRun, report: Path) -> None:
    def soft(voxels: Any) -> Any:
        return (0.4 * voxels).astype(np.float32)

    mask = save_mask(run.out / "t2_seg.nii.gz", soft)
    run.end("t2_seg.nii.gz", "t2.nii.gz", run.image("t2.nii.gz"))
    run.sidecar(mask, "t2.nii.gz", Soft=True, Threshold=0.3)
    build_report(run.out, report)
    row = entries(report)["t2.nii.gz"]
    assert row["slices"] == 6
    assert row["pictures"]


def test_failed_volumes_show_their_image_without_a_mask(run: PastRun, report: Path) -> None:
    mask = run.fail("none.nii.gz")
    broken = run.fail("broken.nii.gz", "bad_input", message="the file is truncated")
    (run.data / "broken.nii.gz").write_bytes(b"\x1f\x8b not a volume")
    save_mask(mask)  # of an earlier run: it shows nothing of this one
    build_report(run.out, report)
    rows = entries(report)
    assert (rows["none.nii.gz"]["status"], rows["none.nii.gz"]["pictures"]) == ("no_cord", True)
    assert rows["none.nii.gz"]["message"] == "no cord was found"
    assert (rows["none.nii.gz"]["mask"], rows["none.nii.gz"]["slices"]) == ("", None)
    assert (rows["broken.nii.gz"]["status"], rows["broken.nii.gz"]["pictures"]) == ("bad_input", False)
    assert rows["broken.nii.gz"]["message"] == "the file is truncated"
    assert details(report, broken)["areas"] == []


def test_excluded_volumes_are_shown_as_far_as_they_were_segmented(run: PastRun, report: Path) -> None:
    run.end("a_seg.nii.gz", "a.nii.gz", run.image("a.nii.gz"), status="skipped", message="excluded")
    run.add("b.nii.gz")
    run.end("b_seg.nii.gz", "b.nii.gz", run.data / "b.nii.gz", status="skipped", message="excluded")
    assert build_report(run.out, report).remarks == ()
    rows = entries(report)
    assert (rows["a.nii.gz"]["status"], rows["a.nii.gz"]["pictures"]) == ("skipped", False)
    assert (rows["b.nii.gz"]["status"], rows["b.nii.gz"]["pictures"]) == ("skipped", True)
    assert build_report(run.out, report).kept == 2


def test_hostile_names_are_inert(run: PastRun, report: Path) -> None:
    names = ["<script>alert(1)<", 'a "quoted" one', "it's", "Rückenmark", "n" * 200, "$(rm -r x)", "a\nb"]
    masks = [run.add(f"{name}/{name}.nii.gz") for name in names]
    assert build_report(run.out, report, threads=2).drawn == len(names)
    rows = entries(report)
    assert set(rows) == {f"{name}/{name}.nii.gz" for name in names}
    assert all(row["pictures"] for row in rows.values())
    index = (report / "index.js").read_text(encoding="ascii")
    assert "<" not in index
    assert len(json.loads(index[len("fastsegIndex(") :].rstrip(");\n"))["volumes"]) == len(names)
    assert {details(report, mask)["paths"]["mask"] for mask in masks} == {str(mask) for mask in masks}


# --- a second time


def test_a_second_build_keeps_what_is_there(run: PastRun, report: Path) -> None:
    run.add("a.nii.gz")
    run.fail("b.nii.gz")
    first = build_report(run.out, report)
    before = entries(report)
    again = build_report(run.out, report)
    assert (first.drawn, again.drawn, again.kept) == (2, 0, 2)
    assert entries(report) == before
    assert build_report(run.out, report, overwrite=True).drawn == 2


def test_what_a_later_run_did_anew_is_drawn_anew(run: PastRun, report: Path) -> None:
    run.add("a.nii.gz")
    mask = run.add("b.nii.gz")
    build_report(run.out, report)
    save_mask(mask, lambda voxels: np.roll(voxels, 1, axis=0))
    run.end("b_seg.nii.gz", "b.nii.gz", run.data / "b.nii.gz", outputs={"mask": digest(mask)})
    run.add("c.nii.gz")
    built = build_report(run.out, report)
    assert (built.total, built.drawn, built.kept) == (3, 2, 1)
    assert entries(report)["b.nii.gz"]["mask"] == digest(mask)[:12]
    assert _notes(report, mask) == ""


def test_entries_whose_files_were_removed_are_made_again(run: PastRun, report: Path) -> None:
    run.add("a.nii.gz")
    build_report(run.out, report)
    shutil.rmtree(report / "volumes")
    assert build_report(run.out, report).drawn == 1


def test_each_volume_is_told_of_in_order(run: PastRun, report: Path) -> None:
    names = [f"{k}.nii.gz" for k in range(9)]
    for name in names:
        run.add(name)
    told: list[tuple[int, int, str]] = []
    build_report(run.out, report, threads=3, on_volume=lambda *each: told.append(each))
    assert told == [(k + 1, 9, name) for k, name in enumerate(names)]


# --- what is gone or changed


def test_inputs_that_moved_are_found_where_the_user_says(run: PastRun, report: Path) -> None:
    mask = run.add("sub-01/a.nii.gz")
    run.add("sub-02/b.nii.gz")
    run.data.rename(run.folder / "moved")
    built = build_report(run.out, report)
    assert (built.drawn, built.without_pictures) == (2, 2)
    assert [remark for remark in built.remarks if "2 of 2 images" in remark and "--inputs" in remark]
    assert entries(report)["sub-01/a.nii.gz"]["slices"] == 6
    assert "the image was not found" in _notes(report, mask)
    assert build_report(run.out, report).kept == 2
    (run.folder / "moved/sub-02/b.nii.gz").rename(run.folder / "moved/b.nii.gz")
    built = build_report(run.out, report, inputs=run.folder / "moved")
    assert (built.drawn, built.without_pictures, built.remarks) == (2, 0, ())
    assert entries(report)["sub-01/a.nii.gz"]["dataset"] == "moved"
    assert _notes(report, mask) == ""


def test_an_image_that_changed_is_shown_and_said_to_have_changed(run: PastRun, report: Path) -> None:
    same_grid, other_grid = run.add("a.nii.gz"), run.add("b.nii.gz")
    (run.data / "a.nii.gz").write_bytes((run.data / "a.nii.gz").read_bytes() + b"\0")
    save_mask(run.data / "b.nii.gz", lambda voxels: voxels[:, :, :4])
    build_report(run.out, report)
    rows = entries(report)
    assert (rows["a.nii.gz"]["status"], rows["a.nii.gz"]["pictures"]) == ("ok", True)
    assert "the image was changed" in _notes(report, same_grid)
    assert (rows["b.nii.gz"]["status"], rows["b.nii.gz"]["pictures"]) == ("ok", False)
    assert "another grid" in _notes(report, other_grid)
    assert rows["b.nii.gz"]["slices"] == 6


def test_an_image_that_was_only_copied_is_no_other(run: PastRun, report: Path) -> None:
    mask = run.add("a.nii.gz")
    shutil.copy(run.data / "a.nii.gz", run.folder / "copy")
    (run.folder / "copy").replace(run.data / "a.nii.gz")
    build_report(run.out, report)
    assert _notes(report, mask) == ""


def test_a_mask_that_changed_is_shown_and_said_to_have_changed(run: PastRun, report: Path) -> None:
    mask = run.add("a.nii.gz")
    build_report(run.out, report)
    save_mask(mask, lambda voxels: voxels * (np.arange(6) > 2))
    assert build_report(run.out, report).drawn == 1
    assert entries(report)["a.nii.gz"]["slices"] == 3
    assert "the mask was changed" in _notes(report, mask)


def test_damaged_and_missing_masks_cost_their_own_entries_only(run: PastRun, report: Path) -> None:
    run.add("good.nii.gz")
    run.add("cut.nii.gz").write_bytes(b"\x1f\x8b\x08")
    run.add("gone.nii.gz").unlink()
    save_mask(run.add("elsewhere.nii.gz"), lambda voxels: voxels[:, 1:])
    assert build_report(run.out, report, threads=2).drawn == 4
    rows = entries(report)
    assert rows["good.nii.gz"]["status"] == "ok"
    for name, why in (("cut", "truncated"), ("gone", "gone"), ("elsewhere", "not on the grid")):
        row = rows[f"{name}.nii.gz"]
        assert (row["status"], row["slices"], row["mask"]) == ("error", None, "")
        assert why in row["message"]
        assert row["pictures"]


def test_a_bug_in_a_picture_costs_that_picture_only(
    run: PastRun, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    mask = run.add("a.nii.gz")
    monkeypatch.setattr(past_entries, "draw", broken)
    assert build_report(run.out, report).without_pictures == 1
    assert entries(report)["a.nii.gz"]["slices"] == 6
    assert "a bug" in _notes(report, mask)


def test_a_sidecar_that_somebody_wrote_to_costs_the_header_only(run: PastRun, report: Path) -> None:
    mask = run.add("a.nii.gz")
    run.sidecar(mask, "a.nii.gz", Seconds={"read": "soon"}, Threshold="high", Frame=[1], Engines=3)
    build_report(run.out, report)
    row = entries(report)["a.nii.gz"]
    assert (row["status"], row["pictures"]) == ("ok", True)
    assert details(report, mask)["header"]["Contrast"] == "t2"


def test_volumes_larger_than_the_memory_are_made_one_by_one(
    run: PastRun, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past_entries, "budget_bytes", lambda: 1)
    for k in range(4):
        run.add(f"{k}.nii.gz")
    assert build_report(run.out, report, threads=4).without_pictures == 0


def test_a_folder_without_results_is_refused(tmp_path: Path, report: Path) -> None:
    with pytest.raises(InputError, match="no ledger"):
        build_report(tmp_path, report)
    assert not report.exists()


def test_inputs_that_are_no_folder_are_refused(run: PastRun, report: Path) -> None:
    run.add("a.nii.gz")
    with pytest.raises(InputError, match="no such folder"):
        build_report(run.out, report, inputs=run.folder / "nowhere")


def test_a_report_that_cannot_be_written_is_refused(run: PastRun, tmp_path: Path) -> None:
    run.add("a.nii.gz")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        build_report(run.out, tmp_path / "file")


# --- what is chosen for a single file


def test_failed_and_flagged_volumes_are_chosen_the_worst_first(run: PastRun, report: Path) -> None:
    run.add("good.nii.gz")
    run.add("odd.nii.gz", status="ok_flagged", flags=["holes"], measures={"HoleVoxels": 9.0})
    run.fail("none.nii.gz")
    build_report(run.out, report)
    rows = Report(report).rows()
    by_id = {row["id"]: row["name"] for row in rows}
    assert [by_id[key] for key in selection(rows)] == ["none.nii.gz", "odd.nii.gz"]


def test_patterns_choose_by_name_with_or_without_folders_and_endings(run: PastRun, report: Path) -> None:
    for name in ("sub-1/sub-1_T2w.nii.gz", "sub-2/sub-2_T2w.nii.gz", "sub-2/sub-2_T1w.nii.gz", "[a].nii.gz"):
        run.add(name)
    build_report(run.out, report)
    rows = Report(report).rows()

    def chosen(*patterns: str) -> list[str]:
        wanted = selection(rows, patterns)
        return sorted(row["name"].rpartition("/")[2] for row in rows if row["id"] in wanted)

    assert chosen("sub-2/*") == ["sub-2_T1w.nii.gz", "sub-2_T2w.nii.gz"]
    assert chosen("*_T1w", "sub-1_T2w.nii.gz") == ["sub-1_T2w.nii.gz", "sub-2_T1w.nii.gz"]
    assert chosen("sub-1") == ["sub-1_T2w.nii.gz"]
    assert chosen("[a].nii.gz") == ["[a].nii.gz"]
    with pytest.raises(InputError, match="sub-9"):
        selection(rows, ["sub-9*"])


def test_what_was_built_is_told_on_one_line() -> None:
    told = Built(3, 1, 2, 1, 1).text()
    assert told == "3 volumes: 1 entry made, 2 unchanged, 1 corrected by hand, 1 without pictures"
