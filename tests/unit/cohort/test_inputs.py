"""Volumes below folders, and those that a pattern means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastseg.cohort.plan.inputs import find_matching, find_volumes, is_pattern
from fastseg.errors import InputError
from tests.unit.cohort.trees import locked, touch


def _names(folder: Path) -> list[str]:
    return [found.name for found in find_volumes(str(folder)).volumes]


def _matching(pattern: Path | str) -> list[str]:
    return [found.name for found in find_matching(str(pattern))[1].volumes]


def test_volumes_are_sorted_and_results_and_hidden_ones_left_out(tmp_path: Path) -> None:
    touch(
        tmp_path, "b.nii.gz", "a.nii", "sub/c.NII.GZ", "notes.txt", ".hidden.nii", ".git/d.nii", "sub-2/e.nii"
    )
    touch(tmp_path, "a_seg.nii", "a_softseg.nii.gz", "sub/c_centerline.nii.gz")
    touch(tmp_path, "sub-1_label-SC_desc-T2w_mask.nii.gz", "sub-1_label-SC_desc-T2w_probseg.nii.gz")
    assert _names(tmp_path) == ["a.nii", "b.nii.gz", "sub/c.NII.GZ", "sub-2/e.nii"]


def test_a_mask_of_somebody_else_is_a_volume(tmp_path: Path) -> None:
    assert _names(touch(tmp_path, "brain_mask.nii.gz")) == ["brain_mask.nii.gz"]


def test_paths_are_as_the_user_wrote_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "data/sub/a.nii")
    monkeypatch.chdir(tmp_path)
    for folder, path in (("data", "data/sub/a.nii"), ("data/", "data/sub/a.nii"), (".", "./data/sub/a.nii")):
        (found,) = find_volumes(folder).volumes
        assert (found.path, found.real) == (path, str(tmp_path.resolve() / "data/sub/a.nii"))


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/deep/a.nii")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    assert _names(tmp_path / "in") == ["link/deep/a.nii"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    touch(tmp_path, "in/sub/a.nii", "outside.nii")
    (tmp_path / "in" / "sub" / "up").symlink_to("..")
    (tmp_path / "in" / "sub" / "self").symlink_to("self")
    (tmp_path / "in" / "top").symlink_to(tmp_path)
    (tmp_path / "in" / "root").symlink_to("/")
    assert _names(tmp_path / "in") == ["sub/a.nii"]


def test_two_folders_that_link_to_each_other_are_walked_once(tmp_path: Path) -> None:
    touch(tmp_path, "in/a/1.nii", "in/b/2.nii")
    (tmp_path / "in" / "a" / "to-b").symlink_to("../b")
    (tmp_path / "in" / "b" / "to-a").symlink_to("../a")
    assert _names(tmp_path / "in") == ["a/1.nii", "b/2.nii"]


def test_a_volume_is_taken_by_its_own_name_and_not_by_a_link(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.nii")
    (tmp_path / "0-link.nii").symlink_to("real/a.nii")
    (tmp_path / "0-folder").symlink_to("real")
    walk = find_volumes(str(tmp_path))
    assert [found.name for found in walk.volumes] == ["real/a.nii"]
    assert walk.links == ["0-link.nii"]


def test_of_two_links_to_one_volume_elsewhere_the_first_is_taken(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.nii", "in/z.nii")
    for name in ("b.nii", "a.nii"):
        (tmp_path / "in" / name).symlink_to("../elsewhere/a.nii")
    walk = find_volumes(str(tmp_path / "in"))
    assert ([found.name for found in walk.volumes], walk.links) == (["a.nii", "z.nii"], ["b.nii"])


def test_a_link_that_leads_nowhere_is_kept_so_that_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "gone.nii").symlink_to("nowhere.nii")
    assert _names(tmp_path) == ["gone.nii"]


def test_a_pipe_is_no_volume(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    assert _names(tmp_path) == []


def test_names_may_hold_anything(tmp_path: Path) -> None:
    names = ["a b.nii", "größe.nii", "new\nline.nii", os.fsdecode(b"latin-\xe9.nii"), "-o.nii", "[1].nii"]
    assert sorted(_names(touch(tmp_path, *names))) == sorted(names)


def test_an_unreadable_folder_is_told_and_the_rest_found(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.nii", "b/2.nii")
    with locked(tmp_path / "a"):
        walk = find_volumes(str(tmp_path))
    assert [found.name for found in walk.volumes] == ["b/2.nii"]
    (refused,) = walk.unreadable
    assert (refused.name, refused.status) == ("a", "error")
    assert "cannot be read (Permission denied)" in refused.message


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.nii", ["a.nii"]),
        ("**/*.nii", ["a.nii", "s/b.nii", "s/t/c.nii"]),
        ("*/*.nii", ["s/b.nii"]),
        ("s/**/c.nii", ["t/c.nii"]),
        ("**/t/*", ["s/t/c.nii"]),
        ("s*", ["s/b.nii", "s/t/c.nii"]),
        ("?/[a-b].nii", ["s/b.nii"]),
        ("**", ["a.nii", "s/b.nii", "s/t/c.nii"]),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, names: list[str]) -> None:
    touch(tmp_path, "a.nii", "s/b.nii", "s/t/c.nii", "s/b_seg.nii", "s/notes.txt", ".h/d.nii")
    assert _matching(tmp_path / pattern) == names


def test_a_pattern_does_not_walk_where_nothing_can_match(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "big/b.nii")
    with locked(tmp_path / "big"):
        assert not find_matching(str(tmp_path / "*.nii"))[1].unreadable
        assert find_matching(str(tmp_path / "**/*.nii"))[1].unreadable


@pytest.mark.parametrize("pattern", ["*_T3w.nii", "missing/*.nii", "*_seg.nii"])
def test_a_pattern_that_matches_nothing_is_an_error_that_names_it(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path, "a.nii", "a_seg.nii")
    with pytest.raises(InputError, match="matches no") as caught:
        find_matching(str(tmp_path / pattern))
    assert str(caught.value).startswith(str(tmp_path / pattern))


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].nii")
    assert not is_pattern(str(tmp_path / "a[1].nii"))
    assert is_pattern(str(tmp_path / "a[2].nii"))
