"""Where the cord may be: score map or heat map of a detector, and the best curve through it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastseg.centerline import Centerline
from fastseg.curve import trace_curve
from fastseg.engines.base import Engine
from fastseg.errors import CordNotFound
from fastseg.networks.network import Network
from fastseg.quirks import Quirks
from fastseg.resampling import resample_in_plane, working_grid
from fastseg.slice_detection import examined_slices, holds_cord, peak_heat, refined, slice_heat
from fastseg.volume import Grid

__all__ = ["HEAT_ZOOM", "locate_by_blocks", "locate_by_slices", "locate_by_svm"]

#: In-plane voxel size that whole-slice detectors were trained at, in mm.
HEAT_ZOOM = 1.0

#: Smoothness of the curve on a distance transform, by contrast (older SCT releases; all others 1).
_BLOCK_SMOOTHNESS = {"t2s": 7.0}


def locate_by_svm(slices: NDArray[np.float32], grid: Grid, coefficients: NDArray[np.float32]) -> Centerline:
    """Centerline by OptiC: HOG + SVM score and the global curve (Gros et al. 2018).

    Parameters
    ----------
    slices : (z, x, y) float32    native; NaN and Inf count as 0
    grid : the grid to work on: theirs, or one with other voxels in plane
    coefficients : (577,) float32
    """
    from fastseg.optic import prepare_uint16, svm_score_map  # brings kernels that others do not need

    # The whole field of view is resampled: the curve is global, and so is the scaling to 16 bits. What a
    # step leaves behind goes before the next one: each is as large as the volume.
    stretched = prepare_uint16(resample_in_plane(slices, grid).transpose(1, 2, 0))
    scores = svm_score_map(stretched, grid.zooms, coefficients)
    del stretched
    return _on_every_slice(trace_curve(scores, grid.zooms), grid)


def locate_by_slices(
    slices: NDArray[np.float32], native: Grid, network: Network, engine: Engine, threshold: float
) -> Centerline:
    """Centerline by the curve through the heat map of a whole-slice detector.

    Parameters
    ----------
    slices : (z, x, y) float32    native
    native : their grid
    threshold : heat from which on a slice is taken for one with cord

    Returns
    -------
    centerline : on a grid of 1 mm in plane; it covers the slices that hold cord

    Raises
    ------
    CordNotFound
        The detector sees no cord on any slice.

    Notes
    -----
    Slices less than 3 mm apart are not all looked at. The curve through the heat maps is refined to the
    centre of the heat around it, and drawn straight between the slices that were looked at.
    """
    grid = working_grid(native, HEAT_ZOOM)
    spacing = native.zooms[2]
    seen = examined_slices(len(slices), spacing)
    chosen = slices if len(seen) == len(slices) else slices[seen]
    heat, pixels, lead = slice_heat(resample_in_plane(chosen, grid), network, engine)
    apart = spacing * (seen[-1] - seen[0]) / (len(seen) - 1) if len(seen) > 1 else spacing
    path = trace_curve(heat, (grid.zooms[0] * pixels, grid.zooms[1] * pixels, apart))
    z = np.arange(len(slices))
    there = holds_cord(np.interp(z, seen, peak_heat(heat, path)), threshold, spacing)
    if not there.any():
        raise CordNotFound(
            "the detector sees no spinal cord on any slice; check the field of view and the contrast, or "
            "give a centerline (--centerline viewer or file)"
        )
    centre = refined(heat, path) * pixels + (pixels - 1) / 2 - lead
    points = np.column_stack([np.interp(z, seen, along) for along in centre.T] + [z])
    points[:, :2] = np.clip(points[:, :2], 0, np.array(grid.shape[:2]) - 1)
    return Centerline(grid, points[there])


def locate_by_blocks(
    slices: NDArray[np.float32],
    working: Grid,
    network: Network,
    engine: Engine,
    *,
    contrast: str,
    brain: bool,
    quirks: Quirks,
) -> Centerline:
    """Centerline by the curve through the distance transform of SCT's block detector (quirk 10).

    Parameters
    ----------
    slices : (z, x, y) float32    native
    working : 0.5 mm grid
    contrast : decides the smoothness
    brain : whether tracking ends when it leaves the cord; only with SCT's own search
    quirks : SCT's own search (quirks 3 to 6) or all slices alike

    Raises
    ------
    CordNotFound
        The detector sees no cord on any slice.

    Notes
    -----
    The curve ends at the last slice with a detection: what lies above is brain, or has no cord. SCT leaves
    out that slice too (quirk 5).
    """
    from fastseg.block_detection import scan_blocks, track_blocks  # brings scipy, which others do not need

    whole = resample_in_plane(slices, working)  # the detector's percentiles are those of the whole volume
    if quirks.detection_blocks_reused:
        blocks = track_blocks(whole, network, engine, brain=brain)
        stop = len(whole) if blocks.z_max is None else blocks.z_max
    else:
        blocks = scan_blocks(whole, network, engine)
        stop = len(whole) if blocks.last is None else blocks.last + 1
    path = trace_curve(blocks.heat[:stop], working.zooms, _BLOCK_SMOOTHNESS.get(contrast, 1.0))
    return _on_every_slice(path, working)


def _on_every_slice(path: NDArray[np.int32], grid: Grid) -> Centerline:
    return Centerline(grid, np.column_stack([path, np.arange(len(path))]).astype(np.float64))
