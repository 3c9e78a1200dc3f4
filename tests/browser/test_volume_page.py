"""The page of one volume in 3D, with the real NiiVue in software WebGL2."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from fastseg.phantom import make_phantom
from fastseg.qc.entry import detail_of, row_of
from fastseg.qc.marks import read_flags
from fastseg.qc.report import Report, id_of
from fastseg.qc.serve import report_routes
from fastseg.serving import Site
from tests.phantom_files import save

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NAME = 'sub-01_<b onmouseover="window.hacked=1">_T2w.nii.gz'


class _Volumes:
    """A report of phantoms: key by what is wrong with it."""

    def __init__(self, folder: Path) -> None:
        image, cord = make_phantom("t2", n_slices=8)
        mask = cord.voxels.astype(np.uint8)
        affine = image.grid.affine
        self.centre = nib.affines.apply_affine(affine, np.argwhere(mask)).mean(axis=0)
        self.image = save(folder / "a.nii.gz", image.voxels.astype(np.int16), affine)
        self.mask = save(folder / "a_seg.nii.gz", mask, affine)
        self.manual = save(folder / "a_desc-manual_seg.nii.gz", (mask * 0).astype(np.uint8), affine)
        cut = folder / "cut.nii.gz"
        cut.write_bytes(self.image.read_bytes()[:2000])
        self.report = folder / "qc"
        with Report(self.report) as report:
            self.good = self._add(report, self.image, self.mask, folder / "none.nii.gz")
            self.corrected = self._add(report, self.image, self._copy("b_seg.nii.gz"), self.manual)
            self.failed = self._add(
                report, self.image, folder / "c_seg.nii.gz", folder / "none.nii.gz", "no_cord"
            )
            self.cut = self._add(report, cut, self._copy("d_seg.nii.gz"), folder / "none.nii.gz")
            self.apart = self._add(report, *self._forms_apart(folder), folder / "none.nii.gz")
            self.gone = self._add(
                report, folder / "gone.nii", self._copy("e_seg.nii.gz"), folder / "none.nii.gz"
            )

    def _copy(self, name: str) -> Path:
        path = self.mask.with_name(name)
        path.write_bytes(self.mask.read_bytes())
        return path

    def _forms_apart(self, folder: Path) -> tuple[Path, Path]:
        """Image whose qform, of the larger code, lies 40 mm off its sform; mask with the sform alone."""
        volume = nib.load(self.image)
        elsewhere = volume.affine.copy()
        elsewhere[0, 3] += 40
        volume.set_sform(volume.affine, 1)
        volume.set_qform(elsewhere, 2)
        volume.to_filename(folder / "apart.nii.gz")
        return folder / "apart.nii.gz", self._copy("apart_seg.nii.gz")

    def _add(self, report: Report, image: Path, mask: Path, manual: Path, status: str = "ok") -> str:
        message = "no cord was found" if status == "no_cord" else ""
        row = row_of(name=_NAME, mask=mask, dataset="d", contrast="t2", status=status, message=message)
        report.add(row, detail_of(image=image, mask=mask, manual=manual), None)
        return id_of(mask)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> _Volumes:
    return _Volumes(tmp_path_factory.mktemp("volumes"))


@pytest.fixture
def site(page: Page, volumes: _Volumes) -> Iterator[Site]:
    with Site(report_routes(volumes.report)) as made:
        yield made
        page.goto("about:blank")  # what it would still ask for, and not get, counts as its error


def _open(page: Page, site: Site, key: str) -> None:
    page.set_viewport_size({"width": 800, "height": 500})  # drawn without a GPU
    page.goto(f"{site.url}volume.html?id={key}")
    page.wait_for_selector("canvas[data-ready]")


def _pixels(page: Page) -> np.ndarray:  # type: ignore[type-arg]
    from PIL import Image

    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return np.asarray(Image.open(io.BytesIO(page.locator("#view").screenshot())).convert("RGB")).astype(int)


def _coloured(pixels: np.ndarray, red_over_green: float) -> int:  # type: ignore[type-arg]
    """Pixels in which red is that much brighter than green."""
    return int((pixels[..., 0] - pixels[..., 1] > red_over_green).sum())


def test_volume_is_shown_with_its_mask_which_fades_and_becomes_an_outline(
    page: Page, site: Site, volumes: _Volumes
) -> None:
    _open(page, site, volumes.good)
    shown = _pixels(page)
    assert (shown.max(axis=2) > 60).mean() > 0.05  # not a black picture
    filled = _coloured(shown, 60)
    assert filled > 200
    page.keyboard.press("m")
    assert _coloured(_pixels(page), 60) == 0
    page.keyboard.press("m")
    page.keyboard.press("o")
    outlined = _coloured(_pixels(page), 40)
    assert 50 < outlined < 0.8 * filled
    assert page.locator("#outline").is_checked()


def test_crosshair_begins_in_the_cord_and_keys_move_it_by_a_slice(
    page: Page, site: Site, volumes: _Volumes
) -> None:
    _open(page, site, volumes.good)
    before = page.locator("#where").inner_text()
    place = np.array([float(each) for each in before.partition(" mm")[0].split(", ")])
    assert np.abs(place - volumes.centre)[:2].max() < 8  # the phantom's cord is curved
    assert "mask 1" in before
    page.keyboard.press("ArrowUp")
    after = page.locator("#where").inner_text()
    moved = np.array([float(each) for each in after.partition(" mm")[0].split(", ")]) - place
    pitch = nib.affines.voxel_sizes(nib.load(volumes.image).affine).max()
    assert moved[2] == pytest.approx(pitch, abs=0.11)  # both are rounded to 0.1
    page.keyboard.press("r")
    assert page.locator("#where").inner_text() == before


def test_places_are_those_of_the_sform_whatever_the_qform_says(
    page: Page, site: Site, volumes: _Volumes
) -> None:
    _open(page, site, volumes.good)
    place = page.locator("#where").inner_text()
    assert "mask 1" in place
    _open(page, site, volumes.apart)
    assert page.locator("#where").inner_text() == place  # of the image and of the mask, too


@pytest.mark.parametrize(("width", "height"), [(1600, 1000), (500, 400)])
def test_crosshair_stays_thin(page: Page, site: Site, volumes: _Volumes, width: int, height: int) -> None:
    _open(page, site, volumes.good)
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_timeout(300)
    for _ in range(4):  # all planes, then each alone
        pixels = _pixels(page)
        blue = pixels[..., 2] - pixels[..., 0] > 60
        lines = np.flatnonzero(blue.mean(axis=1) > 0.15)  # rows that a line runs through
        assert len(lines)
        assert max(map(len, np.split(lines, np.flatnonzero(np.diff(lines) > 1) + 1))) <= 3
        page.keyboard.press("v")


def test_name_stands_in_title_and_page_and_is_inert(page: Page, site: Site, volumes: _Volumes) -> None:
    page.goto(f"{site.url}volume.html?id={volumes.failed}")
    page.locator("#name", has_text="sub-01").wait_for()
    assert page.title() == f"{_NAME} · fastseg"
    assert page.locator("#name").inner_text() == _NAME
    page.locator("#name").hover()
    assert page.evaluate("window.hacked") is None


def test_corrected_mask_comes_first_and_the_automatic_one_can_be_chosen(
    page: Page, site: Site, volumes: _Volumes
) -> None:
    _open(page, site, volumes.corrected)
    assert page.locator("#which option").all_inner_texts() == ["corrected by hand", "automatic"]
    assert _coloured(_pixels(page), 60) == 0  # this correction removed everything
    page.locator("#which").select_option("automatic")
    until = time.monotonic() + 120
    while _coloured(_pixels(page), 60) <= 200:
        assert time.monotonic() < until, "the automatic mask is not shown"


def test_volume_without_a_mask_is_shown_with_the_reason(page: Page, site: Site, volumes: _Volumes) -> None:
    _open(page, site, volumes.failed)
    assert page.locator("#message").inner_text() == "No mask to show: no cord was found"
    assert (_pixels(page).max(axis=2) > 60).mean() > 0.05
    assert page.locator("#opacity").is_disabled()


def test_damaged_missing_or_unknown_volume_is_said_in_a_line(
    page: Page, site: Site, volumes: _Volumes, forgiven: list[str]
) -> None:
    # What the browser and NiiVue say of it in the console is meant.
    forgiven += ["404", "niivue-error Error processing NIfTI", "truncated"]
    for key, reason in (
        (volumes.cut, "may be damaged"),
        (volumes.gone, "is not there any more"),
        ("0" * 16, "the report has no such volume"),
    ):
        page.goto(f"{site.url}volume.html?id={key}")
        page.locator("#message", has_text="cannot be shown").wait_for()
        assert reason in page.locator("#message").inner_text()


def test_browser_without_webgl2_is_told_what_to_do(page: Page, site: Site, volumes: _Volumes) -> None:
    page.add_init_script(
        "const get = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
        "  return kind === 'webgl2' ? null : get.call(this, kind, ...rest); };"
    )
    page.goto(f"{site.url}volume.html?id={volumes.good}")
    page.locator("#message", has_text="WebGL2").wait_for()


def test_marks_of_the_served_page_are_kept_in_the_report_and_shown_again(
    page: Page, site: Site, volumes: _Volumes, browser: Browser
) -> None:
    page.goto(site.url)
    page.wait_for_selector("a.open")  # the page knows that it is served
    with page.expect_response("**/marks") as kept:
        page.keyboard.press("f")
    assert kept.value.status == 204
    marks = read_flags(volumes.report)
    assert [mark["qc"] for mark in marks] == ["Pass"]
    assert page.locator("a.open").get_attribute("href") == f"volume.html?id={marks[0]['id']}"
    other = browser.new_page()  # of another person: nothing is kept in that browser
    other.goto(site.url + "index.js")
    assert '"qc":"Pass"' in other.content()
    other.close()


def test_escape_leads_back_to_the_report(page: Page, site: Site, volumes: _Volumes) -> None:
    page.goto(f"{site.url}volume.html?id={volumes.good}")
    page.keyboard.press("Escape")
    page.wait_for_url("**/index.html")
