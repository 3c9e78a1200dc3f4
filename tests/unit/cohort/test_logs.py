from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fastseg import __version__
from fastseg.cohort.job import Job, Outcome, Status
from fastseg.cohort.logs import write_log
from fastseg.cohort.rescue import Attempt
from fastseg.errors import OutputError
from fastseg.options import Options
from fastseg.outputs import outputs_of
from tests.phantom_files import files_below


@pytest.fixture
def job(tmp_path: Path) -> Job:
    mask = tmp_path / "out" / "sub-1" / "t2_seg.nii.gz"
    return Job("sub-1/t2.nii.gz", tmp_path / "in" / "t2.nii.gz", outputs_of(mask), Options(contrast="t2"))


@pytest.mark.parametrize("status", [Status.OK, Status.SKIPPED, Status.CACHED])
def test_what_went_well_has_no_log(tmp_path: Path, job: Job, status: Status) -> None:
    assert write_log(Outcome(job, status), tmp_path / "out") == ""
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    "status", [Status.OK_FLAGGED, Status.NO_CORD, Status.BAD_INPUT, Status.OUT_OF_MEMORY, Status.ERROR]
)
def test_a_log_is_never_empty_and_lies_where_the_mask_would(tmp_path: Path, job: Job, status: Status) -> None:
    assert write_log(Outcome(job, status), tmp_path / "out") == "logs/sub-1/t2_seg.log"
    assert (tmp_path / "out/logs/sub-1/t2_seg.log").read_text() == (
        "volume     sub-1/t2.nii.gz\n"
        f"status     {status}\n"
        f"fastseg    {__version__}\n"
        "options    contrast t2, kernel 2d, centerline auto\n"
    )


def test_a_log_says_all_that_is_known(tmp_path: Path, job: Job) -> None:
    outcome = Outcome(
        replace(job, options=Options(contrast="t2", threshold=0.5, soft=True)),
        Status.ERROR,
        message="ZeroDivisionError: division by zero",
        notes=("the name says t1",),
        flags=("holes",),
        seconds={"read": 0.12345},
        record={
            "attempts": [Attempt("kernel 3d", Options()).record()],
            "traceback": "Traceback:\n  here\n",
        },
    )
    text = (tmp_path / "out" / write_log(outcome, tmp_path / "out")).read_text()
    assert text.splitlines()[3:] == [
        "options    contrast t2, kernel 2d, centerline auto, threshold 0.5, soft",
        "message    ZeroDivisionError: division by zero",
        "note       the name says t1",
        "flag       holes",
        "attempt    {'Kernel': '2d', 'Centerline': 'auto', 'Status': 'error', 'Flags': []}",
        "seconds    read 0.123",
        "Traceback:",
        "  here",
    ]


def test_a_good_volume_with_notes_has_a_log_too(tmp_path: Path, job: Job) -> None:
    assert write_log(Outcome(job, Status.OK, notes=("is odd",)), tmp_path / "out")


def test_a_mask_outside_of_the_output_folder_is_logged_inside(tmp_path: Path, job: Job) -> None:
    elsewhere = replace(job, outputs=outputs_of(tmp_path / "elsewhere" / "a_seg.nii"))
    assert write_log(Outcome(elsewhere, Status.ERROR), tmp_path / "out") == "logs/a_seg.log"


def test_names_that_are_no_utf8_can_be_logged(tmp_path: Path, job: Job) -> None:
    log = write_log(Outcome(replace(job, name="\udcff.nii"), Status.ERROR), tmp_path / "out")
    assert "volume     \\udcff.nii" in (tmp_path / "out" / log).read_text()


def test_a_log_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path, job: Job) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "logs").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot be written .*; choose another output folder"):
        write_log(Outcome(job, Status.ERROR), tmp_path / "out")
