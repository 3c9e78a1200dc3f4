"""One picture of a result: the cord from the side and in axial crops, with the mask's outline."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fastseg.centerline import Centerline
from fastseg.errors import InputError
from fastseg.outputs import write_file
from fastseg.volume import SCT_RPI, Grid, Volume

__all__ = ["overlay_png"]

_Plane = NDArray[np.float32]

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
#: How much the plane of the side view smooths the centerline.
_SMOOTH_MM = 4.0
#: Slices thicker than this are shown as they are, as bands; thinner ones are blended.
_BLEND_MM = 3.2
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
    points: NDArray[np.float64]  # (z, 2) voxels: the centerline, nan on slices that it does not cover
    centre: NDArray[np.float64]  # (z, 2) voxels: the middle of what is drawn, on every slice
    shown: NDArray[np.int64]  # slices that get a crop, from top to bottom
    black: float  # signal that is drawn as 0
    white: _Plane  # (z,) signal above black that is drawn as 1

    @classmethod
    def of(cls, image: Volume, mask: Volume, centerline: Centerline, threshold: float) -> _Scene:
        covered = np.flatnonzero((mask.voxels > threshold).any(axis=(0, 1)))
        if not len(covered):
            raise InputError("the mask is empty: there is nothing to draw")
        n_slices = image.grid.shape[2]
        points = centerline.on(image.grid).points
        if not len(points):
            points = np.array([[*np.argwhere(mask.voxels[..., z] > threshold).mean(0), z] for z in covered])
        z = np.arange(n_slices)
        centre = np.column_stack([np.interp(z, points[:, 2], points[:, axis]) for axis in (0, 1)])
        traced = np.full(centre.shape, np.nan)
        traced[np.isin(z, centerline.z)] = centre[np.isin(z, centerline.z)]
        count = min(len(covered), _COLUMNS * _ROWS)
        shown = covered[np.rint(np.linspace(0, len(covered) - 1, count)).astype(int)][::-1]
        smooth = _smooth(centre, _SMOOTH_MM / image.grid.zooms[2])
        raw = cls(image, mask, threshold, traced, smooth, shown, 0.0, np.ones(n_slices, np.float32))
        black, white = _window([raw.axial(image, int(z), 2) for z in shown], shown, n_slices)
        return replace(raw, black=black, white=white)

    @property
    def grid(self) -> Grid:
        return self.image.grid

    def axial(self, volume: Volume, z: int, pixels_per_mm: int) -> _Plane:
        """Square around the centre: rows from front to back, columns from right to left."""
        n = _CROP_MM * pixels_per_mm
        offset = (np.arange(n) + 0.5) / pixels_per_mm - _CROP_MM / 2
        x = self.centre[z, 0] + offset / self.grid.zooms[0]
        y = self.centre[z, 1] - offset / self.grid.zooms[1]
        plane = _bilinear(volume.voxels[..., z], x, y).T
        return (plane - self.black) / self.white[z] if volume is self.image else plane

    def sagittal(self, volume: Volume, pixels_per_mm: float) -> _Plane:
        """Plane along the centerline: rows from head to foot, columns from front to back."""
        zoom = self.grid.zooms[2]
        offset = (np.arange(round(_SIDE_MM * pixels_per_mm)) + 0.5) / pixels_per_mm - _SIDE_MM / 2
        lines = np.empty((self.grid.shape[2], len(offset)), np.float32)
        for z, (x, y) in enumerate(self.centre):
            there = np.array([x])
            lines[z] = _bilinear(volume.voxels[..., z], there, y - offset / self.grid.zooms[1])[0]
        if volume is self.image:
            lines = (lines - self.black) / self.white[:, None]
        height = max(round(len(lines) * zoom * pixels_per_mm), 1)
        at = (np.arange(height)[::-1] + 0.5) / height * len(lines) - 0.5
        if zoom > _BLEND_MM:
            return lines[np.clip(np.rint(at).astype(int), 0, len(lines) - 1)]
        return _bilinear(lines, np.clip(at, 0, len(lines) - 1), np.arange(len(offset), dtype=np.float64))


def _bilinear(plane: NDArray[np.generic], x: NDArray[np.float64], y: NDArray[np.float64]) -> _Plane:
    """Values of a plane at all pairs of x and y in voxels; 0 outside, and where they are not finite."""
    (i, x0, x1), (j, y0, y1) = (_neighbours(at, n) for at, n in zip((x, y), plane.shape, strict=True))
    lines = x0[:, None] * _finite(plane[i]) + x1[:, None] * _finite(
        plane[np.minimum(i + 1, plane.shape[0] - 1)]
    )
    return np.asarray(y0 * lines[:, j] + y1 * lines[:, np.minimum(j + 1, plane.shape[1] - 1)], np.float32)


def _neighbours(
    at: NDArray[np.float64], n: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Lower neighbour of each position, and the weights of both."""
    inside = (at > -0.5) & (at < n - 0.5)
    low = np.clip(np.floor(at), 0, n - 1)
    part = np.clip(at - low, 0, 1)
    return low.astype(np.int64), inside * (1 - part), inside * part


def _finite(values: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.nan_to_num(np.asarray(values, np.float64), nan=0.0, posinf=0.0, neginf=0.0)


class _Canvas:
    """The picture while it is drawn: a caption, the side view on the left, the mosaic on the right."""

    def __init__(self, scene: _Scene, axcodes: tuple[str, ...]) -> None:
        self._scene = scene
        self._crops = [scene.axial(scene.image, int(z), _SCALE) for z in scene.shown]
        # Slices are numbered as in the file.
        self._upwards = "S" in axcodes
        depth = scene.grid.shape[2] * scene.grid.zooms[2]
        self._side_scale = min(_SCALE, _MAX_HEIGHT / depth)
        side = scene.sagittal(scene.image, self._side_scale)
        self._side = self._outlined(side, scene.sagittal(scene.mask, 2 * self._side_scale))
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
        covered = int((scene.mask.voxels > scene.threshold).any(axis=(0, 1)).sum())
        zooms = " x ".join(f"{zoom:.3g}" for zoom in scene.grid.zooms)
        facts = [contrast] * bool(contrast) + [f"cord on {covered} of {scene.grid.shape[2]} slices"]
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
        for index, (z, crop) in enumerate(zip(scene.shown, self._crops, strict=True)):
            tile = self._outlined(crop, scene.axial(scene.mask, int(z), 2 * _SCALE))
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
        off_x, off_y = (scene.points[z] - scene.centre[z]) * scene.grid.zooms[:2] * _SCALE
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

    def _outlined(self, plane: _Plane, mask: _Plane) -> Image.Image:
        """Grey picture of a plane, 0 black and 1 white, with the outline of a mask of twice its size."""
        grey = np.clip(plane, 0, 1)[..., None] * 255
        inside = mask > self._scene.threshold
        edge = inside & ~_shrunk(_shrunk(inside))
        rows, columns = plane.shape
        fine = np.zeros((2 * rows, 2 * columns), np.float32)
        fine[: edge.shape[0], : edge.shape[1]] = edge[: 2 * rows, : 2 * columns]
        cover = fine.reshape(rows, 2, columns, 2).mean(axis=(1, 3))[..., None]
        blended = grey * (1 - cover) + np.array(_OUTLINE, np.float32) * cover
        return Image.fromarray(np.rint(blended).astype(np.uint8))


def _window(crops: list[_Plane], shown: NDArray[np.int64], n_slices: int) -> tuple[float, _Plane]:
    """Signal that is drawn black, and on each slice how much above it is drawn white.

    White is half way between the crop's own percentile and that of all crops: a slice at the end of the coil
    can be seen, and still looks darker than the others.
    """
    black = float(np.percentile(np.stack(crops), 0.5))
    common = max(float(np.percentile(np.stack(crops), 99.7)) - black, 1e-6)
    own = np.array([max(float(np.percentile(crop, 99.5)) - black, 1e-3 * common) for crop in crops])
    white = np.interp(np.arange(n_slices), shown[::-1], np.sqrt(own * common)[::-1])
    return black, white.astype(np.float32)


def _smooth(centre: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
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


def _shrunk(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Erode by one pixel; the picture's border is no edge of the mask."""
    padded = np.pad(inside, 1, mode="edge")
    return inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
