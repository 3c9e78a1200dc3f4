"""Crops to probabilities, through an engine: slice by slice, or in blocks of slices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.base import Engine
from fastseg.intensity import standardise
from fastseg.networks.network import Network

__all__ = ["predict_blocks", "predict_slices"]


def predict_slices(crops: NDArray[np.float32], network: Network, engine: Engine) -> NDArray[np.float32]:
    """Probability of cord in every crop, each slice alone.

    Parameters
    ----------
    crops : (n, x, y) float32     values 0..255

    Returns
    -------
    probabilities : (n, x, y) float32     NaN became 0
    """
    batch = standardise(crops, network.mean, network.std)[:, None]
    return _finite(engine.infer(batch)[:, 0])


def predict_blocks(
    crops: NDArray[np.float32],
    z: NDArray[np.int64],
    n_slices: int,
    network: Network,
    engine: Engine,
    *,
    empty: float = 0.0,
) -> NDArray[np.float32]:
    """Probability of cord in every crop, from blocks of slices that do not overlap.

    Blocks start at slice 0 of the volume. Slices without a crop hold `empty` before standardising, those
    that pad the last block hold 0. Blocks of zeros are not run.

    Parameters
    ----------
    crops : (n, x, y) float32     values 0..255
    z : (n,) int64                slice of each crop
    n_slices : slices of the volume
    empty : what an intensity of 0 became in the crops

    Returns
    -------
    probabilities : (n, x, y) float32     NaN became 0
    """
    depth = network.spatial[2]
    out = np.zeros_like(crops)
    for first in range(0, n_slices, depth):
        here = np.flatnonzero((z >= first) & (z < first + depth))
        if not crops[here].any():
            continue
        block = np.zeros((*crops.shape[1:], depth), np.float32)
        block[:, :, : n_slices - first] = empty
        block[:, :, z[here] - first] = crops[here].transpose(1, 2, 0)
        answer = engine.infer(standardise(block, network.mean, network.std)[None, None])[0, 0]
        out[here] = answer[:, :, z[here] - first].transpose(2, 0, 1)
    return _finite(out)


def _finite(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.nan_to_num(probabilities, copy=False, nan=0.0)
