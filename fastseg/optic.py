"""OptiC: the spinal cord's centerline from a score map and the best curve through it.

Gros et al. (2018), Automatic spinal cord localization, robust to MRI contrasts using global curve
optimization, Medical Image Analysis 44:215-227. The program SCT calls for it, ``isct_spine_detect``, has no
public source; what is here gives the same voxels on all of SCT's reference outputs.

Volumes are (x, y, z) in the axis order of ``SCT_RPI``; an array of any memory order will do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastseg.curve import float32_zooms, trace_curve
from fastseg.errors import InputError
from fastseg.kernels.hog import N_COEFFICIENTS, score_pixels
from fastseg.kernels.optic_resize import (
    finite_range,
    resize_image,
    resize_scores,
    size_at_1_mm,
    stretch_to_uint16,
    to_uint8,
)

__all__ = ["optic_centerline", "prepare_uint16", "svm_score_map"]


def optic_centerline(
    voxels: NDArray[np.generic],
    zooms: ArrayLike,
    coefficients: NDArray[np.float32],
    smoothness: float = 1.0,
) -> NDArray[np.int32]:
    """Find the spinal cord on every slice of a volume.

    Parameters
    ----------
    voxels : (x, y, z), any real dtype
    zooms : (3,)                     mm per voxel
    coefficients : (577,) float32    of the contrast's support vector machine
    smoothness : float               penalty per squared millimetre of lateral step per millimetre of z

    Returns
    -------
    path : (z, 2) int32   x, y of the cord on each slice

    Raises
    ------
    InputError
        An array has the wrong shape, or a zoom is not a positive number.

    Examples
    --------
    A detector without an opinion leaves the curve where ties are resolved.

    >>> optic_centerline(np.zeros((5, 4, 3)), (1, 1, 1), np.zeros(577, np.float32)).tolist()
    [[0, 0], [0, 0], [0, 0]]
    """
    scores = svm_score_map(prepare_uint16(voxels), zooms, coefficients)
    return trace_curve(scores, zooms, smoothness)


def prepare_uint16(voxels: NDArray[np.generic]) -> NDArray[np.uint16]:
    """Stretch a volume's grey values to 0..65535.

    Parameters
    ----------
    voxels : (x, y, z), any real dtype   NaN and infinities count as 0

    Returns
    -------
    stretched : (x, y, z) uint16   truncated; zeros if all voxels are equal

    Notes
    -----
    As in SCT's ``optic.py``. SCT divides by zero where all voxels are equal. The result is a view of
    contiguous slices, which is what `svm_score_map` reads.

    Examples
    --------
    >>> prepare_uint16(np.array([[[-1.0, 0.0, np.nan, 1.0]]])).tolist()
    [[[0, 32767, 32767, 65535]]]
    """
    _check_volume(voxels)
    # Numbers that float32 holds exactly need no float64 copy.
    if voxels.dtype != np.float64:
        exact = np.can_cast(voxels.dtype, np.float32)
        voxels = voxels.astype(np.float32 if exact else np.float64, copy=False)
    if not voxels.flags.writeable:  # kernels' signatures do not admit such arrays
        voxels = voxels.copy(order="K")
    slices = voxels.transpose(2, 0, 1)
    stretched = np.zeros(slices.shape, np.uint16)
    low, high = finite_range(_as_lines(voxels))
    if low < high:
        stretch_to_uint16(slices, low, high, stretched)
    return stretched.transpose(1, 2, 0)


def svm_score_map(
    voxels: NDArray[np.uint16], zooms: ArrayLike, coefficients: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Score how much the surroundings of every pixel look like those of a spinal cord.

    Parameters
    ----------
    voxels : (x, y, z) uint16       see `prepare_uint16`
    zooms : (3,)                    mm per voxel
    coefficients : (577,) float32   576 weights and the bias, in OpenCV's order

    Returns
    -------
    scores : (z, x, y) float32   distance from the separating plane, positive on the cord's side

    Raises
    ------
    InputError
        An array has the wrong shape, or a zoom is not a positive number.

    Notes
    -----
    Slices are scaled to their own maximum, resampled to 1 mm in plane, scored at every pixel
    (Dalal & Triggs 2005) and the scores resampled to the slices' grid. Gradient angles are exact, those of
    OpenCV are not: scores differ from OpenCV's by up to 3e-4.

    Examples
    --------
    >>> bias = np.zeros(577, np.float32)
    >>> bias[-1] = -1.25
    >>> scores = svm_score_map(np.zeros((6, 4, 2), np.uint16), (0.5, 0.5, 3.0), bias)
    >>> scores.shape, float(scores.min()), float(scores.max())
    ((2, 6, 4), -1.25, -1.25)
    """
    _check_volume(voxels)
    zoom_x, zoom_y, _ = float32_zooms(zooms)
    coefficients = np.ascontiguousarray(coefficients, np.float32)
    if coefficients.shape != (N_COEFFICIENTS,):
        raise InputError(
            f"a detector of shape {coefficients.shape} cannot be used: {N_COEFFICIENTS} numbers are needed"
        )
    slices = np.ascontiguousarray(voxels.transpose(2, 0, 1), np.uint16)
    scores = np.empty(slices.shape, np.float32)
    size = slices.shape[1:]
    size_1_mm = size_at_1_mm(size[0], zoom_x), size_at_1_mm(size[1], zoom_y)
    image = np.empty(size, np.uint8)
    image_1_mm = np.empty(size_1_mm, np.uint8)
    scores_1_mm = np.empty(size_1_mm, np.float32)
    for slice_, slice_scores in zip(slices, scores, strict=True):
        to_uint8(slice_, image)
        resize_image(image, zoom_x, zoom_y, image_1_mm)
        score_pixels(image_1_mm, coefficients, scores_1_mm)
        resize_scores(scores_1_mm, slice_scores)
    return scores


def _check_volume(voxels: NDArray[np.generic]) -> None:
    if voxels.ndim != 3 or voxels.size == 0 or voxels.dtype.kind not in "buif":
        raise InputError(
            f"an array of {voxels.dtype} and shape {voxels.shape} is not a volume: real numbers (x, y, z)"
        )


def _as_lines(voxels: NDArray[np.generic]) -> NDArray[np.generic]:
    """All voxels as a table, in whatever order they lie in memory; a copy only where that leaves gaps."""
    upright = voxels[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in voxels.strides)]
    order = np.argsort([-stride for stride in upright.strides], kind="stable")
    return np.ascontiguousarray(upright.transpose(order)).reshape(-1, upright.shape[order[-1]])
