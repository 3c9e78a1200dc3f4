"""Crops to probabilities, through an engine: slice by slice, or in blocks of slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.base import Engine
from fastseg.intensity import standardise
from fastseg.networks.network import Network

__all__ = ["Question", "ask_blocks", "ask_slices", "predict_blocks", "predict_slices"]

# Blocks of networks that take any depth: the deepest, and the slices of context that are run on either side
# of the answers that are kept.
_DEEPEST, _CONTEXT = 48, 6


class Question(NamedTuple):
    """What a network is asked about one volume, and how its answers are read.

    Parameters
    ----------
    batches : each (N, 1, x, y) or (N, 1, x, y, z) float32, as the network wants them
    read : makes probabilities (n, x, y), one for each crop, from an answer for each batch; NaN becomes 0
    """

    batches: tuple[NDArray[np.float32], ...]
    read: Callable[[Sequence[NDArray[np.float32]]], NDArray[np.float32]]


class _Block(NamedTuple):
    """Slices [first, stop) that are run together, and those of them whose answer is kept."""

    first: int
    stop: int
    kept_first: int
    kept_stop: int


def predict_slices(crops: NDArray[np.float32], network: Network, engine: Engine) -> NDArray[np.float32]:
    """Probability of cord in every crop, each slice alone.

    Parameters
    ----------
    crops : (n, x, y) float32     values 0..255

    Returns
    -------
    probabilities : (n, x, y) float32     NaN became 0
    """
    question = ask_slices(crops, network)
    return question.read([engine.infer(batch) for batch in question.batches])


def predict_blocks(
    crops: NDArray[np.float32],
    z: NDArray[np.int64],
    n_slices: int,
    network: Network,
    engine: Engine,
    *,
    empty: float = 0.0,
) -> NDArray[np.float32]:
    """Probability of cord in every crop, from blocks of slices; see `ask_blocks`.

    Returns
    -------
    probabilities : (n, x, y) float32     NaN became 0
    """
    question = ask_blocks(crops, z, n_slices, network, empty=empty)
    return question.read([engine.infer(batch) for batch in question.batches])


def ask_slices(crops: NDArray[np.float32], network: Network) -> Question:
    """Put crops into a batch for a 2D network.

    Parameters
    ----------
    crops : (n, x, y) float32     values 0..255
    """

    def read(answers: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        (answer,) = answers
        return _finite(answer[:, 0])

    return Question((standardise(crops, network.mean, network.std)[:, None],), read)


def ask_blocks(
    crops: NDArray[np.float32],
    z: NDArray[np.int64],
    n_slices: int,
    network: Network,
    *,
    empty: float = 0.0,
) -> Question:
    """Put crops into blocks of slices for a 3D network, one batch a block.

    Slices without a crop hold `empty` before standardising.

    Parameters
    ----------
    crops : (n, x, y) float32     values 0..255
    z : (n,) int64                slice of each crop
    n_slices : slices of the volume
    empty : what an intensity of 0 became in the crops

    Notes
    -----
    A network of a fixed depth, as SCT's are, runs on blocks that start at slice 0 of the volume and do not
    overlap; slices that pad the last block hold 0, and blocks of zeros are not run.

    A network of any depth runs on the slices from the first crop to the last: at once up to 48 slices, else
    in equal blocks that overlap, so that every answer that is kept has 6 slices of context on either side.
    Blocks that would give no crop an answer are not run.
    """
    depth, shape = network.spatial[2], crops.shape
    batches, places = [], []
    for first, stop, kept_first, kept_stop in _fixed(n_slices, depth) if depth else _spread(z):
        here = np.flatnonzero((z >= first) & (z < stop))
        kept = here[(z[here] >= kept_first) & (z[here] < kept_stop)]
        if not (crops[here].any() if depth else kept.size):
            continue
        block = np.zeros((*shape[1:], stop - first), np.float32)
        block[:, :, : n_slices - first] = empty
        block[:, :, z[here] - first] = crops[here].transpose(1, 2, 0)
        batches.append(standardise(block, network.mean, network.std)[None, None])
        places.append((kept, z[kept] - first))

    def read(answers: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        out = np.zeros(shape, np.float32)
        for answer, (kept, inside) in zip(answers, places, strict=True):
            out[kept] = answer[0, 0][:, :, inside].transpose(2, 0, 1)
        return _finite(out)

    return Question(tuple(batches), read)


def _fixed(n_slices: int, depth: int) -> Iterator[_Block]:
    for first in range(0, n_slices, depth):
        yield _Block(first, first + depth, first, first + depth)


def _spread(z: NDArray[np.int64]) -> Iterator[_Block]:
    """As few blocks as do, all of one depth, evenly spread from the first crop to the last."""
    if not z.size:
        return
    start, n = int(z.min()), int(np.ptp(z)) + 1
    count = 1 if n <= _DEEPEST else -(-(n - 2 * _CONTEXT) // (_DEEPEST - 2 * _CONTEXT))
    depth = -(-(n + 2 * _CONTEXT * (count - 1)) // count)
    firsts = [start + i * (n - depth) // max(count - 1, 1) for i in range(count)]
    # Neighbours share at least twice the context; they part in the middle of it.
    cuts = [(left + depth + right) // 2 for left, right in pairwise(firsts)]
    for first, low, high in zip(firsts, [start, *cuts], [*cuts, start + n], strict=True):
        yield _Block(first, first + depth, low, high)


def _finite(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.nan_to_num(probabilities, copy=False, nan=0.0)
