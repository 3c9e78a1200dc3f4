"""The centerline that a user names, in any of its forms, as the volume that the detector ``file`` takes."""

from __future__ import annotations

from pathlib import Path

from fastseg.centerline_points import (
    Points,
    centerline_volume,
    looks_like_points,
    points_of_labels,
    read_points,
    remarks,
)
from fastseg.errors import InputError
from fastseg.nifti import read_volume
from fastseg.volume import Grid, Volume

__all__ = ["is_points_name", "read_drawn"]


def is_points_name(path: Path) -> bool:
    """Whether the name is that of a file of points, not of a volume."""
    return path.name.lower().endswith(".json")


def read_drawn(path: Path, grid: Grid) -> tuple[Volume, tuple[str, ...]]:
    """Read a centerline, a mask, or points, through which the curve is then laid.

    Parameters
    ----------
    path : .json file of points; or a volume: with a few labels, one voxel each, it holds points as well
    grid : of the image

    Returns
    -------
    drawn : on a grid of its own, or from points on that of the image
    notes : what is odd about it, one sentence each

    Raises
    ------
    InputError
        It cannot be used.
    """
    if is_points_name(path):
        points = read_points(path)
        notes = remarks(points, grid)
    else:
        volume, _ = read_volume(path)
        if not looks_like_points(volume):
            return volume, ()
        points = Points(points_of_labels(volume), path.name, volume.grid)
        notes = (
            f"{path.name} holds {len(points.world)} labels: the centerline is the curve through them",
            *remarks(points, grid),
        )
    try:
        return centerline_volume(points, grid), notes
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
