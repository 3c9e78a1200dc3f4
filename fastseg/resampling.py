"""To the working grid of 0.5 mm in plane, and back onto the native one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastseg.kernels import resample
from fastseg.volume import Grid, Volume

__all__ = ["WORKING_ZOOM", "as_slices", "resample_in_plane", "resample_onto", "working_grid"]

#: In-plane voxel size of every step after resampling, in mm (Gros et al. 2019, section 2.3.1).
WORKING_ZOOM = 0.5


def working_grid(native: Grid, zoom: float = WORKING_ZOOM) -> Grid:
    """The grid with voxels of about `zoom` mm in plane that covers a native one; z stays.

    Its size is n * p / zoom, rounded half to even; voxel-0 centres coincide, so the true voxel size is
    p * n / n_new. The affine is rounded to float32, as a file of it would be: where a probability comes out
    at 0.5 on the way back, this rounding decides on which side it falls.

    Parameters
    ----------
    native : grid in SCT_RPI orientation

    Examples
    --------
    >>> grid = working_grid(Grid((49, 54, 9), np.diag([-0.84, 0.84, 7.5, 1.0])))
    >>> grid.shape, [round(zoom, 4) for zoom in grid.zooms]
    ((82, 91, 9), [0.502, 0.4985, 7.5])
    """
    (nx, ny, nz), (px, py, _) = native.shape, native.zooms
    wx = max(int(np.round(nx * px / zoom)), 1)
    wy = max(int(np.round(ny * py / zoom)), 1)
    affine = native.affine @ np.diag([nx / wx, ny / wy, 1.0, 1.0])
    return Grid((wx, wy, nz), affine.astype(np.float32))


def as_slices(volume: Volume) -> NDArray[np.float32]:
    """Voxels as a contiguous stack of slices (z, x, y) float32, always a copy."""
    with np.errstate(over="ignore"):  # beyond float32 is Inf
        return np.array(volume.voxels.transpose(2, 0, 1), dtype=np.float32, order="C")


def resample_in_plane(slices: NDArray[np.float32], working: Grid) -> NDArray[np.float32]:
    """Linear resampling of native slices (z, x, y) to the working grid."""
    if slices.shape[1:] == working.shape[:2]:
        return slices
    return resample.resample_slices(slices, working.shape[0], working.shape[1])


def resample_onto(
    canvas: NDArray[np.float32], corner: tuple[int, int, int], source: Grid, target: Grid
) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
    """Linear resampling of a part of one grid onto another, where the part reaches.

    Parameters
    ----------
    canvas : (z, x, y) float32
        part of a volume on `source`; beyond the canvas that volume is 0, so the canvas has a margin of one
        voxel wherever it does not end at the volume's border
    corner : x, y, z of the canvas's first voxel on `source`
    source, target : both in SCT_RPI orientation, the same z

    Returns
    -------
    values : (z, x, y) float32    the part of `target` that the canvas can reach
    corner : x, y, z of its first voxel on `target`
    """
    mapping = np.linalg.inv(source.affine) @ np.asarray(target.affine, np.float32).astype(np.float64)
    size = np.array([canvas.shape[1], canvas.shape[2], canvas.shape[0]])
    box = np.zeros((3, 2), np.int64)
    for axis in range(3):
        first, last = corner[axis], corner[axis] + size[axis] - 1
        step = mapping[axis, axis]
        low = int(np.floor(first / step)) - 1 if first > 0 else 0
        high = int(np.ceil(last / step)) + 2 if last < source.shape[axis] - 1 else target.shape[axis]
        box[axis] = max(low, 0), min(high, target.shape[axis])
    out = np.empty((box[2, 1] - box[2, 0], box[0, 1] - box[0, 0], box[1, 1] - box[1, 0]), np.float32)
    resample.sample_affine(
        canvas,
        np.array(corner, np.int64),
        np.ascontiguousarray(mapping[:3, :3]),
        np.ascontiguousarray(mapping[:3, 3]),
        box,
        out,
    )
    return out, (int(box[0, 0]), int(box[1, 0]), int(box[2, 0]))
