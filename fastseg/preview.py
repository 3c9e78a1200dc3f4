"""One picture of a result: the cord from the side and in axial crops, with the mask's outline."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fastseg.centerline import Centerline
from fastseg.errors import InputError
from fastseg.outputs import write_file
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
from fastseg.volume import SCT_RPI, Grid, Volume

__all__ = ["overlay_png"]

#: Pixels of the picture per millimetre.
_SCALE = 3
#: Side of an axial crop, and front to back of the side view, in mm.
_CROP_MM = 40
_SIDE_MM = 56
_COLUMNS, _ROWS = 6, 4
_GAP, _MARGIN, _CAPTION = 4, 14, 52
#: Room for the legend where there are few crops.
_LEAST_WIDTH = 430
#: The side view is not made higher than this; it shrinks instead.
_MAX_HEIGHT = 1200
_OUTLINE, _POINT = (255, 140, 30), (70, 210, 255)
_INK, _PALE, _PAPER = (236, 236, 236), (150, 150, 150), (18, 18, 20)


def overlay_png(
    image: Volume,
    mask: Volume,
    centerline: Centerline,
    path: Path | str,
    *,
    name: str = "",
    contrast: str = "",
    threshold: float = 0.5,
) -> None:
    """Draw a mask over its image and write the picture.

    On the left the plane that follows the centerline, seen from the side: front on the left, head on top.
    On the right up to 24 axial crops from top to bottom, in radiological orientation: the patient's right is
    on the left, front on top. The mask's outline is orange, the centerline's points are blue.

    Parameters
    ----------
    image : any orientation
    mask : on the same grid; 0/1 or probabilities
    centerline : as `Segmentation` holds it
    path : PNG to write; an existing one is replaced
    name, contrast : for the caption
    threshold : where the outline is drawn

    Raises
    ------
    InputError
        The mask is empty, or does not lie on the image's grid.
    OutputError
        The picture cannot be written. Nothing is left behind.
    """
    if not image.grid.same_space(mask.grid):
        raise InputError("the mask is not on the image's grid: nothing can be drawn")
    scene = _Scene.of(image.reoriented(SCT_RPI), mask.reoriented(SCT_RPI), centerline, threshold)
    canvas = _Canvas(scene, image.grid.axcodes)
    canvas.caption(name, contrast)
    canvas.side_view()
    canvas.mosaic()
    canvas.legend()
    content = io.BytesIO()
    canvas.picture.save(content, format="PNG")
    write_file(Path(path), content.getvalue())


@dataclass(frozen=True, slots=True)
class _Scene:
    """What is drawn, in SCT_RPI: x from right to left, y from back to front, z from foot to head."""

    image: Volume
    mask: Volume
    threshold: float
    covered: int  # slices with cord
    points: NDArray[np.float64]  # (z, 2) voxels: the centerline, nan on slices that it does not cover
    centre: NDArray[np.float64]  # (z, 2) voxels: the middle of what is drawn, on every slice
    shown: NDArray[np.int64]  # slices that get a crop, from top to bottom
    crops: Squares  # of the image, on the slices shown
    tones: Tones

    @classmethod
    def of(cls, image: Volume, mask: Volume, centerline: Centerline, threshold: float) -> _Scene:
        covered = covered_slices(mask, threshold)
        if not len(covered):
            raise InputError("the mask is empty: there is nothing to draw")
        n_slices = image.grid.shape[2]
        points = centerline.on(image.grid).points
        if not len(points):
            points = middles(mask, threshold, covered)
        centre = on_every_slice(points, n_slices)
        on_line = np.isin(np.arange(n_slices), centerline.z)
        traced = np.where(on_line[:, None], centre, np.nan)
        count = min(len(covered), _COLUMNS * _ROWS)
        shown = covered[np.rint(np.linspace(0, len(covered) - 1, count)).astype(int)][::-1]
        smooth = smoothed(centre, SMOOTH_MM / image.grid.zooms[2])
        crops = _crops(image, smooth, shown, _SCALE)
        tones = Tones.of(crops, shown, n_slices)
        return cls(image, mask, threshold, len(covered), traced, smooth, shown, crops, tones)

    @property
    def grid(self) -> Grid:
        return self.image.grid

    def axial(self) -> NDArray[np.uint8]:
        """(k, rows, columns) grey squares around the centre."""
        grey = self.tones.grey(self.crops.values, self.shown)
        return self.crops.drawn(self.crops.blanked(grey), _CROP_MM * _SCALE)

    def axial_masks(self) -> NDArray[np.bool_]:
        """The mask in the same squares, with twice their pixels."""
        crops = _crops(self.mask, self.centre, self.shown, 2 * _SCALE)
        values = crops.blanked(finite(crops.values))
        return np.asarray(crops.drawn(values, 2 * _CROP_MM * _SCALE) > self.threshold)

    def side(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Plane along the centerline in grey, of so many pixels in width and height."""
        every = np.arange(self.grid.shape[2])
        black = self.tones.black
        lines = side_lines(self.image, self.centre, every, _SIDE_MM, size[0], beyond=black)
        return resized_lines(self.tones.grey(lines, every), self.grid.zooms[2], *size)

    def side_mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The mask in the same plane."""
        lines = side_lines(self.mask, self.centre, range(self.grid.shape[2]), _SIDE_MM, size[0])
        return np.asarray(resized_lines(lines, self.grid.zooms[2], *size) > self.threshold)


def _crops(volume: Volume, centre: NDArray[np.float64], shown: NDArray[np.int64], scale: int) -> Squares:
    whole = np.rint(centre).astype(np.int64)
    return Squares.cut(volume, whole, shown, mm=_CROP_MM, pixel_mm=1 / scale)


class _Canvas:
    """The picture while it is drawn: a caption, the side view on the left, the mosaic on the right."""

    def __init__(self, scene: _Scene, axcodes: tuple[str, ...]) -> None:
        self._scene = scene
        self._crops = [
            _outlined(grey, inside) for grey, inside in zip(scene.axial(), scene.axial_masks(), strict=True)
        ]
        # Slices are numbered as in the file.
        self._upwards = "S" in axcodes
        depth = scene.grid.shape[2] * scene.grid.zooms[2]
        self._side_scale = min(_SCALE, _MAX_HEIGHT / depth)
        size = round(_SIDE_MM * self._side_scale), max(round(depth * self._side_scale), 1)
        self._side = _outlined(scene.side(size), scene.side_mask((2 * size[0], 2 * size[1])))
        columns = min(_COLUMNS, len(self._crops))
        self._columns = columns
        self._left, self._top = _MARGIN + 14, _MARGIN + _CAPTION
        self._right = self._left + self._side.width + 44
        self._tile = _CROP_MM * _SCALE
        self._mosaic = (
            columns * (self._tile + _GAP) - _GAP,
            -(-len(self._crops) // columns) * (self._tile + _GAP) - _GAP,
        )
        self._bottom = self._top + max(self._side.height, self._mosaic[1])
        width = self._right + max(self._mosaic[0], _LEAST_WIDTH) + _MARGIN + 14
        self.picture = Image.new("RGB", (width, self._bottom + 62), _PAPER)
        self._draw = ImageDraw.Draw(self.picture)
        self._large, self._small = ImageFont.load_default(16), ImageFont.load_default(12)

    def caption(self, name: str, contrast: str) -> None:
        scene = self._scene
        room = self.picture.width - 2 * _MARGIN
        self._draw.text((_MARGIN, _MARGIN - 4), self._fitted(name or "overlay", room), _INK, self._large)
        zooms = " x ".join(f"{zoom:.3g}" for zoom in scene.grid.zooms)
        facts = [contrast] * bool(contrast) + [f"cord on {scene.covered} of {scene.grid.shape[2]} slices"]
        facts += [f"voxels {zooms} mm (R-L, A-P, S-I)"]
        self._draw.text((_MARGIN, _MARGIN + 17), "   ".join(facts), _PALE, self._small)

    def side_view(self) -> None:
        x, y, side = self._left, self._top, self._side
        self.picture.paste(side, (x, y))
        n_slices = self._scene.grid.shape[2]
        for z in self._scene.shown:
            level = y + (n_slices - z - 0.5) / n_slices * side.height
            self._draw.line([(x + side.width + 2, level), (x + side.width + 5, level)], _PALE)
        self._letters((x, y), side.size, "SIAP", beside=10)
        self._scale_bar(x, self._side_scale)

    def mosaic(self) -> None:
        scene, step = self._scene, self._tile + _GAP
        for index, (z, tile) in enumerate(zip(scene.shown, self._crops, strict=True)):
            self._mark(tile, int(z))
            x, y = self._right + index % self._columns * step, self._top + index // self._columns * step
            self.picture.paste(tile, (x, y))
            number = str(z if self._upwards else scene.grid.shape[2] - 1 - z)
            self._draw.text((x + 4, y + 2), number, _INK, self._small, stroke_width=1, stroke_fill=_PAPER)
        self._letters((self._right, self._top), self._mosaic, "APRL", beside=4)

    def legend(self) -> None:
        x, y = self._right, self._bottom + 24
        self._scale_bar(x, _SCALE)
        x += 20 * _SCALE + 70
        for colour, what in ((_OUTLINE, "mask"), (_POINT, "centerline")):
            self._draw.rectangle((x, y + 6, x + 9, y + 8), colour)
            self._draw.text((x + 15, y), what, _PALE, self._small)
            x += 30 + round(self._draw.textlength(what, self._small))
        said = "axial: radiological, patient's right on the left; numbers: slices of the file"
        self._draw.text((self._right, y + 18), said, _PALE, self._small)

    def _mark(self, tile: Image.Image, z: int) -> None:
        """Draw the centerline's point as a small cross."""
        scene = self._scene
        if np.isnan(scene.points[z]).any():
            return
        off_x, off_y = (scene.points[z] - np.rint(scene.centre[z])) * scene.grid.zooms[:2] * _SCALE
        x, y = (round(self._tile / 2 + off - 0.5) for off in (off_x, -off_y))
        draw = ImageDraw.Draw(tile)
        draw.line([(x - 1, y), (x + 1, y)], _POINT)
        draw.line([(x, y - 1), (x, y + 1)], _POINT)

    def _scale_bar(self, x: int, scale: float) -> None:
        y = self._bottom + 24
        self._draw.line([(x, y + 7), (x + 20 * scale, y + 7)], _INK, 2)
        self._draw.text((x + 20 * scale + 6, y), "20 mm", _PALE, self._small)

    def _letters(self, corner: tuple[int, int], size: tuple[int, int], letters: str, beside: int) -> None:
        """Directions at the top, bottom, left and right edge."""
        (x, y), (width, height) = corner, size
        places = (
            (x + width / 2, y - 3, "mb"),
            (x + width / 2, y + height + 3, "mt"),
            (x - 4, y + height / 2, "rm"),
            (x + width + beside, y + height / 2, "lm"),
        )
        for letter, (at_x, at_y, anchor) in zip(letters, places, strict=True):
            self._draw.text((at_x, at_y), letter, _PALE, self._small, anchor=anchor)

    def _fitted(self, text: str, width: int) -> str:
        """Text that is not wider than `width` pixels, cut at its start: the end of a name tells more."""
        text = "".join(letter if letter.isprintable() else "?" for letter in text)
        if self._draw.textlength(text, self._large) <= width:
            return text
        while text and self._draw.textlength("..." + text, self._large) > width:
            text = text[1:]
        return "..." + text


def _outlined(grey: NDArray[np.uint8], inside: NDArray[np.bool_]) -> Image.Image:
    """A grey plane, and in colour the outline of a mask of twice its size."""
    rows, columns = grey.shape
    edge = border(inside, 2).astype(np.float32)
    cover = edge.reshape(rows, 2, columns, 2).mean(axis=(1, 3))[..., None]
    blended = grey[..., None] * (1 - cover) + np.array(_OUTLINE, np.float32) * cover
    return Image.fromarray(np.rint(blended).astype(np.uint8))
