"""Areas across the cord: analytic tubes whose area is known, in any orientation."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.centerline import Centerline
from fastseg.csa import COLUMNS, area_table, write_csa
from fastseg.errors import InputError, OutputError
from fastseg.volume import Grid, Volume

_ORIENTATIONS = [codes for ends in product("RL", "AP", "SI") for codes in permutations(ends)]


def _grid(
    shape: tuple[int, int, int] = (64, 96, 30), zooms: tuple[float, float, float] = (0.5, 0.5, 2.0)
) -> Grid:
    """A grid in SCT_RPI around the origin."""
    affine = np.diag([-zooms[0], zooms[1], zooms[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    return Grid(shape, affine)


def _tube(forwards: float, leftwards: float, *, radius: float = 5.0, grid: Grid | None = None) -> Volume:
    """A round tube through the origin that leans by two angles in degrees, seen from the side and front.

    Voxels on its surface hold about the part of them that is inside.
    """
    grid = grid or _grid()
    index = np.indices(grid.shape).reshape(3, -1)
    points = (grid.affine[:3, :3] @ index).T + grid.affine[:3, 3]
    axis = np.array([-np.tan(np.radians(leftwards)), np.tan(np.radians(forwards)), 1.0])
    axis /= np.linalg.norm(axis)
    beside = points - np.outer(points @ axis, axis)
    return Volume(_part(radius - np.linalg.norm(beside, axis=1), grid).reshape(grid.shape), grid)


def _part(depth: Any, grid: Grid) -> Any:
    return np.clip(depth / grid.zooms[0] + 0.5, 0, 1).astype(np.float32)


def _binary(tube: Volume) -> Volume:
    return Volume((tube.voxels > 0.5).astype(np.uint8), tube.grid)


@pytest.mark.parametrize("codes", _ORIENTATIONS, ids="".join)
def test_a_tilted_tube_has_its_own_area_in_any_orientation(codes: tuple[str, str, str]) -> None:
    rows = area_table(_binary(_tube(20, 8)).reoriented(codes))
    assert [row.z for row in rows] == list(range(30))
    truth = np.pi * 25
    # A circle of 31 mm crosses 90 pixels of 0.25 mm2, each off by up to half of itself, either way.
    assert max(abs(row.area_corrected_mm2 / truth - 1) for row in rows) < 0.02
    assert max(abs(row.angle_ap_deg - 20) for row in rows) < 0.5
    assert max(abs(row.angle_rl_deg - 8) for row in rows) < 0.5


@settings(max_examples=40, deadline=None)
@given(
    forwards=st.floats(-25, 25),
    leftwards=st.floats(-12, 12),
    radius=st.floats(3.5, 6),
    pitch=st.sampled_from([0.8, 2.0, 5.0]),
)
def test_the_corrected_area_does_not_depend_on_the_tilt(
    forwards: float, leftwards: float, radius: float, pitch: float
) -> None:
    grid = _grid((80, 110, max(round(50 / pitch), 5)), (0.4, 0.4, pitch))
    rows = area_table(_tube(forwards, leftwards, radius=radius, grid=grid))
    assert len(rows) == grid.shape[2]
    corrected = np.array([row.area_corrected_mm2 for row in rows])
    # The direction comes from centres that are off by some hundredths of a pixel.
    assert corrected == pytest.approx(np.full(len(rows), np.pi * radius**2), rel=0.02)
    slope = np.hypot(np.tan(np.radians(forwards)), np.tan(np.radians(leftwards)))
    assert np.mean([row.angle_deg for row in rows]) == pytest.approx(np.degrees(np.arctan(slope)), abs=0.7)


def test_the_area_of_the_slice_is_left_as_it_is() -> None:
    tube = _tube(25, 0)
    rows = area_table(tube)
    assert [row.area_mm2 for row in rows] == pytest.approx(0.25 * tube.voxels.sum(axis=(0, 1)))
    assert rows[3].area_corrected_mm2 / rows[3].area_mm2 == pytest.approx(np.cos(np.radians(25)), abs=0.01)


def test_the_correction_follows_a_bent_tube() -> None:
    """An arc of radius 120 mm in the sagittal plane: the tilt goes from -19 to 19 degrees."""
    grid = _grid((48, 80, 80), (0.5, 0.5, 1.0))
    x, y, z = (np.indices(grid.shape).T * np.diag(grid.affine)[:3] + grid.affine[:3, 3]).T
    rows = area_table(Volume(_part(4.5 - np.hypot(np.hypot(y - 115, z) - 120, x), grid), grid))
    truth = np.pi * 4.5**2
    assert np.ptp([row.area_mm2 for row in rows]) > 0.04 * truth
    # Where the arc leaves a slice obliquely, its cut is no ellipse any more.
    assert max(abs(row.area_corrected_mm2 / truth - 1) for row in rows) < 0.02
    tilt = np.degrees(np.arcsin(np.array([row.z - 39.5 for row in rows]) / 120))
    # A parabola for an arc, and half of its points at the ends.
    assert np.abs(np.array([row.angle_ap_deg for row in rows]) - tilt).max() < 1.0


def test_slices_that_are_not_at_right_angles_to_their_stack_are_measured_across_the_cord() -> None:
    """A sheared grid, as of a tilted gantry: each slice lies 0.3 of the pitch further to the front."""
    affine = _grid().affine.copy()
    affine[1, 2], affine[1, 3] = 0.6, affine[1, 3] - 0.6 * 29 / 2
    rows = area_table(_tube(0, 0, grid=Grid((64, 96, 30), affine)))
    assert len(rows) == 30
    assert [row.angle_deg for row in rows] == pytest.approx([0] * len(rows), abs=0.5)
    assert rows[0].z_mm == 0
    assert rows[1].z_mm == pytest.approx(2.0)


def test_slices_count_from_the_lowest_however_the_file_runs() -> None:
    grid = _grid((12, 12, 6), (1.0, 1.0, 3.0))
    voxels = np.zeros(grid.shape, np.uint8)
    voxels[3:6, 3:6, 4] = 1
    (row,) = area_table(Volume(voxels, grid).reoriented(("R", "P", "I")))
    assert (row.z, row.z_mm) == (4, 12.0)
    assert row.centre_mm == pytest.approx((1.5, -1.5, 4.5))


def test_a_slice_without_neighbours_is_taken_for_upright() -> None:
    grid = _grid((12, 12, 6), (1.0, 1.0, 3.0))
    voxels = np.zeros(grid.shape, np.uint8)
    voxels[3:6, 3:6, 4] = 1
    (row,) = area_table(Volume(voxels, grid))
    assert row.area_corrected_mm2 == row.area_mm2 == 9
    assert row.angle_deg == 0


def test_two_slices_give_the_direction_between_them() -> None:
    grid = _grid((20, 20, 2), (1.0, 1.0, 5.0))
    voxels = np.zeros(grid.shape, np.uint8)
    voxels[3:6, 3:6, 0] = voxels[3:6, 8:11, 1] = 1
    assert [row.angle_ap_deg for row in area_table(Volume(voxels, grid))] == pytest.approx([45, 45])


def test_slices_without_cord_have_no_row_and_do_not_bend_the_line() -> None:
    tube = _tube(20, 0)
    voxels = np.array(tube.voxels)
    voxels[..., 10:14] = 0
    rows = area_table(Volume(voxels, tube.grid))
    assert [row.z for row in rows] == [*range(10), *range(14, 30)]
    assert max(abs(row.angle_ap_deg - 20) for row in rows) < 0.5


def test_a_given_centerline_tells_the_direction_and_no_more() -> None:
    tube = _tube(0, 0)
    z = np.arange(30.0)
    leaning = Centerline(tube.grid, np.column_stack([np.full(30, 31.5), 20 + 2 * z, z]))
    rows, own = area_table(tube, leaning), area_table(tube)
    # 2 voxels of 0.5 mm per slice of 2 mm.
    assert [row.angle_ap_deg for row in rows] == pytest.approx([np.degrees(np.arctan(0.5))] * 30)
    assert [row.centre_mm for row in rows] == [row.centre_mm for row in own]
    assert [row.area_mm2 for row in rows] == [row.area_mm2 for row in own]


def test_a_centerline_of_another_volume_is_refused() -> None:
    line = Centerline(_grid((64, 96, 7)), np.array([[3.0, 3.0, 1.0]]))
    with pytest.raises(InputError, match="7 slices, the mask 30"):
        area_table(_tube(0, 0), line)


def test_soft_voxels_count_with_their_value_on_slices_above_the_threshold() -> None:
    grid = _grid((8, 8, 3), (1.0, 1.0, 1.0))
    voxels = np.zeros(grid.shape, np.float32)
    voxels[2:6, 2:6, 0] = 0.75
    voxels[2:6, 2:6, 1] = 0.25
    assert [(row.z, row.area_mm2) for row in area_table(Volume(voxels, grid), threshold=0.5)] == [(0, 12.0)]
    assert [row.z for row in area_table(Volume(voxels, grid))] == [0, 1]


def test_an_empty_mask_has_no_rows() -> None:
    grid = _grid((8, 8, 3))
    assert area_table(Volume(np.zeros(grid.shape, np.uint8), grid)) == ()


def _read(path: Path) -> list[dict[str, str]]:
    head, *lines = path.read_text().splitlines()
    return [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_the_file_has_the_rows_of_the_table_under_the_columns_that_are_described(tmp_path: Path) -> None:
    tube = _tube(20, 8)
    write_csa(tmp_path / "a.tsv", tube)
    written, rows = _read(tmp_path / "a.tsv"), area_table(tube)
    assert list(written[0]) == list(COLUMNS)
    assert [int(row["slice"]) for row in written] == [row.z for row in rows]
    numbers = [[float(value) for value in list(row.values())[1:]] for row in written]
    truth = [
        [
            *(row.z_mm, row.area_mm2, row.area_corrected_mm2),
            *(row.angle_deg, row.angle_ap_deg, row.angle_rl_deg),
            *row.centre_mm,
        ]
        for row in rows
    ]
    # Four digits after the point.
    assert np.abs(np.subtract(numbers, truth)).max() < 6e-5


def test_zero_has_no_sign_in_the_file(tmp_path: Path) -> None:
    grid = Grid((3, 3, 2), np.diag([-1.0, 1.0, 1.0, 1.0]))
    voxels = np.zeros(grid.shape, np.uint8)
    voxels[0, 0] = 1
    write_csa(tmp_path / "a.tsv", Volume(voxels, grid))
    assert "-0.0000" not in (tmp_path / "a.tsv").read_text()


def test_the_file_of_an_empty_mask_is_its_head(tmp_path: Path) -> None:
    write_csa(tmp_path / "a.tsv", Volume(np.zeros((3, 3, 3), np.uint8), _grid((3, 3, 3))))
    assert (tmp_path / "a.tsv").read_text() == "\t".join(COLUMNS) + "\n"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_csa(tmp_path / "none" / "a.tsv", _tube(0, 0))
