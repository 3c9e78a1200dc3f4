"""Linear resampling: whole slices, windows of them, and another grid, against scipy."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastseg.kernels.resample import resample_slices, resample_windows, sample_affine
from tests.reference import slow_resample

RNG = np.random.default_rng(41)
LEVEL = 100.0
# The result is rounded to float32 once, by half a unit of 128 at 24 bits; sums and coordinates are float64.
ROUNDING = {"rtol": 0, "atol": 128 * 2.0**-24}

STACKS = arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    elements=st.floats(-LEVEL, LEVEL, width=32),
)
SIZES = st.integers(1, 20)


@settings(deadline=None)
@given(STACKS, SIZES, SIZES)
def test_slices_equal_the_twins_up_and_down(slices, nx, ny):
    wanted = slow_resample.resample_slices(slices, nx, ny)
    np.testing.assert_allclose(resample_slices(slices, nx, ny), wanted, **ROUNDING)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 5), (2, 5, 1), (1, 6, 7)])
def test_the_same_size_gives_the_same_voxels(shape):
    slices = RNG.normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(resample_slices(slices, *shape[1:]), slices)


def test_one_voxel_is_spread_over_any_size():
    slices = np.full((1, 1, 1), 7, np.float32)
    assert (resample_slices(slices, 4, 5) == 7).all()


def test_twice_the_size_keeps_the_voxels_and_puts_means_between():
    slices = np.array([[[0, 4]]], np.float32)
    assert resample_slices(slices, 1, 4).tolist() == [[[0, 2, 4, 4]]]


def test_half_the_size_takes_every_second_voxel():
    slices = RNG.normal(size=(2, 8, 6)).astype(np.float32)
    np.testing.assert_array_equal(resample_slices(slices, 4, 3), slices[:, ::2, ::2])


def test_no_slices_give_no_slices():
    assert resample_slices(np.zeros((0, 3, 4), np.float32), 6, 8).shape == (0, 6, 8)


def test_a_wrong_type_is_refused_instead_of_compiled_anew():
    if numba.config.DISABLE_JIT:
        pytest.skip("numba is off")
    with pytest.raises(TypeError):
        resample_slices(np.zeros((1, 3, 4)), 6, 8)


@settings(deadline=None)
@given(STACKS, SIZES, SIZES, st.integers(1, 24), st.integers(1, 24), st.data())
def test_windows_equal_the_crop_of_the_whole(slices, nx, ny, size_x, size_y, data):
    count = data.draw(st.integers(0, 4))
    z = np.array([data.draw(st.integers(0, len(slices) - 1)) for _ in range(count)], np.int64)
    starts = np.array(
        [
            [data.draw(st.integers(0, max(n - size, 0))) for n, size in ((nx, size_x), (ny, size_y))]
            for _ in range(count)
        ],
        np.int64,
    ).reshape(count, 2)
    windows = resample_windows(slices, nx, ny, z, starts, size_x, size_y)
    whole = resample_slices(slices, nx, ny)
    for window, level, (x, y) in zip(windows, z, starts, strict=True):
        crop = np.zeros((size_x, size_y), np.float32)
        part = whole[level, x : x + size_x, y : y + size_y]
        crop[: part.shape[0], : part.shape[1]] = part
        np.testing.assert_array_equal(window, crop)  # the same sums in the same order
    wanted = slow_resample.resample_windows(slices, nx, ny, z, starts, size_x, size_y)
    np.testing.assert_allclose(windows, wanted, **ROUNDING)


def sampled(canvas, corner, matrix, offset, box):
    out = np.full([box[2, 1] - box[2, 0], box[0, 1] - box[0, 0], box[1, 1] - box[1, 0]], np.nan, np.float32)
    sample_affine(canvas, corner, matrix, offset, box, out)
    return out


SMALL = st.integers(0, 4)
BOXES = st.tuples(*[st.tuples(st.integers(-3, 3), st.integers(1, 6)) for _ in range(3)])


@settings(deadline=None)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
        elements=st.floats(-LEVEL, LEVEL, width=32),
    ),
    st.tuples(SMALL, SMALL, SMALL),
    arrays(np.float64, (3, 3), elements=st.floats(-1, 1)),
    st.sampled_from([1e-7, 0.05, 1.0]),
    arrays(np.float64, 3, elements=st.floats(-3, 3)),
    BOXES,
)
def test_samples_equal_affine_transform(canvas, corner, noise, amount, offset, ranges):
    """Near-diagonal as back from the working grid, a little oblique, and any matrix at all."""
    matrix = np.diag([1.7, 0.6, 1.0]) * (amount < 1) + amount * noise
    corner = np.array(corner, np.int64)
    box = np.array([[first, first + length] for first, length in ranges], np.int64)
    wanted = slow_resample.sample_affine(canvas, corner, matrix, offset, box)
    np.testing.assert_allclose(sampled(canvas, corner, matrix, offset, box), wanted, **ROUNDING)


def test_a_part_of_the_canvas_gives_the_same_samples_as_the_whole():
    whole = RNG.normal(size=(5, 9, 8)).astype(np.float32)
    matrix = np.diag([0.5, 0.5, 1.0]) + 1e-7 * RNG.normal(size=(3, 3))
    offset = np.array([1e-7, -1e-7, 1e-8])
    part, corner = np.ascontiguousarray(whole[1:5, 2:9, 3:8]), np.array([2, 3, 1])
    box = np.array([[6, 15], [8, 13], [2, 4]])  # sources lie at least one voxel inside the part
    np.testing.assert_array_equal(
        sampled(part, corner, matrix, offset, box),
        sampled(whole, np.zeros(3, np.int64), matrix, offset, box),
    )


def test_a_box_of_nothing_stays_nothing():
    box = np.array([[0, 0], [0, 3], [0, 2]])
    canvas = np.ones((2, 3, 3), np.float32)
    assert sampled(canvas, np.zeros(3, np.int64), np.eye(3), np.zeros(3), box).shape == (2, 0, 3)


def test_the_slice_above_does_not_count_where_its_weight_is_zero():
    canvas = np.ones((2, 2, 2), np.float32)
    canvas[1] = np.inf  # 0 times this would be NaN
    box = np.array([[0, 2], [0, 2], [0, 1]])
    assert (sampled(canvas, np.zeros(3, np.int64), np.eye(3), np.zeros(3), box) == 1).all()
