"""A served report that grows while its page is open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from fastseg.qc.pictures import Sheet
from fastseg.qc.report import Report
from fastseg.qc.serve import report_routes
from fastseg.serving import Site
from tests.browser import reports


@pytest.fixture
def report(tmp_path: Path) -> Iterator[Report]:
    """Of twelve volumes; runs go on to write to it."""
    with Report(tmp_path / "qc") as made:
        for number in range(12):
            _add(made, number)
        yield made


@pytest.fixture
def site(page: Page, report: Report) -> Iterator[Site]:
    with Site(report_routes(report.folder)) as made:
        yield made
        page.goto("about:blank")  # what it would still ask for, and not get, counts as its error


def _add(report: Report, number: int, **changes: object) -> None:
    row = reports.row(number, **changes)
    files = reports.pictures()
    sheet = Sheet(files[".jpg"], files[".png"], files["_thumb.jpg"], reports.LAYOUT)
    report.add(row, reports.detail(row, sheet=None), sheet)


def _wait_for_news(page: Page) -> None:
    page.clock.fast_forward(11_000)  # the page asks every ten seconds


def test_new_results_are_offered_and_shown_without_losing_ones_place(
    page: Page, site: Site, report: Report
) -> None:
    page.clock.install()
    page.goto(site.url)
    expect(page.locator("#counted")).to_have_text("0 of 12 marked")
    page.locator("select[name=status]").select_option("ok")
    page.locator("[data-key=name] button").click()
    for key in ("Home", "j", "j", "f"):
        page.keyboard.press(key)
    name = page.locator(".title h2").inner_text()
    _wait_for_news(page)
    expect(page.locator("#news")).to_be_hidden()
    for number in (20, 21, 57):  # the last without a cord
        _add(report, number, at="2026-01-03T00:00:00+00:00")
    _wait_for_news(page)
    expect(page.locator("#news")).to_have_text("3 new results: show")
    expect(page.locator("#counted")).to_have_text("1 of 12 marked")  # nothing moves by itself
    page.click("#news")
    expect(page.locator("#counted")).to_have_text("1 of 15 marked")
    expect(page.locator("#news")).to_be_hidden()
    assert page.locator(".title h2").inner_text() == name
    assert page.locator(".marker [aria-pressed=true]").inner_text() == "Pass"
    assert page.locator("select[name=status]").input_value() == "ok"
    expect(page.locator("select[name=status] option[value=no_cord]")).to_have_text("no cord (2)")
    expect(page.locator("[data-key=name]")).to_have_attribute("aria-sort", "ascending")
    page.keyboard.press("End")
    expect(page.locator(".title h2")).to_have_text("sub-0021_T2w.nii.gz")


def test_a_volume_that_was_done_again_is_shown_anew(page: Page, site: Site, report: Report) -> None:
    page.clock.install()
    page.goto(f"{site.url}#{reports.row(4)['id']}")
    expect(page.locator("#kept")).to_have_text("saved")
    page.keyboard.press("f")
    expect(page.locator(".facts")).to_contain_text("2026-01-02 03:04:05 UTC")
    _add(report, 4, mask="a" * 12, area_mm2=99.5, at="2026-01-03T00:00:00+00:00")
    _wait_for_news(page)
    expect(page.locator("#news")).to_have_text("1 new result: show")
    page.click("#news")
    expect(page.locator(".facts")).to_contain_text("2026-01-03 00:00:00 UTC")
    expect(page.locator(".line.selected .c-area")).to_have_text("99.5")
    expect(page.locator(".title .earlier")).to_have_text("Pass: of an earlier result, mark it again")
    expect(page.locator("#counted")).to_have_text("0 of 12 marked")
    for picture in (".stage .base", ".line.selected img"):
        page.wait_for_function("(place) => document.querySelector(place).naturalWidth > 0", arg=picture)
        assert "2026-01-03" in page.locator(picture).evaluate("(image) => image.src")


def test_a_server_that_went_away_costs_nothing(
    page: Page, site: Site, report: Report, forgiven: list[str]
) -> None:
    forgiven.append("ERR_CONNECTION_REFUSED")
    page.clock.install()
    page.goto(site.url)
    expect(page.locator("#kept")).to_have_text("saved")
    site.__exit__(None, None, None)
    _wait_for_news(page)
    page.keyboard.press("j")
    expect(page.locator(".position")).to_have_text("2 of 12")
    expect(page.locator("#news")).to_be_hidden()
