"""Images a second by network, precision and batch, from host memory to host memory, against the CPU."""

from __future__ import annotations

import os

from fastseg.engines.base import Engine
from fastseg.engines.cuda.base import GpuFacts
from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
from fastseg.errors import FastsegError
from fastseg.networks.network import Network, Role
from tools.gpu.bench import Bench
from tools.gpu.networks import (
    Times,
    batches_of,
    images,
    macs,
    networks,
    nominal_rate,
    precisions,
    tensorrt,
    timed,
    usable,
)

__all__ = ["check"]

_BATCHES = (1, 4, 16, 64, 256)
# The CPU gets a batch that keeps it busy for a part of a second, no longer.
_CPU_BATCH = {Role.SEGMENT_3D: 2}
_CPU_BATCH_OTHERWISE = 64


def check(bench: Bench) -> None:
    """Measure network by network: the CPU's one thread, all its threads, then the GPU."""
    bench.vendor()
    gpu = bench.gpu()
    there = precisions(bench, gpu)
    for network in networks():
        yardstick = _cpu(bench, network)
        for precision in there:
            if not usable(bench, network, precision) or not bench.time_for(
                f"throughput of {network.path.stem} in {precision}"
            ):
                continue
            try:
                with tensorrt(bench, network, precision) as engine:
                    _measure(bench, network, precision, engine, gpu, yardstick)
            except FastsegError as error:
                bench.failed(f"{network.path.stem} in {precision}: {error}")


def _cpu(bench: Bench, network: Network) -> float | None:
    """Images a second of the reference engine on all cores; None where there was no time."""
    rate = None
    count = _CPU_BATCH.get(network.role, _CPU_BATCH_OTHERWISE)
    for threads in sorted({1, len(os.sched_getaffinity(0))}):
        if bench.time_for(f"{network.path.stem} on {threads} threads of the CPU"):
            with OnnxRuntimeCpu(network, threads=threads) as engine:
                batch = images(network, count * (threads if network.role is Role.SEGMENT_3D else 1))
                times = timed(lambda: engine.infer(batch), fewest=3)  # noqa: B023  # called at once
            rate = len(batch) / times.median
            _tell(bench, network, f"{engine.name}, threads {threads}", len(batch), times, None, None)
    return rate


def _measure(
    bench: Bench,
    network: Network,
    precision: str,
    engine: Engine,
    gpu: GpuFacts,
    yardstick: float | None,
) -> None:
    promised = nominal_rate(gpu, precision)
    for count in batches_of(bench, network, _BATCHES):
        if bench.time_for(f"{network.path.stem} in {precision}, {count} at a time"):
            batch = images(network, count)
            times = timed(lambda: engine.infer(batch), seconds=0.2)  # noqa: B023
            _tell(bench, network, engine.name, count, times, promised, yardstick)


def _tell(
    bench: Bench,
    network: Network,
    engine: str,
    count: int,
    times: Times,
    promised: float | None,
    yardstick: float | None,
) -> None:
    """Tell a row; the floor is the time of the multiplications alone, at the rate that NVIDIA promises."""
    rate = count / times.median
    work = macs(network)
    floor = 2 * work / promised if work is not None and promised is not None else None
    bench.row(
        network=network.path.stem,
        engine=engine,
        batch=count,
        images_per_second=round(rate, 1),
        ms=round(times.median * 1e3, 3),
        ms_least=round(times.least * 1e3, 3),
        turns=times.count,
        gflop_per_second=None if work is None else round(2 * work * rate / 1e9, 1),
        share_of_flop_floor=None if floor is None else round(floor * rate, 4),
        times_the_cpu=None if yardstick is None else float(f"{rate / yardstick:.3g}"),
    )
