"""Time cohorts: the stream against its stages alone, against processes, against a loop; and its memory.

    python -m benchmarks.cohort [--case NAME]... [--volumes N] [--repetitions N] [--out FILE]

Volumes are made by tools/make_cohort, of those in ../shared/data and of phantoms. A case's contenders take
turns on the same files, each turn with a new output folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

from benchmarks.cohort_inside import busy_seconds, others_seconds
from benchmarks.cohort_lines import Case, Turn, lines_of
from benchmarks.inputs import DATA
from benchmarks.process import ProcessUse, measure
from benchmarks.runner import CHECKOUT, Target, machine
from tools.cohort.making import make_cohort
from tools.cohort.sources import Kind

__all__ = ["CASES", "Cohorts", "main"]

_FASTSEG = [sys.executable, "-m", "fastseg"]
_INSIDE = [sys.executable, "-m", "benchmarks.cohort_inside"]
# For what is timed inside a process. The stream has one thread inside an inference anyway.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# The targets are about a machine with two cores.
_WORKERS = 2
_BUDGET_GB = 0.6
_FEW = 20

_Result = TypeVar("_Result")


@dataclass(slots=True)
class Cohorts:
    """Files for the cases of one run.

    Parameters
    ----------
    data : folder with real volumes; it need not be there
    work : folder for cohorts and outputs
    volumes, loop_volumes, many : how many volumes are taken: by most cases, by the loops, by the long run
    """

    data: Path
    work: Path
    volumes: int
    loop_volumes: int
    many: int
    _numbers: count[int] = field(default_factory=count)

    def folder(self, kind: Kind, volumes: int) -> Path:
        """Folder of a cohort, made when it is first asked for."""
        folder = self.work / f"{kind}-{volumes}"
        if not folder.is_dir():
            new = self.fresh()
            for _ in make_cohort(new, kind, volumes, data=self.data):
                pass
            new.rename(folder)
        return folder

    def facts(self, folder: Path) -> dict[str, object]:
        """How much there is to do."""
        sizes = [path.stat().st_size for path in folder.iterdir()]
        made_of = "volumes of ../shared/data and phantoms" if self.data.is_dir() else "phantoms"
        return {"volumes": len(sizes), "mb": round(sum(sizes) / 1e6, 1), "input": made_of}

    def fresh(self) -> Path:
        """Make a folder that nobody has used."""
        folder = self.work / f"new-{next(self._numbers)}"
        folder.mkdir()
        return folder


# --- contenders


def _inside(what: str, folder: Path, cohorts: Cohorts) -> Turn:
    """Measure inside a process: the stages alone, or a Session."""
    out = cohorts.fresh()
    command = [*_INSIDE, what, str(folder), str(out), "--workers", str(_WORKERS)]
    environment = os.environ | _ONE_THREAD
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    told = json.loads(done.stdout)
    stages = {name: told[name] for name in ("stages_cpu_seconds", "stages_wall_seconds")}
    return Turn(
        told["cpu_seconds"],
        told["wall_seconds"],
        others=told["others_cpu_seconds"],
        stages=stages,
        statuses=told["statuses"],
        masks=_masks(out),
    )


def _stages_at_once(folder: Path, cohorts: Cohorts) -> Turn:
    """Measure the stages in a process for each worker at once: what cores take from each other."""
    turns = _at_once([partial(_inside, "stages", folder, cohorts)] * _WORKERS)
    cpu, wall = (statistics.mean(seconds) for seconds in zip(*((t.cpu, t.wall) for t in turns), strict=True))
    return Turn(cpu, wall, stages=turns[0].stages, statuses=turns[0].statuses, masks=turns[0].masks)


def _runs(commands: Callable[[Path], Sequence[Sequence[str]]], cohorts: Cohorts) -> Turn:
    """Measure whole processes that run at once and write into one folder, with the threads users have."""
    out = cohorts.fresh()
    before, began = busy_seconds(), time.perf_counter()
    uses = _at_once([partial(_process, command, cohorts.fresh()) for command in commands(out)])
    wall, cpu = time.perf_counter() - began, sum(use.cpu_seconds for use in uses)
    others = others_seconds(before, cpu)
    peak = sum(use.peak_bytes for use in uses) / 1e6
    return Turn(cpu, wall, peak, others, statuses=_statuses(out), masks=_masks(out))


def _process(command: Sequence[str], folder: Path) -> ProcessUse:
    use = measure(command, environment=os.environ, folder=folder)
    if use.code not in (0, 3):  # 3: some volumes failed, which the statuses tell
        raise RuntimeError(f"{shlex.join(command)} failed with {use.code}:\n{use.output[-2000:]}")
    return use


def _at_once(works: Sequence[Callable[[], _Result]]) -> list[_Result]:
    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(work) for work in works]]


def _run_folder(folder: Path, *options: object) -> Callable[[Path], list[list[str]]]:
    """`fastseg run` over a cohort."""
    words = [str(option) for option in options]
    return lambda out: [[*_FASTSEG, "run", str(folder), "-o", str(out), "--quiet", *words]]


def _run_shards(folder: Path) -> Callable[[Path], list[list[str]]]:
    """Processes of one worker that share a cohort out."""
    return lambda out: [
        command
        for k in range(_WORKERS)
        for command in _run_folder(folder, "--jobs", 1, "--shard", f"{k + 1}/{_WORKERS}")(out)
    ]


def _run_each(folder: Path, at_once: int) -> Callable[[Path], list[list[str]]]:
    """`fastseg run` started for every volume, as from a shell; failures do not end it."""

    def commands(out: Path) -> list[list[str]]:
        threads = [] if at_once == 1 else ["--threads", "1"]
        each = [*_FASTSEG, "run", "{}", "-o", str(out), "--quiet", *threads]
        find = shlex.join(["find", str(folder), "-name", "*.nii.gz", "-print0"])
        started = shlex.join(["xargs", "-0", "-P", str(at_once), "-I", "{}", *each])
        return [["sh", "-c", f"{find} | {started} >/dev/null || [ $? -eq 123 ]"]]

    return commands


def _masks(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*_seg.nii.gz")}


def _statuses(out: Path) -> dict[str, int]:
    """What the ledgers say; a loop over single files leaves none."""
    ends: dict[str, str] = {}
    for path in sorted((out / ".fastseg").glob("ledger*.jsonl")):
        for text in path.read_text().splitlines():
            line = json.loads(text)
            if line["event"] == "end":
                ends[line["mask"]] = line["status"]
    return dict(Counter(ends.values()))


# --- cases


def stream(kind: Kind, cohorts: Cohorts) -> Case:
    """All cores busy with useful work: the stream against its stages, each measured alone."""
    folder = cohorts.folder(kind, cohorts.volumes)
    whole = "fastseg run, from start to exit"
    return Case(
        f"{cohorts.volumes} volumes, {kind}: stream of {_WORKERS} workers",
        {
            "fastseg": partial(_inside, "session", folder, cohorts),
            whole: partial(_runs, _run_folder(folder, "--jobs", _WORKERS), cohorts),
            "stages alone, one thread": partial(_inside, "stages", folder, cohorts),
            f"stages alone, {_WORKERS} processes at once": partial(_stages_at_once, folder, cohorts),
        },
        cohorts.facts(folder),
        tuple(Target(name, "wall_to_floor", 1.2) for name in ("fastseg", whole)),
        floor="stages alone, one thread",
        above_floor=("fastseg", whole),
    )


def workers(kind: Kind, cohorts: Cohorts) -> Case:
    """Threads against processes, whole command lines."""
    folder = cohorts.folder(kind, cohorts.volumes)
    return Case(
        f"{cohorts.volumes} volumes, {kind}: threads and processes",
        {
            f"fastseg, {_WORKERS} threads": partial(_runs, _run_folder(folder, "--jobs", _WORKERS), cohorts),
            f"fastseg, {_WORKERS} processes": partial(_runs, _run_shards(folder), cohorts),
            "fastseg, 1 thread": partial(_runs, _run_folder(folder, "--jobs", 1), cohorts),
        },
        cohorts.facts(folder),
    )


def loop(kind: Kind, least: float, cohorts: Cohorts) -> Case:
    """One process for the cohort against one for every volume."""
    folder = cohorts.folder(kind, cohorts.loop_volumes)
    one_by_one = "a process a volume, one after another"
    return Case(
        f"{cohorts.loop_volumes} volumes, {kind}: against a loop",
        {
            "fastseg": partial(_runs, _run_folder(folder, "--jobs", _WORKERS), cohorts),
            one_by_one: partial(_runs, _run_each(folder, 1), cohorts),
            f"a process a volume, {_WORKERS} at once": partial(_runs, _run_each(folder, _WORKERS), cohorts),
        },
        cohorts.facts(folder),
        (Target(one_by_one, "wall_ratio", least, at_least=True),),
    )


def memory(cohorts: Cohorts) -> Case:
    """Peak memory does not grow with the number of volumes."""
    few, many = (cohorts.folder("small", n) for n in (_FEW, cohorts.many))
    name = f"fastseg, {cohorts.many} volumes"
    return Case(
        f"peak memory, {cohorts.many} volumes against {_FEW}",
        {
            f"fastseg, {_FEW} volumes": partial(_runs, _run_folder(few, "--jobs", _WORKERS), cohorts),
            name: partial(_runs, _run_folder(many, "--jobs", _WORKERS), cohorts),
        },
        cohorts.facts(many),
        (Target(name, "rss_ratio", 1.1),),
    )


def report(kind: Kind, cohorts: Cohorts) -> Case:
    """What the QC report costs."""
    folder = cohorts.folder(kind, cohorts.volumes)
    with_report = "fastseg --qc"

    def shown(out: Path) -> list[list[str]]:
        return _run_folder(folder, "--jobs", _WORKERS, "--qc", out / "qc")(out)

    return Case(
        f"{cohorts.volumes} volumes, {kind}: with a QC report",
        {
            "fastseg": partial(_runs, _run_folder(folder, "--jobs", _WORKERS), cohorts),
            with_report: partial(_runs, shown, cohorts),
        },
        cohorts.facts(folder),
        (Target(with_report, "more_cpu_ms_per_volume", 25),),
        above_first=(with_report,),
    )


def budget(cohorts: Cohorts) -> Case:
    """Peak memory stays below what was allowed."""
    folder = cohorts.folder("mix", cohorts.volumes)
    name, limited = f"fastseg, --mem-gb {_BUDGET_GB}", ("--jobs", _WORKERS, "--mem-gb", _BUDGET_GB)
    return Case(
        f"{cohorts.volumes} volumes, mix: within {_BUDGET_GB} GB",
        {
            name: partial(_runs, _run_folder(folder, *limited), cohorts),
            "fastseg, no limit given": partial(_runs, _run_folder(folder, "--jobs", _WORKERS), cohorts),
        },
        cohorts.facts(folder),
        (Target(name, "rss_mb_peak", _BUDGET_GB * 1000),),
    )


CASES: dict[str, Callable[[Cohorts], Case]] = {
    "stream-mix": partial(stream, "mix"),
    "stream-small": partial(stream, "small"),
    "workers-mix": partial(workers, "mix"),
    "workers-small": partial(workers, "small"),
    "loop-mix": partial(loop, "mix", 2.0),
    "loop-small": partial(loop, "small", 4.0),
    "report-mix": partial(report, "mix"),
    "report-small": partial(report, "small"),
    "memory": memory,
    "budget": budget,
}


def main() -> None:
    """Run the cases that the command line asks for, and write JSON lines."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cohort",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--case", action="append", choices=CASES, help="default: all")
    add("--volumes", type=int, default=200, help="of most cases (200)")
    add("--loop-volumes", type=int, help="of the loops (as --volumes)")
    add("--many", type=int, default=1000, help=f"of the case memory, against {_FEW} (1000)")
    add("--repetitions", type=int, default=3, help="turns of each contender (3)")
    add("--data", type=Path, default=DATA, help="folder with real volumes; without it, phantoms")
    add("--work", type=Path, help="folder for volumes and results, on the disk to be measured")
    add("--out", type=Path, help="file for the JSON lines, default: standard output")
    options = parser.parse_args()
    if min(options.volumes, options.loop_volumes or 1, options.many, options.repetitions) < 1:
        parser.error("numbers must be at least 1")
    if not options.data.is_dir():
        print(f"{options.data} is not there: phantoms stand in for real volumes", file=sys.stderr)
    out = options.out.open("w") if options.out else sys.stdout
    with tempfile.TemporaryDirectory(prefix="fastseg-benchmark-", dir=options.work) as work:
        loops = options.loop_volumes or options.volumes
        cohorts = Cohorts(options.data, Path(work), options.volumes, loops, options.many)
        command = shlex.join(["python", "-m", "benchmarks.cohort", *sys.argv[1:]])
        print(
            json.dumps({**machine(), "benchmark": "benchmarks.cohort", "command": command}),
            file=out,
            flush=True,
        )
        # Kernels are compiled, and the programs' files in memory, before anything counts.
        _runs(_run_folder(cohorts.folder("small", 2)), cohorts)
        for name in options.case or CASES:
            case = CASES[name](cohorts)
            turns: dict[str, list[Turn]] = {contender: [] for contender in case.contenders}
            for _ in range(options.repetitions):
                for contender, work_once in case.contenders.items():
                    turns[contender].append(work_once())
            for line in lines_of(name, case, turns, _WORKERS):
                print(json.dumps(line), file=out, flush=True)
    if options.out:
        out.close()


if __name__ == "__main__":
    main()
