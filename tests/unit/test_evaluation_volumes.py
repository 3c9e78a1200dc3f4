"""The list of volumes of tools/evaluate, and reading what it names."""

from __future__ import annotations

import numpy as np
import pytest

from fastseg.errors import InputError
from fastseg.networks.network import CONTRASTS
from fastseg.nifti import new_template, write_volume
from fastseg.volume import Grid, Volume
from tools.evaluation.cord_free import BODIES, ENDS, FILLS
from tools.evaluation.volumes import Case, load_case, read_list

_LIMITS = """\
[limits]
area_bias_percent = 16
mean_area_bias_percent = 5
centerline_p95_mm = 2.5
centerline_max_mm = 6
cord_free_percent = 5
"""
_VOLUME = """\
[[volume]]
name = "one"
image = "image.nii.gz"
mask = "mask.nii.gz"
contrast = "t2"
person = "somebody"
reference = "manual"
"""


@pytest.fixture
def listed(tmp_path):
    def read(text):
        path = tmp_path / "volumes.toml"
        path.write_text(text)
        return read_list(path)

    return read


def test_the_list_of_the_project_is_well_formed():
    listing = read_list()
    names = [case.name for case in listing.cases]
    assert len(set(names)) == len(names)
    assert {case.contrast for case in listing.cases} == set(CONTRASTS)
    assert all(case.reference and case.person for case in listing.cases)
    assert not any(case.image.startswith(("/", "~")) for case in listing.cases)
    assert listing.phantoms is not None
    assert set(listing.phantoms.bodies) == set(BODIES)
    assert set(listing.phantoms.contrasts) == set(CONTRASTS)
    assert {fill for slab in listing.slabs for fill in slab.fills} == set(FILLS)
    assert all(set(slab.ends) == set(ENDS) for slab in listing.slabs)


def test_the_list_asks_what_the_issue_asks():
    asked = {case.name: case.at_least for case in read_list().cases if case.at_least is not None}
    assert asked == {
        "sct-t1": 0.955,
        "sct-t2": 0.975,
        "sct-t2-lesion": 0.915,
        "errsm11-t2": 0.905,
        "errsm21-t2": 0.905,
        "errsm30-t2": 0.950,
        "sct-t2s": 0.955,
        "gm9418": 0.970,
        "gm9604": 0.970,
        "gm10062-ses-1": 0.970,
        "gm10062-ses-2": 0.970,
        "sct-mt0": 0.935,
        "sct-mt1": 0.935,
        "errsm30-mton": 0.935,
        "sct-dwi": 0.940,
    }


def test_volumes_of_one_person_are_known_to_be():
    people = {}
    for case in read_list().cases:
        people.setdefault(case.person, set()).add(case.name)
    assert {"sct-t2", "sct-mt0", "sct-mt1", "sct-dwi", "errsm30-t2", "errsm30-mton"} <= people["errsm30"]
    assert people["errsm21"] == {"errsm21-t2", "errsm21-t2s"}
    assert people["gm10062"] == {"gm10062-ses-1", "gm10062-ses-2"}


def test_an_image_counts_once_only():
    images = [case.image for case in read_list().cases if case.counted]
    assert len(set(images)) == len(images)


def test_defaults_are_those_of_a_plain_volume(listed):
    (case,) = listed(_LIMITS + _VOLUME).cases
    assert case == Case("one", "image.nii.gz", "mask.nii.gz", "t2", "somebody", "manual")
    assert case.counted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[volume", "cannot be read"),
        (_LIMITS + _VOLUME + _VOLUME, "two volumes have the name 'one'"),
        (_LIMITS + _VOLUME + 'colour = "red"\n', "'colour' is not a key"),
        (_LIMITS + _VOLUME.replace('person = "somebody"\n', ""), "'person' is missing"),
        (_LIMITS + _VOLUME.replace('"t2"', '"ct"'), "contrast 'ct'"),
        (_LIMITS + _VOLUME + "at_least = 97\n", "between 0 and 1"),
        (_LIMITS + _VOLUME + "offset = [1, 2]\n", "three voxel numbers"),
        (_LIMITS + _VOLUME + "offset = [1, -2, 0]\n", "three voxel numbers"),
        (_LIMITS + _VOLUME.replace('"image', '"/image'), "relative to the data root"),
        (_LIMITS + _VOLUME.replace('"image', '"../image'), "relative to the data root"),
        (_LIMITS + '[[slab]]\nvolumes = ["two"]\nfills = []\nends = []\n', "names 'two'"),
        (_LIMITS + "[noise]\n", "'noise' is not a table"),
        (_VOLUME, r"\[limits\]: 'area_bias_percent' is missing"),
    ],
)
def test_what_is_wrong_with_a_list_is_said_in_one_line(listed, text, message):
    with pytest.raises(InputError, match=message) as caught:
        listed(text)
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_list(tmp_path / "volumes.toml")


# --- reading


def _save(path, voxels, affine=None):
    grid = Grid(voxels.shape[:3], np.diag([-2.0, 2.0, 3.0, 1.0]) if affine is None else affine)
    template = new_template(grid)
    if voxels.ndim == 4:  # written by hand: fastseg writes volumes only
        import nibabel as nib

        nib.save(nib.Nifti1Image(voxels, grid.affine), path)
    else:
        write_volume(voxels, template, path)
    return Volume(voxels[..., 0] if voxels.ndim == 4 else voxels, grid)


def _case(**keys):
    return Case("one", "image.nii.gz", "mask.nii.gz", "t2", "somebody", "manual", **keys)


def test_mask_comes_on_the_grid_of_the_image_whatever_its_orientation(tmp_path):
    image = _save(tmp_path / "image.nii.gz", np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    mask = np.zeros((2, 3, 4), np.uint8)
    mask[1, 2, 0] = 1
    turned = Volume(mask, image.grid).reoriented(("P", "S", "R"))
    _save(tmp_path / "mask.nii.gz", np.ascontiguousarray(turned.voxels), turned.grid.affine)
    read, reference = load_case(_case(), tmp_path)
    assert np.array_equal(read.voxels, image.voxels)
    assert reference.voxels.dtype == bool
    assert np.argwhere(reference.voxels).tolist() == [[1, 2, 0]]


def test_mask_of_a_crop_is_pasted_at_its_offset(tmp_path):
    image = _save(tmp_path / "image.nii.gz", np.zeros((8, 9, 4), np.int16))
    crop = np.zeros((3, 2, 4), np.uint8)
    crop[0, 1, 3] = 1
    _save(tmp_path / "mask.nii.gz", crop)
    _, reference = load_case(_case(offset=(4, 5, 0)), tmp_path)
    assert reference.grid is image.grid or reference.grid.same_space(image.grid)
    assert np.argwhere(reference.voxels).tolist() == [[4, 6, 3]]


@pytest.mark.parametrize("offset", [(6, 0, 0), (0, 8, 0), (0, 0, 1)])
def test_offset_that_leads_beyond_the_image_is_refused(tmp_path, offset):
    _save(tmp_path / "image.nii.gz", np.zeros((8, 9, 4), np.int16))
    _save(tmp_path / "mask.nii.gz", np.ones((3, 2, 4), np.uint8))
    with pytest.raises(InputError, match="mend the offset"):
        load_case(_case(offset=offset), tmp_path)


def test_diffusion_series_becomes_the_mean_of_its_weighted_volumes(tmp_path):
    series = np.stack([np.full((2, 3, 4), value, np.int16) for value in (900, 10, 13, 800)], axis=-1)
    _save(tmp_path / "image.nii.gz", series)
    _save(tmp_path / "mask.nii.gz", np.ones((2, 3, 4), np.uint8))
    (tmp_path / "bvals.txt").write_text("0 750 1000 5\n")
    image, _ = load_case(_case(bvals="bvals.txt"), tmp_path)
    assert (image.voxels == 11.5).all()
    (tmp_path / "bvals.txt").write_text("0 0 0 0\n")
    with pytest.raises(InputError, match="no b-value"):
        load_case(_case(bvals="bvals.txt"), tmp_path)


def test_mask_elsewhere_empty_or_missing_is_refused(tmp_path):
    _save(tmp_path / "image.nii.gz", np.ones((2, 3, 4), np.int16))
    with pytest.raises(InputError, match=r"mask\.nii\.gz"):
        load_case(_case(), tmp_path)
    _save(tmp_path / "mask.nii.gz", np.zeros((2, 3, 4), np.uint8))
    with pytest.raises(InputError, match="empty"):
        load_case(_case(), tmp_path)
    _save(tmp_path / "mask.nii.gz", np.ones((2, 3, 4), np.uint8), np.diag([-2.0, 2.0, 4.0, 1.0]))
    with pytest.raises(InputError, match="not on the grid"):
        load_case(_case(), tmp_path)
