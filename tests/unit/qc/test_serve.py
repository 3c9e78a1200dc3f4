from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import nibabel as nib
import pytest
import yaml

from fastseg.errors import OutputError
from fastseg.niivue import SCRIPT
from fastseg.qc.entry import detail_of, row_of
from fastseg.qc.marks import read_flags
from fastseg.qc.pictures import Sheet
from fastseg.qc.report import Report, id_of
from fastseg.qc.serve import report_routes
from fastseg.serving import Site
from tests.phantom_files import save_phantom

_SHEET = Sheet(b"\xff\xd8sheet", b"\x89PNGoutline", b"\xff\xd8thumb", {"size": [1, 1]})
_NAME = "sub-01_T2w.nii.gz"


def _ask(site: Site, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes, str]:
    try:
        with urlopen(Request(site.url + path, body, method=method), timeout=300) as reply:
            return reply.status, reply.read(), reply.headers["Content-Type"] or ""
    except HTTPError as error:
        with error:
            return error.code, error.read(), error.headers["Content-Type"] or ""


def _script(content: bytes) -> Any:
    text = content.decode("ascii").strip()
    assert text.startswith("fastsegIndex(")
    return json.loads(text.removeprefix("fastsegIndex(").removesuffix(");"))


def _add(report: Report, image: Path | None, mask: Path, **facts: Any) -> str:
    known: dict[str, Any] = {"dataset": "d", "contrast": "t2", "status": "ok", "name": _NAME} | facts
    detail = detail_of(image=image, mask=mask, manual=mask.with_name("corrected.nii.gz"))
    report.add(row_of(mask=mask, **known), detail, _SHEET)
    return id_of(mask)


class _Place:
    """A report with one volume, and its files."""

    def __init__(self, folder: Path, volume: bytes) -> None:
        self.folder, self.report = folder, folder / "qc"
        self.image, self.mask = folder / "in" / _NAME, folder / "out" / "mask.nii.gz"
        for path in (self.image, self.mask):
            path.parent.mkdir()
            path.write_bytes(volume)
        with Report(self.report) as report:
            self.key = _add(report, self.image, self.mask)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return save_phantom(tmp_path_factory.mktemp("phantom") / _NAME, n_slices=2).read_bytes()


@pytest.fixture
def place(tmp_path: Path, volume: bytes) -> _Place:
    return _Place(tmp_path, volume)


@pytest.fixture
def site(place: _Place) -> Iterator[Site]:
    with Site(report_routes(place.report)) as made:
        yield made


def test_page_and_its_files_are_served(site: Site, place: _Place) -> None:
    status, content, kind = _ask(site, "")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert content == (place.report / "index.html").read_bytes() == _ask(site, "index.html")[1]
    for path in sorted((place.report / "page").iterdir()):
        status, content, kind = _ask(site, f"page/{path.name}")
        assert (status, content) == (200, path.read_bytes())
        assert kind.startswith("text/css" if path.suffix == ".css" else "text/javascript")
    assert _ask(site, "volume.html")[2].startswith("text/html")
    assert _ask(site, "niivue.js")[1] == SCRIPT.read_bytes()
    assert json.loads(_ask(site, "served.json")[1]) == {"marks": True, "news": True, "viewer": True}


def _news(site: Site, **known: object) -> int:
    count = json.loads(_ask(site, f"news.json?{urlencode(known)}")[1])["count"]
    assert isinstance(count, int)
    return count


def test_what_a_run_added_since_is_counted(site: Site, place: _Place) -> None:
    (row,) = Report(place.report).rows()
    assert [_news(site, since=row["at"], known=1), _news(site)] == [0, 1]
    with Report(place.report) as report:
        _add(report, place.image, place.mask)
        # Of a machine whose clock is behind.
        _add(report, place.image, place.mask.with_name("other.nii.gz"), at="2001-01-01T00:00:00+00:00")
    assert _news(site, since=row["at"], known=1) == 1
    newest = max(row["at"] for row in Report(place.report).rows())
    assert [_news(site, since=newest, known=known) for known in (1, 2, "x")] == [1, 0, 0]


def test_files_of_a_volume_are_served(site: Site, place: _Place) -> None:
    below = f"volumes/{place.key[:2]}/{place.key}"
    assert _ask(site, f"{below}.jpg")[1:] == (_SHEET.image, "image/jpeg")
    assert _ask(site, f"{below}.png")[1:] == (_SHEET.outline, "image/png")
    assert _ask(site, f"{below}_thumb.jpg")[1:] == (_SHEET.thumbnail, "image/jpeg")
    assert _ask(site, f"{below}.js")[1].startswith(b'fastsegDetail("')
    assert _ask(site, f"volumes/{place.key[:2]}/{'0' * 16}.jpg")[0] == 404


def test_index_shows_what_a_run_adds_meanwhile(site: Site, place: _Place) -> None:
    assert [row["id"] for row in _script(_ask(site, "index.js")[1])["volumes"]] == [place.key]
    with Report(place.report) as report:
        second = _add(report, place.image, place.folder / "second.nii.gz", status="no_cord")
        assert {row["id"] for row in _script(_ask(site, "index.js")[1])["volumes"]} == {place.key, second}
    assert [row["id"] for row in _script(_ask(site, "index.js")[1])["volumes"]] == [second, place.key]


def test_report_without_its_journals_shows_its_index(place: _Place) -> None:
    for path in (place.report / "journal").glob("*.jsonl"):
        path.unlink()
    with Site(report_routes(place.report)) as site:
        assert [row["id"] for row in _script(_ask(site, "index.js")[1])["volumes"]] == [place.key]


def test_hostile_names_are_inert_in_the_index(site: Site, place: _Place) -> None:
    name = "</script><img src=x onerror=alert(1)>\u2028" + "\u00e9" * 4000
    with Report(place.report) as report:
        key = _add(report, place.image, place.folder / "h.nii.gz", name=name)
    content = _ask(site, "index.js")[1]
    assert b"<" not in content
    assert content.isascii()
    assert {row["id"]: row["name"] for row in _script(content)["volumes"]}[key] == name
    assert json.loads(_ask(site, f"volume.json?id={key}")[1])["name"] == name


def test_marks_are_kept_in_the_report(site: Site, place: _Place) -> None:
    uuid = json.loads((place.report / "report.json").read_bytes())["uuid"]
    mark = {"id": place.key, "name": _NAME, "qc": "Fail", "rank": 2, "mask": "", "at": "2026-01-01T00:00:00Z"}
    record = {"version": 1, "report": uuid, "marks": [mark]}
    assert _ask(site, "marks", "PUT", json.dumps(record).encode())[0] == 204
    assert read_flags(place.report) == [mark]
    assert yaml.safe_load((place.report / "qc_fail.yml").read_text()) == {"FILES_SEG": [_NAME]}
    assert _script(_ask(site, "index.js")[1])["marks"] == [mark]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"version": 1, "report": "another", "marks": []}', b"\xff"]
)
def test_marks_that_are_none_are_refused_in_one_line(site: Site, place: _Place, body: bytes) -> None:
    status, content, kind = _ask(site, "marks", "PUT", body)
    assert (status, kind) == (400, "text/plain; charset=utf-8")
    assert b"\n" not in content
    assert not (place.report / "qc_flags.json").exists()


def test_image_and_mask_of_a_volume_are_served_whole(site: Site, place: _Place) -> None:
    facts = json.loads(_ask(site, f"volume.json?id={place.key}")[1])
    affine = nib.load(place.image).affine.tolist()
    state = {"url": f"image/{place.key}.nii.gz", "name": _NAME, "problem": "", "affine": affine}
    assert facts["image"] == state
    assert facts["manual"] == {"url": "", "name": "", "problem": "", "affine": None}
    assert _ask(site, facts["image"]["url"])[1] == place.image.read_bytes()
    assert _ask(site, facts["mask"]["url"])[1] == place.mask.read_bytes()


def test_corrected_mask_is_served_as_soon_as_it_is_there(site: Site, place: _Place) -> None:
    corrected = place.mask.with_name("corrected.nii.gz")
    corrected.write_bytes(gzip.compress(gzip.decompress(place.mask.read_bytes()), 1))
    url = json.loads(_ask(site, f"volume.json?id={place.key}")[1])["manual"]["url"]
    assert _ask(site, url)[1] == corrected.read_bytes()


def test_volume_that_lies_behind_a_link_is_served(site: Site, place: _Place) -> None:
    elsewhere = place.image.rename(place.folder / "annexed.nii.gz")
    place.image.symlink_to(elsewhere)
    assert _ask(site, f"image/{place.key}.nii.gz")[1] == elsewhere.read_bytes()


def test_volume_that_is_gone_is_said_to_be(site: Site, place: _Place) -> None:
    place.image.unlink()
    facts = json.loads(_ask(site, f"volume.json?id={place.key}")[1])
    assert facts["image"]["url"] == ""
    assert facts["image"]["problem"] == f"{place.image}: is not there any more"
    assert _ask(site, f"image/{place.key}.nii.gz")[0] == 404


_NO_VOLUMES = [
    b"", b"secret", b"\x1f\x8b", gzip.compress(b"secret" * 1000, mtime=0), bytes(1000),
    b"\x5c\x01\0\0" + bytes(400),
]  # fmt: skip


@pytest.mark.parametrize("content", _NO_VOLUMES, ids=range(len(_NO_VOLUMES)))
def test_file_that_does_not_begin_as_a_volume_is_not_served(
    site: Site, place: _Place, content: bytes
) -> None:
    place.image.write_bytes(content)
    assert _ask(site, f"image/{place.key}.nii.gz")[0] == 404
    problem = json.loads(_ask(site, f"volume.json?id={place.key}")[1])["image"]["problem"]
    assert problem == f"{place.image}: cannot be read as NIfTI"


def test_details_that_name_other_files_do_not_open_them(place: _Place) -> None:
    secret = place.folder / "secret.txt"
    secret.write_bytes(place.image.read_bytes())  # a volume, but not by its name
    relative = os.path.relpath(place.image)
    with Report(place.report) as report:
        for number, path in enumerate(
            [str(secret), relative, "/etc/passwd", "/dev/zero", "/proc/self/environ"]
        ):
            mask = place.folder / f"{number}.nii.gz"
            _add(report, place.image, mask)
            key = id_of(mask)
            detail = place.report / "volumes" / key[:2] / f"{key}.js"
            detail.write_text(detail.read_text().replace(json.dumps(str(place.image)), json.dumps(path)))
    with Site(report_routes(place.report)) as site:
        for number in range(5):
            key = id_of(place.folder / f"{number}.nii.gz")
            for tail in (".nii.gz", ".nii", ""):
                assert _ask(site, f"image/{key}{tail}")[0] == 404
            assert json.loads(_ask(site, f"volume.json?id={key}")[1])["image"]["url"] == ""


def test_only_volumes_of_the_report_are_served(site: Site, place: _Place) -> None:
    other = "0123456789abcdef"
    detail = place.report / "volumes" / "01" / f"{other}.js"
    detail.parent.mkdir(exist_ok=True)  # the report's own volume may have the same two digits
    paths = {"image": str(place.image), "mask": str(place.mask)}
    detail.write_text(f'fastsegDetail("{other}", {json.dumps({"paths": paths})});\n')
    for path in (f"image/{other}.nii.gz", f"volume.json?id={other}", "volume.json", "volume.json?id=../x"):
        assert _ask(site, path)[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "report.json", "journal/", "journal", "qc_flags.json", "volumes/", "volumes", "volumes/..", "page/",
        "page", "page/../report.json", "page/%2e%2e/report.json", "volumes/%2e%2e/report.json",
        "page/volume.html%00", "volumes/../../in/{name}", "volumes/..%2f..%2fin%2f{name}",
        "image/..%2f..%2fin%2f{name}", "volumes//etc/passwd", "image//etc/passwd", "image/{image}",
        "volumes/{image}", "page/{image}", "{image}", "image/{key}", "image/{key}.nii", "image/{key}.nii.gz/",
        "image/{key}.nii.gz%00", "image/x{key}.nii.gz", "secret/{key}.nii.gz", "volumes/00/{key}.jpg",
        "volumes/{two}/{key}.jpg.bak", "volumes/{two}/", "volumes/{two}/{key}", "index.htm", "..", "%2e%2e",
        "../", "niivue.js/x", "volume.json/x",
    ],
)  # fmt: skip
def test_nothing_else_is_served(site: Site, place: _Place, path: str) -> None:
    names = {"name": _NAME, "image": quote(str(place.image)), "key": place.key, "two": place.key[:2]}
    status, content, _ = _ask(site, path.format(**names))
    assert status == 404
    assert content in (b"Not Found", b"the report has no such volume")


def test_links_that_lead_out_of_the_report_are_not_followed(site: Site, place: _Place) -> None:
    below = place.report / "volumes" / place.key[:2]
    picture = below / f"{place.key}.jpg"
    picture.unlink()
    picture.symlink_to("/etc/passwd")
    assert _ask(site, f"volumes/{place.key[:2]}/{place.key}.jpg")[0] == 404
    below.rename(place.folder / "moved")
    below.symlink_to(place.folder / "moved")
    assert _ask(site, f"volumes/{place.key[:2]}/{place.key}.png")[0] == 404


def test_methods_that_the_report_does_not_have_are_refused(site: Site) -> None:
    for path, method in (("index.js", "PUT"), ("marks", "POST"), ("marks", "GET"), ("", "POST")):
        assert _ask(site, path, method, None if method == "GET" else b"{}")[0] == 405


def test_folder_without_a_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is no report"):
        report_routes(tmp_path)


def test_niivue_is_the_one_that_its_readme_names() -> None:
    digest = hashlib.sha256(SCRIPT.read_bytes()).hexdigest()
    assert digest in SCRIPT.with_name("README.md").read_text()
