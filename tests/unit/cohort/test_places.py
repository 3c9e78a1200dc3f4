"""Where outputs really lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastseg.cohort.plan.places import Claims, Folders
from fastseg.errors import OptionError, OutputError
from fastseg.outputs import Outputs, outputs_of
from tests.unit.cohort.trees import touch


def _claim(*masks: Path, inputs: tuple[Path, ...] = ()) -> None:
    claims = Claims(("mask", "sidecar"), Folders(), [os.path.realpath(path) for path in inputs])
    for number, mask in enumerate(masks):
        claims.write(f"input {number}", outputs_of(mask))


def test_folders_are_what_realpath_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/b/file")
    (tmp_path / "link").symlink_to("a/b")
    (tmp_path / "dangling").symlink_to("nowhere/deep")
    (tmp_path / "self").symlink_to("self")
    monkeypatch.chdir(tmp_path)
    folders = Folders()
    for name in (
        "",
        "a",
        "link",
        "link/new/folder",
        "link/..",
        "link/../x",
        "dangling/x",
        "self/x",
        "/",
        "/a",
    ):
        assert str(folders.real(Path(name))) == os.path.realpath(name)
        assert folders.real_file(f"{name}/file".lstrip("/")) == os.path.realpath(f"{name}/file".lstrip("/"))
    for name in ("link", "link/", "a/..", "."):
        assert folders.real_file(name) == os.path.realpath(name)


def test_a_folder_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "out/sub/file")
    looked = []
    lstat = Path.lstat
    monkeypatch.setattr(Path, "lstat", lambda path: looked.append(path) or lstat(path))
    folders = Folders()
    for number in range(100):
        folders.real(tmp_path / "out" / "sub")
        folders.real(tmp_path / "out" / "new" / str(number))
    assert len(looked) == len(set(looked))
    assert len(looked) == len(tmp_path.resolve().parts) - 1 + 3


def test_two_outputs_are_never_one_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for other in ("real/a.nii", "link/a.nii", "link/../real/a.nii", "real/a.nii.gz"):
        with pytest.raises(OptionError, match="input 0 and input 1 would both write"):
            _claim(tmp_path / "real" / "a.nii", tmp_path / other)
    _claim(tmp_path / "real" / "a.nii", tmp_path / "real" / "b.nii")


def test_an_output_that_is_a_link_to_an_input_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "out/b.nii")
    (tmp_path / "out" / "a.nii").symlink_to("../a.nii")
    with pytest.raises(OptionError, match="is an input and would be overwritten"):
        _claim(tmp_path / "out" / "a.nii", inputs=(tmp_path / "a.nii",))
    _claim(tmp_path / "out" / "b.nii", inputs=(tmp_path / "a.nii",))


def test_a_refused_claim_leaves_its_names_free(tmp_path: Path) -> None:
    claims = Claims(("mask", "sidecar"), Folders(), [os.path.realpath(tmp_path / "a_seg.json")])
    with pytest.raises(OptionError, match="is an input"):
        claims.write("first", outputs_of(tmp_path / "a_seg.nii"))
    with pytest.raises(OptionError, match="is an input"):
        claims.write("second", outputs_of(tmp_path / "a_seg.nii"))


def test_names_that_differ_in_case_are_two_files_here(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii")
    if (tmp_path / "A.NII").exists():
        pytest.skip("this file system does not tell cases apart")
    _claim(tmp_path / "B.nii", tmp_path / "b.nii", inputs=(tmp_path / "a.nii",))
    _claim(tmp_path / "A.nii", inputs=(tmp_path / "a.nii",))
    _claim(tmp_path / "new" / "B.nii", tmp_path / "new" / "b.nii")


def test_names_that_differ_in_case_are_one_file_where_existing_ones_are(tmp_path: Path) -> None:
    # A folder in which each name has its twin stands for a file system without cases.
    for name, twin in (("a.nii", "A.nii"), ("probe", "PROBE")):
        touch(tmp_path, name)
        if not (tmp_path / twin).exists():
            os.link(tmp_path / name, tmp_path / twin)
    with pytest.raises(OptionError, match=r"A\.nii is an input"):
        _claim(tmp_path / "A.nii", inputs=(tmp_path / "a.nii",))
    with pytest.raises(OptionError, match="input 0 and input 1 would both write"):
        _claim(tmp_path / "A.nii", tmp_path / "a.nii")
    (tmp_path / "a.nii").unlink()
    (tmp_path / "A.nii").unlink()
    for folder in (tmp_path, tmp_path / "new"):
        with pytest.raises(OptionError, match="input 0 and input 1 would both write"):
            _claim(folder / "B.nii", folder / "b.nii")


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "file")
    (tmp_path / "dangling").symlink_to("nowhere")
    folders = Folders()
    for name, said in (("file", "is a file"), ("file/x", "is a file"), ("dangling", "leads nowhere")):
        with pytest.raises(OutputError, match=said):
            folders.check_writable(tmp_path / name)
    folders.check_writable(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="no permission"):
        Folders().check_writable(tmp_path / "out")


def test_outputs_of_other_kinds_are_not_claimed(tmp_path: Path) -> None:
    claims = Claims(("mask",), Folders(), [os.path.realpath(tmp_path / "a_seg.json")])
    outputs: Outputs = outputs_of(tmp_path / "a_seg.nii")
    claims.write("first", outputs)
    with pytest.raises(OptionError, match="first and second would both write"):
        claims.write("second", outputs)
