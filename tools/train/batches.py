"""Batches for training: windows of samples, with the variation that costs nothing to make.

A batch depends on the seed and its number only, so that a training that was interrupted goes on as if it had
not been.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tools.train.synthesis.compiling import compiled
from tools.train.synthesis.samples import Samples
from tools.train.synthesis.shapes import between, chance

__all__ = ["Batch", "Batches", "block_batches", "crop_batches", "whole_batches"]

#: Standard deviation of the detector's target, mm.
HEAT_SIGMA = 3.0

_SIDE = 64  # pixels of the segmenters' windows
_LEVELS = 250.0  # of samples' images and masks


class Batch(NamedTuple):
    """Input, target, and weight of every pixel in the loss; the same shape, but for the detector."""

    inputs: NDArray[np.float32]
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]


#: Gives the batch of a number.
Batches = Callable[[int], Batch]


def crop_batches(samples: Samples, size: int, seed: int) -> Batches:
    """Batches of 2D crops, (size, 1, 64, 64), intensities 0..255."""
    images, masks = samples.images[:, 0], samples.masks[:, 0]

    def batch(number: int) -> Batch:
        chosen, seeds = _choose(len(images), size, seed, number)
        inputs, targets = (np.zeros((size, _SIDE, _SIDE), np.float32) for _ in range(2))
        for k, (q, s) in enumerate(zip(chosen, seeds, strict=True)):
            _take_crop(images[q], masks[q], int(s), inputs[k], targets[k])
        return Batch(inputs[:, None], targets[:, None], np.ones((size, 1, _SIDE, _SIDE), np.float32))

    return batch


def block_batches(samples: Samples, size: int, seed: int) -> Batches:
    """Batches of blocks, (size, 1, 64, 64, z), intensities 0..255; z is another number for each batch."""
    depth_of_all = samples.images.shape[1]

    def batch(number: int) -> Batch:
        chosen, seeds = _choose(len(samples.images), size, seed, number)
        depth = _depth(depth_of_all, seed, number)
        inputs, targets = (np.zeros((size, depth, _SIDE, _SIDE), np.float32) for _ in range(2))
        for k, (q, s) in enumerate(zip(chosen, seeds, strict=True)):
            first = int(s) % (depth_of_all - depth + 1)
            there = slice(first, first + depth)
            _take_block(samples.images[q, there], samples.masks[q, there], int(s), inputs[k], targets[k])
        inputs, targets = (np.moveaxis(a, 1, -1)[:, None] for a in (inputs, targets))
        return Batch(inputs, targets, np.ones_like(targets))

    return batch


def whole_batches(samples: Samples, size: int, seed: int) -> Batches:
    """Batches of whole slices, (size, 1, x, y) at 1 mm, with heat maps (size, 1, x / 2, y / 2)."""
    shapes = ((144, 144), (144, 144), (64, 160), (96, 112))

    def batch(number: int) -> Batch:
        chosen, seeds = _choose(len(samples.images), size, seed, number)
        nx, ny = shapes[number % len(shapes)]
        inputs = np.zeros((size, nx, ny), np.float32)
        targets, weights = (np.zeros((size, nx // 2, ny // 2), np.float32) for _ in range(2))
        for k, (q, s) in enumerate(zip(chosen, seeds, strict=True)):
            centre = samples.centres[q, 0].astype(np.float64)
            seen = bool(np.isfinite(centre).all())
            _take_whole(
                samples.images[q, 0], seen, np.nan_to_num(centre), int(s), inputs[k], targets[k], weights[k]
            )
        return Batch(inputs[:, None], targets[:, None], weights[:, None])

    return batch


def _choose(n: int, size: int, seed: int, number: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Which samples, every one once before any twice, and a seed for each."""
    positions = np.arange(number * size, (number + 1) * size)
    chosen = np.empty(size, np.int64)
    for turn in np.unique(positions // n):
        order = np.random.default_rng([seed, 1, int(turn)]).permutation(n)
        here = positions // n == turn
        chosen[here] = order[positions[here] % n]
    return chosen, np.random.default_rng([seed, 2, number]).integers(0, 2**32, size, dtype=np.uint32)


def _depth(most: int, seed: int, number: int) -> int:
    """Few slices as often as many."""
    rng = np.random.default_rng([seed, 3, number])
    if rng.random() < 0.4:
        return int(rng.integers(1, min(6, most + 1)))
    return int(rng.integers(min(6, most), most + 1))


@compiled
def _look(window: NDArray[np.float32], low: float, high: float, gamma: float) -> None:
    """Scale to 0..255 between two intensities, as the volume's percentiles do, and bend the scale."""
    for i in range(window.shape[0]):
        for j in range(window.shape[1]):
            value = min(max((window[i, j] - low) / (high - low), 0.0), 1.0)
            window[i, j] = 255.0 * value**gamma


@compiled
def _draw_scaling(ranked: NDArray[np.float32]) -> tuple[float, float]:
    """Intensities that become 0 and 255; the 2nd and 98th percentile of slices that differ from this one."""
    n = len(ranked)
    low = ranked[int(between(0.0, 0.05) * n)] if chance(0.7) else 0.0
    high = ranked[min(int(between(0.93, 1.0) * n), n - 1)]
    if chance(0.35):  # a slice that lies far from the coil
        high = ranked[n - 1] * np.exp(between(0.0, 2.7))
    return low, max(high, low + 1.0)


@compiled
def _crop_place() -> tuple[float, float]:
    """How far from the cord the window's middle is, in pixels: 2.5 mm on average, at most 8."""
    if chance(0.08):
        return between(-16.0, 16.0), between(-16.0, 16.0)
    return min(max(np.random.randn() * 4.0, -16.0), 16.0), min(max(np.random.randn() * 4.0, -16.0), 16.0)


@compiled
def _copy(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    x0: int,
    y0: int,
    mirrored: bool,
    stop_x: int,
    stop_y: int,
    window: NDArray[np.float32],
    target: NDArray[np.float32],
) -> None:
    """Copy a window; what lies beyond `stop_x` and `stop_y` is outside the field of view."""
    side = window.shape[0]
    for i in range(side):
        source = x0 + (side - 1 - i if mirrored else i)
        for j in range(side):
            inside = i < stop_x and j < stop_y
            window[i, j] = image[source, y0 + j] if inside else 0.0
            target[i, j] = mask[source, y0 + j] / _LEVELS if inside else 0.0


@compiled
def _field_of_view() -> tuple[int, int]:
    """Where a field of view smaller than the window ends; it begins where the window does."""
    stop_x = int(between(40.0, 64.0)) if chance(0.12) else _SIDE
    stop_y = int(between(40.0, 64.0)) if chance(0.08) else _SIDE
    return stop_x, stop_y


@compiled
def _take_crop(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    seed: int,
    window: NDArray[np.float32],
    target: NDArray[np.float32],
) -> None:
    np.random.seed(seed)
    spare = image.shape[0] - _SIDE
    dx, dy = _crop_place()
    stop_x, stop_y = _field_of_view()
    _copy(image, mask, int(spare / 2 + dx), int(spare / 2 + dy), chance(0.5), stop_x, stop_y, window, target)
    low, high = _draw_scaling(np.sort(window.ravel()))
    _look(window, low, high, np.exp(np.random.randn() * 0.2))


@compiled
def _take_block(
    images: NDArray[np.uint8],
    masks: NDArray[np.uint8],
    seed: int,
    windows: NDArray[np.float32],
    targets: NDArray[np.float32],
) -> None:
    np.random.seed(seed)
    spare = images.shape[1] - _SIDE
    dx, dy = _crop_place()
    stop_x, stop_y = _field_of_view()
    mirrored, loose = chance(0.5), between(0.0, 1.5)
    for k in range(len(images)):
        # A centerline is made of whole pixels, and strays.
        dx = min(max(dx + np.random.randn() * loose, -16.0), 16.0)
        dy = min(max(dy + np.random.randn() * loose, -16.0), 16.0)
        x0, y0 = int(spare / 2 + dx), int(spare / 2 + dy)
        _copy(images[k], masks[k], x0, y0, mirrored, stop_x, stop_y, windows[k], targets[k])
    low, high = _draw_scaling(np.sort(windows.ravel()))
    gamma = np.exp(np.random.randn() * 0.2)
    tilt = np.random.randn() * 0.04  # coils: slices brighten along z
    for k in range(len(images)):
        gain = np.exp(tilt * (k - len(images) / 2))
        _look(windows[k], low, low + (high - low) * gain, gamma)


@compiled
def _take_whole(
    image: NDArray[np.uint8],
    seen: bool,
    centre: NDArray[np.float64],
    seed: int,
    window: NDArray[np.float32],
    heat: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> None:
    """Cut a field of view out of a slice into the middle of the window, and draw its heat map.

    Where the cord is at the field's edge, nobody can say whether it should be found: no weight.
    """
    np.random.seed(seed)
    side = image.shape[0]
    nx, ny = window.shape
    wide, high = min(nx, side), min(ny, side)
    if chance(0.45):  # a partial field of view
        wide = int(between(20.0, wide + 1.0))
        high = int(between(20.0, high + 1.0)) if chance(0.5) else high
    x0, y0 = int(between(0.0, side - wide + 1.0)), int(between(0.0, side - high + 1.0))
    if seen and chance(0.85):  # with the cord in view
        x0 = min(max(int(centre[0] - between(0.15, 0.85) * wide), 0), side - wide)
        y0 = min(max(int(centre[1] - between(0.15, 0.85) * high), 0), side - high)
    mirrored = chance(0.5)
    lead_x, lead_y = (nx - wide) // 2, (ny - high) // 2
    gain = between(0.8, 1.2) if chance(0.6) else np.exp(between(-3.0, -0.2))
    gamma = np.exp(np.random.randn() * 0.2)
    for i in range(wide):
        source = x0 + (wide - 1 - i if mirrored else i)
        for j in range(high):
            value = (image[source, y0 + j] / _LEVELS) ** gamma
            window[lead_x + i, lead_y + j] = min(value * gain, 1.2)
    weight[:] = 1.0
    if not seen:
        return
    cx, cy = centre[0] - x0, centre[1] - y0
    if mirrored:
        cx = wide - 1 - cx
    inside = min(min(cx, wide - 1 - cx), min(cy, high - 1 - cy))
    cx, cy = cx + lead_x, cy + lead_y
    if inside < -8:
        return
    for i in range(heat.shape[0]):
        for j in range(heat.shape[1]):
            squared = (2 * i + 0.5 - cx) ** 2 + (2 * j + 0.5 - cy) ** 2
            if inside >= 3:
                heat[i, j] = np.exp(-0.5 * squared / HEAT_SIGMA**2)
            elif squared < 20**2:
                weight[i, j] = 0.0
