"""fastseg run: what it writes, what it says, and how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastseg.networks.network import Role
from fastseg.networks.packs import find_pack
from fastseg.segmenter import Segmenter
from tests.phantom_files import fastseg, files_below, save, save_phantom, voxels_of
from tests.unit.networks.stand_ins import own_pack, sct_folder


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms, and one file that is no volume."""
    folder = tmp_path_factory.mktemp("volumes")
    save_phantom(folder / "a.nii.gz")
    save_phantom(folder / "deep" / "b.nii", seed=1)
    save_phantom(folder / "c.nii.gz", seed=2)
    (folder / "broken.nii.gz").write_text("not a volume")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTSEG_PACKS", str(tmp_path / "packs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_volume_gives_a_mask_beside_its_sidecar_in_the_current_folder(volumes: Path, here: Path) -> None:
    code, out, err = fastseg("run", volumes / "a.nii.gz", "-c", "t2")
    assert (code, out) == (0, "a_seg.nii.gz\n")
    assert err.startswith(f"ok            {volumes / 'a.nii.gz'}  ")
    assert err.count("\n") == 1
    assert files_below(here) == ["a_seg.json", "a_seg.nii.gz"]
    mask = voxels_of(here / "a_seg.nii.gz")
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1}


def test_a_folder_is_segmented_in_place_and_failures_do_not_stop_it(volumes: Path, here: Path) -> None:
    code, out, err = fastseg("run", volumes, "-c", "t2", "-o", "out", "--report", "run.json")
    assert code == 3
    assert sorted(out.splitlines()) == ["out/a_seg.nii.gz", "out/c_seg.nii.gz", "out/deep/b_seg.nii.gz"]
    told = [line.split()[0] for line in err.splitlines()]
    assert sorted(told[:4]) == ["bad_input", "ok", "ok", "ok"]
    assert set(told[4:]) == {"fastseg:"}
    assert "fastseg: 1 x bad_input: not a NIfTI volume; convert it to .nii.gz first" in err
    assert "fastseg: table of all volumes: out/summary.tsv\n" in err
    report = json.loads((here / "run.json").read_text())
    assert (report["ExitCode"], report["Counts"]) == (3, {"ok": 3, "bad_input": 1})
    volume = next(each for each in report["Volumes"] if each["Status"] == "bad_input")
    assert (volume["Input"], volume["Mask"]) == ("broken.nii.gz", None)
    assert "not a NIfTI volume" in volume["Message"]
    left = [name for name in files_below(here / "out") if "broken" in name]
    assert left == ["logs/broken_seg.log"]


def test_results_in_the_input_folder_are_not_segmented_again(volumes: Path, here: Path) -> None:
    save_phantom(here / "a.nii.gz")
    assert fastseg("run", ".", "-c", "t2", "--save-centerline")[0] == 0
    before = {name: (here / name).read_bytes() for name in ("a_seg.nii.gz", "a_seg.json")}
    code, out, err = fastseg("run", ".", "-c", "t2")
    assert (code, out) == (0, "a_seg.nii.gz\n")
    assert err.startswith("cached        a.nii.gz  ")
    assert {name: (here / name).read_bytes() for name in before} == before


def test_existing_outputs_are_refused_before_any_work(
    volumes: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "a_seg.json").write_text("mine")

    def never(*_: object) -> None:
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(Segmenter, "__enter__", never)
    code, out, err = fastseg("run", volumes / "a.nii.gz", "-c", "t2")
    assert (code, out) == (4, "")
    assert err.startswith("error         ")
    assert "a_seg.json exists" in err
    assert (here / "a_seg.json").read_text() == "mine"


def test_overwrite_replaces(volumes: Path, here: Path) -> None:
    for name in ("a_seg.nii.gz", "a_seg.json"):
        (here / name).write_text("old")
    assert fastseg("run", volumes / "a.nii.gz", "-c", "t2", "--overwrite")[0] == 0
    assert voxels_of(here / "a_seg.nii.gz").any()


def test_all_that_may_be_written(volumes: Path, here: Path) -> None:
    pytest.importorskip("fastseg.preview")
    code, _, _ = fastseg(
        "run", volumes / "a.nii.gz", "-c", "t2", "-o", "out/mask.nii", "--preview", "--save-centerline",
        "--no-sidecar",
    )  # fmt: skip
    assert code == 0
    assert files_below(here / "out") == ["mask.nii", "mask_centerline.nii", "mask_overlay.png"]
    line = voxels_of(here / "out" / "mask_centerline.nii")
    assert line.sum(axis=(0, 1)).tolist() == [1] * 6
    assert (voxels_of(here / "out" / "mask.nii") * line).any()


@pytest.mark.parametrize("option", [["--soft"], ["--thr", "-1"]])
def test_soft_results_by_either_name(volumes: Path, here: Path, option: list[str]) -> None:
    assert fastseg("run", volumes / "a.nii.gz", "-c", "t2", *option)[0] == 0
    soft = voxels_of(here / "a_seg.nii.gz")
    assert soft.dtype == np.float32
    assert len(np.unique(soft)) > 2
    assert json.loads((here / "a_seg.json").read_text())["Fastseg"]["Soft"] is True


def test_a_given_centerline_moves_the_detector_to_file(volumes: Path, here: Path) -> None:
    assert fastseg("centerline", volumes / "a.nii.gz", "-c", "t2", "-o", "line.nii.gz")[0] == 0
    code, _, _ = fastseg("run", volumes / "a.nii.gz", "-c", "t2", "--file-centerline", "line.nii.gz")
    assert code == 0
    assert json.loads((here / "a_seg.json").read_text())["Fastseg"]["Centerline"] == "file"


def test_no_contrast_is_needed_and_the_sidecar_says_so(here: Path) -> None:
    save_phantom(here / "sub-01_T1w.nii.gz")  # a T2 phantom: neither name nor image can be wrong
    code, out, err = fastseg("run", "sub-01_T1w.nii.gz", "--preview", "--report", "run.json")
    assert (code, out) == (0, "sub-01_T1w_seg.nii.gz\n")
    assert err.startswith("ok ")
    assert err.count("\n") == 1
    block = json.loads((here / "sub-01_T1w_seg.json").read_text())["Fastseg"]
    threshold = find_pack("default").network(Role.SEGMENT_2D, "auto").thresholds["auto"]
    assert (block["Contrast"], block["Centerline"], block["Threshold"]) == ("auto", "cnn", threshold)
    assert json.loads((here / "run.json").read_text())["Contrast"] == "auto"


def test_networks_that_need_a_contrast_say_so_in_one_line(volumes: Path, here: Path) -> None:
    assert fastseg("models", "import", "--sct", sct_folder(here / "sct"), "--name", "sct")[0] == 0
    for command in ("run", "centerline"):
        code, out, err = fastseg(command, volumes / "a.nii.gz", "--models", "sct", "-o", "out")
        assert (code, out) == (2, "")
        assert err.startswith("fastseg: error: pack 'sct' needs to know the contrast")
        assert "-c, one of t1, t2, t2s, dwi" in err
        assert err.count("\n") == 1
    code, _, _ = fastseg("run", volumes / "a.nii.gz", "--models", "sct", "-c", "t2")
    assert code == 0
    assert json.loads((here / "a_seg.json").read_text())["Fastseg"]["Centerline"] == "svm"


@pytest.mark.parametrize("kernel", ["2d", "2d-light", "3d"])
def test_the_kernel_that_ran_is_recorded(volumes: Path, here: Path, kernel: str) -> None:
    pack = own_pack(here / "own")
    assert fastseg("run", volumes / "a.nii.gz", "--models", pack, "--kernel", kernel)[0] == 0
    block = json.loads((here / "a_seg.json").read_text())["Fastseg"]
    assert block["Kernel"] == kernel
    assert block["Networks"]["segment"]["Name"] == f"own/segment_{kernel.replace('-', '_')}"


def test_a_centerline_that_another_detector_had_to_find_is_warned_of(volumes: Path, here: Path) -> None:
    pack = own_pack(here / "own", blind=True, centerline="cnn")
    said = f"warning: {volumes / 'a.nii.gz'}: the network saw no cord; the centerline is that of HOG + SVM"
    code, _, err = fastseg("run", volumes / "a.nii.gz", "--models", pack, "--quiet")
    assert code == 0
    assert err.startswith(said)
    block = json.loads((here / "a_seg.json").read_text())["Fastseg"]
    assert block["Centerline"] == "svm"
    assert block["Notes"][0].startswith("the network saw no cord")
    assert set(block["Networks"]) == {"segment"}
    code, _, err = fastseg("centerline", volumes / "a.nii.gz", "--models", pack)
    assert (code, err.startswith(said)) == (0, True)
    code, out, err = fastseg(
        "run", volumes / "a.nii.gz", "--models", pack, "--centerline", "cnn", "-o", "cnn"
    )
    assert (code, out) == (4, "")
    assert err.startswith("no_cord ")


def test_the_svms_code_is_loaded_when_it_has_to_run_and_not_before(volumes: Path, here: Path) -> None:
    """They would take a tenth of a start."""
    for name in ("sees", "blind"):
        own_pack(here / name, blind=name == "blind", centerline="cnn")
    code = (
        "import sys, contextlib, fastseg.cli\n"
        "for name in ('sees', 'blind'):\n"
        "    with contextlib.suppress(SystemExit):\n"
        f"        fastseg.cli.main(['run', {str(volumes / 'a.nii.gz')!r}, '--models', name, '-o', name])\n"
        "    print('fastseg.kernels.hog' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["sees/a_seg.nii.gz", "False", "blind/a_seg.nii.gz", "True"]


def test_a_name_that_says_another_contrast_is_noticed(here: Path) -> None:
    save_phantom(here / "sub-01_T1w.nii.gz")  # a T2 phantom
    code, _, err = fastseg("run", "sub-01_T1w.nii.gz", "-c", "t2")
    assert code == 0
    assert "warning: sub-01_T1w.nii.gz: the name says T1w, the contrast given is t2" in err


def test_an_image_that_shows_another_contrast_is_noticed(here: Path) -> None:
    save_phantom(here / "a.nii.gz")  # T2: the CSF is bright
    code, _, err = fastseg("run", "a.nii.gz", "-c", "t1")
    assert code == 0
    assert "warning: a.nii.gz: the surroundings of the cord are brighter than the cord" in err


def test_a_frame_of_a_4d_volume(here: Path) -> None:
    save_phantom(here / "one.nii")
    frame = voxels_of(here / "one.nii")
    save(here / "many.nii", np.stack([frame * 0, frame], axis=3), np.diag([1, 1, 2.5, 1]))
    code, _, err = fastseg("run", "many.nii", "-c", "t2")
    assert code == 4
    assert "--4d N" in err
    assert fastseg("run", "many.nii", "-c", "t2", "--4d", "1")[0] == 0
    assert voxels_of(here / "many_seg.nii.gz").shape == frame.shape
    assert json.loads((here / "many_seg.json").read_text())["Fastseg"]["Frame"] == 1
    assert fastseg("run", "many.nii", "-c", "t2", "--4d", "mean", "--overwrite")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "t3"],
        ["-c", "t2", "--thr", "1.5"],
        ["-c", "t2", "--thr", "0.5", "--soft"],
        ["-c", "t2", "--centerline", "file"],
        ["-c", "t2", "--centerline", "svm", "--brain", "1"],
        ["-c", "t2", "--4d", "first"],
        ["-c", "t2", "--models", "no-such-pack"],
        ["-c", "t2", "--engine", "no-such-engine"],
        ["-c", "t2", "--report", "missing/run.json"],
        ["-c", "t2", "--report", "a_seg.json"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_with_2_and_leave_nothing(volumes: Path, here: Path, arguments: list[str]) -> None:
    code, out, err = fastseg("run", volumes / "a.nii.gz", *arguments)
    assert (code, out) == (2, "")
    assert "rror: " in err
    assert files_below(here) == []


@pytest.mark.parametrize(
    ("arguments", "lacks"),
    [
        (["--kernel", "3d"], "segment_3d network for any contrast"),
        (["--kernel", "2d-light"], "segment_2d_light network for any contrast"),
        (["--kernel", "2d-light", "-c", "t2"], "segment_2d_light network for contrast t2"),
        (["--centerline", "svm"], "SVM for any contrast"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_pack_lacks_exits_with_2(volumes: Path, here: Path, arguments: list[str], lacks: str) -> None:
    own_pack(here / "packs" / "own", svm=False, roles=("detect_slices", "segment_2d"))
    code, out, err = fastseg("run", volumes / "a.nii.gz", "--models", "own", "-o", "out", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"fastseg: error: pack 'own' has no {lacks}; it has detect_slices for t2, auto;")
    assert err.count("\n") == 1


def test_no_input_is_a_usage_error(here: Path) -> None:
    code, out, err = fastseg("run")
    assert (code, out) == (2, "")
    assert "INPUT..." in err


def test_clashes_exit_with_2(volumes: Path, here: Path) -> None:
    a, c = volumes / "a.nii.gz", volumes / "c.nii.gz"
    save_phantom(here / "a.nii.gz")
    for arguments in ([a, here / "a.nii.gz"], [a, c, "-o", "x.nii.gz"], [a, c, "--file-centerline", a]):
        assert fastseg("run", "-c", "t2", *arguments)[0] == 2
    assert fastseg("run", here / "a.nii.gz", "-c", "t2", "-o", "a.nii.gz", "--overwrite")[0] == 2
    assert files_below(here) == ["a.nii.gz"]


def test_the_same_input_twice_is_one(volumes: Path, here: Path) -> None:
    code, out, _ = fastseg("run", volumes / "a.nii.gz", volumes, volumes / "a.nii.gz", "-c", "t2")
    assert code == 3
    assert out.split().count("a_seg.nii.gz") == 1


def test_nothing_matched_exits_with_5(here: Path) -> None:
    (here / "empty").mkdir()
    code, out, err = fastseg("run", "empty", "-c", "t2")
    assert (code, out) == (5, "")
    assert err == "fastseg: error: no .nii or .nii.gz volume in empty\n"


def test_quiet_tells_failures_only(volumes: Path, here: Path) -> None:
    code, out, err = fastseg("run", volumes / "a.nii.gz", volumes / "broken.nii.gz", "-c", "t2", "--quiet")
    assert code == 3
    assert out == "a_seg.nii.gz\n"
    assert err.startswith("bad_input")
    assert err.count("\n") == 1


def test_fail_fast_stops_and_says_what_was_not_tried(volumes: Path, here: Path) -> None:
    code, out, err = fastseg("run", volumes, "-c", "t2", "--fail-fast", "--report", "run.json")
    assert code in (3, 4)
    report = json.loads((here / "run.json").read_text())
    done = sum(report["Counts"].values())
    assert report["Counts"]["bad_input"] == 1
    assert report["NotTried"] == 4 - done
    assert "to try what failed again" in err or "to go on: fastseg" in err
    assert len(out.splitlines()) == done - 1
    # Of more volumes than can be under way at once, the rest is not begun.
    many = [save_phantom(here / f"{k:02}.nii.gz", seed=k) for k in range(12)]
    (here / "00.nii.gz").write_text("not a volume")
    code, _, err = fastseg("run", *many, "-o", "new", "--fail-fast", "--jobs", "1", "--report", "run.json")
    assert json.loads((here / "run.json").read_text())["NotTried"] > 0
    assert "to go on: fastseg" in err


def test_notes_are_warned_of_and_kept(here: Path) -> None:
    path = save_phantom(here / "a.nii")
    content = bytearray(path.read_bytes())
    content[252:256] = bytes(4)  # qform_code and sform_code
    path.write_bytes(content)
    code, _, err = fastseg("run", "a.nii", "-c", "t2", "--quiet")
    assert code == 0
    assert err.startswith("warning: a.nii: the header has no orientation")
    assert "no orientation" in json.loads((here / "a_seg.json").read_text())["Fastseg"]["Notes"][0]


def test_equal_inputs_give_equal_masks(volumes: Path, here: Path) -> None:
    for out in ("one", "two"):
        assert fastseg("run", volumes / "a.nii.gz", "-c", "t2", "-o", out, "--threads", len(out))[0] == 0
    masks = [(here / out / "a_seg.nii.gz").read_bytes() for out in ("one", "two")]
    assert masks[0] == masks[1]


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, contextlib; from fastseg.cli import main\n"
        "for name in ('run', 'centerline', 'deepseg-sc'):\n"
        "    with contextlib.suppress(SystemExit): main([name, '-h'])\n"
        "print(sorted({'numpy', 'numba', 'nibabel', 'onnxruntime', 'scipy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
