"""Metrics of tools/evaluate against cases worked out by hand, and against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fastseg.centerline import Centerline
from fastseg.volume import SCT_RPI, Grid, Volume
from tools.evaluation.metrics import compare, compare_line, slice_dice, surface, surface_distances

# Axes of SCT_RPI: x to the left.
_RPI = np.diag([-1.0, 1.0, 1.0, 1.0])


def _volume(voxels, zooms=(1.0, 1.0, 1.0)):
    return Volume(voxels, Grid(voxels.shape, _RPI @ np.diag([*zooms, 1.0])))


def _box(shape, x, y, z):
    mask = np.zeros(shape, bool)
    mask[slice(*x), slice(*y), slice(*z)] = True
    return mask


def _brute_surface(mask, there):
    """Voxel by voxel what `surface` promises."""
    found = np.zeros_like(mask)
    for x, y, z in np.argwhere(mask):
        if not there[z]:
            continue
        for axis, step in ((0, -1), (0, 1), (1, -1), (1, 1), (2, -1), (2, 1)):
            other = [x, y, z]
            other[axis] += step
            if axis == 2 and not (0 <= other[2] < mask.shape[2] and there[other[2]]):
                continue
            inside = all(0 <= i < n for i, n in zip(other, mask.shape, strict=True))
            if not inside or not mask[tuple(other)]:
                found[x, y, z] = True
    return found


_masks = arrays.arrays(bool, st.tuples(*[st.integers(1, 5)] * 3), elements=st.booleans())


@st.composite
def _pairs(draw):
    reference = draw(_masks.filter(np.any))
    return draw(arrays.arrays(bool, reference.shape, elements=st.booleans())), reference


def test_equal_masks_have_no_error():
    mask = _box((12, 12, 5), (3, 8), (4, 9), (1, 4))
    same = compare(_volume(mask.astype(np.uint8)), _volume(mask))
    assert same.slices == 3
    assert same.dice == 1
    assert same.hausdorff95_mm == same.surface_mm == 0
    assert same.area_bias_percent == same.slice_area_error_percent == 0
    assert same.found_percent == 100
    assert same.slices_beyond == 0


def test_square_shifted_by_two_voxels_in_numbers_worked_out_by_hand():
    reference = _box((20, 20, 4), (5, 10), (5, 10), (0, 4))
    ours = _box((20, 20, 4), (7, 12), (5, 10), (0, 4))
    found = compare(_volume(ours.astype(np.uint8), (0.5, 1, 3)), _volume(reference, (0.5, 1, 3)))
    assert found.dice == pytest.approx(2 * 15 / 50)
    # Of the 16 voxels of an outline, the 5 of the far edge lie two columns of 0.5 mm beyond the other square,
    # 2 of the long edges one column; the 3 in the middle of the edge inside it lie 1 mm from its outline; the
    # other 6 lie on it.
    assert found.hausdorff95_mm == pytest.approx(1.0)
    assert found.surface_mm == pytest.approx((5 * 1.0 + 2 * 0.5 + 3 * 1.0) / 16)
    assert found.area_bias_percent == found.slice_area_error_percent == 0


def test_area_bias_is_positive_where_ours_is_larger():
    small, large = _box((9, 9, 2), (3, 5), (3, 5), (0, 2)), _box((9, 9, 2), (3, 6), (3, 5), (0, 2))
    assert compare(_volume(large), _volume(small)).area_bias_percent == pytest.approx(50)
    assert compare(_volume(small), _volume(large)).area_bias_percent == pytest.approx(-100 / 3)


def test_errors_of_slices_that_cancel_are_seen_slice_by_slice():
    reference = _box((9, 9, 2), (2, 6), (3, 4), (0, 2))
    ours = _box((9, 9, 2), (2, 4), (3, 4), (0, 1)) | _box((9, 9, 2), (2, 8), (3, 4), (1, 2))
    found = compare(_volume(ours), _volume(reference))
    assert found.area_bias_percent == 0
    assert found.slice_area_error_percent == pytest.approx(50)


def test_slices_without_reference_change_nothing_but_their_count():
    reference = _box((9, 9, 6), (3, 6), (3, 6), (2, 4))
    ours = _box((9, 9, 6), (3, 6), (3, 6), (2, 4))
    far = ours | _box((9, 9, 6), (0, 9), (0, 9), (4, 6))
    assert compare(_volume(far), _volume(reference)).slices_beyond == 2
    inside, outside = (compare(_volume(each), _volume(reference)) for each in (ours, far))
    assert (outside.dice, outside.surface_mm, outside.area_bias_percent) == (1, 0, 0)
    assert inside.slices_beyond == 0


def test_slice_counts_as_found_only_where_the_masks_overlap():
    reference = _box((9, 9, 4), (1, 4), (1, 4), (0, 4))
    ours = _box((9, 9, 4), (2, 4), (1, 4), (0, 1)) | _box((9, 9, 4), (6, 8), (6, 8), (1, 3))
    assert compare(_volume(ours), _volume(reference)).found_percent == 25


def test_empty_mask_has_no_distance_and_no_area():
    reference = _box((9, 9, 4), (1, 4), (1, 4), (0, 4))
    found = compare(_volume(np.zeros((9, 9, 4), np.uint8)), _volume(reference))
    assert (found.dice, found.area_bias_percent, found.found_percent) == (0, -100, 0)
    assert math.isnan(found.hausdorff95_mm)
    assert math.isnan(found.surface_mm)


def test_orientation_of_the_file_does_not_matter():
    reference = _volume(_box((9, 8, 7), (2, 5), (2, 6), (1, 6)), (0.5, 1, 3))
    ours = _volume(_box((9, 8, 7), (3, 7), (2, 5), (0, 5)), (0.5, 1, 3))
    line = Centerline(ours.grid, np.array([[3.0, 4.0, z] for z in range(7)]))
    axcodes = ("P", "S", "R")
    assert compare(ours.reoriented(axcodes), reference.reoriented(axcodes)) == compare(ours, reference)
    assert compare_line(line, reference.reoriented(axcodes)) == compare_line(line, reference)


def test_flat_ends_at_the_cut_are_no_surface_but_a_missing_slice_is():
    there = np.array([False, True, True, True, False])
    tube = _box((7, 7, 5), (2, 5), (2, 5), (0, 5))
    middle = surface(tube, there)
    assert not middle[3, 3].any()
    assert middle.sum() == 3 * 8
    short = tube & ~_box((7, 7, 5), (0, 7), (0, 7), (3, 4))
    assert surface(short, there)[3, 3].tolist() == [False, False, True, False, False]


def test_percentile_leaves_out_the_worst_twentieth_of_the_surface():
    reference = _box((60, 3, 1), (0, 50), (1, 2), (0, 1))
    ours = reference | _box((60, 3, 1), (50, 52), (1, 2), (0, 1))
    # 50 of our 52 voxels are in place: two stand out, less than 5 %.
    assert compare(_volume(ours), _volume(reference)).hausdorff95_mm == 0
    farther = reference | _box((60, 3, 1), (50, 56), (1, 2), (0, 1))
    assert compare(_volume(farther), _volume(reference)).hausdorff95_mm == pytest.approx(3.25)


@settings(max_examples=60, deadline=None)
@given(_pairs(), st.tuples(*[st.sampled_from([0.3, 1.0, 2.5])] * 3))
def test_distances_are_those_of_brute_force(pair, zooms):
    ours, reference = pair
    there = reference.any(axis=(0, 1))
    first, second = (_brute_surface(each, there) for each in (ours, reference))
    assert np.array_equal(surface(ours, there), first)
    assert np.array_equal(surface(reference, there), second)
    found = surface_distances(ours, reference, zooms)
    if not first.any() or not second.any():
        assert [len(each) for each in found] == [0, 0]
        return
    a, b = (np.argwhere(each) * zooms for each in (first, second))
    apart = np.linalg.norm(a[:, None] - b[None], axis=2)
    # Both are float64: only the order of the sums differs.
    np.testing.assert_allclose(found[0], apart.min(axis=1), atol=1e-9)
    np.testing.assert_allclose(found[1], apart.min(axis=0), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(_pairs())
def test_dice_and_areas_are_those_of_sums_over_the_slices(pair):
    ours, reference = pair
    there = reference.any(axis=(0, 1))
    a, b = ours[..., there], reference[..., there]
    found = compare(_volume(ours), _volume(reference))
    assert found.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert found.area_bias_percent == pytest.approx(100 * (a.sum() - b.sum()) / b.sum())
    z, dice = slice_dice(_volume(ours), _volume(reference))
    assert z.tolist() == np.flatnonzero(there).tolist()
    weights = (a.sum(axis=(0, 1)) + b.sum(axis=(0, 1))) / (a.sum() + b.sum())
    assert float((dice * weights).sum()) == pytest.approx(found.dice)


def _line(grid, points):
    return Centerline(grid, np.array(points, np.float64))


def test_centerline_error_is_in_millimetres_in_plane():
    reference = _volume(_box((20, 20, 3), (4, 7), (8, 11), (0, 3)), (0.5, 2, 5))
    # The centre is (5, 9) on every slice.
    line = _line(reference.grid, [[5, 9, 0], [11, 9, 1], [5, 11, 2]])
    found = compare_line(line, reference)
    assert found.mean_mm == pytest.approx((0 + 3 + 4) / 3)
    assert found.max_mm == pytest.approx(4)
    assert found.p95_mm == pytest.approx(3.9)
    assert (found.lost_percent, found.covered_percent) == (0, 100)


def test_centerline_on_a_finer_grid_is_at_the_same_place():
    reference = _volume(_box((20, 20, 2), (4, 7), (8, 11), (0, 2)))
    fine = Grid((40, 40, 2), reference.grid.affine @ np.diag([0.5, 0.5, 1, 1]))
    assert compare_line(_line(fine, [[10, 18, 0], [10, 18, 1]]), reference).max_mm == 0


def test_slices_without_centerline_are_lost_like_those_over_8_mm():
    reference = _volume(_box((40, 20, 4), (4, 7), (8, 11), (0, 4)))
    found = compare_line(_line(reference.grid, [[5, 9, 0], [13, 9, 1], [13.5, 9, 2]]), reference)
    assert found.lost_percent == 50
    assert found.covered_percent == 75
    assert found.max_mm == pytest.approx(8.5)


def test_centerline_elsewhere_has_no_distance():
    reference = _volume(_box((9, 9, 4), (4, 7), (4, 7), (0, 2)))
    found = compare_line(_line(reference.grid, [[5, 5, 3]]), reference)
    assert (found.lost_percent, found.covered_percent) == (100, 0)
    assert math.isnan(found.mean_mm)


def test_centre_is_that_of_mass_and_not_of_the_box():
    corner = _box((9, 9, 1), (2, 3), (2, 7), (0, 1)) | _box((9, 9, 1), (2, 7), (2, 3), (0, 1))
    reference = _volume(corner)
    middle = np.argwhere(reference.reoriented(SCT_RPI).voxels[..., 0]).mean(axis=0)
    assert compare_line(_line(reference.grid, [[*middle, 0]]), reference).max_mm == 0
    assert compare_line(_line(reference.grid, [[4, 4, 0]]), reference).max_mm > 0.8
