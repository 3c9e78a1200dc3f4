"""The overlay picture: what it shows, for which volumes, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from fastseg.centerline import Centerline
from fastseg.errors import InputError, OutputError
from fastseg.phantom import make_phantom
from fastseg.preview import overlay_png
from fastseg.volume import SCT_RPI, Grid, Volume

_ORANGE, _BLUE = (255, 140, 30), (70, 210, 255)


def _line(mask):
    turned = mask.reoriented(SCT_RPI)
    covered = np.flatnonzero(turned.voxels.any(axis=(0, 1)))
    points = [[*np.argwhere(turned.voxels[..., z]).mean(axis=0), z] for z in covered]
    return Centerline(turned.grid, np.array(points))


def _picture(path):
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"), np.int64)


def _near(picture, colour):
    return np.abs(picture - colour).sum(axis=2) < 60


@pytest.fixture
def draw(tmp_path):
    def drawn(image, mask, line=None, **how):
        path = tmp_path / "overlay.png"
        overlay_png(image, mask, line or _line(mask), path, **how)
        assert [each.name for each in tmp_path.iterdir()] == ["overlay.png"]
        return _picture(path)

    return drawn


@pytest.mark.parametrize("n_slices", [1, 2, 30, 200])
def test_any_number_of_slices_is_drawn(draw, n_slices):
    image, mask = make_phantom(n_slices=n_slices, shape=(48, 48))
    picture = draw(image, mask)
    assert picture.shape[0] < 1400
    assert _near(picture, _ORANGE).any()
    assert _near(picture, _BLUE).any()


def test_picture_does_not_depend_on_the_orientation_of_the_file(draw):
    image, mask = make_phantom(n_slices=5, shape=(48, 48))
    axcodes = ("P", "S", "R")  # S: slices are numbered alike
    turned = draw(image.reoriented(axcodes), mask.reoriented(axcodes))
    assert np.array_equal(turned, draw(image, mask))


def test_slices_are_numbered_as_in_the_file(draw):
    image, mask = make_phantom(n_slices=5, shape=(48, 48))
    axcodes = ("R", "A", "I")
    assert not np.array_equal(draw(image.reoriented(axcodes), mask.reoriented(axcodes)), draw(image, mask))


def test_patients_right_and_front_are_left_and_top(draw):
    voxels = np.zeros((40, 40, 1), np.int16)
    voxels[20:, :20] = 1000  # axes point to left and front: this is left and behind
    grid = Grid((40, 40, 1), np.diag([-1.0, 1.0, 5.0, 1.0]))
    mask = np.zeros((40, 40, 1), np.uint8)
    mask[18:22, 18:22] = 1
    picture = draw(Volume(voxels, grid), Volume(mask, grid))
    tile = picture[66:186, 240:360].sum(axis=2)  # the only crop, see the constants of preview.py
    assert tile[70:115, 70:115].mean() > 700
    assert tile[20:50, 20:50].mean() < 50
    assert tile[20:50, 70:115].mean() < 50


def test_anisotropic_and_oblique_volumes_are_drawn(draw):
    image, mask = make_phantom(n_slices=6, shape=(60, 90), zooms=(1.0, 0.6, 8.0))
    turn = np.eye(4)
    turn[:2, :2] = [[0.94, -0.34], [0.34, 0.94]]
    grid = Grid(image.grid.shape, turn @ image.grid.affine)
    assert _near(draw(Volume(image.voxels, grid), Volume(mask.voxels, grid)), _ORANGE).any()


def test_outline_of_a_soft_mask_is_at_the_threshold(draw):
    image, mask = make_phantom(n_slices=4, shape=(48, 48))
    line = _line(mask)
    soft = Volume(mask.voxels * np.float32(0.4), mask.grid)
    assert _near(draw(image, soft, line, threshold=0.2), _ORANGE).any()
    with pytest.raises(InputError, match="empty"):
        draw(image, soft, line, threshold=0.5)


def test_values_that_are_not_finite_do_no_harm(draw):
    image, mask = make_phantom(n_slices=4, shape=(48, 48))
    voxels = image.voxels.astype(np.float32)
    voxels[:5], voxels[-5:] = np.nan, np.inf
    assert _near(draw(Volume(voxels, image.grid), mask), _ORANGE).any()


def test_constant_images_are_drawn(draw):
    image, mask = make_phantom(n_slices=2, shape=(48, 48))
    flat = Volume(np.full_like(image.voxels, 7), image.grid)
    assert _near(draw(flat, mask), _ORANGE).any()


def test_centerline_may_cover_other_slices_than_the_mask(draw):
    image, mask = make_phantom(n_slices=8, shape=(48, 48))
    line = _line(mask)
    part = mask.voxels.copy()
    part[..., :3] = 0
    draw(image, Volume(part, mask.grid), Centerline(line.grid, line.points[:5]))
    draw(image, Volume(part, mask.grid), Centerline(line.grid, np.empty((0, 3))))


def test_long_and_strange_names_fit(draw):
    image, mask = make_phantom(n_slices=2, shape=(48, 48))
    short = draw(image, mask, name="a.nii.gz")
    assert draw(image, mask, name="sub-\n\u00e9\u4e2d" * 90, contrast="t2").shape == short.shape


def test_empty_mask_is_refused(draw):
    image, mask = make_phantom(n_slices=2, shape=(48, 48))
    with pytest.raises(InputError, match="empty"):
        draw(image, Volume(np.zeros_like(mask.voxels), mask.grid), _line(mask))


def test_mask_of_another_grid_is_refused(draw):
    _, mask = make_phantom(n_slices=2, shape=(48, 48))
    other, _ = make_phantom(n_slices=3, shape=(48, 48))
    with pytest.raises(InputError, match="grid"):
        draw(other, mask)


def test_unwritable_target_leaves_nothing_behind(tmp_path):
    image, mask = make_phantom(n_slices=2, shape=(48, 48))
    with pytest.raises(OutputError, match="cannot be written"):
        overlay_png(image, mask, _line(mask), tmp_path / "no" / "overlay.png")
    assert list(tmp_path.iterdir()) == []
