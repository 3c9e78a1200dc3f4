"""What GPUs this machine has, by the driver's library alone: no binding of CUDA, no vendor of engines.

Some vendors end the interpreter where there is no driver, hence nothing of theirs is called before this has
found a GPU. CUDA does not survive a fork: once `probe` has found a driver in a process, that process must
start others with spawn. In a child that was forked all the same, `probe` says so instead of letting CUDA
fail.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fastseg.engines.cuda.base import GpuFacts
from fastseg.engines.cuda.failures import known_code

__all__ = ["Probe", "driver_problem", "needed_cuda_major", "probe", "survey"]

_log = logging.getLogger(__name__)

_LIBRARY = "libcuda.so.1"

# CUdevice_attribute
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76

# NVIDIA's drivers from which on a major version of CUDA runs.
_LEAST_DRIVERS = {11: 450, 12: 525, 13: 580}

_FORKED = (
    "this process was forked from one that uses CUDA, which does not survive that: start processes with spawn"
)


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found.

    Parameters
    ----------
    gpus : those that CUDA_VISIBLE_DEVICES leaves, by number
    driver : CUDA version that the driver supports, (major, minor); None where there is no driver that works
    problem : why there are no GPUs, and what to do, on one line; empty where there are some
    """

    gpus: tuple[GpuFacts, ...]
    driver: tuple[int, int] | None
    problem: str


_found: dict[int, Probe] = {}  # by process: a forked child sees its parent's


def probe() -> Probe:
    """Look for GPUs, once in a process. Nothing is raised; no context is made on any GPU.

    Initialises CUDA where there is a driver: no fork afterwards.
    """
    here = os.getpid()
    if here not in _found:
        started = any(each.driver is not None for each in _found.values())
        _found[here] = Probe((), None, _FORKED) if started else survey(_load)
    return _found[here]


def survey(load: Callable[[], Any]) -> Probe:
    """Look for GPUs through a library.

    Parameters
    ----------
    load : gives libcuda as ctypes does, or raises OSError
    """
    try:
        library = load()
    except OSError as error:
        found = "is not there"
        if "No such file" not in str(error):
            found = f"does not load ({' '.join(str(error).split())})"
        return Probe(
            (),
            None,
            f"no NVIDIA driver: {_LIBRARY} {found}: install it; a container has to be started with "
            "--gpus all",
        )
    try:
        return _survey(library)
    except AttributeError as error:
        return Probe(
            (),
            None,
            f"{_LIBRARY} is no CUDA driver ({error}): look where it comes from with "
            f"`ldconfig -p | grep {_LIBRARY}` and LD_LIBRARY_PATH",
        )
    except _Refused as refused:
        return Probe((), None, _explain(refused))


def driver_problem(driver: tuple[int, int], needs_major: int | None) -> str:
    """Say what to do about a driver that is too old; empty where it is not.

    Parameters
    ----------
    driver : CUDA version that it supports, (major, minor)
    needs_major : CUDA version that the vendor's wheels were built for; None where they are not wheels
    """
    if needs_major is None or driver[0] >= needs_major:
        return ""
    least = _LEAST_DRIVERS.get(needs_major)
    update = f"update to a driver >= {least}" if least is not None else "update the driver"
    other = f", or install the wheel tensorrt-cu{driver[0]} in its place" if driver[0] >= 12 else ""
    return (
        f"the NVIDIA driver supports CUDA {driver[0]}.{driver[1]}, and the installed TensorRT needs CUDA "
        f"{needs_major}: {update}{other}"
    )


def needed_cuda_major() -> int | None:
    """Tell which CUDA the installed wheels of TensorRT were built for, or of TensorRT-RTX if it is alone."""
    found: dict[str, int] = {}
    for each in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "_", each.metadata["Name"] or "").lower()
        match = re.fullmatch(r"(tensorrt|tensorrt_rtx)_cu(\d+)(_libs|_bindings)?", name)
        if match:
            found[match[1]] = int(match[2])
    return found.get("tensorrt", found.get("tensorrt_rtx"))


class _Refused(Exception):
    """The driver refused a call: its name and code."""

    def __init__(self, call: str, code: int, name: str) -> None:
        super().__init__(call, code, name)
        self.call, self.code, self.name = call, code, name


def _load() -> Any:
    return ctypes.CDLL(_LIBRARY)


def _survey(library: Any) -> Probe:
    _call(library, "cuInit", 0)
    version, count = ctypes.c_int(), ctypes.c_int()
    _call(library, "cuDriverGetVersion", ctypes.byref(version))
    driver = version.value // 1000, version.value % 1000 // 10
    try:
        _call(library, "cuDeviceGetCount", ctypes.byref(count))
        if not count.value:
            raise _Refused("cuDeviceGetCount", 100, "CUDA_ERROR_NO_DEVICE")
    except _Refused as refused:
        return Probe((), driver, _explain(refused))
    gpus = []
    problem = ""
    for number in range(count.value):
        try:
            gpus.append(replace(_facts(library, number), driver=driver))
        except _Refused as refused:
            problem = _explain(refused)
            _log.warning("GPU %d is left out: %s", number, problem)
    return Probe(tuple(gpus), driver, "" if gpus else problem)


def _facts(library: Any, number: int) -> GpuFacts:
    device = ctypes.c_int()
    _call(library, "cuDeviceGet", ctypes.byref(device), number)
    name = ctypes.create_string_buffer(256)
    _call(library, "cuDeviceGetName", name, len(name), device)
    numbers = []
    for attribute in (_MAJOR, _MINOR, _MULTIPROCESSORS):
        value = ctypes.c_int()
        _call(library, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        numbers.append(value.value)
    memory = ctypes.c_size_t()
    _call(library, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    return GpuFacts(
        number=number,
        name=name.value.decode(errors="replace"),
        compute_capability=(numbers[0], numbers[1]),
        multiprocessors=numbers[2],
        memory_bytes=memory.value,
        driver=(0, 0),
    )


def _call(library: Any, call: str, *arguments: Any) -> None:
    code = getattr(library, call)(*arguments)
    if code:
        known = known_code(code)
        raise _Refused(call, code, known.name if known is not None else "an error unknown to fastseg")


def _explain(refused: _Refused) -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if refused.code in (100, 101) and visible is not None:
        return (
            f"no GPU: CUDA_VISIBLE_DEVICES={visible!r} leaves none ({refused.call} gave {refused.code}, "
            f"{refused.name}): unset it, or name GPUs that `nvidia-smi -L` lists"
        )
    known = known_code(refused.code)
    remedy = known.remedy if known is not None else "does `nvidia-smi` work? If not, reinstall the driver"
    return f"no GPU: {refused.call} gave {refused.code}, {refused.name}: {remedy}"
