"""fastseg demo: files that are what their names say."""

import re

import numpy as np
import pytest
from PIL import Image

from fastseg.nifti import read_volume
from tests.phantom_files import fastseg, files_below, voxels_of

_FILES = [
    "phantom_dwi.nii.gz",
    "phantom_t1.nii.gz",
    "phantom_t2.nii.gz",
    "phantom_t2_centerline.nii.gz",
    "phantom_t2_overlay.png",
    "phantom_t2_seg.nii.gz",
    "phantom_t2_true.nii.gz",
    "phantom_t2s.nii.gz",
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "new"
    return folder, *fastseg("demo", folder)


def test_paths_of_all_files_are_printed(demo):
    folder, code, out, _ = demo
    assert code == 0
    assert sorted(out.split()) == [str(folder / name) for name in _FILES]
    assert files_below(folder) == _FILES


def test_it_tells_the_dice_and_what_to_do_next(demo):
    folder, _, _, err = demo
    dice = float(re.search(r"Dice with its true mask (\S+)", err)[1])
    assert 0.9 < dice <= 1
    assert f"fastseg run {folder}/phantom_t1.nii.gz -o {folder} --preview" in err


def test_files_lie_on_one_grid_in_millimetres(demo):
    folder = demo[0]
    image, template = read_volume(folder / "phantom_t2.nii.gz")
    header = template.header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"
    assert np.allclose(header.get_qform(), header.get_sform(), atol=1e-5)
    for name in ("seg", "true", "centerline"):
        other, _ = read_volume(folder / f"phantom_t2_{name}.nii.gz")
        assert other.grid.same_space(image.grid)
        assert other.voxels.dtype == np.uint8


def test_centerline_has_one_voxel_on_each_slice_inside_the_cord(demo):
    line, true = (voxels_of(demo[0] / f"phantom_t2_{name}.nii.gz") for name in ("centerline", "true"))
    assert (line.sum(axis=(0, 1)) == 1).all()
    assert true[line > 0].all()


def test_overlay_is_a_picture(demo):
    with Image.open(demo[0] / "phantom_t2_overlay.png") as picture:
        assert min(picture.size) > 300


def test_nothing_is_replaced_unless_asked(demo):
    folder = demo[0]
    before = (folder / "phantom_t2_seg.nii.gz").read_bytes()
    code, out, err = fastseg("demo", folder)
    assert (code, out) == (4, "")
    assert "--overwrite" in err
    assert fastseg("demo", folder, "--overwrite", "--seed", 1)[0] == 0
    assert (folder / "phantom_t2_seg.nii.gz").read_bytes() != before


def test_a_file_in_place_of_the_folder_is_a_usage_error(tmp_path):
    (tmp_path / "file").touch()
    assert fastseg("demo", tmp_path / "file")[0] == 2


def test_a_data_set_to_try_cohorts_on(tmp_path):
    code, out, err = fastseg("demo", tmp_path / "bids", "--bids", "2")
    assert code == 0
    assert files_below(tmp_path / "bids") == [
        "dataset_description.json",
        "sub-01",
        "sub-01/anat",
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-02",
        "sub-02/anat",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-02/anat/sub-02_T2w.nii.gz",
    ]
    assert len(out.splitlines()) == 4
    first, second = (voxels_of(tmp_path / f"bids/sub-0{k}/anat/sub-0{k}_T2w.nii.gz") for k in (1, 2))
    assert (first != second).any()
    command = err.partition("now try: ")[2].split()
    assert fastseg(*command[1:])[0] == 0
    assert fastseg("demo", tmp_path / "bids", "--bids", "2")[0] == 4
    assert fastseg("demo", tmp_path / "bids", "--bids", "2", "--overwrite")[0] == 0
