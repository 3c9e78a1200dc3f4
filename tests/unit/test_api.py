"""The public names, and segment()."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastseg
from fastseg.phantom import make_phantom
from tests.phantom_files import save_phantom, voxels_of


def test_every_public_name_is_there_and_listed() -> None:
    assert set(fastseg.__all__) <= set(dir(fastseg))
    for name in fastseg.__all__:
        assert getattr(fastseg, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
        fastseg.segmnt  # type: ignore[attr-defined]  # noqa: B018


def test_importing_is_light_and_an_error_class_stays_light() -> None:
    code = (
        "import sys, fastseg\nfastseg.InputError, fastseg.__version__\n"
        "heavy = {'numpy', 'numba', 'nibabel', 'onnxruntime', 'scipy', 'click'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_inference_leaves_nothing_in_the_users_folders(tmp_path: Path) -> None:
    """A vendor's telemetry would give the machine an identity, and keep what it has to tell."""
    code = (
        "import fastseg\nfrom fastseg.engines.compute import Compute\n"
        "from fastseg.engines.select import open_engine\n"
        "from fastseg.networks.packs import find_pack\n"
        "for engine in ('onnxruntime', 'openvino'):\n"
        "    with open_engine(find_pack('default').networks[0], Compute(engine)): pass\n"
    )
    homes = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **homes}, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_a_file_and_its_volume_give_the_same_mask_which_can_be_written(tmp_path: Path) -> None:
    path = save_phantom(tmp_path / "t2.nii.gz")
    volume, template = fastseg.read_volume(path)
    result = fastseg.segment(volume, "t2")
    assert (fastseg.segment(str(path), "t2").mask.voxels == result.mask.voxels).all()
    fastseg.write_volume(result.mask.voxels, template, tmp_path / "mask.nii")
    assert (voxels_of(tmp_path / "mask.nii") == result.mask.voxels).all()
    assert result.mask.voxels.any()


def test_a_given_centerline_is_used(tmp_path: Path) -> None:
    image, truth = make_phantom("t2", n_slices=6)
    result = fastseg.segment(image, centerline=truth)
    assert result.detector == "file"
    path = save_phantom(tmp_path / "t2.nii.gz")
    _, template = fastseg.read_volume(path)
    fastseg.write_volume(truth.voxels, template, tmp_path / "truth.nii.gz")
    again = fastseg.segment(path, centerline=tmp_path / "truth.nii.gz")
    assert (again.mask.voxels == result.mask.voxels).all()


def test_a_volume_is_enough() -> None:
    image, _ = make_phantom("t2", n_slices=6)
    result = fastseg.segment(image)
    assert (result.detector, result.mask.voxels.any()) == ("cnn", True)


def test_options_are_passed_on() -> None:
    image, _ = make_phantom("t2", n_slices=6)
    soft = fastseg.segment(image, soft=True).mask.voxels
    assert soft.dtype == np.float32
    assert 0 < float(soft.max()) <= 1
    with pytest.raises(fastseg.OptionError):
        fastseg.segment(image, "t3")
    with pytest.raises(fastseg.NetworkError):
        fastseg.segment(image, models="no-such-pack")
