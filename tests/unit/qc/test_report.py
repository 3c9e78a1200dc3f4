"""The folder of a report."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fastseg.errors import OutputError
from fastseg.qc import journal, report
from fastseg.qc.entry import detail_of, row_of
from fastseg.qc.pictures import Sheet
from fastseg.qc.report import Report, check_writable, id_of, page_files, script_json, write_volume_files

_SHEET = Sheet(b"jpeg", b"png", b"small", {"size": [10, 20], "tile": 80})
_HOSTILE = "</script><script>window.hacked=1</script>&\u2028'\"🧠\udce9" + "x" * 4000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "qc"


def _row(name: str = "sub-01/anat/sub-01_T2w.nii.gz", **facts: Any) -> dict[str, Any]:
    known: dict[str, Any] = {"dataset": "set", "contrast": "t2", "status": "ok", **facts}
    return row_of(name=name, mask=Path("/out") / name, **known)


def _detail(name: str = "sub-01/anat/sub-01_T2w.nii.gz", **facts: Any) -> dict[str, Any]:
    return detail_of(image=Path("/in") / name, mask=Path("/out") / name, manual=Path("/out/m.nii"), **facts)


def _index(folder: Path) -> dict[str, Any]:
    text = (folder / "index.js").read_text("ascii")
    assert text.startswith("fastsegIndex(")
    assert text.endswith(");\n")
    index: dict[str, Any] = json.loads(text[len("fastsegIndex(") : -3])
    return index


def _names(folder: Path) -> list[str]:
    return [row["name"] for row in _index(folder)["volumes"]]


def _journals(folder: Path) -> list[Path]:
    return sorted((folder / "journal").glob("*.jsonl"))


def test_the_files_of_a_volume_lie_where_the_page_looks_for_them(folder: Path) -> None:
    row, detail = _row(), _detail(areas=[[3, 70.25]])
    with Report(folder) as made:
        made.add(row, detail, _SHEET)
    key = row["id"]
    place = folder / "volumes" / key[:2]
    assert (place / f"{key}.jpg").read_bytes() == b"jpeg"
    assert (place / f"{key}.png").read_bytes() == b"png"
    assert (place / f"{key}_thumb.jpg").read_bytes() == b"small"
    assert sorted(path.name for path in place.iterdir()) == sorted(
        f"{key}{tail}" for tail in (".jpg", ".png", "_thumb.jpg", ".js")
    )
    text = (place / f"{key}.js").read_text("ascii")
    assert text.startswith(f'fastsegDetail("{key}", {{')
    assert made.detail(key) == detail | {"sheet": _SHEET.layout}
    assert json.loads((folder / "_json" / f"qc_{key}.json").read_text())["subject"] == "sub-01"


def test_the_index_has_the_newest_row_of_each_volume_and_the_worst_first(folder: Path) -> None:
    with Report(folder) as made:
        made.note(_row("b.nii", at="2025-01-02"))
        made.note(_row("a.nii", status="error", at="2025-01-01"))
        made.note(_row("c.nii", status="ok_flagged", flags=["short"], at="2025-01-01"))
        made.note(_row("b.nii", status="no_cord", at="2025-01-01"))  # older, though written later
        made.note(_row("a.nii", at="2025-01-03"))
    assert _names(folder) == ["c.nii", "a.nii", "b.nii"]
    assert made.rows() == _index(folder)["volumes"]


def test_rows_of_several_writers_come_together(folder: Path) -> None:
    with Report(folder) as first, Report(folder) as second:
        first.note(_row("a.nii"))
        second.note(_row("b.nii"))
        assert len(_journals(folder)) == 2
    assert _names(folder) == ["a.nii", "b.nii"]
    assert first.identity == second.identity


def test_a_foreign_row_cannot_bring_its_own_script(folder: Path) -> None:
    with Report(folder) as made:
        foreign = folder / "journal" / "other-1-00000000.jsonl"
        foreign.write_text(json.dumps(_row(_HOSTILE), ensure_ascii=False).replace("\udce9", "\\udce9") + "\n")
    text = (folder / "index.js").read_text("ascii")
    assert {"<", ">", "&"}.isdisjoint(text)
    assert _names(folder) == [_HOSTILE]
    assert made.rows()[0]["name"] == _HOSTILE


def test_hostile_names_are_inert_in_every_script(folder: Path) -> None:
    with Report(folder) as made:
        made.add(_row(_HOSTILE, message=_HOSTILE), _detail(notes=[_HOSTILE]), _SHEET)
    assert _names(folder) == [_HOSTILE]
    scripts = [path for path in folder.rglob("*") if path.suffix in (".js", ".json", ".jsonl")]
    for path in scripts:
        if path.parent.name != "page":
            assert {b"<", b">", b"&"}.isdisjoint(bytes([byte]) for byte in path.read_bytes()), path
            path.read_text("ascii")


def test_numbers_that_are_not_finite_become_null() -> None:
    odd = {"a": [float("nan"), (1.5, float("inf"))], "b": {"c": float("-inf")}}
    assert json.loads(script_json(odd)) == {"a": [None, [1.5, None]], "b": {"c": None}}


@pytest.mark.parametrize("key", ["../../etc/passwd", "", "0123456789abcde", "0123456789abcdeg", 5])
def test_what_is_no_id_becomes_no_path(folder: Path, key: Any) -> None:
    row = _row() | {"id": key}
    with Report(folder) as made:
        for use in (
            lambda: made.note(row),
            lambda: made.add(row, _detail(), None),
            lambda: write_volume_files(folder, row, _detail(), None),
            lambda: made.detail(key),
        ):
            with pytest.raises(OutputError, match="is no id of a volume"):
                use()
    assert _names(folder) == []


def test_a_volume_is_known_by_where_its_mask_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert id_of(Path("out/../a_seg.nii")) == id_of(tmp_path / "a_seg.nii") != id_of(tmp_path / "b_seg.nii")
    assert journal.is_id(id_of(Path(os.fsdecode(b"/latin-\xe9.nii"))))


def test_pictures_of_an_earlier_result_do_not_stay(folder: Path) -> None:
    with Report(folder) as made:
        made.add(_row(at="2025-01-01"), _detail(), _SHEET)
        made.add(_row(at="2025-01-02", status="no_cord"), _detail(), None)
    assert [path.suffix for path in (folder / "volumes").rglob("*.*")] == [".js"]
    (row,) = made.rows()
    assert row["pictures"] is False


def test_the_page_is_copied_and_replaced_where_it_differs(folder: Path) -> None:
    with Report(folder):
        pass
    wanted = page_files()
    found = {path.name: path for path in (folder / "index.html", *(folder / "page").iterdir())}
    assert {name: path.read_bytes() for name, path in found.items()} == wanted
    assert not [name for name in wanted if name.startswith("volume.")]
    before = {name: path.stat().st_ino for name, path in found.items()}
    found["style.css"].write_text("older")
    with Report(folder):
        pass
    assert found["style.css"].read_bytes() == wanted["style.css"]
    assert all(found[name].stat().st_ino == before[name] for name in wanted if name != "style.css")


def test_a_report_is_the_same_for_good(folder: Path) -> None:
    check_writable(folder)
    first = json.loads((folder / "report.json").read_text())
    with Report(folder):
        pass
    assert json.loads((folder / "report.json").read_text()) == first
    assert {"version": 1, "volumes": [], "marks": []} | first == _index(folder)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("report.json", '{"version": 2, "uuid": "u", "made": "m"}', "layout 2, .* choose another folder"),
        ("report.json", "{", "is not fastseg's; remove it"),
        ("report.json", "[]", "is not fastseg's; remove it"),
        ("index.html", "<title>SCT</title>", "holds an index.html that is not fastseg's"),
    ],
)
def test_a_folder_of_something_else_is_refused(folder: Path, name: str, text: str, said: str) -> None:
    folder.mkdir()
    (folder / name).write_text(text)
    for use in (lambda: check_writable(folder), lambda: Report(folder).__enter__()):
        with pytest.raises(OutputError, match=said) as caught:
            use()
        assert "\n" not in str(caught.value)
    assert (folder / name).read_text() == text


def test_a_folder_that_cannot_be_made_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file: cannot be written .* choose another folder for the report"):
        check_writable(tmp_path / "file")


def test_what_is_no_report_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"is no report, it has no report\.json"):
        Report(tmp_path).identity  # noqa: B018
    assert Report(tmp_path).rows() == []


def test_reading_writes_nothing(folder: Path) -> None:
    with Report(folder) as made:
        made.add(_row(), _detail(), None)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    reader = Report(folder)
    assert len(reader.rows()) == 1
    assert reader.detail(_row()["id"]) is not None
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("text", ["", "fastsegDetail(", 'fastsegDetail("{key}", {{"a": 1', "alert(1)", "[]"])
def test_details_that_are_damaged_are_none(folder: Path, text: str) -> None:
    row = _row()
    with Report(folder) as made:
        made.add(row, _detail(), None)
    (folder / "volumes" / row["id"][:2] / f"{row['id']}.js").write_text(text.format(key=row["id"]))
    assert made.detail(row["id"]) is None


def test_the_index_has_the_marks(folder: Path) -> None:
    mark = {"id": _row()["id"], "name": "n", "qc": "Fail", "rank": 3, "mask": "", "at": "2025"}
    with Report(folder):
        (folder / "qc_flags.json").write_text(json.dumps({"version": 1, "marks": [mark]}))
    assert _index(folder)["marks"] == [mark]


# --- when the index is made


def test_the_index_comes_during_the_run_and_takes_little_of_its_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1_000_000))
    now = 0.0
    published = []

    def monotonic() -> float:
        next(clock)
        return now

    def write_index(self: Report) -> None:
        nonlocal now
        published.append(now)
        now += 0.5  # what it takes

    monkeypatch.setattr(report.time, "monotonic", monotonic)
    monkeypatch.setattr(Report, "_write_index", write_index)
    with Report(folder) as made:
        for _ in range(200):
            now += 1.0
            made.note(_row())
    assert published[0] == pytest.approx(3.0)
    gaps = [later - earlier for earlier, later in pairwise(published[:-1])]
    assert gaps
    assert min(gaps) >= 0.5 / 0.02


@pytest.fixture
def held(folder: Path) -> Iterator[None]:
    """The lock of the index, held by another process, as it seems."""
    check_writable(folder)
    with (folder / "journal" / ".lock").open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def test_who_finds_the_lock_taken_goes_on_with_its_work(
    folder: Path, held: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(report, "_PATIENCE_SECONDS", 0.1)
    with Report(folder) as made:
        made.note(_row())
        assert not (folder / "index.js").exists()
    assert len(_names(folder)) == 1  # at the end it does not wait for ever


def test_who_waits_at_the_end_leaves_the_index_to_others_who_made_it_meanwhile(folder: Path) -> None:
    check_writable(folder)
    lock = folder / "journal" / ".lock"
    with Report(folder) as made, journal.locked(lock):
        made.note(_row())
    assert lock.stat().st_size == 2  # both had a turn
    before = (folder / "index.js").stat().st_ino

    class Others:
        """Two turns of others pass while this one waits."""

        def __init__(self) -> None:
            self.asked = 0

        def __call__(self, file: int) -> bool:
            self.asked += 1
            with lock.open("ab") as stream:
                stream.write(b".")
            return self.asked == 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_try_lock", Others())
        made.publish()
    assert (folder / "index.js").stat().st_ino == before
    made.publish()
    assert (folder / "index.js").stat().st_ino != before


def test_a_file_system_without_locks_will_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(stream: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    for number in range(60):
        with Report(folder) as made:
            made.note(_row(f"{number:02}.nii"))
    assert _names(folder) == [f"{number:02}.nii" for number in range(60)]
    assert len(_journals(folder)) == 60  # one cannot tell who still writes
