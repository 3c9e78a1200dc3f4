"""Planes around the cord: what they show, in any order of memory, and what they leave unread."""

import itertools

import numpy as np
import pytest

from fastseg.views import (
    Squares,
    Tones,
    border,
    covered_slices,
    finite,
    middles,
    on_every_slice,
    resized_lines,
    side_lines,
    smoothed,
)
from fastseg.volume import Grid, Volume


def _volume(voxels, zooms=(1.0, 1.0, 1.0)):
    return Volume(voxels, Grid(voxels.shape, np.diag([-zooms[0], zooms[1], zooms[2], 1.0])))


def _cut(volume, centre, slices, mm=6.0, pixel_mm=1.0):
    every = np.tile(np.array(centre), (volume.grid.shape[2], 1))
    return Squares.cut(volume, every, np.array(slices), mm=mm, pixel_mm=pixel_mm)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("steps", [(1, 1, 1), (-1, 1, -1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, bool])
def test_slices_with_cord_are_found_in_any_order_of_memory(order, steps, dtype):
    memory = np.zeros([(5, 6, 7)[axis] for axis in order], dtype)
    voxels = memory.transpose(np.argsort(order))[tuple(slice(None, None, step) for step in steps)]
    voxels[1, 2, 1] = voxels[4, 5, 5] = voxels[0, 0, 6] = 1
    assert covered_slices(_volume(voxels), 0.5).tolist() == [1, 5, 6]


def test_slices_with_cord_are_found_beside_nan():
    voxels = np.full((3, 3, 3), np.nan, np.float32)
    voxels[1, 1, 2] = 0.4
    assert covered_slices(_volume(voxels), 0.3).tolist() == [2]
    assert covered_slices(_volume(voxels), 0.5).tolist() == []


def test_middles_are_those_of_the_mask():
    voxels = np.zeros((8, 9, 3), np.uint8)
    voxels[2:5, 4:6, 0], voxels[7, 8, 2] = 1, 1
    points = middles(_volume(voxels), 0.5, np.array([0, 2]))
    assert points.tolist() == [[3, 4.5, 0], [7, 8, 2]]


def test_curve_goes_straight_on_beyond_its_ends():
    points = np.array([[4.0, 1.0, 2.0], [6.0, 1.0, 4.0]])
    assert on_every_slice(points, 6)[:, 0].tolist() == [4, 4, 4, 5, 6, 6]


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_slanted_line_stays_when_it_is_smoothed(n):
    line = np.column_stack([np.arange(n) * 0.5, 3 - np.arange(n) * 2.0])
    assert smoothed(line, 4.0) == pytest.approx(line, abs=1e-9)  # float64


def test_steps_are_smoothed():
    line = np.repeat([[0.0, 0.0], [8.0, 8.0]], 20, axis=0)
    assert 0 < np.diff(smoothed(line, 4.0)[:, 0]).max() < 1.2


def test_squares_show_front_on_top_and_right_on_the_left():
    voxels = np.arange(20 * 20 * 2).reshape(20, 20, 2)
    values = _cut(_volume(voxels), (9, 10), [1]).values[0]
    reach = values.shape[0] // 2
    assert values[reach, reach] == voxels[9, 10, 1]
    assert values[reach - 2, reach] == voxels[9, 12, 1]
    assert values[reach, reach + 3] == voxels[12, 10, 1]


def test_squares_that_stick_out_repeat_the_nearest_voxel_and_are_blanked():
    voxels = np.arange(1, 5 * 4 + 1).reshape(5, 4, 1)
    squares = _cut(_volume(voxels), (0, 3), [0])
    values, reach = squares.values[0], squares.values.shape[1] // 2
    assert values[0, 0] == voxels[0, 3, 0]
    assert values[-1, -1] == voxels[4, 0, 0]
    blank = squares.blanked(squares.values)[0]
    assert not blank[:reach].any()
    assert not blank[:, :reach].any()
    assert blank[reach, reach] == voxels[0, 3, 0]


def test_squares_far_outside_are_blank():
    squares = _cut(_volume(np.ones((5, 5, 1), np.int16)), (400, -300), [0])
    assert not squares.blanked(squares.values).any()
    assert np.isfinite(Tones.of(squares, np.array([0]), 1).white).all()


@pytest.mark.parametrize("zoom", [1e-4, 0.02, 0.2, 0.5, 3.0, 80.0])
def test_squares_of_any_voxel_size_are_small(zoom):
    volume = _volume(np.ones((50, 50, 1), np.float32), (zoom, zoom, 1.0))
    squares = _cut(volume, (25, 25), [0], mm=40.0, pixel_mm=0.5)
    assert squares.values.size < 400**2
    assert squares.drawn(squares.values, 80).shape == (1, 80, 80)


def test_squares_of_pixels_as_large_as_voxels_are_the_voxels():
    voxels = np.random.default_rng(0).random((20, 20, 3)).astype(np.float32)
    squares = _cut(_volume(voxels), (10, 10), [0, 2], mm=7.0)
    drawn = squares.drawn(squares.values, 7)
    expected = voxels[7:14, 13:6:-1, ::2].transpose(2, 1, 0)
    assert drawn == pytest.approx(expected, abs=1e-6)  # float32


def test_part_of_the_pixels_is_drawn_as_in_the_whole():
    voxels = np.random.default_rng(1).random((40, 40, 3)).astype(np.float32)
    squares = _cut(_volume(voxels, (0.7, 1.3, 1.0)), (20, 20), [0, 1, 2], mm=14.0)
    whole = squares.drawn(squares.values, 56)
    part = squares.drawn(squares.values, 56, slice(11, 40), slice(0, 17))
    assert part == pytest.approx(whole[:, 11:40, :17], abs=1e-6)  # float32


def test_pixels_of_some_values_cover_all_that_they_touch():
    voxels = np.zeros((60, 60, 1), np.float32)
    voxels[28:31, 33, 0] = 1
    squares = _cut(_volume(voxels, (0.8, 0.6, 1.0)), (30, 30), [0], mm=20.0)
    whole = squares.drawn(squares.values, 80)[0] > 0
    rows, columns = squares.pixels_of((squares.values > 0).any(axis=0), 80)
    assert whole[rows, columns].sum() == whole.sum() > 0
    assert whole[rows, columns].size < whole.size / 4


def test_tones_span_what_is_seen():
    voxels = np.zeros((30, 30, 4), np.int16)
    voxels[15:, :, :] = 1000
    squares = _cut(_volume(voxels), (15, 15), [3, 1], mm=20.0)
    slices = np.array([3, 1])
    grey = Tones.of(squares, slices, 4).grey(squares.values, slices)
    assert grey.min() == 0
    assert grey.max() == 255


def test_dark_slices_are_brightened_but_stay_darker():
    voxels = np.random.default_rng(0).uniform(0, 1000, (40, 40, 2))
    voxels[..., 1] /= 16
    squares = _cut(_volume(voxels), (20, 20), [1, 0], mm=30.0)
    slices = np.array([1, 0])
    dark, bright = Tones.of(squares, slices, 2).grey(squares.values, slices).mean(axis=(1, 2))
    assert bright / 8 < dark < bright / 2


def test_what_lies_beyond_the_volume_has_no_tone():
    voxels = np.full((10, 10, 1), 1000.0)
    voxels[:5] = 1100
    squares = _cut(_volume(voxels), (5, 5), [0], mm=30.0)
    assert Tones.of(squares, np.array([0]), 1).black == 1000


def test_constant_images_are_black():
    squares = _cut(_volume(np.full((9, 9, 1), 7)), (4, 4), [0])
    tones = Tones.of(squares, np.array([0]), 1)
    assert not tones.grey(squares.values, np.array([0])).any()


def test_line_from_front_to_back_shows_the_voxels_in_front_first():
    voxels = np.arange(9.0)[None, :, None] * np.ones((5, 1, 3))
    lines = side_lines(_volume(voxels), np.full((3, 2), [2.0, 4.0]), [0, 2], 5.0, 5)
    assert lines.tolist() == [[6, 5, 4, 3, 2]] * 2


def test_lines_follow_the_centre_between_voxels_and_end_with_the_volume():
    voxels = np.arange(5.0)[:, None, None] * np.ones((1, 4, 2))
    lines = side_lines(_volume(voxels), np.array([[1.25, 1.5], [3.5, 1.5]]), [0, 1], 8.0, 8)
    assert lines[:, 2:6].tolist() == [[1.25] * 4, [3.5] * 4]
    assert not lines[:, [0, 1, 6, 7]].any()
    lines = side_lines(_volume(voxels), np.array([[1.25, 1.5], [3.5, 1.5]]), [0, 1], 8.0, 8, beyond=-9.0)
    assert lines[:, [0, 1, 6, 7]].tolist() == [[-9] * 4] * 2


def test_lines_of_labels_are_those_of_a_mask():
    voxels = np.zeros((3, 9, 1), np.uint8)
    voxels[:, 4:] = 255
    lines = side_lines(_volume(voxels), np.array([[1.0, 4.0]]), [0], 6.0, 6, above=0.5)
    assert lines.tolist() == [[1, 1, 1, 0.5, 0, 0]]


def test_thick_slices_are_bands_and_thin_ones_blend():
    lines = np.repeat(np.array([[0], [200]], np.uint8), 4, axis=1)
    thick, thin = (resized_lines(lines, zoom, 4, 12)[:, 0] for zoom in (6.0, 1.0))
    assert thick.tolist() == [200] * 6 + [0] * 6
    assert len(set(thin.tolist())) > 4
    assert thin[0] == 200


def test_border_is_thin_closed_and_inside():
    inside = np.zeros((2, 9, 9), bool)
    inside[:, 2:7, 3:8] = True
    line = border(inside)
    assert line.sum(axis=(1, 2)).tolist() == [16, 16]
    assert not (line & ~inside).any()
    assert border(inside, 2).sum() == 2 * 24
    assert not border(np.ones((4, 4), bool)).any()


@pytest.mark.parametrize("dtype", ["<f4", ">f8", ">i2", "u8", "?", "f2", "g"])
def test_values_of_any_type_become_finite_and_are_copies(dtype):
    values = np.array([0, 1, 1], dtype)
    if values.dtype.kind == "f":
        values[:2] = np.nan, np.inf
    copied = finite(values)
    assert copied.dtype == np.float32
    assert copied.tolist() == ([0, 0, 1] if values.dtype.kind == "f" else [0, 1, 1])
    assert not np.shares_memory(copied, values)


def test_numbers_beyond_single_precision_are_as_good_as_infinite():
    assert finite(np.array([1e300, -1e300, 2.0])).tolist() == [0, 0, 2]
