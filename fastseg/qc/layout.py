"""Where things are on a volume's sheet: a side view on the left, a mosaic of axial tiles on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastseg.volume import Grid

__all__ = ["Layout"]

_Slices = NDArray[np.int64]

#: Around a cord: tiles at most, their side and the side view's width in pixels. SCT's form is 40 mm squares.
_TILES, _TILE, _SIDE = 40, 80, 112
#: Where no cord was found: fewer and larger tiles, and the whole volume from the side.
_VOLUME_TILES, _VOLUME_TILE, _VOLUME_SIDE = 24, 100, 320
#: mm per pixel, and of the tiles where no cord was found at most.
_FINE_MM, _COARSE_MM = 0.5, 1.0
#: The sheet is made no higher and its mosaic no wider than this; a side view shrinks instead.
_MOST = 640
#: Between side view and mosaic, and between tiles.
_GUTTER, _GAP = 8, 2
#: What the side view shows above and below the cord, at least.
_MARGIN_MM = 10.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Places in pixels; slices are those of SCT_RPI.

    Parameters
    ----------
    tiles : (k,) int64            slices, from top to bottom
    tile : side of the tiles
    mm_per_px : of the tiles
    columns : of the mosaic
    side_slices : the lowest and the highest of the side view
    side_size : its width and height; it lies in the left upper corner
    side_mm_per_px : larger than that of the tiles where the cord is long
    """

    tiles: _Slices
    tile: int
    mm_per_px: float
    columns: int
    side_slices: tuple[int, int]
    side_size: tuple[int, int]
    side_mm_per_px: float

    @classmethod
    def around_cord(cls, grid: Grid, covered: _Slices, shown: Sequence[int]) -> Layout:
        """Squares of 40 mm.

        Parameters
        ----------
        grid : SCT_RPI
        covered : slices that may be shown, ascending, at least one
        shown : slices that are to be shown if there is room
        """
        tiles = _chosen(covered, [z for z in shown if 0 <= z < grid.shape[2]], _TILES)
        ends = int(min(covered[0], tiles[-1])), int(max(covered[-1], tiles[0]))
        zoom = grid.zooms[2]
        depth = min((ends[1] - ends[0] + 1) * zoom + 2 * _MARGIN_MM, grid.shape[2] * zoom)
        scale = max(_FINE_MM, depth / _MOST)
        columns = _columns(len(tiles), _TILE, depth / scale)
        mosaic = _length(-(-len(tiles) // columns), _TILE)
        low, high = _widened(ends, int(max(depth, mosaic * scale) / zoom), grid.shape[2])
        height = _pixels((high - low + 1) * zoom / scale)
        return cls(tiles, _TILE, _FINE_MM, columns, (low, high), (_SIDE, height), scale)

    @classmethod
    def of_volume(cls, grid: Grid, shown: Sequence[int]) -> Layout:
        """Large squares, and all of the volume from the side."""
        n = grid.shape[2]
        tiles = _chosen(np.arange(n), [z for z in shown if 0 <= z < n], _VOLUME_TILES)
        x, y, z = (count * zoom for count, zoom in zip(grid.shape, grid.zooms, strict=True))
        mm_per_px = float(np.clip(max(x, y) / _VOLUME_TILE, _FINE_MM, _COARSE_MM))
        scale = max(_FINE_MM, z / _MOST, y / _VOLUME_SIDE)
        size = _pixels(y / scale), _pixels(z / scale)
        columns = _columns(len(tiles), _VOLUME_TILE, size[1])
        return cls(tiles, _VOLUME_TILE, mm_per_px, columns, (0, n - 1), size, scale)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        rows = -(-len(self.tiles) // self.columns)
        width = self.side_size[0] + _GUTTER + _length(self.columns, self.tile)
        return width, max(_length(rows, self.tile), self.side_size[1])

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Left upper pixel of each tile."""
        left, pitch = self.side_size[0] + _GUTTER, self.tile + _GAP
        return [
            (left + index % self.columns * pitch, index // self.columns * pitch)
            for index in range(len(self.tiles))
        ]

    def record(self) -> dict[str, Any]:
        """As the report's page reads it."""
        width, height = self.side_size
        low, high = self.side_slices
        return {
            "size": list(self.size),
            "mm_per_px": round(self.mm_per_px, 4),
            "side": {
                "x": 0,
                "y": 0,
                "width": width,
                "height": height,
                "mm_per_px": round(self.side_mm_per_px, 4),
                "z_top": high,
                "z_bottom": low,
            },
            "tiles": [
                {"z": int(z), "x": x, "y": y} for z, (x, y) in zip(self.tiles, self.corners, strict=True)
            ],
            "tile": self.tile,
        }


def _chosen(covered: _Slices, wanted: Sequence[int], most: int) -> _Slices:
    """At most so many slices from top to bottom: those wanted, others evenly spaced over the covered ones."""
    kept = np.unique(np.asarray(wanted, np.int64))
    kept = kept[_evenly(len(kept), most)]
    every = np.union1d(covered, kept)
    if len(every) <= most:
        return every[::-1]
    evenly = covered[_evenly(len(covered), most)]
    others = np.setdiff1d(evenly, kept)
    for z in np.setdiff1d(kept, evenly):  # takes the place of its nearest neighbour
        if len(others) + len(kept) > most:
            others = np.delete(others, np.argmin(np.abs(others - z)))
    return np.union1d(others, kept)[::-1]


def _evenly(n: int, most: int) -> _Slices:
    """Indices of at most so many of n, both ends among them."""
    return np.rint(np.linspace(0, max(n - 1, 0), min(n, most))).astype(np.int64)


def _columns(n_tiles: int, tile: int, height: float) -> int:
    """Columns of a mosaic that is about so high, and neither higher nor wider than a sheet may be."""
    most = _MOST // tile
    rows = min(max(round(height / (tile + _GAP)), -(-n_tiles // most), 1), most)
    return -(-n_tiles // rows)


def _widened(ends: tuple[int, int], count: int, n_slices: int) -> tuple[int, int]:
    """So many slices around the middle of others, but all of these, and none beyond the volume."""
    low, high = ends
    count = min(max(count, high - low + 1), n_slices)
    low = min(max((low + high + 1 - count) // 2, 0), n_slices - count)
    return low, low + count - 1


def _length(n_tiles: int, tile: int) -> int:
    return n_tiles * (tile + _GAP) - _GAP


def _pixels(length: float) -> int:
    return max(round(length), 1)
