"""The folder that tools/export_sct writes: imported again it gives the same masks, and it spoils no other."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastseg.cli import main as fastseg
from fastseg.errors import OutputError
from fastseg.networks.network import Role
from fastseg.networks.pack_toml import pack_toml
from fastseg.networks.packs import Origin, Pack, find_pack, verify_pack
from fastseg.networks.sct import import_sct
from fastseg.phantom import make_phantom
from tests.engines.onnx_networks import convolution, in_pack, run
from tests.phantom_files import save
from tests.unit.networks.stand_ins import sct_folder
from tools.export.sct import export, main


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTSEG_PACKS", str(tmp_path / "packs"))
    return tmp_path / "packs"


def test_the_default_pack_becomes_a_folder_that_is_imported_again(packs: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    files = export("default", out)
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*") if path.suffix != ".md")
    assert names == sorted(["README.txt", *(file.name for file in files)])
    assert (out / "MODEL_CARD.md").is_file()
    assert "MIT License" in (out / "LICENSE").read_text()
    readme = (out / "README.txt").read_text()
    assert all(file.name in readme for file in files)
    assert max(map(len, readme.splitlines())) <= 120
    report = import_sct(out, "again")
    assert len(report.imported) == len(files)
    assert not report.refused
    assert not any(check.problem for check in verify_pack(report.pack))
    assert not list(out.parent.glob(".*"))


def test_sctfiles_that_were_imported_come_out_as_they_went_in(packs: Path, tmp_path: Path) -> None:
    pack = import_sct(sct_folder(tmp_path / "sct"), "sct").pack
    files = export("sct", tmp_path / "out")
    assert len(files) == 15
    again = import_sct(tmp_path / "out", "again").pack
    for one, other in zip(pack.networks, again.networks, strict=True):
        assert replace(one, path=other.path, sha256=other.sha256, pack="again") == other
        shape = [2, *one.spatial, 1] if one.channels_last else [1, 1, *one.spatial]
        batch = np.random.default_rng(3).normal(0, 1, shape)
        np.testing.assert_array_equal(*(run(n.path.read_bytes(), batch) for n in (one, other)))
    assert [m.sha256 for m in pack.svm_models] == [m.sha256 for m in again.svm_models]
    assert "not stated upstream" in (tmp_path / "out/README.txt").read_text()
    assert "does not let you pass" in (tmp_path / "out/README.txt").read_text()


def test_the_mask_is_the_packs_own_and_the_cord_is_found_by_blocks(packs: Path, tmp_path: Path) -> None:
    image, truth = make_phantom("t2", n_slices=12)
    save(tmp_path / "image.nii.gz", image.voxels.astype(np.float32), image.grid.affine)
    save(tmp_path / "line.nii.gz", truth.voxels.astype(np.uint8), truth.grid.affine)
    export("default", tmp_path / "out", ["t2"])
    import_sct(tmp_path / "out", "exported")
    given = ["-file_centerline", str(tmp_path / "line.nii.gz")]
    ours, theirs = (segmented(tmp_path, models, *given) for models in ("default", "exported"))
    assert ours.any()
    np.testing.assert_array_equal(ours, theirs)
    found = segmented(tmp_path, "exported", "-centerline", "cnn")
    assert (found & ours).sum() > 0.9 * ours.sum()


def segmented(folder: Path, models: str, *arguments: str) -> Any:
    out = folder / f"mask_{models}"
    image = str(folder / "image.nii.gz")
    with pytest.raises(SystemExit) as end:
        fastseg(["deepseg-sc", "-i", image, "-c", "t2", "--models", models, "-ofolder", str(out), *arguments])
    assert not end.value.code
    return np.asanyarray(nib.load(out / "image_seg.nii.gz").dataobj)


def test_the_light_network_takes_the_place_of_the_2d_one(tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    folder.mkdir()
    light = in_pack(convolution(folder, spatial=(64, 64), seed=1), Role.SEGMENT_2D_LIGHT, "t2")
    heavy = in_pack(convolution(folder, spatial=(64, 64), seed=2), Role.SEGMENT_2D, "t2")
    origins = {network.path.name: Origin("a test", "MIT") for network in (light, heavy)}
    pack = Pack("pack", folder, "1", "MIT", "a test", (light, heavy), (), origins)
    (folder / "pack.toml").write_text(pack_toml(pack))
    for name, is_light, network in (("light", True, light), ("heavy", False, heavy)):
        (file,) = export(folder, tmp_path / name, light=is_light)
        assert (file.name, file.source) == ("deepseg_sc_models/t2_sc.onnx", network.path.name)


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "t2_sc.onnx").write_bytes(b"SCT's")
    for force, problem in ((False, "not empty"), (True, "no export")):
        with pytest.raises(OutputError, match=problem):
            export("default", tmp_path, force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["t2_sc.onnx"]


def test_an_earlier_export_is_replaced_when_forced_unless_something_was_added(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is as good as none
    export("default", out, ["t1"])
    with pytest.raises(OutputError, match="--force"):
        export("default", out, ["t2"])
    export("default", out, ["t2"], force=True)
    files = ["t2_ctr.onnx", "t2_sc.onnx", "t2_sc_3D.onnx"]
    assert sorted(path.name for path in out.rglob("*.onnx")) == files
    (out / "deepseg_sc_models" / "t1_sc_3D.onnx").write_bytes(b"SCT's")
    with pytest.raises(OutputError, match=r"deepseg_sc_models/t1_sc_3D\.onnx"):
        export("default", out, ["t1"], force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "deepseg_sc_models" / "t2_ctr.onnx").is_file()


def test_nothing_is_left_behind_when_the_folder_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export("default", tmp_path / "out", ["t1"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    real = Path.rename

    def full(self: Path, target: Path) -> Path:
        if self.name == "built":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OutputError, match="No space left"):
        export("default", tmp_path / "out", ["t2"], force=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "--out"),
        (["--out", "new", "--contrast", "pd"], "invalid choice"),
        (["--out", "new", "--models", "nowhere"], "nowhere"),
        (["--out", "a-file"], "not a folder"),
        (["--out", "a-file/below"], "cannot be written|not a folder"),
        (["--out", "new", "--models", "half", "--contrast", "t1"], "nothing for contrast t1"),
        (["--out", "new", "--models", "broken"], "sha256"),
    ],
)
def test_bad_input_is_one_line_with_a_remedy_and_exit_code_2(
    arguments: list[str],
    problem: str,
    packs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()
    models = sct_folder(tmp_path / "sct", svm=False) / "deepseg_sc_models"
    for path in models.glob("*"):
        if not path.name.startswith("t2_"):
            path.unlink()
    import_sct(models, "half")
    import_sct(models, "broken")
    (find_pack("broken").folder / "t2_sc.onnx").write_bytes(b"damaged")
    capsys.readouterr()
    try:
        code = main(arguments)
    except SystemExit as end:  # argparse
        code = int(end.code or 0)
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("tools/export_sct: error: ")
    assert error.count("\n") == 1
    assert re.search(problem, error)
    assert not (tmp_path / "new").exists()
