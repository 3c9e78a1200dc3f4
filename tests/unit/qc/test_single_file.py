"""A report in one file."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fastseg.errors import InputError, OutputError
from fastseg.qc import single_file
from fastseg.qc.entry import detail_of, row_of
from fastseg.qc.pictures import Sheet
from fastseg.qc.report import Report, page_files
from fastseg.qc.single_file import write_single_file

_HOSTILE = "</script><img src=x onerror=hacked()><!--<script>.nii"
_SHEET = Sheet(b"\xff\xd8jpeg", b"\x89PNG", b"\xff\xd8small", {"size": [1, 2]})
_INLINE = re.compile(r"<script>\n(.*?)</script>", re.DOTALL)


def _fill(folder: Path, names: list[str], sheet: Sheet | None = _SHEET) -> tuple[Report, list[str]]:
    keys = []
    with Report(folder) as report:
        for name in names:
            mask = Path("/out") / name.replace("/", "_")
            row = row_of(name=name, mask=mask, dataset="d", contrast="t2", status="ok")
            report.add(row, detail_of(image=Path("/in/x"), mask=mask, manual=mask, notes=[name]), sheet)
            keys.append(row["id"])
    return report, keys


def _said(page: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The files, the index and the details in a page."""
    (script,) = (text for text in _INLINE.findall(page) if text.startswith("window.fastsegFiles = "))
    files, index, *details = script.rstrip("\n").split("\n")
    told = [re.fullmatch(r'fastsegDetail\("([0-9a-f]{16})",(.*)\);', each) for each in details]
    return (
        json.loads(files.removeprefix("window.fastsegFiles = ").removesuffix(";")),
        json.loads(index.removeprefix("fastsegIndex(").removesuffix(");")),
        {each[1]: json.loads(each[2]) for each in told if each},
    )


def test_chosen_volumes_are_in_the_page_with_everything(tmp_path: Path) -> None:
    report, keys = _fill(tmp_path / "qc", ["a.nii", "b.nii", "c.nii"])
    mark = {"id": keys[2], "name": "c.nii", "qc": "Fail", "rank": None, "mask": "", "at": "2025"}
    (tmp_path / "qc" / "qc_flags.json").write_text(json.dumps({"version": 1, "marks": [mark]}))
    assert write_single_file(report, tmp_path / "one.html", [keys[2], keys[0]]) == []
    files, index, details = _said((tmp_path / "one.html").read_text())
    assert [row["name"] for row in index["volumes"]] == ["c.nii", "a.nii"]
    assert index["marks"] == [mark]
    assert index["uuid"] == report.identity["uuid"]
    assert list(files) == list(details) == [keys[2], keys[0]]
    kind, _, content = files[keys[0]]["sheet"].partition(";base64,")
    assert (kind, base64.b64decode(content)) == ("data:image/jpeg", _SHEET.image)
    assert files[keys[0]]["outline"].startswith("data:image/png;base64,")
    assert base64.b64decode(files[keys[0]]["thumb"].partition(",")[2]) == _SHEET.thumbnail
    detail = report.detail(keys[0])
    assert detail is not None
    assert details[keys[0]] == detail | {"paths": {}, "commands": {}}


def test_no_path_of_this_machine_is_mailed(tmp_path: Path) -> None:
    report, keys = _fill(tmp_path / "qc", ["a.nii"])
    write_single_file(report, tmp_path / "one.html", keys)
    page = (tmp_path / "one.html").read_text()
    assert "/in/x" in json.dumps(report.detail(keys[0]))
    assert "/in/x" not in page
    assert str(tmp_path) not in page


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    report, keys = _fill(tmp_path / "qc", ["a.nii"])
    write_single_file(report, tmp_path / "one.html", keys)
    page = (tmp_path / "one.html").read_text()
    named = re.findall(r'\b(?:src|href)="([^"]*)"', page)
    assert [name for name in named if not name.startswith(("data:", "#"))] == []
    texts = page_files()
    for name, content in texts.items():
        if name.endswith((".js", ".css")):
            assert page.count(content.decode()) == 1, name


def test_hostile_names_are_inert(tmp_path: Path) -> None:
    report, keys = _fill(tmp_path / "qc", [_HOSTILE])
    write_single_file(report, tmp_path / "one.html", keys)
    page = (tmp_path / "one.html").read_text()
    assert "onerror" in page
    assert "<img src=x" not in page
    _, index, details = _said(page)
    assert index["volumes"][0]["name"] == details[keys[0]]["notes"][0] == _HOSTILE


def test_a_detail_that_somebody_changed_brings_no_script(tmp_path: Path) -> None:
    report, keys = _fill(tmp_path / "qc", ["a.nii"])
    path = tmp_path / "qc" / "volumes" / keys[0][:2] / f"{keys[0]}.js"
    path.write_text(f'fastsegDetail("{keys[0]}", {{}}); hacked(); (0, {{}});')
    write_single_file(report, tmp_path / "one.html", keys)
    page = (tmp_path / "one.html").read_text()
    assert "hacked" not in page
    assert _said(page)[2] == {}


def test_what_does_not_fit_is_told_and_the_file_stays_below_the_limit(tmp_path: Path) -> None:
    sheet = Sheet(b"x" * 30_000, b"y" * 9000, b"z" * 3000, {})
    report, keys = _fill(tmp_path / "qc", [f"{number:02}.nii" for number in range(20)], sheet)
    path = tmp_path / "one.html"
    bare = write_single_file(report, path, [])
    assert bare == []
    limit = path.stat().st_size + 10 * 60_000
    left = write_single_file(report, path, keys, limit)
    assert left == keys[-len(left) :]
    assert 8 <= len(keys) - len(left) <= 12
    assert limit - 60_000 < path.stat().st_size <= limit


def test_nothing_fits_into_nothing(tmp_path: Path) -> None:
    report, keys = _fill(tmp_path / "qc", ["a.nii"])
    assert write_single_file(report, tmp_path / "one.html", keys, 1000) == keys
    assert _said((tmp_path / "one.html").read_text())[1]["volumes"] == []


def test_volumes_without_pictures_are_shown_too(tmp_path: Path) -> None:
    report, keys = _fill(tmp_path / "qc", ["a.nii"], None)
    write_single_file(report, tmp_path / "one.html", [*keys, *keys])
    files, index, _ = _said((tmp_path / "one.html").read_text())
    assert files == {keys[0]: {}}
    assert len(index["volumes"]) == 1


def test_an_unknown_volume_is_told(tmp_path: Path) -> None:
    report, _ = _fill(tmp_path / "qc", ["a.nii"])
    with pytest.raises(InputError, match="has no volume '0000000000000000'"):
        write_single_file(report, tmp_path / "one.html", ["0" * 16])


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    report, keys = _fill(tmp_path / "qc", ["a.nii"])
    with pytest.raises(OutputError, match=r"cannot be written .*; choose another place for it"):
        write_single_file(report, tmp_path / "no" / "one.html", keys)


_PAGE = '<link rel="stylesheet" href="page/style.css"><script src="page/app.js"></script>'


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (_PAGE, "names index.js 0 times"),
        (_PAGE + '<script src="index.js"></script>' * 2, "names index.js 2 times"),
        (_PAGE + _PAGE + '<script src="index.js"></script>', "does not name each of its files once"),
        ('<script src="page/app.js"></script><script src="index.js"></script>', "does not name each"),
        (_PAGE + '<script src="page/no.js"></script><script src="index.js"></script>', "does not name each"),
        (_PAGE + '<img src="a.png"><script src="index.js"></script>', "needs another file"),
        (_PAGE + '<a href="https://x.org"></a><script src="index.js"></script>', "needs another file"),
    ],
)
def test_a_page_that_is_not_ours_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, said: str
) -> None:
    report, keys = _fill(tmp_path / "qc", ["a.nii"])
    files = {"index.html": page.encode(), "style.css": b"a{}", "app.js": b"1;"}
    monkeypatch.setattr(single_file, "page_files", lambda: files)
    with pytest.raises(OutputError, match=said):
        write_single_file(report, tmp_path / "one.html", keys)
    assert not (tmp_path / "one.html").exists()


def test_a_script_does_not_end_at_what_it_says_of_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, keys = _fill(tmp_path / "qc", ["a.nii"])
    page = _PAGE + '<script src="index.js"></script>'
    files = {"index.html": page.encode(), "style.css": b"a{}", "app.js": b'const a = "</script>\\n";'}
    monkeypatch.setattr(single_file, "page_files", lambda: files)
    write_single_file(report, tmp_path / "one.html", keys)
    assert 'const a = "<\\/script>\\n";</script>' in (tmp_path / "one.html").read_text()
