"""Every network of the default pack in every precision that the GPU has: built, accepted, loaded again."""

from __future__ import annotations

import time

from fastseg.errors import FastsegError
from tools.gpu.bench import Bench
from tools.gpu.networks import networks, precisions, refuse, tensorrt

__all__ = ["check"]


def check(bench: Bench) -> None:
    """Build, and tell what came of the comparison with the reference engine on fixed inputs."""
    bench.vendor()
    # Precision by precision, so that all networks have one where the time is short.
    for precision in precisions(bench, bench.gpu()):
        for network in networks():
            if not bench.time_for(f"building {network.path.stem} in {precision}"):
                continue
            engine = tensorrt(bench, network, precision)
            try:
                with engine:
                    plan = engine.plan.record
                bench.doing(f"loading {network.path.stem} in {precision} from the cache")
                began = time.perf_counter()
                with engine:
                    loaded = time.perf_counter() - began
            except FastsegError as error:
                bench.failed(f"{network.path.stem} in {precision}: {error}")
                refuse(bench, network, precision)
                continue
            bench.row(
                network=network.path.stem,
                precision=precision,
                build_seconds=plan["seconds"],
                load_seconds=round(loaded, 3),
                plan_kb=round(plan["bytes"] / 1e3),
                max_difference=plan["max_difference"],
                flipped=plan["flipped"],
                pixels=plan["pixels"],
                dice=plan["dice"],
            )
