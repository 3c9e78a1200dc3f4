"""The files that networks come in: read, checked, made ready for changes and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastseg.errors import EngineBuildError, EngineUnavailable

if TYPE_CHECKING:
    import onnx

__all__ = ["CONVOLUTIONS", "checked", "finished", "first_line", "prepared"]

#: What a network spends its time in.
CONVOLUTIONS = ("Conv", "ConvTranspose")

# From this version of ONNX's operators on, DequantizeLinear has a scale for every channel, and Cast bfloat16.
_OPSET = 13

_VERIFY = "check it with `fastseg models verify`"


def checked(content: bytes) -> onnx.ModelProto:
    """Load a file. TensorRT's parser takes an empty one for a network, and looks for weights in other files.

    Raises
    ------
    EngineBuildError
        Not a complete ONNX file, one with weights in other files, or not one float32 array in and one out.
    EngineUnavailable
        The package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise EngineUnavailable(
            f"onnx, which engines for GPUs are made with, does not load ({error}): pip install 'fastseg[gpu]'"
        ) from error
    try:
        model = onnx.load_model_from_string(content)
        constants = [part.t for node in model.graph.node for part in node.attribute]
        constants.extend(model.graph.initializer)
        if any(each.data_location == onnx.TensorProto.EXTERNAL for each in constants):
            raise EngineBuildError(f"the network keeps weights in other files: {_VERIFY}")
        onnx.checker.check_model(model, full_check=True)
    except EngineBuildError:
        raise
    except Exception as error:  # protobuf, checker and shape inference each have their own
        raise EngineBuildError(
            f"not an ONNX file that can be used ({first_line(error)}): {_VERIFY}"
        ) from error
    weights = {each.name for each in model.graph.initializer}
    for each in [each for each in model.graph.input if each.name in weights]:
        model.graph.input.remove(each)
    ends = [*model.graph.input, *model.graph.output]
    floats = [each for each in ends if each.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    if len(model.graph.input) != 1 or len(model.graph.output) != 1 or len(floats) != 2:
        raise EngineBuildError(f"the network does not take one float32 array and give one: {_VERIFY}")
    return model


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a network, with operators of a version that has what is needed, and with every value's type.

    Raises
    ------
    EngineBuildError
        It has branches or loops, or operators that cannot be brought to that version.
    """
    import onnx

    if any(part.HasField("g") or part.graphs for node in model.graph.node for part in node.attribute):
        raise EngineBuildError("the network has branches or loops: choose precision fp32 or tf32")
    version = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    try:
        if version < _OPSET:
            model = onnx.version_converter.convert_version(model, _OPSET)
        out = onnx.shape_inference.infer_shapes(model)
    except Exception as error:
        raise EngineBuildError(
            f"the network's operators, of version {version}, cannot be brought to version {_OPSET} "
            f"({first_line(error)}): choose precision fp32 or tf32"
        ) from error
    for node in [node for node in out.graph.node if node.op_type == "Constant"]:
        for part in node.attribute:
            if part.name == "value" and part.t.data_type == onnx.TensorProto.FLOAT:
                part.t.name = node.output[0]
                out.graph.initializer.append(part.t)
                out.graph.node.remove(node)
    return out


def finished(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """Put nodes into a network; types of values, and weights that nothing takes any more, are dropped.

    Raises
    ------
    EngineBuildError
        What comes out is no network.
    """
    import onnx

    graph = model.graph
    taken = {name for node in nodes for name in node.input}
    kept = [each for each in graph.initializer if each.name in taken]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise EngineBuildError(
            f"the network cannot have this precision ({first_line(error)}): choose another"
        ) from error
    return model


def first_line(error: Exception) -> str:
    """What an error says first; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
