"""OptiC written for reading: float64, one pixel or one window at a time.

What is said about OpenCV's rounding was found by comparing with its outputs.
"""

from __future__ import annotations

from itertools import product

import numpy as np

BINS = 9
GAUSSIAN = np.exp(-((np.arange(8) - 4.0) ** 2) / (2 * 2.0**2))
CELLS = np.array(
    [[0.625, 0.875, 0.875, 0.625, 0.375, 0.125, 0, 0], [0, 0, 0.125, 0.375, 0.625, 0.875, 0.875, 0.625]]
)


def stretch_to_uint16(voxels):
    """SCT's conversion, with zeros for a constant volume."""
    voxels = np.where(np.isfinite(voxels), voxels, 0).astype(np.float64)
    spread = voxels.max() - voxels.min()
    if spread == 0:
        return np.zeros(voxels.shape, np.uint16)
    stretched = voxels * 65535 / spread
    return (stretched - stretched.min()).astype(np.uint16)


def to_uint8(slice_):
    highest = slice_.max()
    if highest == 0:
        return np.zeros(slice_.shape, np.uint8)
    return np.rint(slice_ * 255.0 / highest).astype(np.uint8)


def source(i, step, size, *, hold_ends):
    """Both neighbours of output pixel i and the weight of the upper one."""
    place = np.float32((i + 0.5) * step - 0.5)
    lower = int(np.floor(place))
    weight = np.float32(place - np.float32(lower))
    if hold_ends and lower < 0:
        return 0, 0, np.float32(0)
    if hold_ends and lower >= size - 1:
        return size - 1, size - 1, np.float32(0)
    return min(max(lower, 0), size - 1), min(max(lower + 1, 0), size - 1), weight


def resize_image(image, zoom_x, zoom_y):
    """cv2.resize(image, None, fx=zoom_x, fy=zoom_y) of uint8 pixels; x are OpenCV's columns."""
    n_x, n_y = image.shape
    out = np.empty((max(round(n_x * zoom_x), 1), max(round(n_y * zoom_y), 1)), np.uint8)
    pixels = image.astype(np.int64)
    if zoom_x == zoom_y == 1:
        return image.copy()
    if zoom_x == zoom_y == 0.5:
        for x, y in np.ndindex(*out.shape):
            square = pixels[2 * x : 2 * x + 2, 2 * y : 2 * y + 2]
            out[x, y] = (square.sum() + 2) >> 2 if square.size == 4 else np.rint(square.mean())
        return out
    for x, y in np.ndindex(*out.shape):
        i0, i1, weight_x = source(x, 1 / zoom_x, n_x, hold_ends=True)
        j0, j1, weight_y = source(y, 1 / zoom_y, n_y, hold_ends=False)
        a0, a1, b0, b1 = (
            int(np.rint(w * np.float32(2048))) for w in (1 - weight_x, weight_x, 1 - weight_y, weight_y)
        )
        first = (pixels[i0, j0] * a0 + pixels[i1, j0] * a1) >> 4
        second = (pixels[i0, j1] * a0 + pixels[i1, j1] * a1) >> 4
        out[x, y] = (((b0 * first) >> 16) + ((b1 * second) >> 16) + 2) >> 2
    return out


def resize_scores(scores, shape):
    """cv2.resize(scores, shape) of float32 pixels."""
    n_x, n_y = scores.shape
    out = np.empty(shape)
    for x, y in np.ndindex(*shape):
        i0, i1, weight_x = source(x, n_x / shape[0], n_x, hold_ends=True)
        j0, j1, weight_y = source(y, n_y / shape[1], n_y, hold_ends=True)
        first = scores[i0, j0] * (1 - weight_y) + scores[i0, j1] * weight_y
        second = scores[i1, j0] * (1 - weight_y) + scores[i1, j1] * weight_y
        out[x, y] = first * (1 - weight_x) + second * weight_x
    return out


def block_descriptor(magnitude, angle):
    """36 numbers of one block: 2 × 2 cells of 9 orientation bins, L2-Hys normalised."""
    votes = np.zeros((8, 8, BINS))
    for x, y in np.ndindex(8, 8):
        place = angle[x, y] * BINS / (2 * np.pi) - 0.5
        lower = int(np.floor(place))
        votes[x, y, lower % BINS] += magnitude[x, y] * (1 - (place - lower))
        votes[x, y, (lower + 1) % BINS] += magnitude[x, y] * (place - lower)
    weights = CELLS * GAUSSIAN
    block = np.einsum("ix,jy,xyb->ijb", weights, weights, votes).ravel()
    block = np.minimum(block / (np.linalg.norm(block) + 3.6), 0.2)
    return block / (np.linalg.norm(block) + 1e-3)


def score_pixels(image, coefficients):
    """Linear SVM on the HOG descriptor of the 32 × 32 window around every pixel."""
    n_x, n_y = image.shape
    padded = np.pad(np.sqrt(image.astype(np.float64)), 17, "reflect")
    dx = padded[2:, 1:-1] - padded[:-2, 1:-1]
    dy = padded[1:-1, 2:] - padded[1:-1, :-2]
    magnitude, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    blocks = {
        (x, y): block_descriptor(magnitude[x : x + 8, y : y + 8], angle[x : x + 8, y : y + 8])
        for x, y in np.ndindex(n_x + 24, n_y + 24)
    }
    weights, bias = coefficients[:576].astype(np.float64), coefficients[576]
    scores = np.empty((n_x, n_y))
    for x, y in np.ndindex(n_x, n_y):
        window = np.concatenate([blocks[x + 8 * i, y + 8 * j] for i, j in product(range(4), range(4))])
        scores[x, y] = weights @ window + bias
    return scores


def quadratic_transform(cost, weight_x, weight_y):
    """Lowest cost of coming to each pixel, from a search of all pixels."""
    n_x, n_y = cost.shape
    x, y = np.arange(n_x)[:, None], np.arange(n_y)
    out = np.empty(cost.shape)
    for i, j in np.ndindex(n_x, n_y):
        out[i, j] = (cost + weight_x * (x - i) ** 2 + weight_y * (y - j) ** 2).min()
    return out


def cheapest_path(heat, weight_x, weight_y):
    """Viterbi over all pairs of pixels; ends tie to the lowest (x, y), steps to the lowest (y, x)."""
    n_z, n_x, n_y = heat.shape
    x, y = np.arange(n_x), np.arange(n_y)[:, None]
    cost = -heat[0].astype(np.float64)
    came_from = []
    for z in range(1, n_z):
        previous = cost.T  # (y, x): its first minimum is the one of the lowest y, then the lowest x
        sources = np.empty((n_x, n_y, 2), int)
        cost = np.empty((n_x, n_y))
        for i, j in np.ndindex(n_x, n_y):
            total = previous + weight_x * (x - i) ** 2 + weight_y * (y - j) ** 2
            sources[i, j] = np.unravel_index(total.argmin(), total.shape)[::-1]
            cost[i, j] = total.min() - heat[z, i, j]
        came_from.append(sources)
    path = [np.unravel_index(cost.argmin(), cost.shape)]
    for sources in reversed(came_from):
        path.append(tuple(sources[path[-1]]))
    return np.array(path[::-1])


def energy(path, heat, weight_x, weight_y):
    """What the path minimises."""
    step = np.diff(path.astype(np.float64), axis=0)
    bright = heat[np.arange(len(path)), path[:, 0], path[:, 1]].astype(np.float64).sum()
    return (step**2 @ [weight_x, weight_y]).sum() - bright
