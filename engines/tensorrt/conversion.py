"""A network's file with the precision of its arithmetic written into it.

TensorRT 11 and TensorRT-RTX compute in the types that stand in the file, and TensorRT 10 does where it is
told to: there is no other way to ask for a precision that all of them have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.tensorrt.onnx_files import CONVOLUTIONS, checked, finished, prepared
from fastseg.engines.tensorrt.quantisation import to_int8
from fastseg.errors import EngineBuildError

if TYPE_CHECKING:
    import onnx

__all__ = ["converted", "input_of", "to_half", "to_int8"]

# Largest finite number of float16; bfloat16 has the range of float32.
_LARGEST_FP16 = 65504.0

_Ends = tuple[Iterable[str], Iterable[str]]


def input_of(content: bytes) -> tuple[str, tuple[int, ...]]:
    """Name and shape of a file's only input, with its own order of axes; -1 where any size is taken.

    Raises
    ------
    EngineBuildError
        Not a complete ONNX file, or not one float32 array in and one out.
    EngineUnavailable
        The package onnx is not installed.
    """
    end = checked(content).graph.input[0]
    axes = end.type.tensor_type.shape.dim
    return end.name, tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in axes)


def converted(
    content: bytes, precision: str, calibration: Callable[[], Sequence[NDArray[np.float32]]]
) -> bytes:
    """Write a precision into a network's file.

    Parameters
    ----------
    content : an ONNX file
    precision : fp32, tf32, fp16, bf16 or int8; see `to_half` and `to_int8`
    calibration : gives typical inputs, as `to_int8` wants them; called for int8 only

    Returns
    -------
    content : float32 goes in and comes out in all of them. The same bytes for the same arguments; for fp32
        and tf32, which TensorRT tells apart by a flag, those of the file.

    Raises
    ------
    EngineBuildError
        Not a complete ONNX file, not one float32 array in and one out, or it cannot have this precision.
    EngineUnavailable
        The package onnx is not installed.
    """
    model = checked(content)
    if precision in ("fp32", "tf32"):
        return content
    changed = to_int8(model, calibration()) if precision == "int8" else to_half(model, precision)
    return changed.SerializeToString(deterministic=True)


def to_half(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """Compute everything from the first to the last convolution in fp16 or bf16.

    What comes before, the normalisation of intensities, and after, the sigmoid, stays in fp32: the square of
    255 just fits fp16 and sums of squares do not, logits near 0 are finer than probabilities near 0.5, and
    neither takes time. Transposed convolutions stay in fp32 where all else is bf16: TensorRT-RTX 1.7 has none
    of bf16.

    Parameters
    ----------
    model : left as it is
    precision : fp16 or bf16

    Raises
    ------
    EngineBuildError
        A weight is too large for fp16, or the graph has no convolution, or branches.
    """
    import onnx

    half = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[precision]
    out = prepared(model)
    graph = out.graph
    floats = _float_values(out)
    inside = _between_convolutions(graph)
    if precision == "bf16":
        inside = [
            here and node.op_type != "ConvTranspose" for node, here in zip(graph.node, inside, strict=True)
        ]
    made = {name for node, here in zip(graph.node, inside, strict=True) if here for name in node.output}
    weights = {each.name: each for each in graph.initializer}

    nodes: list[onnx.NodeProto] = []
    ready: set[str] = set()
    for node, here in zip(graph.node, inside, strict=True):
        in_half = _arithmetic_inputs(node, out) if here else ()
        for k, name in enumerate(node.input):
            if name not in floats or (k in in_half) == (name in made):
                continue
            node.input[k] = other = f"{name}/{precision if k in in_half else 'fp32'}"
            if other in ready:
                continue
            ready.add(other)
            if name in weights:
                graph.initializer.append(_rounded(weights[name], other, half))
            else:
                to = half if k in in_half else onnx.TensorProto.FLOAT
                nodes.append(onnx.helper.make_node("Cast", [name], [other], name=other, to=to))
        for attribute in node.attribute if here and node.op_type == "Cast" else ():
            if attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = half
        nodes.append(node)
    result = graph.output[0].name
    if result in made:
        for node in nodes:
            for names in (node.input, node.output):
                names[:] = [f"{name}/{precision}" if name == result else name for name in names]
        last = [f"{result}/{precision}"], [result]
        nodes.append(onnx.helper.make_node("Cast", *last, name=result, to=onnx.TensorProto.FLOAT))
    return finished(out, nodes)


def _float_values(model: onnx.ModelProto) -> set[str]:
    graph, kind = model.graph, 1  # TensorProto.FLOAT
    values = [*graph.input, *graph.value_info, *graph.output]
    found = {each.name for each in values if each.type.tensor_type.elem_type == kind}
    return found | {each.name for each in graph.initializer if each.data_type == kind}


def _between_convolutions(graph: onnx.GraphProto) -> list[bool]:
    """Say of every node whether it is a convolution, or between two of them."""

    def reached(nodes: Iterable[onnx.NodeProto], ends: Callable[[onnx.NodeProto], _Ends]) -> list[bool]:
        values: set[str] = set()
        found = []
        for node in nodes:
            here, there = ends(node)
            found.append(node.op_type in CONVOLUTIONS or not values.isdisjoint(here))
            if found[-1]:
                values.update(name for name in there if name)
        return found

    down = reached(graph.node, lambda node: (node.input, node.output))
    up = reached(reversed(graph.node), lambda node: (node.output, node.input))
    inside = [a and b for a, b in zip(down, reversed(up), strict=True)]
    if not any(inside):
        raise EngineBuildError("the network has no convolution: choose precision fp32 or tf32")
    return inside


def _arithmetic_inputs(node: onnx.NodeProto, model: onnx.ModelProto) -> set[int]:
    """Which inputs have the type of the first: not the sizes that Resize takes, for example."""
    import onnx

    version = next(each.version for each in model.opset_import if each.domain == node.domain)
    formal = onnx.defs.get_schema(node.op_type, version, node.domain).inputs
    kinds = [formal[min(k, len(formal) - 1)].type_str for k in range(len(node.input))]
    return {k for k, kind in enumerate(kinds) if kind == kinds[0]}


def _rounded(weight: onnx.TensorProto, name: str, kind: int) -> onnx.TensorProto:
    """Round a weight to float16 or bfloat16, to the nearest, ties to even."""
    import onnx

    values = onnx.numpy_helper.to_array(weight)
    if kind == onnx.TensorProto.FLOAT16:
        largest = float(np.abs(values).max(initial=0.0))
        if largest >= _LARGEST_FP16:
            raise EngineBuildError(
                f"the network has a weight of {largest:.4g}, too large for fp16: choose bf16 or tf32"
            )
        return onnx.numpy_helper.from_array(values.astype(np.float16), name)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    upper = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return onnx.helper.make_tensor(name, kind, values.shape, upper.tobytes(), raw=True)
