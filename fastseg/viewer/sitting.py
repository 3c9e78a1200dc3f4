"""A sitting: the volumes that a user draws on, one after the other, and what was drawn so far.

The page sends every change, so that points are never in the page alone: from the terminal they can be saved,
and after a reload they are there again.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from stat import S_ISREG

import numpy as np
from numpy.typing import NDArray

from fastseg.centerline_points import Points, curve_through, read_points, remarks
from fastseg.errors import InputError
from fastseg.nifti import new_template, probe_volume, read_volume, write_volume
from fastseg.viewer.drawing import Drawing, write_drawing
from fastseg.views import finite
from fastseg.volume import Grid

__all__ = ["Sitting", "State"]

# Images that are kept ready: that which is shown, and the one before.
_KEPT_IMAGES = 2


class State(StrEnum):
    """What became of a volume."""

    OPEN = "open"
    SAVED = "saved"
    SKIPPED = "skipped"


# What a file of points is known by: size and time; None: there is none.
_Stamp = tuple[int, int] | None


@dataclass(slots=True)
class _Volume:
    """A drawing on its way."""

    drawing: Drawing
    grid: Grid
    points: NDArray[np.float64]
    file: _Stamp
    state: State = State.OPEN


class Sitting:
    """The queue. Its methods may be called from any thread.

    Parameters
    ----------
    drawings : points that were saved before are there to go on with. A volume that cannot be read, or whose
        earlier points cannot, is left out; `left_out` says why

    Raises
    ------
    InputError
        None of them can be read.
    OptionError
        Something else would be overwritten.
    """

    def __init__(self, drawings: Sequence[Drawing]) -> None:
        self._volumes: list[_Volume] = []
        self.left_out: dict[Drawing, str] = {}
        for drawing in drawings:
            drawing.check()
            try:
                self._volumes.append(_opened(drawing))
            except InputError as error:
                self.left_out[drawing] = str(error)
        if not self._volumes:
            raise InputError(next(iter(self.left_out.values()), "there is nothing to draw on"))
        self._current = 0
        self._over = self._cancelled = False
        self._change = 0
        self._changed = threading.Condition(threading.RLock())
        self._images = _Images()

    def __len__(self) -> int:
        return len(self._volumes)

    def record(self) -> dict[str, object]:
        """Describe all of it as JSON values, for the page."""
        with self._changed:
            return {
                "volumes": [
                    {
                        "number": number,
                        "name": each.drawing.name,
                        "state": str(each.state),
                        "points": each.points.tolist(),
                        "image": f"image/{number}.nii.gz",
                    }
                    for number, each in enumerate(self._volumes)
                ],
                "current": None if self._over else self._current,
                "over": self._over,
                "cancelled": self._cancelled,
                "change": self._change,
            }

    @property
    def current(self) -> int:
        """Number of the volume that is drawn on."""
        return self._current

    @property
    def over(self) -> bool:
        """Whether it ended."""
        return self._over

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled; what was saved stays."""
        return self._cancelled

    @property
    def saved(self) -> list[Drawing]:
        """Those that were saved."""
        return [each.drawing for each in self._volumes if each.state is State.SAVED]

    def wait_for_change(self, known: int, seconds: float) -> None:
        """Wait until it is no longer as it was at a change, but not for long."""
        with self._changed:
            self._changed.wait_for(lambda: self._change != known or self._over, seconds)

    def image(self, number: object) -> bytes:
        """Give a volume as the page shall see it.

        Returns
        -------
        content : .nii.gz file of the frame that is meant, with one affine in a header of its own, so that
            there is one way to read it, and nothing that the page has no use for

        Raises
        ------
        InputError
            There is no such volume, or it cannot be read.
        """
        own = self._at(number)
        return self._images.of(own, self._volumes[own].drawing)

    def curve(self, number: object, points: object) -> tuple[list[list[float]], list[str]]:
        """Lay the curve through points.

        Returns
        -------
        curve : RAS+ mm, the lowest slice first; empty where the points make none
        notes : what to say about it

        Raises
        ------
        InputError
            There is no such volume, or these are no points.
        """
        volume, given = self._volumes[self._at(number)], _points(points)
        if not len(given):
            return [], []
        try:
            line = curve_through(given, volume.grid)
        except InputError as error:
            return [], [str(error)]
        return line.world().tolist(), list(remarks(Points(given), volume.grid))

    def put(self, number: object, points: object) -> int:
        """Take in what the page has of a volume, which then is the current one.

        Returns
        -------
        change : that this was, as in `record`

        Raises
        ------
        InputError
            There is no such volume, or these are no points.
        """
        own, given = self._at(number), _points(points)
        with self._changed:
            self._volumes[own].points = given
            self._current = own
            self._tell()  # the page may be open in two windows
            return self._change

    def save(self, number: object, points: object = None) -> None:
        """Write the points of a volume, and go on to the next.

        Parameters
        ----------
        points : None: those that were put last

        Raises
        ------
        InputError
            There are none, or one lies outside the image; or another sitting has written the file meanwhile,
            which the next time replaces.
        OutputError
            They cannot be written.
        """
        own = self._at(number)
        volume = self._volumes[own]
        with self._changed:
            if points is not None:
                volume.points = _points(points)
            if not len(volume.points):
                raise InputError(f"{volume.drawing.name}: there is no point yet: click on the cord first")
            target = volume.drawing.target
            before, volume.file = volume.file, _stamp(target)
            if volume.file not in (None, before):
                raise InputError(
                    f"{target} has been written by another sitting meanwhile: save again to replace it"
                )
            write_drawing(volume.drawing, volume.points)
            volume.file = _stamp(target)
            volume.state = State.SAVED
            self._go_on(own)

    def skip(self, number: object) -> None:
        """Leave a volume without points, and go on to the next."""
        own = self._at(number)
        with self._changed:
            self._volumes[own].state = State.SKIPPED
            self._go_on(own)

    def finish(self, *, cancel: bool = False) -> None:
        """End it; what was saved stays."""
        with self._changed:
            if not self._over:
                self._over, self._cancelled = True, cancel
            self._tell()

    def _go_on(self, number: int) -> None:
        """To the next volume that is open, from the first again after the last."""
        count = len(self._volumes)
        following = ((number + step) % count for step in range(1, count + 1))
        left = [each for each in following if self._volumes[each].state is State.OPEN]
        self._current = left[0] if left else number
        self._over = self._over or not left
        self._tell()

    def _tell(self) -> None:
        self._change += 1
        self._changed.notify_all()

    def _at(self, number: object) -> int:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(self._volumes):
            raise InputError(f"there is no volume {number!r} in this sitting")
        return number


def _opened(drawing: Drawing) -> _Volume:
    facts = probe_volume(drawing.image, drawing.frame)
    there = drawing.target.exists()
    points = read_points(drawing.target).world if there else np.empty((0, 3))
    return _Volume(drawing, facts.grid, points, _stamp(drawing.target))


def _stamp(target: Path) -> _Stamp:
    try:
        facts = target.stat()
    except OSError:
        return None
    return (facts.st_size, facts.st_mtime_ns) if S_ISREG(facts.st_mode) else None


def _points(given: object) -> NDArray[np.float64]:
    """(n, 3) finite float64, a copy."""
    try:
        points = np.array(given, np.float64)  # of whatever stood in the JSON
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError("points are lists of three numbers, x, y and z in mm") from error
    points = points.reshape(-1, 3) if points.size == 0 else points
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise InputError("points are lists of three numbers, x, y and z in mm")
    return points


@dataclass(slots=True)
class _Images:
    """Files for the page, of which the last ones are kept."""

    made: dict[int, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, number: int, drawing: Drawing) -> bytes:
        with self.lock:  # a page that is loaded twice does not read it twice
            content = self.made.pop(number, None) or _image_file(drawing)
            while len(self.made) >= _KEPT_IMAGES:
                del self.made[next(iter(self.made))]
            self.made[number] = content
            return content


def _image_file(drawing: Drawing) -> bytes:
    volume, _ = read_volume(drawing.image, frame=drawing.frame)
    voxels = volume.voxels
    if voxels.dtype.name not in ("uint8", "int16", "uint16"):
        voxels = finite(voxels)  # NiiVue finds no window of contrast where much is infinite
    with tempfile.TemporaryDirectory(prefix="fastseg-view-") as folder:
        path = Path(folder) / "image.nii.gz"
        write_volume(voxels, new_template(volume.grid), path)
        return path.read_bytes()
