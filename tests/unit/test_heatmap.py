"""Where the cord may be: heat of whole-slice detectors, of block detectors, and the SVM's score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastseg.engines.select import open_engine
from fastseg.errors import CordNotFound
from fastseg.heatmap import locate_by_blocks, locate_by_slices, locate_by_svm
from fastseg.networks.network import Role
from fastseg.networks.packs import find_pack
from fastseg.optic import optic_centerline
from fastseg.phantom import make_phantom
from fastseg.quirks import MENDED, SCT_QUIRKS
from fastseg.resampling import as_slices, resample_in_plane, working_grid
from fastseg.volume import SCT_RPI, Grid
from tests.fake_engines import FakeEngine, network

_DETECTOR = network(Role.DETECT_SLICES, spatial=(0, 0))
_BLOCKS = network(Role.DETECT_BLOCKS, spatial=(64, 64))


def _slices(shape: tuple[int, int, int] = (4, 20, 50)) -> Any:
    return np.random.default_rng(48).uniform(0, 100, shape).astype(np.float32)


def _spots(shape: tuple[int, int, int], places: dict[int, tuple[int, int]], radius: int = 3) -> Any:
    """Squares of 200 on 0."""
    out = np.zeros(shape, np.float32)
    for z, (x, y) in places.items():
        out[z, x - radius : x + radius + 1, y - radius : y + radius + 1] = 200
    return out


def _bright(blocks: Any) -> Any:
    """Cord is what is brighter than the middle of all greys; scaling does not matter."""
    return blocks > blocks.min() + np.ptp(blocks) / 2


# Whole slices ----------------------------------------------------------------------------------------------


def _blobs(shape: tuple[int, ...], places: dict[int, tuple[int, int]]) -> Any:
    heat = np.zeros(shape, np.float32)
    for k, (u, v) in places.items():
        heat[k, 0, u, v] = 1
    return heat


def test_the_curve_runs_through_the_heat_at_1_mm() -> None:
    native = Grid((60, 70, 4), np.diag([-0.5, 0.5, 4, 1]))
    heat = _blobs((4, 1, 48, 48), dict.fromkeys(range(4), (9 + 12, 6 + 20)))  # 30 x 35 pixels lie at 9, 6
    line = locate_by_slices(_slices((4, 60, 70)), native, _DETECTOR, FakeEngine(lambda _: heat), 0.5)
    assert line.grid.shape == (30, 35, 4)
    np.testing.assert_array_equal(line.points, [[12, 20, z] for z in range(4)])


def test_a_coarse_heat_map_points_between_pixels() -> None:
    """A pixel of 2 mm is the middle of two pixels of 1 mm."""
    native = Grid((30, 34, 2), np.diag([-1.0, 1, 4, 1]))
    heat = _blobs((2, 1, 24, 24), {0: (12, 15), 1: (12, 15)})  # 30 x 34 pixels lie at 9, 7
    line = locate_by_slices(_slices((2, 30, 34)), native, _DETECTOR, FakeEngine(lambda _: heat), 0.5)
    np.testing.assert_array_equal(line.points[:, :2], [[24.5 - 9, 30.5 - 7]] * 2)


def test_slices_without_cord_are_not_covered() -> None:
    native = Grid((30, 30, 9), np.diag([-1.0, 1, 4, 1]))
    heat = _blobs((9, 1, 48, 48), dict.fromkeys(range(2, 6), (24, 24)))
    line = locate_by_slices(_slices((9, 30, 30)), native, _DETECTOR, FakeEngine(lambda _: heat), 0.5)
    assert line.z.tolist() == [2, 3, 4, 5]


def test_the_curve_is_straight_between_thin_slices_that_were_looked_at() -> None:
    native = Grid((48, 48, 7), np.diag([-1.0, 1, 1, 1]))
    heat = _blobs((3, 1, 48, 48), {0: (20, 24), 1: (21, 24), 2: (22, 24)})  # slices 0, 3 and 6
    line = locate_by_slices(_slices((7, 48, 48)), native, _DETECTOR, FakeEngine(lambda _: heat), 0.5)
    assert line.z.tolist() == list(range(7))
    np.testing.assert_allclose(line.points[:, 0], 20 + np.arange(7) / 3, rtol=1e-12)


@pytest.mark.parametrize("level", [0.0, 0.49])
def test_a_cold_heat_map_is_no_cord(level: float) -> None:
    native = Grid((30, 30, 2), np.diag([-1.0, 1, 2, 1]))
    engine = FakeEngine(lambda batch: np.full_like(batch, level))
    with pytest.raises(CordNotFound, match="sees no spinal cord on any slice"):
        locate_by_slices(_slices((2, 30, 30)), native, _DETECTOR, engine, 0.5)


@pytest.mark.parametrize("contrast", ["t1", "t2", "t2s", "dwi"])
def test_the_packs_detector_finds_the_phantoms_cord(contrast: str) -> None:
    image, mask = make_phantom(contrast, n_slices=4)
    native, cord = image.reoriented(SCT_RPI), mask.reoriented(SCT_RPI)
    detector = find_pack("default").network(Role.DETECT_SLICES, contrast)
    with open_engine(detector) as engine:
        line = locate_by_slices(as_slices(native), native.grid, detector, engine, 0.3)
    for x, y, z in np.rint(line.on(native.grid).points).astype(int):
        assert cord.voxels[x, y, z]


# Blocks ----------------------------------------------------------------------------------------------------


def test_the_curve_through_blocks_ends_at_the_last_slice_with_cord() -> None:
    """SCT leaves that slice out as well."""
    places = dict.fromkeys(range(2, 6), (24, 32))
    slices = _spots((9, 64, 64), places, radius=12)
    working = Grid((64, 64, 9), np.diag([-0.5, 0.5, 2, 1]))
    engine = FakeEngine(_bright)
    settings: dict[str, Any] = {"contrast": "t2", "brain": False}
    mended = locate_by_blocks(slices, working, _BLOCKS, engine, quirks=MENDED, **settings)
    assert mended.z.tolist() == list(range(6))
    # The curve is traced at 1 mm: two of these pixels.
    np.testing.assert_allclose(mended.points[:, :2], [[24, 32]] * 6, rtol=0, atol=1)
    theirs = locate_by_blocks(slices, working, _BLOCKS, engine, quirks=SCT_QUIRKS, **settings)
    assert theirs.z.tolist() == list(range(5))


def test_the_curve_through_blocks_covers_all_slices_when_the_top_has_cord() -> None:
    slices = _spots((5, 64, 64), {4: (24, 32)}, radius=12)
    working = Grid((64, 64, 5), np.diag([-0.5, 0.5, 2, 1]))
    engine = FakeEngine(_bright)
    for quirks in (MENDED, SCT_QUIRKS):
        line = locate_by_blocks(slices, working, _BLOCKS, engine, contrast="t2", brain=False, quirks=quirks)
        assert line.z.tolist() == list(range(5))


def test_the_curve_through_t2s_blocks_is_stiffer() -> None:
    slices = _spots((3, 64, 64), {0: (24, 32), 1: (36, 32), 2: (24, 32)}, radius=12)
    working = Grid((64, 64, 3), np.diag([-0.5, 0.5, 4, 1]))
    engine = FakeEngine(_bright)

    def bend(contrast: str) -> float:
        line = locate_by_blocks(
            slices, working, _BLOCKS, engine, contrast=contrast, brain=False, quirks=MENDED
        )
        return float(np.ptp(line.points[:, 0]))

    assert bend("t2s") < 6 < bend("t2")


# SVM -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zoom", [0.5, 1.0])
def test_the_svm_gives_optics_path_on_every_slice(zoom: float) -> None:
    slices = _slices((3, 20, 24))
    native = Grid((20, 24, 3), np.diag([-zoom, zoom, 2, 1]))
    working = working_grid(native)
    coefficients = np.random.default_rng(49).normal(0, 0.1, 577).astype(np.float32)
    line = locate_by_svm(slices, working, coefficients)
    path = optic_centerline(
        resample_in_plane(slices, working).transpose(1, 2, 0), working.zooms, coefficients
    )
    assert line.grid is working
    np.testing.assert_array_equal(line.points, np.column_stack([path, range(3)]))
