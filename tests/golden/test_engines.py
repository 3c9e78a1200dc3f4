"""What is promised of engines in fp32, on real volumes: the reference's answers but for roundings."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastseg.engines.acceptance import TOLERANCES, fixed_inputs, measure
from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
from fastseg.engines.openvino_cpu import OpenVinoCpu, import_openvino
from fastseg.errors import EngineUnavailable
from fastseg.networks.network import Network
from fastseg.networks.packs import find_pack
from fastseg.networks.sct import import_sct
from fastseg.volume import Volume
from tools.evaluation import precision
from tools.evaluation.volumes import load_case, read_list

pytestmark = pytest.mark.golden

try:
    import_openvino()
except EngineUnavailable as reason:
    pytest.skip(str(reason), allow_module_level=True)

#: Of a probability, and around the threshold.
_LARGEST = 1e-4

_CASES = read_list().cases
_STAND_INS = ["t1_sc", "t2_sc", "t2s_sc", "dwi_sc", "t1_sc_3D", "t2_sc_3D", "t2s_sc_3D"]


@pytest.fixture(autouse=True, scope="module")
def _volumes_are_read_once() -> Any:
    with pytest.MonkeyPatch.context() as patch:

        @cache
        def load(*arguments: Any) -> tuple[Volume, Volume]:
            return load_case(*arguments)

        patch.setattr(precision, "load_case", load)
        yield


@pytest.mark.parametrize("network", find_pack("default").networks, ids=lambda network: network.path.stem)
def test_openvino_agrees_with_the_reference_on_every_volume(shared: Path, network: Network) -> None:
    with OnnxRuntimeCpu(network) as reference, OpenVinoCpu(network) as engine:
        for case in _CASES:
            batch = precision.inputs_of(network, case, shared / "data")
            expected, answer = reference.infer(batch), engine.infer(batch)
            assert abs(answer - expected).max() <= _LARGEST, case.name
            for threshold in set(network.thresholds.values()):
                flipped = (answer > np.float32(threshold)) != (expected > np.float32(threshold))
                assert (abs(expected[flipped] - threshold) <= _LARGEST).all(), case.name


@pytest.mark.parametrize("network", find_pack("default").networks, ids=lambda network: network.path.stem)
def test_no_bit_depends_on_neighbours_and_threads_on_a_real_volume(shared: Path, network: Network) -> None:
    """Of OpenVINO: it promises nothing, this says what it does on this CPU."""
    batch = precision.inputs_of(network, _CASES[1], shared / "data")
    with OpenVinoCpu(network) as engine, OpenVinoCpu(network, threads=3) as many:
        together = engine.infer(batch)
        _assert_equal(many.infer(batch), together)
        for k in range(0, len(batch), 7):
            _assert_equal(engine.infer(batch[k : k + 1])[0], together[k])


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> dict[str, Network]:
    """The networks that stand in for SCT's, imported."""
    folder = tmp_path_factory.mktemp("stand-ins")
    files = [file for file in (shared / "parity" / "models").glob("*.onnx") if file.is_file()]
    if not files:
        pytest.skip("no ../shared/parity beside the checkout")
    (folder / "files").mkdir()
    for file in files:
        (folder / "files" / file.name).write_bytes(file.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder))
        import_sct(folder / "files", "stand-ins")
        return {network.path.stem: network for network in find_pack("stand-ins").networks}


@pytest.mark.parametrize("name", _STAND_INS)
def test_openvino_agrees_with_the_reference_on_networks_like_scts(
    name: str, stand_ins: dict[str, Network]
) -> None:
    network = stand_ins[name]
    with OnnxRuntimeCpu(network) as reference, OpenVinoCpu(network) as engine:
        found = measure(engine, network, reference)
        batch = fixed_inputs(network)[0]
        _assert_equal(engine.infer(batch[1:2])[0], engine.infer(batch[:6])[1])
    assert TOLERANCES["fp32"].takes(found)
    assert found.flipped == 0


def _assert_equal(one: NDArray[np.float32], other: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(one, other)
