"""Pictures of the worst slices: the image around the cord, alone and with both outlines."""

from __future__ import annotations

import heapq
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from fastseg.errors import OutputError
from fastseg.outputs import write_file
from fastseg.volume import SCT_RPI, Volume
from tools.evaluation.metrics import slice_dice
from tools.evaluation.runs import Run
from tools.evaluation.volumes import Case

__all__ = ["WorstSlices", "tile"]

_Plane = NDArray[np.float32]

#: Side of the crop in mm, and pixels of the picture per mm.
_CROP_MM, _SCALE = 36, 8
_GAP, _MARGIN, _CAPTION, _LEGEND = 6, 14, 50, 30
#: Columns of the sheet that shows all of them.
_COLUMNS = 3
# The colours of fastseg's own overlays: the mask is orange there too.
_OURS, _REFERENCE, _BOTH = (255, 140, 30), (70, 210, 255), (250, 250, 250)
_INK, _PALE, _PAPER = (236, 236, 236), (150, 150, 150), (18, 18, 20)


@dataclass(frozen=True, eq=False, slots=True)
class _Slice:
    """What a picture needs of a slice.

    Parameters
    ----------
    case, run : where it comes from
    number : of the slice in the file
    dice : of the slice
    areas_mm2 : of ours and of the reference
    image : (rows, columns) 0..1, front on top, the patient's right on the left
    ours, reference : the same at twice the size, probabilities
    """

    case: Case
    run: Run
    number: int
    dice: float
    areas_mm2: tuple[float, float]
    image: _Plane
    ours: _Plane
    reference: _Plane


class WorstSlices:
    """Keeps the slices with the smallest Dice of everything it is shown.

    Parameters
    ----------
    count : how many it keeps
    per_volume : at most so many of one volume; None: no limit

    Notes
    -----
    Slices of a volume that failed as a whole are not shown: there is no mask to draw.
    """

    def __init__(self, count: int, *, per_volume: int | None = None) -> None:
        self._count, self._per_volume = count, per_volume
        self._kept: list[tuple[float, int, _Slice]] = []
        self._seen = 0

    def __call__(self, case: Case, run: Run, image: Volume, reference: Volume, mask: Volume) -> None:
        """Look at a segmented volume; the three volumes share one grid and orientation."""
        turned = [each.reoriented(SCT_RPI) for each in (image, reference, mask)]
        upwards = "S" in image.grid.axcodes  # slices are numbered as in the file
        depth = turned[0].grid.shape[2]
        z_all, dice_all = slice_dice(mask, reference)
        for index in np.argsort(dice_all, kind="stable")[: self._per_volume]:
            z, dice = int(z_all[index]), float(dice_all[index])
            self._seen += 1  # of two slices that are equally bad, the first is kept
            if len(self._kept) == self._count and -dice <= self._kept[0][0]:
                continue
            number = z if upwards else depth - 1 - z
            drawn = _cut(case, run, number, dice, z, *turned)
            push = heapq.heappushpop if len(self._kept) == self._count else heapq.heappush
            push(self._kept, (-dice, -self._seen, drawn))

    def write(self, folder: Path) -> list[Path]:
        """Write a PNG for every slice, the worst first, and one sheet with all of them.

        Raises
        ------
        OutputError
            A picture cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made ({error.strerror}): name another folder") from error
        slices = [entry[2] for entry in sorted(self._kept, key=lambda entry: entry[:2], reverse=True)]
        tiles, paths = [tile(each) for each in slices], []
        for rank, (each, picture) in enumerate(zip(slices, tiles, strict=True), 1):
            paths.append(folder / f"{rank:02d}-{each.case.name}-{each.run.kernel}-{each.number:03d}.png")
            _save(picture, paths[-1])
        if tiles:
            paths.append(folder / "worst.png")
            _save(_sheet(tiles), paths[-1])
        return paths


def _cut(
    case: Case, run: Run, number: int, dice: float, z: int, image: Volume, reference: Volume, mask: Volume
) -> _Slice:
    zooms = image.grid.zooms
    theirs, mine = (np.asarray(each.voxels[..., z] > 0.5, np.float32) for each in (reference, mask))
    centre = np.argwhere(theirs).mean(axis=0)
    signal = np.nan_to_num(np.asarray(image.voxels[..., z], np.float32), posinf=0.0, neginf=0.0)
    plane = _sampled(signal, centre, zooms, _SCALE)
    black, white = np.percentile(plane, (0.5, 99.7))
    pixel = zooms[0] * zooms[1]
    return _Slice(
        case=case,
        run=run,
        number=number,
        dice=dice,
        areas_mm2=(float(mine.sum()) * pixel, float(theirs.sum()) * pixel),
        image=np.asarray((plane - black) / max(white - black, 1e-6), np.float32).clip(0, 1),
        ours=_sampled(mine, centre, zooms, 2 * _SCALE),
        reference=_sampled(theirs, centre, zooms, 2 * _SCALE),
    )


def _sampled(
    plane: _Plane, centre: NDArray[np.float64], zooms: tuple[float, float, float], pixels_per_mm: int
) -> _Plane:
    """Square around a point: rows from front to back, columns from right to left; 0 beyond the field."""
    n = _CROP_MM * pixels_per_mm
    offset = (np.arange(n) + 0.5) / pixels_per_mm - _CROP_MM / 2
    x, y = np.meshgrid(centre[0] + offset / zooms[0], centre[1] - offset / zooms[1])
    return np.asarray(ndimage.map_coordinates(plane, [x, y], order=1, mode="grid-constant"), np.float32)


def tile(drawn: _Slice) -> Image.Image:
    """Draw one slice: a caption, the image alone, and the image with both outlines."""
    side = _CROP_MM * _SCALE
    width, height = 2 * side + _GAP + 2 * _MARGIN, _CAPTION + side + _LEGEND + _MARGIN
    picture = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    large, small = ImageFont.load_default(16), ImageFont.load_default(12)
    said = f"{drawn.case.name}   slice {drawn.number}   Dice {drawn.dice:.3f}"
    draw.text((_MARGIN, 10), said, _INK, large)
    facts = (
        f"{drawn.case.contrast}   {drawn.run.title}   "
        f"area {drawn.areas_mm2[0]:.0f} mm2, reference {drawn.areas_mm2[1]:.0f} mm2"
    )
    draw.text((_MARGIN, 31), facts, _PALE, small)
    grey = drawn.image[..., None] * 255 * np.ones(3, np.float32)
    covers = [_outline(each) for each in (drawn.ours, drawn.reference)]
    both = np.minimum(*covers)
    outlined = grey
    layers = ((covers[1] - both, _REFERENCE), (covers[0] - both, _OURS), (both, _BOTH))
    for cover, colour in layers:
        outlined = outlined * (1 - cover) + np.array(colour, np.float32) * cover
    for column, plane in enumerate((grey, outlined)):
        panel = Image.fromarray(np.rint(plane).clip(0, 255).astype(np.uint8))
        picture.paste(panel, (_MARGIN + column * (side + _GAP), _CAPTION))
    _legend(draw, _CAPTION + side + 10, _MARGIN + side + _GAP, small)
    return picture


def _legend(
    draw: ImageDraw.ImageDraw, y: int, x: float, font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> None:
    draw.line([(_MARGIN, y + 7), (_MARGIN + 10 * _SCALE, y + 7)], _INK, 2)
    draw.text((_MARGIN + 10 * _SCALE + 8, y), "10 mm   patient's right on the left", _PALE, font)
    for colour, what in ((_OURS, "ours"), (_REFERENCE, "reference"), (_BOTH, "both")):
        draw.rectangle((x, y + 6, x + 14, y + 8), colour)
        draw.text((x + 20, y), what, _PALE, font)
        x += 40 + draw.textlength(what, font)


def _outline(mask: _Plane) -> _Plane:
    """How much of each pixel (rows, columns, 1) the outline of a mask of twice the size covers."""
    inside = mask > 0.5
    edge = inside & ~ndimage.binary_erosion(inside, iterations=3, border_value=1)
    rows, columns = (n // 2 for n in edge.shape)
    cover = edge.astype(np.float32).reshape(rows, 2, columns, 2).mean(axis=(1, 3))
    return np.asarray(cover[..., None], np.float32)


def _sheet(tiles: list[Image.Image]) -> Image.Image:
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * width, rows * height), _PAPER)
    for index, picture in enumerate(tiles):
        sheet.paste(picture, (index % columns * width, index // columns * height))
    return sheet


def _save(picture: Image.Image, path: Path) -> None:
    content = io.BytesIO()
    picture.save(content, format="PNG")
    write_file(path, content.getvalue())
