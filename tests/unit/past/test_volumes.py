"""Where finished volumes are known from, and where their images are looked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastseg.cohort.job import Status
from fastseg.cohort.ledger import read_ledgers
from fastseg.past.build import build_report
from fastseg.past.volumes import Finished, Places, of_ledger, of_sidecars, read_record
from fastseg.qc.editors import manual_path
from tests.unit.past.past_runs import PastRun, digest, entries, save_mask


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def _found(run: PastRun, inputs: Path | None = None) -> Path | None:
    """Where the image of the one volume of a run is found."""
    history = read_ledgers(run.out)
    (volume,) = of_ledger(history, run.out)
    found = Places(run.out, history.runs, inputs).find(volume)
    return found.path if found is not None else None


# --- folders without a ledger


def test_without_a_ledger_masks_are_known_by_their_sidecars(tmp_path: Path) -> None:
    run = PastRun(tmp_path / "study")
    masks = [run.add(f"sub-{k}/sub-{k}_T2w.nii.gz") for k in (1, 2)]
    for k, mask in enumerate(masks, 1):
        flagged = {"Status": "ok_flagged", "Flags": ["holes"], "Quality": {"HoleVoxels": 9.0}}
        run.sidecar(mask, f"sub-{k}/sub-{k}_T2w.nii.gz", **flagged)
    shutil.rmtree(run.out / ".fastseg")
    report = run.out / "qc"
    built = build_report(run.out, report, inputs=run.data)
    assert (built.total, built.without_pictures) == (2, 0)
    row = entries(report)["sub-1/sub-1_T2w.nii.gz"]
    assert (row["status"], row["flags"], row["mask"]) == ("ok_flagged", ["holes"], digest(masks[0])[:12])
    # Neither the report itself nor a corrected mask is one more volume.
    manual = save_mask(manual_path(masks[0]), lambda voxels: voxels * (np.arange(6) > 2))
    run.sidecar(manual, "sub-1/sub-1_T2w.nii.gz")
    built = build_report(run.out, report, inputs=run.data)
    assert (built.total, built.corrected) == (2, 1)
    assert build_report(run.out, report, inputs=run.data).kept == 2


def test_of_one_volume_that_lies_beside_its_image_the_image_is_found(tmp_path: Path) -> None:
    run = PastRun(tmp_path / "study")
    run.image("t2.nii.gz")
    run.sidecar(save_mask(run.data / "t2_seg.nii.gz"), "t2.nii.gz")
    (volume,) = of_sidecars(run.data)
    found = Places(run.data, []).find(volume)
    assert found is not None
    assert (found.path, found.changed) == (run.data / "t2.nii.gz", False)


def test_what_is_no_sidecar_of_fastseg_is_passed_over(tmp_path: Path) -> None:
    run = PastRun(tmp_path / "study")
    run.image("t2.nii.gz")
    for name, content in {
        "other": '{"GeneratedBy": [{"Name": "sct"}], "Fastseg": {}}',
        "list": "[]",
        "torn": '{"GeneratedBy": [',
        "deep": "[" * 100_000,
        "without": '{"GeneratedBy": [{"Name": "fastseg"}]}',
        "strange": '{"GeneratedBy": "fastseg", "Fastseg": {}}',
    }.items():
        save_mask(run.data / f"{name}.nii.gz")
        (run.data / f"{name}.json").write_text(content)
    run.sidecar(run.data / "no_mask_seg.nii.gz", "t2.nii.gz")
    assert of_sidecars(run.data) == []
    assert read_record(run.data / "missing.json") == {}


def test_what_others_wrote_into_a_sidecar_is_left_out(tmp_path: Path) -> None:
    run = PastRun(tmp_path / "study")
    run.image("t2.nii.gz")
    mask = save_mask(run.data / "t2_seg.nii.gz")
    run.sidecar(mask, "t2.nii.gz", Status=3, Flags="all", Quality={"a": "b", "c": 1.0, "d": True})
    (volume,) = of_sidecars(run.data)
    assert (volume.status, volume.flags, volume.measures) == (Status.ERROR, (), {"c": 1.0})


# --- where images are looked for


def test_images_are_found_in_the_root_that_the_newest_run_names(tmp_path: Path) -> None:
    run = PastRun(tmp_path / "study", root=str(tmp_path / "nowhere"))
    run.add("sub-1/t2.nii.gz")
    assert _found(run) is None
    history = read_ledgers(run.out)
    (volume,) = of_ledger(history, run.out)
    shutil.copytree(run.data, tmp_path / "newer")
    for root in (run.data, tmp_path / "newer"):
        found = Places(run.out, [*history.runs, {"root": str(run.data)}, {"root": str(root)}]).find(volume)
        assert found is not None
        assert found.path == root / "sub-1/t2.nii.gz"


@pytest.mark.parametrize(
    "words",
    [
        ["run", "data", "-o", "out"],
        ["run", "data/sub-1/t2.nii.gz", "data/sub-2/t2.nii.gz", "-o", "out"],
        ["run", "-o", "out", "data/*.nii.gz"],
    ],
)
def test_of_older_runs_the_words_tell_where_images_are(words: list[str], here: Path) -> None:
    run = PastRun(here / "study", root=None, command=words, cwd=str(here / "study"))
    run.image("sub-2/t2.nii.gz")
    run.add("sub-1/t2.nii.gz")
    assert _found(run) == run.data / "sub-1/t2.nii.gz"


def test_without_a_folder_words_are_taken_from_the_current_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = PastRun(here / "study", root=None, command=["run", "data", "-c", "t2"])
    run.add("t2.nii.gz")
    assert _found(run) is None
    monkeypatch.chdir(run.folder)
    assert _found(run) == run.data / "t2.nii.gz"


def test_derivatives_lead_to_their_data_set(here: Path) -> None:
    run = PastRun(here / "a study", root=None)
    run.add("sub-1/t2.nii.gz")
    record = {"SourceDatasets": [{"URL": "https://example.org"}, {"URL": "../data%20set"}, 3]}
    (run.out / "dataset_description.json").write_text(json.dumps(record))
    run.data.rename(run.folder / "data set")
    found = _found(run)
    assert found is not None
    assert found.samefile(run.folder / "data set/sub-1/t2.nii.gz")


def test_another_file_of_the_same_name_is_not_taken_unless_named(here: Path) -> None:
    run = PastRun(here / "study", root=None, command=["run", "data"], cwd=str(here / "study"))
    run.add("t2.nii.gz")
    save_mask(run.data / "t2.nii.gz")
    assert _found(run) is None
    assert _found(run, inputs=run.data) == run.data / "t2.nii.gz"


def test_another_file_of_the_same_name_and_size_is_not_taken_either(here: Path) -> None:
    run = PastRun(here / "study", root=None, command=["run", "data"], cwd=str(here / "study"))
    run.add("t2.nii")
    image = run.data / "t2.nii"
    image.write_bytes(image.read_bytes()[:-1] + b"\x7f")
    assert _found(run) is None


def test_the_very_file_is_preferred_to_one_that_changed(here: Path) -> None:
    run = PastRun(here / "study")
    run.add("t2.nii.gz")
    shutil.copytree(run.data, here / "copy")
    save_mask(run.data / "t2.nii.gz")
    assert _found(run) == run.data / "t2.nii.gz"
    assert _found(run, inputs=here / "copy") == here / "copy" / "t2.nii.gz"


def test_an_absolute_name_is_an_image_wherever_it_lies(here: Path) -> None:
    image = PastRun(here / "study").image("t2.nii.gz")
    volume = Finished(str(image), here / "t2_seg.nii.gz", Status.OK, known={"sha256": digest(image)})
    found = Places(here, []).find(volume)
    assert found is not None
    assert found.path == image
