"""Windows around the centerline: where they lie, cut out, put back."""

from __future__ import annotations

import numpy as np
import pytest

from fastseg.centerline import Centerline
from fastseg.crops import CropWindows
from fastseg.resampling import resample_in_plane
from fastseg.volume import Grid

_GRID = Grid((40, 30, 9), np.eye(4))


def _around(*points: tuple[float, float, int], size: int = 16, grid: Grid = _GRID) -> CropWindows:
    return CropWindows.around(Centerline(grid, np.array(points, np.float64)), size)


def test_a_window_reaches_half_its_size_beyond_the_whole_number_below_the_centre() -> None:
    assert _around((20.0, 15.0, 0), (20.99, 15.5, 1)).starts.tolist() == [[13, 8], [13, 8]]


def test_windows_stay_inside_the_field_of_view() -> None:
    assert _around((0, 0, 0), (39, 29, 1), (7, 7, 2), (8, 8, 3)).starts.tolist() == [
        [0, 0],
        [24, 14],
        [0, 0],
        [1, 1],
    ]


def test_a_field_of_view_smaller_than_the_window_lies_at_its_start() -> None:
    windows = _around((3, 20, 0), size=32, grid=Grid((10, 40, 1), np.eye(4)))
    assert windows.starts.tolist() == [[0, 5]]
    crops = windows.extract(np.ones((1, 10, 40), np.float32))
    assert crops[0, :10].all()
    assert not crops[0, 10:].any()


def test_extracting_equals_cropping_the_resampled_whole() -> None:
    slices = np.random.default_rng(46).normal(size=(9, 23, 21)).astype(np.float32)
    windows = _around((3.5, 9, 1), (20, 15, 4), (38, 28, 8))
    whole = resample_in_plane(slices, _GRID)
    wanted = [whole[z, x : x + 16, y : y + 16] for z, (x, y) in zip(windows.z, windows.starts, strict=True)]
    np.testing.assert_array_equal(windows.extract(slices), wanted)


def test_pasting_puts_every_crop_on_its_slice_with_a_margin_around_all() -> None:
    windows = _around((12, 12, 3), (14, 13, 5))
    crops = np.stack([np.full((16, 16), value, np.float32) for value in (1, 2)])
    canvas, corner = windows.paste(crops)
    assert corner == (4, 4, 2)
    assert canvas.shape == (5, 20, 19)
    assert (canvas[1, 1:17, 1:17] == 1).all()
    assert (canvas[3, 3:19, 2:18] == 2).all()
    assert canvas.sum() == crops.sum()


@pytest.mark.parametrize("end", [0, 1])
def test_there_is_no_margin_where_the_grid_ends(end: int) -> None:
    place = [(0.0, 0.0, 0), (39.0, 29.0, 8)][end]
    canvas, corner = _around(place).paste(np.ones((1, 16, 16), np.float32))
    assert canvas.shape == (2, 17, 17)
    assert corner == [(0, 0, 0), (23, 13, 7)][end]


def test_what_lies_beyond_a_small_field_of_view_is_not_pasted() -> None:
    windows = _around((3, 3, 0), size=32, grid=Grid((10, 12, 1), np.eye(4)))
    canvas, corner = windows.paste(np.ones((1, 32, 32), np.float32))
    assert canvas.shape == (1, 10, 12)
    assert corner == (0, 0, 0)
    assert canvas.all()


def test_a_crop_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        _around((12, 12, 3), (14, 13, 5)).paste(np.ones((1, 16, 16), np.float32))
