"""The clean-up along z, written for reading: masks of 0 and 1 as (z, x, y), the quirks mended."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np


def clean_volume(mask, zooms):
    mask = remove_objects_above(mask)
    mask = remove_objects_above(mask[::-1])[::-1]  # and below
    mask = fill_gaps(mask, zooms[2])
    return trim_ends(mask)


def remove_objects_above(mask):
    """Without the objects above the largest one's top slice that have less than a tenth of its voxels."""
    objects = _objects(mask)
    if not objects:
        return mask
    cord = max(objects, key=len)  # the first of equally large ones
    top = max(z for _, _, z in cord)
    out = mask.copy()
    for part in _objects(mask[top + 1 :]):
        if len(part) < 0.1 * len(cord):
            for x, y, z in part:
                out[top + 1 + z, x, y] = 0
    return out


def _objects(mask):
    """Voxels (x, y, z) of every 6-connected object, in the order of each object's first voxel."""
    left = [tuple(voxel) for voxel in np.argwhere(mask.transpose(1, 2, 0))]
    objects = []
    seen = set()
    cord = set(left)
    for voxel in left:
        if voxel in seen:
            continue
        found, todo = [], [voxel]
        seen.add(voxel)
        while todo:
            x, y, z = todo.pop()
            found.append((x, y, z))
            for dx, dy, dz in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
                beside = (x + dx, y + dy, z + dz)
                if beside in cord and beside not in seen:
                    seen.add(beside)
                    todo.append(beside)
        objects.append(found)
    return objects


def fill_gaps(mask, zoom_z):
    """Gaps shorter than 10 mm hold the interpolated shape of the slices beside them."""
    out = mask.copy()
    filled = [z for z in range(len(mask)) if mask[z].any()]
    for below, above in pairwise(filled):
        if (above - below - 1) * zoom_z < 10:
            for z in range(below + 1, above):
                share = (z - below) / (above - below)
                out[z] = (1 - share) * depths(mask[below]) + share * depths(mask[above]) > 0
    return out


def depths(slice_):
    """Distance of each pixel centre to the object's outline, half a pixel out of its centres; outside < 0."""
    out = np.empty(slice_.shape)
    for x, y in np.ndindex(*slice_.shape):
        others = [
            np.sqrt((x - i) ** 2 + (y - j) ** 2)
            for i, j in product(*map(range, slice_.shape))
            if slice_[i, j] != slice_[x, y]
        ]
        distance = min(others) - 0.5
        out[x, y] = distance if slice_[x, y] else -distance
    return out


def trim_ends(mask):
    """Without an end slice that is less than half as large as the median of it and its four neighbours."""
    out = mask.copy()
    filled = [z for z in range(len(mask)) if mask[z].any()]
    for near in (filled[:5], filled[::-1][:5]):
        if near and mask[near[0]].sum() < 0.5 * np.median([mask[z].sum() for z in near]):
            out[near[0]] = 0
    return out
