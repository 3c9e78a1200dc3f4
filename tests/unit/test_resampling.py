"""To the working grid and back: sizes, affines, and the box that a part of it can reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.resampling import as_slices, resample_in_plane, resample_onto, working_grid
from fastseg.volume import SCT_RPI, Grid, Volume


def _grid(shape: tuple[int, int, int], zooms: tuple[float, float, float], tilt: float = 0.0) -> Grid:
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(np.array(zooms) * [-1, 1, 1])
    affine[:3, 3] = 31.3, -20.7, 12.9
    return Grid(shape, affine)


def _whole(canvas: Any, corner: tuple[int, int, int], source: Grid) -> Any:
    nx, ny, nz = source.shape
    whole = np.zeros((nz, nx, ny), np.float32)
    x, y, z = corner
    whole[z : z + canvas.shape[0], x : x + canvas.shape[1], y : y + canvas.shape[2]] = canvas
    return whole


@pytest.mark.parametrize(
    ("n", "zoom", "wanted"),
    [(60, 1.0, 120), (5, 0.25, 2), (7, 0.25, 4), (9, 0.25, 4), (49, 0.5, 49), (1, 0.1, 1), (40, 0.841, 67)],
)
def test_size_is_rounded_half_to_even_and_at_least_one(n: int, zoom: float, wanted: int) -> None:
    assert working_grid(_grid((n, 10, 3), (zoom, 0.5, 4))).shape == (wanted, 10, 3)


def test_centres_of_the_first_voxels_coincide_and_the_field_of_view_stays() -> None:
    native = _grid((49, 54, 9), (0.844, 0.844, 17), tilt=0.1)
    working = working_grid(native)
    np.testing.assert_array_equal(working.affine[:, 3], native.affine[:, 3].astype(np.float32))
    ratio = np.array(native.shape) / working.shape
    # The working affine is rounded to float32, as one of a file would be.
    np.testing.assert_array_equal(working.affine, (native.affine * [*ratio, 1]).astype(np.float32))
    assert working.zooms[2] == pytest.approx(17, abs=1e-5)  # one rounding to float32


def test_slices_are_contiguous_floats_of_the_same_voxels() -> None:
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    slices = as_slices(Volume(voxels, Grid((2, 3, 4), np.eye(4))))
    assert slices.dtype == np.float32
    assert slices.flags.c_contiguous
    np.testing.assert_array_equal(slices, np.moveaxis(voxels, 2, 0))


def test_slices_may_be_changed_without_changing_the_volume() -> None:
    stack = np.ones((4, 2, 3), np.float32)
    volume = Volume(stack.transpose(1, 2, 0), Grid((2, 3, 4), np.diag([-1.0, 1, 1, 1])))
    assert volume.grid.axcodes == SCT_RPI
    as_slices(volume)[0, 0, 0] = 5
    assert volume.voxels.max() == 1


def test_a_volume_on_the_working_grid_is_not_resampled() -> None:
    slices = np.ones((3, 4, 5), np.float32)
    assert resample_in_plane(slices, _grid((4, 5, 3), (0.5, 0.5, 1))) is slices


def test_a_ramp_stays_a_ramp() -> None:
    native = _grid((20, 30, 2), (1.0, 0.8, 4.0))
    working = working_grid(native)
    x, y = np.arange(20)[:, None], np.arange(30)
    slices = np.broadcast_to((x + 2 * y).astype(np.float32), (2, 20, 30)).copy()
    out = resample_in_plane(slices, working)
    i = np.minimum(np.arange(working.shape[0])[:, None] * 20 / working.shape[0], 19)
    j = np.minimum(np.arange(working.shape[1]) * 30 / working.shape[1], 29)
    # Values below 128, rounded to float32 once.
    np.testing.assert_allclose(out[1], i + 2 * j, rtol=0, atol=128 * 2.0**-24)


def test_back_onto_the_native_grid_gives_a_smooth_volume_again() -> None:
    native = _grid((24, 22, 3), (0.9, 1.1, 5.0), tilt=0.1)
    working = working_grid(native)
    x, y, z = np.meshgrid(np.arange(24), np.arange(22), np.arange(3), indexing="ij")
    volume = (x + 2 * y + 3 * z).astype(np.float32)
    there = resample_in_plane(np.ascontiguousarray(volume.transpose(2, 0, 1)), working)
    back, corner = resample_onto(there, (0, 0, 0), working, native)
    assert corner == (0, 0, 0)
    # A ramp survives linear resampling; the affine of the working grid is rounded to 1e-7 of up to 40 mm.
    # The last row and column lie beyond the last working centre's support.
    np.testing.assert_allclose(back.transpose(1, 2, 0)[:-2, :-2], volume[:-2, :-2], rtol=0, atol=1e-4)


@settings(deadline=None)
@given(st.data())
def test_a_part_of_the_canvas_gives_the_same_as_the_whole(data: st.DataObject) -> None:
    """The canvas is zero outside a box, and has a margin of one voxel where it does not end at the border."""
    shape = data.draw(st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(1, 5)))
    zooms = data.draw(st.tuples(st.floats(0.2, 1.6), st.floats(0.2, 1.6), st.floats(0.5, 9)))
    native = _grid(shape, zooms, tilt=data.draw(st.sampled_from([0.0, 0.1, 0.5])))
    source = working_grid(native)
    ends = []
    for n in source.shape:
        first = data.draw(st.integers(0, n - 1))
        ends.append((first, data.draw(st.integers(first + 1, n))))
    low = [max(first - 1, 0) for first, _ in ends]
    high = [min(stop + 1, n) for (_, stop), n in zip(ends, source.shape, strict=True)]
    inner = np.zeros([stop - first for first, stop in zip(low, high, strict=True)], np.float32)
    filled = tuple(slice(first - at, stop - at) for (first, stop), at in zip(ends, low, strict=True))
    inner[filled] = np.random.default_rng(7).uniform(0.5, 1, inner[filled].shape)
    canvas = np.ascontiguousarray(inner.transpose(2, 0, 1))
    corner = (low[0], low[1], low[2])

    values, at = resample_onto(canvas, corner, source, native)
    everything, origin = resample_onto(_whole(canvas, corner, source), (0, 0, 0), source, native)

    assert origin == (0, 0, 0)
    assert everything.shape == (shape[2], shape[0], shape[1])
    # The corner is subtracted from coordinates below 64: one rounding of 2**-48, times a slope of at most 1,
    # and where it leaves the canvas by as much, the margin's zero.
    np.testing.assert_allclose(_whole(values, at, native), everything, rtol=0, atol=1e-7)


def test_only_what_the_canvas_can_reach_is_computed() -> None:
    native = _grid((100, 100, 30), (1.0, 1.0, 2.0))
    values, corner = resample_onto(
        np.ones((5, 10, 10), np.float32), (40, 60, 10), working_grid(native), native
    )
    assert values.size < 12 * 12 * 9
    assert all(abs(c - wanted) <= 2 for c, wanted in zip(corner, (20, 30, 10), strict=True))
