"""The report's page under the hands of somebody who knows SCT's: keys, marks, what survives a reload."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser import reports

# Where there is no rank, and no mark.
_NONE = "\N{EN DASH}"


@pytest.fixture
def address(tmp_path: Path) -> str:
    return reports.write(tmp_path, [reports.row(number) for number in range(30)])


def _name(page: Page) -> str:
    return page.locator(".title h2").inner_text()


def _mark(page: Page) -> str:
    return page.locator(".marker [aria-pressed=true]").or_(page.locator(".rank")).all_inner_texts()[0]


def test_the_worst_volume_comes_first_and_arrows_and_letters_step(page: Page, address: str) -> None:
    page.goto(address)
    assert _name(page) == "sub-0007_T2w.nii.gz"
    for key, expected in (
        ("j", "0023"),
        ("ArrowDown", "0013"),
        ("k", "0023"),
        ("ArrowUp", "0007"),
        ("k", "0007"),
    ):
        page.keyboard.press(key)
        assert expected in _name(page)
    page.keyboard.press("End")
    expect(page.locator(".row.selected")).to_be_visible()
    assert page.locator(".position").inner_text() == "30 of 30"


def test_f_cycles_through_the_marks_and_digits_rank(page: Page, address: str) -> None:
    page.goto(address)
    seen = []
    for _ in range(4):
        page.keyboard.press("f")
        seen.append(_mark(page))
    assert seen == ["Pass", "Fail", "Artifact", _NONE]
    page.keyboard.press("7")
    assert page.locator(".rank").inner_text() == "7"
    assert page.locator(".row.selected .chip").inner_text() == "7"
    page.keyboard.press("7")
    assert page.locator(".rank").inner_text() == _NONE
    page.locator(".marker .fail").click()
    assert _mark(page) == "Fail"
    assert page.locator("#counted").inner_text() == "1 of 30 marked"


def test_the_right_arrow_takes_the_outline_away_and_back(page: Page, address: str) -> None:
    page.goto(address)
    page.keyboard.press("j")
    outline = page.locator(".stage .outline")
    expect(outline).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(outline).to_be_hidden()
    page.keyboard.press("j")
    expect(outline).to_be_hidden()
    page.keyboard.press("ArrowRight")
    expect(outline).to_be_visible()


def test_slash_searches_and_keys_are_letters_there(page: Page, address: str) -> None:
    page.goto(address)
    page.keyboard.press("/")
    page.keyboard.type("site-b jf7 ")
    expect(page.locator(".nothing")).to_have_text("No volume is left by the filters.")
    page.keyboard.press("Control+a")
    page.keyboard.type("SITE-B area_jump")
    # Of 3, 13 and 23 none is of site-b; all words have to be there.
    expect(page.locator("#shown")).to_have_text("0 of 30")
    page.keyboard.press("Control+a")
    page.keyboard.type("site-b t1w")
    expect(page.locator("#shown")).to_have_text("8 of 30")
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    assert _mark(page) == "Pass"
    assert page.locator("[name=search]").input_value() == "site-b t1w"


def test_question_mark_shows_the_keys_and_they_rest_meanwhile(page: Page, address: str) -> None:
    page.goto(address)
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("f")
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    assert page.locator("#counted").inner_text() == "0 of 30 marked"


def test_marks_and_place_survive_a_reload(page: Page, address: str) -> None:
    page.goto(address)
    for key in ("j", "f", "f", "4", "j", "f"):
        page.keyboard.press(key)
    before = _name(page)
    page.reload()
    assert _name(page) == before
    assert page.locator("#counted").inner_text() == "2 of 30 marked"
    page.keyboard.press("k")
    assert _mark(page) == "Fail"
    assert page.locator(".rank").inner_text() == "4"


def test_two_windows_keep_each_others_marks(page: Page, address: str) -> None:
    page.goto(address)
    other = page.context.new_page()
    other.goto(address)
    page.keyboard.press("f")
    expect(other.locator("#counted")).to_have_text("1 of 30 marked")
    other.keyboard.press("j")
    other.keyboard.press("f")
    expect(page.locator("#counted")).to_have_text("2 of 30 marked")
    page.reload()
    assert page.locator("#counted").inner_text() == "2 of 30 marked"


def test_the_newer_mark_of_folder_and_browser_counts(page: Page, tmp_path: Path) -> None:
    rows = [reports.row(number) for number in range(4)]

    def mark(number: int, qc: str, at: str) -> dict[str, object]:
        row = rows[number]
        return {"id": row["id"], "name": row["name"], "qc": qc, "rank": None, "mask": row["mask"], "at": at}

    address = reports.write(tmp_path, rows)
    page.goto(address)
    page.keyboard.press("f")  # volume 3, the flagged one
    reports.write(
        tmp_path,
        rows,
        marks=[mark(3, "Fail", "2020-01-01T00:00:00+00:00"), mark(0, "Artifact", "2020-01-01T00:00:00Z")],
    )
    page.reload()
    assert _mark(page) == "Pass"
    assert page.locator("#counted").inner_text() == "2 of 4 marked"
    reports.write(tmp_path, rows, marks=[mark(3, "Fail", "2999-01-01T00:00:00Z")])
    page.reload()
    assert _mark(page) == "Fail"
    # A clock that is ahead does not hold the mark for ever.
    page.keyboard.press("f")
    page.reload()
    assert _mark(page) == "Artifact"


def test_a_mark_of_an_earlier_result_says_so_and_does_not_count(page: Page, tmp_path: Path) -> None:
    row = reports.row(3)
    old = {"id": row["id"], "name": row["name"], "qc": "Fail", "rank": 2, "mask": "0123456789ab"}
    page.goto(reports.write(tmp_path, [row], marks=[old | {"at": "2025-01-01T00:00:00Z"}]))
    assert "Fail, rank 2: of an earlier result" in page.locator(".title .earlier").inner_text()
    assert page.locator("#counted").inner_text() == "0 of 1 marked"
    expect(page.locator(".chip.stale")).to_be_visible()
    page.select_option("[name=mark]", "stale")
    assert page.locator(".row").count() == 1
    page.keyboard.press("f")
    assert _mark(page) == "Pass"
    expect(page.locator(".title .earlier")).to_have_count(0)


def test_a_browser_that_keeps_nothing_says_that_marks_are_lost(page: Page, address: str) -> None:
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new Error('private'); }})"
    )
    page.goto(address)
    page.keyboard.press("f")
    assert _mark(page) == "Pass"
    assert page.locator("#kept").inner_text() == "lost on reload"


def test_volumes_that_a_mark_takes_out_of_the_filter_go_when_one_moves_on(page: Page, address: str) -> None:
    page.goto(address)
    page.select_option("[name=mark]", "unmarked")
    first = _name(page)
    page.keyboard.press("f")
    assert _name(page) == first
    page.keyboard.press("j")
    assert "0023" in _name(page)
    assert page.locator("#shown").inner_text() == "29 of 30"
    page.keyboard.press("k")
    assert "0023" in _name(page)


def test_n_goes_to_the_next_volume_without_a_mark(page: Page, address: str) -> None:
    page.goto(address)
    for key in ("f", "j", "f", "k", "n"):
        page.keyboard.press(key)
    assert "0013" in _name(page)
