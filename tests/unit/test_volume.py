"""Grids, volumes, and turning them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from fastseg.errors import InputError
from fastseg.volume import SCT_RPI, Grid, Volume

_ALL_AXCODES = [codes for order in permutations(("LR", "PA", "IS")) for codes in product(*order)]


def _volume(shape: tuple[int, int, int] = (3, 4, 5)) -> Volume:
    affine = nib.affines.from_matvec(np.diag([-0.8, 0.9, 3.0]), [10, -20, 30])
    return Volume(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), Grid(shape, affine))


def test_there_are_48_orientations() -> None:
    assert len(set(_ALL_AXCODES)) == 48


def test_zooms_are_lengths_of_columns_in_float32() -> None:
    tilt = np.radians(30)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    grid = Grid((2, 2, 2), nib.affines.from_matvec(turn @ np.diag([-0.7, 0.8, 4.0])))
    assert grid.zooms == tuple(float(np.float32(each)) for each in (0.7, 0.8, 4.0))
    assert grid.axcodes == ("L", "A", "S")


def test_an_affine_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"4 x 4 numbers, not \(3, 3\)"):
        Grid((1, 1, 1), np.eye(3))


def test_voxels_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match="do not fit the grid"):
        Volume(np.zeros((2, 3, 5)), Grid((2, 3, 4), np.eye(4)))


def test_nothing_of_a_volume_can_be_changed_through_it() -> None:
    volume = _volume()
    with pytest.raises(ValueError, match="read-only"):
        volume.voxels[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        volume.grid.affine[0, 0] = 1
    with pytest.raises(FrozenInstanceError):
        volume.grid.shape = (1, 1, 1)  # type: ignore[misc]


def test_a_grid_keeps_its_affine_when_the_givers_changes() -> None:
    affine = np.eye(4)
    grid = Grid((1, 1, 1), affine)
    affine[0, 0] = 9
    assert grid.affine[0, 0] == 1


def test_the_givers_array_stays_writable() -> None:
    voxels = np.zeros((2, 2, 2))
    Volume(voxels, Grid((2, 2, 2), np.eye(4)))
    voxels[0] = 1


@pytest.mark.parametrize("axcodes", _ALL_AXCODES, ids="".join)
def test_reorienting_gives_what_nibabel_gives(axcodes: tuple[str, str, str]) -> None:
    volume = _volume()
    turned = volume.reoriented(axcodes)
    change = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(SCT_RPI), nib.orientations.axcodes2ornt(axcodes)
    )
    wanted = nib.Nifti1Image(volume.voxels, volume.grid.affine).as_reoriented(change)
    np.testing.assert_array_equal(turned.voxels, np.asanyarray(wanted.dataobj))
    np.testing.assert_array_equal(turned.grid.affine, wanted.affine)
    assert turned.grid.axcodes == axcodes
    assert turned.grid.shape == volume.grid.reoriented(axcodes).shape == wanted.shape


def test_reorienting_copies_nothing() -> None:
    volume = _volume()
    assert np.shares_memory(volume.reoriented(("S", "P", "R")).voxels, volume.voxels)
    assert volume.reoriented(SCT_RPI) is volume
    assert volume.grid.reoriented(SCT_RPI) is volume.grid


def test_grids_are_the_same_space_when_every_voxel_lies_at_the_same_place() -> None:
    grid = _volume().grid
    assert grid.same_space(Grid(grid.shape, grid.affine))
    assert not grid.same_space(Grid((3, 4, 6), grid.affine))
    shifted = grid.affine.copy()
    shifted[0, 3] += 0.05
    assert not grid.same_space(Grid(grid.shape, shifted))
    assert grid.same_space(Grid(grid.shape, shifted), tolerance_mm=0.06)


def test_the_same_space_is_judged_at_the_far_corner() -> None:
    grid = Grid((101, 1, 1), np.eye(4))
    stretched = np.diag([1.001, 1, 1, 1])
    assert not grid.same_space(Grid((101, 1, 1), stretched), tolerance_mm=0.09)
    assert grid.same_space(Grid((101, 1, 1), stretched), tolerance_mm=0.11)
