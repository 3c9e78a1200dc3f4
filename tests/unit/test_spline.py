"""The natural cubic smoothing spline."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import CubicSpline, make_smoothing_spline

from fastseg.spline import smoothing_spline


@pytest.mark.parametrize("stiffness", [0.0, 0.3, 500.0, 1e5])
@pytest.mark.parametrize("count", [5, 6, 12, 60])
def test_it_is_scipys_where_scipy_has_one(count: int, stiffness: float) -> None:
    random = np.random.default_rng(count)
    height = np.cumsum(random.uniform(0.2, 20, count))
    values, weights = random.normal(0, 5, (count, 2)), random.uniform(0.5, 3, count)
    at = np.linspace(height[0], height[-1], 77)
    ours = smoothing_spline(height, values, at, stiffness=stiffness, weights=weights)
    theirs = make_smoothing_spline(height, values, w=weights, lam=stiffness)(at)
    # Two ways to solve one system, whose condition grows with stiffness / step^3.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_values_have_a_natural_spline_too(count: int) -> None:
    height, values = np.array([0.0, 10, 25, 31])[:count], np.array([[1.0], [4], [-2], [0]])[:count]
    at = np.linspace(0, height[-1], 40)
    ours = smoothing_spline(height, values, at, stiffness=0, weights=np.ones(count))
    if count == 2:
        wanted = np.interp(at, height, values[:, 0])[:, None]
    else:
        wanted = CubicSpline(height, values, bc_type="natural")(at)
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-12)  # float64 of values below 10


@pytest.mark.parametrize("count", [3, 4, 9])
def test_no_other_curve_costs_less(count: int) -> None:
    random = np.random.default_rng(count)
    height, values = np.cumsum(random.uniform(2, 20, count)), random.normal(0, 3, (count, 1))
    weights, stiffness = random.integers(1, 4, count).astype(float), 200.0

    def cost(inner: np.ndarray) -> float:
        curve = CubicSpline(height, inner, bc_type="natural")  # the straightest curve through these values
        bend = curve(height, 2)[:, 0]
        bending = (np.diff(height) / 3 * (bend[:-1] ** 2 + bend[:-1] * bend[1:] + bend[1:] ** 2)).sum()
        return float((weights[:, None] * (values - inner) ** 2).sum() + stiffness * bending)

    best = smoothing_spline(height, values, height, stiffness=stiffness, weights=weights)
    for _ in range(50):
        assert cost(best) < cost(best + random.normal(0, 0.01, best.shape))


def test_beyond_its_ends_it_goes_on_straight() -> None:
    height, values = np.array([0.0, 3, 5, 9]), np.array([[0.0], [2], [1], [4]])
    weights = np.ones(4)
    at = np.array([-3.0, -2, -1, -1e-9, 1e-9, 9 - 1e-9, 9 + 1e-9, 10, 11, 12])
    curve = smoothing_spline(height, values, at, stiffness=3, weights=weights)[:, 0]
    slopes = np.diff(curve) / np.diff(at)
    # The slope just inside either end comes from a step of 2e-9 in values of 16 digits.
    np.testing.assert_allclose(slopes[:4], slopes[0], rtol=1e-6)
    np.testing.assert_allclose(slopes[-4:], slopes[-1], rtol=1e-6)


def test_one_value_is_everywhere() -> None:
    curve = smoothing_spline(
        np.array([4.0]), np.array([[2.0, 7.0]]), np.arange(3.0), stiffness=500, weights=np.ones(1)
    )
    assert curve.tolist() == [[2.0, 7.0]] * 3
