"""The report's pictures: what they show, how large they are, and that no volume is too strange for them."""

import io

import numpy as np
import pytest
from PIL import Image

from fastseg.centerline import Centerline
from fastseg.errors import InputError
from fastseg.qc.pictures import draw
from fastseg.volume import SCT_RPI, Grid, Volume

_ORANGE = (255, 140, 30)


def _volume(voxels, zooms=(1.0, 1.0, 3.0)):
    return Volume(voxels, Grid(voxels.shape, np.diag([-zooms[0], zooms[1], zooms[2], 1.0])))


def _tube(shape=(60, 60, 30), zooms=(1.0, 1.0, 3.0), *, lean=0.2, radius=(6.0, 4.0)):
    """A bright slanted cord in grey noise, and its mask."""
    x, y, z = (np.arange(n) for n in shape)
    off = lean * (z - shape[2] / 2) * zooms[2] / 3
    u = (x[:, None, None] - shape[0] / 2) * zooms[0] - off
    v = (y[:, None] - shape[1] / 2) * zooms[1] + off
    inside = (u / radius[0]) ** 2 + (v / radius[1]) ** 2 < 1
    noise = np.random.default_rng(0).normal(300, 20, shape)
    return _volume((noise + 600 * inside).astype(np.int16), zooms), _volume(inside.astype(np.uint8), zooms)


def _grey(sheet):
    with Image.open(io.BytesIO(sheet.image)) as opened:
        assert (opened.format, opened.mode) == ("JPEG", "L")
        return np.asarray(opened)


def _outline(sheet):
    with Image.open(io.BytesIO(sheet.outline)) as opened:
        assert (opened.format, opened.mode) == ("PNG", "P")
        rgba = np.asarray(opened.convert("RGBA"))
    there = rgba[..., 3] > 0
    assert (rgba[there] == (*_ORANGE, 255)).all()
    return there


def _thumbnail(sheet):
    with Image.open(io.BytesIO(sheet.thumbnail)) as opened:
        assert (opened.format, opened.mode) == ("JPEG", "RGB")
        return np.asarray(opened, np.int64)


def _check(sheet):
    """Whatever was drawn: the three pictures fit each other, the layout and the limits."""
    layout, grey, outline = sheet.layout, _grey(sheet), _outline(sheet)
    assert grey.shape[::-1] == tuple(layout["size"])
    assert outline.shape == (2 * grey.shape[0], 2 * grey.shape[1])
    assert _thumbnail(sheet).shape == (56, 168, 3)
    for each in layout["tiles"]:
        assert 0 <= each["x"] <= grey.shape[1] - layout["tile"]
        assert 0 <= each["y"] <= grey.shape[0] - layout["tile"]
    assert len(sheet.image) < 40_000
    assert len(sheet.thumbnail) < 5_000
    assert len(sheet.image) + len(sheet.outline) + len(sheet.thumbnail) < 50_000
    return grey, outline


def _tiles(sheet, picture, fine=1):
    """(k, side, side) pixels of the tiles."""
    n = sheet.layout["tile"] * fine
    corners = [(each["x"] * fine, each["y"] * fine) for each in sheet.layout["tiles"]]
    return np.stack([picture[y : y + n, x : x + n] for x, y in corners])


def _side(sheet, picture, fine=1):
    side = sheet.layout["side"]
    return picture[: side["height"] * fine, : side["width"] * fine]


def _extent(pixels, axis):
    hit = np.flatnonzero(pixels.any(axis=axis))
    return hit[0], hit[-1]


@pytest.fixture(scope="module")
def tube():
    return _tube()


@pytest.fixture(scope="module")
def sheet(tube):
    return draw(*tube)


def test_pictures_fit_each_other_and_the_layout(sheet):
    _check(sheet)


def test_cord_is_in_the_middle_of_every_tile(sheet):
    for tile in _tiles(sheet, _grey(sheet)):
        bright = np.argwhere(tile > 160)
        # A square lies around a whole voxel: half of one is a pixel off, and the curve is smoothed.
        assert np.abs(bright.mean(axis=0) - 39.5).max() < 2


def test_outline_is_thin_and_at_the_border_of_the_mask(sheet, tube):
    _, mask = tube
    for each, tile in zip(sheet.layout["tiles"], _tiles(sheet, _outline(sheet), 2), strict=True):
        plane = mask.voxels[..., each["z"]]
        for axis in (0, 1):
            low, high = _extent(tile, axis)
            first, last = _extent(plane, 1 - axis)
            # 4 fine pixels a voxel of 1 mm; at its tip a round mask is cut before the outermost face.
            assert -3 <= (high - low + 1) - 4 * (last - first + 1) <= 0
        # No more than an outline: its pixels are as many as the box around it has along its sides, at most.
        assert tile.sum() <= 2 * (np.ptp(np.argwhere(tile), axis=0) + 1).sum()


def test_outline_follows_the_cord_from_the_side(sheet):
    line = _side(sheet, _outline(sheet), 2)
    cord = line[8:-8]
    widths = [np.ptp(np.flatnonzero(row)) + 1 for row in cord if row.any()]
    # A cord of 8 mm, seen from the side; its voxels are 4 fine pixels wide.
    assert abs(np.median(widths) - 32) <= 4


@pytest.mark.parametrize("axcodes", [("R", "A", "S"), ("P", "S", "R"), ("I", "L", "A"), ("S", "P", "L")])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pictures_do_not_depend_on_the_orientation_of_the_file(sheet, tube, axcodes, order):
    turned = [each.reoriented(axcodes) for each in tube]
    stored = [Volume(np.array(each.voxels, order=order), each.grid) for each in turned]
    assert draw(*stored) == sheet


def test_patients_right_is_on_the_left_and_front_is_on_top():
    voxels = np.zeros((40, 40, 1), np.int16)
    voxels[20:, :20] = 1000  # axes point to left and front: this is left and behind
    mask = np.zeros((40, 40, 1), np.uint8)
    mask[18:22, 18:22] = 1
    sheet = draw(_volume(voxels), _volume(mask))
    tile = _tiles(sheet, _grey(sheet))[0]
    assert tile[50:75, 50:75].mean() > 200
    assert tile[5:35].mean() < 20
    assert tile[50:75, 5:35].mean() < 20


def test_side_view_has_the_head_on_top_and_front_on_the_left():
    voxels = np.zeros((40, 40, 20), np.int16)
    voxels[:, 20:, 10:] = 1000  # in front, and above
    mask = np.zeros((40, 40, 20), np.uint8)
    mask[18:22, 18:22] = 1
    sheet = draw(_volume(voxels), _volume(mask))
    seen, side = _side(sheet, _grey(sheet)), sheet.layout["side"]
    assert (side["z_top"], side["z_bottom"], side["height"]) == (19, 0, 120)
    assert seen[5:55, 20:50].mean() > 200
    assert seen[65:115].mean() < 20
    assert seen[5:55, 62:90].mean() < 20


def test_thumbnail_has_the_middle_tile_in_colour_and_the_head_on_the_left(tube):
    image, mask = tube
    voxels = image.voxels.copy()
    voxels[..., 15:] = 0
    thumbnail = _thumbnail(draw(_volume(voxels), mask))
    orange = np.abs(thumbnail - _ORANGE).sum(axis=2) < 180
    assert orange[:, :56].any()
    assert orange[:, 56:].any()
    assert thumbnail[24:32, 70:100].mean() < thumbnail[24:32, 130:160].mean() / 2


def test_tiles_go_evenly_from_top_to_bottom():
    z = [each["z"] for each in draw(*_tube((50, 50, 200), (1.0, 1.0, 1.0), lean=0.02)).layout["tiles"]]
    assert len(z) == 40
    assert (z[0], z[-1]) == (199, 0)
    assert set(np.diff(z)) == {-5} | {-6} or set(np.diff(z)) == {-5}


def test_slices_that_are_to_be_shown_are_among_the_tiles():
    image, mask = _tube((50, 50, 200), (1.0, 1.0, 1.0), lean=0.02)
    wanted = [3, 4, 77, 78, 79, 150, 9999, -1]
    z = [each["z"] for each in draw(image, mask, shown=wanted).layout["tiles"]]
    assert {3, 4, 77, 78, 79, 150} <= set(z)
    assert len(z) == 40
    assert np.diff(z).min() >= -12  # twice the distance of tiles: some gave way
    assert z == sorted(z, reverse=True)


def test_slices_without_cord_are_shown_when_they_are_asked_for(tube):
    image, mask = tube
    part = mask.voxels.copy()
    part[..., 10:20] = 0
    sheet = draw(image, _volume(part), shown=[14])
    assert [each["z"] for each in sheet.layout["tiles"]] == [*range(29, 19, -1), 14, *range(9, -1, -1)]
    tile = _tiles(sheet, _outline(sheet), 2)[10]
    assert not tile.any()


def test_centerline_says_what_is_in_the_middle(tube):
    image, mask = tube
    points = np.array([[20.0, 30.0, z] for z in range(30)])
    tile = _tiles(sheet := draw(image, mask, Centerline(image.grid, points)), _grey(sheet))[15]
    assert np.argwhere(tile > 160).mean(axis=0)[1] > 50


@pytest.mark.parametrize("empty", [None, np.zeros((60, 60, 30), np.uint8)])
def test_where_no_cord_was_found_the_middle_of_the_volume_is_shown(tube, empty):
    sheet = draw(tube[0], None if empty is None else _volume(empty))
    grey, outline = _check(sheet)
    assert not outline.any()
    assert len(sheet.layout["tiles"]) == 24
    assert sheet.layout["side"]["z_bottom"] == 0
    assert sheet.layout["side"]["z_top"] == 29
    assert _tiles(sheet, grey)[12][46:54, 46:54].mean() > 180


def test_a_centerline_without_a_mask_is_followed(tube):
    image, _ = tube
    points = np.array([[30.0 - 0.2 * (15 - z), 30.0 + 0.2 * (15 - z), z] for z in range(5, 25)])
    sheet = draw(image, None, Centerline(image.grid, points))
    grey, outline = _check(sheet)
    assert not outline.any()
    assert [each["z"] for each in sheet.layout["tiles"]] == list(range(24, 4, -1))
    assert _tiles(sheet, grey)[:, 36:44, 36:44].mean() > 150


def test_outline_of_probabilities_is_at_the_threshold(tube):
    image, mask = tube
    soft = np.clip(mask.voxels * 0.9 + np.roll(mask.voxels, 2, axis=0) * 0.1, 0, 1).astype(np.float32)
    wide, narrow = (_outline(draw(image, _volume(soft), threshold=each)) for each in (0.05, 0.5))
    half = _outline(draw(image, mask))
    sums = [_extent(each[:, 250:], 0) for each in (wide, narrow, half)]
    assert wide.sum() > narrow.sum() > 0
    assert sums[0] != sums[1]


@pytest.mark.parametrize("dtype", [bool, np.int64, ">i2", np.uint8])
def test_labels_of_any_type_and_value_have_the_same_outline(sheet, tube, dtype):
    image, mask = tube
    labels = mask.voxels.astype(dtype) * np.array(1 if dtype is bool else 255, dtype)
    assert draw(image, _volume(labels)).outline == sheet.outline


@pytest.mark.parametrize("dtype", ["u1", "i1", ">i2", "<u4", ">i8", "f2", ">f4", "f8", "g", "?"])
def test_images_of_any_type_are_drawn(tube, dtype):
    image, mask = tube
    levels = image.voxels > 700 if dtype == "?" else (image.voxels // 8).astype(dtype)
    sheet = draw(_volume(levels), mask)
    grey, _ = _check(sheet)
    assert _tiles(sheet, grey)[15][36:44, 36:44].mean() > 200


def test_values_that_are_not_finite_do_no_harm(tube):
    image, mask = tube
    voxels = image.voxels.astype(np.float64)
    voxels[:20], voxels[40:, 30:], voxels[:, :20] = np.nan, np.inf, -1e300
    soft = mask.voxels.astype(np.float32)
    soft[0], soft[5] = np.nan, -np.inf
    sheet = draw(_volume(voxels), _volume(soft))
    grey, outline = _check(sheet)
    assert outline.any()
    assert _tiles(sheet, grey)[15][36:44, 36:44].mean() > 200


@pytest.mark.parametrize("value", [0, 7, -3.5, 1e30, np.nan])
def test_constant_images_are_drawn(tube, value):
    flat = np.full((60, 60, 30), value)
    grey, outline = _check(draw(_volume(flat), tube[1]))
    assert grey.max() == 0
    assert outline.any()


@pytest.mark.parametrize(
    ("shape", "zooms"),
    [
        ((60, 60, 1), (1.0, 1.0, 5.0)),
        ((60, 60, 2), (1.0, 1.0, 20.0)),
        ((20, 16, 12), (1.0, 1.0, 4.0)),  # smaller than a tile
        ((200, 200, 20), (0.2, 0.2, 0.4)),
        ((24, 24, 40), (2.0, 2.0, 2.0)),
        ((40, 40, 700), (1.0, 1.0, 0.9)),
        ((40, 40, 1500), (1.0, 1.0, 0.05)),
        ((30, 90, 25), (3.3, 0.5, 0.5)),
    ],
)
@pytest.mark.parametrize("found", [True, False])
def test_volumes_of_any_size_are_drawn(shape, zooms, found):
    image, mask = _tube(shape, zooms, lean=0.0)
    grey, outline = _check(draw(image, mask if found else None))
    assert outline.any() == found
    assert max(grey.shape) < 1000


@pytest.mark.parametrize("found", [True, False])
def test_a_volume_of_one_voxel_is_drawn(found):
    one = np.ones((1, 1, 1), np.uint8)
    _check(draw(_volume(one), _volume(one) if found else None))


def test_mask_at_the_border_of_the_volume_has_a_closed_outline():
    image, _ = _tube((30, 30, 4))
    mask = np.zeros((30, 30, 4), np.uint8)
    mask[:8, 12:18] = 1
    sheet = draw(image, _volume(mask))
    tile = _tiles(sheet, _outline(sheet), 2)[0]
    assert tile[:, _extent(tile, 0)[0]].sum() > 16
    assert np.ptp(_extent(tile, 0)) + 1 == pytest.approx(32, abs=1)


def test_mask_larger_than_a_tile_has_no_outline_at_the_tiles_edge():
    image, _ = _tube((90, 90, 3))
    sheet = draw(image, _volume(np.ones((90, 90, 3), np.uint8)))
    assert not _tiles(sheet, _outline(sheet), 2).any()


@pytest.mark.parametrize("zoom", [0.5, 1.0])
def test_pure_noise_stays_within_the_limits(zoom):
    random = np.random.default_rng(0)
    voxels = random.integers(0, 2, (120, 120, 60)).astype(np.int16) * 1000
    mask = (random.random((120, 120, 60)) < 0.3).astype(np.uint8)
    _, outline = _check(draw(_volume(voxels, (zoom, zoom, 1.0)), _volume(mask, (zoom, zoom, 1.0))))
    assert outline.any()
    _check(draw(_volume(voxels, (zoom, zoom, 1.0)), None))


def test_only_what_is_looked_at_is_read():
    # 5 * 10^11 voxels that all lie in one place: whatever reads them all does not end.
    shape = (8000, 8000, 8000)
    image = _volume(np.broadcast_to(np.int16(5), shape), (0.5, 0.5, 0.5))
    points = np.array([[4000.0, 4000.0, z] for z in range(4000, 4300)])
    sheet = draw(image, None, Centerline(image.grid, points))
    assert len(sheet.layout["tiles"]) == 40


def test_mask_of_another_grid_is_refused(tube):
    image, mask = tube
    moved = Volume(mask.voxels, Grid(mask.grid.shape, np.diag([-1.0, 1.0, 2.5, 1.0])))
    with pytest.raises(InputError, match="grid"):
        draw(image, moved)
    assert draw(image, mask.reoriented(SCT_RPI)).layout["tile"] == 80
