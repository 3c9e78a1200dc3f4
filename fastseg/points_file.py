"""Files of points that somebody clicked on a cord.

JSON, for people too: ``{"version": 1, "space": "RAS+ mm", "points": [[x, y, z], ...]}``, with the image they
were clicked on and the curve that was seen then. Only the points count when it is read, so that they may be
edited; a bare list of them is read as well.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastseg.centerline import Centerline
from fastseg.errors import InputError
from fastseg.volume import Grid

__all__ = ["Points", "points_record", "points_text", "read_points"]

_VERSION = 1
_SPACE = "RAS+ mm"
# What a file of points may have, so that a wrong one is refused before it costs anything.
_MOST_BYTES, _MOST_POINTS, _MOST_MM = 10_000_000, 10_000, 1e5
_WRONG = "not a file of points; give one that fastseg view wrote, or a list of [x, y, z] in mm"


@dataclass(frozen=True, eq=False)
class Points:
    """Points that were clicked on an image.

    Parameters
    ----------
    world : (n, 3) float64        RAS+ mm, in the order in which they were clicked
    name : of the image, if it is known
    grid : of the image, as in its file, if it is known
    sha256 : of the image's file, if it is known

    Raises
    ------
    InputError
        There are none, or too many, or one is not a place.
    """

    world: NDArray[np.float64]
    name: str = ""
    grid: Grid | None = None
    sha256: str = ""

    def __post_init__(self) -> None:
        world = np.array(self.world, np.float64)
        if world.size == 0:
            raise InputError("there are no points; click on the cord's first and last slice and between them")
        if world.ndim != 2 or world.shape[1] != 3:
            raise InputError(f"points of shape {world.shape} cannot be used; give x, y and z in mm for each")
        if len(world) > _MOST_POINTS:
            raise InputError(f"{len(world)} points are too many; a dozen along the cord will do")
        for index in np.flatnonzero(~(np.abs(world) <= _MOST_MM).all(axis=1))[:1]:
            raise InputError(f"point {index + 1} is at {world[index].tolist()}, no place in mm; remove it")
        world.flags.writeable = False
        object.__setattr__(self, "world", world)


def read_points(path: Path) -> Points:
    """Read a file of points.

    Raises
    ------
    InputError
        It is missing, or not a file of points in RAS+ mm.
    """
    record = _read_json(path)
    given = record if isinstance(record, Mapping) else {"points": record}
    if given.get("version", _VERSION) != _VERSION:
        raise InputError(
            f"{path}: points of version {given['version']!r}; update fastseg, or click them again"
        )
    if given.get("space", _SPACE) != _SPACE:
        raise InputError(f"{path}: points in {given['space']!r}; give them in {_SPACE!r}")
    if not isinstance(given.get("points"), list):
        raise InputError(f"{path}: {_WRONG}")
    image = given.get("image")
    image = image if isinstance(image, Mapping) else {}
    try:
        return Points(
            _rows(given["points"]),
            name=str(image.get("name", "")),
            grid=_grid(image),
            sha256=str(image.get("sha256", "")),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def points_record(
    points: ArrayLike, curve: Centerline, *, name: str, grid: Grid, sha256: str = "", version: str = ""
) -> dict[str, Any]:
    """Make the content of a file of points.

    Parameters
    ----------
    points : (n, 3)               RAS+ mm, in the order in which they were clicked
    curve : that goes through them, for whoever wants it in mm; nothing reads it again
    name : of the image's file, without folders
    grid : of the image, as in its file
    sha256 : of the image's file, if it is known
    version : of fastseg, for the record
    """
    return {
        "version": _VERSION,
        "space": _SPACE,
        "points": _numbers(Points(np.asarray(points)).world),
        "centerline": _numbers(curve.world()),
        "image": {
            "name": name,
            "shape": list(grid.shape),
            "affine": grid.affine.tolist(),
            **({"sha256": sha256} if sha256 else {}),
        },
        "GeneratedBy": [{"Name": "fastseg", **({"Version": version} if version else {})}],
    }


def points_text(record: Mapping[str, Any]) -> str:
    """The record as JSON in ASCII, one point a line, so that people can read and edit it.

    Examples
    --------
    >>> print(points_text({"version": 1, "points": [[1.0, 2.5, 3.0], [1.0, 2.0, 8.0]]}), end="")
    {
      "version": 1,
      "points": [
        [1.0, 2.5, 3.0],
        [1.0, 2.0, 8.0]
      ]
    }
    """
    parts = []
    for key, value in record.items():
        text = json.dumps(value)
        if isinstance(value, list) and value and isinstance(value[0], list):
            text = "[\n    " + ",\n    ".join(json.dumps(row) for row in value) + "\n  ]"
        parts.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _read_json(path: Path) -> Any:
    try:
        state = path.stat()
        # Opening a pipe would wait for whoever writes into it, maybe for ever.
        if not stat.S_ISREG(state.st_mode) or state.st_size > _MOST_BYTES:
            raise InputError(f"{path}: {_WRONG}")
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the name, and where a link leads") from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); change that, or give another"
        ) from error
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {_WRONG}") from error


def _rows(given: list[Any]) -> NDArray[np.float64]:
    """Points of JSON; text that looks like numbers, true and false are none."""
    for index, row in enumerate(given):
        if not (isinstance(row, list) and len(row) == 3 and all(map(_is_place, row))):
            raise InputError(f"point {index + 1} is not a place; write it as [x, y, z] in mm")
    return np.array(given, np.float64)


def _is_place(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _MOST_MM  # also false for NaN


def _grid(image: Mapping[str, Any]) -> Grid | None:
    if "shape" not in image or "affine" not in image:
        return None
    try:
        x, y, z = (int(n) for n in image["shape"])
        grid = Grid((x, y, z), np.array(image["affine"], np.float64))
        good = min(grid.shape) > 0 and bool(np.isfinite(np.linalg.inv(grid.affine)).all())
    except (TypeError, ValueError, OverflowError, np.linalg.LinAlgError):
        good = False
    if not good:
        raise InputError('shape and affine of its "image" make no sense; remove the "image" from it')
    return grid


def _numbers(world: NDArray[np.float64]) -> list[list[float]]:
    """A tenth of a micrometre is enough; + 0.0 makes the -0.0 of rounding 0.0."""
    rows: list[list[float]] = (np.round(world, 4) + 0.0).tolist()
    return rows
