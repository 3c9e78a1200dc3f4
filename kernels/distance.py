"""Quadratic distance transform of a slice: the lowest cost with which every pixel can be reached.

For a slice of costs f the transform is g(p) = min over q of f(q) + w (p - q)², first along x, then along y.
Two exact methods find the minima of a line:

- the lower envelope of parabolas (Felzenszwalb & Huttenlocher 2012, Distance Transforms of Sampled
  Functions, section 2.1), whose time does not depend on the costs;
- a direct search over displacements 1, 2, 3 ... in both directions, which ends when the penalty alone exceeds
  what is left to gain. It works on eight pixels at a time and is faster unless very many displacements pay.

The envelope compares candidates before they are rounded to float32, the search afterwards: their results
differ by one rounding at most, and not at all where the sums are exact.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["ENVELOPE_RADIUS", "quadratic_transform"]

# Voxels of displacement that may pay, from which on the envelope is faster (measured on 320 × 320 pixels).
ENVELOPE_RADIUS = 250

_JIT = {"cache": True, "nogil": True, "error_model": "numpy"}
# Lets comparisons run on eight values at once; costs are finite, or infinite beyond the border.
_NUMBERS = {"nnan", "nsz"}


@njit("UniTuple(float32, 2)(float32[::1])", fastmath=_NUMBERS, **_JIT)
def _range(line: NDArray[np.float32]) -> tuple[np.float32, np.float32]:
    lowest, highest = line[0], line[0]
    for i in range(line.size):
        lowest, highest = min(lowest, line[i]), max(highest, line[i])
    return lowest, highest


@njit(
    "void(float32[::1], float32[::1], float32[::1], float32[::1], float32, float32, float32[::1])",
    fastmath=_NUMBERS,
    **_JIT,
)
def _try_four(
    lower: NDArray[np.float32],
    upper: NDArray[np.float32],
    second_lower: NDArray[np.float32],
    second_upper: NDArray[np.float32],
    penalty: np.float32,
    second_penalty: np.float32,
    best: NDArray[np.float32],
) -> None:
    """Come from two displacements below or above, where that is cheaper.

    The old value stands inside the outer minimum, not in it: the compiler would make the store conditional,
    which is many times slower.
    """
    for i in range(best.size):
        nearer = min(lower[i], upper[i]) + penalty
        farther = min(second_lower[i], second_upper[i]) + second_penalty
        best[i] = min(nearer, min(farther, best[i]))


@njit("boolean(float32, float32, int64, int64)", **_JIT)
def _reaches(spread: np.float32, weight: np.float32, size: int, radius: int) -> bool:
    """Whether displacements of more than `radius` voxels may pay in a line of `size` voxels."""
    return bool(
        size - 1 > radius and weight > 0 and weight * np.float32(radius) * np.float32(radius) < spread
    )


@njit("void(float32[::1], float32, float32[::1], int64[::1], float64[::1])", **_JIT)
def _envelope(
    line: NDArray[np.float32],
    weight: np.float32,
    best: NDArray[np.float32],
    vertices: NDArray[np.int64],
    starts: NDArray[np.float64],
) -> None:
    """Transform one line by its lower envelope; `weight` is above 0.

    Parabola `vertices[k]` is the lowest one from `starts[k]` to `starts[k + 1]`.
    """
    last = 0
    vertices[0] = 0
    starts[0] = -np.inf
    scale = 0.5 / np.float64(weight)
    for q in range(1, line.size):
        while True:
            v = vertices[last]
            crossing = scale * (np.float64(line[q]) - np.float64(line[v])) / (q - v) + 0.5 * (q + v)
            if crossing > starts[last]:
                break
            last -= 1
        last += 1
        vertices[last] = q
        starts[last] = crossing
    starts[last + 1] = np.inf
    k = 0
    for p in range(line.size):
        while starts[k + 1] < p:
            k += 1
        d = np.float32(vertices[k] - p)
        best[p] = line[vertices[k]] + weight * (d * d)


@njit("void(float32[:, ::1], float32, float32, int64, float32[:, ::1])", **_JIT)
def quadratic_transform(
    cost: NDArray[np.float32],
    weight_x: float,
    weight_y: float,
    envelope_radius: int,
    transformed: NDArray[np.float32],
) -> None:
    """Lowest cost of coming to every pixel of a slice from any pixel of another one.

    Parameters
    ----------
    cost : (x, y) float32           finite
    weight_x, weight_y : float32    penalty per squared voxel of displacement, not negative
    envelope_radius : int           the lower envelope is used where displacements of more voxels than this
                                    may pay: `ENVELOPE_RADIUS`, or 0 or a large number to force one method
    transformed : (x, y) float32    is filled with the lowest sums ``(cost + penalty_x) + penalty_y``
    """
    n_x, n_y = cost.shape
    longest = max(n_x, n_y)
    vertices = np.empty(longest, np.int64)
    starts = np.empty(longest + 1, np.float64)
    column, column_best = np.empty(n_x, np.float32), np.empty(n_x, np.float32)
    # One row with a wall at each side, so that it can be shifted by its own length.
    line = np.empty(3 * n_y + 2, np.float32)
    for y in range(line.size):
        line[y] = np.inf
    wall = line[:n_y].copy()

    lowest, highest = _range(cost[0])
    for x in range(1, n_x):
        low, high = _range(cost[x])
        lowest, highest = min(lowest, low), max(highest, high)

    if _reaches(highest - lowest, weight_x, n_x, envelope_radius):
        for y in range(n_y):
            for x in range(n_x):
                column[x] = cost[x, y]
            _envelope(column, weight_x, column_best, vertices, starts)
            for x in range(n_x):
                transformed[x, y] = column_best[x]
    else:
        for x in range(n_x):
            best = transformed[x]
            for y in range(n_y):
                best[y] = cost[x, y]
            highest = _range(best)[1]
            for d in range(1, max(x, n_x - 1 - x) + 1, 2):
                penalty = weight_x * np.float32(d * d)
                if lowest + penalty > highest:
                    break
                _try_four(
                    cost[x - d] if d <= x else wall,
                    cost[x + d] if x + d < n_x else wall,
                    cost[x - d - 1] if d + 1 <= x else wall,
                    cost[x + d + 1] if x + d + 1 < n_x else wall,
                    penalty,
                    weight_x * np.float32((d + 1) * (d + 1)),
                    best,
                )
                if d == 1 or d == 5 or d == 21:  # the worst pixels have found something better
                    highest = _range(best)[1]

    for x in range(n_x):
        best = transformed[x]
        lowest, highest = _range(best)
        for y in range(n_y):
            line[n_y + 1 + y] = best[y]
        if _reaches(highest - lowest, weight_y, n_y, envelope_radius):
            _envelope(line[n_y + 1 : 2 * n_y + 1], weight_y, best, vertices, starts)
            continue
        for d in range(1, n_y, 2):
            penalty = weight_y * np.float32(d * d)
            if lowest + penalty > highest:
                break
            _try_four(
                line[n_y + 1 - d : 2 * n_y + 1 - d],
                line[n_y + 1 + d : 2 * n_y + 1 + d],
                line[n_y - d : 2 * n_y - d],
                line[n_y + 2 + d : 2 * n_y + 2 + d],
                penalty,
                weight_y * np.float32((d + 1) * (d + 1)),
                best,
            )
            if d == 1 or d == 5 or d == 21:
                highest = _range(best)[1]
