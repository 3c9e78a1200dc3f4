"""Where corrected masks belong, and commands that open them, run by a shell with editors that take notes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fastseg.cohort.plan.naming import Scheme, name_outputs
from fastseg.outputs import is_result_name
from fastseg.qc.editors import commands, manual_path

_HOSTILE = [
    "t2",
    "two words",
    "it's",
    'say "cord"',
    "<script>alert(1)",
    "$(touch gone)",
    "a;b&c|d",
    "-s",
    "Rückenmark",
    "two\nlines",
    "n" * 200,
]


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    """Folder of editors; what each was given stands in a file of its name, one word after each NUL."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name in ("fsleyes", "itksnap"):
        program = bin_folder / name
        program.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" > '{tmp_path}/{name}.words'\n")
        program.chmod(0o755)
    return tmp_path


def _run(command: str, shell: Path) -> int:
    environment = os.environ | {"PATH": f"{shell / 'bin'}:{os.environ['PATH']}"}
    here = shell / "elsewhere"
    here.mkdir(exist_ok=True)
    done = subprocess.run(["sh", "-c", command], env=environment, cwd=here, stderr=subprocess.DEVNULL)
    assert list(here.iterdir()) == []
    return done.returncode


def _words(shell: Path, editor: str) -> list[str]:
    path = shell / f"{editor}.words"
    return path.read_bytes().decode().split("\0")[:-1] if path.exists() else []


@pytest.mark.parametrize("stem", _HOSTILE)
def test_commands_copy_the_mask_and_open_the_copy_whatever_the_names(stem: str, shell: Path) -> None:
    image, mask = shell / f"{stem}.nii", shell / f"{stem}_seg.nii"
    mask.write_bytes(b"automatic")
    manual = manual_path(mask)
    told = commands(image, mask, manual)
    assert _run(told["FSLeyes"], shell) == 0
    assert _words(shell, "fsleyes") == [str(image), str(manual), "-cm", "red", "-a", "50"]
    assert manual.read_bytes() == b"automatic"
    assert _run(told["ITK-SNAP"], shell) == 0
    assert _words(shell, "itksnap") == ["-g", str(image), "-s", str(manual)]


def test_a_copy_that_was_corrected_is_not_copied_over(shell: Path) -> None:
    mask = shell / "t2_seg.nii"
    mask.write_bytes(b"automatic")
    manual_path(mask).write_bytes(b"corrected")
    for command in commands(shell / "t2.nii", mask, manual_path(mask)).values():
        assert _run(command, shell) == 0
    assert manual_path(mask).read_bytes() == b"corrected"
    assert mask.read_bytes() == b"automatic"


def test_where_nothing_can_be_copied_no_editor_opens(shell: Path) -> None:
    for command in commands(shell / "t2.nii", shell / "gone.nii", shell / "new.nii").values():
        assert _run(command, shell) != 0
    assert _words(shell, "fsleyes") == _words(shell, "itksnap") == []


def test_without_a_mask_the_image_alone_is_opened(shell: Path) -> None:
    for command in commands(shell / "t2.nii", None, shell / "new.nii").values():
        assert _run(command, shell) == 0
    assert _words(shell, "fsleyes") == [str(shell / "t2.nii")]
    assert _words(shell, "itksnap") == ["-g", str(shell / "t2.nii")]


def test_a_mask_that_was_drawn_by_hand_is_opened_as_it_is(shell: Path) -> None:
    drawn = shell / "t2_desc-manual_seg.nii"
    assert commands(shell / "t2.nii", drawn, drawn)["ITK-SNAP"] == f"itksnap -g {shell}/t2.nii -s {drawn}"


def test_relative_paths_become_absolute(shell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shell)
    told = commands(Path("t2.nii"), Path("t2_seg.nii"), Path("new.nii"))
    assert f"fsleyes {shell}/t2.nii {shell}/new.nii" in told["FSLeyes"]


@pytest.mark.parametrize("scheme", ["sct", "neuropoly", "bids"])
@pytest.mark.parametrize("soft", [False, True])
def test_corrected_masks_of_all_schemes_stay_apart_and_are_no_inputs(scheme: Scheme, soft: bool) -> None:
    stems = ("sub-01_T1w", "sub-01_T2w", "sub-01_acq-a_T2w", "sub-01_ses-b_T2w")
    masks = [name_outputs(scheme, Path("out"), stem, soft=soft).mask for stem in stems]
    manual = [manual_path(mask) for mask in masks]
    assert len({*masks, *manual}) == 2 * len(stems)
    assert all(is_result_name(path) for path in manual)
    assert all("desc-" in path.name and "anual" in path.name for path in manual)
    assert all(path.name.count("desc-") == 1 for path in manual)
