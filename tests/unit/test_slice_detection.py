"""The whole-slice detector: what it is shown, what its answers mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastseg.networks.network import Role
from fastseg.slice_detection import examined_slices, holds_cord, peak_heat, refined, slice_heat
from tests.fake_engines import FakeEngine, network

_DETECTOR = network(Role.DETECT_SLICES, spatial=(0, 0))


def _slices(shape: tuple[int, int, int] = (4, 20, 50)) -> Any:
    return np.random.default_rng(48).uniform(0, 100, shape).astype(np.float32)


def _halved(batch: Any) -> Any:
    return batch.reshape(*batch.shape[:2], batch.shape[2] // 2, 2, batch.shape[3] // 2, 2).mean((3, 5))


@pytest.mark.parametrize(
    ("shape", "padded"), [((48, 64), (48, 64)), ((20, 50), (48, 64)), ((65, 1), (80, 48))]
)
def test_slices_are_padded_to_what_the_detector_takes(shape: Any, padded: Any) -> None:
    engine = FakeEngine()
    heat, pixels, lead = slice_heat(_slices((3, *shape)), _DETECTOR, engine)
    assert engine.batches[0].shape == (3, 1, *padded)
    assert (heat.shape, pixels, lead) == ((3, *shape), 1, (0, 0))
    assert heat.flags.c_contiguous


def test_the_slices_lie_in_the_middle_of_the_padding_and_come_back_from_there() -> None:
    slices = _slices()
    engine = FakeEngine()
    heat, _, _ = slice_heat(slices, _DETECTOR, engine)
    np.testing.assert_array_equal(engine.batches[0][:, 0, 14:34, 7:57], heat)
    assert engine.batches[0].sum() == pytest.approx(heat.sum(), rel=1e-5)  # the rest is 0; sums of float32
    brightest = np.percentile(slices, 99.7)
    # One division and one rounding of the percentile in float32.
    np.testing.assert_allclose(heat, np.clip(slices / brightest, 0, 1.2), rtol=2.0**-22)


def test_a_coarse_heat_map_covers_the_slices_and_says_where_it_begins() -> None:
    slices = np.zeros((1, 20, 33), np.float32)
    slices[0, 7, 9] = slices[0, 19, 32] = 50
    engine = FakeEngine(_halved)
    heat, pixels, lead = slice_heat(slices, _DETECTOR, engine)
    # Padding of 14 and 7: along y the first pixel of heat holds one of padding, and the last one too.
    assert (heat.shape, pixels, lead) == ((1, 10, 17), 2, (0, 1))
    assert np.argwhere(heat[0]).tolist() == [[(7 + 0) // 2, (9 + 1) // 2], [(19 + 0) // 2, (32 + 1) // 2]]


def test_a_negative_background_counts_as_dark() -> None:
    engine = FakeEngine()
    slices = _slices()
    plain, _, _ = slice_heat(slices - slices.min(), _DETECTOR, engine)
    shifted, _, _ = slice_heat(slices - slices.min() - 900, _DETECTOR, engine)
    # Values near -900 are rounded to 24 bits of 1024 before they are scaled by 1/100.
    np.testing.assert_allclose(shifted, plain, rtol=0, atol=2 * 1024 * 2.0**-24 / 90)


def test_outliers_are_clipped() -> None:
    slices = _slices()
    slices[0, 0, 0] = 1e6
    assert slice_heat(slices, _DETECTOR, FakeEngine())[0].max() == np.float32(1.2)


def test_black_slices_are_no_reason_to_fail() -> None:
    assert not slice_heat(np.zeros((2, 20, 20), np.float32), _DETECTOR, FakeEngine())[0].any()


def test_mean_and_deviation_of_the_network_are_applied() -> None:
    plain, scaled = FakeEngine(), FakeEngine()
    slice_heat(_slices(), _DETECTOR, plain)
    slice_heat(_slices(), network(Role.DETECT_SLICES, mean=0.25, std=0.5), scaled)
    inside = (slice(None), 0, slice(14, 34), slice(7, 57))
    np.testing.assert_array_equal(scaled.batches[0][inside], (plain.batches[0][inside] - 0.25) / 0.5)


def test_many_slices_run_in_several_batches_with_the_same_result() -> None:
    slices = _slices((130, 150, 120))
    engine = FakeEngine()
    heat, _, _ = slice_heat(slices, _DETECTOR, engine)
    assert len(engine.batches) > 1
    assert sum(len(batch) for batch in engine.batches) == len(heat) == 130
    np.testing.assert_array_equal(heat[-1], slice_heat(slices, _DETECTOR, engine)[0][-1])


@given(n=st.integers(1, 300), spacing=st.floats(0.2, 20))
def test_examined_slices_reach_both_ends_and_leave_no_gap_over_3_mm(n: int, spacing: float) -> None:
    seen = examined_slices(n, spacing)
    assert seen[0] == 0
    assert seen[-1] == n - 1
    if n > 1:
        steps = np.diff(seen)
        assert steps.min() >= 1
        assert steps.max() == 1 or steps.max() * spacing <= 3


def test_all_thick_slices_are_examined() -> None:
    assert examined_slices(11, 2.0).tolist() == list(range(11))


def test_the_peak_may_lie_beside_the_curve_but_not_far_from_it() -> None:
    heat = np.zeros((2, 9, 9), np.float32)
    heat[0, 5, 5], heat[1, 7, 4] = 0.7, 0.9
    assert peak_heat(heat, np.full((2, 2), 4, np.int32)).tolist() == pytest.approx([0.7, 0.0])


def test_a_point_moves_to_the_centre_of_the_heat() -> None:
    heat = np.zeros((1, 9, 9), np.float32)
    heat[0, 4, 4], heat[0, 5, 4] = 1.0, 1.0
    assert refined(heat, np.array([[4, 4]], np.int32)).tolist() == [[4.5, 4.0]]


def test_a_point_at_the_corner_of_cold_heat_stays() -> None:
    assert refined(np.zeros((1, 4, 4), np.float32), np.array([[0, 3]], np.int32)).tolist() == [[0, 3]]


def test_short_gaps_are_closed_and_long_ones_are_not() -> None:
    peaks = np.ones(20)
    peaks[3:6] = peaks[10:14] = 0
    there = holds_cord(peaks, 0.5, 3.0)  # 9 mm and 12 mm
    assert there[:10].all()
    assert not there[10:14].any()
    assert there[14:].all()


def test_an_isolated_find_is_a_mistake_unless_it_is_all_there_is() -> None:
    peaks = np.zeros(30)
    peaks[2] = peaks[20:] = 0.9
    assert np.flatnonzero(holds_cord(peaks, 0.5, 2.0)).tolist() == list(range(20, 30))
    peaks[20:] = 0
    assert np.flatnonzero(holds_cord(peaks, 0.5, 2.0)).tolist() == [2]


def test_a_gap_at_the_end_stays_open() -> None:
    assert holds_cord(np.array([0, 0, 1.0, 1.0, 0]), 0.5, 3.0).tolist() == [False, False, True, True, False]


def test_cold_slices_hold_no_cord() -> None:
    assert not holds_cord(np.full(5, 0.49), 0.5, 1.0).any()
