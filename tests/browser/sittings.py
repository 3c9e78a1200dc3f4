"""Sittings at the centerline viewer, served from this process, and a user's hands on its page."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from PIL import Image

from fastseg.serving import Site
from fastseg.viewer.drawing import Drawing
from fastseg.viewer.routes import PageClock, sitting_routes
from fastseg.viewer.sitting import Sitting

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request

# Everything but the images; styles are set, as the page's policy forbids to add any.
_BARE = """document.querySelectorAll(".marks, .letter, .caption").forEach(each => {
  each.style.visibility = "hidden";
})"""

_MIDDLES = """dots => [...document.querySelectorAll(dots)].map(element => {
  const box = element.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
})"""

# Sizes follow those of the boxes with the browser's next frame.
_VIEWS_FIT = """() => ["sagittal", "axial"].every(id => {
  const box = document.getElementById(id).getBoundingClientRect();
  const canvas = document.querySelector(`#${id} canvas`);
  const fits = (pixels, length) => pixels === Math.max(1, Math.round(length * devicePixelRatio));
  return fits(canvas.width, box.width) && fits(canvas.height, box.height);
})"""

_COPIED = """() => new Promise(resolve => {
  navigator.clipboard.writeText = async text => resolve(JSON.parse(text));
  document.getElementById("copy").click();
})"""


@contextmanager
def served(page: Page, folder: Path, images: Sequence[Path]) -> Iterator[tuple[Sitting, Site]]:
    """Serve a sitting whose points go into a folder."""
    drawings = [Drawing(path.name, path, folder / f"{path.name}_points.json") for path in images]
    sitting = Sitting(drawings)
    with Site(sitting_routes(sitting, PageClock())) as site:
        yield sitting, site
        page.goto("about:blank")  # what it would still ask for, and not get, counts as its error
        sitting.finish()  # else the site waits a while for the answer to its last question


def points_of(sitting: Sitting, number: int = 0) -> Any:
    """(n, 3) points that the server knows."""
    volumes: Any = sitting.record()["volumes"]
    return np.array(volumes[number]["points"], float).reshape(-1, 3)


def wait_until(true: Callable[[], object], seconds: float = 120) -> None:
    """Wait for what a page's request does to the server."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def ras_voxel(affine: Any, shape: Sequence[int], voxel: Sequence[int]) -> tuple[int, ...]:
    """Index of a voxel when the image lies from left to right, back to front and foot to head."""
    marked = np.zeros(shape, np.uint8)
    marked[tuple(voxel)] = 1
    turned = np.asarray(nib.as_closest_canonical(nib.Nifti1Image(marked, affine)).dataobj)
    return tuple(int(each) for each in np.argwhere(turned)[0])


def _is_to(path: str, request: Request) -> bool:
    return request.url.endswith(path)


class Viewer:
    """The page, and what a user does with it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.set_viewport_size({"width": 1000, "height": 700})  # drawn without a graphics card
        page.goto(url)
        self.wait_for_volume(0)

    def wait_for_volume(self, number: int) -> None:
        self.page.wait_for_selector(f"body[data-shown='{number}']")
        self.wait_for_views()

    def wait_for_views(self) -> None:
        """Wait until the images fill their views, however those have changed."""
        wait_until(lambda: self.page.evaluate(_VIEWS_FIT))

    def place(self, plane: str, across: float, down: float) -> tuple[float, float]:
        """Pixel of the window, of parts of a view."""
        box = self.page.locator(f"#{plane}").bounding_box()
        assert box is not None
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    def click(self, plane: str, across: float, down: float, **how: Any) -> None:
        self.page.mouse.click(*self.place(plane, across, down), **how)

    def drag(self, start: tuple[float, float], end: tuple[float, float], **how: Any) -> None:
        self.page.mouse.move(*start)
        self.page.mouse.down(**how)
        self.page.mouse.move(*end, steps=4)
        self.page.mouse.up(**how)

    @contextmanager
    def failing(self, *paths: str) -> Iterator[None]:
        """Wait for the requests that fail: else they may still be under way when they would not."""
        with ExitStack() as stack:
            for path in paths:
                ours = partial(_is_to, path)
                stack.enter_context(self.page.expect_event("requestfailed", ours))
            yield

    def press(self, key: str, times: int = 1) -> None:
        for _ in range(times):
            self.page.keyboard.press(key)

    def go_to_slices(self, sagittal: int, axial: int, shape: Sequence[int]) -> None:
        """From the middle, where a volume without points is shown at first."""
        right, up = sagittal - shape[0] // 2, axial - shape[2] // 2
        self.press("ArrowLeft" if right > 0 else "ArrowRight", abs(right))
        self.press("ArrowUp" if up > 0 else "ArrowDown", abs(up))

    def dots(self, plane: str) -> Any:
        """(n, 2) pixels of the window at which points are drawn."""
        # Found and measured in one go: each redraw makes new ones, and the old ones lie at 0, 0.
        middles = self.page.evaluate(_MIDDLES, f"#{plane} .point .heart")
        return np.array(middles, float).reshape(-1, 2)

    def points(self) -> Any:
        """(n, 3) points that the page has, as its button copies them."""
        return np.array(self.page.evaluate(_COPIED), float).reshape(-1, 3)

    def settle(self, sitting: Sitting) -> None:
        """Wait until the server knows the page's points, also the last of a drag."""
        points = self.points()
        wait_until(lambda: np.array_equal(points_of(sitting), points))

    def rows(self) -> int:
        return self.page.locator("#points li").count()

    def bright_spot(self, plane: str) -> Any:
        """(2,) pixel of the window in the middle of what is bright in a view's image."""
        self.page.evaluate(_BARE)
        canvas = self.page.locator(f"#{plane} canvas")
        box = canvas.bounding_box()
        assert box is not None
        picture = Image.open(io.BytesIO(canvas.screenshot())).convert("L")
        weight = np.asarray(picture, float)
        weight[weight < 60] = 0
        weight[[0, 1, -1, -2]] = weight[:, [0, 1, -1, -2]] = 0  # what lies around it shows at its rim
        assert weight.any(), "the view shows nothing bright"
        y, x = np.indices(weight.shape)
        middle = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum() + 0.5
        return middle + np.array([box["x"], box["y"]])
