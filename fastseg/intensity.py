"""Intensities of the crops: percentile rescale, standardise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastseg.errors import InputError

__all__ = ["check_signal", "finite_slices", "rescale_percentiles", "standardise"]


def check_signal(voxels: NDArray[Any]) -> None:
    """Refuse a volume in which there is nothing to see.

    Raises
    ------
    InputError
        No voxel is finite, or all that are have the same value.

    Examples
    --------
    >>> check_signal(np.zeros((4, 4, 4)))
    Traceback (most recent call last):
    fastseg.errors.InputError: every voxel has the value 0; there is nothing to segment
    """
    low, high = voxels.min(), voxels.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = voxels[np.isfinite(voxels)]
        if not finite.size:
            raise InputError("no voxel is a finite number; convert the volume again")
        low, high = finite.min(), finite.max()
    if low == high:
        raise InputError(f"every voxel has the value {low:g}; there is nothing to segment")


def finite_slices(slices: NDArray[np.float32]) -> NDArray[np.float32]:
    """The slices with NaN and Inf replaced by the lowest finite value: background. In place.

    Parameters
    ----------
    slices : (z, x, y) float32

    Returns
    -------
    slices : the same array
    """
    broken = ~np.isfinite(slices)
    if broken.any():
        slices[broken] = slices[~broken].min()
    return slices


def rescale_percentiles(
    crops: NDArray[np.float32], *, zero_slices: int = 0, low: float = 2.0, high: float = 98.0
) -> tuple[NDArray[np.float32], float]:
    """Scale all crops together to 0..255 between two percentiles, clipped (Gros et al. 2019, section 2.3.2).

    Parameters
    ----------
    crops : (n, x, y) float32
    zero_slices : crops of zeros that count in the percentiles but are not in the stack (quirk 11)
    low, high : percentiles, linear interpolation, float64

    Returns
    -------
    rescaled : (n, x, y) float32
        float32 arithmetic; where both percentiles are equal the values are clipped to them
    zero : what a value of 0 became

    Examples
    --------
    >>> crops = np.linspace(0, 100, 101, dtype=np.float32).reshape(1, 1, 101)
    >>> scaled, zero = rescale_percentiles(crops)
    >>> float(scaled[0, 0, 50]), zero
    (127.5, 0.0)
    """
    values = crops.ravel()
    if zero_slices:
        values = np.concatenate([values, np.zeros(zero_slices * crops[0].size, np.float32)])
    bottom, top = _percentiles(values, low, high)
    span = np.float32(top - bottom)

    def scale(image: NDArray[np.float32]) -> NDArray[np.float32]:
        clipped = np.clip(image, np.float32(bottom), np.float32(top))
        if top == bottom:
            return np.clip(clipped, 0, 255)
        clipped -= np.float32(bottom)
        clipped /= span
        clipped *= np.float32(255)
        return clipped

    return scale(crops), float(scale(np.zeros(1, np.float32))[0])


def _percentiles(values: NDArray[np.float32], *percents: float) -> list[float]:
    """As np.percentile in float64; sorting float32 takes half the time."""
    ordered = np.sort(values)
    if np.isnan(ordered[-1]):
        return [float("nan")] * len(percents)
    out = []
    for percent in percents:
        place = (len(ordered) - 1) * (percent / 100)
        index = int(place)
        part = place - index
        lower = float(ordered[index])
        upper = float(ordered[min(index + 1, len(ordered) - 1)])
        step = upper - lower
        # numpy's interpolation, which is exact at both ends
        out.append(lower + step * part if part < 0.5 else upper - step * (1 - part))
    return out


def standardise(images: NDArray[np.float32], mean: float, std: float) -> NDArray[np.float32]:
    """(images - mean) / std, rounded once; the same array where there is nothing to do."""
    if mean == 0.0 and std == 1.0:
        return images
    return ((images.astype(np.float64) - mean) / std).astype(np.float32)
