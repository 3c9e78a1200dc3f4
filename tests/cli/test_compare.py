"""fastseg compare: what it prints and how it exits."""

import json

import numpy as np
import pytest

from tests.phantom_files import fastseg, save


@pytest.fixture
def mask(tmp_path):
    """Write a mask of a box, some of its voxels moved."""

    def write(name, *, moved=0, shape=(8, 8, 4), dtype=np.uint8):
        voxels = np.zeros(shape, dtype)
        voxels[2:6, 2:6] = 1
        voxels[7, :moved, 0] = 1
        return save(tmp_path / name, voxels, np.eye(4))

    return write


def test_differences_are_no_error(mask):
    code, out, err = fastseg("compare", mask("a.nii.gz"), mask("b.nii", moved=2))
    header, row, summary = out.splitlines()
    assert (code, err) == (0, "")
    cells = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert (cells["voxels A"], cells["voxels B"], cells["differing"]) == ("64", "66", "2")
    assert (cells["dice"], cells["headers"]) == ("0.9846", "same")
    assert summary.startswith("1 compared, Dice min 0.9846")


def test_exact_makes_a_differing_voxel_an_error(mask):
    a, b, soft = mask("a.nii"), mask("b.nii", moved=1), mask("c.nii", dtype=np.float32)
    assert fastseg("compare", "--exact", a, b)[0] == 3
    assert fastseg("compare", "--exact", a, soft)[0] == 0


def test_trees_with_something_missing_exit_with_3(mask, tmp_path):
    for name in ("a/1_seg.nii", "b/1_seg.nii.gz", "a/2_seg.nii"):
        mask(name)
    code, out, err = fastseg("compare", tmp_path / "a", tmp_path / "b")
    assert code == 3
    assert "2_seg.nii has no partner" in err
    assert out.splitlines()[-1].startswith("1 compared, 1 without a partner")


def test_a_file_that_fails_does_not_stop_the_others(mask, tmp_path):
    mask("a/1.nii")
    mask("b/1.nii", shape=(8, 8, 5))
    mask("a/2.nii")
    (tmp_path / "b/2.nii").write_bytes(b"no volume")
    assert fastseg("compare", tmp_path / "a", tmp_path / "b")[0] == 4
    mask("a/3.nii")
    mask("b/3.nii")
    code, out, err = fastseg("compare", tmp_path / "a", tmp_path / "b")
    assert code == 3
    assert "different grids" in out
    assert "not a NIfTI volume" in err
    assert out.splitlines()[-1].startswith("1 compared, 2 failed")


def test_nothing_to_compare_exits_with_5(mask, tmp_path):
    mask("a/1.nii")
    mask("b/1.nii")
    assert fastseg("compare", tmp_path / "a", tmp_path / "b", "--suffix", "_seg")[0] == 5


def test_a_file_that_is_not_there_is_a_usage_error(mask, tmp_path):
    assert fastseg("compare", mask("a.nii"), tmp_path / "none.nii")[0] == 2


def test_json_can_be_read_by_programs(mask, tmp_path):
    for name in ("a/1.nii", "b/1.nii", "b/2.nii"):
        mask(name)
    empty = save(tmp_path / "a/3.nii", np.zeros((8, 8, 4), np.uint8), np.eye(4))
    mask("b/3.nii")
    code, out, _ = fastseg("compare", tmp_path / "a", tmp_path / "b", "--json")
    found = json.loads(out)
    assert code == 3
    first, second = found["pairs"]
    assert (first["name"], first["dice"], first["exact"], first["soft"]) == ("1", 1.0, True, None)
    assert (second["name"], second["area_percent"]) == (empty.stem, None)
    assert found["only_b"] == [str(tmp_path / "b/2.nii")]
    assert found["summary"].startswith("2 compared")
