"""Square windows around the centerline: where they are, cutting them out, putting them back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastseg.centerline import Centerline
from fastseg.kernels import resample
from fastseg.volume import Grid

__all__ = ["CropWindows"]


@dataclass(frozen=True, eq=False)
class CropWindows:
    """One window per covered slice.

    Parameters
    ----------
    grid : working grid that the windows are parts of
    size : pixels along x and y
    z : (n,) int64                slice of each window, ascending
    starts : (n, 2) int64         first x and y of each window on the grid
    """

    grid: Grid
    size: int
    z: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def around(cls, centerline: Centerline, size: int) -> CropWindows:
        """Windows [c - size/2 + 1, c + size/2 + 1) around c = int(centre), kept inside the field of view.

        They are clamped at the upper edge first, then at the lower, so that a field of view smaller than
        the window lies at its start and the rest is zero.
        """
        centre = centerline.points[:, :2].astype(np.int64)
        starts = centre - (size // 2 - 1)
        shape = np.array(centerline.grid.shape[:2])
        starts = np.maximum(np.minimum(starts, shape - size), 0)
        return cls(centerline.grid, size, centerline.z, np.ascontiguousarray(starts))

    def extract(self, slices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cut the windows out of native slices, resampling only what is needed.

        Parameters
        ----------
        slices : (z, x, y) float32    native slices; equal to cropping `resample_in_plane(slices, grid)`

        Returns
        -------
        crops : (n, size, size) float32
        """
        nx, ny, _ = self.grid.shape
        return resample.resample_windows(slices, nx, ny, self.z, self.starts, self.size, self.size)

    def paste(self, crops: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
        """Put crops back, on a canvas that is just large enough.

        Parameters
        ----------
        crops : (n, size, size) float32

        Returns
        -------
        canvas : (z, x, y) float32
            zero outside the windows, with a margin of one voxel where the grid goes on
        corner : x, y, z of the canvas's first voxel on the grid
        """
        shape = np.array(self.grid.shape)
        fits = np.minimum(self.size, shape[:2])
        low = np.array([*self.starts.min(axis=0), self.z[0]]) - 1
        high = np.array([*(self.starts.max(axis=0) + fits), self.z[-1] + 1]) + 1
        low, high = np.maximum(low, 0), np.minimum(high, shape)
        nx, ny, nz = high - low
        canvas = np.zeros((nz, nx, ny), np.float32)
        for crop, z, (x, y) in zip(crops, self.z - low[2], self.starts - low[:2], strict=True):
            canvas[z, x : x + fits[0], y : y + fits[1]] = crop[: fits[0], : fits[1]]
        return canvas, (int(low[0]), int(low[1]), int(low[2]))
