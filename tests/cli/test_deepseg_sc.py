"""fastseg deepseg-sc: SCT's command line. That its voxels are SCT's is checked in tests/golden."""

from __future__ import annotations

import hashlib
import pstats
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastseg.errors import InputError, OutputError
from fastseg.options import Options
from fastseg.qc.report import Report
from fastseg.segmenter import Segmenter
from tests.phantom_files import fastseg, files_below, save, save_phantom, voxels_of
from tests.unit.networks.stand_ins import own_pack


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom, and its centerline."""
    folder = tmp_path_factory.mktemp("given")
    save_phantom(folder / "t2.nii.gz")
    fastseg("centerline", folder / "t2.nii.gz", "-c", "t2", "-o", folder / "line.nii.gz")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _arguments(given: Path, *more: str) -> list[str]:
    return ["deepseg-sc", "-i", str(given / "t2.nii.gz"), "-c", "t2",
            "-file_centerline", str(given / "line.nii.gz"), *more]  # fmt: skip


@pytest.mark.parametrize("flag", ["-h", "-help", "--help"])
def test_help_is_in_scts_spelling(flag: str) -> None:
    code, out, err = fastseg("deepseg-sc", flag)
    assert (code, err) == (0, "")
    for option in (
        "-i", "-c", "-centerline", "-file_centerline", "-thr", "-brain", "-kernel", "-ofolder", "-o", "-qc",
        "-qc-dataset", "-qc-subject", "-h", "-v", "-profile-time", "-trace-memory", "-r", "--models",
    ):  # fmt: skip
        assert f" {option}" in out
    assert "the same voxels" in out
    assert "quirk 10" in out


def test_everything_at_once(given: Path, here: Path) -> None:
    code, out, err = fastseg(
        *_arguments(
            given, "-thr", "0.4", "-kernel", "2d", "-brain", "0", "-ofolder", "out", "-o", "mask.nii.gz",
            "-v", "1", "-r", "1", "--models", "default",
        )
    )  # fmt: skip
    assert (code, out, err) == (0, "out/mask.nii.gz\n", "")
    assert files_below(here) == ["out", "out/mask.nii.gz"]
    assert voxels_of(here / "out/mask.nii.gz").dtype == np.uint8


def test_the_default_output_replaces_what_is_there(given: Path, here: Path) -> None:
    (here / "t2_seg.nii.gz").write_text("old")
    assert fastseg(*_arguments(given, "-v", "0")) == (0, "", "")
    assert voxels_of(here / "t2_seg.nii.gz").any()
    assert files_below(here) == ["t2_seg.nii.gz"]


def test_minus_one_is_soft(given: Path, here: Path) -> None:
    assert fastseg(*_arguments(given, "-thr", "-1"))[0] == 0
    assert voxels_of(here / "t2_seg.nii.gz").dtype == np.float32


def test_cnn_with_brain(given: Path, here: Path) -> None:
    arguments = ["-i", given / "t2.nii.gz", "-c", "t2", "-centerline", "cnn", "-brain", "1"]
    assert fastseg("deepseg-sc", *arguments)[0] == 0


def test_3d_for_dwi_falls_back_and_says_so(given: Path, here: Path) -> None:
    code, out, _ = fastseg(*_arguments(given, "-c", "dwi", "-kernel", "3d", "-thr", "0.1"))
    assert (code, out.splitlines()[0]) == (
        0,
        "There is no 3D network for dwi: the 2D network is used instead.",
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-thr", "1.5"], "between 0 and 1"),
        (["-thr", "-0.5"], "between 0 and 1"),
        (["-thr", "much"], "invalid float value"),
        (["-kernel", "4d"], "invalid choice"),
        (["-kernel", "2d-light"], "invalid choice"),
        (["-c", "auto"], "invalid choice"),
        (["-centerline", "auto"], "invalid choice"),
        (["-centerline", "file"], "needs -file_centerline"),
        (["-brain", "1"], "-centerline cnn only"),
        (["-unknown", "1"], "unrecognized arguments: -unknown"),
        (["-o", "mask.png"], ".nii.gz or .nii"),
        (["-o", "t2.nii.gz"], "is an input"),
        (["--models", "no-such-pack"], "no pack"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors_exit_with_2(given: Path, here: Path, arguments: list[str], said: str) -> None:
    (here / "t2.nii.gz").write_bytes((given / "t2.nii.gz").read_bytes())
    code, out, err = fastseg("deepseg-sc", "-i", "t2.nii.gz", "-c", "t2", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert files_below(here) == ["t2.nii.gz"]


def test_a_viewer_with_a_file_is_the_file(given: Path, here: Path) -> None:
    assert fastseg(*_arguments(given, "-centerline", "viewer"))[0] == 0


def test_nothing_given_names_what_is_needed() -> None:
    code, _, err = fastseg("deepseg-sc")
    assert code == 2
    assert "required: -i, -c" in err


def test_a_volume_is_added_to_a_qc_report(given: Path, here: Path) -> None:
    code, out, err = fastseg(*_arguments(given, "-qc", "qc", "-qc-dataset", "phantoms", "-qc-subject", "me"))
    assert (code, out) == (0, "t2_seg.nii.gz\n")
    assert err == "fastseg: QC report: qc/index.html; to open it: fastseg qc open qc\n"
    (row,) = Report(here / "qc").rows()
    assert (row["name"], row["dataset"], row["subject"]) == ("t2.nii.gz", "phantoms", "me")
    assert (row["status"], row["pictures"]) == ("ok", True)
    assert row["mask"] == hashlib.sha256((here / "t2_seg.nii.gz").read_bytes()).hexdigest()[:12]


def test_a_corrected_mask_is_shown_in_place_of_the_automatic_one(given: Path, here: Path) -> None:
    words = _arguments(given, "-qc", "qc")
    fastseg(*words)
    mask = nib.load(here / "t2_seg.nii.gz")
    corrected = np.asarray(mask.dataobj).copy()
    corrected[..., 0] = 0
    path = here / "t2_desc-manual_seg.nii.gz"
    nib.Nifti1Image(corrected, mask.affine, mask.header).to_filename(path)
    assert fastseg(*words)[0] == 0
    (row,) = Report(here / "qc").rows()
    assert (row["manual"], row["pictures"]) == (True, True)
    assert row["mask"] == hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def test_a_volume_without_cord_is_added_too(given: Path, here: Path) -> None:
    words = ("-thr", "1", "-qc", "qc")
    assert fastseg(*_arguments(given, *words))[0] == 1
    (row,) = Report(here / "qc").rows()
    assert (row["status"], row["pictures"], row["mask"]) == ("no_cord", True, "")
    assert "no spinal cord was found" in row["message"]


def test_a_report_that_cannot_be_written_is_said_before_the_work(given: Path, here: Path) -> None:
    (here / "file").write_text("")
    code, out, err = fastseg(*_arguments(given, "-qc", "file/qc"))
    assert (code, out) == (1, "")
    assert "cannot be written" in err
    assert files_below(here) == ["file"]


@pytest.mark.parametrize(("thr", "code"), [("0.5", 0), ("1", 1)], ids=["cord", "no cord"])
def test_a_report_that_fails_later_changes_nothing_but_is_said(
    given: Path, here: Path, monkeypatch: pytest.MonkeyPatch, thr: str, code: int
) -> None:
    def full(*_: object) -> None:
        raise OutputError("qc/volumes: cannot be written (No space left on device)")

    monkeypatch.setattr("fastseg.qc.report.write_volume_files", full)
    found, _, err = fastseg(*_arguments(given, "-qc", "qc", "-thr", thr))
    assert found == code
    assert (here / "t2_seg.nii.gz").exists() is (code == 0)
    assert err.startswith("warning: not in the QC report: qc/volumes: cannot be written (No space left")
    assert ("no spinal cord was found" in err) is (code == 1)


def test_names_without_a_report_are_not_ignored_silently(given: Path, here: Path) -> None:
    code, _, err = fastseg(*_arguments(given, "-qc-subject", "sub-01"))
    assert (code, err) == (0, "warning: -qc-dataset and -qc-subject are of no use without -qc DIR\n")


def test_four_dimensions_are_refused_also_with_a_single_frame(given: Path, here: Path) -> None:
    voxels = voxels_of(given / "t2.nii.gz")
    for frames in (1, 2):
        save(here / "t2_4d.nii", np.stack([voxels] * frames, axis=3), np.eye(4))
        code, out, err = fastseg("deepseg-sc", "-i", "t2_4d.nii", "-c", "t2", "-centerline", "cnn")
        assert (code, out) == (1, "")
        assert "4 dimensions" in err
        assert err.count("\n") == 1


def test_no_cord_exits_with_1_and_one_line(given: Path, here: Path) -> None:
    save(here / "empty.nii.gz", np.zeros_like(voxels_of(given / "t2.nii.gz")), np.eye(4))
    arguments = ["-i", given / "t2.nii.gz", "-c", "t2", "-file_centerline", "empty.nii.gz"]
    code, out, err = fastseg("deepseg-sc", *arguments)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "the centerline is empty" in err
    assert files_below(here) == ["empty.nii.gz"]


def test_a_single_slice_and_a_centerline_with_fewer_slices(given: Path, here: Path) -> None:
    voxels, line = voxels_of(given / "t2.nii.gz"), voxels_of(given / "line.nii.gz")
    affine = np.diag([1, 1, 2.5, 1])
    save(here / "one.nii.gz", voxels[:, :, :1], affine)
    save(here / "flat.nii.gz", voxels[:, :, 0], affine)
    save(here / "one_line.nii.gz", line[:, :, :1], affine)
    for name in ("one", "flat"):
        arguments = ["-i", f"{name}.nii.gz", "-c", "t2", "-file_centerline", "one_line.nii.gz"]
        assert fastseg("deepseg-sc", *arguments)[0] == 0
        assert voxels_of(here / f"{name}_seg.nii.gz").any()
    # SCT takes it by index: the slices beyond it stay empty.
    arguments = ["-i", given / "t2.nii.gz", "-c", "t2", "-file_centerline", "one_line.nii.gz", "-thr", "-1"]
    assert fastseg("deepseg-sc", *arguments)[0] == 0


def test_time_is_profiled_as_text_or_binary(given: Path, here: Path) -> None:
    assert fastseg(*_arguments(given, "-profile-time"))[0] == 0
    assert "cumulative time" in (here / "time_profiling_results.txt").read_text()
    assert fastseg(*_arguments(given, "-profile-time", "run.prof"))[0] == 0
    assert pstats.Stats(str(here / "run.prof")).total_calls > 0  # type: ignore[attr-defined]


def test_memory_is_traced(given: Path, here: Path) -> None:
    assert fastseg(*_arguments(given, "-trace-memory", "memory"))[0] == 0
    value, unit = (here / "memory" / "peak_memory.txt").read_text().split()
    assert (float(value) > 10, unit) == (True, "KiB")
    assert "size=" in (here / "memory" / "memory_snapshots.txt").read_text()


def test_networks_without_an_svm_are_used_with_their_own_detector(given: Path, here: Path) -> None:
    arguments = ["-i", given / "t2.nii.gz", "-c", "t2", "--models", own_pack(here / "own", svm=False)]
    code, out, err = fastseg("deepseg-sc", *arguments)
    assert (code, out) == (0, "t2_seg.nii.gz\n")
    assert "own has no svm for t2: -centerline cnn is used" in err
    code, _, err = fastseg("deepseg-sc", *arguments, "-centerline", "svm")
    assert code == 2
    assert "has no SVM for contrast t2" in err


def test_svm_is_the_default_whatever_the_pack_prefers(
    given: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Options] = []

    def remember(self: Segmenter, options: Options, **how: object) -> None:
        asked.append(options)
        raise InputError("enough")

    monkeypatch.setattr(Segmenter, "__init__", remember)
    pack = own_pack(here / "own", centerline="cnn")
    fastseg("deepseg-sc", "-i", given / "t2.nii.gz", "-c", "t2", "--models", pack)
    assert [(options.detector, options.contrast) for options in asked] == [("svm", "t2")]


def test_a_detector_that_finds_nothing_is_not_replaced(given: Path, here: Path) -> None:
    pack = own_pack(here / "own", blind=True)
    arguments = ["-i", given / "t2.nii.gz", "-c", "t2", "--models", pack, "-centerline", "cnn"]
    code, out, err = fastseg("deepseg-sc", *arguments)
    assert (code, out) == (1, "")
    assert "sees no spinal cord" in err
