"""OptiC on volumes: from voxels to a centerline."""

import numpy as np
import pytest

from fastseg.curve import trace_curve
from fastseg.errors import InputError
from fastseg.optic import optic_centerline, prepare_uint16, svm_score_map
from tests.reference import slow_optic

RNG = np.random.default_rng(60)
COEFFICIENTS = RNG.normal(0, 0.05, 577).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float16, np.float32, np.float64, bool])
def test_uint16_equals_its_twin_for_any_dtype(dtype):
    voxels = RNG.normal(100, 50, (5, 18, 70)).clip(0, 255).astype(dtype)
    np.testing.assert_array_equal(prepare_uint16(voxels), slow_optic.stretch_to_uint16(voxels))


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_uint16_does_not_depend_on_the_order_in_memory(axes):
    voxels = RNG.normal(size=(7, 18, 33)).astype(np.float32)
    stored = np.ascontiguousarray(voxels.transpose(axes)).transpose(np.argsort(axes))
    wanted = prepare_uint16(voxels)
    np.testing.assert_array_equal(prepare_uint16(stored), wanted)
    np.testing.assert_array_equal(prepare_uint16(stored[::-1, :, ::-1])[::-1, :, ::-1], wanted)
    np.testing.assert_array_equal(
        prepare_uint16(stored[::2, :, ::3]), slow_optic.stretch_to_uint16(voxels[::2, :, ::3])
    )


def test_nan_and_infinities_count_as_zero():
    voxels = RNG.normal(size=(4, 5, 6)).astype(np.float32)
    voxels[0, 0, 0], voxels[1, 0, 0], voxels[3, 4, 5] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(prepare_uint16(voxels), slow_optic.stretch_to_uint16(voxels))


@pytest.mark.parametrize("value", [0, 7, -1.5, np.nan, np.inf])
def test_constant_volume_becomes_zeros(value):
    assert not prepare_uint16(np.full((2, 3, 4), value, np.float32)).any()


@pytest.mark.parametrize("zooms", [(0.5, 0.5, 3), (1, 1, 1), (0.8413, 1.3, 2), (2.0, 0.35, 5)])
def test_score_map_equals_its_twin(zooms):
    voxels = RNG.integers(0, 65536, (7, 9, 2)).astype(np.uint16)
    scores = svm_score_map(voxels, zooms, COEFFICIENTS)
    assert scores.dtype == np.float32
    zoom_x, zoom_y = np.float64(np.float32(zooms[0])), np.float64(np.float32(zooms[1]))
    for z in range(2):
        image = slow_optic.resize_image(slow_optic.to_uint8(voxels[:, :, z]), zoom_x, zoom_y)
        wanted = slow_optic.resize_scores(slow_optic.score_pixels(image, COEFFICIENTS), (7, 9))
        np.testing.assert_allclose(scores[z], wanted, rtol=0, atol=1e-5)  # see the kernels' tests


def test_score_map_does_not_depend_on_the_neighbouring_slices():
    voxels = RNG.integers(0, 65536, (4, 5, 3)).astype(np.uint16)
    together = svm_score_map(voxels, (1, 1, 1), COEFFICIENTS)
    alone = svm_score_map(voxels[:, :, 1:2], (1, 1, 1), COEFFICIENTS)
    np.testing.assert_array_equal(together[1], alone[0])


def test_centerline_of_one_slice_is_the_best_score():
    voxels = RNG.normal(size=(6, 5, 1))
    scores = svm_score_map(prepare_uint16(voxels), (1, 1, 1), COEFFICIENTS)[0]
    path = optic_centerline(voxels, (1, 1, 1), COEFFICIENTS)
    assert path.tolist() == [list(np.unravel_index(scores.argmax(), scores.shape))]
    assert path.dtype == np.int32


def test_steps_are_penalised_in_millimetres():
    heat = np.zeros((2, 9, 9), np.float32)
    heat[0, 4, 4] = 1
    heat[1, 8, 4] = heat[1, 4, 8] = 0.4
    # Four voxels of 0.25 mm along y cost 1 / 3², four of 1 mm along x cost 16 / 3².
    assert trace_curve(heat, (1.0, 0.25, 3.0)).tolist() == [[4, 4], [4, 8]]
    assert trace_curve(heat, (0.25, 1.0, 3.0)).tolist() == [[4, 4], [8, 4]]


def test_smoothness_beyond_float32_gives_a_straight_line():
    heat = RNG.normal(size=(4, 5, 6))
    assert len(np.unique(trace_curve(heat, (1, 1, 1), smoothness=1e300), axis=0)) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_heat_that_is_not_finite_is_refused(value):
    heat = np.zeros((2, 3, 4), np.float32)
    heat[1, 2, 3] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        trace_curve(heat, (1, 1, 1))


def test_arrays_that_are_no_volumes_are_refused():
    for voxels in (np.zeros((3, 4)), np.zeros((0, 3, 4)), np.zeros((2, 3, 4), complex)):
        with pytest.raises(InputError, match="not a volume"):
            prepare_uint16(voxels)
    for heat in (np.zeros((3, 4)), np.zeros((2, 0, 4)), np.zeros((2, 3, 4), np.int16)):
        with pytest.raises(InputError, match="cannot be traced"):
            trace_curve(heat, (1, 1, 1))


@pytest.mark.parametrize("zooms", [(1, 1), (1, 1, 0), (1, -1, 1), (1, np.nan, 1), (np.inf, 1, 1)])
def test_zooms_that_are_no_sizes_are_refused(zooms):
    with pytest.raises(InputError, match="positive"):
        trace_curve(np.zeros((2, 3, 4)), zooms)


def test_detector_of_the_wrong_size_is_refused():
    with pytest.raises(InputError, match="577"):
        svm_score_map(np.zeros((2, 3, 4), np.uint16), (1, 1, 1), np.zeros(576, np.float32))


@pytest.mark.parametrize("smoothness", [-1.0, np.nan, np.inf])
def test_smoothness_that_is_no_penalty_is_refused(smoothness):
    with pytest.raises(InputError, match="smoothness"):
        trace_curve(np.zeros((2, 3, 4)), (1, 1, 1), smoothness)
