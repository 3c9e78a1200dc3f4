"""From probabilities to a mask: objects, gaps and ends, with SCT's quirks and without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastseg.cleanup import clean_slices, clean_volume
from fastseg.quirks import MENDED, SCT_QUIRKS
from tests.reference import slow_cleanup

_ZOOMS = (1.0, 1.0, 2.5)


def _cord(n_slices: int = 12, *, missing: Any = (), small: Any = ()) -> Any:
    """A straight cord of 5 x 5 pixels, 2 x 2 on small slices."""
    values = np.zeros((n_slices, 12, 12), np.float32)
    values[:, 3:8, 3:8] = 1
    for z in small:
        values[z] = 0
        values[z, 4:6, 4:6] = 1
    values[list(missing)] = 0
    return values


def _covered(values: Any) -> list[int]:
    return np.flatnonzero(values.any(axis=(1, 2))).tolist()


# Slices ----------------------------------------------------------------------------------------------------


def test_slices_are_thresholded_strictly_and_come_as_floats() -> None:
    crops = np.array([[[0.5, 0.6], [0.5, 0.5]]], np.float32)
    kept = clean_slices(crops, np.array([3]), 0.5)
    assert kept.dtype == np.float32
    assert kept.tolist() == [[[0, 1], [0, 0]]]


def test_the_threshold_is_rounded_to_float32() -> None:
    """0.7 in float32 is less than 0.7: a probability of just that is not cord."""
    assert not clean_slices(np.full((1, 1, 1), 0.7, np.float32), np.array([0]), 0.7).any()


def test_predictions_on_empty_slices_steer_only_when_given() -> None:
    def crop(*columns: int) -> Any:
        out = np.zeros((1, 8), np.float32)
        out[0, list(columns)] = 1
        return out

    crops = np.stack([crop(0), crop(0, 4, 5)])
    z = np.array([0, 2])
    assert clean_slices(crops, z, 0.5)[1].tolist() == crop(0).tolist()
    steered = clean_slices(crops, z, 0.5, n_slices=3, empty_slice=crop(4))
    assert steered.shape == crops.shape
    assert steered[1].tolist() == crop(4, 5).tolist()
    whole = clean_slices(crops, np.arange(2), 0.5, n_slices=2, empty_slice=crop(4))
    assert whole[1].tolist() == crop(0).tolist()


# The volume ------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))),
    st.lists(st.booleans(), min_size=9, max_size=9),
    st.sampled_from([0.5, 2.5, 4.0, 12.0]),
)
def test_masks_equal_the_twins(mask: Any, covered: Any, pz: float) -> None:
    mask = mask & np.array(covered)[: len(mask), None, None]
    values = np.pad(mask, ((0, 0), (1, 1), (1, 1))).astype(np.float32)
    wanted = slow_cleanup.clean_volume(values, (1.0, 1.0, pz))
    np.testing.assert_array_equal(clean_volume(values, (1.0, 1.0, pz)).values, wanted)


def test_masks_of_large_and_small_objects_equal_the_twins() -> None:
    random = np.random.default_rng(50)
    for _ in range(20):
        values = np.zeros((14, 9, 9), np.float32)
        for _ in range(random.integers(1, 5)):
            z, x, y = (int(random.integers(0, n)) for n in (12, 6, 6))
            d, w, h = (int(random.integers(1, n)) for n in (6, 4, 4))
            values[z : z + d, 1 + x : min(1 + x + w, 8), 1 + y : min(1 + y + h, 8)] = 1
        wanted = slow_cleanup.clean_volume(values, _ZOOMS)
        np.testing.assert_array_equal(clean_volume(values, _ZOOMS).values, wanted)


@pytest.mark.parametrize("quirks", [MENDED, SCT_QUIRKS])
def test_a_sound_cord_and_nothing_stay_as_they_are(quirks: Any) -> None:
    for values in (_cord(), _cord(1), _cord(2), np.zeros((3, 4, 4), np.float32)):
        before = values.copy()
        cleaned = clean_volume(values, _ZOOMS, quirks=quirks)
        np.testing.assert_array_equal(cleaned.values, before)
        assert cleaned.notes == ()


@pytest.mark.parametrize("quirks", [MENDED, SCT_QUIRKS])
def test_what_was_given_is_not_changed(quirks: Any) -> None:
    values = _cord(missing=[5], small=[0, 11])
    values[11, 0, 0] = 1
    before = values.copy()
    clean_volume(values, _ZOOMS, quirks=quirks)
    np.testing.assert_array_equal(values, before)


def test_a_small_object_above_the_cord_goes_and_one_below_or_large_stays() -> None:
    values = _cord(16, missing=[0, 1, *range(8, 16)])
    values[0, 9, 9] = 1
    values[12, 9, 9] = 1
    values[14:, :6, :6] = 1
    cleaned = clean_volume(values, (1, 1, 20), first_slice=100, quirks=SCT_QUIRKS)
    assert not cleaned.values[12].any()
    assert cleaned.values[14:].sum() == 72
    assert cleaned.values[0].sum() == 1
    assert cleaned.notes[0] == "removed 1 small objects above slice 107"


def test_small_objects_go_from_both_ends_where_the_quirk_is_mended() -> None:
    values = _cord(16, missing=[0, 1, 2, *range(10, 16)])
    values[0, 9, 9] = values[14, 9, 9] = 1
    cleaned = clean_volume(values, (1, 1, 20), first_slice=100)
    np.testing.assert_array_equal(cleaned.values, _cord(16, missing=[0, 1, 2, *range(10, 16)]))
    assert cleaned.notes == (
        "removed 1 small objects above slice 109",
        "removed 1 small objects below slice 103",
    )


@pytest.mark.parametrize(
    ("pz", "missing", "filled"), [(2.5, 3, True), (2.5, 4, False), (0.5, 19, True), (0.5, 20, False)]
)
def test_gaps_shorter_than_10_mm_are_filled(pz: float, missing: int, filled: bool) -> None:
    values = _cord(missing + 10, missing=range(5, 5 + missing))
    cleaned = clean_volume(values, (1, 1, pz), first_slice=7)
    np.testing.assert_array_equal(cleaned.values, _cord(missing + 10) if filled else values)
    assert cleaned.notes == ((f"filled the gap in slices 12 to {11 + missing}",) if filled else ())


def test_sct_announces_gaps_and_leaves_them() -> None:
    values = _cord(missing=[5, 8])
    cleaned = clean_volume(values, _ZOOMS, quirks=SCT_QUIRKS)
    np.testing.assert_array_equal(cleaned.values, values)
    assert cleaned.notes == (
        "gap in slices 5 to 5 left as it is",
        "gap in slices 8 to 8 left as it is",
    )


def test_a_filled_gap_lies_between_its_neighbours() -> None:
    values = np.zeros((3, 20, 9), np.float32)
    values[0, 2:9, 2:7] = values[2, 6:13, 2:7] = 1
    middle = clean_volume(values, _ZOOMS).values[1]
    centre = (middle.sum(axis=1) @ np.arange(20)) / middle.sum()
    assert centre == pytest.approx(7, abs=0.5)  # (5 + 9) / 2, half a pixel for the raster
    assert 15 <= middle.sum() <= 35  # not larger than its neighbours of 35


def test_a_gap_in_a_soft_result_gets_means() -> None:
    values = _cord(9) * np.float32(0.8)
    values[6:] *= np.float32(0.5)
    values[4:6] = 0
    out = clean_volume(values, _ZOOMS, support=0.1).values
    # Weights of a third and two thirds, rounded to float32.
    np.testing.assert_allclose(out[4:6, 5, 5], [0.8 - 0.4 / 3, 0.8 - 0.8 / 3], rtol=1e-6)


def test_what_a_soft_result_has_below_the_support_is_no_cord() -> None:
    values = _cord(9)
    values[4] *= np.float32(0.05)
    assert clean_volume(values, _ZOOMS, support=0.1).values[4, 5, 5] == 1
    assert clean_volume(values, _ZOOMS, support=0.0).values[4, 5, 5] == np.float32(0.05)


@pytest.mark.parametrize("first_slice", [0, 3, 20])
def test_both_ends_are_tested_wherever_the_cord_begins(first_slice: int) -> None:
    values = _cord(12, missing=[0, 11], small=[1, 10])
    cleaned = clean_volume(values, (1.0, 2.0, 2.5), first_slice=first_slice)
    assert _covered(cleaned.values) == list(range(2, 10))
    assert cleaned.notes == (
        f"removed end slice {first_slice + 1}, 8.0 mm2",
        f"removed end slice {first_slice + 10}, 8.0 mm2",
    )


@pytest.mark.parametrize(("first", "removed"), [(0, True), (3, True), (4, False), (5, False)])
def test_sct_tests_the_lower_end_only_near_slice_zero(first: int, removed: bool) -> None:
    values = _cord(12, small=[0])
    cleaned = clean_volume(values, _ZOOMS, first_slice=first, quirks=SCT_QUIRKS)
    assert (not cleaned.values[0].any()) == removed


def test_sct_decides_nothing_where_a_gap_is_near_the_end() -> None:
    values = _cord(12, small=[0, 11], missing=[2, 9])
    np.testing.assert_array_equal(clean_volume(values, _ZOOMS, quirks=SCT_QUIRKS).values, values)
    mended = clean_volume(values, _ZOOMS).values
    assert _covered(mended) == list(range(1, 11))


def test_only_one_slice_at_an_end_is_removed() -> None:
    assert _covered(clean_volume(_cord(12, small=[0, 1]), _ZOOMS).values) == list(range(1, 12))


def test_a_gap_between_parts_that_do_not_overlap_is_not_said_to_be_filled() -> None:
    values = np.zeros((3, 20, 20), np.float32)
    values[0, 1:3, 1:3] = values[2, 16:18, 16:18] = 1
    cleaned = clean_volume(values, _ZOOMS)
    assert not cleaned.values[1].any()
    assert cleaned.notes == ("slices 1 to 1 could not be filled: too far apart",)
