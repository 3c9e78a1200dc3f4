"""Centerlines and masks that somebody drew, on the image's grid or another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastseg.centerline_file import centerline_from_mask, centerline_from_volume
from fastseg.errors import CordNotFound, InputError
from fastseg.phantom import make_phantom
from fastseg.resampling import resample_in_plane, working_grid
from fastseg.volume import SCT_RPI, Grid, Volume

_NATIVE = Grid((20, 24, 9), np.array([[-1.0, 0, 0, 10], [0, 1, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]))
_WORKING = working_grid(_NATIVE)


def _drawn(
    *points: tuple[int, int, int], grid: Grid = _NATIVE, value: float = 1, dtype: Any = np.uint8
) -> Volume:
    voxels = np.zeros(grid.shape, dtype)
    for point in points:
        voxels[point] = value
    return Volume(voxels, grid)


def test_one_voxel_a_slice_gives_its_own_place() -> None:
    line = centerline_from_mask(_drawn((5, 7, 2), (6, 8, 3)), _WORKING)
    assert line.grid is _WORKING
    # 0.5 mm voxels: twice the index, but for the rounding noise that is wanted there.
    np.testing.assert_allclose(line.points, [[10, 14, 2], [12, 16, 3]], rtol=0, atol=1e-9)


def test_the_centre_is_that_of_the_resampled_slice() -> None:
    random = np.random.default_rng(45)
    voxels = np.where(random.random((20, 24, 9)) < 0.1, random.random((20, 24, 9)), 0)
    line = centerline_from_mask(Volume(voxels, _NATIVE), _WORKING)
    slices = resample_in_plane(np.ascontiguousarray(voxels.transpose(2, 0, 1), np.float32), _WORKING)
    x, y = np.arange(40)[:, None], np.arange(48)
    centres = [[(s * x).sum() / s.sum(), (s * y).sum() / s.sum(), z] for z, s in enumerate(slices)]
    # Weights were rounded to float32 here, 24 bits of coordinates below 48.
    np.testing.assert_allclose(line.points, centres, rtol=0, atol=48 * 2.0**-22)


def test_weights_count_and_their_scale_does_not() -> None:
    voxels = np.zeros(_NATIVE.shape)
    voxels[4, 6, 1], voxels[8, 6, 1] = 1, 3
    for scale in (1, 1e-6):
        line = centerline_from_mask(Volume(voxels * scale, _NATIVE), _WORKING)
        np.testing.assert_allclose(line.points, [[14, 12, 1]], rtol=0, atol=1e-9)  # see above


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.float32, np.float64])
def test_any_type_of_mask_will_do(dtype: Any) -> None:
    line = centerline_from_mask(_drawn((5, 7, 2), dtype=dtype), _WORKING)
    np.testing.assert_allclose(line.points, [[10, 14, 2]], rtol=0, atol=1e-6)  # float32 weights


def test_nan_and_inf_are_not_drawn() -> None:
    voxels = np.zeros(_NATIVE.shape, np.float32)
    voxels[5, 7, 2] = 1
    voxels[0, 0, 0], voxels[1, 1, 4], voxels[2, 2, 2] = np.nan, np.inf, -np.inf
    line = centerline_from_mask(Volume(voxels, _NATIVE), _WORKING)
    assert line.z.tolist() == [2]


def test_a_voxel_between_two_samples_of_a_coarser_grid_is_not_lost() -> None:
    fine = Grid((32, 32, 3), np.diag([-0.25, 0.25, 7.5, 1]))
    odd = _drawn((7, 9, 0), (8, 8, 1), (9, 11, 2), grid=fine)
    line = centerline_from_mask(odd, working_grid(fine))
    assert line.z.tolist() == [0, 1, 2]
    # An odd index lies between two samples; which of both has the noise is not said.
    np.testing.assert_allclose(line.points[:, :2], [[3.5, 4.5], [4, 4], [4.5, 5.5]], rtol=0, atol=0.5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_an_empty_centerline_is_refused(dtype: Any) -> None:
    empty = Volume(np.zeros(_NATIVE.shape, dtype), _NATIVE)
    with pytest.raises(CordNotFound, match="the centerline is empty"):
        centerline_from_mask(empty, _WORKING)
    with pytest.raises(CordNotFound, match="the centerline is empty"):
        centerline_from_volume(empty, _NATIVE, _WORKING)
    elsewhere = Volume(empty.voxels, Grid(_NATIVE.shape, _NATIVE.affine + 0.7))
    with pytest.raises(CordNotFound, match="the centerline is empty"):
        centerline_from_volume(elsewhere, _NATIVE, _WORKING)


def test_slices_beyond_the_working_grid_are_dropped() -> None:
    lower = working_grid(Grid((20, 24, 4), _NATIVE.affine))
    assert centerline_from_mask(_drawn((5, 7, 2), (5, 7, 6)), lower).z.tolist() == [2]


def test_a_centerline_that_lies_beyond_the_working_grid_is_refused() -> None:
    lower = working_grid(Grid((20, 24, 4), _NATIVE.affine))
    with pytest.raises((CordNotFound, InputError)):
        centerline_from_mask(_drawn((5, 7, 6)), lower)


def test_weights_that_cancel_give_a_finite_centre_or_an_error() -> None:
    voxels = np.zeros(_NATIVE.shape)
    voxels[4, 6, 1], voxels[8, 6, 1] = 1, -1
    try:
        line = centerline_from_mask(Volume(voxels, _NATIVE), _WORKING)
    except (CordNotFound, InputError):
        return
    assert np.isfinite(line.points).all()


# On another grid --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axcodes", [("A", "I", "L"), ("S", "R", "A"), ("R", "P", "I"), ("P", "S", "R")])
def test_the_orientation_of_the_file_does_not_matter(axcodes: tuple[str, str, str]) -> None:
    drawn = _drawn((5, 7, 2), (6, 8, 3), (6, 9, 4))
    wanted = centerline_from_volume(drawn, _NATIVE, _WORKING)
    turned = centerline_from_volume(drawn.reoriented(axcodes), _NATIVE, _WORKING)
    np.testing.assert_array_equal(turned.points, wanted.points)


def test_the_same_grid_within_a_tenth_of_a_voxel_is_the_same_grid() -> None:
    affine = _NATIVE.affine.copy()
    affine[0, 3] += 0.05
    near = _drawn((5, 7, 2), grid=Grid(_NATIVE.shape, affine))
    points = centerline_from_volume(near, _NATIVE, _WORKING).points
    np.testing.assert_array_equal(points, centerline_from_mask(_drawn((5, 7, 2)), _WORKING).points)


@pytest.mark.parametrize("degrees", [7.0, 20.0, 35.0, 50.0])
def test_on_an_oblique_image_no_slice_is_added_to_those_that_were_drawn(degrees: float) -> None:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = _NATIVE.affine.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    grid = Grid(_NATIVE.shape, affine)
    for z in range(1, 6):
        drawn = _drawn((5, 7, z), (6, 8, z + 1), (6, 9, z + 2), grid=grid)
        line = centerline_from_volume(drawn, grid, working_grid(grid))
        assert line.z.tolist() == [z, z + 1, z + 2]


def test_a_part_of_the_image_gives_the_same_points_as_the_whole() -> None:
    affine = _NATIVE.affine.copy()
    affine[:3, 3] = (_NATIVE.affine @ [3, 4, 1, 1])[:3]
    part = _drawn((2, 3, 1), (3, 4, 2), grid=Grid((10, 12, 5), affine))
    points = centerline_from_volume(part, _NATIVE, _WORKING).points
    # Through millimetres and back, in float64.
    np.testing.assert_allclose(points, [[10, 14, 2], [12, 16, 3]], rtol=0, atol=1e-9)


def test_points_on_a_finer_grid_keep_their_place_in_the_world() -> None:
    fine = Grid((80, 96, 36), _NATIVE.affine @ np.diag([0.25, 0.25, 0.25, 1]))
    line = centerline_from_volume(_drawn((21, 30, 8), (21, 30, 9), grid=fine), _NATIVE, _WORKING)
    # Slices 8 and 9 of a quarter height are slice 2 of the image.
    np.testing.assert_allclose(line.points, [[10.5, 15, 2]], rtol=0, atol=1e-9)  # float64


def test_several_voxels_are_weighted_on_another_grid_too() -> None:
    affine = _NATIVE.affine.copy()
    affine[2, 3] += 1  # a quarter of a slice up
    voxels = np.zeros(_NATIVE.shape, np.float32)
    voxels[4, 6, 1], voxels[8, 6, 1] = 0.1, 0.3
    line = centerline_from_volume(Volume(voxels, Grid(_NATIVE.shape, affine)), _NATIVE, _WORKING)
    # Weights are float32: 24 bits of 14 voxels.
    np.testing.assert_allclose(line.points, [[14, 12, 1]], rtol=0, atol=14 * 2.0**-22)


def test_slices_between_those_of_a_coarser_centerline_are_bridged_on_a_line() -> None:
    coarse = Grid((20, 24, 3), _NATIVE.affine @ np.diag([1, 1, 4, 1]))
    line = centerline_from_volume(_drawn((4, 6, 0), (8, 10, 1), (8, 10, 2), grid=coarse), _NATIVE, _WORKING)
    assert line.z.tolist() == list(range(9))
    np.testing.assert_allclose(line.points[:5, 0], [8, 10, 12, 14, 16], rtol=0, atol=1e-9)  # float64


def test_gaps_of_the_centerline_itself_are_not_bridged() -> None:
    affine = _NATIVE.affine.copy()
    affine[2, 3] += 1
    shifted = Grid(_NATIVE.shape, affine)
    drawn = _drawn((5, 7, 0), (5, 7, 1), (5, 7, 3), (5, 7, 7), grid=shifted)
    # From 1 to 3 are less than two slices of the centerline: bridged. From 3 to 7 are four.
    assert centerline_from_volume(drawn, _NATIVE, _WORKING).z.tolist() == [0, 1, 2, 3, 7]


def test_points_outside_the_image_are_left_out() -> None:
    higher = Grid((20, 24, 12), _NATIVE.affine)
    line = centerline_from_volume(_drawn((5, 7, 8), (5, 7, 9), (5, 7, 10), grid=higher), _NATIVE, _WORKING)
    assert line.z.tolist() == [8]


def test_a_centerline_of_another_place_is_refused() -> None:
    affine = _NATIVE.affine.copy()
    affine[0, 3] += 500
    far = _drawn((5, 7, 2), grid=Grid(_NATIVE.shape, affine))
    with pytest.raises(InputError, match="does not overlap the image"):
        centerline_from_volume(far, _NATIVE, _WORKING)


def test_a_cord_mask_on_another_grid_gives_nearly_the_line_of_the_same_grid() -> None:
    """The phantom's mask as seen by an image that begins half a voxel lower."""
    image, mask = make_phantom("t2", n_slices=8)
    native = image.reoriented(SCT_RPI).grid
    affine = native.affine.copy()
    affine[2, 3] -= 0.4 * native.zooms[2]
    working = working_grid(native)
    near = centerline_from_volume(mask, Grid(native.shape, affine), working).points
    exact = centerline_from_volume(mask, native, working).points
    # Linear resampling does not move the centre of mass but at the field of view's border.
    np.testing.assert_allclose(near, exact, rtol=0, atol=1e-6)
