"""The viewer's server, asked as its page asks it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fastseg.serving import Site
from fastseg.viewer import routes
from fastseg.viewer.drawing import Drawing
from fastseg.viewer.routes import PageClock, sitting_routes
from fastseg.viewer.sitting import Sitting
from tests.unit.cohort.fake_segmenters import volume_file
from tests.unit.viewer.page_client import ask

_POINTS = [[1.0, 1.0, 0.0], [2.0, 1.0, 4.0]]
_NAME = "<script>alert('1')</script> \N{SNOWMAN}.nii".replace("/", "")


@pytest.fixture
def sitting(tmp_path: Path) -> Sitting:
    sources = [volume_file(tmp_path / name, 1) for name in ("v0.nii", _NAME)]
    (tmp_path / "secret.nii.gz").write_text("not for the page")
    return Sitting([Drawing(each.name, each, tmp_path / f"{each.stem}_points.json") for each in sources])


@pytest.fixture
def clock() -> PageClock:
    return PageClock()


@pytest.fixture
def url(sitting: Sitting, clock: PageClock) -> Iterator[str]:
    with Site(sitting_routes(sitting, clock)) as site:
        yield site.url


def test_the_page_and_its_parts_are_served(url: str) -> None:
    page = ask(url, "GET", "")
    assert (page.status, b"<!doctype html>" in page.content.lower()) == (200, True)
    assert ask(url, "GET", "page/server.js").status == 200
    assert b"niivue" in ask(url, "GET", "niivue.js").content


@pytest.mark.parametrize(
    "path",
    [
        "page/", "page/../sitting.py", "page/%2e%2e/sitting.py", "page/..%2fsitting.py", "page//etc/passwd",
        "page/%00", "image/", "image/2.nii.gz", "image/../secret.nii.gz", "image/secret.nii.gz",
        "image/0.nii.gz/..", "image/-1.nii.gz", "image/0", "secret.nii.gz", "v0.nii", "sitting", ".",
    ],
)  # fmt: skip
def test_nothing_but_the_page_and_its_volumes_is_served(url: str, path: str) -> None:
    answer = ask(url, "GET", path)
    assert answer.status in (400, 404)
    assert b"not for the page" not in answer.content


def test_a_wrong_token_opens_nothing(url: str) -> None:
    base = url.rsplit("/", 2)[0]
    for token in ("", "x", url.rsplit("/", 2)[1][:-1]):
        for method, path in (("GET", ""), ("GET", "sitting.json"), ("POST", "cancel")):
            assert ask(f"{base}/{token}/", method, path).status == 404


def test_a_sitting_from_the_first_click_to_the_last(url: str, sitting: Sitting) -> None:
    record = ask(url, "GET", "sitting.json").json
    assert [each["name"] for each in record["volumes"]] == ["v0.nii", _NAME]
    assert (record["current"], record["over"]) == (0, False)
    assert ask(url, "GET", record["volumes"][0]["image"]).content[:2] == b"\x1f\x8b"
    curve = ask(url, "POST", "curve", {"number": 0, "points": _POINTS}).json
    assert np.allclose(curve["curve"], [[1, 1, 0], [1.5, 1, 2], [2, 1, 4]])
    assert ask(url, "PUT", "points", {"number": 0, "points": _POINTS}).json == {"change": 1}
    assert ask(url, "GET", "sitting.json").json["volumes"][0]["points"] == _POINTS
    record = ask(url, "POST", "save", {"number": 0}).json
    assert (record["volumes"][0]["state"], record["current"], record["over"]) == ("saved", 1, False)
    record = ask(url, "POST", "skip", {"number": 1}).json
    assert (record["volumes"][1]["state"], record["current"], record["over"]) == ("skipped", None, True)
    assert len(sitting.saved) == 1


def test_points_may_come_with_the_request_to_save(url: str, sitting: Sitting) -> None:
    assert ask(url, "POST", "save", {"number": 1, "points": _POINTS}).json["current"] == 0
    assert [each.name for each in sitting.saved] == [_NAME]


def test_cancel_and_finish_end_it(url: str, sitting: Sitting) -> None:
    record = ask(url, "POST", "finish", {}).json
    assert (record["over"], record["cancelled"]) == (True, False)
    assert sitting.over


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "save", {"number": 0}, 400, "no point yet"),
        ("POST", "save", {"number": 0, "points": [[0, 0, 999]]}, 400, "outside the image"),
        ("POST", "save", {"number": 9}, 400, "no volume 9"),
        ("POST", "save", {}, 400, "no volume None"),
        ("POST", "skip", [0], 400, "no JSON object"),
        ("PUT", "points", {"number": 0, "points": "x"}, 400, "three numbers"),
        ("POST", "curve", {"number": 0, "points": [[1, 2]]}, 400, "three numbers"),
        ("GET", "save", None, 405, ""),
        ("POST", "sitting.json", {}, 405, ""),
    ],
)
def test_a_bad_request_gets_one_line(
    url: str, method: str, path: str, body: object, status: int, text: str
) -> None:
    answer = ask(url, method, path, body)
    assert (answer.status, "\n" in answer.text) == (status, False)
    assert text in answer.text


def test_points_that_cannot_be_written_are_told_to_the_page(url: str, tmp_path: Path) -> None:
    (tmp_path / "v0_points.json").mkdir()
    answer = ask(url, "POST", "save", {"number": 0, "points": _POINTS})
    assert (answer.status, "cannot be written" in answer.text) == (500, True)
    assert ask(url, "GET", "sitting.json").json["volumes"][0]["state"] == "open"


def test_a_page_that_knows_the_last_change_hears_of_the_next(
    url: str, sitting: Sitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "_HOLD_SECONDS", 3600.0)  # nobody lives to see its end
    assert ask(url, "POST", "alive").json["change"] == 0
    assert ask(url, "POST", "alive", {"change": -1}).json["change"] == 0
    later = threading.Timer(0.2, sitting.skip, args=(0,))
    later.start()
    assert ask(url, "POST", "alive", {"change": 0}).json["current"] == 1  # at once it would be 0
    later.join()
    monkeypatch.setattr(routes, "_HOLD_SECONDS", 0.01)
    assert ask(url, "POST", "alive", {"change": 1}).json["change"] == 1


def test_the_clock_knows_how_long_the_page_has_been_silent(
    url: str, clock: PageClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clock.silent_seconds == 0
    before = time.monotonic()
    ask(url, "POST", "alive")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 100)
    assert 100 <= clock.silent_seconds <= 100 + now - before
