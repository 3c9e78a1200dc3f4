"""The curve through a stack of slices: dynamic programming along z.

Minimises E = sum over slices of -heat(x, y) + sum over steps of w_x dx² + w_y dy² over all paths with one
pixel per slice (Viterbi 1967); the step between slices is a quadratic distance transform (Felzenszwalb &
Huttenlocher 2012). The minimum is global.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fastseg.kernels.distance import ENVELOPE_RADIUS, quadratic_transform

__all__ = ["cheapest_path"]

_JIT = {"cache": True, "nogil": True, "error_model": "numpy"}


# "nnan" and "nsz" let the comparisons run on eight values at once; heat is finite.
@njit(
    [
        "float32(float32[:, ::1], float32, float32[:, ::1], float32[:, ::1])",
        "float32(float64[:, ::1], float32, float32[:, ::1], float32[:, ::1])",
    ],
    fastmath={"nnan", "nsz"},
    **_JIT,
)
def _add_slice(
    heat: NDArray[np.float32] | NDArray[np.float64],
    floor: np.float32,
    reached: NDArray[np.float32],
    cost: NDArray[np.float32],
) -> np.float32:
    """Cost of the best path to each pixel of a slice, and the lowest of these costs.

    The slice's heat is turned into cost below its own maximum, and `floor`, the lowest cost so far, is taken
    off: near the best path costs then stay close to 0, where float32 has digits to spare.
    """
    n_x, n_y = heat.shape
    peak = heat[0, 0]
    for x in range(n_x):
        for y in range(n_y):
            peak = max(peak, heat[x, y])
    lowest = np.float32(np.inf)
    for x in range(n_x):
        for y in range(n_y):
            total = (reached[x, y] - floor) + np.float32(peak - heat[x, y])
            cost[x, y] = total
            lowest = min(lowest, total)
    return lowest


@njit("UniTuple(int64, 2)(float32[:, ::1], float32, float32, float32, int64, int64)", **_JIT)
def _predecessor(
    cost: NDArray[np.float32],
    floor: np.float32,
    weight_x: np.float32,
    weight_y: np.float32,
    x: int,
    y: int,
) -> tuple[int, int]:
    """Pixel of a slice from which (x, y) of the next one is reached at the lowest cost.

    Ties go to the lowest y, then to the lowest x. `floor` is the lowest cost of the slice.
    """
    n_x, n_y = cost.shape
    best, best_x, best_y = cost[x, y], x, y
    first_y, last_y = 0, n_y - 1
    if weight_y * np.float32(n_y) * np.float32(n_y) > best - floor:
        radius = int(math.sqrt((best - floor) / weight_y)) + 1
        first_y, last_y = max(first_y, y - radius), min(last_y, y + radius)
    for i in range(n_x):
        penalty_x = weight_x * np.float32((i - x) * (i - x))
        if floor + penalty_x > best:
            continue
        for j in range(first_y, last_y + 1):
            total = (cost[i, j] + penalty_x) + weight_y * np.float32((j - y) * (j - y))
            if total < best or (total == best and (j < best_y or (j == best_y and i < best_x))):
                best, best_x, best_y = total, i, j
    return best_x, best_y


def cheapest_path(
    heat: NDArray[np.float32] | NDArray[np.float64], weight_x: float, weight_y: float
) -> NDArray[np.int32]:
    """Path of the highest sum of heat less penalties, one pixel per slice.

    Parameters
    ----------
    heat : (z, x, y) float32 or float64   finite, contiguous, not empty
    weight_x, weight_y : float            penalty per squared voxel of step between slices

    Returns
    -------
    path : (z, 2) int32   x, y on each slice

    Notes
    -----
    Of equally good ends the first in memory (lowest x, then lowest y) is taken, and of equally good steps
    the one from the lowest y, then the lowest x. Costs of all slices are kept instead of back-pointers: what
    led to the path's pixels is then searched for them alone, and the forward pass needs no arguments of its
    minima. Costs are float32 and close to 0 near the best path: a slice adds a rounding error of at most
    3e-7 times the costs there.
    """
    costs = np.empty(heat.shape, np.float32)
    floors = np.empty(len(heat), np.float32)
    reached = np.zeros(heat.shape[1:], np.float32)
    floors[0] = _add_slice(heat[0], 0.0, reached, costs[0])
    for z in range(1, len(heat)):
        quadratic_transform(costs[z - 1], weight_x, weight_y, ENVELOPE_RADIUS, reached)
        floors[z] = _add_slice(heat[z], floors[z - 1], reached, costs[z])
    path = np.empty((len(heat), 2), np.int32)
    path[-1] = np.unravel_index(np.argmin(costs[-1]), costs[-1].shape)
    for z in range(len(heat) - 1, 0, -1):
        path[z - 1] = _predecessor(costs[z - 1], floors[z - 1], weight_x, weight_y, path[z, 0], path[z, 1])
    return path
