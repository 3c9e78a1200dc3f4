"""A curve that is smooth and near its points: the natural cubic smoothing spline."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["smoothing_spline"]

_Floats = NDArray[np.float64]


def smoothing_spline(
    height: _Floats, values: _Floats, at: _Floats, *, stiffness: float, weights: _Floats
) -> _Floats:
    """Smooth values over heights, exactly; beyond the ends the curve goes on straight.

    Parameters
    ----------
    height : (n,)                 ascending, no two equal
    values : (n, k)               at these heights; each column is smoothed by itself
    at : (m,)                     heights of the result
    stiffness : weight of the bending, from 0 (the curve goes through all values)
    weights : (n,)                of the values

    Returns
    -------
    smoothed : (m, k)

    Notes
    -----
    Of all curves f that which minimises sum(weights (values - f)²) + stiffness ∫ f''² (Reinsch 1967; Green &
    Silverman 1994, section 2.3, whose R and Q these are). scipy.interpolate.make_smoothing_spline finds the
    same from five values on.

    Examples
    --------
    >>> height, values = np.array([0.0, 1.0, 2.0]), np.array([[0.0], [1.0], [0.0]])
    >>> for stiffness in (0.0, 1e9):
    ...     smooth = smoothing_spline(height, values, height, stiffness=stiffness, weights=np.ones(3))
    ...     print(np.round(smooth[:, 0], 3).tolist())
    [0.0, 1.0, 0.0]
    [0.333, 0.333, 0.333]
    """
    if len(height) == 1:
        return np.repeat(values, len(at), axis=0)
    step = np.diff(height)[:, None]
    bend = np.zeros_like(values)  # second derivative, 0 at both ends
    if len(height) > 2:
        loose = stiffness / weights
        bend[1:-1] = _bend(step[:, 0], np.diff(np.diff(values, axis=0) / step, axis=0), loose)
        pull = np.diff(np.diff(bend, axis=0) / step, axis=0, prepend=0, append=0)
        values = values - loose[:, None] * pull
    inner = np.clip(at, height[0], height[-1])
    left = np.clip(np.searchsorted(height, inner, side="right") - 1, 0, len(step) - 1)
    width = step[left]
    done, todo = (inner - height[left])[:, None], (height[left + 1] - inner)[:, None]
    chord = (todo * values[left] + done * values[left + 1]) / width
    bow = (1 + todo / width) * bend[left] + (1 + done / width) * bend[left + 1]
    ends = np.array([0, -1])
    slope = np.diff(values, axis=0)[ends] / step[ends]
    slope += np.array([[-1.0], [1.0]]) * step[ends] / 6 * bend[[1, -2]]
    outer = (at - inner)[:, None]
    smoothed: _Floats = chord - done * todo / 6 * bow + outer * np.where(outer < 0, slope[0], slope[1])
    return smoothed


def _bend(step: _Floats, turns: _Floats, loose: _Floats) -> _Floats:
    """Second derivatives at the inner heights: (R + Qᵀ diag(loose) Q) bend = turns, five bands, symmetric."""
    from scipy.linalg import solveh_banded  # only here, because few runs need it

    before, after = 1 / step[:-1], 1 / step[1:]
    middle = -(before + after)
    bands = np.zeros((min(3, len(before)), len(before)))
    bands[0] = (step[:-1] + step[1:]) / 3
    bands[0] += loose[:-2] * before**2 + loose[1:-1] * middle**2 + loose[2:] * after**2
    if len(bands) > 1:
        bands[1, :-1] = step[1:-1] / 6
        bands[1, :-1] += loose[1:-2] * middle[:-1] * before[1:] + loose[2:-1] * after[:-1] * middle[1:]
    if len(bands) > 2:
        bands[2, :-2] = loose[2:-2] * after[:-2] * before[2:]
    bend: _Floats = solveh_banded(bands, turns, lower=True)
    return bend
