"""Samples for training: crops around the cord, blocks of such crops, and whole slices."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tools.train.synthesis import anatomy as regions
from tools.train.synthesis.acquisition import acquire, coil_profile, draw_resolution, draw_textures
from tools.train.synthesis.anatomy import Anatomy, draw_anatomy
from tools.train.synthesis.compiling import compiled
from tools.train.synthesis.contrasts import MARGINS, MT, draw_contrast, draw_kind
from tools.train.synthesis.painting import centre_at, paint
from tools.train.synthesis.shapes import between, chance, field

__all__ = ["CROP_SIDE", "CROP_ZOOM", "WHOLE_SIDE", "WHOLE_ZOOM", "Samples", "draw_samples"]

#: Pixels and mm of the samples. Crops are larger than the networks' 64 pixels, so that training can choose
#: the place of its window.
CROP_SIDE, CROP_ZOOM = 96, 0.5
WHOLE_SIDE, WHOLE_ZOOM = 160, 1.0

# Fine grids on which anatomies are painted.
_CROP_FINE, _CROP_PIXEL = 192, 0.25
_WHOLE_FINE, _WHOLE_PIXEL = 200, 0.8

# How often each region is drawn: neck, thorax, lumbar, cauda, head, limb, adrift, nothing.
_CROP_REGIONS = np.array([0.49, 0.17, 0.13, 0.05, 0.03, 0.05, 0.06, 0.02])
_WHOLE_REGIONS = np.array([0.33, 0.13, 0.12, 0.10, 0.10, 0.10, 0.09, 0.03])

# Consecutive slices look alike over so many mm: shapes of muscles and organs; texture within tissues.
_SHAPE_LENGTH, _TEXTURE_LENGTH = 14.0, 4.0
_LEVELS = 250  # of 8-bit images and masks


class Samples(NamedTuple):
    """What `draw_samples` gives.

    images : (n, depth, side, side) uint8    each slice scaled to its 99.7th percentile
    masks : (n, depth, side, side) uint8     part of each pixel that is cord, 0..250
    centres : (n, depth, 2) float32          centre of the mask in pixels; NaN where there is none
    kinds : (n,) int8                        index into `contrasts.KINDS`
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    centres: NDArray[np.float32]
    kinds: NDArray[np.int8]


def draw_samples(n: int, seed: int, *, depth: int = 1, whole: bool = False, threads: int = 1) -> Samples:
    """Draw synthetic samples.

    Parameters
    ----------
    n : how many
    seed : sample i is the same for every n and every number of threads
    depth : slices of a sample
    whole : whole slices of 160 mm at 1 mm, instead of crops of 48 mm at 0.5 mm
    threads : cores to use

    Examples
    --------
    >>> few, more = draw_samples(2, 7), draw_samples(3, 7)
    >>> bool((few.images == more.images[:2]).all())
    True
    """
    side = WHOLE_SIDE if whole else CROP_SIDE
    samples = Samples(
        np.zeros((n, depth, side, side), np.uint8),
        np.zeros((n, depth, side, side), np.uint8),
        np.full((n, depth, 2), np.nan, np.float32),
        np.zeros(n, np.int8),
    )
    seeds = np.random.SeedSequence([seed, depth, int(whole)]).generate_state(1)[0]
    parts = np.array_split(np.arange(n), max(1, min(threads * 8, n)))

    def fill(part: NDArray[np.int64]) -> None:
        _fill(int(part[0]), int(part[-1]) + 1, int(seeds), whole, *samples)

    fill(parts[0])  # compiles, once
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, parts[1:]))
    return samples


@compiled
def _pick(shares: NDArray[np.float64]) -> int:
    place, index = np.random.random(), 0
    while index < len(shares) - 1 and place >= shares[index]:
        place -= shares[index]
        index += 1
    return index


@compiled
def _draw_spacing(thick: bool) -> tuple[float, float]:
    """Distance between slices, and their thickness, mm."""
    kind = 1.0 if thick else np.random.random()
    if kind < 0.5:
        spacing = between(0.5, 1.3)
    elif kind < 0.8:
        spacing = between(1.5, 5.0)
    else:
        spacing = between(5.0, 18.0)
    return spacing, spacing * between(0.6, 1.0)


@compiled
def _draw_centre(region: int, whole: bool) -> tuple[float, float]:
    """Where the cord lies, mm from the middle of the field of view."""
    angle = between(0.0, 2 * np.pi)
    if region == regions.ADRIFT:
        distance = between(85.0, 130.0) if whole else between(20.0, 50.0)
        return distance * np.cos(angle), distance * np.sin(angle)
    if whole:
        return between(-58.0, 58.0), between(-58.0, 58.0)
    return between(-0.6, 0.6), between(-0.6, 0.6)


@compiled
def _draw_fields(n: int, extent: float, count: int, finest: float, coarsest: float) -> NDArray[np.float32]:
    """Pairs of fields, between which a slice's fields turn as z grows."""
    fields = np.empty((2, count, n, n), np.float32)
    for k in range(count):
        length = between(finest, coarsest)
        for part in range(2):
            fields[part, k] = field(n, max(2, int(extent / length)))
    return fields


@compiled
def _turned(fields: NDArray[np.float32], z: float, length: float) -> NDArray[np.float32]:
    c, s = np.float32(np.cos(z / length)), np.float32(np.sin(z / length))
    return c * fields[0] + s * fields[1]


@compiled
def _other_end(region: int) -> int:
    """What lies beyond the cord's end: below the conus the cauda equina, above the neck the head."""
    if region == regions.NECK:
        return regions.HEAD if chance(0.7) else regions.NOTHING
    return regions.CAUDA if chance(0.8) else regions.NOTHING


@compiled
def _one(
    whole: bool,
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    centres: NDArray[np.float32],
) -> int:
    """Draw one sample into its place; gives its kind of contrast."""
    n, pixel = (_WHOLE_FINE, _WHOLE_PIXEL) if whole else (_CROP_FINE, _CROP_PIXEL)
    side, zoom = (WHOLE_SIDE, WHOLE_ZOOM) if whole else (CROP_SIDE, CROP_ZOOM)
    depth, extent = image.shape[0], n * pixel
    region = _pick(_WHOLE_REGIONS if whole else _CROP_REGIONS)
    centre = _draw_centre(region, whole)
    if region == regions.ADRIFT:
        region = regions.NECK if chance(0.6) else regions.THORAX
    kind = draw_kind()
    body = draw_anatomy(region, extent * 0.6, chance(0.06 if whole else 0.14))
    spacing, thickness = _draw_spacing(kind == MT and chance(0.7))
    # Beyond the cord's end the sample goes on with another anatomy.
    switch = np.random.randint(1, depth) if depth > 1 and region <= regions.LUMBAR and chance(0.15) else depth
    beyond = draw_anatomy(_other_end(region), extent * 0.6, False) if switch < depth else body

    means, textures = draw_contrast(kind), draw_textures(kind)
    shapes = _draw_fields(n, extent, 3, 3.0, 18.0)
    warps = _draw_fields(n, extent, 1, 12.0, 12.1)
    slow_warps = _draw_fields(n, extent, 1, 35.0, 35.1)
    fast, slow = abs(np.random.randn()) * 0.35, abs(np.random.randn()) * 1.2
    grains = _draw_fields(n, extent, 2, 1.2, 9.0)
    profile = coil_profile(n, kind)
    resolution = draw_resolution(kind, zoom if whole else 0.0)
    sigma = between(0.0, 1.0) ** 2 * (0.22 if chance(0.2) else 0.1)
    ghost, sinc = chance(0.08), chance(0.25)
    warp = np.empty((2, n, n), np.float32)

    for k in range(depth):
        z = (k - (depth - 1) / 2) * spacing
        here = beyond if k >= switch else body
        # Windows follow the centerline, whole slices do not: one sample of them is one slice.
        dx, dy = centre_at(here, z)
        middle = (centre[0] - dx, centre[1] - dy)
        for axis in range(2):
            turned = _turned(warps, z + 40 * axis, 3 * _SHAPE_LENGTH)[0] * np.float32(fast)
            warp[axis] = turned + _turned(slow_warps, z + 40 * axis, 3 * _SHAPE_LENGTH)[0] * np.float32(slow)
        fine, fine_mask = _thick_slice(
            here, z, thickness, pixel, middle, MARGINS[kind], warp, shapes, grains, means, textures
        )
        fine *= profile
        sampled = acquire(fine, pixel, resolution, sigma, ghost, sinc, side, zoom)
        _store(sampled, image[k])
        _store_mask(fine_mask, pixel, zoom, mask[k], centres[k])
    return kind


@compiled
def _thick_slice(
    body: Anatomy,
    z: float,
    thickness: float,
    pixel: float,
    middle: tuple[float, float],
    margin: float,
    warp: NDArray[np.float32],
    shapes: NDArray[np.float32],
    grains: NDArray[np.float32],
    means: NDArray[np.float64],
    textures: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean of the planes through a slice: image and mask, (n, n) each, on the fine grid."""
    n = warp.shape[1]
    planes = 1 if thickness < 0.9 else (2 if thickness < 6 else 3)
    fine, fine_mask = np.zeros((n, n), np.float32), np.zeros((n, n), np.float32)
    tissue, inside = np.empty((n, n), np.int8), np.empty((n, n), np.float32)
    for p in range(planes):
        height = z + thickness * ((p + 0.5) / planes - 0.5)
        paint(
            body, height, pixel, middle, margin, warp, _turned(shapes, height, _SHAPE_LENGTH), tissue, inside
        )
        texture = _turned(grains, height, _TEXTURE_LENGTH)
        for i in range(n):
            for j in range(n):
                what = tissue[i, j]
                value = means[what] + textures[what] * 0.6 * (texture[0, i, j] + texture[1, i, j])
                fine[i, j] += max(value, 0.0) / planes
                fine_mask[i, j] += inside[i, j] / planes
    return fine, fine_mask


@compiled
def _store(sampled: NDArray[np.float32], image: NDArray[np.uint8]) -> None:
    ranked = np.sort(sampled.ravel())
    top = ranked[int(len(ranked) * 0.997)]
    factor = _LEVELS / top if top > 0 else 0.0
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            image[i, j] = np.uint8(min(max(sampled[i, j] * factor, 0.0), 255.0))


@compiled
def _store_mask(
    fine: NDArray[np.float32],
    pixel: float,
    zoom: float,
    mask: NDArray[np.uint8],
    centre: NDArray[np.float32],
) -> None:
    """Average the fine mask over the pixels of the coarse grid, and find its centre."""
    n, side, ratio = fine.shape[0], mask.shape[0], zoom / pixel
    lead = (n - side * ratio) / 2
    total, sum_x, sum_y = 0.0, 0.0, 0.0
    for i in range(side):
        x0, x1 = round(lead + i * ratio), round(lead + (i + 1) * ratio)
        for j in range(side):
            y0, y1 = round(lead + j * ratio), round(lead + (j + 1) * ratio)
            share = 0.0
            for x in range(x0, x1):
                for y in range(y0, y1):
                    share += fine[x, y]
            share /= (x1 - x0) * (y1 - y0)
            mask[i, j] = np.uint8(round(share * _LEVELS))
            total += share
            sum_x += share * i
            sum_y += share * j
    if total * zoom * zoom > 2.0:  # less than 2 mm² is a corner of a cord, not a cord
        centre[0], centre[1] = sum_x / total, sum_y / total


@compiled
def _fill(
    first: int,
    stop: int,
    seed: int,
    whole: bool,
    images: NDArray[np.uint8],
    masks: NDArray[np.uint8],
    centres: NDArray[np.float32],
    kinds: NDArray[np.int8],
) -> None:
    for q in range(first, stop):
        np.random.seed((seed + q * 2654435761) % 4294967296)  # numba's generator is one per thread
        kinds[q] = _one(whole, images[q], masks[q], centres[q])
