"""Networks whose convolutions round as matrix units do, in files that onnxruntime runs everywhere.

Inputs and weights of every convolution are rounded, products are summed in fp32, and results are rounded
again where they are stored in that precision: fp16 and bf16 are, TF32 is not.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["LAYERS", "rounded"]

#: Operators that run on matrix units.
LAYERS = ("Conv", "ConvTranspose")

# Bits of fp32's significand of 24 that are not kept, where the range of numbers is the same. Veltkamp (1968):
# with c = (2^s + 1) x, c - (c - x) is x rounded to the nearest number that has s bits less. Files of old
# operator versions have no cast to bf16.
_DROPPED = {"tf32": 13, "bf16": 16}


_FACTOR = "veltkamp_factor"


def rounded(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """Round what goes into every convolution, and what comes out of it, to tf32, fp16 or bf16.

    Parameters
    ----------
    model : left as it is
    precision : tf32, fp16 or bf16

    Notes
    -----
    Run it without optimisations: they may take out what seems to change nothing.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    nodes = list(out.graph.node)
    del out.graph.node[:]
    if precision in _DROPPED:
        factor = np.float32(2 ** _DROPPED[precision] + 1)
        out.graph.initializer.append(numpy_helper.from_array(factor, _FACTOR))

    def through(name: str, result: str) -> None:
        """Make `result` from a value by rounding it."""
        if precision in _DROPPED:
            steps = [
                helper.make_node("Mul", [name, _FACTOR], [f"{result}_c"]),
                helper.make_node("Sub", [f"{result}_c", name], [f"{result}_d"]),
                helper.make_node("Sub", [f"{result}_c", f"{result}_d"], [result]),
            ]
        else:
            steps = [
                helper.make_node("Cast", [name], [f"{result}_half"], to=TensorProto.FLOAT16),
                helper.make_node("Cast", [f"{result}_half"], [result], to=TensorProto.FLOAT),
            ]
        out.graph.node.extend(steps)

    for k, node in enumerate(nodes):
        if node.op_type not in LAYERS:
            out.graph.node.append(node)
            continue
        for i in range(2):
            name = node.input[i]
            node.input[i] = f"{name}_{k}_rounded"
            through(name, node.input[i])
        if precision != "tf32":
            result, node.output[0] = node.output[0], f"{node.output[0]}_exact"
            out.graph.node.append(node)
            through(node.output[0], result)
        else:
            out.graph.node.append(node)
    return out
