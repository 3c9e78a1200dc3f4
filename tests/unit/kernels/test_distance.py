"""The quadratic distance transform: both methods against a search of everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastseg.kernels.distance import ENVELOPE_RADIUS, quadratic_transform
from tests.reference import slow_optic

RNG = np.random.default_rng(40)
ENVELOPE, MIXED, SEARCH = 0, 3, 10**6
METHODS = pytest.mark.parametrize("radius", [ENVELOPE, MIXED, SEARCH])
SHAPES = pytest.mark.parametrize("shape", [(1, 1), (1, 12), (12, 1), (3, 5), (13, 10)])


def transformed(cost, weight_x, weight_y, radius):
    out = np.full(cost.shape, np.nan, np.float32)
    quadratic_transform(cost, weight_x, weight_y, radius, out)
    return out


@METHODS
@SHAPES
@pytest.mark.parametrize("weight", [0.0, 2.0**-8, 2.0**-4, 0.25, 1.0, 8.0])
def test_transform_is_exact_where_sums_are(shape, weight, radius):
    cost = (RNG.integers(-40, 41, shape) / 16).astype(np.float32)
    wanted = slow_optic.quadratic_transform(cost, weight, weight / 2)
    np.testing.assert_array_equal(transformed(cost, weight, weight / 2, radius), wanted)


COSTS = arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.floats(-100, 100, width=32),
)
WEIGHTS = st.floats(0, 1000, width=32)


@settings(deadline=None)
@given(COSTS, WEIGHTS, WEIGHTS)
def test_methods_differ_by_roundings_only(cost, weight_x, weight_y):
    wanted = slow_optic.quadratic_transform(cost, weight_x, weight_y)
    for radius in (ENVELOPE, MIXED, SEARCH):
        # Results lie between -100 and 100; two sums are rounded to 24 bits each.
        np.testing.assert_allclose(
            transformed(cost, weight_x, weight_y, radius), wanted, rtol=0, atol=2 * 200 * 2.0**-24
        )


@METHODS
def test_transform_without_penalty_is_the_minimum_everywhere(radius):
    cost = RNG.normal(size=(7, 6)).astype(np.float32)
    assert (transformed(cost, 0.0, 0.0, radius) == cost.min()).all()


@METHODS
def test_transform_with_an_immense_penalty_changes_nothing(radius):
    cost = RNG.normal(size=(7, 6)).astype(np.float32)
    np.testing.assert_array_equal(transformed(cost, 1e30, 1e30, radius), cost)


def test_search_is_used_on_ordinary_slices():
    assert ENVELOPE_RADIUS > 100
