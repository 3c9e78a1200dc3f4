"""What `benchmarks.cohort` measures inside a process of its own; prints one JSON object.

    python -m benchmarks.cohort_inside stages|session FOLDER OUT [--workers N]

`stages`: every stage of every volume, one after another on one thread. `session`: all volumes through a
Session, as `fastseg run` takes them, after a warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastseg.cohort.job import Job
from fastseg.cohort.memory import budget_bytes, tame_allocator
from fastseg.cohort.plan.planning import Wanted, plan
from fastseg.cohort.segmenters import Segmenters
from fastseg.cohort.session import Plans, Session
from fastseg.cohort.stream.observer import Stage
from fastseg.cohort.stream.stream import Limits
from fastseg.cohort.work import Manner, Work
from fastseg.compilation import load_kernels
from fastseg.options import Options
from fastseg.outputs import Kind

# What `fastseg run` writes of a volume when nothing is said.
_KINDS: tuple[Kind, ...] = ("mask", "sidecar")
# Volumes that are worked on before anything is timed.
_WARM_UP = 3


def busy_seconds() -> float | None:
    """CPU seconds of all processes since the machine began; None where Linux does not say."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def others_seconds(before: float | None, own: float) -> float | None:
    """CPU seconds that other processes took since `busy_seconds` gave `before`."""
    now = busy_seconds()
    return None if before is None or now is None else max(now - before - own, 0.0)


def stages_alone(jobs: list[Job]) -> dict[str, object]:
    """Time every stage of every volume on this thread, with nothing else under way."""
    cpu, wall = ({str(stage): 0.0 for stage in Stage} for _ in range(2))
    statuses: Counter[str] = Counter()
    manner = Manner(_KINDS, tag="bench", durable=True)

    def timed(stage: Stage, step: Callable[[], Any]) -> Any:
        wall_start, cpu_start = time.perf_counter(), time.thread_time()
        try:
            return step()
        finally:
            cpu[stage] += time.thread_time() - cpu_start
            wall[stage] += time.perf_counter() - wall_start

    def whole(work: Work) -> str:
        try:
            timed(Stage.READ, work.read)
            timed(Stage.PREPARE, work.prepare)
            assert work.prepared is not None
            engine, batches = work.segmenter.engine, work.prepared.question.batches
            answers = timed(Stage.INFER, lambda: [engine.infer(batch) for batch in batches])
            timed(Stage.FINISH, lambda: work.finish(answers))
            return str(timed(Stage.WRITE, work.write).status)
        except Exception as error:
            return str(work.failed(error).status)

    with Segmenters() as segmenters:
        for job in jobs[:_WARM_UP]:
            whole(Work(job, manner, segmenters))
        for seconds in (cpu, wall):
            seconds.update(dict.fromkeys(seconds, 0.0))
        before = busy_seconds()
        for job in jobs:
            statuses[whole(Work(job, manner, segmenters))] += 1
        others = others_seconds(before, sum(cpu.values()))
    return {
        "cpu_seconds": sum(cpu.values()),
        "wall_seconds": sum(wall.values()),
        "stages_cpu_seconds": _rounded(cpu),
        "stages_wall_seconds": _rounded(wall),
        "others_cpu_seconds": others,
        "statuses": dict(statuses),
    }


class _Listener:
    """Hears a stream; adds up what its threads do by stage."""

    def __init__(self) -> None:
        self.cpu, self.wall = ({str(stage): 0.0 for stage in Stage} for _ in range(2))
        self._lock, self._own = threading.Lock(), threading.local()

    def begins(self, job: Job) -> None:
        """Beginnings take no time."""

    def task(self, stage: str, volume: str, start: float, stop: float) -> None:
        """Add a task; of CPU time also what the thread needed to get it."""
        now = time.thread_time()
        cpu, self._own.before = now - getattr(self._own, "before", 0.0), now
        with self._lock:
            self.cpu[stage] += cpu
            self.wall[stage] += stop - start

    def queues(self, lengths: Mapping[str, int]) -> None:
        """Queues are not looked at."""

    def thread(self) -> AbstractContextManager[object]:
        """Nothing goes around a thread."""
        return nullcontext()


def session(jobs: list[Job], root: Path, out: Path, workers: int) -> dict[str, object]:
    """Time a Session over all volumes, ledger and all, with its networks open."""
    limits = Limits(workers=workers, memory=budget_bytes())
    plans = Plans(out=out, root=root, manner=Manner(_KINDS), limits=limits)
    warm_up = [replace(job, outputs=replace(job.outputs, folder=out / "warm-up")) for job in jobs[:_WARM_UP]]
    with Session(replace(plans, out=out / "warm-up")) as first:
        for _ in first.run(warm_up):
            pass
    listener, statuses = _Listener(), Counter[str]()
    with Session(plans, listener) as timed:
        before = busy_seconds()
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        for outcome in timed.run(jobs):
            statuses[str(outcome.status)] += 1
        wall, cpu = time.perf_counter() - wall_start, time.process_time() - cpu_start
        others = others_seconds(before, cpu)
    return {
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "stages_cpu_seconds": _rounded(listener.cpu),
        "stages_wall_seconds": _rounded(listener.wall),
        "others_cpu_seconds": others,
        "statuses": dict(statuses),
    }


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in seconds.items()}


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cohort_inside", description=__doc__)
    parser.add_argument("what", choices=("stages", "session"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    load_kernels(own_process=True)
    tame_allocator()
    jobs = plan((options.folder,), options.out, Wanted(Options(), kinds=_KINDS)).jobs
    if options.what == "stages":
        result = stages_alone(jobs)
    else:
        result = session(jobs, options.folder.resolve(), options.out, options.workers)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
