"""The globally best curve through a score map or heat map: OptiC's second half (Gros et al. 2018)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastseg.errors import InputError
from fastseg.kernels.optic import cheapest_path

__all__ = ["float32_zooms", "trace_curve"]


def trace_curve(
    heat: NDArray[np.float32] | NDArray[np.float64], zooms: ArrayLike, smoothness: float = 1.0
) -> NDArray[np.int32]:
    """Find the smoothest path along z through the highest heat.

    Parameters
    ----------
    heat : (z, x, y) float32 or float64   higher is more cord-like
    zooms : (3,)                          mm per voxel along x, y, z
    smoothness : float                    penalty per squared millimetre of lateral step per millimetre of z

    Returns
    -------
    path : (z, 2) int32   x, y on each slice

    Raises
    ------
    InputError
        The heat map is empty or not finite, or a zoom or the smoothness is out of range.

    Notes
    -----
    The path maximises the sum of heat(x, y) - smoothness (dx² + dy²) / dz² over all slices, dx and dy being
    its steps in mm. Equal paths: see `fastseg.kernels.optic.cheapest_path`.

    Examples
    --------
    The brightest pixel of the middle slice is too far away to be worth the detour.

    >>> heat = np.zeros((3, 1, 9), np.float32)
    >>> heat[[0, 2], 0, 1] = 1.0
    >>> heat[1, 0, 8] = 1.5
    >>> trace_curve(heat, (1.0, 1.0, 1.0))[:, 1].tolist()
    [1, 1, 1]
    >>> trace_curve(heat, (1.0, 1.0, 1.0), smoothness=0.005)[:, 1].tolist()
    [1, 8, 1]
    """
    if heat.dtype not in (np.float32, np.float64):
        raise InputError(f"a heat map of {heat.dtype} cannot be traced: float32 or float64 is needed")
    if heat.ndim != 3 or heat.size == 0:
        raise InputError(f"a heat map of shape {heat.shape} cannot be traced: (z, x, y) is needed")
    if not 0 <= smoothness < np.inf:
        raise InputError(f"the smoothness must be a number from 0 on, not {smoothness}")
    zoom_x, zoom_y, zoom_z = float32_zooms(zooms)
    if not np.isfinite([heat.min(), heat.max()]).all():  # NaN is the minimum of whatever holds it
        raise InputError("the heat map holds NaN or infinite values: replace them by finite ones")
    # No step is worth more than 1e30, and float32 has no room for much more.
    weight_x = min(smoothness * (zoom_x / zoom_z) ** 2, 1e30)
    weight_y = min(smoothness * (zoom_y / zoom_z) ** 2, 1e30)
    return cheapest_path(heat if heat.flags.c_contiguous else heat.copy(), weight_x, weight_y)


def float32_zooms(zooms: ArrayLike) -> tuple[float, float, float]:
    """Zooms with the precision of a NIfTI header: OptiC's 0.5 mm is exactly 0.5."""
    zooms = np.asarray(zooms, np.float32)
    if zooms.shape != (3,) or not (np.isfinite(zooms) & (zooms > 0)).all():
        raise InputError(f"zooms must be three positive numbers of mm, not {zooms.tolist()}")
    return float(zooms[0]), float(zooms[1]), float(zooms[2])
