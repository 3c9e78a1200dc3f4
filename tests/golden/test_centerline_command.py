"""fastseg centerline gives the very files that SCT's OptiC gave."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastseg.cli import main
from fastseg.networks.sct import import_sct

pytestmark = pytest.mark.golden


@pytest.mark.parametrize("broken", [False, True], ids=["as it is", "with NaN and Inf"])
@pytest.mark.parametrize(
    ("contrast", "name"), [("t2", "t2/t2"), ("t2s", "t2s/t2s"), ("dwi", "dmri/dwi_mean")]
)
def test_the_centerline_is_scts_voxel_by_voxel(
    contrast: str, name: str, broken: bool, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a pack that holds nothing but the support vector machines."""
    monkeypatch.setenv("FASTSEG_PACKS", str(tmp_path / "packs"))
    import_sct(shared / "data/sct_optic_models", "optic")
    image = shared / f"data/sct_testing/{name}.nii.gz"
    if broken:  # the condition of SCT's own test
        loaded = nib.load(image)
        voxels = loaded.get_fdata(dtype=np.float32)
        voxels[0, 0, 0], voxels[1, 0, 0] = np.nan, np.inf
        image = tmp_path / "broken.nii.gz"
        nib.save(nib.Nifti1Image(voxels, loaded.affine), image)
    out = tmp_path / "line.nii.gz"
    with pytest.raises(SystemExit) as end:
        main(
            [
                "centerline",
                str(image),
                "-c",
                contrast,
                "--centerline",
                "svm",
                "--models",
                "optic",
                "-o",
                str(out),
            ]
        )
    assert end.value.code == 0
    theirs = nib.load(shared / f"data/sct_testing/{name}_centerline-optic.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(nib.load(out).dataobj), np.asanyarray(theirs.dataobj))
