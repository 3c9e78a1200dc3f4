"""Percentile rescaling, standardising, and voxels that are no numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastseg.errors import InputError
from fastseg.intensity import check_signal, finite_slices, rescale_percentiles, standardise

_CROPS = np.random.default_rng(44).normal(300, 80, (5, 8, 8)).astype(np.float32)


def test_a_volume_with_two_values_has_a_signal() -> None:
    check_signal(np.array([[[0, 1]]]))
    check_signal(np.array([[[np.nan, 0.0, np.inf, 1.0, -np.inf]]]))


@pytest.mark.parametrize("value", [0, 7, -3])
def test_a_constant_volume_is_refused_also_around_nan(value: int) -> None:
    with pytest.raises(InputError, match=f"every voxel has the value {value};"):
        check_signal(np.full((3, 3, 3), value, np.int16))
    voxels = np.full((3, 3, 3), value, np.float32)
    voxels[0, 0] = np.nan, np.inf, -np.inf
    with pytest.raises(InputError, match=f"every voxel has the value {value};"):
        check_signal(voxels)


def test_a_volume_without_numbers_is_refused() -> None:
    with pytest.raises(InputError, match="no voxel is a finite number"):
        check_signal(np.full((2, 2, 2), np.nan))


def test_nan_and_inf_become_the_darkest_value() -> None:
    slices = np.array([[[3, np.nan, np.inf, -np.inf, -2]]], np.float32)
    assert finite_slices(slices) is slices
    assert slices.tolist() == [[[3, -2, -2, -2, -2]]]


def test_the_percentiles_become_0_and_255_and_all_beyond_is_clipped() -> None:
    scaled, _ = rescale_percentiles(_CROPS)
    low, high = np.percentile(_CROPS.astype(np.float64), [2, 98])
    assert (scaled.min(), scaled.max()) == (0, 255)
    np.testing.assert_array_equal(scaled == 0, np.float32(low) >= _CROPS)
    np.testing.assert_array_equal(scaled == 255, np.float32(high) <= _CROPS)
    wanted = (np.clip(_CROPS, low, high) - low) / (high - low) * 255
    # Three float32 roundings of values up to 600, of which the difference is stretched to 255.
    np.testing.assert_allclose(scaled, wanted, rtol=0, atol=3 * 600 * 2.0**-24 * 255 / (high - low))


def test_the_crops_are_left_alone() -> None:
    before = _CROPS.copy()
    rescale_percentiles(_CROPS)
    np.testing.assert_array_equal(_CROPS, before)


def test_zero_is_told_what_became_of_it() -> None:
    crops = _CROPS - 300
    scaled, zero = rescale_percentiles(np.concatenate([crops, np.zeros((1, 8, 8), np.float32)]))
    assert zero == scaled[-1, 0, 0]
    assert 100 < zero < 155


def test_slices_of_zeros_count_in_the_percentiles_when_asked() -> None:
    together, _ = rescale_percentiles(np.concatenate([_CROPS, np.zeros((3, 8, 8), np.float32)]))
    counted, zero = rescale_percentiles(_CROPS, zero_slices=3)
    np.testing.assert_array_equal(counted, together[:5])
    assert zero == 0
    assert (rescale_percentiles(_CROPS)[0] != counted).any()


@pytest.mark.parametrize(("value", "wanted"), [(100, 100), (-4, 0), (3000, 255)])
def test_constant_crops_are_clipped_to_the_range(value: float, wanted: float) -> None:
    scaled, zero = rescale_percentiles(np.full((1, 4, 4), value, np.float32))
    assert (scaled == wanted).all()
    assert zero == wanted  # both percentiles are the value, so 0 is clipped to it


@settings(deadline=None)
@given(
    arrays(np.float32, (2, 5, 5), elements=st.integers(0, 1000), unique=True),
    st.integers(-8, 8),
    st.integers(-1000, 1000),
)
def test_result_does_not_depend_on_the_scale_of_the_image(crops: object, power: int, level: int) -> None:
    """Scales are powers of two and levels small integers, so the same roundings take place."""
    crops = np.asarray(crops)
    scaled, _ = rescale_percentiles(crops)
    other, _ = rescale_percentiles(crops * np.float32(2.0**power))
    np.testing.assert_array_equal(scaled, other)
    shifted, _ = rescale_percentiles(crops + np.float32(level))
    # The percentiles are rounded to float32 at another level: 2000 at 24 bits, stretched to 255.
    span = np.ptp(np.percentile(crops, [2, 98]))
    np.testing.assert_allclose(shifted, scaled, rtol=0, atol=3 * 2048 * 2.0**-24 * 255 / span + 1e-4)


def test_nan_poisons_the_percentiles() -> None:
    """What quirk 12 keeps: the default mode replaces NaN before."""
    crops = _CROPS.copy()
    crops[0, 0, 0] = np.nan
    assert np.isnan(rescale_percentiles(crops)[0]).all()


def test_standardising_with_nothing_to_do_copies_nothing() -> None:
    assert standardise(_CROPS, 0.0, 1.0) is _CROPS


def test_standardising_gives_float32() -> None:
    out = standardise(_CROPS, 65.8562, 59.7999)
    assert out.dtype == np.float32
    wanted = (_CROPS.astype(np.float64) - 65.8562) / 59.7999
    # Four roundings at most: mean, deviation, difference, quotient; each of 24 bits of values below 16.
    np.testing.assert_allclose(out, wanted, rtol=0, atol=4 * 16 * 2.0**-24)
