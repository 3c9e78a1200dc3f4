"""What this machine's CPU has for networks, found without a vendor's help."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

__all__ = ["capability", "usable_cpus"]

_CPUINFO = Path("/proc/cpuinfo")

# The best first. AMX: bf16 and int8 in tiles, Intel's servers from 2023 on.
_LEVELS = (("amx", "amx_tile"), ("avx512", "avx512f"), ("avx2", "avx2"))


@cache
def capability() -> str:
    """Name the widest arithmetic of the CPU: amx, avx512 or avx2; elsewhere the architecture.

    Records of engines (`fastseg.networks.network.EngineRecord`) hold for CPUs with the same name only:
    which engine is fastest, and how it rounds, changes with it.
    """
    try:
        text = _CPUINFO.read_text()
    except OSError:  # not Linux
        text = ""
    flags = {word for line in text.splitlines() if line.startswith("flags") for word in line.split()}
    return next((name for name, flag in _LEVELS if flag in flags), platform.machine().lower() or "unknown")


def usable_cpus() -> int:
    """Count the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
