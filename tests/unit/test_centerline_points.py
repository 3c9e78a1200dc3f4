"""Clicked points become a centerline, a volume, labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastseg.centerline_file import centerline_from_volume
from fastseg.centerline_points import (
    Points,
    centerline_volume,
    curve_through,
    labels_volume,
    looks_like_points,
    points_of_labels,
    remarks,
)
from fastseg.errors import InputError
from fastseg.phantom import make_phantom
from fastseg.resampling import working_grid
from fastseg.volume import SCT_RPI, Grid, Volume

# Voxels of 1 x 1 x 4 mm; x = 10 - i, y = j - 20, z = 30 + 4 k.
_GRID = Grid((20, 24, 9), np.array([[-1.0, 0, 0, 10], [0, 1, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]))


def _world(*voxels: tuple[float, float, float], grid: Grid = _GRID) -> Any:
    return nib.affines.apply_affine(grid.affine, np.array(voxels, np.float64))


def _oblique(shape: tuple[int, int, int], zooms: tuple[float, float, float]) -> Grid:
    turn = nib.eulerangles.euler2mat(0.3, -0.2, 0.4)
    return Grid(shape, nib.affines.from_matvec(turn @ np.diag(zooms), [12, -40, 7])).reoriented(SCT_RPI)


# The curve --------------------------------------------------------------------------------------------------


def test_two_points_are_joined_by_a_line() -> None:
    line = curve_through(_world((5, 7, 1), (9, 3, 5)), _GRID)
    np.testing.assert_allclose(
        line.points, [[5, 7, 1], [6, 6, 2], [7, 5, 3], [8, 4, 4], [9, 3, 5]], rtol=0, atol=1e-12
    )


def test_one_point_is_its_slice() -> None:
    np.testing.assert_allclose(
        curve_through(_world((5.25, 7, 3.2)), _GRID).points, [[5.25, 7, 3]], atol=1e-12
    )


def test_points_on_one_slice_count_with_their_mean() -> None:
    line = curve_through(_world((4, 7, 3), (6, 9, 3)), _GRID)
    np.testing.assert_allclose(line.points, [[5, 8, 3]], rtol=0, atol=1e-12)
    line = curve_through(_world((2, 2, 0), (4, 7, 4), (6, 9, 4)), _GRID)
    np.testing.assert_allclose(line.points[[0, -1]], [[2, 2, 0], [5, 8, 4]], rtol=0, atol=1e-12)


def test_nothing_lies_beyond_the_outermost_points() -> None:
    line = curve_through(_world((5, 7, 5.6), (5, 7, 2.4), (5, 7, 4)), _GRID)
    assert line.z.tolist() == [2, 3, 4, 5, 6]


def test_points_at_the_very_border_are_inside() -> None:
    line = curve_through(_world((-0.5, 7, -0.5), (19.5, 23.5, 8.5)), _GRID)
    assert line.z.tolist() == list(range(9))
    assert (line.points >= 0).all()
    assert (line.points <= np.array(_GRID.shape) - 1).all()


def test_a_point_between_two_slices_counts_at_its_own_height() -> None:
    # On a cord that is inclined, half a slice is 2 mm of height.
    line = curve_through(_world((4.0, 7, 0), (6.25, 7, 2.25), (9, 7, 5)), _GRID)
    np.testing.assert_allclose(line.points[:, 0], [4, 5, 6, 7, 8, 9], rtol=0, atol=1e-9)


def test_the_curve_is_smoothed_by_millimetres_not_by_slices() -> None:
    """The same clicks on the same image with four times as many slices."""
    fine = Grid((20, 24, 36), _GRID.affine @ np.diag([1, 1, 0.25, 1]))
    clicks = _world((5, 7, 0), (8, 7, 2), (5, 9, 5), (6, 8, 8))
    coarse, dense = curve_through(clicks, _GRID), curve_through(clicks, fine)
    np.testing.assert_allclose(dense.points[dense.z % 4 == 0, :2], coarse.points[:, :2], rtol=0, atol=1e-9)


@pytest.mark.parametrize("zooms", [(1.0, 1.0, 1.0), (0.5, 0.5, 5.0), (3.0, 0.6, 0.6)])
def test_an_oblique_image_has_its_points_where_they_were_clicked(zooms: tuple[float, float, float]) -> None:
    grid = _oblique((40, 40, 30), zooms)
    ends = _world((12, 10, 3), (20, 18, 27), grid=grid)
    line = curve_through(ends, grid)
    np.testing.assert_allclose(line.world()[[0, -1]], ends, rtol=0, atol=1e-9)
    assert line.z.tolist() == list(range(3, 28))


@pytest.mark.parametrize("axcodes", [("A", "I", "L"), ("S", "R", "A"), ("P", "S", "R")])
def test_the_orientation_of_the_image_does_not_matter(axcodes: tuple[str, str, str]) -> None:
    clicks = _world((5, 7, 0), (8, 7, 2), (5, 9, 5), (6, 8, 8))
    turned = curve_through(clicks, _GRID.reoriented(axcodes))
    assert turned.grid.axcodes == SCT_RPI
    np.testing.assert_allclose(turned.points, curve_through(clicks, _GRID).points, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("points", "why"),
    [
        ([], "there are no points"),
        ([[0, 0, np.nan]], "point 1 is at"),
        ([[5, -13, 34], [500, -13, 34]], "point 2 lies outside the image"),
        ([[5, -13, 34], [5, -13, 27.9]], "point 2 lies outside the image"),
    ],
)
def test_points_that_are_no_clicks_are_refused(points: Any, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        curve_through(points, _GRID)
    assert "\n" not in str(caught.value)


# The volume -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axcodes", [SCT_RPI, ("A", "I", "L"), ("P", "S", "R")])
def test_the_volume_gives_the_detector_the_curve_but_for_rounding(axcodes: tuple[str, str, str]) -> None:
    grid = _GRID.reoriented(axcodes)
    clicks = _world((5.2, 7, 0), (8.4, 7.3, 3), (5, 9, 5), (6, 8.6, 8))
    drawn = centerline_volume(Points(clicks), grid)
    assert drawn.grid.same_space(grid)
    assert str(drawn.voxels.dtype) == "uint8"
    assert int(drawn.voxels.sum()) == 9
    found = centerline_from_volume(drawn, _GRID, working_grid(_GRID))
    wanted = curve_through(clicks, _GRID)
    assert found.z.tolist() == wanted.z.tolist()
    # Half a voxel of 1 mm, and the noise that centerline_file wants.
    assert np.abs(found.world() - wanted.world()).max() <= 0.5 + 1e-6


def test_points_of_another_image_are_taken_as_far_as_they_reach(tmp_path: Path) -> None:
    whole = _world((5, 7, 0), (9, 7, 4), (9, 11, 8))
    upper = Grid((20, 24, 6), _GRID.affine @ nib.affines.from_matvec(np.eye(3), [0, 0, 3]))
    points = Points(whole, grid=_GRID)
    path = tmp_path / "points.json"
    path.write_text(json.dumps(whole.tolist()))
    drawn = centerline_volume(points, upper).voxels
    np.testing.assert_array_equal(drawn, centerline_volume(points, _GRID).voxels[:, :, 3:])
    np.testing.assert_array_equal(drawn, centerline_volume(path, upper).voxels)


def test_where_the_curve_leaves_the_image_there_is_no_centerline() -> None:
    narrow = Grid((8, 24, 9), _GRID.affine)  # x up to 7
    drawn = centerline_volume(Points(_world((5, 7, 0), (9, 7, 8))), narrow).voxels
    assert np.flatnonzero(drawn.any(axis=(0, 1))).tolist() == [0, 1, 2, 3, 4, 5]  # x is 7.5 on slice 5


@pytest.mark.parametrize("step", [(500, 0, 0), (0, 0, 100), (0, 0, -100)])
def test_points_that_lie_beside_the_image_are_refused(step: tuple[int, int, int], tmp_path: Path) -> None:
    path = tmp_path / "points.json"
    path.write_text(json.dumps((_world((5, 7, 0), (6, 8, 8)) + step).tolist()))
    with pytest.raises(InputError, match="no point lies inside the image") as caught:
        centerline_volume(path, _GRID)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_point_on_either_side_of_the_image_is_not_one_inside() -> None:
    with pytest.raises(InputError, match="no point lies inside"):
        centerline_volume(Points(_world((5, 7, -9), (5, 7, 20))), _GRID)


# Remarks ----------------------------------------------------------------------------------------------------


def test_good_points_need_no_remark() -> None:
    clicks = _world((5, 7, 0), (6, 8, 4), (5, 8, 8))
    assert remarks(Points(clicks), _GRID) == ()
    assert remarks(Points(clicks, grid=_GRID.reoriented(("P", "S", "R"))), _GRID) == ()


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (Points(_world((5, 7, 2))), "all points lie on one slice"),
        (Points(_world((5, 7, 2), (5, 7, 5)), grid=Grid((9, 9, 9), np.eye(4))), "another grid"),
        (Points(_world((5, 7, 2), (5, 7, 5), (5, 7, 40))), "1 of 3 points lie outside"),
        (Points(_world((2, 2, 0), (5, 7, 4), (14, 7, 4), (5, 7, 8))), "point 3 lies 5.8 mm beside the curve"),
    ],
)
def test_odd_points_are_remarked_on(points: Points, said: str) -> None:
    (note,) = remarks(points, _GRID)
    assert said in note
    assert "\n" not in note


def test_points_beside_the_image_are_remarked_on_too() -> None:
    (note,) = remarks(Points(_world((5, 7, 40), (5, 7, 50))), _GRID)
    assert "2 of 2 points lie outside" in note


def test_a_volume_of_one_slice_has_one_point_and_no_remark() -> None:
    flat = Grid((20, 24, 1), _GRID.affine)
    assert remarks(Points(_world((5, 7, 0))), flat) == ()


# Labels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axcodes", [SCT_RPI, ("A", "I", "L")])
def test_labels_count_from_the_top(axcodes: tuple[str, str, str]) -> None:
    labels = labels_volume(_world((5, 7, 2), (6, 8, 6), (6, 9, 4)), _GRID.reoriented(axcodes))
    turned = labels.reoriented(SCT_RPI).voxels
    assert {tuple(place): int(turned[tuple(place)]) for place in np.argwhere(turned).tolist()} == {
        (6, 8, 6): 1,
        (6, 9, 4): 2,
        (5, 7, 2): 3,
    }
    assert str(labels.voxels.dtype) == "uint8"


def test_labels_give_their_points_back() -> None:
    clicks = _world((6, 8, 6), (6, 9, 4), (5, 7, 2))
    labels = labels_volume(clicks, _GRID.reoriented(("A", "I", "L")))
    assert looks_like_points(labels)
    np.testing.assert_allclose(points_of_labels(labels), clicks, rtol=0, atol=1e-9)


def test_two_points_in_one_voxel_are_one_label() -> None:
    labels = labels_volume(_world((5, 7, 6), (5.2, 7.1, 2.1), (5, 7, 2)), _GRID).voxels
    assert sorted(labels[labels > 0].tolist()) == [1, 2]


def test_more_than_255_labels_need_more_bits() -> None:
    grid = Grid((20, 20, 3), np.eye(4)).reoriented(SCT_RPI)
    labels = labels_volume([[x, y, 1] for x in range(20) for y in range(15)], grid)
    assert (labels.voxels.dtype, int(labels.voxels.max())) == (np.dtype(np.uint16), 300)


def test_labels_outside_the_image_are_refused() -> None:
    with pytest.raises(InputError, match="point 1 lies outside"):
        labels_volume(_world((5, 7, 60)), _GRID)


def _filled(values: dict[tuple[int, int, int], float], dtype: Any = np.uint8) -> Volume:
    voxels = np.zeros(_GRID.shape, dtype)
    for place, value in values.items():
        voxels[place] = value
    return Volume(voxels, _GRID)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_labels_of_any_type_are_points(dtype: Any) -> None:
    assert looks_like_points(_filled({(5, 7, 1): 3, (6, 7, 3): 4, (6, 8, 7): 21}, dtype))


@pytest.mark.parametrize(
    "other",
    [
        _filled({}),
        _filled({(5, 7, 1): 1}),
        _filled({(5, 7, z): 1 for z in range(9)}),
        _filled({(5, 7, 1): 1, (5, 7, 3): 2, (5, 7, 5): 2}),
        _filled({(5, 7, 1): 0.5, (5, 7, 3): 1.5}, np.float32),
        _filled({(5, 7, 1): 0, (5, 7, 3): 1, (5, 7, 5): -2}, np.int16),
        _filled({(5, 7, 1): np.nan, (5, 7, 3): 1}, np.float32),
        _filled({(x, 7, 1): x for x in range(1, 8)}),
        _filled({(x, y, z): 1 + x + 5 * y + 25 * z for x in range(5) for y in range(3) for z in range(8)}),
        make_phantom("t2", n_slices=6)[1],
        make_phantom("t2", n_slices=6)[0],
    ],
    ids=["empty", "one", "line", "twice", "soft", "negative", "nan", "row", "many", "mask", "image"],
)
def test_what_else_may_be_drawn_is_not_points(other: Volume) -> None:
    assert not looks_like_points(other)
