"""Worker processes for the fuzz, watched from outside: one that crashes or hangs is told, and replaced."""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tools.fuzz.inputs import Input, make_input
from tools.fuzz.reading import MEMORY_CONSTANT, MEMORY_FACTOR, Verdict, read_input, watch_time

__all__ = ["Numbered", "fuzz"]

#: A worker that is silent for so long hangs in compiled code, where no timer of its own reaches it.
_SILENCE = 30.0
#: Verdicts that a worker sends at once.
_BATCH = 200
#: Content of the largest input, which the limit of a worker's memory has to allow.
_LARGEST = 50_000_000
#: Of so many inputs, the allocations of one are counted.
_COUNTED = 20


@dataclass(frozen=True, slots=True)
class Numbered:
    """Verdict on an input, with what was done to it."""

    number: int
    story: tuple[str, ...]
    verdict: Verdict


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    results: Connection
    current: Any
    left: Sequence[int]
    heard: float
    at: int = -1


def fuzz(seed: int, numbers: range, *, workers: int) -> Iterator[Numbered]:
    """Read every input of some numbers.

    Parameters
    ----------
    seed, numbers : which inputs
    workers : processes

    Yields
    ------
    numbered : one for each input, in no order; where a worker died or hung, that is the failure of its input
    """
    context = multiprocessing.get_context("spawn")
    running = [_start(context, seed, numbers[n::workers]) for n in range(workers)]
    try:
        while running:
            ready = wait([worker.results for worker in running], timeout=1.0)
            for worker in list(running):
                ended = False
                if worker.results in ready:
                    try:
                        batch = worker.results.recv()
                    except EOFError:
                        ended = True
                    else:
                        worker.left = worker.left[len(batch) :]
                        yield from batch
                if worker.at != worker.current.value:
                    worker.at, worker.heard = worker.current.value, time.monotonic()
                hangs = time.monotonic() - worker.heard > _SILENCE
                if not (ended or hangs):
                    continue
                running.remove(worker)
                if hangs:
                    worker.process.kill()
                worker.process.join()
                if hangs or worker.process.exitcode:
                    at = max(worker.current.value, worker.left[0])
                    said = f"hangs for {_SILENCE:g} s" if hangs else f"ends with {worker.process.exitcode}"
                    failure = Verdict("failure", f"the process {said}", _SILENCE, None, 0)
                    yield Numbered(at, make_input(seed, at).story, failure)
                    # What it had not sent yet is done again.
                    left = [number for number in worker.left if number != at]
                    if left:
                        running.append(_start(context, seed, left))
    finally:
        for worker in running:
            worker.process.kill()


def _start(context: Any, seed: int, numbers: Sequence[int]) -> _Worker:
    here, there = context.Pipe(duplex=False)
    current = context.Value("q", -1, lock=False)
    process = context.Process(target=_work, args=(seed, numbers, there, current), daemon=True)
    process.start()
    there.close()
    return _Worker(process, here, current, numbers, time.monotonic())


def _work(seed: int, numbers: Sequence[int], results: Connection, current: Any) -> None:
    with suppress(OSError):
        os.nice(10)
    watch_time()
    _limit_memory()
    batch: list[Numbered] = []
    with tempfile.TemporaryDirectory(prefix="fastseg-fuzz-") as folder:
        for number in numbers:
            case: Input = make_input(seed, number)
            current.value = number
            verdict = read_input(case, Path(folder), count_memory=number % _COUNTED == 0)
            batch.append(Numbered(number, case.story, verdict))
            if len(batch) == _BATCH or verdict.seconds > 0.5:
                results.send(batch)
                batch = []
        results.send(batch)
    results.close()


def _limit_memory() -> None:
    """No more address space than the reader may take, beside what the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_FACTOR * _LARGEST + MEMORY_CONSTANT + (64 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
