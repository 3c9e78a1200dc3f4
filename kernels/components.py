"""Objects in masks: the one that continues the cord on every slice, and those of a whole volume."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["border_distance", "keep_cord_slices", "label_objects"]


@njit(nogil=True)
def _fill_holes(mask: NDArray[np.uint8], box: NDArray[np.int64], stack: NDArray[np.int32]) -> None:
    """Fill background that no path of 8-connected background pixels joins to the border. In place.

    box holds the first and past-the-last x and y of the mask, with a margin of one pixel where there is
    room: outside it all is background, joined to the border.
    """
    x0, x1, y0, y1 = box
    ny = mask.shape[1]
    count = 0
    for i in range(x0, x1):
        for j in range(y0, y1):
            if (i == x0 or j == y0 or i == x1 - 1 or j == y1 - 1) and mask[i, j] == 0:
                mask[i, j] = 2  # background, reached from outside
                stack[count] = i * ny + j
                count += 1
    while count > 0:
        count -= 1
        i, j = stack[count] // ny, stack[count] % ny
        for a in range(max(i - 1, x0), min(i + 2, x1)):
            for b in range(max(j - 1, y0), min(j + 2, y1)):
                if mask[a, b] == 0:
                    mask[a, b] = 2
                    stack[count] = a * ny + b
                    count += 1
    for i in range(x0, x1):
        for j in range(y0, y1):
            mask[i, j] = mask[i, j] != 2


@njit(nogil=True)
def _label(
    mask: NDArray[np.uint8],
    box: NDArray[np.int64],
    labels: NDArray[np.int32],
    stack: NDArray[np.int32],
    sizes: NDArray[np.int64],
) -> int:
    """Number the 4-connected objects from 1 in raster order, count their pixels and return their number.

    Labels are set inside the box only.
    """
    x0, x1, y0, y1 = box
    ny = mask.shape[1]
    for i in range(x0, x1):
        for j in range(y0, y1):
            labels[i, j] = 0
    found = 0
    for i0 in range(x0, x1):
        for j0 in range(y0, y1):
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
                    if x0 <= a < x1 and y0 <= b < y1 and mask[a, b] != 0 and labels[a, b] == 0:
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
    box = np.empty(4, np.int64)
    px, py = -1, -1
    for s in range(n):
        mask = out[s]
        x0, x1, y0, y1 = nx, 0, ny, 0
        for i in range(nx):
            for j in range(ny):
                if probabilities[s, i, j] > threshold:
                    mask[i, j] = 1
                    x0, x1, y0, y1 = min(x0, i), max(x1, i + 1), min(y0, j), max(y1, j + 1)
        if x1 == 0:
            continue
        box[0], box[1], box[2], box[3] = max(x0 - 1, 0), min(x1 + 1, nx), max(y0 - 1, 0), min(y1 + 1, ny)
        _fill_holes(mask, box, stack)
        found = _label(mask, box, labels, stack, sizes)
        inside = box[0] <= px < box[1] and box[2] <= py < box[3]
        keep = labels[px, py] if inside else 0
        if keep == 0:
            keep = 1
            for label in range(2, found + 1):
                if sizes[label] > sizes[keep]:
                    keep = label
        sum_x, sum_y = 0, 0
        for i in range(box[0], box[1]):
            for j in range(box[2], box[3]):
                mask[i, j] = labels[i, j] == keep
                if mask[i, j]:
                    sum_x += i
                    sum_y += j
        px = int(np.round(sum_x / sizes[keep]))
        py = int(np.round(sum_y / sizes[keep]))
    return out


@njit("int64(uint8[:, :, ::1], int32[:, :, ::1])", cache=True, nogil=True)
def label_objects(mask: NDArray[np.uint8], labels: NDArray[np.int32]) -> int:
    """Number the 6-connected objects of a volume from 1, in (x, y, z) raster order of their first voxel.

    Parameters
    ----------
    mask : (z, x, y) uint8        objects are what is not 0
    labels : (z, x, y) int32      filled; 0 outside

    Returns
    -------
    count : number of objects
    """
    nz, nx, ny = mask.shape
    size = 0
    for z in range(nz):
        for i in range(nx):
            for j in range(ny):
                labels[z, i, j] = 0
                if mask[z, i, j] != 0:
                    size += 1
    stack = np.empty(size, np.int64)
    found = 0
    for i0 in range(nx):
        for j0 in range(ny):
            for z0 in range(nz):
                if mask[z0, i0, j0] == 0 or labels[z0, i0, j0] != 0:
                    continue
                found += 1
                labels[z0, i0, j0] = found
                stack[0] = (z0 * nx + i0) * ny + j0
                count = 1
                while count > 0:
                    count -= 1
                    here = stack[count]
                    j, i, z = here % ny, here // ny % nx, here // (nx * ny)
                    for axis in range(3):
                        for step in (-1, 1):
                            c = z + step if axis == 0 else z
                            a = i + step if axis == 1 else i
                            b = j + step if axis == 2 else j
                            inside = 0 <= c < nz and 0 <= a < nx and 0 <= b < ny
                            if inside and mask[c, a, b] != 0 and labels[c, a, b] == 0:
                                labels[c, a, b] = found
                                stack[count] = (c * nx + a) * ny + b
                                count += 1
    return found


@njit("void(uint8[:, :, ::1], int32[:, :, ::1])", cache=True, nogil=True)
def border_distance(mask: NDArray[np.uint8], steps: NDArray[np.int32]) -> None:
    """City-block distance to the border of the mask on every slice, by two passes (Rosenfeld, Pfaltz 1966).

    Parameters
    ----------
    mask : (n, x, y) uint8        0 or 1
    steps : (n, x, y) int32       filled: outside, pixels to the nearest one inside; inside, minus the pixels
        to the nearest one outside. nx + ny where there is none.
    """
    n, nx, ny = mask.shape
    far = nx + ny
    for s in range(n):
        for side in range(2):
            for i in range(nx):
                for j in range(ny):
                    if mask[s, i, j] == side:
                        continue
                    near = far
                    if i > 0:
                        near = min(near, abs(steps[s, i - 1, j]) + 1 if mask[s, i - 1, j] != side else 1)
                    if j > 0:
                        near = min(near, abs(steps[s, i, j - 1]) + 1 if mask[s, i, j - 1] != side else 1)
                    steps[s, i, j] = near
            for i in range(nx - 1, -1, -1):
                for j in range(ny - 1, -1, -1):
                    if mask[s, i, j] == side:
                        continue
                    near = abs(steps[s, i, j])
                    if i < nx - 1:
                        near = min(near, abs(steps[s, i + 1, j]) + 1 if mask[s, i + 1, j] != side else 1)
                    if j < ny - 1:
                        near = min(near, abs(steps[s, i, j + 1]) + 1 if mask[s, i, j + 1] != side else 1)
                    steps[s, i, j] = near if side == 1 else -near
