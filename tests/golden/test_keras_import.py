"""SCT's own files, and Keras files with known answers, go through the importer."""

from pathlib import Path

import nibabel
import numpy as np
import onnxruntime
import pytest

from fastseg.networks.keras import convert
from fastseg.networks.network import CONTRASTS, Role
from fastseg.networks.packs import find_pack, read_svm, verify_pack
from fastseg.networks.sct import import_sct
from tests.reference.keras_numpy import evaluate

SHARED = Path(__file__).parents[2].parent / "shared"
MODELS = SHARED / "parity" / "models"

pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not MODELS.is_dir(), reason=f"{MODELS} is not there"),
]


@pytest.fixture
def packs(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSEG_PACKS", str(tmp_path / "packs"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "packs"


def run(content, batch):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (result,) = session.run(["predictions"], {"input_1": np.moveaxis(batch, -1, 1)})
    return np.moveaxis(result, 1, -1)


@pytest.mark.parametrize("name", ["t1_sc_small_random", "t2_sc_small_random", "t2_sc_random"])
def test_keras_files_with_known_answers_are_reproduced(name):
    expected = np.load(MODELS / f"{name}_keras206_expected.npz")
    content = (MODELS / f"{name}_keras206.h5").read_bytes()
    # float32 against float64; measured 0.8e-6 to 2.5e-6
    np.testing.assert_allclose(run(convert(content), expected["x"]), expected["y"], rtol=0, atol=5e-6)


@pytest.mark.parametrize("contrast", ["t2", "t2s", "dwi"])
def test_scts_detectors_give_what_plain_numpy_gives_and_find_a_cord(contrast, packs):
    folder = SHARED / "data" / "sct_deepseg_sc_models"
    pack = import_sct(folder, "sct").pack
    network = pack.network(Role.DETECT_BLOCKS, contrast)
    image = {"t2": "t2/t2", "t2s": "t2s/t2s", "dwi": "dmri/dwi_mean"}[contrast]
    blocks = (blocks_of(SHARED / "data" / "sct_testing" / f"{image}.nii.gz") - network.mean) / network.std
    got = run(network.path.read_bytes(), blocks.astype(np.float32))
    wanted = evaluate(folder / f"{contrast}_ctr.h5", blocks.astype(np.float32))
    # float32 against float64; measured 1.4e-6 to 5.6e-6 where these steep networks are undecided
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5)
    assert got.min() >= 0
    assert 0.5 < got.max() <= 1


def blocks_of(path):
    """Three central blocks of 80 x 80 at about 0.5 mm, L A S, 0..255."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    volume = np.asarray(image.dataobj, np.float32)[::-1]
    volume = volume.repeat(2, 0).repeat(2, 1) if image.header.get_zooms()[0] > 0.7 else volume
    low, high = np.percentile(volume, (2, 98))
    volume = np.clip((volume - low) / (high - low), 0, 1) * 255
    volume = np.pad(volume, [(40, 40), (40, 40), (0, 0)])
    x, y, z = (n // 2 for n in volume.shape)
    return np.moveaxis(volume[x - 40 : x + 40, y - 40 : y + 40, z - 1 : z + 2], 2, 0)[..., None]


def test_everything_that_is_at_hand_of_scts_becomes_a_verified_pack(packs):
    report = import_sct(SHARED / "data", "sct")
    assert len(report.imported) == 7
    assert {item.identity for item in report.imported} == {"identical to SCT's original"}
    assert not any(check.problem for check in verify_pack(report.pack))
    assert read_svm(find_pack("sct").svm("t2"))[576] == np.float32(-1.26354277)


def test_the_stand_in_networks_become_a_verified_pack(packs):
    report = import_sct(MODELS, "stand-ins")
    assert len(report.imported) == 7
    assert not report.refused
    pack = find_pack("stand-ins")
    for contrast in CONTRASTS:
        assert pack.network(Role.SEGMENT_2D, contrast).channels_last
        assert pack.has(Role.SEGMENT_3D, contrast) == (contrast != "dwi")
    assert not any(check.problem for check in verify_pack(pack))
