"""How a mask compares with a reference: overlap, distances, areas, centerline.

Everything is measured on the native grid, over the slices in which the reference has voxels. Arrays are
(x, y, z) in SCT_RPI, sizes of voxels in mm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fastseg.centerline import Centerline
from fastseg.volume import SCT_RPI, Volume

__all__ = [
    "Accuracy",
    "LineError",
    "compare",
    "compare_line",
    "covered",
    "slice_dice",
    "surface",
    "surface_distances",
]

_Mask = NDArray[np.bool_]
_Zooms = tuple[float, float, float]

#: A centerline further away than this from the cord's centre is lost: its window no longer holds the cord.
LOST_MM = 8.0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How our mask compares with the reference, over the slices in which the reference has voxels.

    Parameters
    ----------
    slices : how many these are
    dice : of all voxels on them
    hausdorff95_mm : larger of the two 95th percentiles of `surface_distances`; nan where ours is empty
    surface_mm : mean of both lists of `surface_distances` in one; nan where ours is empty
    area_bias_percent : our area over the reference's, minus 1; positive: ours is larger
    slice_area_error_percent : mean over slices of how much our area differs from the reference's, either
        way, in percent of the reference's
    found_percent : slices on which ours and the reference have a voxel in common
    slices_beyond : slices on which ours has voxels and the reference has none; for information, because few
        references reach as far as the cord
    """

    slices: int
    dice: float
    hausdorff95_mm: float
    surface_mm: float
    area_bias_percent: float
    slice_area_error_percent: float
    found_percent: float
    slices_beyond: int


@dataclass(frozen=True, slots=True)
class LineError:
    """In-plane distance between a centerline and the reference's centre of mass on each of its slices.

    Parameters
    ----------
    mean_mm, p95_mm, max_mm : over the slices that the centerline covers; nan where it covers none
    lost_percent : slices of the reference on which the distance is over 8 mm, or that the centerline does
        not cover
    covered_percent : slices of the reference that the centerline covers
    """

    mean_mm: float
    p95_mm: float
    max_mm: float
    lost_percent: float
    covered_percent: float


def compare(ours: Volume, reference: Volume) -> Accuracy:
    """Compare a mask with the reference on the same grid.

    Parameters
    ----------
    ours : 0/1, any orientation; above 0.5 is cord
    reference : bool with at least one voxel; same orientation

    Examples
    --------
    >>> from fastseg.phantom import make_phantom
    >>> _, mask = make_phantom("t2", n_slices=4)
    >>> reference = Volume(mask.voxels > 0, mask.grid)
    >>> same = compare(mask, reference)
    >>> same.dice, same.hausdorff95_mm, same.area_bias_percent, same.found_percent
    (1.0, 0.0, 0.0, 100.0)
    """
    zooms = reference.reoriented(SCT_RPI).grid.zooms
    mine, theirs = (_turned(volume) for volume in (ours, reference))
    there = covered(theirs)
    beyond = int((covered(mine) & ~there).sum())
    areas = mine[..., there].sum(axis=(0, 1)), theirs[..., there].sum(axis=(0, 1))
    common = (mine & theirs)[..., there].sum(axis=(0, 1))
    from_ours, from_theirs = surface_distances(mine, theirs, zooms)
    both = np.concatenate([from_ours, from_theirs])
    return Accuracy(
        slices=int(there.sum()),
        dice=float(2 * common.sum() / (areas[0].sum() + areas[1].sum())),
        hausdorff95_mm=max(_percentile(from_ours, 95), _percentile(from_theirs, 95)),
        surface_mm=float(both.mean()) if len(both) else math.nan,
        area_bias_percent=float(100 * (areas[0].sum() / areas[1].sum() - 1)),
        slice_area_error_percent=float(100 * np.abs(areas[0] / areas[1] - 1).mean()),
        found_percent=float(100 * (common > 0).mean()),
        slices_beyond=beyond,
    )


def compare_line(line: Centerline, reference: Volume) -> LineError:
    """Compare a centerline with the centre of mass of each slice of the reference.

    Parameters
    ----------
    line : on any grid with the reference's slices
    reference : bool with at least one voxel, any orientation
    """
    turned = reference.reoriented(SCT_RPI)
    theirs, zooms = _turned(reference), turned.grid.zooms
    z = np.flatnonzero(covered(theirs))
    centres = np.array([np.argwhere(theirs[..., each]).mean(axis=0) for each in z])
    points = {int(point[2]): point[:2] for point in line.on(turned.grid).points}
    known = np.array([int(each) in points for each in z])
    if not known.any():
        return LineError(math.nan, math.nan, math.nan, 100.0, 0.0)
    ours = np.array([points[int(each)] for each in z[known]])
    distances = np.hypot(*((ours - centres[known]) * zooms[:2]).T)
    lost = int((distances > LOST_MM).sum() + (~known).sum())
    return LineError(
        mean_mm=float(distances.mean()),
        p95_mm=float(np.percentile(distances, 95)),
        max_mm=float(distances.max()),
        lost_percent=100 * lost / len(z),
        covered_percent=float(100 * known.mean()),
    )


def covered(mask: _Mask) -> _Mask:
    """(z,) whether a slice of (x, y, z) has voxels."""
    return np.asarray(mask.any(axis=(0, 1)))


def slice_dice(ours: Volume, reference: Volume) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Dice of each slice in which the reference has voxels.

    Returns
    -------
    z : (n,) slices in SCT_RPI, from foot to head
    dice : (n,) 0 where ours is empty
    """
    mine, theirs = (_turned(volume) for volume in (ours, reference))
    z = np.flatnonzero(covered(theirs))
    sizes = (mine.sum(axis=(0, 1)) + theirs.sum(axis=(0, 1)))[z]
    return z, 2 * (mine & theirs).sum(axis=(0, 1))[z] / sizes


def surface_distances(
    ours: _Mask, reference: _Mask, zooms: _Zooms
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance in 3D from every voxel of one surface to the nearest voxel of the other.

    Distances are between centres of voxels in mm, by the exact Euclidean distance transform. Both surfaces
    are those of `surface`, restricted to the slices in which the reference has voxels.

    Parameters
    ----------
    ours, reference : (x, y, z) bool
    zooms : mm

    Returns
    -------
    from_ours, from_reference : (n,) mm, one per voxel of the surface; both empty where a surface is empty

    Notes
    -----
    The two lists are those of Taha and Hanbury 2015 (doi:10.1186/s12880-015-0068-x, section "Spatial distance
    based metrics"); the 95 % Hausdorff distance is the larger of their 95th percentiles, as MONAI has it.
    """
    there = covered(reference)
    surfaces = surface(ours, there), surface(reference, there)
    if not all(each.any() for each in surfaces):
        return np.empty(0), np.empty(0)
    box = ndimage.find_objects((surfaces[0] | surfaces[1]).astype(np.uint8))[0]
    first, second = (each[box] for each in surfaces)
    to_first, to_second = (ndimage.distance_transform_edt(~each, sampling=zooms) for each in (first, second))
    return to_second[first], to_first[second]


def surface(mask: _Mask, there: _Mask) -> _Mask:
    """Voxels of a mask with one of their six neighbours outside it, on the slices that are looked at.

    A neighbour on a slice that is not looked at says nothing: the reference ends there because its author
    stopped, not because the cord does. So the flat ends of a mask at a cut are no surface, only their rims
    are, and the part of a mask on other slices is left out. Where the mask itself ends on a slice that is
    looked at, its flat end is surface. Beyond the field of view is outside in plane, unknown along z.

    Parameters
    ----------
    mask : (x, y, z) bool
    there : (z,) bool             slices that are looked at
    """
    padded = np.pad(mask | ~there, ((0, 0), (0, 0), (1, 1)), constant_values=True)
    padded = np.pad(padded, ((1, 1), (1, 1), (0, 0)), constant_values=False)
    inner = np.s_[1:-1]
    inside = (
        padded[:-2, inner, inner]
        & padded[2:, inner, inner]
        & padded[inner, :-2, inner]
        & padded[inner, 2:, inner]
        & padded[inner, inner, :-2]
        & padded[inner, inner, 2:]
    )
    return np.asarray(mask & ~inside & there)


def _turned(mask: Volume) -> _Mask:
    return np.asarray(mask.reoriented(SCT_RPI).voxels > 0.5)


def _percentile(distances: NDArray[np.float64], percent: float) -> float:
    return float(np.percentile(distances, percent)) if len(distances) else math.nan
