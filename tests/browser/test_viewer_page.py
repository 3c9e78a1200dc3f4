"""What a user does at the viewer's page, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fastseg.serving import Site
from fastseg.viewer.sitting import Sitting
from tests.browser.sittings import Viewer, points_of, served, wait_until
from tests.phantom_files import save_phantom

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1<|script>\'"&.nii.gz'
_GRID = {"shape": (32, 32), "zooms": (2.0, 2.0, 4.0)}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    names = ["one.nii.gz", HOSTILE, "three.nii.gz"]
    return [save_phantom(folder / name, n_slices=24, seed=n, **_GRID) for n, name in enumerate(names)]


@pytest.fixture
def one(page: Page, tmp_path: Path, images: list[Path]) -> Iterator[tuple[Viewer, Sitting, Site]]:
    """A sitting of one volume."""
    with served(page, tmp_path, images[:1]) as (sitting, site):
        yield Viewer(page, site.url), sitting, site


def test_points_are_added_moved_deleted_and_taken_back(one: tuple[Viewer, Sitting, Site]) -> None:
    viewer, sitting, _ = one
    page = viewer.page
    for down in (0.3, 0.5, 0.7):
        viewer.click("sagittal", 0.5, down)
    assert viewer.rows() == 3
    wait_until(lambda: len(points_of(sitting)) == 3)
    heights = points_of(sitting)[:, 2]
    assert (np.diff(heights) < 0).all()

    viewer.click("axial", 0.4, 0.5)  # sets right the point of this slice
    assert viewer.rows() == 3
    wait_until(lambda: abs(points_of(sitting)[2, 0]) > 5)
    assert points_of(sitting)[2, 2] == pytest.approx(heights[2], abs=2.1)  # the middle of its slice

    before = points_of(sitting)
    dot = viewer.dots("sagittal")[0]
    viewer.drag(dot, dot + np.array([90, 12]))
    wait_until(lambda: points_of(sitting)[0, 1] < before[0, 1] - 5)  # to the right is to the back
    viewer.settle(sitting)
    moved = points_of(sitting)
    np.testing.assert_array_equal(moved[1:], before[1:])
    page.keyboard.press("Control+z")
    wait_until(lambda: np.array_equal(points_of(sitting), before))
    page.keyboard.press("Control+Shift+z")
    wait_until(lambda: np.array_equal(points_of(sitting), moved))

    page.mouse.click(*viewer.dots("sagittal")[1], button="right")
    assert viewer.rows() == 2
    page.locator("#points li button").first.click()
    page.keyboard.press("Delete")
    assert viewer.rows() == 1
    page.locator("#points .remove").click()
    assert viewer.rows() == 0
    viewer.press("Control+z", 3)
    wait_until(lambda: np.array_equal(points_of(sitting), moved))


def test_views_are_linked_and_themes_remembered(one: tuple[Viewer, Sitting, Site]) -> None:
    viewer, sitting, _ = one
    page = viewer.page
    viewer.click("sagittal", 0.5, 0.25)
    upper = page.locator("#axial-slice").inner_text()
    viewer.click("sagittal", 0.5, 0.75)
    assert page.locator("#axial-slice").inner_text() != upper
    before = page.locator("#sagittal-slice").inner_text()
    viewer.click("axial", 0.3, 0.5)
    assert page.locator("#sagittal-slice").inner_text() != before
    assert page.locator("#axial .point").count() == 1
    page.mouse.wheel(0, -120)  # Playwright does not wait for what it does
    wait_until(lambda: page.locator("#axial .point").count() == 0)  # none lies on the next slice
    wait_until(lambda: len(points_of(sitting)) == 2)

    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Theme").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    viewer.wait_for_volume(0)
    assert page.evaluate(ground) == dark
    assert viewer.rows() == 2, "the server kept the points"


def test_the_page_says_what_will_be_segmented_and_what_its_keys_are(
    one: tuple[Viewer, Sitting, Site],
) -> None:
    viewer, _, _ = one
    page = viewer.page
    assert "Only slices from the lowest to the highest point are segmented" in page.inner_text("#hint")
    assert "in the sagittal view" in page.inner_text("#hint")
    page.keyboard.press("x")
    assert "in the axial view, on its first and last slice" in page.inner_text("#hint")
    page.keyboard.press("x")
    assert page.inner_text("#axial-slice") == "12 (0\N{EN DASH}23)"
    for down in (0.3, 0.6):
        viewer.click("sagittal", 0.5, down)
    upper, lower = (each.split()[-1] for each in page.locator("#points .slice").all_inner_texts())
    page.get_by_text(f"The curve covers slices {lower} to {upper}, only these are segmented.").wait_for()

    page.keyboard.down("Control")  # the right button of a Mac that has one
    page.mouse.click(*viewer.dots("sagittal")[0])
    page.keyboard.up("Control")
    assert viewer.rows() == 1
    page.set_viewport_size({"width": 700, "height": 360})
    page.keyboard.press("?")
    help_ = page.get_by_role("dialog")
    assert help_.evaluate("each => each.scrollHeight > each.clientHeight")
    assert help_.evaluate("each => each.scrollTop") == 0, "its top is seen first"
    page.keyboard.press("Escape")


def test_enter_saves_the_points_that_were_clicked(one: tuple[Viewer, Sitting, Site], tmp_path: Path) -> None:
    viewer, sitting, _ = one
    page = viewer.page
    page.keyboard.press("Enter")
    assert "no point yet" in page.locator("#status").inner_text()
    assert not sitting.over
    for down in (0.3, 0.6):
        viewer.click("sagittal", 0.5, down)
    wait_until(lambda: len(points_of(sitting)) == 2)
    page.keyboard.press("Enter")
    page.get_by_text("Saved. You can close this page.").wait_for()
    written = json.loads((tmp_path / "one.nii.gz_points.json").read_text())
    np.testing.assert_allclose(written["points"], points_of(sitting), atol=0.01)
    assert sitting.over
    assert (tmp_path / "one.nii.gz_labels.nii.gz").exists()


def test_sitting_goes_from_volume_to_volume(page: Page, tmp_path: Path, images: list[Path]) -> None:
    with served(page, tmp_path, images) as (sitting, site):
        viewer = Viewer(page, site.url)
        assert page.locator("#place").inner_text() == "1 of 3"
        viewer.click("sagittal", 0.5, 0.5)
        page.keyboard.press("s")
        page.get_by_role("button", name="Go on here").click()
        assert viewer.rows() == 1, "a point is not lost without a question"
        page.keyboard.press("s")
        page.get_by_role("button", name="Skip it").click()
        viewer.wait_for_volume(1)
        assert page.locator("#place").inner_text() == "2 of 3"
        assert page.locator("#queue option").nth(1).inner_text().endswith(HOSTILE)
        assert viewer.rows() == 0
        viewer.click("sagittal", 0.5, 0.4)
        wait_until(lambda: len(points_of(sitting, 1)) == 1)
        sitting.save(1)  # in the terminal
        viewer.wait_for_volume(2)
        page.get_by_role("button", name="Finish").click()
        page.get_by_role("dialog").get_by_role("button", name="Finish").click()
        page.get_by_text("1 of 3 volumes saved. You can close this page.").wait_for()
        assert sitting.over
        assert not sitting.cancelled
        assert [each.name for each in sitting.saved] == [HOSTILE]
        assert page.evaluate("window.hacked") is None


def test_cancel_asks_before_points_are_lost(one: tuple[Viewer, Sitting, Site], tmp_path: Path) -> None:
    viewer, sitting, _ = one
    page = viewer.page
    viewer.click("sagittal", 0.5, 0.3)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Go on here").click()
    assert not sitting.over
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="End without saving").click()
    page.get_by_text("Not saved. You can close this page.").wait_for()
    assert sitting.cancelled
    assert not list(tmp_path.glob("*.json"))


def test_page_keeps_points_while_the_program_does_not_answer(
    page: Page, tmp_path: Path, images: list[Path], forgiven: list[str]
) -> None:
    forgiven.append("ERR_INTERNET")
    # Heartbeats are lost, as in a dead tunnel: one that is answered would take the button away.
    page.route("**/alive", lambda route: None)
    banner = page.get_by_text("The program does not answer")
    with served(page, tmp_path, images[:1]) as (sitting, site):
        viewer = Viewer(page, site.url)
        viewer.click("sagittal", 0.5, 0.3)
        wait_until(lambda: len(points_of(sitting)) == 1)
        page.wait_for_selector("#notes:not(:empty)")  # the curve's answer is there, too
        page.context.set_offline(True)
        with viewer.failing("points", "curve"):
            viewer.click("sagittal", 0.5, 0.6)
        banner.wait_for()
        with viewer.failing("save"):
            page.get_by_role("button", name="Save").click()
        assert viewer.rows() == 2
        assert len(points_of(sitting)) == 1
        page.context.set_offline(False)
        page.get_by_role("button", name="Try again").click()
        banner.wait_for(state="hidden")
        wait_until(lambda: len(points_of(sitting)) == 2)


def test_two_windows_show_the_same_points(one: tuple[Viewer, Sitting, Site]) -> None:
    """Who opens the address again, because the tunnel broke, still has the page from before."""
    viewer, sitting, site = one
    second = Viewer(viewer.page.context.new_page(), site.url)
    for down in (0.3, 0.5, 0.7):
        viewer.click("sagittal", 0.5, down)
    second.page.wait_for_selector("#points li:nth-child(3)")
    second.click("sagittal", 0.5, 0.9)
    wait_until(lambda: len(points_of(sitting)) == 4)
    viewer.page.wait_for_selector("#points li:nth-child(4)")
    drawn = points_of(sitting)
    viewer.press("Control+z")
    wait_until(lambda: len(points_of(sitting)) == 3)
    viewer.press("Control+Shift+z")
    wait_until(lambda: np.array_equal(points_of(sitting), drawn))
    second.page.close()  # before its server


def test_a_page_that_was_cut_off_does_not_take_back_what_was_done_meanwhile(
    page: Page, tmp_path: Path, images: list[Path], forgiven: list[str]
) -> None:
    forgiven.append("ERR_INTERNET")
    with served(page, tmp_path, images) as (sitting, site):
        viewer = Viewer(page, site.url)
        viewer.click("sagittal", 0.5, 0.3)
        wait_until(lambda: len(points_of(sitting)) == 1)
        page.wait_for_selector("#notes:not(:empty)")  # the curve's answer is there, too
        page.context.set_offline(True)
        with viewer.failing("points", "curve"):
            viewer.click("sagittal", 0.5, 0.6)
        page.get_by_text("The program does not answer").wait_for()
        elsewhere = [*points_of(sitting).tolist(), *points_of(sitting).tolist()]
        sitting.put(0, elsewhere)  # in another window
        page.context.set_offline(False)
        page.get_by_text("changed in another window").wait_for()
        assert points_of(sitting).tolist() == elsewhere
        page.context.set_offline(True)
        with viewer.failing("points", "curve"):
            viewer.click("sagittal", 0.5, 0.6)
        page.get_by_text("The program does not answer").wait_for()
        sitting.skip(0)  # in the terminal
        page.context.set_offline(False)
        viewer.wait_for_volume(1)
        assert sitting.current == 1


def test_wrong_token_gets_nothing(page: Page, tmp_path: Path, images: list[Path]) -> None:
    with served(page, tmp_path, images[:1]) as (sitting, site):
        assert page.request.get(site.url + "sitting.json").status == 200
        address = f"http://127.0.0.1:{site.port}/{'x' * 32}/"
        for name in ("", "sitting.json", "image/0.nii.gz", "page/viewer.js", "niivue.js"):
            assert page.request.get(address + name).status == 404
        assert page.request.post(address + "cancel", data="{}").status == 404
        assert not sitting.over
