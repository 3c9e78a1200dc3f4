"""Precision written into a network's file: what stands in it, and the numbers that it gives."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastseg.engines.acceptance import calibration_inputs, fixed_inputs
from fastseg.engines.tensorrt.conversion import converted, input_of, to_half, to_int8
from fastseg.errors import EngineBuildError, EngineUnavailable
from fastseg.networks.network import Network
from fastseg.networks.packs import find_pack
from tests.engines.onnx_networks import convolution

NETWORKS = find_pack("default").networks
HALVES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def unused() -> list[Any]:
    raise AssertionError("only int8 is calibrated")


@cache
def few(inputs: Callable[[Network], tuple[Any, ...]], stem: str) -> Any:
    """Some inputs of a network: 8 images, or one block of slices."""
    (network,) = [each for each in NETWORKS if each.path.stem == stem]
    return inputs(network)[0][: 1 if len(network.spatial) == 3 else 8]


def change(content: bytes, precision: str, *batches: Any) -> bytes:
    return converted(content, precision, (lambda: batches) if precision == "int8" else unused)


def run(content: bytes, batch: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(in_fp32(content), options, ["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def in_fp32(content: bytes) -> bytes:
    """The network with fp16 and bf16 as float32 that is rounded after every operation, as matrix units do.

    onnxruntime itself has no bf16 on the CPU, and computes fp16 as float32 without rounding in between.
    """
    model = onnx.load_from_string(content)
    half = {name: kind for name, kind in kinds(model).items() if kind in HALVES.values()}
    for constant in model.graph.initializer:
        if constant.name in half:
            values = numpy_helper.to_array(constant).astype(np.float32)
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    nodes = []
    for node in model.graph.node:
        for part in node.attribute:
            if part.name == "to" and part.i in HALVES.values():
                part.i = TensorProto.FLOAT
        nodes.append(node)
        (name,) = node.output
        if name in half:
            node.output[0] = f"{name}/exact"
            nodes.append(helper.make_node("Cast", [f"{name}/exact"], [f"{name}/half"], to=half[name]))
            nodes.append(helper.make_node("Cast", [f"{name}/half"], [name], to=TensorProto.FLOAT))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def kinds(model: Any) -> dict[str, int]:
    """Types of all values, by name."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    known = {each.name: each.type.tensor_type.elem_type for each in values}
    return known | {each.name: each.data_type for each in graph.initializer}


def model_of(nodes: list[Any], weights: dict[str, Any], *, version: int = 13) -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, 8, 8]) for name in ("in", "out")]
    constants = [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "some", ends[:1], ends[1:], constants)
    opsets = [helper.make_opsetid("", version)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return convolution(tmp_path, spatial=(16, 16)).path.read_bytes()


def test_the_input_is_known_by_name_and_shape(tmp_path: Path) -> None:
    for facts, shape in (
        ({"spatial": (16, 12)}, (-1, 1, 16, 12)),
        ({"spatial": (0, 0), "channels_last": True}, (-1, -1, -1, 1)),
        ({"spatial": (8, 8, 4), "batch": 2}, (2, 1, 8, 8, 4)),
    ):
        network = convolution(tmp_path, **facts)  # type: ignore[arg-type]
        assert input_of(network.path.read_bytes()) == ("in", shape)


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_fp32_is_the_file_itself(precision: str, content: bytes) -> None:
    assert change(content, precision) is content


@pytest.mark.parametrize("network", NETWORKS, ids=lambda each: each.path.stem)
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_the_same_file_gives_the_same_bytes(precision: str, network: Network) -> None:
    original, batch = network.path.read_bytes(), few(calibration_inputs, network.path.stem)
    first = change(original, precision, batch)
    assert change(original, precision, batch) == first
    assert len(first) < len(original)


# A third above what the built-in networks were measured to lose at most on these inputs, in probability.
@pytest.mark.parametrize("network", NETWORKS, ids=lambda each: each.path.stem)
@pytest.mark.parametrize(("precision", "loss"), [("fp16", 0.002), ("bf16", 0.02), ("int8", 0.1)])
def test_the_answers_stay_close(precision: str, loss: float, network: Network) -> None:
    original, batch = network.path.read_bytes(), few(fixed_inputs, network.path.stem)
    other = run(change(original, precision, few(calibration_inputs, network.path.stem)), batch)
    exact = run(original, batch)
    difference = float(abs(other - exact).max())
    assert 0 < difference < loss
    assert exact.max() > 0.3  # there is something to be lost


@pytest.mark.parametrize("network", NETWORKS, ids=lambda each: each.path.stem)
@pytest.mark.parametrize("precision", HALVES)
def test_normalisation_and_sigmoid_stay_in_fp32_and_convolutions_do_not(
    precision: str, network: Network
) -> None:
    model = onnx.load(network.path)
    half = to_half(model, precision)
    known = kinds(half)
    convolutions = [node for node in half.graph.node if node.op_type == "Conv"]
    assert {known[name] for node in convolutions for name in (*node.input, *node.output)} == {
        HALVES[precision]
    }
    outside = [node for node in half.graph.node if node.op_type in ("ReduceMean", "Sqrt", "Sigmoid")]
    assert len(outside) >= 4
    assert {known[name] for node in outside for name in (*node.input, *node.output)} == {TensorProto.FLOAT}


def test_transposed_convolutions_are_fp16_but_not_bf16() -> None:
    model = onnx.load(find_pack("default").networks[1].path)
    for precision, kind in (("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.FLOAT)):
        half = to_half(model, precision)
        known = kinds(half)
        nodes = [node for node in half.graph.node if node.op_type == "ConvTranspose"]
        assert {known[name] for node in nodes for name in (*node.input, *node.output)} == {kind}


@pytest.mark.parametrize("change_it", [to_half, to_int8], ids=["half", "int8"])
def test_the_given_network_is_left_as_it_is(change_it: Callable[..., Any], tmp_path: Path) -> None:
    model = onnx.load(convolution(tmp_path, spatial=(16, 16)).path)
    before = model.SerializeToString()
    change_it(model, "fp16" if change_it is to_half else [np.ones((1, 1, 16, 16), np.float32)])
    assert model.SerializeToString() == before


def test_bfloat16_is_rounded_to_the_nearest_and_ties_to_even() -> None:
    # The last bit that is kept is worth 2**-7 from 1 to 2.
    values = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -3e38, 1e-40, 0], np.float32)
    kernel = values.reshape(7, 1, 1, 1)
    content = model_of(
        [helper.make_node("Conv", ["in", "w"], ["m"]), helper.make_node("Conv", ["m", "v"], ["out"])],
        {"w": kernel, "v": np.ones((1, 7, 1, 1), np.float32)},
    )
    half = onnx.load_from_string(change(content, "bf16"))
    (stored,) = [each for each in half.graph.initializer if list(each.dims) == [7, 1, 1, 1]]
    got = numpy_helper.to_array(stored).astype(np.float32).ravel()
    np.testing.assert_array_equal(got[:4], [1, 1, 1 + 2**-6, 1 + 2**-7])
    np.testing.assert_allclose(got[4:], values[4:], rtol=2**-8, atol=1e-40)


def test_a_weight_that_fp16_cannot_hold_is_refused(content: bytes) -> None:
    model = onnx.load_from_string(content)
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e6), weight.name))
    large = model.SerializeToString()
    with pytest.raises(EngineBuildError, match=r"weight of \S+, too large for fp16: choose bf16 or tf32"):
        change(large, "fp16")
    change(large, "bf16")


def test_networks_that_end_with_a_convolution_give_float32() -> None:
    content = model_of([helper.make_node("Conv", ["in", "w"], ["out"])], {"w": np.ones((1, 1, 1, 1), "f4")})
    batch = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 1, 8, 8)
    for precision in HALVES:
        answer = run(change(content, precision), batch)
        assert answer.dtype == np.float32
        assert 0 < abs(answer - batch).max() < 0.004


def test_a_weight_that_is_used_inside_and_outside_has_both_types() -> None:
    nodes = [
        helper.make_node("Mul", ["in", "s"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["b"]),
        helper.make_node("Mul", ["b", "s"], ["c"]),
        helper.make_node("Conv", ["c", "w"], ["d"]),
        helper.make_node("Mul", ["d", "s"], ["out"]),
    ]
    third = np.float32(1 / 3)
    content = model_of(nodes, {"s": third, "w": np.ones((1, 1, 1, 1), np.float32)})
    model = onnx.load_from_string(change(content, "fp16"))
    stored = {each.name: each.data_type for each in model.graph.initializer}
    assert stored == {"s": TensorProto.FLOAT, "s/fp16": TensorProto.FLOAT16, "w/fp16": TensorProto.FLOAT16}
    answer = run(model.SerializeToString(), np.ones((1, 1, 8, 8), np.float32))
    np.testing.assert_allclose(answer, third**3, rtol=2e-3)


def test_sizes_of_a_resize_are_no_arithmetic() -> None:
    weights = {"w": np.ones((1, 1, 1, 1), np.float32), "sizes": np.array([1, 1, 1, 1], np.float32)}
    nodes = [
        helper.make_node("Conv", ["in", "w"], ["a"]),
        helper.make_node("Resize", ["a", "", "sizes"], ["b"], mode="linear"),
        helper.make_node("Conv", ["b", "w"], ["out"]),
    ]
    model = onnx.load_from_string(change(model_of(nodes, weights), "fp16"))
    (resize,) = [node for node in model.graph.node if node.op_type == "Resize"]
    assert [kinds(model)[name] for name in (resize.input[0], resize.input[2])] == [
        TensorProto.FLOAT16,
        TensorProto.FLOAT,
    ]
    onnx.checker.check_model(model, full_check=True)


def test_int8_has_a_scale_for_every_channel_and_one_for_every_value() -> None:
    network = find_pack("default").networks[1]
    model = to_int8(onnx.load(network.path), [few(calibration_inputs, network.path.stem)])
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert len(layers) == 14
    for layer in layers:
        value, weight = makers[layer.input[0]], makers[layer.input[1]]
        assert value.op_type == weight.op_type == "DequantizeLinear"
        assert makers[value.input[0]].op_type == "QuantizeLinear"
        low, scale, zero = (constants[name] for name in weight.input)
        axis = {part.name: part.i for part in weight.attribute}["axis"]
        assert axis == (layer.op_type == "ConvTranspose")
        assert (low.dtype, zero.dtype, scale.dtype) == (np.int8, np.int8, np.float32)
        assert scale.shape == zero.shape == (low.shape[axis],)
        others = tuple(k for k in range(low.ndim) if k != axis)
        np.testing.assert_array_equal(abs(low.astype(int)).max(axis=others), 127)
        assert constants[value.input[1]].shape == ()
        for step in (value, weight, makers[value.input[0]]):
            assert not constants[step.input[2]].any()  # symmetric
        assert constants[layer.input[2]].dtype == np.float32  # the bias


def test_int8_takes_channels_last_and_fixed_batches(tmp_path: Path) -> None:
    network = convolution(tmp_path, spatial=(16, 12), batch=4, channels_last=True)
    content = network.path.read_bytes()
    batch = np.random.default_rng(0).normal(size=(4, 16, 12, 1)).astype(np.float32)
    seven = np.concatenate([batch, batch[:3]])
    changed = change(content, "int8", seven)
    assert changed == change(content, "int8", batch)
    assert abs(run(changed, batch) - run(content, batch)).max() < 0.1


def test_groups_of_transposed_convolutions_stay_in_fp32() -> None:
    nodes = [
        helper.make_node("Conv", ["in", "w"], ["a"]),
        helper.make_node("ConvTranspose", ["a", "v"], ["b"], group=2),
        helper.make_node("Conv", ["b", "u"], ["out"]),
    ]
    weights = {name: np.ones(shape, np.float32) for name, shape in
               (("w", (2, 1, 1, 1)), ("v", (2, 1, 1, 1)), ("u", (1, 2, 1, 1)))}  # fmt: skip
    changed = onnx.load_from_string(change(model_of(nodes, weights), "int8", np.ones((1, 1, 8, 8), "f4")))
    (grouped,) = [node for node in changed.graph.node if node.op_type == "ConvTranspose"]
    assert list(grouped.input) == ["a", "v"]


@pytest.mark.parametrize(
    ("batches", "reason"),
    [
        ((), "there are none"),
        ((np.full((1, 1, 16, 16), np.nan, np.float32),), "there are none"),
        ((np.ones((1, 1, 16, 15), np.float32),), "onnxruntime cannot measure"),
    ],
)
def test_int8_without_inputs_to_measure_is_refused(
    batches: tuple[Any, ...], reason: str, content: bytes
) -> None:
    with pytest.raises(EngineBuildError, match=reason) as caught:
        change(content, "int8", *batches)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated", "two inputs", "float64", "elsewhere"])
def test_files_that_are_no_networks_are_refused_on_one_line(
    damage: str, precision: str, content: bytes
) -> None:
    model = onnx.load_from_string(content)
    if damage == "two inputs":
        model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    elif damage == "float64":
        model = onnx.load_from_string(
            model_of([helper.make_node("Cast", ["in"], ["out"], to=TensorProto.DOUBLE)], {})
        )
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    elif damage == "elsewhere":
        onnx.external_data_helper.set_external_data(model.graph.initializer[0], location="/etc/passwd")
    damaged = {"empty": b"", "garbage": b"no network at all", "truncated": content[: len(content) // 2]}
    with pytest.raises(EngineBuildError, match="fastseg models verify") as caught:
        change(damaged.get(damage, model.SerializeToString()), precision, np.ones((1, 1, 16, 16), "f4"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_networks_without_convolutions_have_no_other_precision(precision: str) -> None:
    content = model_of([helper.make_node("Sigmoid", ["in"], ["out"])], {})
    with pytest.raises(EngineBuildError, match="has no convolution"):
        change(content, precision, np.ones((1, 1, 8, 8), np.float32))


def test_without_onnx_the_remedy_is_said(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'fastseg\[gpu\]'"):
        change(content, "fp16")
