"""What is drawn on a volume by hand, and the files that it becomes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from fastseg import __version__
from fastseg.centerline_points import curve_through, labels_volume, points_record, points_text
from fastseg.errors import OptionError
from fastseg.nifti import read_volume, write_volume
from fastseg.outputs import publish, write_file
from fastseg.sidecar import file_sha256
from fastseg.volume import SCT_RPI, Volume

if TYPE_CHECKING:
    from fastseg.nifti_header import Frame

__all__ = ["Drawing", "write_drawing"]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A volume on which points are drawn.

    Parameters
    ----------
    name : of the volume, for people
    image : where it lies
    target : file of the points, .json. The same points as labels go beside it: x_points.json, x_labels.nii.gz
    frame : of a 4D file, which of its volumes
    with_curve : whether x_centerline.nii.gz is written as well: not where that is a result of a run
    """

    name: str
    image: Path
    target: Path
    frame: Frame | None = None
    with_curve: bool = True

    @property
    def _stem(self) -> str:
        return self.target.stem.removesuffix("_points")

    @property
    def labels(self) -> Path:
        """Volume on the image's grid: the points, one voxel each, 1 the highest."""
        return self.target.with_name(f"{self._stem}_labels.nii.gz")

    @property
    def centerline(self) -> Path:
        """Volume on the image's grid: the curve through the points, one voxel a slice."""
        return self.target.with_name(f"{self._stem}_centerline.nii.gz")

    @property
    def files(self) -> list[Path]:
        """All that are written."""
        return [self.target, self.labels, *([self.centerline] if self.with_curve else [])]

    def check(self) -> None:
        """Refuse to write onto what was not drawn here.

        Raises
        ------
        OptionError
            A file of this name is the image, or is there without points that it could be made of.
        """
        if self.image.resolve() in {path.resolve() for path in self.files}:
            raise OptionError(f"{self.image} is an input and would be overwritten: choose another -o")
        foreign = [] if self.target.exists() else [path for path in self.files[1:] if os.path.lexists(path)]
        if foreign:
            raise OptionError(
                f"{foreign[0]} exists, but not {self.target.name}: it would be overwritten, choose another -o"
            )


def write_drawing(drawing: Drawing, points: ArrayLike) -> None:
    """Write points and what is made of them, all files or none.

    Parameters
    ----------
    drawing : where
    points : (n, 3)               RAS+ mm, in the order in which they were clicked

    Raises
    ------
    InputError
        A point lies outside the image, or the image cannot be read any more.
    OutputError
        The files cannot be written.
    """
    image, template = read_volume(drawing.image, frame=drawing.frame)
    curve = curve_through(points, image.grid)
    labels = labels_volume(points, image.grid)
    record = points_record(
        points,
        curve,
        name=drawing.image.name,
        grid=image.grid,
        sha256=file_sha256(drawing.image),
        version=__version__,
    )
    with publish(drawing.target) as stage:
        if drawing.with_curve:
            native = image.grid.reoriented(SCT_RPI)
            line = Volume(curve.mask(native), native).reoriented(image.grid.axcodes)
            write_volume(line.voxels, template, stage / drawing.centerline.name)
        write_volume(labels.voxels, template, stage / drawing.labels.name)
        # Names that are not UTF-8 hold lone surrogates, which the ASCII of JSON can say.
        write_file(stage / drawing.target.name, points_text(record).encode())
