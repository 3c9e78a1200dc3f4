"""Where results go, and that they appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastseg.errors import OptionError, OutputError
from fastseg.outputs import (
    Source,
    expand,
    is_result_name,
    outputs_of,
    plan_outputs,
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


def _masks(sources: list[Source], out: Path | None) -> list[str]:
    return [each.mask.as_posix() for each in plan_outputs(sources, out)]


def test_a_file_is_taken_whatever_its_name() -> None:
    assert list(expand([Path("notes.txt")])) == [[Source(Path("notes.txt"))]]


def test_a_folder_gives_its_volumes_sorted_without_results_and_hidden_ones(tmp_path: Path) -> None:
    _touch(tmp_path, "b.nii.gz", "a.nii", "sub/c.NII.GZ", "notes.txt", ".hidden.nii", ".git/d.nii")
    _touch(tmp_path, "a_seg.nii", "a_softseg.nii.gz", "sub/c_centerline.nii.gz")
    (found,) = expand([tmp_path])
    assert [source.path.relative_to(tmp_path).as_posix() for source in found] == [
        "a.nii",
        "b.nii.gz",
        "sub/c.NII.GZ",
    ]
    assert [source.below.as_posix() for source in found] == [".", ".", "sub"]


def test_a_folder_without_volumes_gives_nothing(tmp_path: Path) -> None:
    _touch(tmp_path, "notes.txt")
    assert list(expand([tmp_path])) == [[]]


def test_the_mask_keeps_the_inputs_extension_as_in_sct() -> None:
    sources = [Source(Path("in/a.nii")), Source(Path("in/b.nii.gz")), Source(Path("in/c"))]
    assert _masks(sources, None) == ["a_seg.nii.gz", "b_seg.nii.gz", "c_seg.nii.gz"]


def test_a_volume_keeps_its_place_below_the_folder(tmp_path: Path) -> None:
    _touch(tmp_path, "in/sub-01/t2.nii.gz", "in/sub-02/t2.nii.gz")
    (found,) = expand([tmp_path / "in"])
    assert _masks(found, Path("out")) == ["out/sub-01/t2_seg.nii.gz", "out/sub-02/t2_seg.nii.gz"]


def test_an_output_file_is_for_one_input_only() -> None:
    one = [Source(Path("a.nii.gz"))]
    assert _masks(one, Path("out/mask.nii")) == ["out/mask.nii"]
    with pytest.raises(OptionError, match="one file, but there are 2 inputs"):
        plan_outputs([*one, Source(Path("b.nii.gz"))], Path("mask.nii"))


def test_names_beside_the_mask() -> None:
    (planned,) = plan_outputs([Source(Path("in/t2.nii.gz"))], Path("out"))
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


def test_two_inputs_with_one_output_are_refused() -> None:
    sources = [Source(Path("a/t2.nii.gz")), Source(Path("b/t2.nii.gz"))]
    with pytest.raises(OptionError, match=r"a/t2.nii.gz and b/t2.nii.gz would both write out/t2_seg.nii.gz"):
        plan_outputs(sources, Path("out"))


def test_two_inputs_that_differ_in_compression_only_are_refused() -> None:
    sources = [Source(Path("t2.nii")), Source(Path("t2.nii.gz"))]
    with pytest.raises(OptionError, match=r"both write out/t2_seg.nii.gz"):
        plan_outputs(sources, Path("out"))


def test_an_input_is_never_an_output(tmp_path: Path) -> None:
    _touch(tmp_path, "t2.nii.gz")
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "t2.nii.gz")
    for out in ("t2.nii.gz", "link.nii.gz", "other/../t2.nii.gz"):
        with pytest.raises(OptionError, match="is an input"):
            plan_outputs([Source(tmp_path / "t2.nii.gz")], tmp_path / out)


def test_a_given_centerline_is_not_overwritten(tmp_path: Path) -> None:
    drawn = tmp_path / "t2_centerline.nii.gz"
    source = [Source(tmp_path / "t2.nii.gz")]
    assert plan_outputs(source, tmp_path, kinds=("mask",), also_read=[drawn])
    with pytest.raises(OptionError, match="is an input"):
        plan_outputs(source, tmp_path, kinds=("mask", "centerline"), also_read=[drawn])


def test_planning_makes_nothing(tmp_path: Path) -> None:
    plan_outputs([Source(Path("t2.nii.gz"))], tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_output_folder_is_told(tmp_path: Path) -> None:
    _touch(tmp_path, "out")
    for out in (tmp_path / "out", tmp_path / "out" / "deeper", tmp_path / "out" / "mask.nii.gz"):
        with pytest.raises(OutputError, match="is a file where a folder is needed"):
            plan_outputs([Source(Path("t2.nii.gz"))], out)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="no permission"):
        plan_outputs([Source(Path("t2.nii.gz"))], tmp_path / "out")


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
