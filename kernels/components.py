"""Objects in small 2D slices: threshold, fill holes, keep the object that continues the cord."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["keep_cord_slices"]


@njit("void(uint8[:, ::1], int32[::1])", cache=True, nogil=True)
def _fill_holes(mask: NDArray[np.uint8], stack: NDArray[np.int32]) -> None:
    """Fill background that no path of 8-connected background pixels joins to the border. In place."""
    nx, ny = mask.shape
    count = 0
    for i in range(nx):
        for j in range(ny):
            if (i == 0 or j == 0 or i == nx - 1 or j == ny - 1) and mask[i, j] == 0:
                mask[i, j] = 2  # background, reached from outside
                stack[count] = i * ny + j
                count += 1
    while count > 0:
        count -= 1
        i, j = stack[count] // ny, stack[count] % ny
        for a in range(max(i - 1, 0), min(i + 2, nx)):
            for b in range(max(j - 1, 0), min(j + 2, ny)):
                if mask[a, b] == 0:
                    mask[a, b] = 2
                    stack[count] = a * ny + b
                    count += 1
    for i in range(nx):
        for j in range(ny):
            mask[i, j] = mask[i, j] != 2


@njit("int64(uint8[:, ::1], int32[:, ::1], int32[::1], int64[::1])", cache=True, nogil=True)
def _label(
    mask: NDArray[np.uint8], labels: NDArray[np.int32], stack: NDArray[np.int32], sizes: NDArray[np.int64]
) -> int:
    """Number the 4-connected objects from 1 in raster order, count their pixels and return their number."""
    nx, ny = mask.shape
    for i in range(nx):
        for j in range(ny):
            labels[i, j] = 0
    found = 0
    for i0 in range(nx):
        for j0 in range(ny):
            if mask[i0, j0] == 0 or labels[i0, j0] != 0:
                continue
            found += 1
            labels[i0, j0] = found
            stack[0] = i0 * ny + j0
            count, size = 1, 0
            while count > 0:
                count -= 1
                size += 1
                i, j = stack[count] // ny, stack[count] % ny
                for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                    if 0 <= a < nx and 0 <= b < ny and mask[a, b] != 0 and labels[a, b] == 0:
                        labels[a, b] = found
                        stack[count] = a * ny + b
                        count += 1
            sizes[found] = size
    return found


@njit("uint8[:, :, ::1](float32[:, :, ::1], float32)", cache=True, nogil=True)
def keep_cord_slices(probabilities: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Binary cord of every crop: one object a slice, without holes.

    On each slice, from the first to the last, the object is kept that contains the rounded (half to even)
    centre of mass of the object kept before, in crop coordinates; if there is none, the largest, and of
    equally large ones the first in raster order. Empty slices leave the remembered centre as it is.

    Parameters
    ----------
    probabilities : (n, x, y) float32   crops, ascending in z
    threshold : cord is strictly above

    Returns
    -------
    mask : (n, x, y) uint8
    """
    n, nx, ny = probabilities.shape
    out = np.zeros((n, nx, ny), np.uint8)
    stack = np.empty(nx * ny, np.int32)
    labels = np.empty((nx, ny), np.int32)
    sizes = np.empty(nx * ny // 2 + 2, np.int64)
    px, py = -1, -1
    for s in range(n):
        mask = out[s]
        for i in range(nx):
            for j in range(ny):
                mask[i, j] = probabilities[s, i, j] > threshold
        _fill_holes(mask, stack)
        found = _label(mask, labels, stack, sizes)
        if found == 0:
            continue
        keep = labels[px, py] if px >= 0 else 0
        if keep == 0:
            keep = 1
            for label in range(2, found + 1):
                if sizes[label] > sizes[keep]:
                    keep = label
        sum_x, sum_y = 0, 0
        for i in range(nx):
            for j in range(ny):
                mask[i, j] = labels[i, j] == keep
                if mask[i, j]:
                    sum_x += i
                    sum_y += j
        px = int(np.round(sum_x / sizes[keep]))
        py = int(np.round(sum_y / sizes[keep]))
    return out
