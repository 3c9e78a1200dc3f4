"""Jobs that arrive one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastseg.cohort.job import Job, Refused
from fastseg.cohort.plan.planning import Wanted
from fastseg.cohort.plan.stdin import read_stdin_jobs
from fastseg.errors import OptionError, OutputError
from fastseg.options import Options
from tests.unit.cohort.trees import touch

_WANTED = Wanted(Options(contrast="t2"), kinds=("mask", "sidecar"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _read(*lines: bytes | str, out: Path | None = None, wanted: Wanted = _WANTED) -> list[Job | Refused]:
    return list(read_stdin_jobs(lines, out, wanted))


def test_paths_and_objects_become_jobs() -> None:
    one, two = _read(b"in/a.nii\n", b"\n", b'{"input": "b.nii", "contrast": "t1"}\n', out=Path("out"))
    assert isinstance(one, Job)
    assert isinstance(two, Job)
    assert (one.name, one.outputs.mask, one.options.contrast) == ("in/a.nii", Path("out/a_seg.nii.gz"), "t2")
    assert (two.source, two.options.contrast) == (Path("b.nii"), "t1")


def test_a_job_is_given_before_the_next_line_is_there() -> None:
    def lines() -> Iterator[bytes]:
        yield b"a.nii\n"
        raise AssertionError("the next line was waited for")

    assert isinstance(next(read_stdin_jobs(lines(), None, _WANTED)), Job)


def test_a_line_that_cannot_be_a_job_is_refused_and_the_next_one_read() -> None:
    broken, good = _read("{broken", "a.nii")
    assert isinstance(broken, Refused)
    assert (broken.name, broken.status) == ("line 1", "bad_input")
    assert broken.message.startswith("is no JSON object")
    assert isinstance(good, Job)


def test_the_same_output_twice_is_refused_with_both_names() -> None:
    _, again, elsewhere = _read(
        "x/a.nii", "y/a.nii.gz", '{"input": "y/a.nii.gz", "output": "y/a_seg.nii.gz"}'
    )
    assert isinstance(again, Refused)
    assert (again.name, again.status) == ("y/a.nii.gz", "bad_input")
    assert "x/a.nii and y/a.nii.gz would both write a_seg.nii.gz" in again.message
    assert isinstance(elsewhere, Job)
    assert elsewhere.outputs.sidecar == Path("y/a_seg.json")


def test_an_output_that_is_an_earlier_input_is_refused(here: Path) -> None:
    refused = _read("a_seg.nii.gz", "a.nii", json.dumps({"input": "b.nii", "output": "b.nii"}))[1:]
    assert all(isinstance(each, Refused) and "is an input" in each.message for each in refused)


def test_an_output_folder_that_cannot_be_is_told_for_its_job_only(here: Path) -> None:
    touch(here, "file")
    refused, good = _read('{"input": "a.nii", "output": "file/a.nii"}', "a.nii")
    assert isinstance(refused, Refused)
    assert (refused.name, refused.status) == ("a.nii", "error")
    assert isinstance(good, Job)


def test_what_is_wrong_for_all_lines_is_told_before_the_first(here: Path) -> None:
    touch(here, "file")
    with pytest.raises(OutputError, match="is a file"):
        read_stdin_jobs(["a.nii"], Path("file"), _WANTED)
    with pytest.raises(OptionError, match="is one file"):
        read_stdin_jobs(["a.nii"], Path("mask.nii.gz"), _WANTED)


def test_centerlines_by_pattern_and_by_line(here: Path) -> None:
    touch(here, "drawn.nii")
    wanted = Wanted(Options(), file_centerline="{folder}/{stem}_line.nii")
    jobs = _read("x/a.nii", '{"input": "b.nii", "centerline": "drawn.nii"}', wanted=wanted)
    assert [job.centerline for job in jobs if isinstance(job, Job)] == [
        Path("x/a_line.nii"),
        Path("drawn.nii"),
    ]
    assert [job.options.detector for job in jobs if isinstance(job, Job)] == ["file", "file"]


def test_names_that_are_no_text_and_names_with_a_nul() -> None:
    latin, nul = _read(b"latin-\xe9.nii\n", b"nul\0.nii\n")
    assert isinstance(latin, Job)
    assert bytes(latin.source) == b"latin-\xe9.nii"
    assert isinstance(nul, Refused)
