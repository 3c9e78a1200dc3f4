"""Where the cord may be: heat of whole-slice detectors, of block detectors, and the SVM's score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastseg.engines.select import open_engine
from fastseg.errors import CordNotFound
from fastseg.heatmap import locate_by_blocks, locate_by_slices, locate_by_svm, slice_heat
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


@pytest.mark.parametrize(
    ("shape", "padded"), [((48, 64), (48, 64)), ((20, 50), (48, 64)), ((65, 1), (80, 48))]
)
def test_slices_are_padded_to_what_the_detector_takes(shape: Any, padded: Any) -> None:
    engine = FakeEngine()
    heat = slice_heat(_slices((3, *shape)), _DETECTOR, engine)
    assert engine.batches[0].shape == (3, 1, *padded)
    assert heat.shape == (3, *shape)
    assert heat.flags.c_contiguous


def test_the_slices_lie_in_the_middle_of_the_padding_and_come_back_from_there() -> None:
    slices = _slices()
    engine = FakeEngine()
    heat = slice_heat(slices, _DETECTOR, engine)
    np.testing.assert_array_equal(engine.batches[0][:, 0, 14:34, 7:57], heat)
    assert engine.batches[0].sum() == pytest.approx(heat.sum(), rel=1e-5)  # the rest is 0; sums of float32
    brightest = np.percentile(slices, 99.7)
    # One division and one rounding of the percentile in float32.
    np.testing.assert_allclose(heat, np.clip(slices / brightest, 0, 1.2), rtol=2.0**-22)


def test_a_negative_background_counts_as_dark() -> None:
    engine = FakeEngine()
    slices = _slices()
    plain = slice_heat(slices - slices.min(), _DETECTOR, engine)
    shifted = slice_heat(slices - slices.min() - 900, _DETECTOR, engine)
    # Values near -900 are rounded to 24 bits of 1024 before they are scaled by 1/100.
    np.testing.assert_allclose(shifted, plain, rtol=0, atol=2 * 1024 * 2.0**-24 / 90)


def test_outliers_are_clipped() -> None:
    slices = _slices()
    slices[0, 0, 0] = 1e6
    assert slice_heat(slices, _DETECTOR, FakeEngine()).max() == np.float32(1.2)


def test_black_slices_are_no_reason_to_fail() -> None:
    assert not slice_heat(np.zeros((2, 20, 20), np.float32), _DETECTOR, FakeEngine()).any()


def test_mean_and_deviation_of_the_network_are_applied() -> None:
    plain, scaled = FakeEngine(), FakeEngine()
    slice_heat(_slices(), _DETECTOR, plain)
    slice_heat(_slices(), network(Role.DETECT_SLICES, mean=0.25, std=0.5), scaled)
    inside = (slice(None), 0, slice(14, 34), slice(7, 57))
    np.testing.assert_array_equal(scaled.batches[0][inside], (plain.batches[0][inside] - 0.25) / 0.5)


def test_the_curve_runs_through_the_heat_at_1_mm() -> None:
    native = Grid((60, 70, 4), np.diag([-0.5, 0.5, 2, 1]))
    heat = np.zeros((4, 1, 48, 48), np.float32)
    heat[:, 0, 9 + 12, 6 + 20] = 1  # 30 x 35 pixels lie at 9, 6
    line = locate_by_slices(_slices((4, 60, 70)), native, _DETECTOR, FakeEngine(lambda _: heat))
    assert line.grid.shape == (30, 35, 4)
    np.testing.assert_array_equal(line.points, [[12, 20, z] for z in range(4)])


@pytest.mark.parametrize("level", [0.0, 0.1])
def test_a_cold_heat_map_is_no_cord(level: float) -> None:
    native = Grid((30, 30, 2), np.diag([-1.0, 1, 2, 1]))
    engine = FakeEngine(lambda batch: np.full_like(batch, level))
    with pytest.raises(CordNotFound, match="sees no spinal cord on any slice"):
        locate_by_slices(_slices((2, 30, 30)), native, _DETECTOR, engine)


@pytest.mark.parametrize("contrast", ["t1", "t2", "t2s", "dwi"])
def test_the_packs_detector_finds_the_phantoms_cord(contrast: str) -> None:
    image, mask = make_phantom(contrast, n_slices=4)
    native, cord = image.reoriented(SCT_RPI), mask.reoriented(SCT_RPI)
    detector = find_pack("default").network(Role.DETECT_SLICES, contrast)
    with open_engine(detector) as engine:
        line = locate_by_slices(as_slices(native), native.grid, detector, engine)
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
