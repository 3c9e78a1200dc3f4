"""tools/precision: rounding as matrix units do, comparison, and what is written where."""

from __future__ import annotations

import doctest
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fastseg.networks.network import PRECISIONS, EngineRecord
from fastseg.networks.packs import find_pack, load_pack
from tests.fake_engines import FakeEngine
from tools.evaluation import engine_speed, precision
from tools.evaluation.engine_speed import Contender, speed
from tools.evaluation.precision import ACCEPTANCES, compare, table
from tools.evaluation.rounding import rounded


def _convolution(weight: float, opset: int = 13) -> onnx.ModelProto:
    """A convolution that multiplies by one weight."""
    weights = np.zeros((1, 1, 3, 3), np.float32)
    weights[0, 0, 1, 1] = weight
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    sides = [None, 1, 8, 8]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, sides)],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)


def _run(model: onnx.ModelProto, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    onnx.checker.check_model(model)
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, ["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": batch})[0])


def _batch(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(2, 1, 8, 8)).astype(np.float32)


def _keeping(values: NDArray[np.float32], bits: int) -> NDArray[np.float64]:
    """Values with so many bits of significand, the first of them the leading one."""
    fraction, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.rint(fraction * 2.0**bits), exponent - bits)


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize(("name", "bits"), [("tf32", 11), ("fp16", 11), ("bf16", 8)])
def test_inputs_and_weights_keep_the_bits_of_the_precision(name: str, bits: int, opset: int) -> None:
    batch = _batch()
    weight = 1 + 2.0 ** -(bits + 1)  # is 1 in that precision
    answer = _run(rounded(_convolution(weight, opset), name), batch)
    np.testing.assert_array_equal(answer, _keeping(batch, bits).astype(np.float32))


def test_results_are_stored_in_fp16_and_bf16_but_not_in_tf32() -> None:
    batch = np.full((1, 1, 8, 8), 1 + 2.0**-7, np.float32)
    weight = 1 + 2.0**-7  # the product has 15 bits
    exact = np.float32((1 + 2.0**-7) ** 2)
    kept = {name: _run(rounded(_convolution(weight), name), batch)[0, 0, 4, 4] for name in PRECISIONS[:3]}
    assert kept["tf32"] == exact
    assert kept["fp16"] == np.float32(np.float16(exact))
    assert kept["bf16"] == np.float32(1 + 2.0**-6)


def test_large_numbers_overflow_in_fp16_only() -> None:
    batch = np.full((1, 1, 8, 8), 1e5, np.float32)
    found = {name: _run(rounded(_convolution(1.0), name), batch)[0, 0, 4, 4] for name in PRECISIONS[:3]}
    assert not np.isfinite(found["fp16"])  # inf times the weights of 0 beside
    assert found["tf32"] == pytest.approx(1e5, rel=2**-11)
    assert found["bf16"] == pytest.approx(1e5, rel=2**-8)


def test_the_model_itself_is_left_alone() -> None:
    model = _convolution(1.5)
    before = model.SerializeToString()
    rounded(model, "tf32")
    assert model.SerializeToString() == before


def test_equal_answers_have_lost_nothing() -> None:
    found = compare([_batch()], [_batch()], [0.5])
    assert (found.max_difference, found.flipped_per_million, found.dice) == (0.0, 0.0, 1.0)


def test_every_volume_is_judged_at_its_own_threshold() -> None:
    exact, other = np.full((1, 1, 2, 2), 0.4, np.float32), np.full((1, 1, 2, 2), 0.6, np.float32)
    assert compare([exact], [other], [0.5]).flipped_per_million == 1e6
    assert compare([exact], [other], [0.3]).flipped_per_million == 0
    assert compare([exact, exact], [other, other], [0.5, 0.3]).flipped_per_million == 5e5


def test_the_example_holds() -> None:
    found = doctest.testmod(precision)
    assert found.attempted > 0
    assert found.failed == 0


def test_speed_is_that_of_turns_and_not_of_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def engine(seconds: float, first: float) -> FakeEngine:
        def infer(batch: Any) -> Any:
            now[0] += first if len(fake.batches) == 1 else seconds
            return batch

        fake = FakeEngine(infer)
        return fake

    fast, slow = engine(1.0, 50.0), engine(3.0, 90.0)
    contender = Contender("fast", "avx2", fast, lambda: now[0])
    monkeypatch.setattr(engine_speed, "_PIXELS", 100)
    batches = [_batch()] * 5
    assert speed(contender, slow, batches) == pytest.approx(3.0)
    assert {len(each.batches) for each in (fast, slow)} == {8}  # a batch has 128 pixels, which is enough


# The command -----------------------------------------------------------------------------------------------


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    shutil.copytree(find_pack("default").folder, folder)
    toml = folder / "pack.toml"
    head, light = toml.read_text().split("\n[[network]]")[::3][:2]  # the light one of four
    toml.write_text(head + "\n[[network]]" + light.split("\n[")[0])
    return folder


@pytest.fixture
def measured(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The command, on two crops of noise in the place of real volumes."""
    noise = 255 * np.random.default_rng(0).random((2, 1, 64, 64), np.float32)
    monkeypatch.setattr(precision, "inputs_of", lambda *_: noise)
    (tmp_path / "data").mkdir()
    words = ["--models", str(pack), "--data", str(tmp_path / "data"), "--results", str(tmp_path / "results")]
    return lambda: precision.main(words)


def test_precisions_and_engines_are_written_into_the_pack_and_the_results(
    measured: Callable[[], int], pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = pack / "pack.toml"
    other = (
        '\n[[network.engine]]\nname = "tensorrt fp16"\ncapability = "sm_90"\nmax_difference = 0.002\n'
        "flipped_per_million = 3.0\ndice = 0.9999\nspeed = 90.0\n"
    )
    toml.write_text(toml.read_text() + other)
    assert measured() == 0
    (network,) = load_pack(pack).networks
    assert tuple(network.precision) == PRECISIONS
    assert network.acceptance == ACCEPTANCES[network.role]
    kept = {each.name: each for each in network.engines}
    assert kept["tensorrt fp16"] == EngineRecord("tensorrt fp16", "sm_90", 0.002, 3.0, 0.9999, 90.0)
    assert kept["openvino fp32"].max_difference <= 1e-4
    assert kept["openvino fp32"].flipped_per_million == 0
    losses = [network.precision[name].max_difference for name in ("tf32", "fp16", "bf16")]
    assert 0 < losses[0] < losses[2]
    lines = [json.loads(line) for line in (tmp_path / "results" / "pack.jsonl").read_text().splitlines()]
    assert {line["name"] for line in lines} >= {*PRECISIONS, "openvino fp32"}
    text = (tmp_path / "results" / "pack.md").read_text()
    assert text == table(lines)
    assert "segmenter_2d_light" in text
    assert "simulated" in text
    assert "int8" in capsys.readouterr().out


def test_a_pack_that_says_what_it_accepts_keeps_it(measured: Callable[[], int], pack: Path) -> None:
    toml = pack / "pack.toml"
    toml.write_text(toml.read_text() + "\n[network.acceptance]\nflipped_per_million = 1.0\ndice = 0.5\n")
    assert measured() == 0
    (network,) = load_pack(pack).networks
    assert network.acceptance is not None
    assert network.acceptance.dice == 0.5


def test_a_folder_that_is_no_pack_is_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert precision.main(["--models", str(tmp_path), "--data", str(tmp_path)]) == 2
    assert "no pack.toml" in capsys.readouterr().err
