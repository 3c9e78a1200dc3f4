"""Threshold, holes, and the object that continues the cord, against scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastseg.kernels.components import border_distance, keep_cord_slices, label_objects
from tests.reference import slow_components

# Few values, so that objects, holes and equal sizes are common, and values equal to the threshold too.
STACKS = arrays(
    np.float32,
    st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 9)),
    elements=st.sampled_from([0.0, 0.5, 0.75, 1.0]),
)


def kept(*pictures, threshold=0.5):
    """Slices drawn with # for cord and . for the rest, and what is left of them."""
    stack = np.array([[[c == "#" for c in row] for row in picture] for picture in pictures], np.float32)
    mask = keep_cord_slices(stack, np.float32(threshold))
    return [["".join("#" if v else "." for v in row) for row in slice_] for slice_ in mask]


@settings(deadline=None, max_examples=300)
@given(STACKS, st.sampled_from([0.0, 0.4, 0.5, 0.75, 1.0]))
def test_mask_equals_the_twins(stack, threshold):
    wanted = slow_components.keep_cord_slices(stack, np.float32(threshold))
    np.testing.assert_array_equal(keep_cord_slices(stack, np.float32(threshold)), wanted)


@pytest.mark.parametrize("density", [0.35, 0.5, 0.65])
def test_mask_equals_the_twins_on_noise(density):
    stack = np.random.default_rng(42).random((6, 24, 20)).astype(np.float32)
    wanted = slow_components.keep_cord_slices(stack, np.float32(density))
    np.testing.assert_array_equal(keep_cord_slices(stack, np.float32(density)), wanted)


def test_the_threshold_itself_is_not_cord():
    stack = np.array([[[0.5, 0.50001]]], np.float32)
    assert keep_cord_slices(stack, np.float32(0.5)).tolist() == [[[0, 1]]]


def test_nan_is_not_cord():
    stack = np.array([[[np.nan, 1.0, np.nan]]], np.float32)
    assert keep_cord_slices(stack, np.float32(0.5)).tolist() == [[[0, 1, 0]]]


def test_a_hole_is_filled_and_a_bay_is_not():
    hole = ["#####", "#...#", "#.#.#", "#...#", "#####"]
    assert kept(hole) == [["#####"] * 5]
    bay = ["###", "#..", "###"]
    assert kept(bay) == [bay]


def test_a_hole_that_opens_at_a_corner_is_not_filled():
    leak = [".###", "#..#", "#..#", "####"]
    assert kept(leak) == [leak]


def test_objects_that_touch_at_a_corner_are_two():
    assert kept(["##.", "##.", "..#"]) == [["##.", "##.", "..."]]


def test_of_equally_large_objects_the_first_is_kept():
    assert kept(["#.#", "#.#"]) == [["#..", "#.."]]


def test_the_object_that_holds_the_centre_before_is_kept_though_it_is_smaller():
    below, above = ["#....", ".....", "....."], ["#..##", "...##", "....."]
    assert kept(below, above) == [below, ["#....", ".....", "....."]]


def test_an_empty_slice_keeps_the_centre():
    below, empty, above = ["#....", "....."], [".....", "....."], ["#..##", "...##"]
    assert kept(below, empty, above) == [below, empty, ["#....", "....."]]


def test_the_largest_is_kept_where_the_centre_lies_in_no_object():
    below, above = ["#....", "....."], ["...##", "...#."]
    assert kept(below, above) == [below, above]


def test_centres_between_two_pixels_are_rounded_to_the_even_one():
    """The centre of pixels 1 and 2 is 1.5, which is 2; that of 0 and 1 is 0."""
    assert kept([".##...."], ["##.#..."])[1] == ["##....."]  # pixel 2 is in neither: the largest
    assert kept([".##...."], ["###.###"])[1] == ["###...."]
    assert kept(["##....."], ["#.#####"])[1] == ["#......"]


BITS = st.integers(0, 1)
MASKS = arrays(np.uint8, st.tuples(st.integers(0, 4), st.integers(1, 6), st.integers(1, 6)), elements=BITS)


@settings(deadline=None)
@given(MASKS)
def test_objects_of_a_volume_are_numbered_as_the_twin_does(mask):
    labels = np.full(mask.shape, -1, np.int32)
    count = label_objects(mask, labels)
    wanted, wanted_count = slow_components.label_objects(mask)
    assert count == wanted_count
    np.testing.assert_array_equal(labels, wanted)


@settings(deadline=None)
@given(MASKS)
def test_distance_to_the_border_is_the_twins(mask):
    steps = np.full(mask.shape, 99, np.int32)
    border_distance(mask, steps)
    np.testing.assert_array_equal(steps, slow_components.border_distance(mask))
