"""What is here: machine, GPUs, driver, and everything that could run networks on a GPU."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

from fastseg.engines.compute import BACKENDS
from fastseg.engines.cuda.probe import Probe
from tools.gpu.bench import Bench, NotHere

__all__ = ["check"]

# Distributions whose version explains what the other sections find, by the beginning of their names.
_TELLING = (
    "fastseg",
    "tensorrt",
    "pycuda",
    "cuda-bindings",
    "cuda-python",
    "onnx",
    "openvino",
    "nvidia-cuda-runtime",
    "numpy",
    "numba",
)
# What single parts of the check need.
_PURPOSES = {
    "onnx": "engines of networks",
    "pytest": "the conformance suite",
}
_SMI = "name,driver_version,pstate,clocks.sm,clocks.max.sm,power.limit,memory.used,mig.mode.current"


def check(bench: Bench) -> None:
    """Tell what is here and, in one line each, what is missing; needs nothing."""
    _tell(bench, "processor", f"{_processor()}, {len(os.sched_getaffinity(0))} CPUs")
    _tell(bench, "system", f"{platform.platform(terse=True)}, Python {platform.python_version()}")
    versions = {_normal(each.metadata["Name"] or ""): each.version for each in distributions()}
    for name in sorted(versions):
        if name.startswith(_TELLING):
            _tell(bench, name, versions[name])
    _tell(bench, "CUDA toolkit", _toolkit())
    bench.doing("asking the driver")
    probe = bench.hardware.probe()
    _tell(
        bench, "driver", "none" if probe.driver is None else f"for CUDA {probe.driver[0]}.{probe.driver[1]}"
    )
    for gpu in probe.gpus:
        major, minor = gpu.compute_capability
        _tell(
            bench,
            f"GPU {gpu.number}",
            f"{gpu.name}, compute capability {major}.{minor}, {gpu.multiprocessors} multiprocessors, "
            f"{gpu.memory_bytes / 1e9:.1f} GB",
        )
    for index, line in enumerate(_nvidia_smi()):
        _tell(bench, f"nvidia-smi, GPU {index}", line)
    _tell(bench, "CUDA from Python", bench.hardware.layer_problem() or "there is a binding")
    bench.doing("looking for TensorRT")
    try:
        vendor = bench.vendor()
        _tell(bench, "engine builder", f"{vendor.name} {vendor.version}")
    except NotHere as missing:
        _tell(bench, "engine builder", f"not used: {missing}")
    for what in _missing(bench, probe):
        bench.left_out(what)


def _missing(bench: Bench, probe: Probe) -> Iterator[str]:
    """What the other sections need and do not have, all of it, not only the first; nothing is imported."""
    if probe.problem:
        yield probe.problem
    if problem := bench.hardware.layer_problem():
        yield problem
    tensorrt = BACKENDS["tensorrt"]
    if not any(map(_there, tensorrt.modules)):
        yield f"neither TensorRT nor TensorRT-RTX is installed: {tensorrt.install}"
    for module, purpose in _PURPOSES.items():
        if not _there(module):
            yield f"{module} is not installed, for {purpose}: pip install {module.replace('_', '-')}"


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _tell(bench: Bench, what: str, value: str) -> None:
    bench.row(what=what, value=value)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    return model[1] if model else platform.processor() or platform.machine()


def _toolkit() -> str:
    release = re.search(r"release ([\d.]+)", _said("nvcc", "--version"))
    return release[1] if release else "none on the PATH (only pycuda's installation needs one)"


def _nvidia_smi() -> list[str]:
    said = _said("nvidia-smi", f"--query-gpu={_SMI}", "--format=csv,noheader")
    return [line.strip() for line in said.splitlines() if line.strip()]


def _said(program: str, *arguments: str) -> str:
    """Give what a program prints; nothing where it is not there, fails, or hangs."""
    if shutil.which(program) is None:
        return ""
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
