"""Comparing masks: numbers that can be checked by hand, headers, trees."""

import math

import nibabel as nib
import numpy as np
import pytest

from fastseg.comparison import compare_files, compare_masks, match
from fastseg.errors import InputError
from fastseg.volume import Grid, Volume
from tests.phantom_files import save

_AFFINE = np.diag([0.5, 0.5, 3.0, 1.0])


def _mask(*boxes, shape=(10, 10, 6), dtype=np.uint8, value=1, affine=_AFFINE):
    voxels = np.zeros(shape, dtype)
    for box in boxes:
        voxels[box] = value
    return Volume(voxels, Grid(shape, affine))


_A = np.s_[2:6, 2:6, 0:4]
_B = np.s_[2:6, 2:8, 1:5]


def test_numbers_of_two_boxes():
    found = compare_masks(_mask(_A), _mask(_B))
    assert found.voxels == (64, 96)
    assert found.dice == pytest.approx(2 * 48 / 160)
    assert found.differing == 64
    assert found.volumes_mm3 == pytest.approx((48.0, 72.0))
    assert found.mean_areas_mm2 == pytest.approx((4.0, 6.0))
    assert found.area_percent == pytest.approx(50.0)
    assert found.slices == (4, 4)
    assert found.slices_in_one == (1, 1)
    assert found.centre_mm == pytest.approx(math.hypot(0.5, 3.0))
    assert found.soft is None
    assert not found.exact


def test_orientation_of_either_makes_no_difference():
    a, b = _mask(_A), _mask(_B)
    assert compare_masks(a.reoriented(("I", "P", "L")), b) == compare_masks(a, b)


def test_equal_masks_are_exact():
    found = compare_masks(_mask(_A), _mask(_A, dtype=np.float32))
    assert (found.dice, found.differing, found.exact) == (1.0, 0, True)


def test_two_empty_masks_agree_and_one_does_not():
    both = compare_masks(_mask(), _mask())
    assert (both.dice, both.exact) == (1.0, True)
    one = compare_masks(_mask(_A), _mask())
    assert (one.dice, one.slices_in_one) == (0.0, (4, 0))
    assert math.isnan(one.area_percent)
    assert math.isnan(one.centre_mm)


def test_soft_masks_differ_in_value_too():
    a, b = (_mask(_A, dtype=np.float32) for _ in range(2))
    values = b.voxels.copy()
    values[2, 2, 0] = 0.75
    found = compare_masks(a, Volume(values, b.grid))
    assert found.differing == 0
    assert found.soft.largest == pytest.approx(0.25)
    assert found.soft.mean == pytest.approx(0.25 / 64)
    assert not found.exact


def test_threshold_decides_what_is_cord():
    faint = _mask(_A, dtype=np.float32, value=0.3)
    assert compare_masks(faint, _mask(_A)).voxels == (0, 64)
    assert compare_masks(faint, _mask(_A), threshold=0.2).differing == 0


def test_different_shapes_are_refused():
    with pytest.raises(InputError, match="10 x 10 x 6 and 10 x 10 x 7 voxels"):
        compare_masks(_mask(), _mask(shape=(10, 10, 7)))


def test_different_places_are_refused():
    shifted = _AFFINE.copy()
    shifted[0, 3] = 1.0
    with pytest.raises(InputError, match="affines"):
        compare_masks(_mask(_A), _mask(_A, affine=shifted))


def test_headers_that_differ_are_named(tmp_path):
    voxels = _mask(_A).voxels
    first = save(tmp_path / "a.nii.gz", voxels, _AFFINE)
    image = nib.Nifti1Image(voxels.astype(np.int16), _AFFINE)
    image.set_qform(_AFFINE, 1)
    image.set_sform(_AFFINE, 4)
    image.to_filename(tmp_path / "b.nii")
    found = compare_files(first, tmp_path / "b.nii")
    assert found.dice == 1.0
    assert found.headers == (
        "qform_code 0 / 1",
        "sform_code 2 / 4",
        "datatype uint8 / int16",
        "units 10 / 0",
    )
    assert compare_files(first, first).headers == ()


def test_trees_are_matched_by_path_and_compression_does_not_count(tmp_path):
    for name in (
        "a/x/m_seg.nii.gz",
        "a/y_seg.nii",
        "a/y.nii",
        "a/.hidden_seg.nii",
        "b/x/m_seg.nii",
        "b/z_seg.nii",
    ):
        save(tmp_path / name, _mask(_A).voxels, _AFFINE)
    pairs = match(tmp_path / "a", tmp_path / "b", suffix="_seg")
    assert pairs.both == {"x/m_seg": (tmp_path / "a/x/m_seg.nii.gz", tmp_path / "b/x/m_seg.nii")}
    assert pairs.only_a == (tmp_path / "a/y_seg.nii",)
    assert pairs.only_b == (tmp_path / "b/z_seg.nii",)


def test_one_volume_twice_in_a_tree_is_refused(tmp_path):
    for name in ("a/m.nii.gz", "a/m.nii", "b/m.nii"):
        save(tmp_path / name, _mask(_A).voxels, _AFFINE)
    with pytest.raises(InputError, match="twice"):
        match(tmp_path / "a", tmp_path / "b")


def test_a_file_and_a_folder_are_refused(tmp_path):
    path = save(tmp_path / "m.nii", _mask(_A).voxels, _AFFINE)
    with pytest.raises(InputError, match="one is a file"):
        match(path, tmp_path)
    with pytest.raises(InputError, match="no such"):
        match(path, tmp_path / "none.nii")
