"""fastseg run over many volumes: forms of input, what is left behind, going on, reports."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.phantom import make_phantom
from tests.phantom_files import fastseg, files_below, save, save_phantom, voxels_of


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people, one of them twice, two contrasts."""
    root = tmp_path_factory.mktemp("bids")
    (root / "dataset_description.json").write_text('{"Name": "phantoms", "BIDSVersion": "1.9.0"}')
    for seed, name in enumerate(("sub-01/anat/sub-01_T2w", "sub-02/ses-a/anat/sub-02_ses-a_T2w")):
        save_phantom((root / name).with_suffix(".nii.gz"), seed=seed)
    save_phantom(root / "sub-01" / "anat" / "sub-01_T2starw.nii.gz", seed=7)
    save_phantom(root / "derivatives" / "old" / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    return root


def _results(out: Path) -> list[str]:
    return [name for name in files_below(out) if name.endswith((".nii.gz", ".json", ".tsv", ".png"))]


def _summary(out: Path) -> list[dict[str, str]]:
    return _table(out / "summary.tsv")


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))


def test_no_module_brings_kernels_in_before_they_are_loaded(here: Path) -> None:
    """They would be compiled without a word, where no cache can be kept; and numba would look for BLAS."""
    save_phantom(here / "in" / "a.nii.gz")
    code = (
        "import sys, fastseg.cli, fastseg.compilation as compilation\n"
        "load = compilation.load_kernels\n"
        "def listed(*given, **named):\n"
        "    print(sorted(name for name in sys.modules if name.startswith(('numba', 'fastseg.kernels.'))))\n"
        "    load(*given, **named)\n"
        "compilation.load_kernels = listed\n"
        "fastseg.cli.main(['run', 'in', '-o', 'out'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "[]"


def test_a_bids_data_set_becomes_derivatives(bids: Path, here: Path) -> None:
    before = files_below(bids)
    code, out, err = fastseg("run", bids, "out", "participant")
    assert code == 0
    assert "fastseg: T2w: 2 volumes, contrast t2\n" in err
    assert "fastseg: T2starw: 1 volume, contrast t2s\n" in err
    assert _results(here / "out") == [
        "dataset_description.json",
        "sub-01/anat/sub-01_T2starw_label-SC_seg.json",
        "sub-01/anat/sub-01_T2starw_label-SC_seg.nii.gz",
        "sub-01/anat/sub-01_T2w_label-SC_seg.json",
        "sub-01/anat/sub-01_T2w_label-SC_seg.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_T2w_label-SC_seg.json",
        "sub-02/ses-a/anat/sub-02_ses-a_T2w_label-SC_seg.nii.gz",
        "summary.tsv",
    ]
    assert sorted(out.splitlines()) == [f"out/{name}" for name in _results(here / "out")[2:-1:2]]
    description = json.loads((here / "out" / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "fastseg"
    sidecar = json.loads((here / "out" / "sub-01/anat/sub-01_T2w_label-SC_seg.json").read_text())
    assert sidecar["Sources"] == ["sub-01/anat/sub-01_T2w.nii.gz"]
    assert sidecar["Fastseg"]["Contrast"] == "t2"
    assert files_below(bids) == before


def test_nothing_that_is_written_names_a_folder_of_this_machine(bids: Path, here: Path) -> None:
    (bids / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_T1w.nii.gz").write_bytes(b"no volume")
    try:
        code, _, _ = fastseg("run", bids, here / "out", "participant", "--report", "run.json", "--csa")
    finally:
        (bids / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_T1w.nii.gz").unlink()
    assert code == 3
    texts = [path for path in (here / "out").rglob("*") if path.suffix in (".json", ".tsv", ".log")]
    assert len(texts) >= 9
    for path in [*texts, here / "run.json"]:
        assert str(here) not in path.read_text(), path
        assert str(bids) not in path.read_text(), path


def test_people_sessions_suffixes_and_exclusions_choose(bids: Path, here: Path) -> None:
    (here / "qc_fail.yml").write_text("FILES_SEG:\n- sub-01_T2w.nii.gz\n")
    code, out, _ = fastseg(
        "run", bids, "out", "participant", "--suffix", "T2w", "--exclude-yml", "qc_fail.yml"
    )
    assert code == 0
    assert out == "out/sub-02/ses-a/anat/sub-02_ses-a_T2w_label-SC_seg.nii.gz\n"
    (skipped,) = [row for row in _summary(here / "out") if row["status"] == "skipped"]
    assert skipped["name"] == "sub-01/anat/sub-01_T2w.nii.gz"
    assert "qc_fail.yml" in skipped["message"]
    code, out, _ = fastseg("run", bids, "one", "participant", "--participant-label", "02")
    assert (code, len(out.splitlines())) == (0, 1)
    code, _, err = fastseg("run", bids, "one", "participant", "--participant-label", "03")
    assert (code, "03" in err) == (2, True)


def test_what_is_done_is_not_done_again_unless_something_changed(bids: Path, here: Path) -> None:
    first = fastseg("run", bids, "out", "participant")
    masks = {name: (here / "out" / name).read_bytes() for name in _results(here / "out")}
    code, out, err = fastseg("run", bids, "out", "participant")
    assert code == 0
    assert sorted(out.splitlines()) == sorted(first[1].splitlines())
    assert [line.split()[0] for line in err.splitlines()].count("cached") == 3
    assert {name: (here / "out" / name).read_bytes() for name in masks} == masks
    (here / "out" / "sub-01/anat/sub-01_T2w_label-SC_seg.nii.gz").unlink()
    _, _, err = fastseg("run", bids, "out", "participant")
    assert [line.split()[0] for line in err.splitlines()].count("cached") == 2
    _, _, err = fastseg("run", bids, "out", "participant", "--thr", "0.4")
    assert "cached " not in err
    _, _, err = fastseg("run", bids, "out", "participant", "--thr", "0.4", "--save-centerline")
    assert "cached " not in err
    assert {row["status"] for row in _summary(here / "out")} == {"ok"}


def test_a_mask_that_somebody_changed_is_not_replaced(bids: Path, here: Path) -> None:
    fastseg("run", bids, "out", "participant", "--suffix", "T2starw")
    mask = here / "out/sub-01/anat/sub-01_T2starw_label-SC_seg.nii.gz"
    mask.write_bytes(b"corrected by hand")
    code, out, err = fastseg("run", bids, "out", "participant", "--suffix", "T2starw")
    assert (code, out) == (4, "")
    assert "_seg.nii.gz was changed since fastseg wrote it: add --overwrite" in err
    assert mask.read_bytes() == b"corrected by hand"
    code, _, _ = fastseg("run", bids, "out", "participant", "--suffix", "T2starw", "--overwrite")
    assert code == 0
    assert voxels_of(mask).any()


def test_files_that_no_ledger_knows_are_not_replaced(here: Path) -> None:
    save_phantom(here / "in" / "a.nii.gz")
    save_phantom(here / "in" / "b.nii.gz", seed=1)
    (here / "out").mkdir()
    (here / "out" / "a_seg.nii.gz").write_bytes(b"mine")
    code, out, err = fastseg("run", "in", "-o", "out")
    assert (code, out) == (3, "out/b_seg.nii.gz\n")
    assert "a_seg.nii.gz exists, and no ledger here knows it: add --overwrite" in err
    assert (here / "out" / "a_seg.nii.gz").read_bytes() == b"mine"


def test_failures_of_the_volume_itself_are_recalled_until_asked_to_retry(here: Path) -> None:
    save_phantom(here / "in" / "a.nii.gz")
    (here / "in" / "b.nii.gz").write_bytes(b"no volume")
    assert fastseg("run", "in", "-o", "out")[0] == 3
    code, _, err = fastseg("run", "in", "-o", "out")
    assert code == 3
    assert "(an earlier run; --retry-failed tries again)" in err
    code, _, err = fastseg("run", "in", "-o", "out", "--retry-failed")
    assert code == 3
    assert "an earlier run" not in err
    save_phantom(here / "in" / "b.nii.gz", seed=1)  # another file: it is tried whether asked to or not
    code, _, err = fastseg("run", "in", "-o", "out")
    assert code == 0
    assert {row["status"] for row in _summary(here / "out")} == {"ok"}


def test_a_list_gives_each_volume_its_own_options(here: Path) -> None:
    save_phantom(here / "in" / "a.nii.gz")
    save_phantom(here / "in" / "b.nii.gz", seed=1)
    (here / "in" / "list.tsv").write_text(
        "input\tcontrast\tkernel\tsoft\tage\na.nii.gz\tt2\t2d-light\t\t41\nb.nii.gz\tt2s\t\t1\t38\n"
    )
    code, _, err = fastseg("run", "in/list.tsv", "-o", "out")
    assert code == 0
    assert "age" in err
    first, second = (json.loads((here / f"out/{name}_seg.json").read_text())["Fastseg"] for name in "ab")
    assert (first["Contrast"], first["Kernel"], first["Soft"]) == ("t2", "2d-light", False)
    assert (second["Contrast"], second["Kernel"], second["Soft"]) == ("t2s", "2d", True)
    assert voxels_of(here / "out" / "b_seg.nii.gz").dtype == np.float32


class _Stdin:
    def __init__(self, text: str) -> None:
        self.buffer = io.BytesIO(text.encode())


def test_the_streaming_mode_answers_with_a_json_line_for_each_volume(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_phantom(here / "a.nii.gz")
    save_phantom(here / "b.nii.gz", seed=1)
    lines = ["a.nii.gz", json.dumps({"input": "b.nii.gz", "contrast": "t2"}), "missing.nii.gz", "a.nii.gz"]
    monkeypatch.setattr(sys, "stdin", _Stdin("\n".join(lines) + "\n"))
    code, out, _ = fastseg("run", "-", "-o", "out")
    assert code == 3
    answers = [json.loads(line) for line in out.splitlines()]
    by_status = sorted((each["Status"], each["Input"], each["Mask"]) for each in answers)
    assert by_status[-2:] == [("ok", "a.nii.gz", "a_seg.nii.gz"), ("ok", "b.nii.gz", "b_seg.nii.gz")]
    assert [status for status, _, _ in by_status[:2]] == ["bad_input", "bad_input"]
    assert {each["Input"]: each["Contrast"] for each in answers if each["Status"] == "ok"} == {
        "a.nii.gz": "auto",
        "b.nii.gz": "t2",
    }


def test_shards_share_an_output_folder_and_the_report_merges_them(here: Path) -> None:
    for seed in range(5):
        save_phantom(here / "in" / f"{seed}.nii.gz", seed=seed)
    (here / "in" / "5.nii.gz").write_bytes(b"no volume")
    runs = [fastseg("run", "in", "-o", "out", "--shard", f"{k}/2") for k in (1, 2)]
    assert [code for code, _, _ in runs] == [0, 3]
    assert not [err for _, _, err in runs if "not tried" in err]
    assert sorted(path.name for path in (here / "out" / ".fastseg").glob("ledger*")) == [
        "ledger-1-of-2.jsonl",
        "ledger-2-of-2.jsonl",
    ]
    (here / "out" / "summary.tsv").unlink()
    code, out, err = fastseg("report", "out")
    assert code == 3
    assert out.startswith("6 volumes: 5 ok, 1 bad_input\n")
    assert "out/summary.tsv" in err
    assert len(_summary(here / "out")) == 6
    code, out, _ = fastseg("report", "out", "--format", "json", "--no-summary")
    assert json.loads(out)["Counts"] == {"ok": 5, "bad_input": 1}
    code, out, _ = fastseg("report", "out", "--format", "tsv")
    assert len(out.splitlines()) == 7
    # What one shard did, a whole run need not do again.
    code, _, err = fastseg("run", "in", "-o", "out")
    assert (code, err.count("\ncached ") + err.startswith("cached ")) == (3, 5)


def test_a_folder_without_ledger_has_no_report(here: Path) -> None:
    code, out, err = fastseg("report", ".")
    assert (code, out) == (5, "")
    assert "no run of fastseg wrote there" in err
    assert files_below(here) == []


@pytest.mark.parametrize("shard", ["0/3", "4/3", "a/b", "1"])
def test_a_shard_that_does_not_exist_is_a_usage_error(here: Path, shard: str) -> None:
    save_phantom(here / "in" / "a.nii.gz")
    code, _, err = fastseg("run", "in", "-o", "out", "--shard", shard)
    assert (code, "--shard" in err) == (2, True)
    assert not (here / "out").exists()


def test_json_logs_are_one_object_a_line(here: Path) -> None:
    save_phantom(here / "in" / "a.nii.gz")
    (here / "in" / "b.nii.gz").write_bytes(b"no volume")
    _, _, err = fastseg("run", "in", "-o", "out", "--log-json")
    events = [json.loads(line) for line in err.splitlines()]
    told = {each["name"]: each["status"] for each in events if each["event"] == "volume"}
    assert told == {"a.nii.gz": "ok", "b.nii.gz": "bad_input"}
    (counts,) = [each["counts"] for each in events if "counts" in each]
    assert counts == {"ok": 1, "bad_input": 1}


def test_areas_are_written_on_request(here: Path) -> None:
    save_phantom(here / "a.nii.gz")
    code, _, _ = fastseg("run", "a.nii.gz", "--csa")
    assert code == 0
    rows = _table(here / "a_csa.tsv")
    assert len(rows) == 6
    statistics = json.loads((here / "a_seg.json").read_text())["Fastseg"]["Statistics"]
    assert np.mean([float(row["area_mm2"]) for row in rows]) == pytest.approx(
        statistics["MeanAreaMm2"], rel=1e-3
    )


@pytest.mark.parametrize(
    ("naming", "mask"),
    [
        ("sct", "sub-01_T2starw_seg.nii.gz"),
        ("neuropoly", "sub-01_T2starw_label-SC_seg.nii.gz"),
        ("bids", "sub-01_label-SC_desc-T2starw_mask.nii.gz"),
    ],
)
def test_names_follow_the_scheme(bids: Path, here: Path, naming: str, mask: str) -> None:
    arguments = ["--suffix", "T2starw", "--naming", naming]
    code, out, _ = fastseg("run", bids, "out", "participant", *arguments)
    assert (code, out) == (0, f"out/sub-01/anat/{mask}\n")


def test_too_little_memory_is_said_before_a_volume_is_read(here: Path) -> None:
    save_phantom(here / "in" / "a.nii.gz")
    code, _, err = fastseg("run", "in", "-o", "out", "--mem-gb", "0.1")
    assert code == 2
    assert "--mem-gb 0.1" in err


def test_the_workers_and_their_number_do_not_change_a_byte(here: Path) -> None:
    for seed in range(6):
        save_phantom(here / "in" / f"{seed}.nii.gz", seed=seed, n_slices=4 + seed)
    found: list[dict[str, Any]] = []
    for jobs in (1, 3):
        out = here / f"out{jobs}"
        assert fastseg("run", "in", "-o", out, "--jobs", jobs, "--save-centerline", "--preview")[0] == 0
        found.append({name: (out / name).read_bytes() for name in _results(out) if "summary" not in name})
    one, three = found
    assert [name for name in one if name.endswith("gz")]
    for name in one:
        if name.endswith(".json"):
            pair = [json.loads(each[name]) for each in (one, three)]
            for each in pair:
                del each["Fastseg"]["Seconds"]
            assert pair[0] == pair[1]
        else:
            assert one[name] == three[name], name


def test_a_rescue_is_recorded(here: Path) -> None:
    save_phantom(here / "in" / "a.nii.gz")
    image, truth = make_phantom("t2", n_slices=6)
    middle = int(np.argwhere(truth.voxels)[:, 0].mean())
    save(here / "in" / "cut.nii.gz", image.voxels[middle:].astype(np.int16), image.grid.affine)
    code, _, err = fastseg("run", "in", "-o", "out", "--rescue")
    assert code == 0
    assert "ok_flagged    cut.nii.gz" in err
    assert "fastseg: quality flags: 1 " in err
    plain = json.loads((here / "out/a_seg.json").read_text())["Fastseg"]
    assert "Attempts" not in plain
    block = json.loads((here / "out/cut_seg.json").read_text())["Fastseg"]
    attempts = block["Attempts"]
    assert [each["Kernel"] for each in attempts] == ["2d", "3d", "2d", "3d"]
    assert [each["Centerline"] for each in attempts] == ["auto", "auto", "svm", "svm"]
    found = [each for each in attempts if each["Status"] != "no_cord"]
    best = min(found, key=lambda each: len(each["Flags"]))  # the first of equals
    assert (block["Status"], block["Kernel"], block["Flags"]) == (
        "ok_flagged",
        best["Kernel"],
        best["Flags"],
    )
    (row,) = [row for row in _summary(here / "out") if row["name"] == "cut.nii.gz"]
    assert (row["status"], row["flags"]) == ("ok_flagged", ",".join(best["Flags"]))


def test_a_profile_of_a_cohort_has_every_step(here: Path) -> None:
    for seed in range(3):
        save_phantom(here / "in" / f"{seed}.nii.gz", seed=seed)
    code, _, _ = fastseg("run", "in", "-o", "out", "--profile-time", "profile.txt", "--trace", "trace.json")
    assert code == 0
    text = (here / "profile.txt").read_text()
    steps = ("read", "prepare", "centerline", "crop", "predict", "clean", "back", "quality", "write")
    assert [step for step in steps if f"\n{step} " not in text] == []
    events = json.loads((here / "trace.json").read_text())
    lanes = {event["args"]["name"] for event in events if event.get("name") == "thread_name"}
    assert {"read 1", "worker 1", "write 1"} <= lanes
    tasks = {event["name"] for event in events if event.get("cat") == "task"}
    assert tasks == {"read", "prepare", "infer", "finish", "write"}
    assert [event for event in events if event["ph"] == "C"]
