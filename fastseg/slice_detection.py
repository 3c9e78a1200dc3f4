"""The whole-slice detector: which slices it looks at, their heat maps, and which of them hold cord."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.base import Engine
from fastseg.networks.network import Network

__all__ = ["examined_slices", "holds_cord", "padded_slices", "peak_heat", "refined", "slice_heat"]

#: Slices closer than this (mm) are not all looked at: the cord runs straight between them.
_STRIDE = 3.0
# Slices without cord in between are taken for cord over less than this (mm): an implant hides it, or a ghost.
_GAP = 12.0
# A find shorter than this (mm), apart from a longer one, is taken for a mistake.
_SHORT = 6.0

# Whole-slice detectors halve the image four times, and want at least three such units.
_MULTIPLE, _SMALLEST = 16, 48
# Voxels that a percentile of the whole volume is taken from: enough to know it to a tenth of a percent.
_SAMPLE = 500_000
# A network's share of a batch, in voxels: bounds the memory that its inner layers take.
_BATCH = 2_000_000


def examined_slices(n: int, spacing: float) -> NDArray[np.int64]:
    """Choose the slices that the detector looks at: the first, the last, and every 3 mm between.

    Parameters
    ----------
    n : slices of the volume
    spacing : mm between them

    Examples
    --------
    >>> examined_slices(9, 1.0).tolist(), examined_slices(3, 7.5).tolist()
    ([0, 2, 5, 8], [0, 1, 2])
    """
    stride = max(int(_STRIDE / spacing), 1)
    count = -(-(n - 1) // stride) + 1 if n > 1 else 1
    return np.linspace(0, n - 1, count).astype(np.int64)


def padded_slices(
    slices: NDArray[np.float32], network: Network
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Scale slices, and pad them with zeros to sides that are multiples of 16, at least 48.

    Parameters
    ----------
    slices : (z, x, y) float32    1 mm in plane

    Returns
    -------
    batch : (z, 1, x, y) float32  what a whole-slice detector takes
    corner : where the slices begin in it, along x and y
    """
    step = max(slices.size // _SAMPLE, 1)
    sample = slices.ravel()[::step]
    darkest = min(float(sample.min()), 0.0)
    brightest = float(np.percentile(sample, 99.7)) - darkest
    scaled = np.clip((slices - np.float32(darkest)) / np.float32(brightest or 1.0), 0, np.float32(1.2))
    nx, ny = slices.shape[1:]
    size = [max(-(-n // _MULTIPLE) * _MULTIPLE, _SMALLEST) for n in (nx, ny)]
    x, y = (size[0] - nx) // 2, (size[1] - ny) // 2
    padded = np.zeros((len(slices), 1, *size), np.float32)
    padded[:, 0, x : x + nx, y : y + ny] = (scaled - np.float32(network.mean)) / np.float32(network.std)
    return padded, (x, y)


def slice_heat(
    slices: NDArray[np.float32], network: Network, engine: Engine
) -> tuple[NDArray[np.float32], int, tuple[int, int]]:
    """Heat map of a whole-slice detector.

    Parameters
    ----------
    slices : (z, x, y) float32    1 mm in plane

    Returns
    -------
    heat : (z, u, v) float32      0..1, a blob around the cord's centre; of the padding no more than has to be
    pixels : of the slices along a side of a pixel of the heat map
    lead : pixels of the slices by which the heat map begins before them, along x and y
    """
    padded, (x, y) = padded_slices(slices, network)
    nx, ny = slices.shape[1:]
    at_once = max(_BATCH // (padded.shape[2] * padded.shape[3]), 1)
    heat = np.concatenate([engine.infer(padded[k : k + at_once]) for k in range(0, len(padded), at_once)])
    pixels = padded.shape[2] // heat.shape[2]
    u, v = x // pixels, y // pixels
    inside = heat[:, 0, u : -(-(x + nx) // pixels), v : -(-(y + ny) // pixels)]
    return np.ascontiguousarray(inside), pixels, (x - u * pixels, y - v * pixels)


def peak_heat(heat: NDArray[np.float32], path: NDArray[np.int32]) -> NDArray[np.float32]:
    """Highest heat next to a path: (z,) from heat (z, u, v) and path (z, 2)."""
    return np.array([_around(each, *place, 1)[0].max() for each, place in _pairs(heat, path)], np.float32)


def refined(heat: NDArray[np.float32], path: NDArray[np.int32]) -> NDArray[np.float64]:
    """Centre of the heat around each point of a path, to a part of a pixel: (z, 2)."""
    points = path.astype(np.float64)
    for k, (each, place) in enumerate(_pairs(heat, path)):
        window, first = _around(each, *place, 2)
        total = window.sum(dtype=np.float64)
        if total > 0:
            for axis in range(2):
                along = window.sum(1 - axis, dtype=np.float64)
                points[k, axis] = first[axis] + along @ np.arange(len(along)) / total
    return points


def holds_cord(peaks: NDArray[np.float64], threshold: float, spacing: float) -> NDArray[np.bool_]:
    """Decide which slices hold cord, from the heat on the curve.

    Parameters
    ----------
    peaks : (z,)         heat next to the curve on every slice
    threshold : heat from which on a slice is taken for one with cord
    spacing : mm between slices

    Returns
    -------
    there : (z,) bool
        gaps of less than 12 mm are closed; finds of less than 6 mm count only where there is no longer one

    Examples
    --------
    >>> holds_cord(np.array([0.0, 0.9, 0.0, 0.9, 0.9]), 0.5, 3.0).tolist()
    [False, True, True, True, True]
    >>> holds_cord(np.array([0.9, 0.0, 0.0, 0.0, 0.0, 0.9, 0.9]), 0.5, 3.0).tolist()
    [False, False, False, False, False, True, True]
    """
    there = peaks >= threshold
    for first, stop in _runs(~there):
        if first > 0 and stop < len(there) and (stop - first) * spacing < _GAP:
            there[first:stop] = True
    runs = _runs(there)
    longest = max((stop - first for first, stop in runs), default=0)
    for first, stop in runs:
        if stop - first < longest and (stop - first) * spacing < _SHORT:
            there[first:stop] = False
    return there


def _pairs(
    heat: NDArray[np.float32], path: NDArray[np.int32]
) -> Iterator[tuple[NDArray[np.float32], tuple[int, int]]]:
    for each, (u, v) in zip(heat, path, strict=True):
        yield each, (int(u), int(v))


def _around(
    image: NDArray[np.float32], u: int, v: int, reach: int
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Part of an image within `reach` pixels of one, and where it begins."""
    first = max(u - reach, 0), max(v - reach, 0)
    return image[first[0] : u + reach + 1, first[1] : v + reach + 1], first


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and stop of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]
