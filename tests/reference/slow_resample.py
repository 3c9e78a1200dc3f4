"""Resampling written for reading: scipy does the sums, in float64."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def resample_slices(slices, nx, ny):
    """Every slice at (nx, ny): voxel-0 centres coincide, linear, nearest beyond the last centre."""
    steps = [1.0, slices.shape[1] / nx, slices.shape[2] / ny]
    return ndimage.affine_transform(
        slices.astype(np.float64), steps, output_shape=(len(slices), nx, ny), order=1, mode="nearest"
    )


def resample_windows(slices, nx, ny, z, starts, size_x, size_y):
    """Windows of the whole, zero where the whole ends."""
    whole = resample_slices(slices, nx, ny)
    out = np.zeros((len(z), size_x, size_y))
    for window, level, (x, y) in zip(out, z, starts, strict=True):
        part = whole[level, x : x + size_x, y : y + size_y]
        window[: part.shape[0], : part.shape[1]] = part
    return out


def sample_affine(canvas, corner, matrix, offset, box):
    """The canvas on a box of another grid; canvas and result are (z, x, y), everything else (x, y, z)."""
    first, stop = np.asarray(box).T
    sampled = ndimage.affine_transform(
        canvas.transpose(1, 2, 0).astype(np.float64),
        matrix,
        offset=matrix @ first + offset - corner,
        output_shape=tuple(stop - first),
        order=1,
        mode="nearest",
    )
    return sampled.transpose(2, 0, 1)
