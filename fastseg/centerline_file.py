"""A centerline, or any mask of the cord, as a volume: the centre of mass of each slice."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fastseg.centerline import Centerline
from fastseg.errors import CordNotFound, InputError
from fastseg.resampling import working_grid
from fastseg.volume import SCT_RPI, Grid, Volume

__all__ = ["centerline_from_mask", "centerline_from_volume"]

_NO_OVERLAP = "the centerline does not overlap the image; give one that was drawn on this image"


def centerline_from_mask(mask: Volume, working: Grid) -> Centerline:
    """Centre of mass of each slice of a centerline or mask, after linear resampling to the working grid.

    The weights come from scipy with the full affine, as SCT has them, because any weight above zero makes a
    slice count: between two samples of a coarser grid only rounding noise of 1e-14 is left of a voxel, and
    it suffices. Slices whose voxels even the noise misses get the centre of mass of the native slice.

    Parameters
    ----------
    mask : in SCT_RPI orientation; any value other than 0 counts, with its weight. Its own grid decides how
        it is resampled, and the result is taken by index.
    working : grid of the result; slices beyond it are dropped

    Raises
    ------
    CordNotFound
        The mask is empty.
    InputError
        All of it lies beyond the last slice.
    """
    voxels = _finite(mask.voxels)
    covered = np.flatnonzero(voxels.any(axis=(0, 1)))
    if not len(covered):
        raise CordNotFound("the centerline is empty, no voxel differs from 0; draw it again")
    own = working_grid(mask.grid).shape[:2]
    stretch = np.diag([mask.grid.shape[0] / own[0], mask.grid.shape[1] / own[1], 1.0, 1.0])
    mapping = _noisy_mapping(mask.grid.affine, stretch)
    points = []
    nearby = sorted({int(z) + d for z in covered for d in (-1, 0, 1)} & set(range(voxels.shape[2])))
    for z in nearby:
        centre = _centre_of_slice(voxels, mapping, own, z)
        if centre is None and z in covered:
            x, y = ndimage.center_of_mass(np.abs(voxels[:, :, z]))
            centre = (x / stretch[0, 0], y / stretch[1, 1])
        if centre is not None and z < working.shape[2]:
            points.append((*centre, z))
    if not points:
        raise InputError(_NO_OVERLAP)
    return Centerline(working, np.array(points))


def _finite(voxels: NDArray[Any]) -> NDArray[Any]:
    """As floats, float32 where the file is float32 (SCT sums such weights in float32), NaN and Inf as 0."""
    floats = np.asarray(voxels, np.float32 if voxels.dtype == np.float32 else np.float64)
    return np.nan_to_num(floats, nan=0.0, posinf=0.0, neginf=0.0)


def _noisy_mapping(affine: NDArray[np.float64], stretch: NDArray[np.float64]) -> NDArray[np.float64]:
    """Working voxel to native voxel as inverse(A) @ (A @ stretch): the stretch, but for rounding noise.

    The noise is wanted: for a centerline of one voxel a slice, the centre of mass falls on a whole number,
    and 52 or 51.99999 put the window one pixel apart. SCT's comes from the LAPACK of its machine. Here the
    operations and their order are spelled out, so that every machine gives the same: LU with partial
    pivoting, back substitution with reciprocals except in the first row, fused products. This is the order
    under which all reference results come out; numpy's inverse on an AVX2 processor misses three of them.
    """
    n = len(affine)
    rows = [[float(value) for value in row] for row in affine]
    columns = [[float(i == j) for j in range(n)] for i in range(n)]
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        columns[k], columns[pivot] = columns[pivot], columns[k]
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k]
            rows[i] = [*rows[i][: k + 1], *(rows[i][j] - factor * rows[k][j] for j in range(k + 1, n))]
            columns[i] = [columns[i][c] - columns[k][c] * factor for c in range(n)]
    for i in reversed(range(n)):
        pivot_value = rows[i][i]
        columns[i] = [y * (1.0 / pivot_value) if i else y / pivot_value for y in columns[i]]
        for k in range(i):
            columns[k] = [y - x * rows[k][i] for y, x in zip(columns[k], columns[i], strict=True)]
    target = affine @ stretch  # exact but for one rounding each: stretch is diagonal
    mapping = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            total = columns[i][0] * float(target[0, j])
            for k in range(1, n):  # fused: one rounding per step
                total = float(Fraction(columns[i][k]) * Fraction(float(target[k, j])) + Fraction(total))
            mapping[i, j] = total
    return mapping


def _centre_of_slice(
    voxels: NDArray[Any], mapping: NDArray[np.float64], shape: tuple[int, int], z: int
) -> tuple[float, float] | None:
    """Centre of mass of one resampled slice, or None where it is empty."""
    slab = (voxels[:, :, max(z - 1, 0) : z + 2] != 0).any(axis=2)
    box = []
    for axis in (0, 1):
        hit = np.flatnonzero(slab.any(axis=1 - axis))
        step = mapping[axis, axis]
        low, high = int((hit[0] - 1) / step) - 1, int((hit[-1] + 1) / step) + 2
        box.append(np.arange(max(low, 0), min(high, shape[axis] - 1) + 1, dtype=np.float64))
    x, y = box[0][:, None], box[1][None, :]
    # Summed in scipy's order: shift, then axis by axis.
    coordinates = np.stack(
        [((mapping[a, 3] + mapping[a, 0] * x) + mapping[a, 1] * y) + mapping[a, 2] * z for a in range(3)]
    )
    values = ndimage.map_coordinates(voxels, coordinates, output=voxels.dtype, order=1, mode="nearest")
    if not values.any():
        return None
    if not values.sum() > 0:  # negative weights; their size must do
        values = np.abs(values)
    full = np.zeros(shape, voxels.dtype)
    full[int(box[0][0]) : int(box[0][-1]) + 1, int(box[1][0]) : int(box[1][-1]) + 1] = values
    x_mean, y_mean = ndimage.center_of_mass(full)
    return float(x_mean), float(y_mean)


def centerline_from_volume(mask: Volume, native: Grid, working: Grid) -> Centerline:
    """Centerline of an image from a centerline or mask volume, wherever that volume lies.

    It covers no slice on which nothing was drawn, as that of `centerline_from_mask` may on oblique images.

    Parameters
    ----------
    mask : centerline, one or more voxels a slice, or a cord mask; any orientation and grid
    native : grid of the image, SCT_RPI orientation
    working : grid of the result

    Raises
    ------
    CordNotFound
        The mask is empty.
    InputError
        It does not overlap the image.
    """
    turned = mask.reoriented(SCT_RPI)
    if turned.grid.same_space(native, tolerance_mm=0.1 * min(native.zooms)):
        line = centerline_from_mask(turned, working)
        drawn = np.flatnonzero(_finite(turned.voxels).any(axis=(0, 1)))
        return Centerline(working, line.points[np.isin(line.points[:, 2], drawn)])
    voxels = _finite(turned.voxels)
    index = np.argwhere(voxels)
    if not len(index):
        raise CordNotFound("the centerline is empty, no voxel differs from 0; draw it again")
    weights = np.abs(voxels[tuple(index.T)])
    world = np.column_stack([index, np.ones(len(index))]) @ turned.grid.affine.T
    x, y, z = (world @ np.linalg.inv(native.affine).T)[:, :3].T
    nx, ny, nz = native.shape
    inside = (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5) & (z > -0.5) & (z < nz - 0.5)
    if not inside.any():
        raise InputError(_NO_OVERLAP)
    x, y, z, weights = x[inside], y[inside], z[inside], weights[inside]
    slices = np.rint(z).astype(np.int64)
    levels = np.unique(slices)
    total = np.bincount(slices, weights)
    centre_x = (np.bincount(slices, weights * x)[levels]) / total[levels]
    centre_y = (np.bincount(slices, weights * y)[levels]) / total[levels]
    # Slices of the image between two slices of a coarser centerline are bridged.
    bridge = int(np.ceil(1.5 * turned.grid.zooms[2] / native.zooms[2]))
    every = np.arange(levels[0], levels[-1] + 1)
    position = np.searchsorted(levels, every)
    gap = levels[position] - levels[np.maximum(position - 1, 0)]
    covered = every[np.isin(every, levels) | (gap <= bridge)]
    points = np.column_stack(
        [np.interp(covered, levels, centre_x), np.interp(covered, levels, centre_y), covered]
    )
    return Centerline(native, points).on(working)
