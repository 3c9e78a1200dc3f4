"""Synthetic samples: what depends on what, and that the masks mean what they say."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from tools.train.contact_sheet import make_sheet
from tools.train.synthesis import anatomy as regions
from tools.train.synthesis.anatomy import draw_anatomy
from tools.train.synthesis.compiling import compiled
from tools.train.synthesis.contrasts import DWI, KINDS, MARGINS, T2, draw_contrast
from tools.train.synthesis.painting import centre_at, paint
from tools.train.synthesis.samples import CROP_SIDE, WHOLE_SIDE, Samples, draw_samples
from tools.train.synthesis.shapes import N_ANGLES, dent, radius_at, superellipse
from tools.train.synthesis.tissues import AIR, CORTEX, CSF, WHITE


@cache
def _crops() -> Samples:
    return draw_samples(60, 3)


@compiled
def _seed(seed: int) -> None:
    np.random.seed(seed)  # noqa: NPY002 - numba's own


def _painted(
    region: int, seed: int, margin: float = 0.0, z: float = 0.0
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Tissues and mask of one plane, 48 mm at 0.25 mm, without warp."""
    _seed(seed)
    anatomy = draw_anatomy(region, 30.0, False)
    n = 192
    fields = np.zeros((3, n, n), np.float32)
    fields[0] = 1.0  # no septa
    tissue, mask = np.empty((n, n), np.int8), np.empty((n, n), np.float32)
    paint(anatomy, z, 0.25, (0.0, 0.0), margin, np.zeros((2, n, n), np.float32), fields, tissue, mask)
    return tissue, mask


def test_a_sample_depends_on_its_seed_and_number_only() -> None:
    few, more, threaded = draw_samples(3, 5), draw_samples(6, 5), draw_samples(6, 5, threads=2)
    for a, b, c in zip(few, more, threaded, strict=True):
        np.testing.assert_array_equal(a, b[:3])
        np.testing.assert_array_equal(b, c)
    assert (draw_samples(3, 6).images != few.images).any()


def test_crops_blocks_and_whole_slices_have_their_shapes() -> None:
    assert draw_samples(1, 1).images.shape == (1, 1, CROP_SIDE, CROP_SIDE)
    assert draw_samples(1, 1, depth=3).masks.shape == (1, 3, CROP_SIDE, CROP_SIDE)
    whole = draw_samples(2, 1, whole=True)
    assert whole.images.shape == (2, 1, WHOLE_SIDE, WHOLE_SIDE)
    assert whole.centres.shape == (2, 1, 2)


def test_most_samples_hold_a_cord_and_some_do_not() -> None:
    there = np.isfinite(_crops().centres[:, 0, 0])
    assert 0.7 < there.mean() < 1.0


def test_centres_are_those_of_the_masks() -> None:
    samples = _crops()
    for mask, centre in zip(samples.masks[:, 0].astype(float), samples.centres[:, 0], strict=True):
        if np.isfinite(centre).all():
            found = [(np.arange(CROP_SIDE) * mask.sum(1 - a)).sum() / mask.sum() for a in range(2)]
            # Masks are rounded to 250 levels.
            np.testing.assert_allclose(found, centre, atol=0.05)
        else:
            assert mask.sum() / 250 * 0.25 <= 2.1  # mm²


def test_the_cord_is_the_bright_thing_in_diffusion_weighted_images() -> None:
    samples = _crops()
    chosen = (samples.kinds == DWI) & np.isfinite(samples.centres[:, 0, 0])
    assert chosen.sum() >= 3
    for image, mask in zip(samples.images[chosen, 0], samples.masks[chosen, 0], strict=True):
        assert image[mask > 200].mean() > 1.5 * image[mask == 0].mean()


@pytest.mark.parametrize("region", [regions.CAUDA, regions.HEAD, regions.LIMB, regions.NOTHING])
def test_regions_without_cord_have_no_mask(region: int) -> None:
    for seed in range(5):
        tissue, mask = _painted(region, seed)
        assert not mask.any()
        assert (tissue == AIR).all() == (region == regions.NOTHING)


def test_the_cauda_equina_floats_in_csf_inside_bone() -> None:
    tissue, _ = _painted(regions.CAUDA, 1)
    assert (tissue == CSF).any()
    assert (tissue == CORTEX).any()
    assert not (tissue == WHITE).any()


def test_the_mask_keeps_its_margin_from_the_boundary() -> None:
    """A margin d takes about d times the perimeter of the area, whatever the shape."""
    for seed in range(8):
        _, whole = _painted(regions.NECK, seed)
        _, inner = _painted(regions.NECK, seed, margin=0.3)
        area, lost = whole.sum() / 16, (whole.sum() - inner.sum()) / 16
        perimeter_of_circle = 2 * np.sqrt(np.pi * area)
        # An ellipse of 2:1 has 9 % more perimeter than its circle, a dented and wobbling outline some more;
        # an inner parallel curve is shorter by pi times the margin on average.
        assert 0.85 < lost / (0.3 * (perimeter_of_circle - np.pi * 0.3)) < 1.5
        assert (inner <= whole).all()


def test_lesions_and_grey_matter_count_as_cord() -> None:
    """Whatever is seen in the cord, the mask is one object without holes."""
    for seed in range(20):
        _, mask = _painted(regions.NECK, seed)
        rows = [np.flatnonzero(row) for row in mask > 0.5]
        assert all((np.diff(row) == 1).all() for row in rows if len(row))


def test_slices_of_a_block_continue_each_other() -> None:
    blocks = draw_samples(12, 2, depth=4)
    images = blocks.images.astype(float).reshape(12, 4, -1)
    beside = np.mean([np.corrcoef(block[1], block[2])[0, 1] for block in images])
    apart = np.mean([np.corrcoef(images[k, 1], images[k - 1, 2])[0, 1] for k in range(12)])
    assert beside > 0.6 > apart + 0.2


def test_windows_of_a_block_follow_the_cord() -> None:
    blocks = draw_samples(12, 4, depth=6)
    moved = np.diff(blocks.centres, axis=1)
    assert np.nanmax(np.abs(moved)) < 6  # pixels of 0.5 mm, though centerlines drift by many mm


def test_the_centerline_starts_where_it_is_said_to_start() -> None:
    _seed(1)
    assert centre_at(draw_anatomy(regions.NECK, 30.0, False), 0.0) == (0.0, 0.0)


def test_csf_is_brighter_than_cord_on_t2_and_nothing_is_negative() -> None:
    for seed in range(50):
        _seed(seed)
        means = draw_contrast(T2)
        assert means[CSF] > means[WHITE]
        assert (means >= 0).all()


def test_every_kind_has_its_margin() -> None:
    assert len(MARGINS) == len(KINDS)
    assert (MARGINS > 0).all()


def test_radii_are_interpolated_between_directions() -> None:
    outline = superellipse(4.0, 2.0, 2.0)
    assert outline[[0, N_ANGLES // 4]] == pytest.approx([4.0, 2.0])
    middle = radius_at(outline, np.pi / N_ANGLES)
    assert middle == pytest.approx((outline[0] + outline[1]) / 2)
    assert radius_at(outline, -np.pi / 2) == pytest.approx(2.0)
    assert radius_at(outline, 2 * np.pi - 1e-12) == pytest.approx(4.0)


def test_a_dent_presses_on_one_side_only() -> None:
    outline = np.full(N_ANGLES, 5.0)
    dent(outline, np.pi / 2, 0.4, 0.3)
    assert outline[N_ANGLES // 4] == pytest.approx(3.5)
    assert outline[3 * N_ANGLES // 4] == pytest.approx(5.0)


def test_the_contact_sheet_has_rows_for_every_kind_and_outlines_in_red() -> None:
    sheet = np.asarray(make_sheet(_crops(), 1, columns=4))
    assert sheet.shape == (len(KINDS) * (CROP_SIDE + 2), 4 * (CROP_SIDE + 2), 3)
    for k in range(len(KINDS)):
        row = sheet[k * (CROP_SIDE + 2) : (k + 1) * (CROP_SIDE + 2)]
        assert row.any()
    assert ((sheet[..., 0] == 230) & (sheet[..., 1] == 70)).any()
