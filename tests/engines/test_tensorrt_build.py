"""Networks built by NVIDIA's own builder and parser: those of TensorRT-RTX, which need no GPU.

What they build can neither be loaded nor run without one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastseg.engines.acceptance import calibration_inputs
from fastseg.engines.compute import PRECISIONS
from fastseg.engines.tensorrt.build import Built, Recipe, build_engine
from fastseg.engines.tensorrt.conversion import converted, input_of
from fastseg.engines.tensorrt.profiles import Profile, profile_of
from fastseg.engines.tensorrt.vendor import Vendor, vendor_of
from fastseg.errors import EngineBuildError
from fastseg.networks.network import Network
from fastseg.networks.packs import find_pack
from tests.engines.onnx_networks import convolution

trt: Any = pytest.importorskip(
    "tensorrt_rtx_bindings", reason="the builder of TensorRT-RTX is not installed (extra [gpu-ci])"
)

NETWORKS = find_pack("default").networks


def weights(network: Network) -> int:
    """How many there are; a plan holds them all, in at least a byte each."""
    return sum(int(np.prod(each.dims)) for each in onnx.load(network.path).graph.initializer)


@cache
def calibration(network: Path) -> Any:
    (found,) = [each for each in NETWORKS if each.path == network]
    return [each[:1] for each in calibration_inputs(found)]


def build(network: Network, precision: str, *batches: Any, **recipe: Any) -> Built:
    """The way of `fastseg.engines.tensorrt.ready`: file, profile, precision, plan."""
    content = network.path.read_bytes()
    profile = profile_of(network, *input_of(content))
    changed = converted(content, precision, lambda: batches)
    return build_engine(changed, profile, Recipe(precision, **recipe), trt=trt)


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return convolution(tmp_path, spatial=(16, 16))


@pytest.fixture
def content(network: Network) -> bytes:
    return network.path.read_bytes()


PROFILE = Profile("in", (1, 1, 16, 16), (4, 1, 16, 16), (8, 1, 16, 16))
RECIPE = Recipe("fp32")


def refused(content: bytes, profile: Profile = PROFILE, recipe: Recipe = Recipe("fp32")) -> str:  # noqa: B008
    with pytest.raises(EngineBuildError) as caught:
        build_engine(content, profile, recipe, trt=trt)
    message = str(caught.value)
    assert message.startswith(f"TensorRT-RTX {trt.__version__} ")
    assert message.endswith(": choose another precision, or --device cpu, which runs every network")
    assert "\n" not in message
    assert len(message) < 700
    return message


def end(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes: list[Any], ends: list[Any], weights: dict[str, Any] | None = None) -> bytes:
    """A network with one input, and the other ends as outputs."""
    constants = [numpy_helper.from_array(v, k) for k, v in (weights or {}).items()]
    graph = helper.make_graph(nodes, "some", ends[:1], ends[1:], constants)
    opsets = [helper.make_opsetid("", 13)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("network", NETWORKS, ids=lambda each: each.path.stem)
def test_every_network_is_built_in_every_precision(network: Network, precision: str) -> None:
    built = build(network, precision, *calibration(network.path))
    assert len(built.plan) > weights(network)
    assert 0 < built.seconds < 60
    assert built.timing_cache == b""  # TensorRT-RTX times nothing


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "facts",
    [
        {"spatial": (24, 20), "channels_last": True},
        {"spatial": (16, 16), "batch": 4},
        {"spatial": (16, 12, 8), "batch": 1},
        {"spatial": (16, 12), "batch": 4, "channels_last": True},
        {"spatial": (0, 0)},
    ],
    ids=["channels last", "fixed batch", "block", "channels last, fixed batch", "free size"],
)
def test_other_layouts_are_built_too(facts: dict[str, Any], precision: str, tmp_path: Path) -> None:
    network = convolution(tmp_path, **facts)
    _, shape = input_of(network.path.read_bytes())
    typical = np.random.default_rng(0).normal(size=[n if n > 0 else 12 for n in shape])
    assert build(network, precision, typical.astype(np.float32)).plan


def test_the_precision_is_in_the_plan() -> None:
    segmenter = NETWORKS[1]
    sizes = {name: len(build(segmenter, name).plan) for name in ("fp32", "fp16")}
    # Half as many bytes a weight; kernels differ too, by less.
    assert sizes["fp32"] - sizes["fp16"] > weights(segmenter)


def test_a_failure_does_not_disturb_the_next_build(network: Network) -> None:
    refused(b"garbage")
    assert build(network, "fp32").plan


@pytest.mark.parametrize(
    "recipe",
    [{"optimisation_level": 0}, {"optimisation_level": 5}, {"version_compatible": False}],
    ids=str,
)
def test_recipes_that_the_vendor_knows_are_taken(recipe: dict[str, Any], network: Network) -> None:
    assert build(network, "fp32", **recipe).plan


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"optimisation_level": 9}, "optimisation level 9 is not one of 0 to 5"),
        ({"hardware_compatibility": "ampere_plus"}, "no hardware compatibility 'ampere_plus'"),
        ({"hardware_compatibility": "anything"}, "no hardware compatibility 'anything'"),
    ],
    ids=str,
)
def test_recipes_that_the_vendor_does_not_know_are_refused(
    recipe: dict[str, Any], said: str, content: bytes
) -> None:
    assert said in refused(content, recipe=Recipe("fp32", **recipe))


@pytest.mark.parametrize("damage", [b"", b"garbage", None], ids=["empty", "garbage", "truncated"])
def test_damaged_files_are_refused(damage: bytes | None, content: bytes) -> None:
    message = refused(content[: len(content) // 2] if damage is None else damage)
    assert "cannot r" in message  # read, or run


def test_operators_that_the_vendor_does_not_have_are_named() -> None:
    node = helper.make_node("NoSuchOperator", ["in"], ["out"], domain="nobody")
    content = model_of([node], [end("in", ["N", 1, 16, 16]), end("out", ["N", 1, 16, 16])])
    assert "NoSuchOperator" in refused(content)


def test_types_that_do_not_go_together_are_refused(content: bytes) -> None:
    model = onnx.load_from_string(content)
    weight = model.graph.initializer[0]
    halved = numpy_helper.to_array(weight).astype(np.float16)
    weight.CopyFrom(numpy_helper.from_array(halved, weight.name))
    refused(model.SerializeToString())


@pytest.mark.parametrize("place", [0, 1], ids=["input", "output"])
def test_only_float32_goes_in_and_comes_out(place: int) -> None:
    kinds = [TensorProto.FLOAT, TensorProto.FLOAT]
    kinds[place] = TensorProto.FLOAT16
    ends = [end(name, ["N", 1, 16, 16], kind) for name, kind in zip(("in", "out"), kinds, strict=True)]
    content = model_of([helper.make_node("Cast", ["in"], ["out"], to=kinds[1])], ends)
    message = refused(content)
    assert ("in holds", "out holds")[place] in message
    assert "float32 is needed" in message


def test_networks_of_several_outputs_are_refused() -> None:
    shape = ["N", 1, 16, 16]
    nodes = [helper.make_node(kind, ["in"], [kind]) for kind in ("Relu", "Sigmoid")]
    content = model_of(nodes, [end("in", shape), end("Relu", shape), end("Sigmoid", shape)])
    assert "it has 1 inputs and 2 outputs" in refused(content)


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "out"},
        {"name": "elsewhere"},
        {"least": (1, 1, 8, 16)},
        {"most": (8, 1, 32, 16)},
        {"least": (16, 16), "best": (16, 16), "most": (16, 16)},
        {"least": (5, 1, 16, 16)},  # more than the best
    ],
    ids=str,
)
def test_shapes_that_are_not_the_networks_are_refused(changed: dict[str, Any], content: bytes) -> None:
    assert "16" in refused(content, replace(PROFILE, **changed))


def test_a_workspace_that_is_too_small_is_said() -> None:
    segmenter = NETWORKS[1]
    content = segmenter.path.read_bytes()
    message = refused(
        content, profile_of(segmenter, *input_of(content)), Recipe("fp32", workspace_bytes=1 << 20)
    )
    assert "workspace" in message


def test_the_log_of_one_failure_is_not_the_next_ones(content: bytes) -> None:
    vendor: Vendor = vendor_of(trt)
    refused(b"garbage")
    vendor.log.explain()
    assert "ParseFromCodedStream" not in refused(content, replace(PROFILE, name="elsewhere"))
    assert vendor.log.explain() == "no reason given"
