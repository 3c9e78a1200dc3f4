"""Engines that run on this machine, and how fast they are next to the reference engine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.base import Engine
from fastseg.engines.machine import capability
from fastseg.errors import EngineUnavailable
from fastseg.networks.network import Network

__all__ = ["Contender", "contenders", "speed"]

# What is timed: about so many pixels of the first volumes, in so many turns of each engine, one after the
# other.
_PIXELS, _TURNS = 128 * 64 * 64, 7


class Contender(NamedTuple):
    """An engine that is not open yet, what its record is called, and the clock that is fair to it."""

    name: str
    capability: str
    engine: Engine
    clock: Callable[[], float]


def contenders(network: Network) -> Iterator[Contender]:
    """List engines that this machine can run, other than the reference."""
    from fastseg.engines.cuda.probe import probe
    from fastseg.engines.openvino_cpu import OpenVinoCpu, bf16_runs, import_openvino

    try:
        import_openvino()
    except EngineUnavailable:
        pass
    else:
        for precision in ("fp32", *(["bf16"] if bf16_runs() else [])):
            engine = OpenVinoCpu(network, precision=precision)
            # CPU seconds of all threads: others use this machine too.
            yield Contender(f"openvino {precision}", capability(), engine, time.process_time)
    for gpu in probe().gpus[:1]:
        from fastseg.engines.tensorrt.engine import TensorRt

        version = "".join(map(str, gpu.compute_capability))
        for precision in ("fp32", "tf32", "fp16", "bf16", "int8"):
            on_gpu = TensorRt(network, number=gpu.number, precision=precision)
            yield Contender(f"tensorrt {precision}", f"sm_{version}", on_gpu, time.perf_counter)


def speed(contender: Contender, reference: Engine, inputs: Sequence[NDArray[np.float32]]) -> float:
    """Say how many times as fast an engine is, by the medians of turns that alternate.

    Parameters
    ----------
    contender : its engine is open
    reference : open, with one thread
    inputs : batches, of which the first are taken
    """
    taken, pixels = [], 0
    for batch in inputs:
        if pixels < _PIXELS:
            taken.append(batch)
            pixels += batch.size
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(_TURNS + 1):
        for engine, kept in zip((contender.engine, reference), seconds, strict=True):
            started = contender.clock()
            for batch in taken:
                engine.infer(batch)
            kept.append(contender.clock() - started)
    mine, theirs = (statistics.median(kept[1:]) for kept in seconds)
    return theirs / mine
