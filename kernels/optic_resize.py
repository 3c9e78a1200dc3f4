"""OptiC's grey values and grids: to uint16, to uint8, to 1 mm in plane, and scores back to the slice's grid.

The reference outputs of OptiC depend on the rounding of each of these steps, so they follow OpenCV's
``resize`` with INTER_LINEAR to the last bit where images are concerned. Images are (x, y); x are OpenCV's
columns.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["finite_range", "resize_image", "resize_scores", "size_at_1_mm", "stretch_to_uint16", "to_uint8"]

_ONE = np.float32(1)
_FIXED_POINT = np.float32(2048)  # OpenCV's weights of uint8 pixels have 11 bits
_TILE = 16  # voxels; a tile of float64 fits into the first-level cache

# No fast maths: roundings are the point here.
_JIT = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(
    ["UniTuple(float64, 2)(float32[:, ::1])", "UniTuple(float64, 2)(float64[:, ::1])"],
    **_JIT,
)
def finite_range(voxels: NDArray[np.float32] | NDArray[np.float64]) -> tuple[float, float]:
    """Lowest and highest voxel; NaN and infinities count as 0.

    Parameters
    ----------
    voxels : (n, m) float32 or float64   in any order
    """
    n, m = voxels.shape
    # A minimum and a maximum for each column: comparisons then run on several voxels at once.
    low, high = np.empty(m, voxels.dtype), np.empty(m, voxels.dtype)
    for j in range(m):
        low[j] = high[j] = voxels[0, j] if abs(voxels[0, j]) < np.inf else 0
    zero = voxels.dtype.type(0)
    for i in range(n):
        line = voxels[i]
        for j in range(m):
            value = line[j] if abs(line[j]) < np.inf else zero
            low[j] = value if value < low[j] else low[j]
            high[j] = value if value > high[j] else high[j]
    lowest, highest = low[0], high[0]
    for j in range(m):
        lowest, highest = min(lowest, low[j]), max(highest, high[j])
    return float(lowest), float(highest)


@njit(
    [
        "void(float32[:, :, :], float64, float64, uint16[:, :, ::1])",
        "void(float64[:, :, :], float64, float64, uint16[:, :, ::1])",
    ],
    **_JIT,
)
def stretch_to_uint16(
    voxels: NDArray[np.float32] | NDArray[np.float64], low: float, high: float, out: NDArray[np.uint16]
) -> None:
    """Stretch low..high to 0..65535 and truncate, in the order of operations of SCT's ``optic.py``.

    Works in tiles, so that the voxels may lie in memory in any order.

    Parameters
    ----------
    voxels : (z, x, y) float32 or float64   any strides; NaN and infinities count as 0
    low, high : float                       of all voxels, with ``low < high``
    out : (z, x, y) uint16                  is filled
    """
    n_z, n_x, n_y = voxels.shape
    spread = high - low
    offset = low * 65535.0 / spread
    for z0 in range(0, n_z, _TILE):
        for x0 in range(0, n_x, _TILE):
            for y0 in range(0, n_y, 4 * _TILE):
                for z in range(z0, min(z0 + _TILE, n_z)):
                    for x in range(x0, min(x0 + _TILE, n_x)):
                        for y in range(y0, min(y0 + 4 * _TILE, n_y)):
                            voxel = np.float64(voxels[z, x, y])
                            value = voxel if abs(voxel) < np.inf else 0.0
                            out[z, x, y] = np.uint16(np.int32(value * 65535.0 / spread - offset))


@njit("void(uint16[:, ::1], uint8[:, ::1])", **_JIT)
def to_uint8(slice_: NDArray[np.uint16], image: NDArray[np.uint8]) -> None:
    """Scale a slice's own maximum to 255, rounded to nearest, ties to even; an empty slice stays empty."""
    n_x, n_y = slice_.shape
    highest = np.uint16(0)
    for x in range(n_x):
        for y in range(n_y):
            highest = max(highest, slice_[x, y])
    scale = np.float64(max(highest, np.uint16(1)))
    for x in range(n_x):
        for y in range(n_y):
            image[x, y] = np.uint8(np.int32(np.rint(np.float64(slice_[x, y]) * 255.0 / scale)))


def size_at_1_mm(size: int, zoom: float) -> int:
    """Pixels along an axis once it is resampled to 1 mm: rounded, ties to even, at least one."""
    return max(round(size * zoom), 1)


@njit("void(int64, float64, int64[::1], float32[::1])", **_JIT)
def _sources(size: int, step: float, lower: NDArray[np.int64], weight: NDArray[np.float32]) -> None:
    """Lower neighbour of every output pixel, which may lie outside the line, and weight of the upper one."""
    for i in range(lower.size):
        place = np.float32((i + 0.5) * step - 0.5)
        lower[i] = np.int64(np.floor(place))
        weight[i] = place - np.float32(lower[i])


@njit("void(int64, int64[::1], float32[::1])", **_JIT)
def _hold_ends(size: int, lower: NDArray[np.int64], weight: NDArray[np.float32]) -> None:
    """Take the outermost pixel alone where a neighbour would be outside."""
    for i in range(lower.size):
        if lower[i] < 0:
            lower[i] = 0
            weight[i] = 0
        elif lower[i] >= size - 1:
            lower[i] = size - 1
            weight[i] = 0


@njit("void(uint8[:, ::1], uint8[:, ::1])", **_JIT)
def _halve(image: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Mean of 2 × 2 pixels; where only some of them exist, theirs, rounded with ties to even."""
    n_x, n_y = image.shape
    whole_x, whole_y = min(out.shape[0], n_x // 2), min(out.shape[1], n_y // 2)
    for x in range(whole_x):
        first, second = image[2 * x], image[2 * x + 1]
        line = out[x]
        for y in range(whole_y):
            total = np.int32(first[2 * y]) + np.int32(first[2 * y + 1])
            total += np.int32(second[2 * y]) + np.int32(second[2 * y + 1])
            line[y] = np.uint8((total + 2) >> 2)
    for x in range(out.shape[0]):
        for y in range(whole_y if x < whole_x else 0, out.shape[1]):
            known = 0.0
            count = 0
            for i in range(2 * x, min(2 * x + 2, n_x)):
                for j in range(2 * y, min(2 * y + 2, n_y)):
                    known += float(image[i, j])
                    count += 1
            out[x, y] = np.uint8(np.rint(known / count))


@njit("void(uint8[:, ::1], float64, float64, uint8[:, ::1])", **_JIT)
def resize_image(image: NDArray[np.uint8], zoom_x: float, zoom_y: float, out: NDArray[np.uint8]) -> None:
    """Resample an image to 1 mm as ``cv2.resize(image, None, fx=zoom_x, fy=zoom_y)`` does.

    The distance between samples is 1 / zoom exactly, whatever size the rounding gives. Weights are
    fixed-point numbers; at a zoom of exactly 0.5 both ways OpenCV averages 2 × 2 pixels instead.

    Parameters
    ----------
    image : (x, y) uint8
    zoom_x, zoom_y : float   mm per pixel of the image
    out : (x', y') uint8     is filled; its axes have `size_at_1_mm` pixels
    """
    n_x, n_y = image.shape
    if zoom_x == 1.0 and zoom_y == 1.0:
        for x in range(n_x):
            for y in range(n_y):
                out[x, y] = image[x, y]
        return
    if zoom_x == 0.5 and zoom_y == 0.5:
        _halve(image, out)
        return
    lower_x, weight_x = np.empty(out.shape[0], np.int64), np.empty(out.shape[0], np.float32)
    lower_y, weight_y = np.empty(out.shape[1], np.int64), np.empty(out.shape[1], np.float32)
    _sources(n_x, 1.0 / zoom_x, lower_x, weight_x)
    _sources(n_y, 1.0 / zoom_y, lower_y, weight_y)
    _hold_ends(n_x, lower_x, weight_x)
    line = np.empty(n_y, np.int32)
    for x in range(out.shape[0]):
        a = np.int32(np.rint((_ONE - weight_x[x]) * _FIXED_POINT))
        b = np.int32(np.rint(weight_x[x] * _FIXED_POINT))
        first, second = image[lower_x[x]], image[min(lower_x[x] + 1, n_x - 1)]
        for y in range(n_y):
            line[y] = (np.int32(first[y]) * a + np.int32(second[y]) * b) >> 4
        for y in range(out.shape[1]):
            # Unlike along x, the weight stays as it is where both neighbours are the outermost pixel.
            a = np.int32(np.rint((_ONE - weight_y[y]) * _FIXED_POINT))
            b = np.int32(np.rint(weight_y[y] * _FIXED_POINT))
            i = min(max(lower_y[y], 0), n_y - 1)
            j = min(max(lower_y[y] + 1, 0), n_y - 1)
            out[x, y] = np.uint8((((a * line[i]) >> 16) + ((b * line[j]) >> 16) + 2) >> 2)


@njit("void(float32[:, ::1], float32[:, ::1])", **_JIT)
def resize_scores(scores: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Resample scores linearly as ``cv2.resize(scores, size)`` does.

    Here, unlike in `resize_image`, the distance between samples is the ratio of the sizes: the reference
    outputs require this asymmetry.

    Parameters
    ----------
    scores : (x', y') float32
    out : (x, y) float32   is filled
    """
    n_x, n_y = scores.shape
    if n_x == out.shape[0] and n_y == out.shape[1]:
        for x in range(n_x):
            for y in range(n_y):
                out[x, y] = scores[x, y]
        return
    lower_x, weight_x = np.empty(out.shape[0], np.int64), np.empty(out.shape[0], np.float32)
    lower_y, weight_y = np.empty(out.shape[1], np.int64), np.empty(out.shape[1], np.float32)
    _sources(n_x, n_x / out.shape[0], lower_x, weight_x)
    _sources(n_y, n_y / out.shape[1], lower_y, weight_y)
    _hold_ends(n_x, lower_x, weight_x)
    _hold_ends(n_y, lower_y, weight_y)
    lines = np.empty((n_x, out.shape[1]), np.float32)
    for x in range(n_x):
        score, line = scores[x], lines[x]
        for y in range(out.shape[1]):
            i = lower_y[y]
            line[y] = score[i] * (_ONE - weight_y[y]) + score[min(i + 1, n_y - 1)] * weight_y[y]
    for x in range(out.shape[0]):
        a, b = _ONE - weight_x[x], weight_x[x]
        first, second, line = lines[lower_x[x]], lines[min(lower_x[x] + 1, n_x - 1)], out[x]
        for y in range(out.shape[1]):
            line[y] = first[y] * a + second[y] * b
