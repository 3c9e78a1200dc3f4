"""Files of points: what is read, and what is refused in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.centerline_points import curve_through
from fastseg.errors import InputError
from fastseg.points_file import Points, points_record, points_text, read_points
from fastseg.volume import Grid

_GRID = Grid((20, 24, 9), np.array([[-1.0, 0, 0, 10], [0, 1, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]))
_CLICKS = np.array([[2.0, -7.25, 50.0], [1.0, -8.5, 34.0], [3.125, -6.0, 62.0]])


def _saved(folder: Path, content: Any) -> Path:
    path = folder / "points.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    record = points_record(
        _CLICKS, curve_through(_CLICKS, _GRID), name="sub-01_T2w.nii.gz", grid=_GRID, sha256="a" * 64
    )
    points = read_points(_saved(tmp_path, points_text(record)))
    assert points.world.tolist() == _CLICKS.tolist()  # in the order of clicks
    assert (points.name, points.sha256) == ("sub-01_T2w.nii.gz", "a" * 64)
    assert points.grid is not None
    assert points.grid.shape == _GRID.shape
    assert points.grid.affine.tolist() == _GRID.affine.tolist()


def test_the_record_says_what_it_is() -> None:
    record = points_record(_CLICKS, curve_through(_CLICKS, _GRID), name="x.nii", grid=_GRID, version="1.2")
    assert list(record) == ["version", "space", "points", "centerline", "image", "GeneratedBy"]
    assert (record["version"], record["space"]) == (1, "RAS+ mm")
    assert record["image"] == {"name": "x.nii", "shape": [20, 24, 9], "affine": _GRID.affine.tolist()}
    assert len(record["centerline"]) == 8  # slices 1 to 8
    assert record["GeneratedBy"] == [{"Name": "fastseg", "Version": "1.2"}]


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", 'a "quoted"\nname', "é\udcff中", "x" * 4096], ids=range(4)
)
def test_any_name_comes_back(name: str, tmp_path: Path) -> None:
    record = points_record(_CLICKS, curve_through(_CLICKS, _GRID), name=name, grid=_GRID)
    text = points_text(record)
    assert text.isascii()
    assert read_points(_saved(tmp_path, text)).name == name


@pytest.mark.parametrize("content", [{"points": _CLICKS.tolist()}, _CLICKS.tolist(), [[1, 2, 3]]])
def test_plain_points_are_enough(content: Any, tmp_path: Path) -> None:
    points = read_points(_saved(tmp_path, content))
    assert points.world.tolist() == (content["points"] if isinstance(content, dict) else content)
    assert points.grid is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "not a file of points"),
        ("{", "not a file of points"),
        ("[" * 100_000, "not a file of points"),
        ("\x00\x01", "not a file of points"),
        ("3", "not a file of points"),
        ({}, "not a file of points"),
        ({"points": {"x": 1}}, "not a file of points"),
        ({"points": "[[1, 2, 3]]"}, "not a file of points"),
        ([], "there are no points"),
        ([[1, 2]], "point 1 is not a place"),
        ([[1, 2, 3], 4], "point 2 is not a place"),
        ([[1, 2, "3"]], "point 1 is not a place"),
        ([[1, 2, True]], "point 1 is not a place"),
        ([[1, 2, None]], "point 1 is not a place"),
        ("[[1, 2, NaN]]", "point 1 is not a place"),
        ("[[1, 2, Infinity]]", "point 1 is not a place"),
        ([[1, 2, 10**400]], "point 1 is not a place"),
        ([[1, 2, 1e6]], "point 1 is not a place"),
        ([[0, 0, 0]] * 10_001, "too many"),
        ({"version": 2, "points": [[1, 2, 3]]}, "of version 2; update fastseg"),
        ({"space": "voxel", "points": [[1, 2, 3]]}, "points in 'voxel'"),
        ({"points": [[1, 2, 3]], "image": {"shape": [1, 2], "affine": []}}, 'its "image" make no sense'),
        ({"points": [[1, 2, 3]], "image": {"shape": [1, 2, 0], "affine": np.eye(4).tolist()}}, "no sense"),
        ({"points": [[1, 2, 3]], "image": {"shape": [9] * 3, "affine": [[0] * 4] * 4}}, "no sense"),
        ({"points": [[1, 2, 3]], "image": {"shape": [9] * 3, "affine": [["x"] * 4] * 4}}, "no sense"),
    ],
)
def test_what_is_not_a_file_of_points_is_refused(content: Any, why: str, tmp_path: Path) -> None:
    path = _saved(tmp_path, content)
    with pytest.raises(InputError, match=why) as caught:
        read_points(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_points(tmp_path / "none.json")
    with pytest.raises(InputError, match="not a file of points"):
        read_points(tmp_path)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(InputError, match="not a file of points"):
        read_points(tmp_path / "pipe.json")
    with (tmp_path / "huge.json").open("wb") as stream:
        stream.truncate(10_000_001)
    with pytest.raises(InputError, match="not a file of points"):
        read_points(tmp_path / "huge.json")


@pytest.mark.parametrize(
    ("places", "why"),
    [
        (np.empty((0, 3)), "there are no points"),
        (np.zeros(3), "shape"),
        (np.zeros((4, 2)), "shape"),
        ([[0, 0, 0], [0, np.nan, 0]], "point 2 is at"),
        ([[0, 0, -np.inf]], "point 1 is at"),
    ],
)
def test_points_are_places(places: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        Points(places)
