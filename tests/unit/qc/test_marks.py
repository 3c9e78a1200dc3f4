"""Marks of volumes and the lists made from them."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastseg.cohort.plan.exclusion import Exclusions
from fastseg.errors import InputError, OutputError
from fastseg.qc.entry import row_of
from fastseg.qc.identity import identity
from fastseg.qc.marks import read_flags, renew_lists, save_flags, yaml_list
from fastseg.qc.report import check_writable

_NAMES = (
    "sub-01/anat/sub-01_T2w.nii.gz",
    "sub-02/anat/sub-02_T2w.nii.gz",
    "a/t2.nii.gz",
    "b/t2.nii.gz",
    "odd/brain 🧠: \"x\" 'y' #z.nii.gz",
    "odd/bytes-\udce9\x7f\x85.nii.gz",
    "odd/- dash.nii",
    "odd/q[1]*?.nii",
    "odd/space .nii ",
    "odd/\u2028\ufeff\uffff.nii",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    check_writable(tmp_path / "qc")
    return tmp_path / "qc"


def _rows() -> list[dict[str, Any]]:
    return [
        row_of(name=name, mask=Path("/out") / name, dataset="d", contrast="t2", status="ok")
        for name in _NAMES
    ]


def _mark(row: dict[str, Any], qc: str = "", at: str = "2025-01-01", **facts: Any) -> dict[str, Any]:
    return {"id": row["id"], "name": row["name"], "qc": qc, "rank": None, "mask": "", "at": at, **facts}


def _record(folder: Path, marks: list[dict[str, Any]]) -> dict[str, Any]:
    return {"version": 1, "report": identity(folder)["uuid"], "marks": marks}


def _listed(folder: Path, verdict: str) -> list[str]:
    content: dict[str, list[str]] = yaml.safe_load((folder / f"qc_{verdict}.yml").read_bytes())
    assert list(content) == ["FILES_SEG"]
    return content["FILES_SEG"]


def test_lists_name_images_by_their_own_name_where_no_other_has_it(folder: Path) -> None:
    rows = _rows()
    marks = [
        _mark(rows[0], "Fail"),
        _mark(rows[1], "Pass"),
        _mark(rows[2], "Fail"),
        _mark(rows[3], "Artifact"),
    ]
    assert save_flags(folder, _record(folder, marks), rows) == read_flags(folder) == marks
    assert (folder / "qc_fail.yml").read_text() == "FILES_SEG:\n- a/t2.nii.gz\n- sub-01_T2w.nii.gz\n"
    assert _listed(folder, "pass") == ["sub-02_T2w.nii.gz"]
    assert _listed(folder, "artifact") == ["b/t2.nii.gz"]


def test_hostile_names_come_back_from_yaml_as_they_are(folder: Path) -> None:
    rows = _rows()
    save_flags(folder, _record(folder, [_mark(row, "Fail") for row in rows[4:]]), rows)
    assert sorted(_listed(folder, "fail")) == sorted(name.rpartition("/")[2] for name in _NAMES[4:])


@pytest.mark.parametrize("file", ["qc_fail.yml", "qc_flags.json"])
def test_a_run_excludes_what_was_marked(folder: Path, file: str) -> None:
    rows = _rows()
    failed = [_mark(row, "Fail") for row in rows if row["name"] not in (_NAMES[0], _NAMES[3])]
    save_flags(folder, _record(folder, failed), rows)
    excluded = Exclusions(yml=[folder / file])
    assert [name for name in _NAMES if not excluded.reason(name)] == [_NAMES[0], _NAMES[3]]
    assert excluded.unmet() == []


def test_lists_without_names_are_lists(folder: Path) -> None:
    save_flags(folder, _record(folder, []), _rows())
    assert [_listed(folder, verdict) for verdict in ("pass", "fail", "artifact")] == [[], [], []]


def test_plain_names_stand_as_they_are() -> None:
    assert yaml_list(["a b/c-d_e.nii", "a.nii "]) == 'FILES_SEG:\n- a b/c-d_e.nii\n- "a.nii "\n'


def test_of_two_marks_of_a_volume_the_newer_one_counts(folder: Path) -> None:
    rows = _rows()
    save_flags(folder, _record(folder, [_mark(rows[0], "Fail", "2025-02"), _mark(rows[1], "Pass")]), rows)
    save_flags(folder, _record(folder, [_mark(rows[0], "Pass", "2025-01"), _mark(rows[2], "Pass")]), rows)
    assert {mark["name"]: mark["qc"] for mark in read_flags(folder)} == {
        _NAMES[0]: "Fail",
        _NAMES[1]: "Pass",
        _NAMES[2]: "Pass",
    }
    save_flags(folder, _record(folder, [_mark(rows[0], "", "2025-03", rank=4)]), rows)
    assert _listed(folder, "fail") == []
    assert read_flags(folder)[0]["rank"] == 4


def test_marks_of_many_at_once_all_stay(folder: Path) -> None:
    rows = _rows()
    threads = [
        threading.Thread(target=save_flags, args=(folder, _record(folder, [_mark(row, "Pass")]), rows))
        for row in rows
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {mark["id"] for mark in read_flags(folder)} == {row["id"] for row in rows}
    assert len(_listed(folder, "pass")) == len(rows)


def test_a_volume_that_the_report_has_no_more_keeps_its_mark(folder: Path) -> None:
    row = _rows()[0]
    save_flags(folder, _record(folder, [_mark(row, "Fail")]), [])
    assert _listed(folder, "fail") == [_NAMES[0]]


def _wrong(**facts: Any) -> dict[str, Any]:
    return {"version": 1, "marks": [_mark(_rows()[0], "Pass") | facts]}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ([], "is not of version 1"),
        ({"version": 2, "marks": []}, "is not of version 1"),
        ({"version": 1}, "has no list of marks"),
        ({"version": 1, "marks": {}}, "has no list of marks"),
        ({"version": 1, "marks": [3]}, "mark 0 is not what it should be"),
        (_wrong(id="../../../../etc"), "mark 0 is not what it should be"),
        (_wrong(qc="Maybe"), "mark 0 is not what it should be"),
        (_wrong(qc=None), "mark 0 is not what it should be"),
        (_wrong(qc=["Pass"]), "mark 0 is not what it should be"),
        (_wrong(rank=10), "mark 0 is not what it should be"),
        (_wrong(rank=-1), "mark 0 is not what it should be"),
        (_wrong(rank=True), "mark 0 is not what it should be"),
        (_wrong(rank="5"), "mark 0 is not what it should be"),
        (_wrong(name=None), "mark 0 is not what it should be"),
        (_wrong(name="x" * 9000), "mark 0 is not what it should be"),
        (_wrong(at=7), "mark 0 is not what it should be"),
        ({"version": 1, "marks": [{"id": "0" * 16}]}, "mark 0 is not what it should be"),
    ],
)
def test_what_is_no_record_of_marks_is_refused(folder: Path, record: Any, said: str) -> None:
    if isinstance(record, dict):
        record = {"report": identity(folder)["uuid"], **record}
    with pytest.raises(InputError, match=said):
        save_flags(folder, record, [])
    assert not (folder / "qc_flags.json").exists()


def test_marks_of_another_report_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="of another report"):
        save_flags(folder, {"version": 1, "report": "another", "marks": []}, [])


def test_what_does_not_belong_into_a_mark_is_left_out(folder: Path) -> None:
    row = _rows()[0]
    save_flags(folder, _record(folder, [_mark(row, "Pass", extra="<script>")]), [row])
    assert read_flags(folder) == [_mark(row, "Pass")]


@pytest.mark.parametrize("text", ["", "{", "[" * 5000, "[]", json.dumps(_wrong(rank="x"))])
def test_damaged_marks_are_none(folder: Path, text: str) -> None:
    (folder / "qc_flags.json").write_text(text)
    assert read_flags(folder) == []


def test_a_folder_that_is_no_report_takes_no_marks(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is no report"):
        save_flags(tmp_path, {"version": 1, "report": "r", "marks": []}, [])
    assert list(tmp_path.iterdir()) == []


def test_marks_of_a_mask_that_was_made_anew_are_kept_and_not_listed(folder: Path) -> None:
    rows = _rows()
    rows[0]["mask"] = rows[1]["mask"] = "0123456789ab"
    marks = [_mark(rows[0], "Fail", mask="ba9876543210"), _mark(rows[1], "Fail", mask="0123456789ab")]
    save_flags(folder, _record(folder, marks), rows)
    assert read_flags(folder) == marks
    assert _listed(folder, "fail") == ["sub-02_T2w.nii.gz"]
    for file in ("qc_fail.yml", "qc_flags.json"):
        excluded = Exclusions(yml=[folder / file])
        assert [name for name in _NAMES if excluded.reason(name)] == [_NAMES[1]]


def test_lists_are_renewed_when_masks_are_made_anew(folder: Path) -> None:
    rows = _rows()
    save_flags(folder, _record(folder, [_mark(row, "Fail") for row in rows[:2]]), rows)
    rows[0]["mask"] = "0123456789ab"
    renew_lists(folder, rows)
    assert _listed(folder, "fail") == ["sub-02_T2w.nii.gz"]
    rows[0]["mask"] = ""  # the mask that was judged is back
    renew_lists(folder, rows)
    assert _listed(folder, "fail") == ["sub-01_T2w.nii.gz", "sub-02_T2w.nii.gz"]
    assert '"earlier"' not in (folder / "qc_flags.json").read_text()


def test_marks_that_cannot_be_read_are_left_as_they_are(folder: Path) -> None:
    (folder / "qc_flags.json").write_text("{")
    renew_lists(folder, _rows())
    assert (folder / "qc_flags.json").read_text() == "{"
    assert not (folder / "qc_fail.yml").exists()
