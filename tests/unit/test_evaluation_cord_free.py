"""Slices without a cord: what the makers of tools/evaluate promise."""

from __future__ import annotations

import numpy as np
import pytest

from fastseg.errors import InputError
from fastseg.phantom import make_phantom
from fastseg.volume import SCT_RPI, Volume
from tools.evaluation.cord_free import BODIES, cord_free_cases, make_phantom_body, with_slab
from tools.evaluation.volumes import Case, Phantoms, Slab

_CASE = Case("neck", "i", "m", "t2", "somebody", "phantom")


def _neck(n_slices=9, shape=(96, 96)):
    """A phantom whose cord voxels hold a value that nothing else has."""
    image, mask = make_phantom("t2", n_slices=n_slices, shape=shape)
    voxels = image.voxels.copy()
    voxels[mask.voxels > 0] = 3000
    return Volume(voxels, image.grid), Volume(mask.voxels > 0, mask.grid)


def _turned(volume):
    return volume.reoriented(SCT_RPI).voxels


@pytest.mark.parametrize("body", BODIES)
def test_phantom_is_the_same_for_the_same_seed_only(body):
    first, again, other = (make_phantom_body(body, "t2", seed=seed).voxels for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (body == "air")


@pytest.mark.parametrize("contrast", ["t1", "t2", "t2s", "dwi"])
def test_neck_keeps_its_body_and_loses_cord_and_canal(contrast):
    volume = make_phantom_body("neck", contrast)
    voxels = volume.voxels[..., 10].astype(float)
    skin = voxels[48, :].max(), voxels[:, 48].max()
    spine = voxels[38:58, 38:58]
    # Muscle alone has a standard deviation of 20 % and a fifth of the noise's; a canal in T2 is 7 times as
    # bright as muscle, and the cord in a DWI 9 times.
    assert spine.mean() < 1.5 * np.median(voxels[voxels > voxels.max() / 50])
    assert spine.max() < 4 * spine.mean()
    assert max(skin) > 0


def test_noise_holds_no_structure_and_air_nothing():
    noise = make_phantom_body("noise", "t1").voxels.astype(float)
    halves = noise[:48].mean(), noise[48:].mean()
    # 92160 samples a half: means agree within a standard error of 0.2 %.
    assert halves[0] == pytest.approx(halves[1], rel=0.01)
    assert not make_phantom_body("air", "t1").voxels.any()


@pytest.mark.parametrize(("fill", "end"), [("lateral", "upper"), ("front", "lower"), ("noise", "upper")])
def test_slab_holds_no_cord_and_the_rest_is_untouched(fill, end):
    image, mask = _neck()
    made, free = with_slab(image, mask, fill=fill, end=end)
    old, new = _turned(image), _turned(made)
    assert np.flatnonzero(free).tolist() == ([6, 7, 8] if end == "upper" else [0, 1, 2])
    assert np.array_equal(new[..., ~free], old[..., ~free])
    assert (old[..., free] == 3000).any()
    assert not (new[..., free] == 3000).any()
    assert made.voxels.dtype == image.voxels.dtype


@pytest.mark.parametrize("axcodes", [("R", "A", "S"), ("P", "S", "R"), ("L", "I", "A")])
def test_slab_does_not_depend_on_the_orientation_of_the_file(axcodes):
    image, mask = _neck()
    made, free = with_slab(image, mask, fill="lateral", end="upper")
    turned, also_free = with_slab(
        image.reoriented(axcodes), mask.reoriented(axcodes), fill="lateral", end="upper"
    )
    assert turned.grid.axcodes == axcodes
    assert np.array_equal(_turned(turned), _turned(made))
    assert np.array_equal(free, also_free)


def test_lateral_slab_shows_tissue_of_the_same_slices_only():
    image, mask = _neck()
    made, free = with_slab(image, mask, fill="lateral", end="upper")
    old, new = _turned(image), _turned(made)
    for z in np.flatnonzero(free):
        for y in (20, 48, 70):
            assert set(new[:, y, z]) <= set(old[:, y, z])
    far = np.abs(np.arange(96) - np.argwhere(_turned(mask))[:, 0].mean()) > 30
    same = new[far][..., free] == old[far][..., free]
    assert same.mean() > 0.4  # one side stays where it is, the other is its mirror image


def test_front_slab_keeps_what_lies_in_front():
    image, mask = _neck()
    made, free = with_slab(image, mask, fill="front", end="upper")
    assert np.array_equal(_turned(made)[:, 70:, free], _turned(image)[:, 70:, free])


def test_reference_that_misses_slices_does_not_let_the_cord_in():
    image, mask = _neck()
    part = np.array(mask.voxels)
    part[..., 7:] = False
    made, free = with_slab(image, Volume(part, mask.grid), fill="lateral", end="upper")
    assert not (_turned(made)[..., free] == 3000).any()


def test_air_is_drawn_from_the_darkest_patch_of_the_scan():
    image, mask = _neck()
    made, free = with_slab(image, mask, fill="air", end="lower", seed=3)
    slab = _turned(made)[..., free]
    corner = _turned(image)[:12, :12]
    # The corners lie outside the neck: noise of 16 units in both channels, at most some 70.
    assert slab.max() <= 1.5 * corner.max()
    assert slab.std() > 0
    again, _ = with_slab(image, mask, fill="air", end="lower", seed=3)
    other, _ = with_slab(image, mask, fill="air", end="lower", seed=4)
    assert np.array_equal(made.voxels, again.voxels)
    assert not np.array_equal(made.voxels, other.voxels)


@pytest.mark.parametrize("fill", ["lateral", "front"])
def test_field_too_narrow_for_a_part_beside_the_spine_is_refused(fill):
    image, mask = _neck(shape=(48, 40))
    with pytest.raises(InputError, match="another fill"):
        with_slab(image, mask, fill=fill, end="upper")


def test_one_slice_of_a_short_stack_is_replaced():
    image, mask = _neck(n_slices=2)
    _, free = with_slab(image, mask, fill="noise", end="upper")
    assert free.tolist() == [False, True]


def test_list_is_every_combination_under_its_own_name():
    made = cord_free_cases(
        Phantoms(("air", "limb"), ("t1", "dwi")),
        [Slab(("neck",), ("noise", "air"), ("upper", "lower"))],
        {"neck": _CASE},
        lambda case: _neck(),
    )
    assert [each.name for each in made] == [
        "phantom-air-t1",
        "phantom-air-dwi",
        "phantom-limb-t1",
        "phantom-limb-dwi",
        "neck+noise-upper",
        "neck+noise-lower",
        "neck+air-upper",
        "neck+air-lower",
    ]
    image, free = made[1].make()
    assert free.all()
    assert len(free) == image.grid.shape[2]
    assert made[1].source is None
    _, free = made[5].make()
    assert free.sum() == 3
    assert made[5].source == _CASE


@pytest.mark.parametrize(
    ("phantoms", "slab"),
    [
        (Phantoms(("cat",), ("t1",)), None),
        (Phantoms(("air",), ("ct",)), None),
        (None, Slab(("neck",), ("cheese",), ("upper",))),
        (None, Slab(("neck",), ("air",), ("left",))),
    ],
)
def test_unknown_bodies_fills_and_ends_are_refused(phantoms, slab):
    with pytest.raises(InputError, match="choose one of"):
        cord_free_cases(phantoms, [slab] if slab else [], {"neck": _CASE}, lambda case: _neck())
