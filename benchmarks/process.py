"""CPU time, wall-clock time and peak memory of a whole process, children included.

The command is started from a launcher that has imported nothing: Linux counts the memory of whoever starts
a process as its own until it has loaded its program, so a large parent would be measured instead.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ProcessUse", "measure"]

_LAUNCHER = """
import resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.call(sys.argv[2:])
wall = time.perf_counter() - began
use = resource.getrusage(resource.RUSAGE_CHILDREN)
# ru_maxrss is in KiB, on macOS in bytes
unit = 1 if sys.platform == "darwin" else 1024
with open(sys.argv[1], "w") as report:
    print(code, use.ru_utime + use.ru_stime, wall, use.ru_maxrss * unit, file=report)
"""


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What a process took.

    Parameters
    ----------
    code : exit code
    cpu_seconds : user and system, of the process and the children it waited for
    wall_seconds : from start to exit
    peak_bytes : largest resident memory of the process, or of one of its children
    output : standard output and standard error
    """

    code: int
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int
    output: str


def measure(
    command: Sequence[str], *, environment: Mapping[str, str], folder: Path, timeout: float | None = None
) -> ProcessUse:
    """Run a command and say what it took.

    Parameters
    ----------
    command : program and arguments
    environment : of the process
    folder : working folder, must be writable; a file for the report is made in it and removed
    timeout : seconds; TimeoutExpired is raised after them
    """
    report = folder / ".process-use"
    finished = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(report), *command],
        env=dict(environment),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    if not report.is_file():
        raise RuntimeError(f"{command[0]} could not be started:\n{finished.stdout}")
    code, cpu, wall, peak = report.read_text().split()
    report.unlink()
    return ProcessUse(int(code), float(cpu), float(wall), int(peak), finished.stdout)
