"""Pictures of a volume for the QC report: the sheet, the mask's outline to lay over it, and a thumbnail."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastseg.centerline import Centerline
from fastseg.errors import InputError
from fastseg.qc.layout import Layout
from fastseg.views import (
    SMOOTH_MM,
    Squares,
    Tones,
    border,
    covered_slices,
    finite,
    middles,
    on_every_slice,
    resized_lines,
    side_lines,
    smoothed,
)
from fastseg.volume import SCT_RPI, Volume

__all__ = ["Sheet", "draw"]

_Grey = NDArray[np.uint8]

#: Pixels of the outline per pixel of the sheet.
_FINE = 2
_ORANGE = (255, 140, 30)
#: A volume's pictures together, so that with its texts it stays under 60 kB; and the parts of them.
_ALL_BYTES, _SHEET_BYTES, _OUTLINE_BYTES, _THUMBNAIL_BYTES = 48_000, 39_000, 12_000, 4_900
#: Qualities of JPEG, and about which part of the first one's bytes they need.
_QUALITIES = {65: 1.0, 55: 0.87, 45: 0.79, 36: 0.72, 28: 0.63, 20: 0.52, 12: 0.38, 6: 0.24, 1: 0.1}
_THUMBNAIL = (168, 56)


@dataclass(frozen=True, slots=True)
class Sheet:
    """The pictures of a volume.

    Parameters
    ----------
    image : JPEG in grey: the side view on the left, axial tiles from top to bottom on the right; no text
    outline : PNG of twice its size, transparent but for the mask's border
    thumbnail : JPEG: the middle tile, and the side view with the head on the left
    layout : where things are on the sheet, in pixels: `size` (width, height); `mm_per_px`; `side` with `x`,
        `y`, `width`, `height`, `mm_per_px` (larger where the cord is long), `z_top` and `z_bottom`, the
        slices whose outer faces are its upper and lower edge; `tiles` with `z`, `x`, `y` in reading order;
        `tile`, their side. Slices are those of SCT_RPI, 0 the lowest
    """

    image: bytes
    outline: bytes
    thumbnail: bytes
    layout: dict[str, Any]


def draw(
    image: Volume,
    mask: Volume | None,
    centerline: Centerline | None = None,
    *,
    threshold: float = 0.5,
    shown: Sequence[int] = (),
) -> Sheet:
    """Draw a volume and its mask: the plane along the cord from the side, and axial squares of 40 mm.

    Where there is no cord, larger squares and the plane through the middle of the image tell why, unless a
    centerline says where to look.

    Parameters
    ----------
    image : any orientation
    mask : on the same grid, 0/1 or probabilities; none, or an empty one: no cord was found
    centerline : as `Segmentation` holds it; without one the middle of the mask is followed
    threshold : where the outline is drawn
    shown : slices of SCT_RPI that get a tile, as far as there is room

    Raises
    ------
    InputError
        The mask does not lie on the image's grid.
    """
    if mask is not None and not image.grid.same_space(mask.grid):
        raise InputError(
            "the mask is not on the image's grid: nothing can be drawn; resample it onto the image"
        )
    scene = _Scene.of(
        image.reoriented(SCT_RPI),
        None if mask is None else mask.reoriented(SCT_RPI),
        centerline,
        threshold,
        shown,
    )
    grey, lines = scene.drawn()
    thumbnail = _thumbnail(scene.layout, grey, lines)
    outline = _outline_png(lines)
    room = min(_ALL_BYTES - len(outline) - len(thumbnail), _SHEET_BYTES)
    return Sheet(_jpeg(Image.fromarray(grey), room), outline, thumbnail, scene.layout.record())


@dataclass(frozen=True, slots=True)
class _Scene:
    """What is drawn, in SCT_RPI, and where on the sheet."""

    image: Volume
    mask: Volume | None  # none: there is nothing to outline
    threshold: float
    centre: NDArray[np.float64]  # (z, 2) voxels, on every slice
    layout: Layout

    @classmethod
    def of(
        cls,
        image: Volume,
        mask: Volume | None,
        centerline: Centerline | None,
        threshold: float,
        shown: Sequence[int],
    ) -> _Scene:
        grid = image.grid
        covered = np.empty(0, np.int64) if mask is None else covered_slices(mask, threshold)
        points = np.empty((0, 3)) if centerline is None else centerline.on(grid).points
        points = points[np.isfinite(points).all(axis=1)]
        if mask is not None and len(covered) and not len(points):
            points = middles(mask, threshold, covered)
        if not len(points):
            middle = (np.array(grid.shape[:2]) - 1) / 2
            centre = np.tile(middle, (grid.shape[2], 1))
            return cls(image, None, threshold, centre, Layout.of_volume(grid, shown))
        if not len(covered):
            mask, covered = None, np.unique(points[:, 2].astype(np.int64).clip(0, grid.shape[2] - 1))
        centre = smoothed(on_every_slice(points, grid.shape[2]), SMOOTH_MM / grid.zooms[2])
        return cls(image, mask, threshold, centre, Layout.around_cord(grid, covered, shown))

    def drawn(self) -> tuple[_Grey, NDArray[np.bool_]]:
        """The sheet, (height, width) uint8, and the outline, (2 height, 2 width) bool."""
        width, height = self.layout.size
        grey = np.zeros((height, width), np.uint8)
        lines = np.zeros((_FINE * height, _FINE * width), np.bool_)
        tones = self._draw_tiles(grey)
        width, height = self.layout.side_size
        grey[:height, :width] = self._side(self.image, 1, tones)
        if self.mask is not None:
            lines[: _FINE * height, : _FINE * width] = border(self._side(self.mask, _FINE, None))
            self._draw_outlines(self.mask, lines)
        return grey, lines

    @property
    def _soft(self) -> bool:
        """Whether the mask has probabilities; labels may be 255 as well as 1."""
        return self.mask is not None and self.mask.voxels.dtype.kind == "f"

    def _squares(self, volume: Volume, fine: int) -> Squares:
        whole = np.rint(self.centre).astype(np.int64)
        pixel_mm = self.layout.mm_per_px
        mm = self.layout.tile * pixel_mm
        return Squares.cut(volume, whole, self.layout.tiles, mm=mm, pixel_mm=pixel_mm / fine)

    def _draw_tiles(self, grey: _Grey) -> Tones:
        squares = self._squares(self.image, 1)
        tiles, n = self.layout.tiles, self.layout.tile
        tones = Tones.of(squares, tiles, len(self.centre))
        drawn = squares.drawn(squares.blanked(tones.grey(squares.values, tiles)), n)
        for pixels, (x, y) in zip(drawn, self.layout.corners, strict=True):
            grey[y : y + n, x : x + n] = pixels
        return tones

    def _draw_outlines(self, mask: Volume, lines: NDArray[np.bool_]) -> None:
        squares = self._squares(mask, _FINE)
        values, level = finite(squares.values) if self._soft else squares.values, self.threshold
        values = squares.blanked(values)
        hits = np.asarray((values > 0).any(axis=0))
        if not hits.any():
            return
        if not self._soft:  # bytes are resampled faster
            values, level = (values > level) * np.uint8(255), 127.5
        # The cord fills little of a square.
        n = _FINE * self.layout.tile
        rows, columns = squares.pixels_of(hits, n)
        edges = border(squares.drawn(values, n, rows, columns) > level)
        for pixels, (x, y) in zip(edges, self.layout.corners, strict=True):
            top, left = _FINE * y + rows.start, _FINE * x + columns.start
            lines[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels

    def _side(self, volume: Volume, fine: int, tones: Tones | None) -> NDArray[Any]:
        """The side view of the image in grey, or of the mask, with `fine` pixels a pixel of the sheet."""
        lowest, highest = self.layout.side_slices
        slices = np.arange(lowest, highest + 1)
        (width, height), mm = self.layout.side_size, self.layout.side_mm_per_px
        # Lines that are denser than pixels are averaged.
        dense = int(np.clip(np.ceil(mm / fine / volume.grid.zooms[1]), 1, 4))
        n, length = width * fine * dense, width * mm
        zoom, size = volume.grid.zooms[2], (width * fine, height * fine)
        if tones is not None:
            lines = side_lines(volume, self.centre, slices, length, n, beyond=tones.black)
            return resized_lines(tones.grey(lines, slices), zoom, *size)
        above, level = (None, self.threshold) if self._soft else (self.threshold, 0.5)
        lines = side_lines(volume, self.centre, slices, length, n, above=above)
        return resized_lines(lines, zoom, *size) > level


def _thumbnail(layout: Layout, grey: _Grey, lines: NDArray[np.bool_]) -> bytes:
    """The middle tile, and the side view turned by a quarter: the head on the left, front on top."""
    width, height = _THUMBNAIL
    x, y = layout.corners[len(layout.tiles) // 2]
    margin = (layout.tile - height) // 2
    tile = _coloured(grey, lines, x + margin, y + margin, height, height)
    side = _coloured(grey, lines, 0, 0, *layout.side_size)
    side = side.transpose(Image.Transpose.TRANSPOSE)
    along = min((width - height) / side.width, 1.0)
    # A long cord is drawn up to twice too thick: one sees more.
    across = max(along, min(2 * along, height / side.height))
    size = max(round(side.width * along), 1), max(round(side.height * across), 1)
    side = side.resize(size, Image.Resampling.BILINEAR)
    picture = Image.new("RGB", _THUMBNAIL)
    picture.paste(tile, (0, 0))
    picture.paste(side, (height + (width - height - side.width) // 2, (height - side.height) // 2))
    return _jpeg(picture, _THUMBNAIL_BYTES)


def _coloured(grey: _Grey, lines: NDArray[np.bool_], x: int, y: int, width: int, height: int) -> Image.Image:
    """A part of the sheet with its outline, which covers most of a pixel that it touches."""
    picture = Image.fromarray(grey[y : y + height, x : x + width]).convert("RGB")
    fine = lines[_FINE * y : _FINE * (y + height), _FINE * x : _FINE * (x + width)]
    touched = fine[::2, ::2] | fine[::2, 1::2] | fine[1::2, ::2] | fine[1::2, 1::2]
    picture.paste(_ORANGE, (0, 0), Image.fromarray(touched * np.uint8(180)))
    return picture


def _jpeg(picture: Image.Image, most: int) -> bytes:
    """Encode as well as fits into so many bytes."""
    content, wanted = b"", 1.0
    for quality, share in _QUALITIES.items():
        if share > wanted and quality > 1:
            continue
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality, subsampling=0)
        content = stream.getvalue()
        if len(content) <= most:
            break
        wanted = min(share * most / len(content), share)
    return content


def _outline_png(lines: NDArray[np.bool_]) -> bytes:
    """PNG of one bit a pixel. A mask so ragged that it takes too much room is drawn in larger pixels."""
    coarse = 1
    while len(content := _png(lines)) > _OUTLINE_BYTES and coarse < min(lines.shape):
        coarse *= 2
        lines = _coarser(lines, coarse)
    return content


def _coarser(lines: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Squares of so many pixels, set where any of them is."""
    rows, columns = (np.arange(0, n, size) for n in lines.shape)
    set_ = np.logical_or.reduceat(np.logical_or.reduceat(lines, rows, axis=0), columns, axis=1)
    return set_.repeat(size, axis=0)[: lines.shape[0]].repeat(size, axis=1)[:, : lines.shape[1]]


def _png(lines: NDArray[np.bool_]) -> bytes:
    """Encode orange lines on nothing. Pillow takes 4 ms, this 0.7."""
    height, width = lines.shape
    packed = np.packbits(lines, axis=1)
    rows = np.zeros((height, packed.shape[1] + 1), np.uint8)  # the first byte of a row: it is not filtered
    rows[:, 1:] = packed
    header = struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)  # 1 bit, palette
    chunks = (
        (b"IHDR", header),
        (b"PLTE", bytes([0, 0, 0, *_ORANGE])),
        (b"tRNS", b"\0"),
        (b"IDAT", zlib.compress(rows.tobytes(), 3)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
