"""From torch to ONNX: batch norm folded, sigmoid and normalisation in the graph, any batch size."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["OPSET", "to_onnx"]

#: Taken by TensorRT 10 and 11, onnxruntime and OpenVINO alike.
OPSET = 13


class _Probabilities(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.network(x))


def to_onnx(network: nn.Module, names: tuple[str, str], shape: Sequence[int], free: Sequence[str]) -> bytes:
    """Export a network that gives logits as one that gives probabilities.

    Parameters
    ----------
    network : any of `tools.train.networks`
    names : of input and output
    shape : of an input without its batch, any size on free axes
    free : name of each axis of ``shape`` whose size is free, "" where it is fixed

    Returns
    -------
    content : of the ONNX file
    """
    axes = {0: "n", **{i + 1: name for i, name in enumerate(free) if name}}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter that traces folds batch norm; its successor needs a package of its own.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Probabilities(network).eval().cpu(),
            (torch.zeros(1, *shape),),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=[names[0]],
            output_names=[names[1]],
            dynamic_axes={names[0]: axes, names[1]: axes},
        )
    return buffer.getvalue()
