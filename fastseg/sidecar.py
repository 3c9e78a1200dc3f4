"""The JSON beside a mask: what was done, with what, and what came out. Keys as in BIDS derivatives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastseg import __version__
from fastseg.networks.packs import Pack, pack_digest
from fastseg.nifti import Template
from fastseg.options import Options
from fastseg.outputs import write_file
from fastseg.segmenter import Segmentation
from fastseg.volume import SCT_RPI, Volume

__all__ = ["file_sha256", "mask_statistics", "sidecar", "write_json"]


def sidecar(
    result: Segmentation,
    template: Template,
    *,
    options: Options,
    pack: Pack,
    frame: object = None,
    source: str = "",
    sha256: str = "",
    attempts: Sequence[object] = (),
) -> dict[str, Any]:
    """Describe one result.

    Parameters
    ----------
    result : of the volume
    template : of the volume's file
    options : that the volume was segmented with
    pack : whose networks ran
    frame : of a 4D file, which of its volumes was taken
    source : name of the volume, relative to its data set; if empty, that of its file
    sha256 : of the volume's file, if it is known
    attempts : what was tried, where that was more than once

    Returns
    -------
    record : JSON values with a fixed order of keys. Files are named relative to the data set, so that nothing
        of the machine gets into it.
    """
    flags = result.quality.flags
    return {
        "GeneratedBy": [{"Name": "fastseg", "Version": __version__}],
        "Sources": [source or template.path.name],
        "SpatialReference": "orig",
        "Type": "ROI",
        "Manual": False,
        "Fastseg": {
            "Status": "ok_flagged" if flags else "ok",
            "Flags": list(flags),
            "Notes": [*template.notes, *result.notes],
            "Contrast": options.contrast,
            "Centerline": result.detector,
            "Kernel": options.kernel,
            "Threshold": float(result.threshold),
            "Soft": options.soft,
            "Frame": frame,
            "Engines": dict(result.engines),
            "Networks": {
                step: {"Name": name, "Sha256": sha256} for step, (name, sha256) in result.networks.items()
            },
            "Pack": {"Name": pack.name, "Digest": pack_digest(pack)},
            "InputSha256": sha256 or file_sha256(template.path),
            "Statistics": mask_statistics(result.mask),
            "Quality": dict(result.quality.measures),
            **({"Attempts": list(attempts)} if attempts else {}),
            "Seconds": {step: round(seconds, 4) for step, seconds in result.seconds.items()},
        },
    }


def mask_statistics(mask: Volume) -> dict[str, float]:
    """Measure a mask, or a soft result, in which a voxel counts with its probability.

    Returns
    -------
    statistics : axial slices covered, volume in mm3, mean area of the covered slices in mm2 (of the axial
        voxel plane, not perpendicular to the cord)

    Examples
    --------
    >>> from fastseg.volume import Grid
    >>> voxels = np.zeros((4, 4, 3), np.uint8)
    >>> voxels[1:3, 1:3, :2] = 1
    >>> mask_statistics(Volume(voxels, Grid(voxels.shape, np.diag([1.0, 1.0, 5.0, 1.0]))))
    {'SlicesCovered': 2, 'VolumeMm3': 40.0, 'MeanAreaMm2': 4.0}
    """
    turned = mask.reoriented(SCT_RPI)
    x_mm, y_mm, z_mm = turned.grid.zooms
    areas = turned.voxels.sum(axis=(0, 1), dtype=np.float64) * (x_mm * y_mm)
    covered = areas[areas > 0]
    return {
        "SlicesCovered": len(covered),
        "VolumeMm3": round(float(covered.sum()) * z_mm, 3),
        "MeanAreaMm2": round(float(covered.mean()), 3) if len(covered) else 0.0,
    }


def file_sha256(path: Path) -> str:
    """Digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(record: dict[str, Any], path: Path) -> None:
    """Write a record, keys in their order, so that readers see the old file or the new one.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    # File names that are not UTF-8 hold lone surrogates: as \\udcXX they are valid JSON.
    write_file(path, text.encode(errors="backslashreplace"))
