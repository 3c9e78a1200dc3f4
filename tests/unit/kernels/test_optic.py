"""The curve along z: dynamic programming against all pairs of pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastseg.kernels import optic
from tests.reference import slow_optic

RNG = np.random.default_rng(50)
SHAPES = [(1, 1, 1), (1, 4, 6), (4, 1, 1), (3, 1, 9), (3, 9, 1), (4, 3, 5), (5, 7, 6)]


@pytest.mark.parametrize("radius", [0, 2, 10**6])
@pytest.mark.parametrize("weight", [0.0, 2.0**-8, 0.0625, 0.25, 1.0, 8.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_path_equals_its_twin_ties_included(shape, weight, radius, monkeypatch):
    """Sixteenths are summed exactly, and there are so few values that ties abound."""
    monkeypatch.setattr(optic, "ENVELOPE_RADIUS", radius)
    heat = (RNG.integers(-4, 5, shape) / 16).astype(np.float32)
    wanted = slow_optic.cheapest_path(heat, weight, weight / 2)
    np.testing.assert_array_equal(optic.cheapest_path(heat, weight, weight / 2), wanted)


HEATS = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    elements=st.floats(-4, 4, width=32),
)
WEIGHTS = st.floats(0, 4)
# Five slices, each with five roundings of costs below 64 to 24 bits.
ROUNDING = 5 * 5 * 64 * 2.0**-24


@settings(deadline=None)
@given(HEATS, WEIGHTS, WEIGHTS, st.randoms(use_true_random=False))
def test_cost_of_the_path_is_at_most_that_of_any_path(heat, weight_x, weight_y, random):
    n_z, n_x, n_y = heat.shape
    path = optic.cheapest_path(heat, weight_x, weight_y)
    other = np.array([(random.randrange(n_x), random.randrange(n_y)) for _ in range(n_z)])
    wanted = slow_optic.energy(other, heat, weight_x, weight_y)
    assert slow_optic.energy(path, heat, weight_x, weight_y) <= wanted + ROUNDING


@settings(deadline=None)
@given(HEATS, WEIGHTS)
def test_cost_of_the_path_is_that_of_the_twins(heat, weight):
    wanted = slow_optic.energy(slow_optic.cheapest_path(heat, weight, weight), heat, weight, weight)
    found = slow_optic.energy(optic.cheapest_path(heat, weight, weight), heat, weight, weight)
    assert found == pytest.approx(wanted, abs=ROUNDING)


def test_path_through_one_slice_is_its_brightest_pixel():
    heat = np.zeros((1, 4, 5), np.float32)
    heat[0, 2, 3] = 1
    assert optic.cheapest_path(heat, 1.0, 1.0).tolist() == [[2, 3]]


def test_path_without_penalty_is_the_brightest_pixel_of_every_slice():
    heat = RNG.normal(size=(5, 6, 7)).astype(np.float32)
    brightest = [np.unravel_index(slice_.argmax(), slice_.shape) for slice_ in heat]
    np.testing.assert_array_equal(optic.cheapest_path(heat, 0.0, 0.0), brightest)


def test_path_with_an_immense_penalty_is_straight():
    heat = RNG.normal(size=(5, 6, 7)).astype(np.float32)
    straight = np.unravel_index(heat.astype(np.float64).sum(0).argmax(), (6, 7))
    np.testing.assert_array_equal(optic.cheapest_path(heat, 1e30, 1e30), [straight] * 5)


def test_path_does_not_depend_on_the_level_of_the_heat():
    heat = RNG.normal(size=(6, 5, 4))
    level = 1e9 * np.arange(6)[:, None, None]
    np.testing.assert_array_equal(
        optic.cheapest_path(heat + level, 0.25, 0.25), optic.cheapest_path(heat, 0.25, 0.25)
    )


def test_path_is_the_same_from_both_ends():
    heat = RNG.normal(size=(6, 5, 4)).astype(np.float32)
    upside_down = optic.cheapest_path(np.ascontiguousarray(heat[::-1]), 0.25, 0.5)
    np.testing.assert_array_equal(upside_down[::-1], optic.cheapest_path(heat, 0.25, 0.5))
