"""The queue of volumes that are drawn on."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastseg.errors import InputError, OptionError, OutputError
from fastseg.viewer.drawing import Drawing
from fastseg.viewer.sitting import Sitting
from tests.phantom_files import save, voxels_of
from tests.unit.cohort.fake_segmenters import volume_file

# On the lowest and the highest of three slices of 2 mm.
_POINTS = [[1.0, 1.0, 0.0], [2.0, 1.0, 4.0]]


def _drawings(folder: Path, count: int = 3) -> list[Drawing]:
    sources = [volume_file(folder / f"v{k}.nii", k + 1) for k in range(count)]
    return [Drawing(each.name, each, folder / "out" / f"{each.stem}_points.json") for each in sources]


def _states(sitting: Sitting) -> list[str]:
    record: Any = sitting.record()
    return [each["state"] for each in record["volumes"]]


def test_volumes_come_one_after_the_other_until_none_is_open(tmp_path: Path) -> None:
    drawings = _drawings(tmp_path)
    sitting = Sitting(drawings)
    assert (sitting.current, sitting.over) == (0, False)
    sitting.save(0, _POINTS)
    assert sitting.current == 1
    sitting.skip(1)
    assert (sitting.current, sitting.over) == (2, False)
    sitting.save(2, _POINTS)
    assert (_states(sitting), sitting.over, sitting.cancelled) == (["saved", "skipped", "saved"], True, False)
    assert sitting.saved == [drawings[0], drawings[2]]


def test_after_the_last_volume_comes_one_that_was_left_open(tmp_path: Path) -> None:
    sitting = Sitting(_drawings(tmp_path))
    sitting.save(2, _POINTS)
    assert (sitting.current, sitting.over) == (0, False)


def test_saved_points_lie_on_the_grid_of_the_image(tmp_path: Path) -> None:
    (drawing,) = _drawings(tmp_path, 1)
    Sitting([drawing]).save(0, _POINTS)
    assert sorted(path.name for path in drawing.target.parent.iterdir()) == [
        "v0_centerline.nii.gz",
        "v0_labels.nii.gz",
        "v0_points.json",
    ]
    record = json.loads(drawing.target.read_text())
    assert (record["points"], record["image"]["name"]) == (_POINTS, "v0.nii")
    labels, line = voxels_of(drawing.labels), voxels_of(drawing.centerline)
    assert np.argwhere(labels == 1).tolist() == [[2, 1, 2]]
    assert np.argwhere(labels == 2).tolist() == [[1, 1, 0]]
    assert line.sum(axis=(0, 1)).tolist() == [1, 1, 1]
    assert nib.load(drawing.labels).header["descrip"] == b"a phantom"


def test_points_that_were_saved_are_there_to_go_on_with(tmp_path: Path) -> None:
    (drawing,) = _drawings(tmp_path, 1)
    Sitting([drawing]).save(0, _POINTS)
    again = Sitting([drawing])
    record: Any = again.record()
    assert (record["volumes"][0]["points"], record["volumes"][0]["state"]) == (_POINTS, "open")
    again.save(0, [*_POINTS, [1.5, 1.0, 2.0]])
    assert len(json.loads(drawing.target.read_text())["points"]) == 3


def test_points_of_another_sitting_are_replaced_only_when_that_is_said_twice(tmp_path: Path) -> None:
    (drawing,) = _drawings(tmp_path, 1)
    first, second = Sitting([drawing]), Sitting([drawing])
    first.save(0, _POINTS)
    with pytest.raises(InputError, match="written by another sitting meanwhile: save again to replace it"):
        second.save(0, _POINTS[:1])
    assert json.loads(drawing.target.read_text())["points"] == _POINTS
    second.save(0)
    assert json.loads(drawing.target.read_text())["points"] == _POINTS[:1]
    second.save(0, _POINTS)  # its own file is nobody else's


def test_points_that_were_put_are_saved_without_being_sent_again(tmp_path: Path) -> None:
    first, second = _drawings(tmp_path, 2)
    sitting = Sitting([first, second])
    sitting.put(1, _POINTS)
    assert sitting.current == 1
    sitting.save(sitting.current)
    assert (second.target.exists(), first.target.exists()) == (True, False)


@pytest.mark.parametrize(
    "points", [None, 7, "1", {}, [[1, 2]], [[1, 2, "x"]], [[1, 2, float("nan")]], [[[1, 2, 3]]], [None], True]
)
def test_what_are_no_points_is_refused(tmp_path: Path, points: object) -> None:
    sitting = Sitting(_drawings(tmp_path, 1))
    for method in (sitting.put, sitting.curve):
        with pytest.raises(InputError, match="three numbers"):
            method(0, points)


@pytest.mark.parametrize("number", [-1, 3, None, "0", 1.0, True, [0], 10**30])
def test_a_volume_that_is_not_in_the_sitting_is_refused(tmp_path: Path, number: object) -> None:
    sitting = Sitting(_drawings(tmp_path))
    for act in (sitting.image, sitting.skip, sitting.save, lambda n: sitting.put(n, [])):
        with pytest.raises(InputError, match="there is no volume"):
            act(number)
    assert _states(sitting) == ["open"] * 3


def test_nothing_is_saved_without_points_or_with_points_outside(tmp_path: Path) -> None:
    (drawing,) = _drawings(tmp_path, 1)
    sitting = Sitting([drawing])
    with pytest.raises(InputError, match="no point yet: click on the cord"):
        sitting.save(0)
    with pytest.raises(InputError, match="outside the image"):
        sitting.save(0, [[1.0, 1.0, 400.0]])
    assert (_states(sitting), drawing.target.parent.exists()) == (["open"], False)


def test_points_that_cannot_be_written_stay_in_the_sitting(tmp_path: Path) -> None:
    (drawing,) = _drawings(tmp_path, 1)
    (tmp_path / "out").write_text("a file where a folder is needed")
    sitting = Sitting([drawing])
    with pytest.raises(OutputError):
        sitting.save(0, _POINTS)
    record: Any = sitting.record()
    assert (record["volumes"][0]["points"], record["volumes"][0]["state"]) == (_POINTS, "open")


def test_the_curve_covers_the_slices_between_the_points(tmp_path: Path) -> None:
    sitting = Sitting(_drawings(tmp_path, 1))
    curve, notes = sitting.curve(0, _POINTS)
    assert np.allclose(curve, [[1, 1, 0], [1.5, 1, 2], [2, 1, 4]])
    assert notes == []
    assert sitting.curve(0, []) == ([], [])


def test_points_that_make_no_curve_say_why(tmp_path: Path) -> None:
    sitting = Sitting(_drawings(tmp_path, 1))
    curve, notes = sitting.curve(0, [[1.0, 1.0, 400.0]])
    assert (curve, len(notes)) == ([], 1)
    assert "outside the image" in notes[0]
    curve, notes = sitting.curve(0, _POINTS[:1])
    assert (len(curve), len(notes)) == (1, 1)


def test_the_page_sees_what_fastseg_reads(tmp_path: Path) -> None:
    """One frame, scaled, and nothing of the header but the affine."""
    voxels = np.random.default_rng(0).integers(0, 99, (5, 4, 3, 2)).astype(np.float64)
    affine = np.array([[-1.0, 0.1, 0, 7], [0.1, 1.0, 0, 8], [0, 0, 2.0, 9], [0, 0, 0, 1]])
    source = save(tmp_path / "4d.nii", voxels, affine)
    sitting = Sitting([Drawing("4d.nii", source, tmp_path / "p.json", frame=1)])
    path = tmp_path / "seen.nii.gz"
    path.write_bytes(sitting.image(0))
    seen = nib.load(path)
    assert np.array_equal(seen.get_fdata(), voxels[..., 1])
    assert np.allclose(seen.affine, affine, atol=1e-6)
    assert (seen.header["descrip"].item(), seen.get_data_dtype()) == (b"", np.float32)
    assert sitting.image(0) is sitting.image(0)


def test_the_page_sees_no_voxel_that_is_not_a_number(tmp_path: Path) -> None:
    voxels = np.arange(60, dtype=np.float32).reshape(5, 4, 3)
    voxels[1], voxels[2] = np.nan, np.inf
    sitting = Sitting([Drawing("x.nii", save(tmp_path / "x.nii", voxels, np.eye(4)), tmp_path / "p.json")])
    path = tmp_path / "seen.nii.gz"
    path.write_bytes(sitting.image(0))
    seen = nib.load(path).get_fdata()
    assert not seen[1:3].any()
    np.testing.assert_array_equal(np.delete(seen, (1, 2), 0), np.delete(voxels, (1, 2), 0))


def test_few_images_are_kept(tmp_path: Path) -> None:
    sitting = Sitting(_drawings(tmp_path))
    first = sitting.image(0)
    for number in (1, 2):
        sitting.image(number)
    assert sitting.image(0) is not first
    assert sitting.image(0) == first


def test_what_cannot_be_read_is_left_out_and_said(tmp_path: Path) -> None:
    good, damaged, missing = _drawings(tmp_path)
    damaged.target.parent.mkdir()
    damaged.target.write_text('{"points": "none"}')
    missing.image.unlink()
    sitting = Sitting([good, damaged, missing])
    assert len(sitting) == 1
    assert [*sitting.left_out] == [damaged, missing]
    assert "no such file" in sitting.left_out[missing]
    with pytest.raises(InputError, match="no such file"):
        Sitting([missing])


def test_files_that_were_not_drawn_here_are_not_overwritten(tmp_path: Path) -> None:
    (drawing,) = _drawings(tmp_path, 1)
    drawing.target.parent.mkdir()
    drawing.centerline.touch()
    with pytest.raises(OptionError, match=r"v0_centerline\.nii\.gz exists, but not v0_points\.json"):
        Sitting([drawing])
    image = volume_file(tmp_path / "x_labels.nii.gz")
    with pytest.raises(OptionError, match="is an input and would be overwritten"):
        Sitting([Drawing("x", image, tmp_path / "x_points.json")])


def test_a_change_is_heard_at_once_and_silence_after_a_while(tmp_path: Path) -> None:
    sitting = Sitting(_drawings(tmp_path))
    sitting.wait_for_change(0, 0.01)
    waiting = threading.Thread(target=sitting.wait_for_change, args=(0, 3600.0), daemon=True)
    waiting.start()
    sitting.skip(0)
    waiting.join(60.0)
    assert not waiting.is_alive()
    change = sitting.record()["change"]
    assert sitting.put(1, [[1.0, 1.0, 2.0]]) != change, "another window of the page hears of points"


def test_a_cancelled_sitting_keeps_what_was_saved(tmp_path: Path) -> None:
    drawings = _drawings(tmp_path)
    sitting = Sitting(drawings)
    sitting.save(0, _POINTS)
    sitting.finish(cancel=True)
    sitting.finish()
    assert (sitting.over, sitting.cancelled, sitting.saved) == (True, True, drawings[:1])
    assert drawings[0].target.exists()


@pytest.mark.parametrize("name", ["<script>alert(1)</script>.nii", "a'b\"c d.nii", "né\N{SNOWMAN}.nii"])
def test_any_name_of_a_file_is_only_a_name(tmp_path: Path, name: str) -> None:
    name = name.replace("/", "")
    source = volume_file(tmp_path / "in" / name, 1)
    drawing = Drawing(name, source, tmp_path / f"{name}_points.json")
    sitting = Sitting([drawing])
    sitting.save(0, _POINTS)
    record: Any = sitting.record()
    assert record["volumes"][0]["name"] == name
    assert json.loads(drawing.target.read_text())["image"]["name"] == name


def test_a_name_that_is_not_utf8_is_told_and_saved(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.nii")
    source = volume_file(tmp_path / "plain.nii", 1).rename(tmp_path / name)
    sitting = Sitting([Drawing(name, source, tmp_path / f"{source.stem}_points.json")])
    sitting.save(0, _POINTS)
    assert json.loads(json.dumps(sitting.record()))["volumes"][0]["name"] == name
