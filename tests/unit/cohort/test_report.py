from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastseg import __version__
from fastseg.cohort.job import Job, Outcome, Refused, Status
from fastseg.cohort.ledger import History, Ledger, read_ledgers
from fastseg.cohort.report import SUMMARY, causes, run_report, summary_text, volume_record, write_summary
from fastseg.errors import OutputError
from fastseg.options import Options
from fastseg.outputs import outputs_of


def end(mask: str, **facts: Any) -> dict[str, Any]:
    return {"event": "end", "mask": mask, **facts}


def rows_of(text: str) -> list[dict[str, str]]:
    header, *lines = (line.split("\t") for line in text.removesuffix("\n").split("\n"))
    return [dict(zip(header, line, strict=True)) for line in lines]


def history_of(*lines: dict[str, Any]) -> History:
    history = History()
    for line in lines:
        history.add(line)
    return history


def test_the_table_has_one_row_a_volume_sorted_by_name() -> None:
    history = history_of(
        end("b_seg.nii", name="b.nii", status="ok", outputs={"mask": "1"}, contrast="t2"),
        end("a_seg.nii", name="a.nii", status="no_cord", message="no cord was found", outputs={}),
    )
    first, second = rows_of(summary_text(history))
    assert (first["name"], first["status"], first["mask"]) == ("a.nii", "no_cord", "n/a")
    assert first["message"] == "no cord was found"
    assert (second["name"], second["mask"], second["contrast"]) == ("b.nii", "b_seg.nii", "t2")
    assert second["message"] == second["flags"] == second["notes"] == "n/a"


def test_measures_and_seconds_of_any_volume_are_columns_of_all() -> None:
    history = history_of(
        end("a", name="a", measures={"Objects": 1.0}, seconds={"read": 0.5, "rest": 1.0}),
        end("b", name="b", measures={"HoleVoxels": 3.0}, seconds={}),
    )
    first, second = rows_of(summary_text(history))
    assert (first["Objects"], first["HoleVoxels"]) == ("1.0", "n/a")
    assert (second["Objects"], second["HoleVoxels"]) == ("n/a", "3.0")
    assert (first["seconds_read"], first["seconds_rest"], first["seconds_write"]) == ("0.5", "1.0", "n/a")
    assert (second["seconds_read"], second["seconds_rest"]) == ("n/a", "n/a")


def test_flags_and_notes_share_a_cell() -> None:
    history = history_of(end("a", name="a", flags=["holes", "short"], notes=["one", "two"]))
    (row,) = rows_of(summary_text(history))
    assert (row["flags"], row["notes"]) == ("holes,short", "one | two")


def test_an_empty_history_gives_a_table_without_rows() -> None:
    assert summary_text(History()) == "name\tstatus\tmask\tcontrast\tflags\tmessage\tnotes\n"


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\r\nb", '"a"', "a\x1b[31m", "a\u2028b", "\udcff"])
def test_hostile_names_do_not_break_the_table(tmp_path: Path, name: str) -> None:
    write_summary(history_of(end("a", name=name, status="ok"), end("b", name="z")), tmp_path)
    text = (tmp_path / SUMMARY).read_text()
    assert "z" in [row["name"] for row in rows_of(text)]
    assert "\x1b" not in text
    assert len(text.splitlines()) == 3


def test_the_table_is_what_the_ledgers_say(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.end("a_seg.nii", name="a.nii", status="error")
        ledger.end("a_seg.nii", name="a.nii", status="ok")
    path = write_summary(read_ledgers(tmp_path), tmp_path)
    assert [row["status"] for row in rows_of(path.read_text())] == ["ok"]


def test_a_table_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / SUMMARY).mkdir()
    with pytest.raises(OutputError, match="choose another output folder"):
        write_summary(History(), tmp_path)


def test_failures_are_counted_by_cause_whatever_is_particular_to_a_volume() -> None:
    failures = [
        ("bad_input", "the file is truncated (12 of 34 MB of voxels); copy it again"),
        ("bad_input", "the file is truncated (1 of 2 kB of voxels); copy it again"),
        ("out_of_memory", "needs about 12 MB"),
        ("no_cord", "the file is truncated"),
        ("out_of_memory", "needs about 7.5 MB"),
        ("out_of_memory", "needs about 8 MB"),
    ]
    assert causes(failures) == [
        (3, "out_of_memory: needs about N MB"),
        (2, "bad_input: the file is truncated; copy it again"),
        (1, "no_cord: the file is truncated"),
    ]
    assert causes([]) == []


def outcome_of(tmp_path: Path, status: Status, **facts: Any) -> Outcome:
    outputs = outputs_of(tmp_path / "out" / "sub-1" / "a_seg.nii.gz")
    job = Job("sub-1/a.nii.gz", tmp_path / "in" / "sub-1" / "a.nii.gz", outputs, Options(contrast="t2"))
    return Outcome(job, status, **facts)


def test_a_volume_is_described_without_the_folders_of_this_machine(tmp_path: Path) -> None:
    outcome = outcome_of(
        tmp_path, Status.OK_FLAGGED, notes=("n",), flags=("holes",), measures={"Objects": 1.0},
        seconds={"read": 0.123456}, record={"attempts": [1]},
    )  # fmt: skip
    record = volume_record(outcome, tmp_path / "out")
    assert record == {
        "Input": "sub-1/a.nii.gz",
        "Status": "ok_flagged",
        "Mask": "sub-1/a_seg.nii.gz",
        "Message": "",
        "Notes": ["n"],
        "Flags": ["holes"],
        "Quality": {"Objects": 1.0},
        "Contrast": "t2",
        "Seconds": {"read": 0.1235},
        "Attempts": [1],
    }
    assert str(tmp_path) not in str(record)


@pytest.mark.parametrize(
    ("status", "has_mask"),
    [(Status.OK, True), (Status.CACHED, True), (Status.SKIPPED, False), (Status.NO_CORD, False)],
)
def test_only_what_was_segmented_has_a_mask(tmp_path: Path, status: Status, has_mask: bool) -> None:
    record = volume_record(outcome_of(tmp_path, status), tmp_path / "out")
    assert (record["Mask"] is not None) == has_mask


def test_a_run_is_described_with_its_counts(tmp_path: Path) -> None:
    each = [
        outcome_of(tmp_path, Status.OK_FLAGGED, flags=("holes", "short")),
        outcome_of(tmp_path, Status.OK_FLAGGED, flags=("holes",)),
        outcome_of(tmp_path, Status.ERROR, message="m"),
        Refused("line 3", "is no path"),
    ]
    volumes = [volume_record(one, tmp_path / "out") for one in each]
    report = run_report(volumes, n_jobs=6, seconds=1.23456, code=3, facts={"Device": "cpu"})
    assert report["GeneratedBy"] == [{"Name": "fastseg", "Version": __version__}]
    assert report["Device"] == "cpu"
    assert (report["ExitCode"], report["Seconds"], report["NotTried"]) == (3, 1.2346, 2)
    assert report["Counts"] == {"ok_flagged": 2, "error": 1, "bad_input": 1}
    assert report["Flags"] == {"holes": 2, "short": 1}
    assert report["Volumes"][3] == {
        "Input": "line 3",
        "Status": "bad_input",
        "Mask": None,
        "Message": "is no path",
    }
