"""What all benchmarks share: cases in processes of their own, contenders in turns, JSON lines.

A benchmark is a dictionary of cases. A case is a function that takes `Inputs` and returns

* a `Case`: contenders, fastseg first, that do the same work on the same input inside one process, or
* `Commands`: command lines that are measured as whole processes.

Contenders take turns (A B A B), so that the machine's noise meets all of them; the first turn of each is a
warm-up and dropped. The lines hold minimum and median of CPU and wall-clock seconds, million voxels per CPU
second, peak memory, and `ratio`: the contender's median CPU time over that of the case's first contender.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.inputs import DATA, Inputs
from benchmarks.process import measure

__all__ = ["CHECKOUT", "Case", "Commands", "Target", "machine", "main"]

CHECKOUT = Path(__file__).resolve().parents[1]
FEWEST_REPETITIONS = 7
# One thread for whatever is timed inside a process.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


@dataclass(frozen=True, slots=True)
class Target:
    """A number that a case has to reach.

    Parameters
    ----------
    contender : whose line it is about
    measure : key in that line, ``steps.NAME`` for one of its steps
    limit : the number
    at_least : whether it is a lower limit
    """

    contender: str
    measure: str
    limit: float
    at_least: bool = False

    def judge(self, line: Mapping[str, object]) -> dict[str, object]:
        """What is reached, in words for a line."""
        value: object = line
        for key in self.measure.split("."):
            assert isinstance(value, Mapping)
            value = value[key]
        assert isinstance(value, int | float)
        holds = value >= self.limit if self.at_least else value < self.limit
        sign = ">=" if self.at_least else "<"
        return {
            "target": f"{self.measure} {sign} {self.limit:g}",
            "target_value": value,
            "target_holds": holds,
        }


@dataclass(frozen=True, slots=True)
class Case:
    """Work that several contenders do in one process, fastseg first.

    Parameters
    ----------
    title : what is done, for the table
    n_voxels : that are worked on
    contenders : functions by name; one that returns a dictionary of floats gives CPU seconds by step
    facts : further numbers, such as differences between the contenders' results
    targets : what has to be reached
    repetitions : at most so many, for work that takes long; None: as many as asked for
    """

    title: str
    n_voxels: int
    contenders: Mapping[str, Callable[[], object]]
    facts: Mapping[str, object] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()
    repetitions: int | None = None


@dataclass(frozen=True, slots=True)
class Commands:
    """Command lines that are measured as whole processes.

    Parameters
    ----------
    title, facts, targets, repetitions : see `Case`
    commands : command lines by name
    environment : variables on top of this process's own
    cold : keep nothing warm: one run each, and no warm-up before it
    """

    title: str
    commands: Mapping[str, list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()
    repetitions: int | None = None
    cold: bool = False


_Cases = Mapping[str, Callable[[Inputs], Case | Commands]]
_Line = dict[str, object]


def machine() -> _Line:
    """What the numbers were measured on, and when."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    versions = {}
    for package in ("fastseg", "numpy", "scipy", "numba", "onnxruntime", "isal", "opencv-python-headless"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return {
        "machine": model[1] if model else platform.processor(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        **versions,
    }


def main(cases: _Cases, description: str | None, module: str) -> None:
    """Run the cases that the command line asks for, one process each, and write JSON lines."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder with real volumes; without it, phantoms"
    )
    parser.add_argument("--case", action="append", choices=cases, help="default: all")
    parser.add_argument("--repetitions", type=int, default=FEWEST_REPETITIONS)
    parser.add_argument("--out", type=Path, help="file for the JSON lines, default: standard output")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.repetitions < FEWEST_REPETITIONS:
        parser.error(f"--repetitions must be at least {FEWEST_REPETITIONS}")
    if options.in_this_process:
        for line in _run(options.case[0], cases, Inputs(options.data, options.work), options.repetitions):
            print(json.dumps(line))
        return
    out = options.out.open("w") if options.out else sys.stdout
    with tempfile.TemporaryDirectory(prefix="fastseg-benchmark-") as work:
        _emit({**machine(), "benchmark": module, "command": f"python -m {module}"}, out)
        if not options.data.is_dir():
            print(f"{options.data} is not there: phantoms stand in for real volumes", file=sys.stderr)
        for name in options.case or cases:
            command = [sys.executable, "-m", module, "--in-this-process", "--case", name, "--work", work]
            command += ["--data", str(options.data.resolve()), "--repetitions", str(options.repetitions)]
            environment = os.environ | _ONE_THREAD
            done = subprocess.run(
                command, env=environment, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=False
            )
            if done.returncode:
                print(f"case {name} failed", file=sys.stderr)
                raise SystemExit(1)
            print(done.stdout, end="", file=out, flush=True)
    if options.out:
        out.close()


def _emit(line: _Line, out: object) -> None:
    print(json.dumps(line), file=out, flush=True)  # type: ignore[call-overload]


def _run(name: str, cases: _Cases, inputs: Inputs, repetitions: int) -> list[_Line]:
    """Time one case in this process."""
    case = cases[name](inputs)
    repetitions = min(repetitions, case.repetitions or repetitions)
    measured = _run_commands(case, inputs, repetitions) if isinstance(case, Commands) else _run_case(
        case, repetitions
    )  # fmt: skip
    first = next(iter(measured.values()))["cpu_seconds_median"]
    lines = []
    for contender, numbers in measured.items():
        own = numbers["cpu_seconds_median"]
        assert isinstance(own, float)
        assert isinstance(first, float)
        line: _Line = {"case": name, "title": case.title, "contender": contender, **numbers}
        line["ratio"] = round(own / first, 2)
        for target in case.targets:
            if target.contender == contender:
                line |= target.judge(line)
        lines.append({**line, **case.facts})
    return lines


def _run_case(case: Case, repetitions: int) -> dict[str, _Line]:
    wall: dict[str, list[float]] = {contender: [] for contender in case.contenders}
    cpu: dict[str, list[float]] = {contender: [] for contender in case.contenders}
    steps: dict[str, list[dict[str, float]]] = {contender: [] for contender in case.contenders}
    before = _rss_mb()
    for _ in range(repetitions + 1):
        for contender, work in case.contenders.items():
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            result = work()
            cpu[contender].append(time.process_time() - cpu_start)
            wall[contender].append(time.perf_counter() - wall_start)
            if isinstance(result, dict):
                steps[contender].append(result)
    peak = _rss_mb()
    lines = {}
    for contender in case.contenders:
        line = _times(cpu[contender][1:], wall[contender][1:])
        median = line["cpu_seconds_median"]
        assert isinstance(median, float)
        line["voxels"] = case.n_voxels
        line["mvx_per_second"] = round(case.n_voxels / median / 1e6, 2) if median else None
        line |= {"rss_mb_before": before, "rss_mb_peak": peak}
        if steps[contender]:
            line["steps"] = _medians(steps[contender][1:])
        lines[contender] = line
    return lines


def _run_commands(case: Commands, inputs: Inputs, repetitions: int) -> dict[str, _Line]:
    """Measure processes as a user starts them: with all threads that they take."""
    environment = {k: v for k, v in os.environ.items() if k not in _ONE_THREAD} | dict(case.environment)
    turns = 1 if case.cold else repetitions + 1
    uses: dict[str, list[object]] = {contender: [] for contender in case.commands}
    for _ in range(turns):
        for contender, command in case.commands.items():
            use = measure(command, environment=environment, folder=inputs.work)
            if use.code:
                raise RuntimeError(f"{' '.join(command)} failed with {use.code}:\n{use.output}")
            uses[contender].append(use)
    lines = {}
    for contender, every in uses.items():
        kept = every if case.cold else every[1:]
        line = _times([use.cpu_seconds for use in kept], [use.wall_seconds for use in kept])
        line["rss_mb_peak"] = max(use.peak_bytes for use in kept) // 1_000_000
        lines[contender] = line
    return lines


def _times(cpu: list[float], wall: list[float]) -> _Line:
    return {
        "repetitions": len(cpu),
        "cpu_seconds_min": round(min(cpu), 6),
        "cpu_seconds_median": round(statistics.median(cpu), 6),
        "wall_seconds_min": round(min(wall), 6),
        "wall_seconds_median": round(statistics.median(wall), 6),
    }


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(run[name] for run in runs), 6) for name in runs[0]}


def _rss_mb() -> int:
    """Peak memory of this process, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 1_000_000
