"""Small ONNX networks with known answers, and the facts that go with them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from fastseg.networks.network import Network, Role


def convolution(
    folder: Path,
    *,
    spatial: tuple[int, ...] = (0, 0),
    batch: int = 0,
    channels_last: bool = False,
    seed: int = 0,
) -> Network:
    """Two convolutions of 3 taps along each axis and a sigmoid; sizes of 0 are free."""
    random = np.random.default_rng(seed)
    n = len(spatial)
    sizes = [size or f"n{axis}" for axis, size in enumerate(spatial)]
    shape = [batch or "N", *sizes, 1] if channels_last else [batch or "N", 1, *sizes]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("in", "out")]
    weights = {
        "w1": random.normal(0, 0.3, (6, 1, *(3,) * n)),
        "b1": random.normal(0, 0.3, 6),
        "w2": random.normal(0, 0.3, (1, 6, *(3,) * n)),
        "b2": random.normal(0, 0.3, 1),
    }
    last_first = [0, n + 1, *range(1, n + 1)]
    first_last = [0, *range(2, n + 2), 1]
    pads = [1] * (2 * n)
    nodes = [
        onnx.helper.make_node("Transpose" if channels_last else "Identity", ["in"], ["x0"]),
        onnx.helper.make_node("Conv", ["x0", "w1", "b1"], ["x1"], pads=pads),
        onnx.helper.make_node("Relu", ["x1"], ["x2"]),
        onnx.helper.make_node("Conv", ["x2", "w2", "b2"], ["x3"], pads=pads),
        onnx.helper.make_node("Sigmoid", ["x3"], ["x4"]),
        onnx.helper.make_node("Transpose" if channels_last else "Identity", ["x4"], ["out"]),
    ]
    if channels_last:
        nodes[0].attribute.append(onnx.helper.make_attribute("perm", last_first))
        nodes[-1].attribute.append(onnx.helper.make_attribute("perm", first_last))
    constants = [onnx.numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    graph = onnx.helper.make_graph(nodes, "convolution", ends[:1], ends[1:], constants)
    opsets = [onnx.helper.make_opsetid("", 13)]
    content = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return as_network(folder / f"convolution{seed}.onnx", content, spatial, channels_last=channels_last)


def as_network(path: Path, content: bytes, spatial: tuple[int, ...], **facts: Any) -> Network:
    """A file with this content, as a network."""
    path.write_bytes(content)
    known: dict[str, Any] = {
        "role": Role.SEGMENT_3D if len(spatial) == 3 else Role.SEGMENT_2D,
        "contrasts": ("t2",),
        "channels_last": False,
        "mean": 0.0,
        "std": 1.0,
        "thresholds": {"t2": 0.5},
        "pack": "test",
    }
    digest = hashlib.sha256(content).hexdigest()
    return Network(path=path, sha256=digest, spatial=spatial, **known | facts)


def expected(path: Path, batch: Any) -> Any:
    """The same network evaluated by onnx itself, in numpy; axes as in the file."""
    return ReferenceEvaluator(str(path)).run(None, {"in": batch})[0]


def run(content: bytes, batch: Any) -> Any:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return session.run(None, {given.name: batch.astype(np.float32)})[0]


def in_pack(network: Network, role: Role, contrast: str, threshold: float = 0.5, **facts: Any) -> Network:
    """The network as a pack has it."""
    known = {"role": role, "contrasts": (contrast,), "thresholds": {contrast: threshold}}
    return replace(network, **known | facts)
