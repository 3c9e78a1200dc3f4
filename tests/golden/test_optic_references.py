"""OptiC's reference outputs of SCT, voxel by voxel."""

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fastseg.optic import optic_centerline, prepare_uint16, svm_score_map

DATA = Path(__file__).parents[3] / "shared" / "data"
LAS = nibabel.orientations.axcodes2ornt(("L", "A", "S"))
REFERENCES = {"t2": ("t2/t2", 55), "t2s": ("t2s/t2s", 9), "dwi": ("dmri/dwi_mean", 5)}

pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there"),
]


def coefficients_of(contrast):
    """Numbers of the detector in OpenCV's YAML file."""
    text = (DATA / "sct_optic_models" / f"{contrast}_model.yml").read_text()
    listed = re.search(r"SVMDetector: \[(.*?)\]", text, re.DOTALL)
    return np.array(listed[1].split(","), np.float32)


def to_las(image):
    orientation = nibabel.orientations.io_orientation(image.affine)
    return image.as_reoriented(nibabel.orientations.ornt_transform(orientation, LAS))


@pytest.mark.parametrize("bad_voxels", [False, True], ids=["plain", "with NaN and infinity"])
@pytest.mark.parametrize("contrast", REFERENCES)
def test_centerline_equals_sct_on_every_slice(contrast, bad_voxels):
    """With bad voxels: the condition of SCT's own test, whose tolerance is zero too."""
    name, n_slices = REFERENCES[contrast]
    image = nibabel.load(DATA / "sct_testing" / f"{name}.nii.gz")
    zooms = to_las(image).header.get_zooms()[:3]
    if bad_voxels:
        voxels = image.get_fdata().astype(np.float32)
        voxels[0, 0, 0], voxels[1, 0, 0] = np.nan, np.inf
        image = nibabel.Nifti1Image(voxels, image.affine)
    reference = to_las(nibabel.load(DATA / "sct_testing" / f"{name}_centerline-optic.nii.gz"))
    wanted = np.argwhere(np.asarray(reference.dataobj).transpose(2, 0, 1) > 0)
    path = optic_centerline(np.asarray(to_las(image).dataobj), zooms, coefficients_of(contrast))
    np.testing.assert_array_equal(wanted[:, 0], np.arange(n_slices))
    np.testing.assert_array_equal(path, wanted[:, 1:])


def test_scores_agree_with_opencv_on_a_real_volume():
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2, "HOGDescriptor"):
        pytest.skip("this OpenCV has no HOGDescriptor")
    coefficients = coefficients_of("t2")
    hog = cv2.HOGDescriptor((32, 32), (8, 8), (8, 8), (4, 4), 9, 1, 2.0, 0, 0.2, True, 64, True)
    hog.setSVMDetector(coefficients)
    voxels = to_las(nibabel.load(DATA / "sct_testing" / "t2" / "t2.nii.gz"))
    voxels = prepare_uint16(np.asarray(voxels.dataobj))
    scores = svm_score_map(voxels, (1, 1, 1), coefficients)
    n_x, n_y, n_z = voxels.shape
    for z in range(0, n_z, 9):
        slice_ = voxels[:, :, z].T
        image = np.rint(slice_ * 255.0 / slice_.max()).astype(np.uint8)
        _, wanted = hog.detect(image, hitThreshold=-1e9, winStride=(1, 1), padding=(16, 16))
        # OpenCV approximates angles; the closest call among the references is 1.4e-3.
        wanted = wanted.reshape(n_y + 1, n_x + 1)[:-1, :-1].T
        np.testing.assert_allclose(scores[z], wanted, rtol=0, atol=5e-4)
