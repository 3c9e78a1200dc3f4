"""The centerline: where the cord's centre is on each slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastseg.volume import Grid

__all__ = ["Centerline"]


@dataclass(frozen=True, eq=False)
class Centerline:
    """Centre of the cord on the slices that have one.

    Parameters
    ----------
    grid : in whose voxels the points are, SCT_RPI orientation
    points : (n, 3) float64       x, y, z in voxels, one per covered slice, ascending in z
    """

    grid: Grid
    points: NDArray[np.float64]

    def __post_init__(self) -> None:
        points = np.array(self.points, np.float64).reshape(-1, 3)
        points.flags.writeable = False
        object.__setattr__(self, "points", points)

    @property
    def z(self) -> NDArray[np.int64]:
        """Covered slices, ascending."""
        return self.points[:, 2].astype(np.int64)

    def world(self) -> NDArray[np.float64]:
        """(n, 3) points in RAS+ millimetres."""
        homogeneous = np.column_stack([self.points, np.ones(len(self.points))])
        return (homogeneous @ self.grid.affine.T)[:, :3]

    def on(self, grid: Grid) -> Centerline:
        """The same points in the voxels of another grid with the same slices."""
        ratio = [n / m for n, m in zip(grid.shape[:2], self.grid.shape[:2], strict=True)]
        return Centerline(grid, self.points * [*ratio, 1.0])

    def mask(self, grid: Grid) -> NDArray[np.uint8]:
        """(x, y, z) uint8 on a grid with the same slices: one voxel per covered slice."""
        out = np.zeros(grid.shape, np.uint8)
        index = np.rint(self.on(grid).points).astype(np.int64)
        x, y = (np.clip(index[:, a], 0, grid.shape[a] - 1) for a in (0, 1))
        out[x, y, index[:, 2]] = 1
        return out
