"""Masks that somebody corrected: read onto the image's grid, and given a sidecar that says so."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastseg import __version__
from fastseg.errors import InputError
from fastseg.nifti import read_volume
from fastseg.outputs import split_suffix
from fastseg.sidecar import write_json
from fastseg.volume import Grid, Volume

__all__ = ["describe_corrected", "on_grid", "read_corrected", "read_mask"]

# Editors write affines anew, in float32 or from a quaternion; a tenth of a voxel moves no outline.
_OFF_GRID = 0.1


def read_mask(path: Path, image: Grid | None) -> Volume:
    """Read a mask, and lay it exactly onto the grid of its image.

    Parameters
    ----------
    path : volume
    image : grid of the image; None: the mask keeps its own

    Raises
    ------
    InputError
        It cannot be read, or does not lie on the image's grid.
    """
    volume, _ = read_volume(path)
    return volume if image is None else on_grid(volume, image, path)


def on_grid(mask: Volume, image: Grid, path: Path) -> Volume:
    """Lay a mask exactly onto the grid of its image; it may be stored in another orientation.

    Parameters
    ----------
    mask : that was read
    image : grid of the image
    path : of the mask, for the message

    Raises
    ------
    InputError
        It lies elsewhere, or has another shape.
    """
    turned = mask.reoriented(image.axcodes)
    if not turned.grid.same_space(image, tolerance_mm=_OFF_GRID * min(image.zooms)):
        raise InputError(
            f"{path}: is not on the grid of the image: it has {_size(turned.grid)} voxels, the image "
            f"{_size(image)}, or lies elsewhere; save it with the shape and affine of the image"
        )
    return Volume(turned.voxels, image)


def _size(grid: Grid) -> str:
    return " x ".join(map(str, grid.shape))


def read_corrected(path: Path, image: Grid | None, *, level: float = 0.5) -> Volume:
    """Read a corrected mask as 0/1: editors write any number for what they painted.

    Parameters
    ----------
    path, image : as of `read_mask`
    level : what is above it is cord

    Raises
    ------
    InputError
        As `read_mask`; or nothing in it is above the level.
    """
    volume = read_mask(path, image)
    cord = (volume.voxels > level).view(np.uint8)
    if not cord.any():
        raise InputError(f"{path}: is empty; draw the cord, or remove the file")
    return Volume(cord, volume.grid)


def describe_corrected(manual: Path, *, sources: Sequence[str]) -> str:
    """Write the sidecar of a corrected mask, unless there is one.

    Parameters
    ----------
    manual : the mask
    sources : names of what it was made of: the image, and the automatic mask if there is one

    Returns
    -------
    remark : why the sidecar that is there contradicts; empty if all is well

    Raises
    ------
    OutputError
        It cannot be written.
    """
    path = manual.with_name(f"{split_suffix(manual)[0]}.json")
    if os.path.lexists(path):
        if _record(path).get("Manual") is True:
            return ""
        return f"{path.name} does not say that the mask was corrected; set its Manual to true, or remove it"
    how = "an automatic mask, corrected by hand" if len(sources) > 1 else "drawn by hand"
    write_json(
        {
            "GeneratedBy": [{"Name": "fastseg", "Version": __version__, "Description": how}],
            "Sources": [*sources],
            "SpatialReference": "orig",
            "Type": "ROI",
            "Manual": True,
        },
        path,
    )
    return ""


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
