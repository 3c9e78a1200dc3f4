"""From probabilities to a mask: threshold and objects per slice, then objects, gaps and ends along z."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fastseg.kernels import components
from fastseg.quirks import MENDED, Quirks

__all__ = ["Cleaned", "clean_slices", "clean_volume"]

#: Objects beyond the ends of the cord and smaller than this part of it are removed.
SMALL_OBJECT = 0.1
#: Gaps along z shorter than this are filled, in mm.
LONGEST_GAP = 10.0
#: An end slice is removed when its area is below this part of its neighbours' median.
SMALL_END = 0.5
#: How many slices an end slice is compared with, itself included.
END_WINDOW = 5


def clean_slices(
    probabilities: NDArray[np.float32],
    z: NDArray[np.int64],
    threshold: float,
    *,
    n_slices: int = 0,
    empty_slice: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Binary crops: strictly above the threshold, holes filled, one object a slice.

    The object is kept that continues the one of the slice before; see
    `fastseg.kernels.components.keep_cord_slices`.

    Parameters
    ----------
    probabilities : (n, x, y) float32     crops, ascending in z
    z : (n,) int64                        slice of each crop
    n_slices, empty_slice : slices of the volume and the (x, y) prediction for a slice without centerline;
        given only where such predictions steer the choice of objects (quirk 8)

    Returns
    -------
    mask : (n, x, y) float32, 0 or 1
    """
    if empty_slice is None or n_slices == len(z):
        return components.keep_cord_slices(probabilities, np.float32(threshold)).astype(np.float32)
    every = np.broadcast_to(empty_slice, (n_slices, *empty_slice.shape)).copy()
    every[z] = probabilities
    return components.keep_cord_slices(every, np.float32(threshold))[z].astype(np.float32)


@dataclass(frozen=True, eq=False)
class Cleaned:
    """Result of `clean_volume`.

    Parameters
    ----------
    values : (z, x, y) same dtype as given
    notes : what was done, one sentence each
    """

    values: NDArray[np.float32]
    notes: tuple[str, ...]


def clean_volume(
    values: NDArray[np.float32],
    zooms: tuple[float, float, float],
    *,
    first_slice: int = 0,
    support: float = 0.0,
    quirks: Quirks = MENDED,
) -> Cleaned:
    """Remove stray objects beyond the cord's ends, fill short gaps, remove end slices that are far too small.

    Parameters
    ----------
    values : (z, x, y) float32    mask of 0 and 1, or soft; not changed
    zooms : (3,) mm per voxel along x, y, z
    first_slice : index of values[0] in its volume
    support : values above it count as cord

    Notes
    -----
    Gros et al. 2019 do not describe this step; it is SCT's. Which of its quirks are kept decides `quirks`.
    """
    values = values.copy()
    notes = [*_remove_objects_beyond(values, support, first_slice, "above")]
    if not quirks.objects_below_stay:
        upside_down = values[::-1]
        notes += _remove_objects_beyond(upside_down, support, first_slice + len(values) - 1, "below")
    notes += _fill_gaps(values, zooms[2], support, first_slice, announce_only=quirks.gaps_stay)
    if quirks.edges_by_index:
        notes += _trim_ends_by_index(values, first_slice)
    else:
        notes += _trim_ends(values, zooms, first_slice)
    return Cleaned(values, tuple(notes))


def _remove_objects_beyond(
    values: NDArray[np.float32], support: float, first_slice: int, where: Literal["above", "below"]
) -> list[str]:
    """Clear small objects beyond the last slice of the largest one (6-connected). In place.

    Objects are told apart anew in the part beyond, so the end of an object that reaches up beside the cord
    goes too. Of equally large objects the first in (x, y, z) order is the cord. Slices come in the direction
    that is looked into, so below the cord they are counted down from `first_slice`.
    """
    labels, count = _labelled(values > support)
    if count < 2:
        return []
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    cord = int(sizes.argmax())
    end = int(np.flatnonzero((labels == cord).any(axis=(1, 2)))[-1]) + 1
    beyond, _ = _labelled(values[end:] > support)
    small = np.bincount(beyond.ravel(), minlength=1) < SMALL_OBJECT * sizes[cord]
    small[0] = False
    if not small.any():
        return []
    values[end:][small[beyond]] = 0
    last = first_slice + (end - 1 if where == "above" else 1 - end)
    return [f"removed {int(small.sum())} small objects {where} slice {last}"]


def _labelled(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    labels = np.empty(mask.shape, np.int32)
    return labels, components.label_objects(mask.view(np.uint8), labels)


def _fill_gaps(
    values: NDArray[np.float32], pz: float, support: float, first_slice: int, *, announce_only: bool
) -> list[str]:
    """Interpolate slices between two parts of the cord where the gap is short. In place."""
    filled = np.flatnonzero((values > support).any(axis=(1, 2)))
    notes = []
    for below, above in itertools.pairwise(filled):
        if above - below == 1 or (above - below - 1) * pz >= LONGEST_GAP:
            continue
        gap = f"slices {first_slice + below + 1} to {first_slice + above - 1}"
        if announce_only:
            notes.append(f"gap in {gap} left as it is")
            continue
        for z in range(below + 1, above):
            weight = (z - below) / (above - below)
            values[z] = _between(values[below], values[above], weight, support)
        closed = (values[below + 1 : above] > support).any(axis=(1, 2)).all()
        notes.append(f"filled the gap in {gap}" if closed else f"{gap} could not be filled: too far apart")
    return notes


def _between(
    low: NDArray[np.float32], high: NDArray[np.float32], weight: float, support: float
) -> NDArray[np.float32]:
    """Shape-based interpolation: the zero set of the mean signed distance (Raya and Udupa 1990).

    Soft values inside it are the weighted mean of both slices.
    """

    from scipy import ndimage  # a tenth of a second to import, and few volumes have gaps

    def depth(slice_: NDArray[np.float32]) -> NDArray[np.float64]:
        inside = slice_ > support
        outside = ndimage.distance_transform_edt(~inside)
        return np.where(inside, ndimage.distance_transform_edt(inside) - 0.5, 0.5 - outside)

    shape = (1 - weight) * depth(low) + weight * depth(high) > 0
    mean = (1 - weight) * low + weight * high
    binary = bool(np.isin(low, (0, 1)).all() and np.isin(high, (0, 1)).all())
    return np.where(shape, 1.0 if binary else mean, 0.0).astype(np.float32)


def _trim_ends(values: NDArray[np.float32], zooms: tuple[float, float, float], first_slice: int) -> list[str]:
    """Remove the first or last slice where it is less than half as large as its neighbours. In place."""
    area = values.sum(axis=(1, 2)) * (zooms[0] * zooms[1])
    filled = np.flatnonzero(area)
    notes = []
    for end, window in ((filled[:1], filled[:END_WINDOW]), (filled[-1:], filled[-END_WINDOW:])):
        if len(window) > 1 and area[end[0]] < SMALL_END * np.median(area[window]):
            values[end[0]] = 0
            notes.append(f"removed end slice {first_slice + end[0]}, {area[end[0]]:.1f} mm2")
    return notes


def _trim_ends_by_index(values: NDArray[np.float32], first_slice: int) -> list[str]:
    """As SCT does it (quirk 2): windows [first, 5) and [last - 4, last], a gap inside gives no decision.

    SCT sums the values of a slice zoomed to 0.1 mm, so soft ones count by their weight; the sum over native
    pixels decides alike on every reference result.
    """
    n_slices = first_slice + len(values)
    area = np.full(n_slices, np.nan)
    filled = first_slice + np.flatnonzero(values.any(axis=(1, 2)))
    if not len(filled):
        return []
    for z in {*range(filled[0], min(END_WINDOW, n_slices)), *range(max(filled[-1] - 4, 0), filled[-1] + 1)}:
        if z in filled:
            area[z] = values[z - first_slice].sum()
    notes = []
    low = area[filled[0] : END_WINDOW]
    high = area[filled[-1] - 4 : filled[-1] + 1] if filled[-1] >= 4 else area[:0]
    for end, window in ((filled[0], low), (filled[-1], high)):
        if len(window) and area[end] < SMALL_END * np.median(window):
            values[end - first_slice] = 0
            notes.append(f"removed end slice {end}")
    return notes
