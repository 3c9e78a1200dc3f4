"""Cross-sectional area of the cord: a row for each slice, in the plane of the slice and across the cord."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastseg.centerline import Centerline
from fastseg.errors import InputError
from fastseg.outputs import write_file
from fastseg.volume import SCT_RPI, Grid, Volume

__all__ = ["COLUMNS", "AreaRow", "area_table", "write_csa"]

# The direction at a slice comes from the centres within this many mm of height, and from at least so many.
_REACH, _FEWEST = 30.0, 5


@dataclass(frozen=True, slots=True)
class AreaRow:
    """The cord on one slice.

    Parameters
    ----------
    z : slice of SCT_RPI: 0 is the lowest, as in SCT's "Slice (I->S)", however the file runs
    z_mm : height above slice 0, across the slices
    area_mm2 : in the plane of the slice
    area_corrected_mm2 : across the cord: area_mm2 times the cosine of angle_deg
    angle_deg : between the cord and the normal of the slice, from 0 to 90
    angle_ap_deg, angle_rl_deg : the same seen from the side, and from the front; above 0 where the cord leans
        forwards, and to its owner's left, on its way up
    centre_mm : x, y, z of the centre of mass in RAS+ mm
    """

    z: int
    z_mm: float
    area_mm2: float
    area_corrected_mm2: float
    angle_deg: float
    angle_ap_deg: float
    angle_rl_deg: float
    centre_mm: tuple[float, float, float]


#: Columns of the file: what they are, and their unit as BIDS writes it. Ready for the JSON beside the file.
COLUMNS: dict[str, dict[str, str]] = {
    "slice": {"Description": "Axial slice, counted from 0 at the lower end (inferior to superior)"},
    "z_mm": {"Description": "Height of the slice above slice 0, across the slices", "Units": "mm"},
    "area_mm2": {"Description": "Area of the cord in the plane of the slice", "Units": "mm^2"},
    "area_corrected_mm2": {
        "Description": "Area across the cord: area_mm2 times the cosine of angle_deg",
        "Units": "mm^2",
    },
    "angle_deg": {"Description": "Angle between the cord and the normal of the slice", "Units": "degree"},
    "angle_ap_deg": {"Description": "The angle seen from the side; above 0: forwards", "Units": "degree"},
    "angle_rl_deg": {"Description": "The angle seen from the front; above 0: to the left", "Units": "degree"},
    "centre_x_mm": {"Description": "Centre of mass of the cord, to the right", "Units": "mm"},
    "centre_y_mm": {"Description": "Centre of mass of the cord, to the front", "Units": "mm"},
    "centre_z_mm": {"Description": "Centre of mass of the cord, upwards", "Units": "mm"},
}


def area_table(
    mask: Volume, centerline: Centerline | None = None, *, threshold: float = 0.0
) -> tuple[AreaRow, ...]:
    """Measure a mask on every slice that has cord, from the lowest to the highest.

    Parameters
    ----------
    mask : any orientation, 0/1 or soft: a voxel counts with its value
    centerline : whose direction is the cord's; None: the line through the centres of the mask, which is
        nearer to the truth than what a detector finds
    threshold : slices are measured on which some value is above it

    Raises
    ------
    InputError
        The centerline has not the slices of the mask.

    Notes
    -----
    The direction of the cord is the derivative of a local quadratic regression of the centres' positions on
    height, weighted by (1 - (d / D)³)³ of the distance d in height (Cleveland 1979,
    doi:10.1080/01621459.1979.10481038). D is 30 mm, or as far as five centres reach; with fewer than five of
    them the regression is linear, and a single one has the direction of the normal. Cleveland's D always is
    the distance to a fixed share of the points, and he repeats the fit to reject outliers.

    Against the same line of the reference masks, the angles on nine real volumes differ by 0.3 to 0.8 degrees
    on average with the centres of the mask, and by 1.4 to 3.3 with the detector's centerline.

    A cylinder cut obliquely shows its area divided by the cosine of the angle: hence the correction.

    Examples
    --------
    >>> voxels = np.zeros((9, 9, 3), np.uint8)
    >>> voxels[3:6, 3:6] = 1
    >>> for row in area_table(Volume(voxels, Grid(voxels.shape, np.diag([0.5, 0.5, 4.0, 1.0])))):
    ...     print(row.z, row.z_mm, row.area_mm2, row.area_corrected_mm2, row.angle_deg, row.centre_mm)
    0 0.0 2.25 2.25 0.0 (2.0, 2.0, 0.0)
    1 4.0 2.25 2.25 0.0 (2.0, 2.0, 4.0)
    2 8.0 2.25 2.25 0.0 (2.0, 2.0, 8.0)
    """
    turned = mask.reoriented(SCT_RPI)
    grid = turned.grid
    if centerline is not None and centerline.grid.shape[2] != grid.shape[2]:
        raise InputError(
            f"the centerline has {centerline.grid.shape[2]} slices, the mask {grid.shape[2]}: give the one "
            "that was found in the same volume"
        )
    z, weights, points = _centres(turned, threshold)
    if not len(z):
        return ()
    plane = _Plane.of(grid)
    known, line = (z, points) if centerline is None else (centerline.z, centerline.world())
    along = np.tile(plane.normal, (len(z), 1))
    if len(known) > 1:
        along = _tangents(known * plane.pitch, line, z * plane.pitch)
    left, front, up = (along @ axis for axis in (plane.x, plane.y, plane.normal))
    cosine = np.clip(up / np.linalg.norm(along, axis=1), 0.0, 1.0)
    angles = np.degrees([np.arccos(cosine), np.arctan2(front, up), np.arctan2(left, up)])
    area = weights * plane.voxel_mm2
    return tuple(
        AreaRow(
            z=int(z[i]),
            z_mm=float(z[i] * plane.pitch),
            area_mm2=float(area[i]),
            area_corrected_mm2=float(area[i] * cosine[i]),
            angle_deg=float(angles[0, i]),
            angle_ap_deg=float(angles[1, i]),
            angle_rl_deg=float(angles[2, i]),
            centre_mm=(float(points[i, 0]), float(points[i, 1]), float(points[i, 2])),
        )
        for i in range(len(z))
    )


def write_csa(
    path: Path, mask: Volume, centerline: Centerline | None = None, *, threshold: float = 0.0
) -> None:
    """Write `area_table` as tab-separated values under the names of `COLUMNS`.

    Raises
    ------
    InputError
        The centerline has not the slices of the mask.
    OutputError
        The file cannot be written.
    """
    lines = ["\t".join(COLUMNS)]
    for row in area_table(mask, centerline, threshold=threshold):
        index, *values, centre = astuple(row)
        # Adding 0 makes 0 of -0.
        numbers = (f"{round(value, 4) + 0.0:.4f}" for value in (*values, *centre))
        lines.append("\t".join([str(index), *numbers]))
    write_file(path, ("\n".join(lines) + "\n").encode())


@dataclass(frozen=True, slots=True)
class _Plane:
    """Slices in the world: unit vectors in the plane and across it, the size of a voxel, the distance."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    normal: NDArray[np.float64]
    voxel_mm2: float
    pitch: float

    @classmethod
    def of(cls, grid: Grid) -> _Plane:
        """Of a grid in SCT_RPI; its axes need not be at right angles."""
        along_x, along_y, along_z = grid.affine[:3, :3].T
        normal = np.cross(along_x, along_y)
        area = float(np.linalg.norm(normal))
        normal *= np.sign(normal @ along_z) / area
        x = along_x / np.linalg.norm(along_x)
        y = along_y - (along_y @ x) * x
        return cls(x, y / np.linalg.norm(y), normal, area, float(normal @ along_z))


def _centres(
    mask: Volume, threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Slices with cord, the sum of their values, and their centres of mass in RAS+ mm."""
    voxels = mask.voxels
    z = np.flatnonzero((voxels > threshold).any(axis=(0, 1)))
    along_x, along_y = (voxels[..., z].sum(axis=axis, dtype=np.float64) for axis in (1, 0))
    sums = along_x.sum(axis=0)
    index = np.column_stack(
        [
            np.arange(voxels.shape[0]) @ along_x / sums,
            np.arange(voxels.shape[1]) @ along_y / sums,
            z,
            np.ones(len(z)),
        ]
    )
    return z, sums, (index @ mask.grid.affine.T)[:, :3]


def _tangents(
    heights: NDArray[np.floating], points: NDArray[np.float64], at: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Direction of a smooth line through points (n, 3), n > 1, at some heights, per mm of height."""
    distance = np.abs(heights - at[:, None])
    fewest = np.sort(distance, axis=1)[:, min(_FEWEST, len(heights)) - 1]
    # Beyond the outermost of them, so that it has a weight.
    reach = np.maximum(_REACH, 1.25 * fewest)[:, None]
    weight = np.clip(1 - (distance / reach) ** 3, 0, None) ** 3
    u = (heights - at[:, None]) / reach
    powers = u[..., None] ** np.arange(3 if len(heights) >= _FEWEST else 2)
    weighted = powers * weight[..., None]
    fitted = np.linalg.solve(weighted.swapaxes(1, 2) @ powers, weighted.swapaxes(1, 2) @ points)
    return np.asarray(fitted[:, 1] / reach)
