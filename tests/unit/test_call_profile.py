"""Profiles of calls: every thread is timed by itself, and all are added up."""

from __future__ import annotations

import pstats
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastseg.call_profile import CallProfile, profiling_calls, thread_profile


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


def _first() -> None:
    _sleep(0.05)
    _sleep(0.05)


def _second() -> None:
    _sleep(0.1)


def _fibonacci(n: int) -> int:
    return n if n < 2 else _fibonacci(n - 1) + _fibonacci(n - 2)


def _run_together(*works: Callable[[], object]) -> list[float]:
    """Run each in a thread of its own; gives the seconds that each took by the clock."""
    barrier = threading.Barrier(len(works))
    taken = [0.0] * len(works)

    def run(number: int, work: Callable[[], object]) -> None:
        with thread_profile():
            barrier.wait()
            start = time.perf_counter()
            work()
            taken[number] = time.perf_counter() - start

    threads = [threading.Thread(target=run, args=each) for each in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def _of(profile: CallProfile, name: str) -> tuple[int, int, float, float, dict[str, tuple[int, int]]]:
    """Outermost calls, calls, own seconds, seconds, and (calls, outermost) by caller."""
    profile.create_stats()
    [found] = [counts for function, counts in profile.stats.items() if function[2] == name]
    return *found[:4], {caller[2]: counts[:2] for caller, counts in found[4].items()}


def test_threads_that_run_at_once_are_timed_by_themselves() -> None:
    with profiling_calls() as profile:
        taken = _run_together(_first, _second)
    assert profile.n_threads == 3
    for name, most in zip(("_first", "_second"), taken, strict=True):
        assert _of(profile, name)[:2] == (1, 1)
        assert 0.1 <= _of(profile, name)[3] <= most  # one stack for two threads gives other times
    outermost, calls, own, seconds, callers = _of(profile, "_sleep")
    assert (outermost, calls, callers) == (3, 3, {"_first": (2, 2), "_second": (1, 1)})
    assert 0.2 <= seconds <= sum(taken)
    slept = _of(profile, "<built-in time.sleep>")[2]
    assert slept >= 0.2
    assert own == pytest.approx(seconds - slept)  # the time is that of the function it calls, written in C


def test_a_recursion_counts_its_time_once() -> None:
    start = time.perf_counter()
    with profiling_calls() as profile:
        _fibonacci(10)
    wall = time.perf_counter() - start
    outermost, calls, own, seconds, callers = _of(profile, "_fibonacci")
    assert (outermost, calls, callers) == (1, 177, {"_fibonacci": (176, 0)})
    assert own == pytest.approx(seconds)
    assert seconds <= wall


def test_errors_and_generators_leave_every_call_closed() -> None:
    caught: list[KeyError] = []

    @contextmanager
    def swallowing() -> Generator[None]:
        try:
            yield
        except KeyError as error:
            caught.append(error)

    def fail() -> None:
        raise KeyError

    def body() -> None:
        with swallowing():
            fail()
        with pytest.raises(IndexError):
            [].pop()
        list(map(str, range(3)))
        unfinished = (each for each in range(3))
        next(unfinished)
        unfinished.close()

    def afterwards() -> None:
        pass

    with profiling_calls() as profile:
        body()
        afterwards()
    assert _of(profile, "test_errors_and_generators_leave_every_call_closed.<locals>.afterwards")[4] == {}


def test_a_thread_that_still_runs_is_in_the_profile() -> None:
    started, go_on = threading.Event(), threading.Event()

    def waits() -> None:
        started.set()
        go_on.wait()

    def run() -> None:
        with thread_profile():
            waits()

    thread = threading.Thread(target=run)
    with profiling_calls() as profile:
        thread.start()
        started.wait()
        _sleep(0.05)
    try:
        name = "test_a_thread_that_still_runs_is_in_the_profile.<locals>.waits"
        assert _of(profile, name)[3] >= 0.05
    finally:
        go_on.set()
        thread.join()


def test_nothing_is_profiled_unless_asked_for() -> None:
    with thread_profile():
        assert sys.getprofile() is None
    with profiling_calls():
        heard = sys.getprofile()
        with thread_profile():  # the same thread runs the work itself
            assert sys.getprofile() is heard
        assert sys.getprofile() is heard
    assert sys.getprofile() is None


def test_pstats_reads_both_forms(tmp_path: Path) -> None:
    with profiling_calls() as profile:
        _first()
    profile.dump_stats(tmp_path / "run.prof")
    for source in (profile, str(tmp_path / "run.prof")):
        text = tmp_path / "text"
        with text.open("w") as stream:
            stats = pstats.Stats(source, stream=stream)  # type: ignore[arg-type]
            stats.add(str(tmp_path / "run.prof")).sort_stats("cumulative").print_callers("time.sleep")
        assert "_sleep" in text.read_text()
