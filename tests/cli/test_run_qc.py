"""fastseg run --qc, and deepseg-sc -qc: volumes in a QC report."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastseg.qc import pictures
from fastseg.qc.editors import manual_path
from fastseg.qc.identity import identity
from fastseg.qc.marks import save_flags
from fastseg.qc.report import Report
from tests.faults.cohort_runs import obey_permissions, run
from tests.phantom_files import fastseg, files_below, save, save_phantom


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cohort(here: Path) -> Path:
    """Two phantoms, one volume in which there is no cord, and one that is none."""
    for seed in (0, 1):
        save_phantom(here / "in" / f"sub-0{seed}_T2w.nii.gz", seed=seed)
    noise = np.random.default_rng(0).integers(0, 80, (64, 64, 6), np.int16)
    save(here / "in" / "noise.nii.gz", noise, np.diag([0.5, 0.5, 5, 1]))
    (here / "in" / "broken.nii.gz").write_bytes(b"no volume")
    return here / "in"


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    """What the page's table has, by name: index.js is read, not the journals."""
    text = (folder / "index.js").read_text().strip()
    index = json.loads(text.removeprefix("fastsegIndex(").removesuffix(");"))
    assert [row["id"] for row in index["volumes"]] == [row["id"] for row in Report(folder).rows()]
    return {row["name"]: row for row in index["volumes"]}


def detail(folder: Path, row: dict[str, Any]) -> dict[str, Any]:
    found = Report(folder).detail(row["id"])
    assert found is not None
    return found


def pictures_of(folder: Path, row: dict[str, Any]) -> list[str]:
    return [path.name.removeprefix(row["id"]) for path in sorted(folder.glob(f"volumes/*/{row['id']}*"))]


def test_every_volume_of_a_cohort_is_in_the_report_the_worst_first(cohort: Path, here: Path) -> None:
    code, _, err = fastseg("run", "in", "-o", "out", "--qc", "qc", "--qc-dataset", "tests")
    assert code == 3
    found = rows(here / "qc")
    assert {name: row["status"] for name, row in found.items()} == {
        "broken.nii.gz": "bad_input",
        "noise.nii.gz": "no_cord",
        "sub-00_T2w.nii.gz": "ok",
        "sub-01_T2w.nii.gz": "ok",
    }
    assert list(found)[:2] == ["broken.nii.gz", "noise.nii.gz"]
    assert {row["dataset"] for row in found.values()} == {"tests"}
    assert found["sub-01_T2w.nii.gz"]["subject"] == "sub-01"
    assert found["noise.nii.gz"]["message"].startswith("the detector sees no spinal cord")
    for name, tails in {
        "sub-00_T2w.nii.gz": [".jpg", ".js", ".png", "_thumb.jpg"],
        "noise.nii.gz": [".jpg", ".js", ".png", "_thumb.jpg"],  # shows why
        "broken.nii.gz": [".js"],
    }.items():
        assert pictures_of(here / "qc", found[name]) == tails
        assert found[name]["pictures"] == (len(tails) > 1)
    assert f"QC report: {here / 'qc' / 'index.html'}; to open it: fastseg qc open {here / 'qc'}\n" in err


def test_an_entry_says_what_the_sidecar_and_the_mask_say(cohort: Path, here: Path) -> None:
    fastseg("run", "in", "-o", "out", "-c", "t2", "--qc", "qc")
    row = rows(here / "qc")["sub-00_T2w.nii.gz"]
    found = detail(here / "qc", row)
    sidecar = json.loads((here / "out" / "sub-00_T2w_seg.json").read_text())["Fastseg"]
    assert (row["contrast"], row["slices"]) == ("t2", sidecar["Statistics"]["SlicesCovered"])
    assert found["measures"]["MedianAreaMm2"] == sidecar["Quality"]["MedianAreaMm2"]
    mean = np.mean([area for _, area in found["areas"]])
    assert mean == pytest.approx(sidecar["Statistics"]["MeanAreaMm2"], rel=1e-3)
    assert found["header"]["Contrast"] == "t2"
    assert found["header"]["Engines"] == {"Detection": row["engine"], "Segmentation": row["engine"]}
    assert found["paths"]["image"] == str(here / "in" / "sub-00_T2w.nii.gz")
    assert found["paths"]["mask"] == str(here / "out" / "sub-00_T2w_seg.nii.gz")
    assert [tile["z"] for tile in found["sheet"]["tiles"]] == [z for z, _ in reversed(found["areas"])]


def test_the_report_changes_no_result(cohort: Path, here: Path) -> None:
    fastseg("run", "in", "-o", "shown", "--qc", "qc")
    fastseg("run", "in", "-o", "plain")
    for name in ("sub-00_T2w_seg.nii.gz", "sub-01_T2w_seg.nii.gz"):
        assert (here / "shown" / name).read_bytes() == (here / "plain" / name).read_bytes()
    assert [name for name in files_below(here / "plain") if "qc" in name] == []


def test_one_volume_gets_an_entry_too(here: Path) -> None:
    save_phantom(here / "t2.nii.gz")
    code, out, err = fastseg("run", "t2.nii.gz", "--qc", "qc", "--qc-subject", "sub-<b>", "--quiet")
    assert (code, out, err) == (0, "t2_seg.nii.gz\n", "")
    (row,) = rows(here / "qc").values()
    assert (row["name"], row["subject"], row["dataset"], row["pictures"]) == (
        "t2.nii.gz",
        "sub-<b>",
        "",
        True,
    )


def test_runs_append_to_one_report_and_a_volume_that_is_done_again_stays_one_entry(here: Path) -> None:
    for name in ("a", "b"):
        save_phantom(here / name / "t2.nii.gz")
        assert fastseg("run", f"{name}/t2.nii.gz", "-o", f"{name}/out", "--qc", "qc")[0] == 0
    first = {row["id"]: row["at"] for row in Report(here / "qc").rows()}
    assert len(first) == 2
    assert fastseg("run", "a/t2.nii.gz", "-o", "a/out", "--qc", "qc", "--overwrite")[0] == 0
    again = {row["id"]: row["at"] for row in Report(here / "qc").rows()}
    assert again.keys() == first.keys()
    assert sum(again[key] > first[key] for key in first) == 1


def test_volumes_of_earlier_runs_come_into_a_report_that_does_not_have_them(cohort: Path, here: Path) -> None:
    fastseg("run", "in", "-o", "out")
    code, _, err = fastseg("run", "in", "-o", "out", "--qc", "qc")
    assert code == 3
    assert "2 cached" in err
    assert {name: row["pictures"] for name, row in rows(here / "qc").items()} == {
        "sub-00_T2w.nii.gz": True,
        "sub-01_T2w.nii.gz": True,
        "noise.nii.gz": True,
        "broken.nii.gz": False,
    }
    before = {row["id"]: row["at"] for row in Report(here / "qc").rows()}
    fastseg("run", "in", "-o", "out", "--qc", "qc")
    assert {row["id"]: row["at"] for row in Report(here / "qc").rows()} == before


def test_excluded_volumes_are_not_shown(cohort: Path, here: Path) -> None:
    fastseg("run", "in", "-o", "out", "--qc", "qc", "--exclude", "sub-01", "--exclude", "broken*")
    assert set(rows(here / "qc")) == {"sub-00_T2w.nii.gz", "noise.nii.gz"}


def test_a_report_that_cannot_be_written_is_said_before_anything_is_segmented(
    cohort: Path, here: Path
) -> None:
    (here / "file").write_text("")
    for words in (["run", "in", "-o", "out"], ["run", "in/sub-00_T2w.nii.gz", "-o", "out"]):
        code, out, err = fastseg(*words, "--qc", "file/qc")
        assert (code, out) == (4, "")
        assert "fastseg: error: " in err
        assert "file/qc" in err
        assert "cannot be written" in err
        assert err.strip().endswith("; choose another folder for the report")
        assert not list(here.glob("out/*_seg.nii.gz"))


def test_a_report_that_is_lost_on_the_way_costs_no_mask(cohort: Path, here: Path) -> None:
    (here / "qc" / "volumes").mkdir(parents=True)
    (here / "qc" / "volumes").chmod(0o500)
    ended = run(
        "run", "in", "-o", "out", "--qc", "qc", "--exclude", "broken*", cwd=here, before=obey_permissions
    )
    assert ended.code == 3, ended
    assert len(list((here / "out").glob("*_seg.nii.gz"))) == 2
    assert "warning: sub-00_T2w.nii.gz: not in the QC report: " in ended.err
    assert "Traceback" not in ended.err


def test_a_bug_in_a_picture_costs_no_mask(cohort: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(pictures, "draw", fails)
    code, _, err = fastseg("run", "in", "-o", "out", "--qc", "qc", "--exclude", "broken*")
    assert code == 3
    assert "its QC picture could not be drawn (ZeroDivisionError('a bug'))" in err
    assert {name: (row["status"], row["pictures"]) for name, row in rows(here / "qc").items()} == {
        "sub-00_T2w.nii.gz": ("ok", False),
        "sub-01_T2w.nii.gz": ("ok", False),
        "noise.nii.gz": ("no_cord", False),
    }


def test_names_for_a_report_need_a_report(here: Path) -> None:
    save_phantom(here / "t2.nii.gz")
    code, _, err = fastseg("run", "t2.nii.gz", "--qc-subject", "sub-01")
    assert code == 2
    assert "--qc-dataset and --qc-subject need --qc DIR" in err


def test_what_was_marked_and_made_anew_is_excluded_no_more(here: Path) -> None:
    save_phantom(here / "t2.nii.gz")
    words = ("run", "t2.nii.gz", "-o", "out", "--qc", "qc", "--overwrite")
    fastseg(*words)
    (row,) = rows(here / "qc").values()
    mark = {"id": row["id"], "name": row["name"], "qc": "Fail", "rank": None, "at": "2026-01-01"}
    record = {"version": 1, "report": identity(here / "qc")["uuid"]}
    save_flags(here / "qc", record | {"marks": [mark | {"mask": row["mask"]}]}, [row])
    files = ("qc/qc_fail.yml", "qc/qc_flags.json")
    assert [fastseg(*words, "--exclude-yml", file)[1] for file in files] == ["", ""]
    other = (*words, "--thr", "0.9")
    assert fastseg(*other)[0] == 0
    assert [fastseg(*other, "--exclude-yml", file)[1] for file in files] == ["out/t2_seg.nii.gz\n"] * 2


def test_what_is_marked_is_excluded_by_the_next_run(cohort: Path, here: Path) -> None:
    fastseg("run", "in", "-o", "out", "--qc", "qc")
    marks = [
        {
            "id": row["id"],
            "name": name,
            "qc": qc,
            "rank": None,
            "mask": row["mask"],
            "at": "2026-01-01T00:00:00Z",
        }
        for (name, row), qc in zip(
            sorted(rows(here / "qc").items()), ("Fail", "Artifact", "Pass", ""), strict=True
        )
    ]
    (here / "qc" / "qc_flags.json").write_text(json.dumps({"version": 1, "report": "", "marks": marks}))
    code, _, err = fastseg("run", "in", "-o", "again", "--exclude-yml", "qc/qc_flags.json")
    assert code == 0
    assert "2 ok, 2 skipped" in err or "2 skipped, 2 ok" in err


def _correct(mask: Path) -> None:
    """Save a corrected mask beside a mask, as an editor does."""
    volume = nib.load(mask)
    corrected = np.asarray(volume.dataobj).copy()
    corrected[..., 0] = 0
    nib.Nifti1Image(corrected, volume.affine, volume.header).to_filename(manual_path(mask))


@pytest.mark.parametrize("words", [(), ("--no-sidecar", "--qc-dataset", "d")])
def test_a_corrected_mask_of_one_volume_stays_in_the_report(here: Path, words: tuple[str, ...]) -> None:
    save_phantom(here / "in" / "t2.nii.gz")
    command = ("run", "in/t2.nii.gz", "-o", "out", "--qc", "qc", *words)
    _, out, _ = fastseg(*command)
    mask = here / out.strip()
    _correct(mask)
    assert fastseg(*command, "--overwrite")[0] == 0
    (row,) = rows(here / "qc").values()
    assert (row["manual"], row["pictures"], row["name"]) == (True, True, "t2.nii.gz")
    assert row["mask"] == hashlib.sha256(manual_path(mask).read_bytes()).hexdigest()[:12]
    manual_path(mask).unlink()
    assert fastseg(*command, "--overwrite")[0] == 0
    assert [row["manual"] for row in rows(here / "qc").values()] == [False]


def test_what_is_odd_about_a_corrected_mask_of_one_volume_is_said(here: Path) -> None:
    save_phantom(here / "t2.nii.gz")
    command = ("run", "t2.nii.gz", "-o", "out", "--qc", "qc", "--overwrite")
    fastseg(*command)
    _correct(here / "out" / "t2_seg.nii.gz")
    (here / "out" / "t2_desc-manual_seg.json").write_text('{"Manual": false}')
    code, _, err = fastseg(*command)
    assert code == 0
    assert "warning: t2.nii.gz: t2_desc-manual_seg.json does not say that the mask was corrected" in err


def test_a_corrected_mask_stays_in_the_report_when_the_volume_is_done_again(here: Path) -> None:
    for seed in (0, 1):
        save_phantom(here / "in" / f"v{seed}.nii.gz", seed=seed)
    fastseg("run", "in", "-o", "out", "--qc", "qc")
    _correct(here / "out" / "v0_seg.nii.gz")
    for again in ([], ["--overwrite"]):
        assert fastseg("run", "in", "-o", "out", "--qc", "qc", *again)[0] == 0
        assert {name: row["manual"] for name, row in rows(here / "qc").items()} == {
            "v0.nii.gz": True,
            "v1.nii.gz": False,
        }
    sidecar = json.loads((here / "out" / "v0_desc-manual_seg.json").read_text())
    assert sidecar["Manual"] is True
