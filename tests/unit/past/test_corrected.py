"""Corrected masks: shown instead of the automatic ones where they can be, described, and never written to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastseg.errors import OutputError
from fastseg.past import corrected
from fastseg.past.build import build_report
from fastseg.phantom import make_phantom
from fastseg.qc.editors import manual_path
from tests.unit.past.past_runs import PastRun, details, digest, entries, save_mask

_FLAGGED = {
    "status": "ok_flagged",
    "flags": ["small_area"],
    "measures": {"MedianAreaMm2": 20.0, "LengthMm": 15.0},
    "notes": ["the cord has only 20 mm2"],
}


@pytest.fixture
def run(tmp_path: Path) -> PastRun:
    return PastRun(tmp_path / "study")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "report"


def _upper(voxels: Any) -> Any:
    voxels[..., :2] = 0
    return voxels


def _record(manual: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(manual.with_name(manual.name.replace(".nii.gz", ".json")).read_bytes())
    return found


def test_a_corrected_mask_is_shown_instead_of_the_automatic_one(run: PastRun, report: Path) -> None:
    mask = run.add("sub-1/t2.nii.gz", **_FLAGGED)
    build_report(run.out, report)
    assert entries(report)["sub-1/t2.nii.gz"]["severity"] > 1
    manual = save_mask(manual_path(mask), _upper)
    built = build_report(run.out, report)
    assert (built.drawn, built.corrected) == (1, 1)
    row = entries(report)["sub-1/t2.nii.gz"]
    assert (row["manual"], row["severity"], row["flags"]) == (True, 0.0, [])
    assert (row["mask"], row["slices"], row["length_mm"]) == (digest(manual)[:12], 4, 10.0)
    detail = details(report, mask)
    assert [z for z, _ in detail["areas"]] == [2, 3, 4, 5]
    assert row["area_mm2"] == pytest.approx(np.median([area for _, area in detail["areas"]]), abs=0.06)
    assert detail["reasons"] == detail["flag_slices"] == {}
    notes = " | ".join(detail["notes"])
    assert f"corrected by hand: {manual.name}" in notes
    assert "the automatic mask: 20 mm2 in the median, 15 mm long; the cord has only 20 mm2" in notes
    assert build_report(run.out, report).kept == 1


def test_a_mask_that_is_corrected_again_or_no_more_is_read_again(run: PastRun, report: Path) -> None:
    mask = run.add("t2.nii.gz", **_FLAGGED)
    save_mask(manual_path(mask), _upper)
    build_report(run.out, report)
    save_mask(manual_path(mask), lambda voxels: voxels * (np.arange(6) > 4))
    assert build_report(run.out, report).drawn == 1
    assert entries(report)["t2.nii.gz"]["slices"] == 1
    manual_path(mask).unlink()
    assert build_report(run.out, report).drawn == 1
    row = entries(report)["t2.nii.gz"]
    assert (row["manual"], row["flags"], row["slices"]) == (False, ["small_area"], 6)


def test_a_corrected_mask_gets_a_sidecar_that_says_so(run: PastRun, report: Path) -> None:
    mask = run.add("sub-1/t2.nii.gz")
    manual = save_mask(manual_path(mask), _upper)
    before = manual.read_bytes()
    build_report(run.out, report)
    record = _record(manual)
    assert (record["Manual"], record["SpatialReference"], record["Type"]) == (True, "orig", "ROI")
    assert record["Sources"] == ["sub-1/t2.nii.gz", "sub-1/t2_seg.nii.gz"]
    assert record["GeneratedBy"][0]["Name"] == "fastseg"
    assert "by hand" in record["GeneratedBy"][0]["Description"]
    assert manual.read_bytes() == before


def test_a_sidecar_that_is_there_stays_as_it_is(run: PastRun, report: Path) -> None:
    masks = {name: run.add(f"{name}.nii.gz") for name in ("yes", "no", "broken")}
    said = {"yes": '{"Manual": true}', "no": '{"Manual": false}', "broken": "{"}
    for name, mask in masks.items():
        manual = save_mask(manual_path(mask), _upper)
        manual.with_name(manual.name.replace(".nii.gz", ".json")).write_text(said[name])
    built = build_report(run.out, report)
    assert built.corrected == 3
    assert sorted(remark.split(":")[0] for remark in built.remarks) == ["broken.nii.gz", "no.nii.gz"]
    assert all("Manual to true" in remark for remark in built.remarks)
    for name, mask in masks.items():
        manual = manual_path(mask)
        assert manual.with_name(manual.name.replace(".nii.gz", ".json")).read_text() == said[name]


def test_a_copy_that_nobody_changed_corrects_nothing(run: PastRun, report: Path) -> None:
    mask = run.add("t2.nii.gz", **_FLAGGED)
    build_report(run.out, report)
    manual_path(mask).write_bytes(mask.read_bytes())
    built = build_report(run.out, report)
    assert (built.kept, built.corrected) == (1, 0)
    assert entries(report)["t2.nii.gz"]["flags"] == ["small_area"]


def test_a_corrected_mask_that_replaced_the_automatic_one_is_the_mask_now(run: PastRun, report: Path) -> None:
    mask = run.add("t2.nii.gz")
    save_mask(manual_path(mask), _upper)
    build_report(run.out, report)
    manual_path(mask).replace(mask)
    assert build_report(run.out, report).drawn == 1
    row = entries(report)["t2.nii.gz"]
    assert (row["manual"], row["slices"]) == (False, 4)
    assert "the mask was changed since fastseg wrote it" in details(report, mask)["notes"]


def test_a_mask_drawn_where_no_cord_was_found_is_shown(run: PastRun, report: Path) -> None:
    mask = run.fail("t2.nii.gz")
    manual = save_mask(manual_path(mask))
    build_report(run.out, report)
    row = entries(report)["t2.nii.gz"]
    assert (row["status"], row["manual"], row["severity"], row["slices"]) == ("no_cord", True, 0.0, 6)
    assert _record(manual)["Sources"] == ["t2.nii.gz"]
    assert str(manual) in details(report, mask)["commands"]["FSLeyes"]


def test_a_corrected_mask_stands_in_for_one_that_is_gone(run: PastRun, report: Path) -> None:
    mask = run.add("t2.nii.gz")
    mask.unlink()
    save_mask(manual_path(mask))
    build_report(run.out, report)
    row = entries(report)["t2.nii.gz"]
    assert (row["status"], row["manual"], row["slices"]) == ("ok", True, 6)
    assert "the mask is gone; run the volume again" in details(report, mask)["notes"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda voxels: voxels[:, :, 1:], "not on the grid"),
        (lambda voxels: voxels * 0, "is empty"),
    ],
)
def test_a_corrected_mask_that_cannot_be_used_is_told_of(
    run: PastRun, report: Path, change: Any, why: str
) -> None:
    mask = run.add("t2.nii.gz", **_FLAGGED)
    manual = save_mask(manual_path(mask), change)
    built = build_report(run.out, report)
    row = entries(report)["t2.nii.gz"]
    assert (row["manual"], row["flags"], row["slices"]) == (False, ["small_area"], 6)
    assert row["mask"] == digest(mask)[:12]
    assert built.corrected == 0
    assert any(manual.name in note and why in note for note in details(report, mask)["notes"])
    assert not manual.with_name(manual.name.replace(".nii.gz", ".json")).exists()


def test_a_corrected_mask_that_lies_elsewhere_is_not_shown(run: PastRun, report: Path) -> None:
    mask = run.add("t2.nii.gz")
    affine = nib.load(mask).affine.copy()
    affine[2, 3] += 1.0
    save_mask(manual_path(mask), affine=affine)
    build_report(run.out, report)
    assert entries(report)["t2.nii.gz"]["manual"] is False


def test_editors_may_turn_axes_round_numbers_and_paint_with_any_label(run: PastRun, report: Path) -> None:
    mask = run.add("t2.nii.gz")
    _, drawn = make_phantom("t2", n_slices=6)
    turned = drawn.reoriented(("P", "S", "L"))
    affine = turned.grid.affine + 1e-4
    save_mask(manual_path(mask), lambda _: 7 * turned.voxels.astype(np.int16), affine=affine)
    build_report(run.out, report)
    assert entries(report)["t2.nii.gz"]["manual"] is True
    areas = details(report, mask)["areas"]
    manual_path(mask).unlink()
    build_report(run.out, report)
    assert areas == details(report, mask)["areas"]


def test_strict_names_keep_contrasts_and_sessions_apart(run: PastRun, report: Path) -> None:
    masks = {}
    for session in ("a", "b"):
        for suffix in ("T1w", "T2w"):
            entities = f"sub-01_ses-{session}"
            name = f"sub-01/ses-{session}/anat/{entities}_{suffix}.nii.gz"
            strict = f"sub-01/ses-{session}/anat/{entities}_label-SC_desc-{suffix}_mask.nii.gz"
            masks[name] = run.add(name, strict)
    chosen = "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz"
    manual = save_mask(manual_path(masks[chosen]), _upper)
    assert manual.name == "sub-01_ses-b_label-SC_desc-T1wManual_mask.nii.gz"
    build_report(run.out, report)
    assert [name for name, row in entries(report).items() if row["manual"]] == [chosen]
    assert {row["subject"] for row in entries(report).values()} == {"sub-01"}


def test_results_of_others_need_not_be_writable(
    run: PastRun, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, path: Path) -> None:
        raise OutputError(f"{path}: cannot be written (Read-only file system); choose another output folder")

    save_mask(manual_path(run.add("t2.nii.gz")), _upper)
    monkeypatch.setattr(corrected, "write_json", full)
    built = build_report(run.out, report)
    assert built.corrected == 1
    assert entries(report)["t2.nii.gz"]["manual"] is True
    (remark,) = built.remarks
    assert "its sidecar was not written" in remark
