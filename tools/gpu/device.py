"""The device memory layer, with each binding of CUDA: does it work, and how fast does it copy and start."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

import numpy as np

from fastseg.engines.cuda.base import Device, DeviceBuffer, Graph, HostBuffer, Stream
from fastseg.errors import EngineUnavailable
from tools.gpu.bench import Bench, NotHere

__all__ = ["check"]

# Copies large enough for the rate of the bus, where the GPU has room; and those of 64 crops of 64 x 64.
_LARGE, _CROPS = 256 << 20, 64 * 64 * 64 * 4
_PART = 16
_TURNS, _STARTS = 8, 500

_Work = Callable[[], None]
_Thing = TypeVar("_Thing", DeviceBuffer, HostBuffer, Stream, Graph)


def check(bench: Bench) -> None:
    """Exercise the layer with every binding that is installed, then measure it."""
    bench.layer()
    problems = []
    for binding in bench.hardware.bindings:
        bench.doing(f"opening the GPU with {binding}")
        try:
            device = bench.hardware.open_binding(bench.settings.gpu, binding)
            with device:
                _check(bench, device, binding)
        except EngineUnavailable as error:
            problems.append(str(error))
    if len(problems) == len(bench.hardware.bindings):
        raise NotHere(problems[0])
    for problem in problems:
        bench.left_out(problem)


def _check(bench: Bench, device: Device, binding: str) -> None:
    from fastseg.engines.cuda.selftest import selftest

    tell = partial(bench.row, binding=binding)
    tell(what="version", value=device.layer)
    bench.doing(f"the layer's own test with {binding}")
    result = selftest(device, nbytes=min(64 << 20, device.facts.memory_bytes // _PART))
    for each in result["checks"]:
        tell(what=each["name"], value=f"{each['outcome']}: {each['detail']}")
        if each["outcome"] == "failed":
            bench.failed(f"{binding}: {each['name']}: {each['detail']}")
    with device.current():
        tell(what="free memory, GB", value=round(device.free_bytes() / 1e9, 2))
        _copies(bench, device, tell)
        _starts(bench, device, tell)


def _copies(bench: Bench, device: Device, tell: Callable[..., None]) -> None:
    """Rates of the bus between page-locked memory and the GPU, one way and both ways at once."""
    nbytes = min(_LARGE, device.free_bytes() // _PART)
    with ExitStack() as stack:
        streams, hosts, buffers = [], [], []
        for _ in range(2):
            streams.append(_freed(stack, device.stream()))
            hosts.append(_freed(stack, device.pinned((nbytes,), np.uint8)))
            buffers.append(_freed(stack, device.allocate(nbytes)))
        up = partial(device.upload, buffers[0], hosts[0].array, streams[0])
        down = partial(device.download, hosts[1].array, buffers[1], streams[1])
        ways: dict[str, list[_Work]] = {"upload": [up], "download": [down], "both at once": [up, down]}
        for name, works in ways.items():
            if bench.time_for(f"{name} of {nbytes >> 20} MiB"):
                seconds = _least(works, streams)
                rate = len(works) * nbytes / seconds / 1e9
                tell(what=f"{name}, {nbytes >> 20} MiB, GB/s", value=round(rate, 2))


def _starts(bench: Bench, device: Device, tell: Callable[..., None]) -> None:
    """What the copies of one batch cost, one by one and as a graph; and only starting them."""
    with ExitStack() as stack:
        stream = _freed(stack, device.stream())
        host = _freed(stack, device.pinned((_CROPS,), np.uint8))
        there = _freed(stack, device.allocate(_CROPS))

        def batch() -> None:
            device.upload(there, host.array, stream)
            device.download(host.array, there, stream)

        bench.doing("copies of one batch")
        whole, start = _microseconds(batch, stream)
        tell(what="64 crops there and back, us", value=whole)
        tell(what="the same, only its start, us", value=start)
        if not device.graphs:
            bench.left_out(f"starts of CUDA graphs: {device.layer} has none")
            return
        bench.doing("a graph of one batch")
        graph = _freed(stack, device.capture(stream, batch))
        whole, start = _microseconds(lambda: graph.launch(stream), stream)
        tell(what="64 crops as a graph, us", value=whole)
        tell(what="as a graph, only its start, us", value=start)


def _freed(stack: ExitStack, thing: _Thing) -> _Thing:
    stack.callback(thing.free)
    return thing


def _least(works: list[_Work], streams: list[Stream]) -> float:
    """Seconds by the clock of the fastest of several turns, after one for nothing."""
    taken = []
    for _ in range(_TURNS + 1):
        began = time.perf_counter()
        for work in works:
            work()
        for stream in streams:
            stream.synchronize()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def _microseconds(work: _Work, stream: Stream) -> tuple[float, float]:
    """Medians of many turns: until all is done, and until the call returns."""
    whole, start = [], []
    for _ in range(_STARTS):
        began = time.perf_counter()
        work()
        start.append(time.perf_counter() - began)
        stream.synchronize()
        whole.append(time.perf_counter() - began)
    return round(float(np.median(whole)) * 1e6, 2), round(float(np.median(start)) * 1e6, 2)
