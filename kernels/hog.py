"""Histograms of oriented gradients, scored by a linear SVM at every pixel of a slice.

The detector (Dalal & Triggs 2005) describes a 32 × 32 window by 4 × 4 blocks of 8 × 8 pixels; a block
holds 2 × 2 cells of 9 orientation bins, 36 numbers in all. Windows one pixel apart share their blocks, so
no descriptor is ever gathered: each block position is histogrammed, normalised and multiplied with all the
weights that it can meet, and the products are added to the scores of the windows that contain it. The
arithmetic is that of OpenCV's ``HOGDescriptor`` with ``signedGradient``, ``gammaCorrection``, ``winSigma``
2 and ``L2HysThreshold`` 0.2; gradient angles come from a polynomial instead of ``fastAtan2``, which moves
scores by less than 3e-4.

Images are (x, y), as everywhere in fastseg; OpenCV's rows are y. Work proceeds in strips of `STRIP` block
positions along y, the contiguous axis, and in each strip row by row along x, so that everything between
the gradients and the scores stays in the core's own caches. All scratch arrays are flat with rows of
constant length: the compiler then knows all distances between rows and vectorises across y.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["N_COEFFICIENTS", "score_pixels"]

BINS = 9
BLOCK = 8  # pixels along a side of a block, and between the blocks of a window
BLOCKS = 4  # blocks along a side of a window
CELLS = 2 * BINS  # numbers of a block after one of the two axes has been summed
CHANNELS = 4 * BINS  # numbers of a block
HALF_WINDOW = 16
N_WEIGHTS = BLOCKS * BLOCKS * CHANNELS
N_COEFFICIENTS = N_WEIGHTS + 1  # and the bias

STRIP = 96  # block positions handled together; 48 to 96 are within 20 % of each other
VOTES = STRIP + BLOCK  # pixels along y under the blocks of one strip, rounded up
ROW = CELLS * STRIP  # one row of half-summed blocks
LEAD = BLOCK * (BLOCKS - 1)  # pixels between the first and the last block of a window

_F = np.float32
_HALF = _F(0.5)
_ONE = _F(1)
_TINY = _F(1e-30)  # keeps 0 / 0 out of the angle of a flat pixel
_TURN = _F(BINS)
_TO_BINS = _F(BINS / (2 * np.pi))

# Weight of pixel j = 0..7 of a block in its first and its second cell: linear interpolation between the
# cells' centres times OpenCV's Gaussian, which is centred on j = 4 and thus not symmetric. Each cell takes
# six pixels.
_GAUSSIAN = np.exp(-((np.arange(BLOCK) - 4.0) ** 2) / (2 * 2.0**2))
_NEAR = np.array([0.625, 0.875, 0.875, 0.625, 0.375, 0.125, 0.0, 0.0]) * _GAUSSIAN
_FAR = np.array([0.0, 0.0, 0.125, 0.375, 0.625, 0.875, 0.875, 0.625]) * _GAUSSIAN
N0, N1, N2, N3, N4, N5 = (_F(weight) for weight in _NEAR[:6])
F2, F3, F4, F5, F6, F7 = (_F(weight) for weight in _FAR[2:])

_NORM_OFFSET = _F(0.1 * CHANNELS)
_CLIP = _F(0.2)
_SECOND_OFFSET = _F(1e-3)

# float32 is enough throughout: the longest sums have 576 terms, and scores agree with a float64 twin to 1e-5
# where 1.4e-3 is the closest call among the references. "contract" allows fused multiply-adds, which the
# speed depends on. Arrays are filled by loops, not by slice assignments, each of which makes numba compile
# error messages for seconds.
_JIT = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "arcp", "nsz"},
}


@njit("int64(int64, int64)", **_JIT)
def _mirrored(i: int, n: int) -> int:
    """Pixel that stands at place `i` of a line of `n` continued by reflection without repeating its ends."""
    if n == 1:
        return 0
    period = 2 * (n - 1)
    i = i % period
    return period - i if i >= n else i


@njit("boolean(int64, int64)", **_JIT)
def _reversed(i: int, n: int) -> bool:
    """Whether the continued line runs backwards at place `i`: its gradient changes sign there."""
    return n > 1 and i % (2 * (n - 1)) >= n


@njit("void(uint8[:, ::1], int64, float32[::1], float32[::1])", **_JIT)
def _gradients(
    image: NDArray[np.uint8], stride: int, magnitude: NDArray[np.float32], angle: NDArray[np.float32]
) -> None:
    """Magnitude, and angle in bins from the centre of bin 0, of rows continued by reflection along y.

    The arc tangent is the polynomial 4.4.49 of Abramowitz & Stegun (1964), good to 2e-8.
    """
    n_x, n_y = image.shape
    root = np.empty((n_x, n_y), np.float32)
    for x in range(n_x):
        for y in range(n_y):
            root[x, y] = np.sqrt(_F(image[x, y]))
    # One line with a mirrored pixel at each end, so that the loop over y has no branches.
    line = np.empty(n_y + 2, np.float32)
    for x in range(n_x):
        before = root[_mirrored(x - 1, n_x)]
        after = root[_mirrored(x + 1, n_x)]
        for y in range(n_y):
            line[y + 1] = root[x, y]
        line[0] = root[x, _mirrored(-1, n_y)]
        line[n_y + 1] = root[x, _mirrored(n_y, n_y)]
        magnitudes = magnitude[x * stride : (x + 1) * stride]
        angles = angle[x * stride : (x + 1) * stride]
        for y in range(n_y):
            dx = after[y] - before[y]
            dy = line[y + 2] - line[y]
            across, along = abs(dx), abs(dy)
            ratio = min(across, along) / (max(across, along) + _TINY)
            square = ratio * ratio
            turn = _F(0.0028662257)
            turn = turn * square - _F(0.0161657367)
            turn = turn * square + _F(0.0429096138)
            turn = turn * square - _F(0.0752896400)
            turn = turn * square + _F(0.1065626393)
            turn = turn * square - _F(0.1420889944)
            turn = turn * square + _F(0.1999355085)
            turn = turn * square - _F(0.3333314528)
            turn = (turn * square + _ONE) * ratio * _TO_BINS
            turn = _F(BINS / 4) - turn if along > across else turn
            turn = _F(BINS / 2) - turn if dx < _F(0) else turn
            turn = _TURN - turn if dy < _F(0) else turn
            magnitudes[HALF_WINDOW + y] = np.sqrt(dx * dx + dy * dy)
            angles[HALF_WINDOW + y] = turn - _HALF
        for place in range(n_y + 2 * HALF_WINDOW):
            y = place - HALF_WINDOW
            if y < 0 or y >= n_y:
                source = HALF_WINDOW + _mirrored(y, n_y)
                magnitudes[place] = magnitudes[source]
                # dy changes sign: an angle t becomes -t.
                angles[place] = _F(BINS - 1) - angles[source] if _reversed(y, n_y) else angles[source]


@njit("void(float32[::1], float32[::1], boolean, float32[::1])", **_JIT)
def _vote(
    magnitude: NDArray[np.float32], angle: NDArray[np.float32], backwards: bool, votes: NDArray[np.float32]
) -> None:
    """Share each gradient between the two orientation bins whose centres are nearest."""
    for b in range(BINS):
        for y in range(VOTES):
            turn = angle[y]
            if backwards:  # dx changes sign: an angle t becomes pi - t
                turn = _F(BINS / 2 - 1) - turn
                turn = turn + _TURN if turn < -_HALF else turn
            distance = abs(turn - _F(b))
            distance = min(distance, _TURN - distance)
            votes[b * VOTES + y] = magnitude[y] * max(_F(0), _ONE - distance)


@njit("void(float32[::1], int64, float32[::1])", **_JIT)
def _sum_along_y(votes: NDArray[np.float32], slot: int, rows: NDArray[np.float32]) -> None:
    """Sum one row of votes over the cells' pixels along y into rows `slot` and `slot` + 8.

    The second copy lets any eight consecutive rows of the ring be read at constant distances.
    """
    row = rows[slot * ROW : (slot + BLOCK + 1) * ROW]
    for b in range(BINS):
        for y in range(STRIP):
            p = b * VOTES + y
            v2, v3, v4, v5 = votes[p + 2], votes[p + 3], votes[p + 4], votes[p + 5]
            near = N0 * votes[p] + N1 * votes[p + 1] + N2 * v2 + N3 * v3 + N4 * v4 + N5 * v5
            far = F2 * v2 + F3 * v3 + F4 * v4 + F5 * v5 + F6 * votes[p + 6] + F7 * votes[p + 7]
            q = b * STRIP + y
            row[q] = near
            row[q + BINS * STRIP] = far
            row[q + BLOCK * ROW] = near
            row[q + BLOCK * ROW + BINS * STRIP] = far


@njit("void(float32[::1], int64, float32[::1], float32[::1])", **_JIT)
def _sum_along_x(
    rows: NDArray[np.float32], slot: int, blocks: NDArray[np.float32], squares: NDArray[np.float32]
) -> None:
    """Blocks whose first row is in `slot`, as 36 lines along y, and the sums of their squares."""
    r = rows[slot * ROW : (slot + BLOCK) * ROW]
    for p in range(ROW):
        r2, r3, r4, r5 = r[p + 2 * ROW], r[p + 3 * ROW], r[p + 4 * ROW], r[p + 5 * ROW]
        near = N0 * r[p] + N1 * r[p + ROW] + N2 * r2 + N3 * r3 + N4 * r4 + N5 * r5
        far = F2 * r2 + F3 * r3 + F4 * r4 + F5 * r5 + F6 * r[p + 6 * ROW] + F7 * r[p + 7 * ROW]
        blocks[p] = near
        blocks[p + ROW] = far
    for y in range(STRIP):
        squares[y] = _F(0)
    for c in range(0, CHANNELS, 6):
        v = blocks[c * STRIP : (c + 6) * STRIP]
        for y in range(STRIP):
            v0, v1, v2 = v[y], v[y + STRIP], v[y + 2 * STRIP]
            v3, v4, v5 = v[y + 3 * STRIP], v[y + 4 * STRIP], v[y + 5 * STRIP]
            squares[y] += (v0 * v0 + v1 * v1 + v2 * v2) + (v3 * v3 + v4 * v4 + v5 * v5)


@njit("void(float32[::1], float32[::1], float32[::1])", **_JIT)
def _normalise(
    blocks: NDArray[np.float32], squares: NDArray[np.float32], scales: NDArray[np.float32]
) -> None:
    """L2-Hys: divide by the norm and clip; `scales` is what the second division multiplies by."""
    for y in range(STRIP):
        squares[y] = _ONE / (np.sqrt(squares[y]) + _NORM_OFFSET)
        scales[y] = _F(0)
    for c in range(0, CHANNELS, 4):
        v = blocks[c * STRIP : (c + 4) * STRIP]
        for y in range(STRIP):
            inverse = squares[y]
            v0 = min(v[y] * inverse, _CLIP)
            v1 = min(v[y + STRIP] * inverse, _CLIP)
            v2 = min(v[y + 2 * STRIP] * inverse, _CLIP)
            v3 = min(v[y + 3 * STRIP] * inverse, _CLIP)
            v[y] = v0
            v[y + STRIP] = v1
            v[y + 2 * STRIP] = v2
            v[y + 3 * STRIP] = v3
            scales[y] += (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3)
    for y in range(STRIP):
        scales[y] = _ONE / (np.sqrt(scales[y]) + _SECOND_OFFSET)


@njit("void(float32[::1], float32[::1], float32[::1])", **_JIT)
def _multiply(
    blocks: NDArray[np.float32], weights: NDArray[np.float32], products: NDArray[np.float32]
) -> None:
    """Dot products of the blocks with the weights of the four windows along y that contain them.

    Four results times three channels is what sixteen vector registers hold.
    """
    for y in range(BLOCKS * STRIP):
        products[y] = _F(0)
    for c in range(0, CHANNELS, 3):
        k = BLOCKS * c
        a0, b0, c0, d0 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        a1, b1, c1, d1 = weights[k + 4], weights[k + 5], weights[k + 6], weights[k + 7]
        a2, b2, c2, d2 = weights[k + 8], weights[k + 9], weights[k + 10], weights[k + 11]
        v = blocks[c * STRIP : (c + 3) * STRIP]
        for y in range(STRIP):
            v0, v1, v2 = v[y], v[y + STRIP], v[y + 2 * STRIP]
            products[y] += a0 * v0 + a1 * v1 + a2 * v2
            products[y + STRIP] += b0 * v0 + b1 * v1 + b2 * v2
            products[y + 2 * STRIP] += c0 * v0 + c1 * v1 + c2 * v2
            products[y + 3 * STRIP] += d0 * v0 + d1 * v1 + d2 * v2


@njit("void(float32[::1], float32[::1], float32[::1])", **_JIT)
def _add(products: NDArray[np.float32], scales: NDArray[np.float32], line: NDArray[np.float32]) -> None:
    """Add the products to the scores of their windows, which begin 0, 8, 16 and 24 pixels earlier."""
    for by in range(BLOCKS):
        product = products[by * STRIP : (by + 1) * STRIP]
        score = line[LEAD - BLOCK * by : LEAD - BLOCK * by + STRIP]
        for y in range(STRIP):
            score[y] += scales[y] * product[y]


@njit("void(uint8[:, ::1], float32[::1], float32[:, ::1])", **_JIT)
def score_pixels(
    image: NDArray[np.uint8], coefficients: NDArray[np.float32], scores: NDArray[np.float32]
) -> None:
    """Score of the 32 × 32 window around every pixel; a pixel is at (16, 16) of its window.

    Beyond its border the image is continued by reflection without repeating the outermost pixels
    (OpenCV's ``BORDER_REFLECT_101``), as often as it takes.

    Parameters
    ----------
    image : (x, y) uint8
    coefficients : (577,) float32   the 576 weights, blocks and cells in x-major order, then the bias
    scores : (x, y) float32         is filled
    """
    n_x, n_y = image.shape
    strips = (n_y + LEAD + STRIP - 1) // STRIP
    stride = strips * STRIP + BLOCK
    magnitude = np.zeros(n_x * stride, np.float32)
    angle = np.zeros(n_x * stride, np.float32)
    _gradients(image, stride, magnitude, angle)

    weights = np.empty(N_WEIGHTS, np.float32)  # for each bx: channel, by
    for bx in range(BLOCKS):
        for by in range(BLOCKS):
            for c in range(CHANNELS):
                weights[(bx * CHANNELS + c) * BLOCKS + by] = coefficients[(bx * BLOCKS + by) * CHANNELS + c]

    votes = np.empty(BINS * VOTES, np.float32)
    rows = np.empty(2 * BLOCK * ROW, np.float32)
    blocks = np.empty(CHANNELS * STRIP, np.float32)
    squares = np.empty(STRIP, np.float32)
    scales = np.empty(STRIP, np.float32)
    products = np.empty(BLOCKS * STRIP, np.float32)
    width = LEAD + strips * STRIP
    padded = np.empty(n_x * width, np.float32)
    for i in range(padded.size):
        padded[i] = coefficients[N_WEIGHTS]

    for first in range(0, strips * STRIP, STRIP):
        # Row 0 lies 16 pixels before the image; the last block begins 24 pixels into the last window.
        for row in range(n_x + LEAD + BLOCK - 1):
            x = row - HALF_WINDOW
            source = _mirrored(x, n_x) * stride + first
            _vote(
                magnitude[source : source + VOTES], angle[source : source + VOTES], _reversed(x, n_x), votes
            )
            _sum_along_y(votes, row % BLOCK, rows)
            top = row - (BLOCK - 1)
            if top < 0:
                continue
            _sum_along_x(rows, top % BLOCK, blocks, squares)
            _normalise(blocks, squares, scales)
            for bx in range(BLOCKS):
                window = top - BLOCK * bx
                if 0 <= window < n_x:
                    _multiply(
                        blocks, weights[bx * BLOCKS * CHANNELS : (bx + 1) * BLOCKS * CHANNELS], products
                    )
                    _add(products, scales, padded[window * width + first : (window + 1) * width])
    for x in range(n_x):
        for y in range(n_y):
            scores[x, y] = padded[x * width + LEAD + y]
