"""Where results go, and that they appear whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from fastseg.errors import OutputError
from fastseg.outputs import (
    is_result_name,
    outputs_of,
    publish,
    write_file,
)


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def _write_and_fail(path: Path) -> None:
    path.write_text("new")
    raise ZeroDivisionError


def test_names_beside_the_mask() -> None:
    planned = outputs_of(Path("out/t2_seg.nii.gz"))
    assert [path.name for path in planned.of_kinds(("mask", "sidecar", "centerline", "overlay", "csa"))] == [
        "t2_seg.nii.gz",
        "t2_seg.json",
        "t2_centerline.nii.gz",
        "t2_overlay.png",
        "t2_csa.tsv",
    ]


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        ("m.nii", "m.nii m.json m_centerline.nii m_overlay.png m_csa.tsv"),
        ("m_seg.NII", "m_seg.NII m_seg.json m_centerline.NII m_overlay.png m_csa.tsv"),
        ("m", "m m.json m_centerline.nii.gz m_overlay.png m_csa.tsv"),
    ],
)
def test_names_beside_a_mask_that_was_named(mask: str, names: str) -> None:
    outputs = outputs_of(Path("out") / mask)
    kinds = ("mask", "sidecar", "centerline", "overlay", "csa")
    assert outputs.names(kinds) == names.split()
    assert outputs.of_kinds(kinds) == [getattr(outputs, kind) for kind in kinds]


def test_strictly_named_results_are_results_and_other_masks_are_not() -> None:
    assert is_result_name(Path("out/sub-1_label-SC_desc-T2w_probseg.nii.gz"))
    assert is_result_name("x/sub-1_T2w_label-SC_seg.nii")
    assert not is_result_name("x_seg/brain_mask.nii.gz")


def test_published_files_appear_together_in_a_new_folder(tmp_path: Path) -> None:
    target = tmp_path / "new" / "mask.nii"
    with publish(target) as stage:
        (stage / "mask.nii").write_text("mask")
        (stage / "mask.json").write_text("record")
        assert not target.exists()
    assert sorted(path.name for path in target.parent.iterdir()) == ["mask.json", "mask.nii"]


def test_a_failure_while_publishing_leaves_nothing_and_keeps_the_old(tmp_path: Path) -> None:
    (tmp_path / "mask.nii").write_text("old")
    with pytest.raises(ZeroDivisionError), publish(tmp_path / "mask.nii") as stage:
        _write_and_fail(stage / "mask.nii")
    assert [path.name for path in tmp_path.iterdir()] == ["mask.nii"]
    assert (tmp_path / "mask.nii").read_text() == "old"


def test_a_failure_takes_the_new_folder_away_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), publish(tmp_path / "a" / "b" / "mask.nii"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_a_failing_volume_takes_away_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a" / "b" / "mask.nii"
    target.parent.mkdir(parents=True)  # by another volume, whose stage is still to come, or gone again
    make = tempfile.mkdtemp

    def too_late(**how: Any) -> str:
        monkeypatch.setattr(tempfile, "mkdtemp", make)
        target.parent.rmdir()
        target.parent.parent.rmdir()
        return make(**how)

    monkeypatch.setattr(tempfile, "mkdtemp", too_late)
    with publish(target) as stage:
        _touch(stage, "mask.nii")
    assert target.exists()
    target.unlink()
    target.parent.rmdir()
    monkeypatch.setattr(tempfile, "mkdtemp", too_late)
    target.parent.mkdir()
    with pytest.raises(ZeroDivisionError), publish(target):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == [], "what had to be made again goes again"


def test_a_target_that_cannot_be_replaced_takes_its_companions_away(tmp_path: Path) -> None:
    (tmp_path / "mask.nii" / "full").mkdir(parents=True)
    with pytest.raises(OutputError, match="cannot be written"), publish(tmp_path / "mask.nii") as stage:
        _touch(stage, "mask.json", "mask.nii")
    assert [path.name for path in tmp_path.iterdir()] == ["mask.nii"]


def test_errors_name_the_users_folder_and_not_the_hidden_one(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, publish(tmp_path / "mask.nii") as stage:
        raise OutputError(f"{stage / 'mask.nii'}: the disk is full")
    assert str(caught.value) == f"{tmp_path / 'mask.nii'}: the disk is full"


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_file(path, b"old")
    write_file(path, b"new")
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"new"]
    with pytest.raises(OutputError):
        write_file(tmp_path / "missing" / "run.json", b"")
