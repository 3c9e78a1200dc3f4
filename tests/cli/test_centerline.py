"""fastseg centerline: one voxel a slice, and the numbers."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.phantom_files import fastseg, files_below, save_phantom, voxels_of

_CODES = ("P", "S", "R")


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_phantom(tmp_path_factory.mktemp("volume") / "t2.nii.gz", axcodes=_CODES)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_voxel_per_slice_on_the_inputs_grid(volume: Path, here: Path) -> None:
    code, out, err = fastseg("centerline", volume, "-c", "t2", "-o", "new/line.nii.gz")
    assert (code, out, err) == (0, "new/line.nii.gz\n", "")
    line, image = nib.load("new/line.nii.gz"), nib.load(volume)
    assert line.shape == image.shape
    assert (line.affine == image.affine).all()
    assert nib.aff2axcodes(line.affine) == _CODES
    assert voxels_of(here / "new/line.nii.gz").sum(axis=(0, 2)).tolist() == [1] * 6


def test_no_contrast_is_needed(volume: Path, here: Path) -> None:
    assert fastseg("centerline", volume, "-o", "any.nii.gz") == (0, "any.nii.gz\n", "")
    assert fastseg("centerline", volume, "-c", "t2", "-o", "t2.nii.gz")[0] == 0
    assert (voxels_of(here / "any.nii.gz") == voxels_of(here / "t2.nii.gz")).all()


def test_without_o_it_is_named_after_the_input_and_replaced(volume: Path, here: Path) -> None:
    for _ in range(2):
        assert fastseg("centerline", volume, "-c", "t2")[:2] == (0, "t2_centerline.nii.gz\n")
    assert fastseg("centerline", volume, "-c", "t2", "-o", "folder")[1] == "folder/t2_centerline.nii.gz\n"


def test_the_numbers_are_voxels_of_the_input_or_millimetres(volume: Path, here: Path) -> None:
    assert fastseg("centerline", volume, "-c", "t2", "-o", "line.nii.gz", "--csv")[0] == 0
    mm = ["--csv", "mm.csv", "--csv-space", "mm"]
    code, out, _ = fastseg("centerline", volume, "-c", "t2", "-o", "line.nii.gz", *mm)
    assert (code, out) == (0, "line.nii.gz\nmm.csv\n")
    voxels, world = (np.loadtxt(name, delimiter=",") for name in ("line.csv", "mm.csv"))
    affine = nib.load("line.nii.gz").affine
    # 4 decimals are written.
    np.testing.assert_allclose(nib.affines.apply_affine(affine, voxels), world, atol=1e-3)
    assert (np.diff(world[:, 2]) > 0).all()
    drawn = np.argwhere(voxels_of(here / "line.nii.gz"))
    # Half a voxel is what rounding to voxels loses.
    assert np.abs(drawn[drawn[:, 1].argsort()] - voxels[voxels[:, 1].argsort()]).max() <= 0.5 + 1e-4


def test_a_drawn_mask_gives_its_own_centre(volume: Path, here: Path) -> None:
    assert fastseg("run", volume, "-c", "t2", "-o", "mask.nii.gz")[0] == 0
    arguments = ["--file-centerline", "mask.nii.gz", "-o", "line.nii.gz"]
    assert fastseg("centerline", volume, "-c", "t2", *arguments)[0] == 0
    line, mask = voxels_of(here / "line.nii.gz"), voxels_of(here / "mask.nii.gz")
    assert line.sum() == 6
    assert (mask[line > 0] == 1).all()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-c", "t2", "--centerline", "file"], 2),
        (["-c", "t2", "-o", "t2.nii.gz"], 2),
        (["-c", "t2", "--csv", "other.nii.gz"], 2),
        (["-c", "t2", "--csv", "missing/line.csv"], 2),
        (["-c", "t2", "--file-centerline", "missing.nii.gz"], 4),
        (["-c", "t2", "-o", "t2.nii.gz/line.nii.gz"], 4),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_errors_are_told_and_nothing_is_left(
    volume: Path, here: Path, arguments: list[str], expected: int
) -> None:
    (here / "t2.nii.gz").write_bytes(volume.read_bytes())
    code, out, err = fastseg("centerline", "t2.nii.gz", *arguments)
    assert (code, out) == (expected, "")
    assert "rror: " in err
    assert files_below(here) == ["t2.nii.gz"]


def test_a_folder_is_not_a_volume(here: Path) -> None:
    code, _, err = fastseg("centerline", here, "-c", "t2")
    assert code == 4
    assert "is a folder" in err
