"""What a NIfTI file says, and what is wrong with it, as the library reads it."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastseg.errors import InputError
from fastseg.nifti import read_volume, write_volume
from tests.nifti_bytes import AFFINE, DTYPES, file, random_voxels, raw

# Reading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_is_read_as_stored(dtype: str, kind: Any, order: str, tmp_path: Path) -> None:
    voxels = random_voxels(dtype)
    volume, _ = read_volume(file(tmp_path / "a.nii", raw(voxels, kind, order)))
    assert volume.voxels.dtype == np.dtype(dtype)
    assert volume.voxels.dtype.isnative
    np.testing.assert_array_equal(volume.voxels, voxels)


@pytest.mark.parametrize("dtype", ["i2", "u1", "i4", "f4", "f8"])
def test_slope_and_intercept_are_applied_as_nibabel_does(dtype: str, tmp_path: Path) -> None:
    content = raw(random_voxels(dtype), scl_slope=0.37, scl_inter=-12.5)
    path = file(tmp_path / "a.nii.gz", content)
    volume, _ = read_volume(path)
    wanted = nib.load(path).get_fdata()
    assert volume.voxels.dtype == (np.float32 if dtype in ("i2", "u1") else np.float64)
    # Narrow integers come as float32: one rounding at 24 bits. Floats are scaled in float64 by both.
    np.testing.assert_allclose(volume.voxels, wanted, rtol=2.0**-23)


@pytest.mark.parametrize(("slope", "inter"), [(0, 5), (np.nan, 5), (np.inf, 5), (1, 0), (0, np.nan)])
def test_an_unset_slope_leaves_integers_alone(slope: float, inter: float, tmp_path: Path) -> None:
    voxels = random_voxels("i2")
    volume, _ = read_volume(file(tmp_path / "a.nii", raw(voxels, scl_slope=slope, scl_inter=inter)))
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels, voxels)


def test_nan_and_inf_are_left_alone(tmp_path: Path) -> None:
    voxels = random_voxels("f4")
    voxels[0, 0] = np.nan, np.inf, -np.inf
    volume, _ = read_volume(file(tmp_path / "a.nii", raw(voxels, scl_slope=2)))
    np.testing.assert_array_equal(volume.voxels, voxels * np.float64(2))


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3), (5, 4, 3, 1), (5, 4, 1, 1), (5, 4, 3, 1, 1)])
def test_axes_of_length_one_make_a_3d_volume_and_stay_in_the_output(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    voxels = random_voxels("i2", shape)
    path = file(tmp_path / "in.nii", raw(voxels))
    volume, template = read_volume(path)
    assert volume.grid.shape == (*shape, 1)[:3]
    np.testing.assert_array_equal(volume.voxels.reshape(shape, order="F"), voxels)
    np.testing.assert_allclose(volume.grid.affine, nib.load(path).affine, rtol=0, atol=0)
    write_volume(volume.voxels, template, tmp_path / "out.nii")
    again = nib.load(tmp_path / "out.nii")
    assert again.shape == shape
    np.testing.assert_array_equal(np.asanyarray(again.dataobj), voxels)


def test_a_2d_file_without_a_third_voxel_size_is_read(tmp_path: Path) -> None:
    voxels = random_voxels("i2", (5, 4))
    pixdim = [1, 0.5, 0.5, 0, 0, 0, 0, 0]
    content = raw(voxels, pixdim=pixdim, sform_code=0, qform_code=0)
    volume, _ = read_volume(file(tmp_path / "a.nii", content))
    assert volume.grid.shape == (5, 4, 1)
    assert volume.grid.zooms == (0.5, 0.5, 1.0)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_frame_of_a_4d_file_is_chosen(order: str, tmp_path: Path) -> None:
    voxels = random_voxels("i2", (5, 4, 3, 6))
    path = file(tmp_path / "a.nii.gz", raw(voxels, order=order))
    for frame in (0, 2, 5):
        np.testing.assert_array_equal(read_volume(path, frame=frame)[0].voxels, voxels[..., frame])
    mean = read_volume(path, frame="mean")[0].voxels
    assert mean.dtype == np.float32
    # Summed in float64, rounded to float32 once.
    np.testing.assert_array_equal(mean, voxels.mean(axis=3).astype(np.float32))


def test_a_frame_is_scaled_too(tmp_path: Path) -> None:
    voxels = random_voxels("i2", (5, 4, 3, 2))
    path = file(tmp_path / "a.nii", raw(voxels, scl_slope=2, scl_inter=1))
    np.testing.assert_array_equal(read_volume(path, frame=1)[0].voxels, voxels[..., 1] * 2.0 + 1)
    # Means of two shorts are exact in float32 below 2**24, and so is twice one plus 1.
    np.testing.assert_array_equal(read_volume(path, frame="mean")[0].voxels, voxels.mean(3) * 2 + 1)


def test_the_output_of_a_4d_input_is_3d(tmp_path: Path) -> None:
    path = file(tmp_path / "a.nii", raw(random_voxels("i2", (5, 4, 3, 6))))
    volume, template = read_volume(path, frame=4)
    write_volume(volume.voxels, template, tmp_path / "b.nii")
    again = nib.load(tmp_path / "b.nii")
    assert again.shape == (5, 4, 3)
    np.testing.assert_array_equal(again.affine, nib.load(path).affine)
    np.testing.assert_array_equal(np.asanyarray(again.dataobj), volume.voxels)


@pytest.mark.parametrize("frame", [0, "mean"])
def test_the_only_frame_of_a_3d_file_may_be_named(frame: Any, tmp_path: Path) -> None:
    voxels = random_voxels("i2")
    volume, _ = read_volume(file(tmp_path / "a.nii", raw(voxels)), frame=frame)
    np.testing.assert_array_equal(volume.voxels, voxels)


@pytest.mark.parametrize(
    ("shape", "frame", "message"),
    [
        ((5, 4, 3), 1, "frame 1 does not exist, the volume is 3D"),
        ((5, 4, 3, 2), None, "choose one frame with --4d N or their mean with --4d mean"),
        ((5, 4, 3, 2), 2, "frame 2 does not exist, frames are 0 to 1"),
        ((5, 4, 3, 2), -1, "frame -1 does not exist, frames are 0 to 1"),
        ((5, 4, 3, 1, 3), 0, "5 dimensions"),
    ],
)
def test_a_frame_that_is_not_there_is_refused(shape: Any, frame: Any, message: str, tmp_path: Path) -> None:
    path = file(tmp_path / "a.nii", raw(random_voxels("i2", shape)))
    with pytest.raises(InputError, match=message):
        read_volume(path, frame=frame)


def test_a_frame_may_be_a_numpy_integer(tmp_path: Path) -> None:
    voxels = random_voxels("i2", (5, 4, 3, 3))
    path = file(tmp_path / "a.nii", raw(voxels))
    np.testing.assert_array_equal(read_volume(path, frame=np.int64(2))[0].voxels, voxels[..., 2])


@pytest.mark.parametrize("pair", [(np.inf, -np.inf), (1e300, 1e300)])
def test_the_mean_of_frames_with_odd_values_warns_of_nothing(pair: Any, tmp_path: Path) -> None:
    voxels = np.zeros((5, 4, 3, 2))
    voxels[0, 0, 0] = pair
    read_volume(file(tmp_path / "a.nii", raw(voxels)), frame="mean")


# Geometry --------------------------------------------------------------------------------------------------


def test_codes_of_zero_are_noted(tmp_path: Path) -> None:
    path = file(tmp_path / "a.nii", raw(random_voxels("i2"), sform_code=0, qform_code=0))
    volume, template = read_volume(path)
    np.testing.assert_array_equal(volume.grid.affine, nib.load(path).affine)
    assert len(template.notes) == 1
    assert "codes 0/0" in template.notes[0]


def test_voxel_sizes_that_disagree_with_the_affine_are_noted_and_the_affine_wins(tmp_path: Path) -> None:
    pixdim = [1, 0.8, 0.9, 5.0, 0, 0, 0, 0]
    volume, template = read_volume(file(tmp_path / "a.nii", raw(random_voxels("i2"), pixdim=pixdim)))
    np.testing.assert_array_equal(volume.grid.affine, AFFINE.astype(np.float32))
    assert template.notes == (
        "pixdim (0.8 x 0.9 x 5 mm) and affine (0.8002 x 0.9007 x 3.002 mm) disagree: the affine was used",
    )


def test_a_sound_file_has_no_notes(tmp_path: Path) -> None:
    assert read_volume(file(tmp_path / "a.nii", raw(random_voxels("i2"))))[1].notes == ()


def test_the_sform_wins_over_the_qform(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_qform(np.diag([2.0, 2, 2, 1]), 1)
    fields = {name: header[name] for name in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x")}
    volume, _ = read_volume(file(tmp_path / "a.nii", raw(random_voxels("i2"), **fields)))
    np.testing.assert_array_equal(volume.grid.affine, AFFINE.astype(np.float32))


@pytest.mark.parametrize(
    "qfac",
    [
        1,
        -1,
        0,
    ],
)
def test_the_qform_is_read_as_nibabel_reads_it(qfac: int, tmp_path: Path) -> None:
    pixdim = [qfac, 0.8, 0.9, 3.0, 0, 0, 0, 0]
    path = file(tmp_path / "a.nii", raw(random_voxels("i2"), sform_code=0, pixdim=pixdim))
    np.testing.assert_array_equal(read_volume(path)[0].grid.affine, nib.load(path).affine)


_BAD: dict[str, tuple[dict[str, Any], str]] = {
    "zero voxel size": ({"pixdim": [1, 0, 1, 1, 0, 0, 0, 0]}, "must be positive"),
    "negative voxel size": ({"pixdim": [1, 1, -1, 1, 0, 0, 0, 0]}, "must be positive"),
    "voxel size NaN": ({"pixdim": [1, 1, np.nan, 1, 0, 0, 0, 0]}, "must be positive"),
    "voxels of metres": ({"pixdim": [1, 1, 1000, 1, 0, 0, 0, 0]}, "not millimetres"),
    "affine with a column of zeros": ({"srow_x": 0, "srow_y": 0, "srow_z": 0}, "affine is singular"),
    "affine with two equal axes": ({"srow_x": [1, 1, 0, 0], "srow_y": 0, "srow_z": [0, 0, 1, 0]}, "singular"),
    "affine with NaN": ({"srow_x": [np.nan, 0, 0, 0]}, "singular or not finite"),
    "quaternion too long": ({"sform_code": 0, "quatern_b": 3}, "mend the qform"),
    "complex": ({"datatype": 32, "bitpix": 64}, "complex; take the magnitude"),
    "colours": ({"datatype": 128, "bitpix": 24}, "not numbers"),
    "unknown type": ({"datatype": 999}, "unknown data type 999"),
    "no dimensions": ({"dim": [0, 5, 4, 3, 1, 1, 1, 1]}, "claims 0 dimensions"),
    "nine dimensions": ({"dim": [9, 5, 4, 3, 1, 1, 1, 1]}, r"claims \d+ dimensions"),
    "no voxels": ({"dim": [3, 5, 0, 3, 1, 1, 1, 1]}, "the volume is empty"),
    "a line of voxels": ({"dim": [3, 5, 1, 3, 1, 1, 1, 1]}, "not an image"),
    "intercept NaN": ({"scl_slope": 2, "scl_inter": np.nan}, "scl_inter is not finite"),
    "offset inside the header": ({"vox_offset": 100}, "voxels at byte 100"),
    "half of a pair": ({"magic": b"ni1"}, r"\.hdr/\.img pair"),
    "no magic": ({"magic": b""}, "not a NIfTI volume"),
}


@pytest.mark.parametrize("what", _BAD)
def test_a_bad_header_is_refused_with_file_reason_and_remedy(what: str, tmp_path: Path) -> None:
    fields, message = _BAD[what]
    path = file(tmp_path / "bad.nii.gz", raw(random_voxels("f8"), **fields))
    with pytest.raises(InputError, match=message) as caught:
        read_volume(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"n", b"not a volume at all" * 50, zlib.compress(bytes(400))])
def test_other_files_are_not_volumes(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(InputError, match="not a NIfTI volume"):
        read_volume(tmp_path / "a.nii")
