"""Running a network once on noise, to see what it does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fastseg.networks.network import Network

__all__ = ["answer_to_noise"]


def answer_to_noise(content: bytes, network: Network, size: Sequence[int]) -> NDArray[np.float32]:
    """Run a network on the same noise every time.

    Parameters
    ----------
    content : an ONNX file
    network : what its pack says about it
    size : of the input along x, y[, z]

    Returns
    -------
    answer : (1, 1, x, y[, z]) float32     sizes as the network gives them
    """
    shape = (1, *size, 1) if network.channels_last else (1, 1, *size)
    noise = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    answer = session.run(None, {session.get_inputs()[0].name: noise})[0]
    return np.asarray(np.moveaxis(answer, -1, 1) if network.channels_last else answer)
