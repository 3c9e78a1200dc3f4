"""Whether a click is the place in the image that is seen there, and a mark is drawn where its point is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from tests.browser.sittings import Viewer, points_of, ras_voxel, served, wait_until
from tests.phantom_files import save

if TYPE_CHECKING:
    from playwright.sync_api import Page


def _turned(zooms: tuple[float, float, float], codes: str, degrees: float = 0) -> Any:
    """Affine of a grid that is tilted about the axis from left to right, then a little about the vertical."""
    tilt, turn = np.radians(degrees), np.radians(degrees / 3)
    about_x = [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    about_z = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    affine = np.eye(4)
    affine[:3, :3] = np.array(about_z) @ np.array(about_x) @ _axes(codes) @ np.diag(zooms)
    affine[:3, 3] = (12.5, -31, 7.25)
    return affine


def _axes(codes: str) -> Any:
    start = nib.orientations.axcodes2ornt(("R", "A", "S"))
    matrix = np.zeros((3, 3))
    for axis, (of, sign) in enumerate(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(codes), start)
    ):
        matrix[int(of), axis] = sign
    return matrix


GRIDS = {
    "RPI": ((30, 40, 50), _turned((1, 1.2, 0.9), "RPI")),
    "LAS": ((40, 44, 12), _turned((0.5, 0.5, 5), "LAS")),
    "PSR": ((48, 36, 20), _turned((0.8, 0.9, 1.1), "PSR")),
    "oblique": ((36, 40, 30), _turned((1, 0.8, 1.5), "LPS", 21)),
    "oblique_thick": ((40, 40, 9), _turned((0.5, 0.5, 5), "RPS", -17)),
}


def _one_bright_voxel(folder: Path, name: str) -> tuple[Path, tuple[int, ...]]:
    shape, affine = GRIDS[name]
    voxel = tuple(int(n * part) for n, part in zip(shape, (0.42, 0.6, 0.56), strict=True))
    voxels = np.zeros(shape, np.int16)
    voxels[voxel] = 1000
    return save(folder / f"{name}.nii.gz", voxels, affine), voxel


def test_click_on_a_voxel_gives_its_millimetres(page: Page, tmp_path: Path) -> None:
    made = {name: _one_bright_voxel(tmp_path, name) for name in GRIDS}
    with served(page, tmp_path, [path for path, _ in made.values()]) as (sitting, site):
        viewer = Viewer(page, site.url)
        for number, (name, (path, voxel)) in enumerate(made.items()):
            viewer.wait_for_volume(number)
            shape, affine = GRIDS[name]
            x, _, z = ras_voxel(affine, shape, voxel)
            viewer.go_to_slices(x, z, nib.as_closest_canonical(nib.load(path)).shape)
            for plane in ("sagittal", "axial"):
                page.mouse.click(*viewer.bright_spot(plane))
                wait_until(lambda n=number: len(points_of(sitting, n)) == 1)
                found = (np.linalg.inv(affine) @ [*points_of(sitting, number)[0], 1])[:3]
                # The promise is half a voxel; a pixel of these views is less than a fifth of one.
                np.testing.assert_allclose(found, voxel, atol=0.25, err_msg=f"{name}, {plane}")
                page.keyboard.press("Delete")
            page.keyboard.press("s")


def test_marks_and_curve_lie_where_their_points_are(page: Page, tmp_path: Path) -> None:
    path, voxel = _one_bright_voxel(tmp_path, "oblique")
    _, affine = GRIDS["oblique"]
    upper, lower = (np.add(voxel, (0, 0, step)) for step in (9, -12))
    with served(page, tmp_path, [path]) as (sitting, site):
        sitting.put(0, [(affine @ [*each, 1])[:3] for each in (voxel, upper, lower)])
        viewer = Viewer(page, site.url)

        def check() -> None:
            for plane in ("sagittal", "axial"):
                # What is weighed are the pixels of an interpolated voxel, cut off at the sides.
                np.testing.assert_allclose(viewer.dots(plane)[0], viewer.bright_spot(plane), atol=1.5)

        check()
        _check_curve(viewer, slices=22)
        for plane in ("sagittal", "axial"):
            page.mouse.move(*viewer.place(plane, 0.45, 0.6))
            viewer.press("+", 2)
            start = np.array(viewer.place(plane, 0.3, 0.3))
            page.keyboard.down("Shift")
            viewer.drag(start, start + np.array([23, -17]))
            page.keyboard.up("Shift")
        check()
        page.set_viewport_size({"width": 860, "height": 640})
        wait_until(lambda: page.evaluate("innerWidth") == 860)
        page.keyboard.press("x")
        viewer.wait_for_views()
        check()
        viewer.press("ArrowUp", 20)
        assert page.locator("#axial .curve .line").count() == 0, "nothing beyond the curve's ends"
        page.keyboard.press("o")
        assert page.locator(".curve .line, .point").count() == 0
        assert len(points_of(sitting)) == 3


def _check_curve(viewer: Viewer, slices: int) -> None:
    """A straight one, whose points lie in the middle of slices, as the points do."""
    viewer.page.wait_for_selector("#sagittal .curve .line", state="attached")
    text = viewer.page.locator("#sagittal .curve .line").get_attribute("points") or ""
    line = np.array([[float(each) for each in pair.split(",")] for pair in text.split()])
    line += viewer.place("sagittal", 0, 0)
    assert len(line) == slices
    for dot in viewer.dots("sagittal"):
        assert np.hypot(*(line - dot).T).min() < 1.5
    ring = viewer.page.locator("#axial .curve .line")
    assert ring.count() == 1, "the axial view shows the curve on its slice"
