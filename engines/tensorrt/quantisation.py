"""Convolutions of int8: scales chosen on typical inputs, written into a network's file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.tensorrt.onnx_files import finished, first_line, prepared
from fastseg.errors import EngineBuildError

if TYPE_CHECKING:
    import onnx

__all__ = ["to_int8"]

# Images that are measured at once, of files that take any number.
_AT_ONCE = 8


def to_int8(model: onnx.ModelProto, batches: Sequence[NDArray[np.float32]]) -> onnx.ModelProto:
    """Quantise what convolutions take, and their weights; their sums and all else stay in fp32.

    Weights have a scale for every channel, inputs one that just holds the largest value seen; no offsets and
    no integer biases, which TensorRT refuses. The logits are not quantised, only what goes into the last
    convolution.

    Parameters
    ----------
    model : left as it is
    batches : typical inputs with the file's order of axes, of any length each

    Raises
    ------
    EngineBuildError
        There are no inputs, they do not fit, or there is no convolution whose weights stand in the file.
    """
    import onnx
    from onnx import numpy_helper

    out = prepared(model)
    graph = out.graph
    weights = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    layers = {k for k, node in enumerate(graph.node) if _can_be_int8(node) and node.input[1] in weights}
    taken = [graph.node[k].input[0] for k in sorted(layers)]
    if not layers:
        raise EngineBuildError("the network has no convolution for int8: choose another precision")
    largest = _largest(out, list(dict.fromkeys(taken)), batches)

    nodes: list[onnx.NodeProto] = []
    ready: set[str] = set()

    def dequantised(name: str, scale: NDArray[np.float32], axis: int) -> str:
        """Add scale and, of a value, the way to int8; give the name of what comes back from there."""
        low, back, per_channel = f"{name}/int8", f"{name}/back", scale.ndim > 0
        if name in ready:
            return back
        ready.add(name)
        zeros = np.zeros(scale.shape, np.int8)
        ends = [f"{name}/scale", f"{name}/zero"]
        graph.initializer.extend(
            numpy_helper.from_array(*each) for each in zip((scale, zeros), ends, strict=True)
        )
        if per_channel:
            along = scale.reshape([-1 if k == axis else 1 for k in range(weights[name].ndim)])
            rounded = np.clip(np.rint(weights[name] / along), -127, 127).astype(np.int8)
            graph.initializer.append(numpy_helper.from_array(rounded, low))
        else:
            nodes.append(onnx.helper.make_node("QuantizeLinear", [name, *ends], [low], name=low))
        options = {"axis": axis} if per_channel else {}
        nodes.append(onnx.helper.make_node("DequantizeLinear", [low, *ends], [back], name=back, **options))
        return back

    for place, node in enumerate(graph.node):
        if place in layers:
            kernel = weights[node.input[1]]
            axis = 0 if node.op_type == "Conv" else 1
            others = tuple(k for k in range(kernel.ndim) if k != axis)
            node.input[0] = dequantised(node.input[0], _scale(largest[node.input[0]]), 0)
            node.input[1] = dequantised(node.input[1], _scale(np.abs(kernel).max(axis=others)), axis)
        nodes.append(node)
    return finished(out, nodes)


def _largest(
    model: onnx.ModelProto, names: Sequence[str], batches: Sequence[NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Largest magnitude of some values, over all batches; in one thread, so that it is always the same."""
    import onnx
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    ends = {probe.graph.input[0].name, probe.graph.output[0].name}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in ends)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    found = {name: np.zeros((), np.float32) for name in names}
    try:
        session = onnxruntime.InferenceSession(
            probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (end,) = session.get_inputs()
        for batch in _pieces(batches, end.shape[0]):
            values = {end.name: batch}
            wanted = [name for name in names if name != end.name]
            values |= dict(zip(wanted, session.run(wanted, values), strict=True))
            for name in names:
                found[name] = np.maximum(found[name], np.abs(values[name]).max())
    except Exception as error:  # onnxruntime raises bare classes of its C++ side
        raise EngineBuildError(
            f"onnxruntime cannot measure the network for int8 ({first_line(error)}): choose another precision"
        ) from error
    if not batches or not all(np.isfinite(each) for each in found.values()):
        raise EngineBuildError(
            "int8 needs typical inputs with finite answers, and there are none: choose another precision"
        )
    return found


def _pieces(batches: Sequence[NDArray[np.float32]], length: object) -> Iterable[NDArray[np.float32]]:
    """Cut batches into pieces of the length that a file wants, the last ones filled up."""
    step = length if isinstance(length, int) else _AT_ONCE
    for batch in batches:
        for first in range(0, len(batch), step):
            piece = batch[first : first + step]
            if isinstance(length, int) and len(piece) < step:
                piece = np.concatenate([piece, np.repeat(piece[-1:], step - len(piece), axis=0)])
            yield np.ascontiguousarray(piece, np.float32)


def _can_be_int8(node: onnx.NodeProto) -> bool:
    groups = next((part.i for part in node.attribute if part.name == "group"), 1)
    # Channels of a transposed convolution in groups stand on two axes of its weights.
    return node.op_type == "Conv" or (node.op_type == "ConvTranspose" and groups == 1)


def _scale(largest: NDArray[np.float32]) -> NDArray[np.float32]:
    """Step of int8 that just holds a value; 1 where all are 0."""
    return np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
