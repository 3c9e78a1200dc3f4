"""One network inside a larger ONNX graph: nodes of ours before and after it, nothing of it changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import onnx
from numpy.typing import ArrayLike

from fastseg.errors import NetworkError
from fastseg.networks.files import onnx_shapes, shape_problem
from fastseg.networks.network import Network
from tools.export.opsets import in_old_opset

__all__ = ["INPUT", "OUTPUT", "Wrapper"]

#: Names of the input and the output in SCT's files.
INPUT, OUTPUT = "input_1", "predictions"

# Of opset 13; read by onnxruntime since 1.6.
_IR_VERSION = 7
# Before the names of the wrapped network, so that none can meet one of ours.
_PREFIX = "network/"


class Wrapper:
    """Collects the nodes of a new graph, in the order in which they run.

    Arrays are referred to by name; `INPUT` is the one to begin with.

    Parameters
    ----------
    content : the network's ONNX file, its digest already checked
    network : what its pack says about it

    Raises
    ------
    NetworkError
        The file is not what the pack says, or has no form that SCT's onnxruntime is sure to take.
    """

    def __init__(self, content: bytes, network: Network) -> None:
        self._where = network.path
        try:
            shapes = onnx_shapes(content)
        except NetworkError as error:
            raise self.error(str(error)) from error
        if problem := shape_problem(network, shapes):
            raise self.error(problem)
        if shapes[0][0] > 1:
            raise self.error(f"it takes {shapes[0][0]} items at a time and SCT gives one")
        self._batch: int | str = shapes[0][0] or "N"
        try:
            model = in_old_opset(onnx.load_model_from_string(content), network)
        except NetworkError as error:
            raise self.error(str(error)) from error
        self._model = onnx.compose.add_prefix(model, _PREFIX)
        graph = self._model.graph
        constants = {each.name for each in graph.initializer}
        (self._taken,) = (each.name for each in graph.input if each.name not in constants)
        (self._given,) = (each.name for each in graph.output)
        self._inner = list(graph.node)
        self._nodes: list[onnx.NodeProto] = []
        self._count = 0

    def error(self, problem: str) -> NetworkError:
        """Make the error for this network."""
        return NetworkError(f"{self._where}: {problem}: it cannot be exported; use another pack")

    def constant(self, values: ArrayLike, kind: type[np.generic] = np.float32) -> str:
        """Add a constant; scalars and arrays alike."""
        name = self._new("constant")
        array = np.array(values, kind)
        self._model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Add a node with one output, and give the output's name."""
        name = self._new(kind)
        self._nodes.append(onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def run_network(self, x: str) -> str:
        """Add the network itself; once.

        Parameters
        ----------
        x : in the layout that the network's own file has

        Returns
        -------
        y : in the same layout
        """
        self._nodes.append(onnx.helper.make_node("Identity", [x], [self._taken]))
        self._nodes += self._inner
        return self._given

    def file(self, y: str, shape: Sequence[int], facts: Mapping[str, str], *, one: bool = False) -> bytes:
        """Write the graph that gives y.

        Parameters
        ----------
        y : the output, of the same shape as the input
        shape : of both, without batch axis
        facts : what metadata_props shall say, besides what the network's own file says there
        one : the batch axis is 1, also where the network takes any

        Returns
        -------
        content : an ONNX file, checked by onnx and loaded by onnxruntime

        Raises
        ------
        NetworkError
            What came out is not valid.
        """
        self._nodes.append(onnx.helper.make_node("Identity", [y], [OUTPUT]))
        model, graph = self._model, self._model.graph
        ends = [
            onnx.helper.make_tensor_value_info(
                name, onnx.TensorProto.FLOAT, [1 if one else self._batch, *shape]
            )
            for name in (INPUT, OUTPUT)
        ]
        for field, values in (
            (graph.node, self._nodes),
            (graph.input, ends[:1]),
            (graph.output, ends[1:]),
            (graph.value_info, []),  # of the network alone
        ):
            del field[:]
            field.extend(values)
        # The names of its sizes need not be the same inside the larger graph, so nothing else is kept.
        graph.name = "network"
        model.ir_version = _IR_VERSION
        model.producer_name = "fastseg"
        known = {each.key: each.value for each in model.metadata_props}
        onnx.helper.set_model_props(model, {**known, **facts})
        try:
            onnx.checker.check_model(model, full_check=True)
            content = cast(bytes, model.SerializeToString(deterministic=True))
            onnx_shapes(content)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, NetworkError) as error:
            reason = " ".join(str(error).split())[:200]
            raise self.error(f"the exported graph is not valid ({reason})") from error
        return content

    def _new(self, kind: str) -> str:
        self._count += 1
        return f"{kind.lower()}_{self._count}"
