"""SCT's networks, and the stand-ins for them, built by TensorRT-RTX, which needs no GPU for that."""

from pathlib import Path

import numpy as np
import pytest

from fastseg.engines.acceptance import calibration_inputs
from fastseg.engines.compute import PRECISIONS
from fastseg.engines.tensorrt.build import Recipe, build_engine
from fastseg.engines.tensorrt.conversion import converted, input_of
from fastseg.engines.tensorrt.profiles import profile_of
from fastseg.networks.sct import import_sct

trt = pytest.importorskip(
    "tensorrt_rtx_bindings", reason="the builder of TensorRT-RTX is not installed (extra [gpu-ci])"
)

SHARED = Path(__file__).parents[2].parent / "shared"
FOLDERS = {
    "stand-ins": SHARED / "parity" / "models",
    "stand-ins with context": SHARED / "parity" / "models_zctx",
    "sct": SHARED / "data" / "sct_deepseg_sc_models",
}

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module", params=FOLDERS)
def pack(request, tmp_path_factory):
    folder = FOLDERS[request.param]
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSEG_PACKS", str(tmp_path_factory.mktemp("packs")))
        yield import_sct(folder, "sct").pack


@pytest.mark.parametrize("precision", PRECISIONS)
def test_scts_networks_are_built_in_every_precision(precision, pack):
    assert pack.networks
    for network in pack.networks:
        content = network.path.read_bytes()
        profile = profile_of(network, *input_of(content))
        batches = [each[:1] for each in calibration_inputs(network)] if precision == "int8" else []
        if network.channels_last:
            batches = [np.moveaxis(each, 1, -1) for each in batches]
        changed = converted(content, precision, lambda found=batches: found)
        built = build_engine(changed, profile, Recipe(precision), trt=trt)
        assert built.plan, network.name
