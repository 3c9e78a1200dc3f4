"""The numbers of the fake TensorRT: onnxruntime, and bfloat16 where it has no kernels for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["FakeNumbers", "without_bfloat16"]


class FakeNumbers:
    """Runs a network's content; raises ValueError where onnxruntime cannot load it.

    Parameters
    ----------
    content : an ONNX file with one float32 array in and one out
    """

    def __init__(self, content: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if _is_reduced(content):
            # Optimised, it would leave out casts there and back, and its int8 kernels saturate in 16 bits on
            # CPUs without VNNI: ten times as many pixels flip as by the arithmetic that stands in the file.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(
                without_bfloat16(content), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises bare classes of its C++ side
            raise ValueError((str(error).splitlines() or ["onnxruntime refuses it"])[0]) from error
        (self._input,), (self._output,) = self._session.get_inputs(), self._session.get_outputs()
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}

    @property
    def ends(self) -> tuple[tuple[str, tuple[int, ...], str], tuple[str, tuple[int, ...], str]]:
        """Name, shape (-1 where any size does) and onnxruntime's type of the input and the output."""
        first, last = (
            (end.name, tuple(n if isinstance(n, int) else -1 for n in end.shape), str(end.type))
            for end in (self._input, self._output)
        )
        return first, last

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answer of the network."""
        (answer,) = self._session.run([self._output.name], {self._input.name: batch})
        return np.ascontiguousarray(answer, np.float32)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the answer to a batch of some shape."""
        few = (self.ends[0][1][0] if self.ends[0][1][0] > 0 else 1, *shape[1:])
        if few not in self._shapes:
            self._shapes[few] = self.run(np.zeros(few, np.float32)).shape
        return (shape[0], *self._shapes[few][1:])


def without_bfloat16(content: bytes) -> bytes:
    """The network with bfloat16 as float32 that is rounded to bfloat16 after every operation.

    A matrix unit does no other: it adds up products of bfloat16 in float32, and rounds once.
    """
    model = onnx.load_from_string(content)
    rounded = _bfloat16_values(model)
    if not rounded:
        return content
    graph = model.graph
    for constant in list(graph.initializer):
        if constant.data_type == TensorProto.BFLOAT16:
            values = numpy_helper.to_array(constant).astype(np.float32)
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    nodes: list[Any] = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.t.data_type == TensorProto.BFLOAT16:
                attribute.t.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32))
                )
        nodes.append(node)
        for k, name in enumerate(node.output):
            if name in rounded:
                node.output[k] = f"{name}/exact"
                nodes += [
                    helper.make_node("Cast", [f"{name}/exact"], [f"{name}/short"], to=TensorProto.BFLOAT16),
                    helper.make_node("Cast", [f"{name}/short"], [name], to=TensorProto.FLOAT),
                ]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def _is_reduced(content: bytes) -> bool:
    """Whether some weights are not float32."""
    try:
        weights = onnx.load_from_string(content).graph.initializer
    except Exception:  # protobuf's own; onnxruntime says more of a file that cannot be read
        return False
    return any(
        each.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8) for each in weights
    )


def _bfloat16_values(model: Any) -> set[str]:
    """Names of what the operations give in bfloat16."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    made = {name for node in inferred.node for name in node.output}
    known = {
        value.name
        for value in inferred.value_info
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16
    }
    return made & known
