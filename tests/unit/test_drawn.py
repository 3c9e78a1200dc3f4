"""Centerlines as users give them: volumes, points in JSON, labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.cohort.fingerprints import Fingerprint
from fastseg.cohort.work import Manner, Work
from fastseg.drawn import read_drawn
from fastseg.errors import InputError
from fastseg.volume import Grid
from tests.phantom_files import save
from tests.unit.cohort.fake_segmenters import FakeSegmenters, job_of, volume_file

_GRID = Grid((8, 9, 5), np.diag([1.0, 1.0, 2.0, 1.0]))


def _labels(path: Path, values: tuple[int, ...]) -> Path:
    voxels = np.zeros(_GRID.shape, np.uint8)
    for z, value in zip((0, 2, 4), values, strict=True):
        voxels[2 + z // 2, 4, z] = value
    return save(path, voxels, _GRID.affine)


def test_points_become_one_voxel_a_slice(tmp_path: Path) -> None:
    path = tmp_path / "p.JSON"
    path.write_text(json.dumps([[2, 4, 0], [6, 4, 8]]))
    drawn, notes = read_drawn(path, _GRID)
    assert np.argwhere(drawn.voxels).tolist() == [[2, 4, 0], [3, 4, 1], [4, 4, 2], [5, 4, 3], [6, 4, 4]]
    assert notes == ()


def test_labels_become_the_curve_through_them(tmp_path: Path) -> None:
    drawn, notes = read_drawn(_labels(tmp_path / "labels.nii", (3, 2, 1)), _GRID)
    assert drawn.voxels.sum(axis=(0, 1)).tolist() == [1, 1, 1, 1, 1]
    assert notes == ("labels.nii holds 3 labels: the centerline is the curve through them",)


def test_a_centerline_with_gaps_stays_what_it_is(tmp_path: Path) -> None:
    drawn, notes = read_drawn(_labels(tmp_path / "line.nii", (1, 1, 1)), _GRID)
    assert drawn.voxels.sum(axis=(0, 1)).tolist() == [1, 0, 1, 0, 1]
    assert notes == ()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"points": [["a", 1, 2]]}', "[[900, 900, 900]]"])
def test_what_are_no_points_is_told_with_the_name_of_the_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_drawn(path, _GRID)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).count(str(path)) == 1
    assert "\n" not in str(caught.value)


def test_labels_outside_the_image_are_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    path = _labels(tmp_path / "labels.nii", (1, 2, 3))
    far = Grid(_GRID.shape, _GRID.affine + 500 * np.eye(4, k=3))  # half a metre to the right
    with pytest.raises(InputError, match=r"labels\.nii: no point lies inside the image"):
        read_drawn(path, far)


def test_a_volume_is_worked_on_with_points(tmp_path: Path) -> None:
    source, points = volume_file(tmp_path / "v1.nii", 1), tmp_path / "p.json"
    points.write_text(json.dumps([[1, 1, 0], [2, 1, 40]]))
    work = Work(job_of(source, tmp_path / "out", centerline=points), Manner(), FakeSegmenters())  # type: ignore[arg-type]
    work.read()
    each: Any = work
    assert each._centerline.voxels.sum(axis=(0, 1)).tolist() == [1, 1, 1]
    assert any("1 of 2 points lie outside" in note for note in each._template.notes)
    assert work.fingerprints == {"input": Fingerprint.of(source), "centerline": Fingerprint.of(points)}
