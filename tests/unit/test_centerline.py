"""Points along the cord, in voxels and millimetres."""

from __future__ import annotations

import numpy as np
import pytest

from fastseg.centerline import Centerline
from fastseg.volume import Grid

_GRID = Grid((40, 30, 9), np.array([[-0.5, 0, 0, 10], [0, 0.5, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]))
_LINE = Centerline(_GRID, np.array([[10, 12, 2], [10.5, 13.25, 3], [11, 14, 6]]))


def test_covered_slices_are_the_last_coordinate() -> None:
    assert _LINE.z.tolist() == [2, 3, 6]
    assert _LINE.z.dtype == np.int64


def test_points_cannot_be_changed_and_are_a_copy() -> None:
    points = np.array([[1.0, 2.0, 3.0]])
    line = Centerline(_GRID, points)
    points[0, 0] = 9
    assert line.points[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        line.points[0, 0] = 9


def test_world_is_the_affine_of_the_points() -> None:
    np.testing.assert_array_equal(_LINE.world(), [[5, -14, 38], [4.75, -13.375, 42], [4.5, -13, 54]])


def test_points_on_another_grid_are_scaled_in_plane() -> None:
    native = Grid((20, 10, 9), np.eye(4))
    moved = _LINE.on(native)
    assert moved.grid is native
    # 20/40 is exact, 10/30 is rounded once.
    np.testing.assert_allclose(moved.points, _LINE.points * [0.5, 1 / 3, 1], rtol=1e-15)
    np.testing.assert_allclose(moved.on(_GRID).points, _LINE.points, rtol=1e-15)


def test_the_place_in_the_world_stays_where_the_grids_cover_the_same_field_of_view() -> None:
    native = Grid((20, 15, 9), _GRID.affine * [2, 2, 1, 1])
    np.testing.assert_array_equal(_LINE.on(native).world(), _LINE.world())


def test_mask_has_one_voxel_on_every_covered_slice() -> None:
    mask = _LINE.mask(_GRID)
    assert mask.dtype == np.uint8
    # 10.5 is rounded to the even 10.
    assert np.argwhere(mask).tolist() == [[10, 12, 2], [10, 13, 3], [11, 14, 6]]


def test_mask_keeps_points_at_the_border_inside() -> None:
    line = Centerline(_GRID, np.array([[39.0, 29.0, 0], [0.0, 0.0, 1], [39.9, -0.7, 2]]))
    assert np.argwhere(line.mask(_GRID)).tolist() == [[0, 0, 1], [39, 0, 2], [39, 29, 0]]
    small = Grid((20, 15, 9), np.eye(4))  # 39 * 20/40 = 19.5 would be 20
    assert np.argwhere(line.mask(small)).tolist() == [[0, 0, 1], [19, 0, 2], [19, 14, 0]]
