"""Where things are on a sheet: nothing overlaps, nothing is too large, and what was asked for is there."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.qc.layout import Layout
from fastseg.volume import Grid


def _grid(shape, zooms):
    return Grid(shape, np.diag([-zooms[0], zooms[1], zooms[2], 1.0]))


@st.composite
def _layouts(draw):
    n = draw(st.integers(1, 900))
    zooms = draw(st.tuples(*[st.floats(0.1, 20)] * 3))
    grid = _grid((draw(st.integers(1, 500)), draw(st.integers(1, 500)), n), zooms)
    shown = draw(st.lists(st.integers(-5, n + 5), max_size=60))
    if draw(st.booleans()):
        return grid, shown, Layout.of_volume(grid, shown), 24
    first = draw(st.integers(0, n - 1))
    covered = np.arange(first, draw(st.integers(first + 1, n)))
    return grid, shown, Layout.around_cord(grid, covered, shown), 40


@settings(max_examples=150, deadline=None)
@given(_layouts())
def test_sheets_hold_what_was_asked_for(made):
    grid, shown, layout, most = made
    width, height = layout.size
    tiles = layout.tiles.tolist()
    assert tiles == sorted(set(tiles), reverse=True)
    assert 1 <= len(tiles) <= most
    inside = {z for z in shown if 0 <= z < grid.shape[2]}
    assert len(inside & set(tiles)) == min(len(inside), most)
    low, high = layout.side_slices
    assert 0 <= low <= high < grid.shape[2]
    assert width <= 1000
    assert height <= 700
    boxes = [(0, 0, *layout.side_size)]
    boxes += [(x, y, x + layout.tile, y + layout.tile) for x, y in layout.corners]
    cover = np.zeros((height, width), np.int8)
    for left, top, right, bottom in boxes:
        assert right <= width
        assert bottom <= height
        cover[top:bottom, left:right] += 1
    assert cover.max() == 1


def test_side_view_of_a_short_cord_shows_more_of_the_volume():
    grid = _grid((64, 64, 100), (1.0, 1.0, 2.0))
    layout = Layout.around_cord(grid, np.arange(40, 60), [])
    low, high = layout.side_slices
    assert low < 40
    assert high > 59
    assert layout.side_mm_per_px == 0.5


def test_long_cord_is_shown_whole_and_smaller():
    grid = _grid((64, 64, 500), (1.0, 1.0, 1.0))
    layout = Layout.around_cord(grid, np.arange(500), [])
    assert layout.side_slices == (0, 499)
    assert layout.side_size == (112, 640)
    assert layout.side_mm_per_px == 500 / 640


def test_record_names_slices_and_places():
    grid = _grid((64, 64, 2), (1.0, 1.0, 5.0))
    record = Layout.around_cord(grid, np.arange(2), [0]).record()
    assert record["tiles"] == [{"z": 1, "x": 120, "y": 0}, {"z": 0, "x": 202, "y": 0}]
    assert record["size"] == [282, 80]
    assert record["side"] == {
        "x": 0, "y": 0, "width": 112, "height": 20, "mm_per_px": 0.5, "z_top": 1, "z_bottom": 0,
    }  # fmt: skip
