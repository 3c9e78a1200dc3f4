"""Planes around the cord for pictures: axial squares, and from the side the plane along the centerline.

All volumes are in SCT_RPI: x from right to left, y from back to front, z from foot to head. Planes are what
one sees: axial rows from front to back and columns from right to left, the patient's right on the left; rows
of the side view from head to foot and columns from front to back. Only what is looked at is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastseg.volume import Volume

__all__ = [
    "SMOOTH_MM",
    "Squares",
    "Tones",
    "border",
    "covered_slices",
    "finite",
    "middles",
    "on_every_slice",
    "resized_lines",
    "side_lines",
    "smoothed",
]

_Plane = NDArray[np.float32]
#: uint8 grey or float32 values.
_Pixels = NDArray[Any]

#: How much the planes smooth the centerline.
SMOOTH_MM = 4.0
# Slices thicker than this are shown as they are, as bands; thinner ones are blended.
_BLEND_MM = 3.2
# Values of a square that are looked at for its contrast, along each side.
_LOOK = 42


def covered_slices(mask: Volume, threshold: float) -> NDArray[np.int64]:
    """Slices on which a mask is somewhere above the threshold, ascending."""
    # In the order of memory, forwards, and what is farthest apart first: 0.5 instead of 3 ms for 320 x 320 x
    # 60 bytes.
    forwards = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in mask.voxels.strides)
    voxels = mask.voxels[forwards]
    x, y, z = voxels.strides
    if z >= max(x, y):
        highest = np.fmax.reduce(voxels, axis=(0, 1))
    else:
        highest = np.fmax.reduce(np.fmax.reduce(voxels, axis=0 if x >= y else 1), axis=0)
    return np.flatnonzero(highest[forwards[2]] > threshold)


def middles(mask: Volume, threshold: float, covered: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, 3) voxels: the middle of the mask on the covered slices."""
    points = np.empty((len(covered), 3))
    for row, z in zip(points, covered, strict=True):
        inside = mask.voxels[..., z] > threshold
        x, y = inside.sum(axis=1), inside.sum(axis=0)
        row[:] = x @ np.arange(len(x)) / x.sum(), y @ np.arange(len(y)) / y.sum(), z
    return points


def on_every_slice(points: NDArray[np.float64], n_slices: int) -> NDArray[np.float64]:
    """(z, 2) voxels: x and y of a curve on every slice; beyond its ends it goes straight on.

    Parameters
    ----------
    points : (n, 3) float64       x, y, z in voxels, ascending in z; at least one
    n_slices : of the volume
    """
    z = np.arange(n_slices)
    return np.column_stack([np.interp(z, points[:, 2], points[:, axis]) for axis in (0, 1)])


def smoothed(centre: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Mean over neighbouring slices, weighted by a Gaussian of sigma slices."""
    if sigma < 0.5 or len(centre) < 3:
        return centre
    reach = min(int(3 * sigma) + 1, len(centre) - 1)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    # Reflected through the end points, so that a slanted line stays one.
    first, last = 2 * centre[0] - centre[reach:0:-1], 2 * centre[-1] - centre[-2 : -reach - 2 : -1]
    padded = np.concatenate([first, centre, last])
    return np.column_stack([np.convolve(padded[:, axis], weights, mode="valid") for axis in (0, 1)])


@dataclass(frozen=True, slots=True)
class Squares:
    """Equal squares of a volume's own voxels, one a slice.

    They lie around whole voxels, so that all squares are resampled by the same weights.

    Parameters
    ----------
    values : (k, y, x) of the volume's dtype, from front to back and from right to left; beyond the volume the
        nearest voxel's value
    inside : (k, y) and (k, x) bool, what lies in the volume
    pitch : mm between values along y and x
    mm : side of the squares; `values` reach a little further
    """

    values: _Pixels
    inside: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    pitch: tuple[float, float]
    mm: float

    @classmethod
    def cut(
        cls,
        volume: Volume,
        centre: NDArray[np.int64],
        slices: NDArray[np.int64],
        *,
        mm: float,
        pixel_mm: float,
    ) -> Squares:
        """Cut squares of `mm` around `centre`, (z, 2) whole voxels of every slice, out of some slices.

        Of voxels much smaller than half of `pixel_mm` only every n-th is taken.
        """
        zooms = volume.grid.zooms[:2]
        steps = [max(int(pixel_mm / zoom / 2), 1) for zoom in zooms]
        pitch = [zoom * step for zoom, step in zip(zooms, steps, strict=True)]
        x, y = (
            centre[slices, axis, None] + steps[axis] * np.arange(-reach, reach + 1)
            for axis, reach in enumerate(int(np.ceil(mm / 2 / each + 0.5)) for each in pitch)
        )
        y = y[:, ::-1]
        inside = [(at >= 0) & (at < n) for at, n in zip((x, y), volume.voxels.shape, strict=False)]
        whole = inside[0].all(axis=1) & inside[1].all(axis=1)
        values = np.empty((len(slices), y.shape[1], x.shape[1]), volume.voxels.dtype)
        for k, z in enumerate(slices):
            plane = volume.voxels[..., z]
            if whole[k]:  # a view; an array of indices takes 3 to 16 times as long
                part = plane[x[k, 0] : x[k, -1] + 1 : steps[0], y[k, -1] : y[k, 0] + 1 : steps[1]]
                values[k] = part[:, ::-1].T
            else:
                nearest = (at[k].clip(0, n - 1) for at, n in zip((x, y), plane.shape, strict=True))
                values[k] = plane[np.ix_(*nearest)].T
        return cls(values, (inside[1], inside[0]), (pitch[1], pitch[0]), mm)

    def blanked(self, values: _Pixels) -> _Pixels:
        """Values of these squares with 0 beyond the volume."""
        rows, columns = self.inside
        if rows.all() and columns.all():
            return values
        return np.where(rows[:, :, None] & columns[:, None, :], values, values.dtype.type(0))

    def drawn(
        self, values: _Pixels, n: int, rows: slice = slice(None), columns: slice = slice(None)
    ) -> _Pixels:
        """Resample values of these squares to n x n pixels, or to some rows and columns of these.

        Parameters
        ----------
        values : (k, y, x) uint8 or float32
        n : pixels along the side of a square
        rows, columns : of the pixels

        Returns
        -------
        pixels : (k, rows, columns) of the same dtype
        """
        (top, bottom), (left, right) = (
            self._span(axis, part, n) for axis, part in enumerate((rows, columns))
        )
        # Linear blending looks one value, or one pixel, further.
        further = max(1.0, self.mm / self.pitch[0] / n) + 1
        first = max(int(top - further), 0)
        seen = values[:, first : int(np.ceil(bottom + further))]
        across = _drawn_across(seen, left, right, len(range(n)[columns]))
        down = _drawn_across(across.transpose(0, 2, 1), top - first, bottom - first, len(range(n)[rows]))
        return down.transpose(0, 2, 1)

    def _span(self, axis: int, part: slice, n: int) -> tuple[float, float]:
        """Where some of n pixels begin and end, in values, the first of which lies at 0 to 1."""
        start, stop, _ = part.indices(n)
        reach = self.mm / self.pitch[axis]
        before = (self.values.shape[1 + axis] - reach) / 2
        return before + start * reach / n, before + stop * reach / n

    def pixels_of(self, hits: NDArray[np.bool_], n: int) -> tuple[slice, slice]:
        """Rows and columns of n x n pixels to which some values contribute, with a margin of a pixel.

        Parameters
        ----------
        hits : (y, x) bool            which values; at least one
        n : pixels along the side of a square
        """
        parts = []
        for axis, hit in enumerate((hits.any(axis=1), hits.any(axis=0))):
            left, right = self._span(axis, slice(None), n)
            where = np.flatnonzero(hit)
            first, last = ((edge - left) / (right - left) * n for edge in (where[0] - 0.5, where[-1] + 1.5))
            parts.append(slice(min(max(int(first) - 1, 0), n - 1), max(min(int(np.ceil(last)) + 1, n), 1)))
        return parts[0], parts[1]


def _drawn_across(values: _Pixels, left: float, right: float, n: int) -> _Pixels:
    """Resample the last axis: from `left` to `right` in values, to n pixels."""
    k, rows, width = values.shape
    # Rows do not mix, so one picture serves all squares. Blended linearly, averaged where pixels are larger.
    picture = Image.fromarray(np.ascontiguousarray(values).reshape(k * rows, width))
    box = (left, 0, right, k * rows)
    return np.asarray(picture.resize((n, k * rows), Image.Resampling.BILINEAR, box=box)).reshape(k, rows, n)


@dataclass(frozen=True, slots=True)
class Tones:
    """Which signal is drawn black, and which white.

    White is on each slice half way between the square's own percentile and that of all squares: a slice at
    the end of the coil can be seen, and still looks darker than the others.

    Parameters
    ----------
    black : signal
    white : (z,) float32      signal above black, on every slice of the volume
    """

    black: float
    white: _Plane

    @classmethod
    def of(cls, squares: Squares, slices: NDArray[np.int64], n_slices: int) -> Tones:
        """Choose the tones by what is seen on some slices, ascending or descending."""
        stride = [-(-n // _LOOK) for n in squares.values.shape[1:]]
        seen = finite(squares.values[:, :: stride[0], :: stride[1]])
        inside = [each[:, ::step] for each, step in zip(squares.inside, stride, strict=True)]
        if all(each.all() for each in inside):
            own = _percentile(seen.reshape(len(seen), -1), 99.5)
        else:
            # Where nothing of a square lies in the volume, its borrowed values are better than none.
            there = [
                each[np.ix_(*held)] if all(part.any() for part in held) else each
                for each, *held in zip(seen, *inside, strict=True)
            ]
            own = np.array([_percentile(each.ravel(), 99.5) for each in there], np.float32)
            seen = np.concatenate([each.ravel() for each in there])
        black = float(_percentile(seen.ravel(), 0.5))
        # Of a constant image all is black, also where it is blended and so rounded.
        least = max(1e-3 * abs(black), 1e-30)
        common = max(float(_percentile(seen.ravel(), 99.7)) - black, least)
        white = np.sqrt(np.maximum(own.astype(np.float64) - black, max(1e-3 * common, least)) * common)
        order = np.argsort(slices)
        every = np.interp(np.arange(n_slices), slices[order], white[order])
        return cls(black, every.astype(np.float32))

    def grey(self, values: _Pixels, slices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Grey 0..255 of values (k, ...) on k slices."""
        gain = (255 / self.white[slices]).reshape(-1, *(1,) * (values.ndim - 1))
        tone = finite(values) - np.float32(self.black)
        tone *= gain
        tone += np.float32(0.5)
        return np.clip(tone, 0, 255, out=tone).astype(np.uint8)


def _percentile(values: _Plane, percent: float) -> _Plane:
    """Value of that rank along the last axis; `values` are put into another order."""
    rank = round(percent / 100 * (values.shape[-1] - 1))
    values.partition(rank, axis=-1)
    return np.array(values[..., rank])


def side_lines(
    volume: Volume,
    centre: NDArray[np.float64],
    slices: Sequence[int] | NDArray[np.int64],
    mm: float,
    n: int,
    *,
    beyond: float = 0.0,
    above: float | None = None,
) -> _Plane:
    """Lines from front to back through the centre, one a slice.

    Parameters
    ----------
    volume : image or mask
    centre : (z, 2) voxels        of every slice
    slices : through which
    mm : length of the lines
    n : values on each
    beyond : value outside the volume
    above : if given, voxels that are above it count as 1 and all others as 0

    Returns
    -------
    lines : (k, n) float32        values that are not finite count as 0
    """
    z = np.asarray(slices)
    offset = ((np.arange(n) + 0.5) / n - 0.5) * mm
    (i, x0, x1), (j, y0, y1) = (
        _neighbours(at, size)
        for at, size in zip(
            (centre[z, 0, None], centre[z, 1, None] - offset / volume.grid.zooms[1]),
            volume.voxels.shape,
            strict=False,
        )
    )
    right, front = (np.minimum(low + 1, n - 1) for low, n in zip((i, j), volume.voxels.shape, strict=False))

    def at(x: NDArray[np.int64], y: NDArray[np.int64]) -> _Plane:
        values = volume.voxels[x, y, z[:, None]]
        return finite(values if above is None else values > above)

    back, ahead = (x0 * at(i, y) + x1 * at(right, y) for y in (j, front))
    outside = 1 - (x0 + x1) * (y0 + y1)
    return np.asarray(y0 * back + y1 * ahead + np.float32(beyond) * outside, np.float32)


def resized_lines(lines: _Pixels, zoom: float, width: int, height: int) -> _Pixels:
    """Put lines, (z, n) uint8 or float32 and ascending in z, on each other: pixels, the highest slice on top.

    `zoom` are the mm from slice to slice: thick slices are shown as bands.
    """
    picture = Image.fromarray(np.ascontiguousarray(lines[::-1]))
    bands = zoom > _BLEND_MM and height >= len(lines)
    how = Image.Resampling.NEAREST if bands else Image.Resampling.BILINEAR
    picture = picture.resize((picture.width, height), how)
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def border(inside: NDArray[np.bool_], width: int = 1) -> NDArray[np.bool_]:
    """Pixels of planes (..., rows, columns) on the inner side of a border; the plane's own edge is none."""
    core = inside
    for _ in range(width):
        outer, core = core, core.copy()
        core[..., 1:, :] &= outer[..., :-1, :]
        core[..., :-1, :] &= outer[..., 1:, :]
        core[..., 1:] &= outer[..., :-1]
        core[..., :-1] &= outer[..., 1:]
    return inside & ~core


def _neighbours(
    at: NDArray[np.float64], n: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Lower neighbour of each position, and the weights of both; 0 outside."""
    inside = (at > -0.5) & (at < n - 0.5)
    low = np.clip(np.floor(at), 0, n - 1)
    part = np.clip(at - low, 0, 1)
    weights = (inside * each for each in (1 - part, part))
    below, above = (np.asarray(each, np.float32) for each in weights)
    return low.astype(np.int64), below, above


def finite(values: _Pixels) -> _Plane:
    """A copy in float32, 0 where values are not finite there."""
    with np.errstate(over="ignore", invalid="ignore"):
        copied = values.astype(np.float32)
    if values.dtype.kind == "f":
        np.nan_to_num(copied, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return copied
