"""A plain re-creation of how sct_deepseg_sc computes its mask: our yardstick, not SCT.

It is written from the facts in docs/sct.md, with numpy, scipy, nibabel and onnxruntime, and does what SCT
does in the way in which SCT does it: whole volumes are resampled there and back with scipy's
`affine_transform`, every slice gets a new onnxruntime session, objects are labelled slice by slice, and for
the test of the end slices every slice is measured on a grid of 0.1 mm. The detection of the centerline is
not part of it: one is given. SCT's temporary files, its start and its sleep are not re-created either.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import onnxruntime
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nibabel.processing import resample_from_to
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["segment"]

_SIZE = 64
_Image = nibabel.Nifti1Image


def segment(
    image_file: Path, centerline_file: Path, mask_file: Path, network_file: Path, threshold: float
) -> NDArray[np.uint8]:
    """Segment a volume whose centerline is known, and write the mask.

    Parameters
    ----------
    network_file : 2D network, channels last, 64 x 64, values 0..255
    threshold : probability above which a voxel is cord
    """
    stored = nibabel.load(image_file)
    image = _oriented(stored, ("L", "A", "S"))
    centerline = _oriented(nibabel.load(centerline_file), ("L", "A", "S"))
    fine = _at_half_mm(image)
    corners = _corners(np.asanyarray(_at_half_mm(centerline).dataobj), fine.shape)
    crops = _normalised(_cropped(np.asanyarray(fine.dataobj), corners))
    masks = _predicted(crops, network_file, threshold)
    whole = np.zeros(fine.shape, np.float32)
    for z, (x, y) in corners.items():
        part = whole[x : x + _SIZE, y : y + _SIZE, z]
        part[:] = masks[: part.shape[0], : part.shape[1], z]
    back = resample_from_to(_Image(whole, fine.affine), (image.shape, image.affine), order=1, mode="nearest")
    mask = (np.asanyarray(back.dataobj) > 0.5).astype(np.uint8)
    _without_strays(mask)
    _without_small_ends(mask, image.header.get_zooms())
    result = _oriented(_Image(mask, image.affine), nibabel.aff2axcodes(stored.affine))
    nibabel.save(_Image(np.asanyarray(result.dataobj), stored.affine), mask_file)
    return np.asanyarray(result.dataobj)


def _oriented(image: _Image, axcodes: tuple[str, ...]) -> _Image:
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt(axcodes))
    return _Image(np.asanyarray(image.as_reoriented(change).dataobj), image.as_reoriented(change).affine)


def _at_half_mm(image: _Image) -> _Image:
    """The whole volume at 0.5 mm in plane; integers become float64, float32 stays."""
    voxels = np.asanyarray(image.dataobj)
    if voxels.dtype != np.float32:
        voxels = voxels.astype(np.float64)
    (nx, ny, nz), (px, py, _) = image.shape, nibabel.affines.voxel_sizes(image.affine).astype(np.float32)
    wx, wy = int(np.round(nx * px / 0.5)), int(np.round(ny * py / 0.5))
    affine = image.affine @ np.diag([nx / wx, ny / wy, 1, 1])
    fine = resample_from_to(_Image(voxels, image.affine), ((wx, wy, nz), affine), order=1, mode="nearest")
    return _Image(np.asanyarray(fine.dataobj), affine.astype(np.float32))  # as it is in a file


def _corners(centerline: NDArray[np.floating], shape: tuple[int, ...]) -> dict[int, tuple[int, int]]:
    """First x and y of the window on every slice with a centerline."""
    corners = {}
    for z in range(shape[2]):
        if centerline[:, :, z].any():
            centre = ndimage.center_of_mass(centerline[:, :, z])
            x, y = (max(min(int(c) - 31, n - _SIZE), 0) for c, n in zip(centre, shape, strict=False))
            corners[z] = (x, y)
    return corners


def _cropped(voxels: NDArray[np.floating], corners: dict[int, tuple[int, int]]) -> NDArray[np.float32]:
    crops = np.zeros((_SIZE, _SIZE, voxels.shape[2]), np.float32)
    for z, (x, y) in corners.items():
        part = voxels[x : x + _SIZE, y : y + _SIZE, z]
        crops[: part.shape[0], : part.shape[1], z] = part
    return crops


def _normalised(crops: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = np.percentile(crops.astype(np.float64), [2, 98])
    crops = np.clip(crops, np.float32(low), np.float32(high))
    if low == high:
        return np.clip(crops, 0, 255)
    return (crops - np.float32(low)) / np.float32(high - low) * np.float32(255)


def _predicted(crops: NDArray[np.float32], network_file: Path, threshold: float) -> NDArray[np.float32]:
    """Predict and clean every slice; the object that continues the one before is kept."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    masks, centre = np.zeros(crops.shape, np.float32), None
    for z in range(crops.shape[2]):
        session = onnxruntime.InferenceSession(network_file, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        (answer,) = session.run(None, {name: crops[None, :, :, z, None]})
        probability = np.nan_to_num(answer[0, :, :, 0], nan=0.0)
        mask = ndimage.binary_fill_holes(probability > threshold, np.ones((3, 3)))
        labels, count = ndimage.label(mask)
        if not count:
            continue
        keep = labels[centre] if centre else 0
        keep = keep or 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
        masks[:, :, z] = labels == keep
        x, y = ndimage.center_of_mass(masks[:, :, z])
        centre = round(x), round(y)
    return masks


def _without_strays(mask: NDArray[np.uint8]) -> None:
    """Remove small objects above the top slice of the largest object. In place."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    top = ndimage.find_objects(labels)[int(sizes.argmax()) - 1][2].stop
    above, count = ndimage.label(mask[:, :, top:])
    for label in range(1, count + 1):
        if (above == label).sum() < 0.1 * sizes.max():
            mask[:, :, top:][above == label] = 0


def _without_small_ends(mask: NDArray[np.uint8], zooms: tuple[float, ...]) -> None:
    """Remove an end slice that is less than half as large as its neighbours, SCT's windows. In place."""
    area = np.full(mask.shape[2], np.nan)
    for z in range(mask.shape[2]):
        if mask[:, :, z].any():
            x, y = (np.flatnonzero(mask[:, :, z].any(axis=axis)) for axis in (1, 0))
            around = mask[max(x[0] - 1, 0) : x[-1] + 2, max(y[0] - 1, 0) : y[-1] + 2, z]
            zoom = [zooms[0] / 0.1, zooms[1] / 0.1]
            area[z] = ndimage.zoom(around.astype(np.float64), zoom, order=1).sum() * 0.01
    filled = np.flatnonzero(np.isfinite(area))
    if not len(filled):
        return
    low, high = area[filled[0] : 5], area[filled[-1] - 4 : filled[-1] + 1] if filled[-1] >= 4 else area[:0]
    for end, window in ((filled[0], low), (filled[-1], high)):
        if len(window) and area[end] < 0.5 * np.median(window):
            mask[:, :, end] = 0
