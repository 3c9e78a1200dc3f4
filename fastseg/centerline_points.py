"""Points that somebody clicked on a cord become its centerline, by a regularised curve.

They come from the viewer, from a file of points, or from a volume of labels, one voxel each, as SCT has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastseg.centerline import Centerline
from fastseg.errors import InputError
from fastseg.points_file import Points, points_record, points_text, read_points
from fastseg.spline import smoothing_spline
from fastseg.volume import SCT_RPI, Grid, Volume

__all__ = [
    "STIFFNESS",
    "Points",
    "centerline_volume",
    "curve_through",
    "labels_volume",
    "looks_like_points",
    "points_of_labels",
    "points_record",
    "points_text",
    "read_points",
    "remarks",
]

#: Weight in mm³ of the curve's bending against its distance from the clicks. Measured by clicking at 4 to 12
#: places of 22 reference masks, 0.35, 0.7 and 1.0 mm (standard deviation in x and in y) beside their centres:
#: the curve's RMS distance from all centres was 0.49, 0.79 and 1.06 mm (geometric mean over cords of 40 to
#: 215 mm and numbers of clicks), that of a spline through the clicks 0.64, 1.11 and 1.53 mm, that of straight
#: lines 0.64, 1.04 and 1.39 mm. From 300 to 1000 mm³ nothing is better by more than 4 %. From clicks without
#: any error the curve stays away by 0.1 mm, in one of a thousand places by 0.65 mm.
STIFFNESS = 500.0

# Points nearer than this along z, in slices, are one point of the curve: their mean.
_SAME_HEIGHT = 0.5
# So many mm beside the curve a point is worth a second look: less than one in a thousand of clicks that are
# good to 1 mm.
_FAR_MM = 3.0
# How far beyond the faces of the outer voxels a point is still inside, in voxels.
_ROUNDING = 1e-3
# A volume of labels has no more voxels than somebody clicks, and few on one slice.
_MOST_LABELS, _MOST_LABELS_A_SLICE = 100, 3


def curve_through(points: ArrayLike, grid: Grid, *, stiffness: float = STIFFNESS) -> Centerline:
    """Make the centerline that somebody meant by a few points.

    It covers the slices from the lowest to the highest point and none beyond: one point is its slice, two are
    a line. Points at one height count with their mean; the order of points does not matter.

    Parameters
    ----------
    points : (n, 3)               RAS+ mm
    grid : of the image, any orientation
    stiffness : weight in mm³ of the curve's bending; 0 is the spline through all points

    Returns
    -------
    centerline : on the grid in SCT_RPI, one point a slice without gaps

    Raises
    ------
    InputError
        There are no points, or one is not finite or outside the image.

    Notes
    -----
    x and y are natural cubic smoothing splines of the height along the slices' axis in mm, see
    `fastseg.spline`. SCT regularises with B-splines.

    Examples
    --------
    >>> line = curve_through([[2, 3, 0], [2, 7, 8]], Grid((9, 9, 9), np.diag([1.0, 1.0, 2.0, 1.0])))
    >>> line.world().tolist()
    [[2.0, 3.0, 0.0], [2.0, 4.0, 2.0], [2.0, 5.0, 4.0], [2.0, 6.0, 6.0], [2.0, 7.0, 8.0]]
    """
    native = grid.reoriented(SCT_RPI)
    curve = _curve(_voxels_inside(points, native), native, stiffness)
    curve[:, :2] = np.clip(curve[:, :2], 0, np.array(native.shape[:2]) - 1)
    return Centerline(native, curve)


def centerline_volume(points: Path | Points, grid: Grid) -> Volume:
    """Draw the curve through points into a volume, as the detector ``file`` takes it.

    The points may come from another image: their places in mm count. Where they reach beyond this one, the
    curve goes through all of them, and is taken where it lies inside.

    Parameters
    ----------
    points : of `read_points`, or the file that it reads
    grid : of the image, any orientation

    Returns
    -------
    volume : uint8 on `grid`, one voxel of value 1 a slice

    Raises
    ------
    InputError
        The file cannot be used, or none of its points lies inside the image.
    """
    where = f"{points}: " if isinstance(points, Path) else ""
    given = read_points(points) if isinstance(points, Path) else points
    native = grid.reoriented(SCT_RPI)
    voxels = _voxels(given.world, native)
    inside = _inside(voxels, native)
    if inside.all():
        line = curve_through(given.world, native)
    else:
        curve = _curve(voxels, native, STIFFNESS)
        line = Centerline(native, curve[_inside(curve, native)])
    if not inside.any() or not len(line.points):
        raise InputError(f"{where}no point lies inside the image; give those that were clicked on this image")
    return Volume(line.mask(native), native).reoriented(grid.axcodes)


def remarks(points: Points, grid: Grid) -> tuple[str, ...]:
    """What is odd about points on an image, one sentence each.

    Parameters
    ----------
    grid : of the image, any orientation
    """
    native = grid.reoriented(SCT_RPI)
    voxels = _voxels(points.world, native)
    inside = _inside(voxels, native)
    curve = _curve(voxels, native, STIFFNESS)
    notes = []
    clicked_on = native if points.grid is None else points.grid.reoriented(SCT_RPI)
    if not native.same_space(clicked_on, tolerance_mm=0.1 * min(native.zooms)):
        notes.append("the points were clicked on an image with another grid: their places in mm count")
    if not inside.all():
        outside = f"{np.count_nonzero(~inside)} of {len(inside)} points"
        notes.append(f"{outside} lie outside the image: the centerline ends at its border")
    if len(curve) == 1 and native.shape[2] > 1:
        notes.append(
            "all points lie on one slice, the only one that is segmented: click along the whole cord"
        )
    if inside.any():
        x, y = (np.interp(voxels[:, 2], curve[:, 2], curve[:, axis]) - voxels[:, axis] for axis in (0, 1))
        beside = np.linalg.norm(np.column_stack([x, y]) @ native.affine[:3, :2].T, axis=1) * inside
        worst = int(beside.argmax())
        if beside[worst] > _FAR_MM:
            off = f"point {worst + 1} lies {beside[worst]:.1f} mm beside the curve"
            notes.append(f"{off}: see whether it is on the cord")
    return tuple(notes)


def labels_volume(points: ArrayLike, grid: Grid) -> Volume:
    """Draw points as labels, one voxel each: 1 is the highest, the next below it 2, and so on.

    Of points in one voxel only the first is drawn, so that there are as many labels as voxels.

    Parameters
    ----------
    points : (n, 3)               RAS+ mm
    grid : of the image, any orientation

    Returns
    -------
    volume : on `grid`, uint8, or uint16 for more than 255 labels

    Raises
    ------
    InputError
        As in `curve_through`.
    """
    native = grid.reoriented(SCT_RPI)
    voxels = _voxels_inside(points, native)
    index = np.clip(np.rint(voxels), 0, np.array(native.shape) - 1).astype(np.int64)
    order = np.argsort(-voxels[:, 2], kind="stable")
    places = dict.fromkeys(tuple(place) for place in index[order].tolist())
    labels = np.zeros(native.shape, np.uint8 if len(places) <= 255 else np.uint16)
    for label, place in enumerate(places, start=1):
        labels[place] = label
    return Volume(labels, native).reoriented(grid.axcodes)


def looks_like_points(volume: Volume) -> bool:
    """Whether a volume holds labels of points rather than a centerline or a mask.

    Labels are few voxels, each with an integer of its own from 1 on. One voxel alone is as well a centerline
    of one slice, which comes to the same.
    """
    native = volume.reoriented(SCT_RPI)
    if not 2 <= np.count_nonzero(native.voxels) <= _MOST_LABELS:
        return False
    index = np.nonzero(native.voxels)
    values = native.voxels[index]
    if not ((values >= 1).all() and (values == np.rint(values)).all()):
        return False
    distinct = len(np.unique(values)) == len(values)
    return distinct and int(np.bincount(index[2]).max()) <= _MOST_LABELS_A_SLICE


def points_of_labels(volume: Volume) -> NDArray[np.float64]:
    """(n, 3) float64 RAS+ mm: the voxels of a volume of labels, by label."""
    index = np.argwhere(volume.voxels)
    index = index[np.argsort(volume.voxels[tuple(index.T)], kind="stable")]
    return _moved(index, volume.grid.affine)


# The curve in voxels ----------------------------------------------------------------------------------------


def _moved(points: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    moved: NDArray[np.float64] = (np.column_stack([points, np.ones(len(points))]) @ affine.T)[:, :3]
    return moved


def _voxels(world: NDArray[np.float64], native: Grid) -> NDArray[np.float64]:
    return _moved(world, np.asarray(np.linalg.inv(native.affine), np.float64))


def _inside(voxels: NDArray[np.float64], native: Grid) -> NDArray[np.bool_]:
    beyond = np.abs(voxels - np.clip(voxels, 0, np.array(native.shape) - 1))
    inside: NDArray[np.bool_] = np.all(beyond <= 0.5 + _ROUNDING, axis=1)
    return inside


def _voxels_inside(points: ArrayLike, native: Grid) -> NDArray[np.float64]:
    voxels = _voxels(Points(np.asarray(points)).world, native)
    for index in np.flatnonzero(~_inside(voxels, native))[:1]:
        raise InputError(f"point {index + 1} lies outside the image; remove it, or move it onto the cord")
    return voxels


def _curve(voxels: NDArray[np.float64], native: Grid, stiffness: float) -> NDArray[np.float64]:
    """(m, 3) x, y, z in voxels, on the image's slices from the lowest to the highest point."""
    # In one order, whoever came first: sums are the same to the last bit.
    ordered = voxels[np.lexsort((voxels[:, 0], voxels[:, 1], voxels[:, 2]))]
    last = native.shape[2] - 1
    ends = ordered[[0, -1], 2]
    nearest = np.clip(ends, 0, last)
    low, high = np.rint(np.where(np.abs(ends - nearest) <= 0.5 + _ROUNDING, nearest, ends))
    covered = np.arange(max(low, 0), min(high, last) + 1)
    groups: list[list[int]] = []
    for index, z in enumerate(ordered[:, 2]):
        if groups and z - ordered[groups[-1][0], 2] <= _SAME_HEIGHT:
            groups[-1].append(index)
        else:
            groups.append([index])
    knots = np.array([ordered[group].mean(axis=0) for group in groups])
    weights = np.array([len(group) for group in groups], np.float64)
    slice_mm = float(np.linalg.norm(native.affine[:3, 2]))
    smoothed = smoothing_spline(
        knots[:, 2] * slice_mm, knots[:, :2], covered * slice_mm, stiffness=stiffness, weights=weights
    )
    return np.column_stack([smoothed, covered])
