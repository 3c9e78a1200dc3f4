"""What a header says, without its voxels: the same as the reader finds, for next to nothing."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.errors import InputError
from fastseg.nifti import probe_volume, read_volume
from tests.nifti_bytes import AFFINE, DTYPES, file, random_voxels, raw


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_probe_finds_the_grid_and_type_that_the_reader_finds(
    dtype: str, kind: Any, order: str, tmp_path: Path
) -> None:
    path = file(tmp_path / "a.nii.gz", raw(random_voxels(dtype), kind, order))
    facts, (volume, template) = probe_volume(path), read_volume(path)
    assert facts.shape == volume.grid.shape
    assert facts.zooms == volume.grid.zooms
    assert facts.axcodes == volume.grid.axcodes
    np.testing.assert_array_equal(facts.grid.affine, volume.grid.affine)
    assert facts.dtype.newbyteorder("=") == volume.voxels.dtype
    assert facts.notes == template.notes
    assert facts.voxel_bytes == volume.voxels.nbytes


@pytest.mark.parametrize(
    ("shape", "frame", "spatial", "frames"),
    [
        ((5, 4), None, (5, 4, 1), 1),
        ((5, 4, 3), None, (5, 4, 3), 1),
        ((5, 4, 3, 1), None, (5, 4, 3), 1),
        ((5, 4, 3, 6), "mean", (5, 4, 3), 6),
        ((5, 4, 3, 6), 5, (5, 4, 3), 6),
        ((5, 4, 3, 6, 1), 5, (5, 4, 3), 6),
    ],
)
def test_one_volume_of_a_file_is_always_3d(
    shape: Any, frame: Any, spatial: Any, frames: int, tmp_path: Path
) -> None:
    path = file(tmp_path / "a.nii", raw(random_voxels("i2", shape)))
    facts = probe_volume(path, frame)
    assert (facts.shape, facts.frames) == (spatial, frames)
    assert facts.promised_bytes == facts.file_bytes == 352 + frames * facts.voxel_bytes
    assert read_volume(path, frame=frame)[0].voxels.shape == spatial


@pytest.mark.parametrize("frame", [None, 6, -1])
def test_a_frame_that_is_not_there_is_refused_as_by_the_reader(frame: Any, tmp_path: Path) -> None:
    path = file(tmp_path / "a.nii", raw(random_voxels("i2", (5, 4, 3, 6))))
    with pytest.raises(InputError) as read:
        read_volume(path, frame=frame)
    with pytest.raises(InputError) as probed:
        probe_volume(path, frame)
    assert str(probed.value) == str(read.value)


def test_voxels_are_not_read(tmp_path: Path) -> None:
    """A file that breaks off behind its header, which promises no more than gzip could hold."""
    content = gzip.compress(raw(random_voxels("i2", (64, 64, 20))))
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content[: len(content) // 2])
    assert probe_volume(path).shape == (64, 64, 20)
    with pytest.raises(InputError, match="truncated"):
        read_volume(path)


def test_the_end_of_a_sound_file_is_plausible(tmp_path: Path) -> None:
    content = raw(random_voxels("i2"))
    for name in ("a.nii", "a.nii.gz"):
        facts = probe_volume(file(tmp_path / name, content))
        assert facts.end_is_plausible
        assert facts.stated_bytes == facts.promised_bytes == len(content)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(1, 5000))
def test_the_end_of_a_truncated_gzip_file_is_not_plausible(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # The last four bytes are noise then, equal to the promise once in 2**32 files.
    content = gzip.compress(raw(random_voxels("i2", (40, 40, 4))), mtime=0)
    path = tmp_path_factory.mktemp("cut") / "a.nii.gz"
    path.write_bytes(content[:-cut])
    assert not probe_volume(path).end_is_plausible


def test_the_distance_between_sform_and_qform_is_that_of_their_farthest_voxel(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_shape((11, 21, 5))
    moved = np.diag([2.0, 2, 2, 1])
    moved[0, 3] = 3.0
    header.set_qform(np.diag([2.0, 2, 2, 1]), 1)
    header.set_sform(moved, 1)
    voxels = random_voxels("i2", (11, 21, 5))
    fields = {
        name: header[name]
        for name in header
        if name.startswith(("pixdim", "qform", "sform", "srow", "quatern", "qoffset"))
    }
    facts = probe_volume(file(tmp_path / "a.nii", raw(voxels, **fields)))
    assert facts.forms_apart_mm == pytest.approx(3.0)
    fields["srow_x"] = [2.2, 0, 0, 0]
    facts = probe_volume(file(tmp_path / "b.nii", raw(voxels, **fields)))
    assert facts.forms_apart_mm == pytest.approx(0.2 * 10, rel=1e-6)  # float32 in the header


@pytest.mark.parametrize(("qform", "sform"), [(0, 0), (1, 0), (0, 1)])
def test_forms_of_which_one_is_not_set_are_not_apart(qform: int, sform: int, tmp_path: Path) -> None:
    content = raw(random_voxels("i2"), qform_code=qform, sform_code=sform, qoffset_x=500)
    facts = probe_volume(file(tmp_path / "a.nii", content))
    assert (facts.qform_code, facts.sform_code, facts.forms_apart_mm) == (qform, sform, 0.0)


def test_an_invalid_qform_beside_an_sform_is_infinitely_far(tmp_path: Path) -> None:
    content = raw(random_voxels("i2"), quatern_b=3, quatern_c=3)
    facts = probe_volume(file(tmp_path / "a.nii", content))
    assert facts.forms_apart_mm == np.inf
    np.testing.assert_array_equal(facts.grid.affine, AFFINE.astype(np.float32))
