"""Objects in slices, written for reading: scipy labels and fills."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def keep_cord_slices(probabilities, threshold):
    """One object a slice, without holes: the one at the centre of the object before, else the largest."""
    out = np.zeros(probabilities.shape, np.uint8)
    centre = None
    for mask, slice_ in zip(out, probabilities, strict=True):
        filled = ndimage.binary_fill_holes(slice_ > threshold, structure=np.ones((3, 3)))
        labels, count = ndimage.label(filled)
        if count == 0:
            continue
        keep = labels[centre] if centre else 0
        if keep == 0:
            keep = 1 + int(np.argmax([(labels == label).sum() for label in range(1, count + 1)]))
        mask[:] = labels == keep
        x, y = ndimage.center_of_mass(mask)
        centre = round(x), round(y)  # half to even
    return out


def label_objects(mask):
    """6-connected objects, numbered in the order of their first voxel in (x, y, z)."""
    labels, count = ndimage.label(mask.transpose(1, 2, 0))
    return labels.transpose(2, 0, 1), count


def border_distance(mask):
    """City-block distance to the nearest pixel of the other kind, negative inside; nx + ny without one."""
    out = np.empty(mask.shape, int)
    for z, x, y in np.ndindex(*mask.shape):
        others = np.argwhere(mask[z] != mask[z, x, y])
        distance = np.abs(others - [x, y]).sum(axis=1).min() if len(others) else sum(mask.shape[1:])
        out[z, x, y] = -distance if mask[z, x, y] else distance
    return out
