"""What holds for the curve through any points."""

from __future__ import annotations

from random import Random

import nibabel as nib
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastseg.centerline_points import STIFFNESS, curve_through
from fastseg.volume import SCT_RPI, Grid

_SHAPE = (64, 72, 40)
_ZOOMS = st.tuples(*[st.floats(0.3, 6)] * 3)
_ANGLES = st.tuples(*[st.floats(-3, 3)] * 3)
_SHIFTS = st.tuples(*[st.floats(-300, 300)] * 3)
_CLICKS = st.lists(
    st.tuples(st.floats(0, 63), st.floats(0, 71), st.floats(0, 39)), min_size=1, max_size=20
).map(lambda rows: np.array(rows, np.float64))


def _grid(
    zooms: tuple[float, ...], angles: tuple[float, ...] = (0, 0, 0), shift: tuple[float, ...] = ()
) -> Grid:
    turn = nib.eulerangles.euler2mat(*angles)
    return Grid(
        _SHAPE, nib.affines.from_matvec(turn @ np.diag([-1, 1, 1] * np.array(zooms)), shift or (0, 0, 0))
    )


def _world(grid: Grid, voxels: NDArray[np.float64]) -> NDArray[np.float64]:
    return nib.affines.apply_affine(grid.affine, voxels)


@settings(deadline=None)
@given(_ZOOMS, st.lists(st.floats(0, 39), min_size=2, max_size=20), st.tuples(*[st.floats(0, 1)] * 4))
def test_a_straight_line_is_reproduced(
    zooms: tuple[float, ...], heights: list[float], ends: tuple[float, ...]
) -> None:
    def at(z: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = (first + (second - first) * z / 39 for first, second in (ends[:2], ends[2:]))
        return np.column_stack([63 * x, 71 * y, z])

    grid = _grid(zooms)
    line = curve_through(_world(grid, at(np.array(heights))), grid)
    if np.ptp(heights) <= 0.5:  # one point of the curve, which has no direction
        return
    # Slopes come from heights half a slice apart, in float64 of 400 mm.
    np.testing.assert_allclose(line.points, at(line.points[:, 2]), rtol=0, atol=1e-6)


@settings(deadline=None)
@given(_CLICKS, _ZOOMS, _ANGLES, _SHIFTS)
def test_where_the_scanner_has_its_origin_does_not_matter(
    clicks: NDArray[np.float64], zooms: tuple[float, ...], angles: tuple[float, ...], shift: tuple[float, ...]
) -> None:
    """But for the axes' names: turned by so much that they change, the image is another one."""
    clicks[:, 2] = np.rint(clicks[:, 2])  # on slices, which rounding does not take to the next one
    straight, turned = _grid(zooms), _grid(zooms, angles, shift)
    if turned.axcodes != SCT_RPI:
        return
    here, there = (curve_through(_world(grid, clicks), grid) for grid in (straight, turned))
    # Through millimetres of 1000 and back, in float64.
    np.testing.assert_allclose(there.points, here.points, rtol=0, atol=1e-8)


@settings(deadline=None)
@given(_CLICKS, _ZOOMS, st.randoms(use_true_random=False))
def test_the_order_of_clicks_does_not_matter(
    clicks: NDArray[np.float64], zooms: tuple[float, ...], random: Random
) -> None:
    grid = _grid(zooms)
    world = _world(grid, clicks)
    order = list(range(len(clicks)))
    random.shuffle(order)
    np.testing.assert_array_equal(curve_through(world[order], grid).points, curve_through(world, grid).points)


@settings(deadline=None)
@given(_CLICKS, _ZOOMS)
def test_the_curve_covers_what_was_clicked_without_gaps(
    clicks: NDArray[np.float64], zooms: tuple[float, ...]
) -> None:
    grid = _grid(zooms)
    line = curve_through(_world(grid, clicks), grid)
    assert (np.diff(line.z) == 1).all()
    assert np.isfinite(line.points).all()
    assert abs(line.z[0] - clicks[:, 2].min()) <= 0.5 + 1e-9  # through millimetres, as above
    assert abs(line.z[-1] - clicks[:, 2].max()) <= 0.5 + 1e-9
    assert (line.points >= 0).all()
    assert (line.points <= np.array(_SHAPE) - 1).all()


@settings(deadline=None)
@given(st.floats(0, 6), st.floats(80, 300), st.floats(0, 6), st.floats(2, 25))
def test_it_passes_close_to_good_clicks(
    amplitude: float, wavelength: float, phase: float, spacing: float
) -> None:
    """Clicks without error on a cord that bends as cords do."""
    grid = Grid((128, 128, 200), np.diag([-1.0, 1.0, 1.0, 1.0]))
    z = np.arange(200.0)
    cord = np.column_stack(
        [np.full(200, 60.0), 60 + amplitude * np.sin(phase + 2 * np.pi * z / wavelength), z]
    )
    clicked = cord[np.unique(np.rint(np.linspace(0, 199, 2 + int(199 / spacing))).astype(int))]
    line = curve_through(_world(grid, clicked), grid)
    # At its ends the curve is straight where the cord bends, over the length of smoothing, whose fourth power
    # is stiffness times spacing; between two clicks the cord sags by bend spacing^2 / 8.
    bend = amplitude * (2 * np.pi / wavelength) ** 2
    assert np.abs(line.points - cord).max() <= 1e-9 + bend * (np.sqrt(STIFFNESS * spacing) + spacing**2 / 8)
