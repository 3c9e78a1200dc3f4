"""Grid and Volume: voxels together with where they lie in the scanner. Frozen; no input or output here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

from fastseg.errors import InputError

__all__ = ["SCT_RPI", "Grid", "Volume"]

#: Axis codes in which every step works. SCT's "RPI" says where axes come FROM and equals nibabel's
#: ('L', 'A', 'S').
SCT_RPI = ("L", "A", "S")


@dataclass(frozen=True, eq=False)
class Grid:
    """The lattice of a volume.

    Parameters
    ----------
    shape : (x, y, z)             voxels along each axis
    affine : (4, 4) float64       voxel index to RAS+ millimetres

    Examples
    --------
    >>> grid = Grid((60, 55, 52), np.diag([-1.0, 1.0, 2.0, 1.0]))
    >>> grid.axcodes, grid.zooms
    (('L', 'A', 'S'), (1.0, 1.0, 2.0))
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4):
            raise InputError(f"an affine has 4 x 4 numbers, not {affine.shape}")
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @cached_property
    def zooms(self) -> tuple[float, float, float]:
        """Voxel sizes in mm: lengths of the affine's columns, in float32 as a file would state them.

        The affine decides, not the header's pixdim: viewers place a mask by it, and SCT works with it.
        """
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)).astype(np.float32)
        return (float(x), float(y), float(z))

    @cached_property
    def axcodes(self) -> tuple[str, str, str]:
        """Where each axis points to, as nibabel's codes."""
        x, y, z = orientations.aff2axcodes(self.affine)
        return (x, y, z)

    def same_space(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same shape and put every voxel at the same place."""
        if self.shape != other.shape:
            return False
        far = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
        far[:, :3] *= np.array(self.shape) - 1
        return bool(np.abs(far @ (self.affine - other.affine).T).max() <= tolerance_mm)

    def reoriented(self, axcodes: tuple[str, str, str]) -> Grid:
        """The same lattice with its axes permuted and flipped to `axcodes`."""
        change = _change(self.axcodes, axcodes)
        if _is_identity(change):
            return self
        affine = self.affine @ orientations.inv_ornt_aff(change, self.shape)
        shape = [0, 0, 0]
        for old, (new, _) in enumerate(change.astype(int)):
            shape[new] = self.shape[old]
        return Grid((shape[0], shape[1], shape[2]), affine)


@dataclass(frozen=True, eq=False)
class Volume:
    """A scalar image on a grid.

    Parameters
    ----------
    voxels : (x, y, z) any real dtype, made read-only
    grid : Grid of the same shape
    """

    voxels: NDArray[Any]
    grid: Grid

    def __post_init__(self) -> None:
        if self.voxels.shape != self.grid.shape:
            raise InputError(f"voxels {self.voxels.shape} do not fit the grid {self.grid.shape}")
        view = self.voxels.view()
        view.flags.writeable = False
        object.__setattr__(self, "voxels", view)

    def reoriented(self, axcodes: tuple[str, str, str]) -> Volume:
        """The same image with its axes permuted and flipped to `axcodes`; a view, nothing is copied.

        Examples
        --------
        >>> volume = Volume(np.arange(24).reshape(2, 3, 4), Grid((2, 3, 4), np.eye(4)))
        >>> turned = volume.reoriented(SCT_RPI)
        >>> turned.grid.axcodes, int(turned.voxels[0, 0, 0])
        (('L', 'A', 'S'), 12)
        >>> bool((turned.reoriented(("R", "A", "S")).voxels == volume.voxels).all())
        True
        """
        change = _change(self.grid.axcodes, axcodes)
        if _is_identity(change):
            return self
        return Volume(orientations.apply_orientation(self.voxels, change), self.grid.reoriented(axcodes))


def _change(old: tuple[str, ...], new: tuple[str, ...]) -> NDArray[np.float64]:
    change: NDArray[np.float64] = orientations.ornt_transform(
        orientations.axcodes2ornt(old), orientations.axcodes2ornt(new)
    )
    return change


def _is_identity(change: NDArray[np.float64]) -> bool:
    return bool((change == [[0, 1], [1, 1], [2, 1]]).all())
