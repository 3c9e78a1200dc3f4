"""Journals of a report: rows of many writers, and what is left of those that ended."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from fastseg.errors import OutputError
from fastseg.qc import journal
from fastseg.qc.entry import row_of
from fastseg.qc.report import Report, check_writable, script_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "qc"


def _row(name: str, **facts: Any) -> dict[str, Any]:
    known: dict[str, Any] = {"dataset": "set", "contrast": "t2", "status": "ok", **facts}
    return row_of(name=name, mask=Path("/out") / name, **known)


def _journals(folder: Path) -> list[Path]:
    return sorted((folder / "journal").glob("*.jsonl"))


def _names(folder: Path) -> list[str]:
    return [row["name"] for row in Report(folder).rows()]


_GOOD = _row("good.nii")


@pytest.mark.parametrize(
    "line",
    [
        script_json(_GOOD)[:-9],
        "",
        "<<<<<<< HEAD",
        "[]",
        "null",
        "[" * 100_000,
        "{}",
        '{"id": "0123456789abcdef"}',
        "\udcff\udcfe",
        *(
            script_json(_GOOD | wrong)
            for wrong in (
                {"id": "../../../etc/passwd"},
                {"id": 7},
                {"id": "0123456789ABCDEF"},
                {"name": None},
                {"flags": "short"},
                {"flags": [1]},
                {"pictures": "yes"},
                {"severity": None},
                {"slices": "many"},
            )
        ),
        script_json(_GOOD | {"severity": 77}).replace("77", "1e999"),
        script_json(_GOOD | {"severity": 77}).replace("77", "NaN"),
        script_json(_GOOD | {"slices": 77}).replace("77", "1" + "0" * 400),
    ],
)
def test_lines_that_are_torn_or_foreign_are_passed_over(folder: Path, line: str) -> None:
    with Report(folder) as made:
        made.note(_row("a.nii"))
        foreign = folder / "journal" / "other-1-00000000.jsonl"
        foreign.write_bytes(line.encode(errors="surrogateescape") + b"\n" + script_json(_GOOD).encode())
    assert _names(folder) == ["a.nii", "good.nii"]


def test_journals_of_ended_writers_are_put_together_where_there_are_many(folder: Path) -> None:
    names = [f"{number:03}.nii" for number in range(120)]
    for name in names:
        made = Report(folder)
        if name == names[0]:
            check_writable(folder)
        made.note(_row(name))
        made._journal.close()
    with Report(folder) as living:
        living.note(_row("living.nii", at="2025-01-01"))
        Report(folder).publish()
        assert len(_journals(folder)) == 2
        living.note(_row("living.nii", at="2025-01-02", status="error"))
    assert _names(folder) == ["living.nii", *names]


def test_a_kill_while_journals_are_put_together_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_writable(folder)
    for number in range(60):
        writer = journal.Journal(folder)
        writer.append(script_json(_row(f"{number:02}.nii")).encode())
        writer.close()
    wanted = Report(folder).rows()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for method in ("replace", "unlink"):
        monkeypatch.setattr(Path, method, killed)
        with pytest.raises(KeyboardInterrupt):
            journal.merge(folder)
        monkeypatch.undo()
        assert Report(folder).rows() == wanted
    assert journal.merge(folder) == 61  # with the one that the second had made already
    assert Report(folder).rows() == wanted
    assert len(_journals(folder)) == 1


def test_a_journal_of_another_machine_is_left_alone_for_a_day(folder: Path) -> None:
    check_writable(folder)
    for number in range(60):
        path = folder / "journal" / f"elsewhere-{number}-00000000.jsonl"
        path.write_text(script_json(_row(f"{number:02}.nii")) + "\n")
    assert journal.merge(folder) == 0
    old = time.time() - 90_000
    for path in _journals(folder)[:40]:
        os.utime(path, (old, old))
    assert journal.merge(folder) == 40
    assert len(Report(folder).rows()) == 60


def test_a_journal_that_was_removed_is_begun_anew(folder: Path) -> None:
    with Report(folder) as made:
        made.note(_row("a.nii"))
        _journals(folder)[0].unlink()
        made.note(_row("b.nii"))
    assert _names(folder) == ["b.nii"]


def test_processes_that_forked_apart_do_not_share_a_journal(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Report(folder) as made:
        made.note(_row("a.nii"))
        monkeypatch.setattr(os, "getpid", lambda: 1)
        made.note(_row("b.nii"))
        assert len(_journals(folder)) == 2
    assert _names(folder) == ["a.nii", "b.nii"]


def test_a_line_for_which_there_was_no_space_spoils_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    with Report(folder) as made:
        made.note(_row("a.nii"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda file, content: write(file, content[:50]))
            with pytest.raises(OutputError, match=r"No space left .* free space there"):
                made.note(_row("b.nii"))
        made.note(_row("c.nii"))
    assert _names(folder) == ["a.nii", "c.nii"]


def test_what_a_killed_process_left_half_written_goes_after_an_hour(folder: Path) -> None:
    check_writable(folder)
    old, fresh = journal.temporary(folder), journal.temporary(folder)
    for path in (old, fresh):
        path.write_text("half")
    os.utime(old, (time.time() - 4000,) * 2)
    with Report(folder):
        pass
    assert not old.exists()
    assert fresh.exists()
