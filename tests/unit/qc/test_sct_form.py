"""Entries in SCT's form."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from fastseg.qc.entry import detail_of, row_of
from fastseg.qc.pictures import Sheet
from fastseg.qc.report import Report

# Of the qc_results.json of sct-pipeline/claudia, made by SCT in 2018, without how it was made.
_KNOWN = {
    "orientation",
    "cwd",
    "cmdline",
    "command",
    "background_img",
    "moddate",
    "overlay_img",
    "contrast",
    "subject",
}


def _entry(folder: Path, sheet: Sheet | None) -> dict[str, Any]:
    name = "sub-01/anat/sub 01 $(x)_T2w.nii.gz"
    row = row_of(
        name=name,
        mask=Path("/out/a_seg.nii.gz"),
        dataset="set",
        contrast="t2",
        status="ok",
        at="2025-06-01T10:20:30.123456+00:00",
    )
    manual = Path("/out/a_desc-manual_seg.nii.gz")
    with Report(folder) as report:
        report.add(
            row, detail_of(image=Path("/in") / name, mask=Path("/out/a_seg.nii.gz"), manual=manual), sheet
        )
    (path,) = (folder / "_json").iterdir()
    entry: dict[str, Any] = json.loads(path.read_text())
    return entry


def test_an_entry_has_the_fields_that_are_known(tmp_path: Path) -> None:
    entry = _entry(tmp_path, Sheet(b"jpeg", b"png", b"small", {}))
    assert set(entry) >= _KNOWN
    assert all(isinstance(value, str) for value in entry.values())
    assert (entry["dataset"], entry["subject"], entry["contrast"]) == ("set", "sub-01", "t2")
    assert entry["moddate"] == entry["date"] == "2025-06-01 10:20:30"
    assert (entry["qc"], entry["rank"]) == ("", "")


def test_pictures_are_named_from_the_folder_of_the_report(tmp_path: Path) -> None:
    entry = _entry(tmp_path, Sheet(b"jpeg", b"png", b"small", {}))
    assert (tmp_path / entry["background_img"]).read_bytes() == b"jpeg"
    assert (tmp_path / entry["overlay_img"]).read_bytes() == b"png"


def test_an_entry_without_pictures_names_none(tmp_path: Path) -> None:
    entry = _entry(tmp_path, None)
    assert (entry["background_img"], entry["overlay_img"]) == ("", "")


def test_the_command_can_be_pasted(tmp_path: Path) -> None:
    entry = _entry(tmp_path, None)
    image = "/in/sub-01/anat/sub 01 $(x)_T2w.nii.gz"
    assert shlex.split(entry["cmdline"]) == ["fastseg", "run", image, "-c", "t2", "-o", "/out/a_seg.nii.gz"]
    assert (entry["cwd"], entry["input_file"]) == ("/in/sub-01/anat", "sub 01 $(x)_T2w.nii.gz")


@pytest.mark.parametrize("again", [1, 2])
def test_a_volume_has_one_entry_however_often_it_is_made(tmp_path: Path, again: int) -> None:
    for _ in range(again):
        _entry(tmp_path, None)
    assert len(list((tmp_path / "_json").iterdir())) == 1
