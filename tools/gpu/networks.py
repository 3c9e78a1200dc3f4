"""The networks of the default pack, their inputs, and engines for them."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.cuda.base import GpuFacts
from fastseg.engines.tensorrt.engine import TensorRt
from fastseg.engines.tensorrt.plans import PlanCache
from fastseg.networks.network import Network, Role
from fastseg.networks.packs import find_pack
from tools.gpu.bench import Bench

__all__ = [
    "Times",
    "batches_of",
    "images",
    "macs",
    "networks",
    "nominal_rate",
    "precisions",
    "refuse",
    "tensorrt",
    "timed",
    "usable",
]

# Largest depth that fastseg gives a 3D network of any depth at once, and the size of the whole slices that
# a detector's macs_millions is counted for.
_DEPTH, _SLICE = 48, 144
# File of the work folder, with what could not be built.
_REFUSED = "refused"
# Compute capability from which on the matrix units have a precision.
_SINCE = {"fp32": (0, 0), "fp16": (7, 0), "int8": (7, 2), "tf32": (8, 0), "bf16": (8, 0)}
# What NVIDIA's data sheets promise, in TFLOP/s, without sparsity; fp32 outside the matrix units. Of GPUs that
# are not here no share is told.
_NOMINAL = {
    "NVIDIA H100 80GB HBM3": {"fp32": 67.0, "tf32": 495.0, "fp16": 989.0, "bf16": 989.0, "int8": 1979.0},
    "NVIDIA H200": {"fp32": 67.0, "tf32": 495.0, "fp16": 989.0, "bf16": 989.0, "int8": 1979.0},
    "NVIDIA H100 PCIe": {"fp32": 51.0, "tf32": 378.0, "fp16": 756.0, "bf16": 756.0, "int8": 1513.0},
    "NVIDIA A100.*": {"fp32": 19.5, "tf32": 156.0, "fp16": 312.0, "bf16": 312.0, "int8": 624.0},
}


def networks() -> list[Network]:
    """Every network of the default pack, once: segmenters by size, then the detector."""
    pack = find_pack("default")
    order = (Role.SEGMENT_2D, Role.SEGMENT_3D, Role.DETECT_SLICES, Role.SEGMENT_2D_LIGHT, Role.DETECT_BLOCKS)
    found = {network.path: network for role in order for network in pack.networks if network.role is role}
    return list(found.values())


def precisions(bench: Bench, gpu: GpuFacts) -> list[str]:
    """Those that were asked for and that the GPU has; what it lacks is told."""
    there = []
    for precision in bench.settings.precisions:
        if gpu.compute_capability >= _SINCE[precision]:
            there.append(precision)
        else:
            major, minor = _SINCE[precision]
            bench.left_out(f"{precision}: needs compute capability {major}.{minor} or more")
    return there


def nominal_rate(gpu: GpuFacts, precision: str) -> float | None:
    """Operations a second that NVIDIA promises, two for a MAC; None where it is not known."""
    for name, rates in _NOMINAL.items():
        if re.fullmatch(name, gpu.name):
            return rates[precision] * 1e12
    return None


def macs(network: Network) -> float | None:
    """Multiplications and additions of one image of `images`; None where nobody counted."""
    if network.macs_millions is None:
        return None
    return network.macs_millions * 1e6 * (_DEPTH if network.role is Role.SEGMENT_3D else 1)


def images(network: Network, count: int) -> NDArray[np.float32]:
    """Make images as the network gets them, those of the acceptance over and over.

    Returns
    -------
    batch : (count, 1, x, y) or (count, 1, x, y, z) float32
        whole slices of 144 x 144, blocks of 48 slices
    """
    from fastseg.engines.acceptance import fixed_inputs

    first = fixed_inputs(network)[0]
    wanted = _sizes(network)
    for axis, size in enumerate(wanted, start=2):
        if first.shape[axis] != size:
            first = np.take(first, np.arange(size) % first.shape[axis], axis)
    return np.ascontiguousarray(np.resize(first, (count, *first.shape[1:])), np.float32)


def batches_of(bench: Bench, network: Network, batches: tuple[int, ...]) -> list[int]:
    """Batch sizes that were asked for and whose images fit into a GB; others are told."""
    one = 4 * math.prod(_sizes(network))
    taken = [count for count in batches if count <= bench.settings.largest and count * one <= 1e9]
    if left := [str(count) for count in batches if count not in taken]:
        bench.left_out(
            f"{network.path.stem}, {', '.join(left)} at a time: beyond --largest, or a GB of images"
        )
    return taken


def refuse(bench: Bench, network: Network, precision: str) -> None:
    """Note that an engine cannot be had, so that later sections do not build it again."""
    with (bench.settings.work / _REFUSED).open("a") as file:
        print(_pair(network, precision), file=file)


def usable(bench: Bench, network: Network, precision: str) -> bool:
    """Whether no section has noted that an engine cannot be had; where one has, that is told."""
    noted = bench.settings.work / _REFUSED
    pair = _pair(network, precision)
    if noted.is_file() and pair in noted.read_text().splitlines():
        bench.left_out(f"{pair}: it could not be built, or was refused")
        return False
    return True


def tensorrt(bench: Bench, network: Network, precision: str) -> TensorRt:
    """An engine on the GPU, not yet entered; plans are shared by the sections of one check."""
    return TensorRt(
        network,
        number=bench.settings.gpu,
        precision=precision,
        cache=PlanCache(bench.settings.work / "plans"),
        vendor=bench.vendor(),
        open_device=bench.hardware.open_device,
    )


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took, again and again: seconds by the clock."""

    least: float
    median: float
    count: int


def timed(work: Callable[[], object], *, seconds: float = 0.5, fewest: int = 5, most: int = 200) -> Times:
    """Call something once for nothing, then for half a second, and at least five times."""
    work()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < fewest or (time.perf_counter() < end and len(taken) < most):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return Times(min(taken), float(np.median(taken)), len(taken))


def _pair(network: Network, precision: str) -> str:
    return f"{network.path.stem} in {precision}"


def _sizes(network: Network) -> tuple[int, ...]:
    free = (_SLICE, _SLICE) if network.role is Role.DETECT_SLICES else (64, 64, _DEPTH)
    return tuple(size or free[axis] for axis, size in enumerate(network.spatial))
