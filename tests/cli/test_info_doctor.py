"""fastseg info and fastseg doctor: what they know, and what they make of something broken."""

import json
import shutil
from importlib import metadata

import numpy as np

from fastseg import __version__
from fastseg.engines import select
from fastseg.errors import EngineUnavailable
from fastseg.networks.packs import find_pack
from tests.phantom_files import fastseg, save, save_phantom


def test_info_describes_the_installation(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    code, out, err = fastseg("info", "--json")
    facts = json.loads(out)
    assert (code, err) == (0, "")
    assert facts["fastseg"] == __version__
    assert facts["packages"]["numpy"] == np.__version__
    assert "default" in facts["packs"]
    assert facts["engines"] == list(select.BACKENDS)
    assert facts["environment"]["OMP_NUM_THREADS"] == "3"
    assert facts["environment"]["FASTSEG_PACKS"] is None
    assert facts["cores"] >= 1
    assert facts["memory_gb"] > 0
    assert isinstance(facts["kernels_compiled"], bool)


def test_info_as_text_names_everything():
    code, out, _ = fastseg("info")
    assert code == 0
    for word in ("python", "numba", "kernel cache", "default", "NUMBA_CACHE_DIR"):
        assert word in out


def test_info_describes_a_volume(tmp_path):
    path = save_phantom(tmp_path / "a.nii.gz", n_slices=3, axcodes=("P", "S", "R"))
    facts = json.loads(fastseg("info", path, "--json")[1])
    assert facts["shape"] == [64, 3, 64]
    assert facts["zooms_mm"] == [1.0, 2.5, 1.0]
    assert (facts["orientation"], facts["stored_as"], facts["frames"]) == ("PSR", "int16", 1)
    assert (facts["qform_code"], facts["sform_code"], facts["notes"]) == (0, 2, [])
    assert facts["slope_inter"] == [None, None] or facts["slope_inter"] == [1.0, 0.0]


def test_info_counts_frames_and_notes_what_is_odd(tmp_path):
    path = save(tmp_path / "a.nii", np.ones((4, 4, 2, 5), np.float32), None)
    code, out, _ = fastseg("info", path)
    assert code == 0
    assert "frames       5\n" in out
    assert "no orientation" in out


def test_info_of_a_bad_file_is_one_line(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"no volume")
    code, out, err = fastseg("info", tmp_path / "a.nii")
    assert (code, out) == (4, "")
    assert "not a NIfTI volume" in err
    assert len(err.splitlines()) == 1


def test_doctor_finds_nothing_wrong():
    code, out, _ = fastseg("doctor")
    assert code == 0
    assert "engine onnxruntime runs" in out
    assert "pack default is whole" in out
    assert "Dice with its true mask" in out
    assert "written and read back" in out
    assert out.splitlines()[-1].endswith("0 failed")


def test_doctor_finds_a_damaged_pack(tmp_path, monkeypatch):
    shutil.copytree(find_pack("default").folder, tmp_path / "mine")
    with next((tmp_path / "mine").glob("seg*.onnx")).open("ab") as network:
        network.write(b"x")
    monkeypatch.setenv("FASTSEG_PACKS", str(tmp_path))
    code, out, _ = fastseg("doctor", "--quick")
    assert code == 1
    assert "fail  pack mine: " in out
    assert "      -> " in out


def test_doctor_finds_a_missing_package(monkeypatch):
    original = metadata.version

    def version(name):
        if name == "isal":
            raise metadata.PackageNotFoundError(name)
        return original(name)

    monkeypatch.setattr(metadata, "version", version)
    code, out, _ = fastseg("doctor", "--quick")
    assert code == 1
    assert "fail  isal is not installed\n      -> pip install isal\n" in out


def test_doctor_says_why_no_engine_runs(monkeypatch):
    def unavailable(*_, **__):
        raise EngineUnavailable("this processor is too old")

    monkeypatch.setattr(select, "open_engine", unavailable)
    code, out, _ = fastseg("doctor", "--quick")
    assert code == 1
    assert "fail  engine onnxruntime does not run: this processor is too old\n      -> pip install" in out


def test_doctor_goes_on_after_a_check_that_breaks(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("something\nelse")

    monkeypatch.setattr(select, "open_engine", broken)
    code, out, _ = fastseg("doctor", "--quick")
    assert code == 1
    assert "fail  engines: RuntimeError: something else" in out
    assert "pack default is whole" in out
