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
from fastseg.volume import Grid

__all__ = ["HEAT_ZOOM", "locate_by_blocks", "locate_by_slices", "locate_by_svm", "slice_heat"]

#: In-plane voxel size that whole-slice detectors were trained at, in mm.
HEAT_ZOOM = 1.0

#: Smoothness of the curve on a distance transform, by contrast (older SCT releases; all others 1).
_BLOCK_SMOOTHNESS = {"t2s": 7.0}

# Whole-slice detectors halve the image four times, and want at least three such units.
_MULTIPLE, _SMALLEST = 16, 48
# Voxels that a percentile of the whole volume is taken from: enough to know it to a tenth of a percent.
_SAMPLE = 500_000


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
    slices: NDArray[np.float32], native: Grid, network: Network, engine: Engine
) -> Centerline:
    """Centerline by the curve through the heat map of a whole-slice detector.

    Parameters
    ----------
    slices : (z, x, y) float32    native
    native : their grid

    Returns
    -------
    centerline : on a grid of 1 mm in plane

    Raises
    ------
    CordNotFound
        The detector sees no cord on any slice.
    """
    grid = working_grid(native, HEAT_ZOOM)
    heat = slice_heat(resample_in_plane(slices, grid), network, engine)
    if heat.max() <= 0.1:
        raise CordNotFound(
            "the detector sees no spinal cord on any slice; check the field of view and the contrast, or "
            "give a centerline (--centerline file)"
        )
    return _on_every_slice(trace_curve(heat, grid.zooms), grid)


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


def slice_heat(slices: NDArray[np.float32], network: Network, engine: Engine) -> NDArray[np.float32]:
    """Heat map of a whole-slice detector.

    Parameters
    ----------
    slices : (z, x, y) float32    1 mm in plane

    Returns
    -------
    heat : (z, x, y) float32      0..1, a blob around the cord's centre
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
    return np.ascontiguousarray(engine.infer(padded)[:, 0, x : x + nx, y : y + ny])


def _on_every_slice(path: NDArray[np.int32], grid: Grid) -> Centerline:
    return Centerline(grid, np.column_stack([path, np.arange(len(path))]).astype(np.float64))
