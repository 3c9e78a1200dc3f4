"""From clicks in the page to a segmentation, as a user does it: fastseg view, then fastseg run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fastseg.centerline_file import centerline_from_volume
from fastseg.nifti import read_volume
from fastseg.phantom import make_phantom
from fastseg.resampling import working_grid
from fastseg.volume import SCT_RPI, Volume
from tests.browser.sittings import Viewer, wait_until
from tests.phantom_files import fastseg, save

if TYPE_CHECKING:
    from playwright.sync_api import Page

_CORNERS = ((0.4, 0.4), (0.6, 0.4), (0.4, 0.6))
# So near to a point, in pixels, a click means the point, and nothing moves.
_ON_POINT = 12


@contextmanager
def _viewing(image: Path, points: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """fastseg view in a process of its own, and the page's address from its terminal."""
    words = [sys.executable, "-m", "fastseg", "view", str(image), "-o", str(points), "--no-browser"]
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            address = None
            while address is None:
                line = process.stderr.readline()
                assert line, "fastseg view ended without a page"
                address = re.search(r"http://127\.0\.0\.1:\S+", line)
            yield process, address[0]
        finally:
            process.kill()


class _Hand:
    """Clicks on places in mm: where they are in a view it learns from three clicks, as the eye does."""

    def __init__(self, viewer: Viewer, url: str) -> None:
        self.viewer, self._url = viewer, url
        self._views: dict[str, Any] = {}

    def known(self) -> Any:
        """(n, 3) points that the program has."""
        with urllib.request.urlopen(self._url + "sitting.json", timeout=120) as answer:
            return np.array(json.load(answer)["volumes"][0]["points"], float).reshape(-1, 3)

    def learn(self, plane: str) -> Any:
        """Gives the last of the three points."""
        pixels, places = [], []
        for corner in _CORNERS:
            pixel = self.viewer.place(plane, *corner)
            places.append(self.click(pixel))
            pixels.append([*pixel, 1.0])
        self._views[plane] = np.linalg.solve(np.array(pixels), np.array(places)).T
        return places[-1]

    def pixel_of(self, plane: str, place: Any) -> Any:
        view = self._views[plane]
        return np.linalg.lstsq(view[:, :2], place - view[:, 2], rcond=None)[0]

    def click(self, pixel: Any) -> Any:
        """Gives the point that was added or moved."""
        before = self.known()
        self.viewer.page.mouse.click(*pixel)
        wait_until(lambda: not np.array_equal(self.known(), before))
        after = self.known()
        added = [each for each in after.tolist() if each not in before.tolist()]
        assert len(added) == 1
        return np.array(added[0])


def _centres(mask: Volume) -> Any:
    native = mask.reoriented(SCT_RPI).grid
    return centerline_from_volume(mask, native, working_grid(native)).world()


def _dice(ours: Path, theirs: Volume) -> float:
    """On the slices of theirs."""
    a, b = (each.reoriented(SCT_RPI).voxels > 0 for each in (read_volume(ours)[0], theirs))
    a = a & b.any(axis=(0, 1))
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def _click_along(page: Page, url: str, centres: Any, count: int) -> None:
    """In the sagittal view first, then right on the cord in the axial one, as the page says."""
    hand = _Hand(Viewer(page, url), url)
    hand.learn("sagittal")
    hand.viewer.press("Control+z", len(_CORNERS))
    wait_until(lambda: not len(hand.known()))
    for number, index in enumerate(np.rint(np.linspace(0, len(centres) - 1, count)).astype(int)):
        added = hand.click(hand.pixel_of("sagittal", centres[index]))
        if not number:
            added = hand.learn("axial")
        there, wanted = (hand.pixel_of("axial", place) for place in (added, centres[index]))
        if np.linalg.norm(wanted - there) > _ON_POINT:
            hand.click(wanted)
    assert len(hand.known()) == count
    page.keyboard.press("Enter")
    page.get_by_text("You can close this page.").wait_for()


def _segment_by_clicks(page: Page, folder: Path, image: Path, mask: Volume, contrast: str) -> float:
    points, centres = folder / "points.json", _centres(mask)
    with _viewing(image, points) as (process, url):
        _click_along(page, url, centres, 6)
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        assert out.split() == [str(points)]
    clicked = np.array(json.loads(points.read_text())["points"])
    index = np.abs(centres[:, 2] - clicked[:, 2:]).argmin(axis=1)
    slice_mm = mask.reoriented(SCT_RPI).grid.zooms[2]
    # A pixel of the views is a fifth of a millimetre, and a point is put into the middle of its slice.
    assert np.linalg.norm(clicked - centres[index], axis=1).max() < 0.5 + slice_mm / 2
    code, out, err = fastseg("run", image, "-c", contrast, "--file-centerline", points, "-o", folder / "out")
    assert code == 0, err
    return _dice(Path(out.split()[0]), mask)


def test_clicks_on_a_phantom_become_its_segmentation(page: Page, tmp_path: Path) -> None:
    image, mask = make_phantom("t2", n_slices=16, axcodes=("P", "S", "R"))
    path = save(tmp_path / "image.nii.gz", image.voxels, image.grid.affine)
    assert _segment_by_clicks(page, tmp_path, path, mask, "t2") > 0.9


@pytest.mark.golden
@pytest.mark.parametrize(
    ("contrast", "name", "reference", "at_least"),
    [
        ("t2", "sct_testing/t2/t2", "sct_testing/t2/t2_seg-deepseg_sc-2d", 0.975),
        (
            "t2s",
            "sub-gm9604/anat/sub-gm9604_T2star",
            "derivatives/labels/sub-gm9604/anat/sub-gm9604_T2star_seg",
            0.965,
        ),
    ],
    ids=["1 mm", "oblique, 0.6 x 0.6 x 3 mm"],
)
def test_clicks_on_a_real_volume_become_its_segmentation(
    page: Page, shared: Path, tmp_path: Path, contrast: str, name: str, reference: str, at_least: float
) -> None:
    mask, _ = read_volume(shared / f"data/{reference}.nii.gz")
    dice = _segment_by_clicks(page, tmp_path, shared / f"data/{name}.nii.gz", mask, contrast)
    # Measured: 0.98 and 0.97, as from the whole mask's centres.
    assert dice > at_least
