"""fastseg qc build: reports of what real runs left behind, corrected masks, one file for e-mail."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastseg.cli import Exit
from fastseg.qc.editors import manual_path
from fastseg.qc.report import Report
from tests.phantom_files import fastseg, save, save_phantom, voxels_of
from tests.unit.past.past_runs import PastRun, details, entries


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here: Path) -> PastRun:
    run = PastRun(here)
    run.add("good.nii.gz")
    run.add("odd.nii.gz", status="ok_flagged", flags=["holes"], measures={"HoleVoxels": 9.0})
    run.fail("<none> & 'such'.nii.gz")
    return run


def _in_file(path: Path) -> set[str]:
    """Ids of the volumes whose details a single file holds."""
    return set(re.findall(r'fastsegDetail\("([0-9a-f]{16})"', path.read_text(encoding="utf-8")))


def _ids(report: Path, *names: str) -> set[str]:
    return {entries(report)[name]["id"] for name in names}


def test_a_cohort_is_run_corrected_and_read_again(here: Path) -> None:
    for seed, name in enumerate(("sub-01/anat/sub-01_T2w", "sub-02/ses-a/anat/sub-02_ses-a_T2w")):
        save_phantom(here / "bids" / f"{name}.nii.gz", seed=seed)
    save(here / "bids/sub-03/anat/sub-03_T2w.nii.gz", np.zeros((64, 64, 6), np.int16), np.eye(4))
    (here / "bids/dataset_description.json").write_text('{"Name": "phantoms", "BIDSVersion": "1.9.0"}')
    code, _, err = fastseg("run", "bids", "out", "participant", "--naming", "bids", "--soft")
    assert code == Exit.SOME_FAILED, err
    code, out, err = fastseg("qc", "build", "out")
    assert code == Exit.OK, err
    assert out.strip() == "out/qc/index.html"
    assert "3 volumes: 3 entries made" in err
    rows = entries(here / "out/qc")
    assert {row["dataset"] for row in rows.values()} == {"bids"}
    assert all(row["pictures"] for row in rows.values())
    name = "sub-02/ses-a/anat/sub-02_ses-a_T2w.nii.gz"
    assert rows[name]["slices"] == 6
    assert rows["sub-03/anat/sub-03_T2w.nii.gz"]["severity"] >= 100

    mask = here / "out" / name.replace("T2w.nii.gz", "label-SC_desc-T2w_probseg.nii.gz")
    manual = manual_path(mask)
    corrected = voxels_of(mask).copy()
    corrected[..., 3:] = 0
    save(manual, corrected, np.diag([-1.0, 1.0, 2.5, 1.0]))  # elsewhere
    code, _, err = fastseg("qc", "build", "out")
    assert (code, entries(here / "out/qc")[name]["manual"]) == (Exit.OK, False), err
    save(manual, corrected, nib.load(mask).affine)
    code, _, err = fastseg("qc", "build", "out")
    assert code == Exit.OK, err
    assert "1 corrected by hand" in err
    row = entries(here / "out/qc")[name]
    assert (row["manual"], row["slices"]) == (True, 3)
    sidecar = manual.with_name(manual.name.replace(".nii.gz", ".json"))
    assert json.loads(sidecar.read_bytes())["Manual"] is True
    # A run does not take it for an input, nor for something that is in its way.
    code, _, err = fastseg("run", "bids", "out", "participant", "--naming", "bids", "--soft")
    assert code == Exit.SOME_FAILED, err
    assert manual.exists()


def test_of_a_single_volume_the_report_is_made_from_its_sidecar(here: Path) -> None:
    save_phantom(here / "scans/t2.nii.gz")
    code, _, err = fastseg("run", "scans/t2.nii.gz", "-c", "t2", "-o", "scans", "--save-centerline")
    assert code == Exit.OK, err
    assert not (here / "scans/.fastseg").exists()
    code, _, err = fastseg("qc", "build", "scans", "--qc", "report", "--qc-dataset", "S", "--qc-subject", "P")
    assert code == Exit.OK, err
    row = entries(here / "report")["t2.nii.gz"]
    assert (row["dataset"], row["subject"], row["contrast"], row["slices"]) == ("S", "P", "t2", 6)
    assert row["pictures"]
    detail = details(here / "report", here / "scans/t2_seg.nii.gz")
    assert detail["header"]["Detector"]
    assert detail["measures"]["MedianAreaMm2"] > 50


def test_inputs_that_moved_are_named(run: PastRun) -> None:
    run.data.rename("moved")
    code, _, err = fastseg("qc", "build", "out")
    assert code == Exit.OK
    assert "3 of 3 images were not found" in err
    assert "--inputs DIR" in err
    code, _, err = fastseg("qc", "build", "out", "--inputs", "moved")
    assert code == Exit.OK
    assert "3 volumes: 3 entries made" in err
    assert "not found" not in err


def test_a_second_build_says_what_is_unchanged(run: PastRun) -> None:
    assert fastseg("qc", "build", "out")[0] == Exit.OK
    assert "3 volumes: 0 entries made, 3 unchanged" in fastseg("qc", "build", "out")[2]
    assert "3 volumes: 3 entries made" in fastseg("qc", "build", "out", "--overwrite")[2]


def test_the_index_of_a_report_is_made_anew(run: PastRun) -> None:
    assert fastseg("qc", "build", "out")[0] == Exit.OK
    index = Path("out/qc/index.js")
    index.unlink()
    code, out, _ = fastseg("qc", "build", "out/qc")
    assert (code, out.strip()) == (Exit.OK, "out/qc/index.html")
    assert len(Report(Path("out/qc")).rows()) == index.read_text().count('"id":"')


def test_one_file_holds_failed_and_flagged_volumes(run: PastRun) -> None:
    code, _, err = fastseg("qc", "build", "out", "--single-file", "mail.html")
    assert code == Exit.OK, err
    assert "mail.html: 2 volumes" in err
    chosen = _ids(Path("out/qc"), "odd.nii.gz", "<none> & 'such'.nii.gz")
    assert _in_file(Path("mail.html")) == chosen
    assert "<none>" not in Path("mail.html").read_text(encoding="utf-8")


def test_one_file_holds_the_volumes_that_are_selected(run: PastRun) -> None:
    assert fastseg("qc", "build", "out")[0] == Exit.OK
    code, _, err = fastseg("qc", "build", "out/qc", "--single-file", "mail.html", "--select", "g*")
    assert code == Exit.OK, err
    assert _in_file(Path("mail.html")) == _ids(Path("out/qc"), "good.nii.gz")
    code, _, err = fastseg("qc", "build", "out/qc", "--single-file", "mail.html", "--select", "x*")
    assert code != Exit.OK
    assert "--select x*" in err


def test_a_folder_without_results_is_refused_on_one_line(here: Path) -> None:
    (here / "empty").mkdir()
    code, out, err = fastseg("qc", "build", "empty")
    assert (code, out) == (Exit.NONE_SUCCEEDED, "")
    assert len(err.strip().splitlines()) == 1
    assert "give the folder of a run's results" in err
    assert list((here / "empty").iterdir()) == []
