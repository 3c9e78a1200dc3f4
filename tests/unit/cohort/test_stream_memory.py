"""What is let in while memory allows, and what is tried again alone where it ran out."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastseg.cohort.job import Job, Refused
from fastseg.cohort.stream import admission
from fastseg.cohort.stream.observer import Nobody
from fastseg.cohort.stream.stream import Limits, Stream, Told
from fastseg.cohort.work import Manner
from tests.unit.cohort.fake_segmenters import (
    FakeSegmenters,
    assert_masks,
    jobs_of,
    outcomes_of,
    statuses_of,
    volume_file,
)


class Gauge:
    """Knows which volumes are under way: from the first step that it is called for to the last."""

    def __init__(self, then: Callable[[str, list[int]], object] = lambda step, numbers: None) -> None:
        self.then, self.lock = then, threading.Lock()
        self.here: set[int] = set()
        self.together: list[set[int]] = []

    def __call__(self, step: str, numbers: list[int]) -> None:
        with self.lock:
            self.here.update(numbers)
            self.together.append(set(self.here))
        time.sleep(0.002)  # so that others come in, if they may
        if step == "finish":
            with self.lock:
                self.here.difference_update(numbers)
        self.then(step, numbers)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, int]], None]:
    """Let volumes need what is said of their numbers, and 10 otherwise, in a process that takes nothing."""

    def needs(needed: dict[int, int]) -> None:
        monkeypatch.setattr(admission, "probe_volume", lambda path, frame: path)
        monkeypatch.setattr(
            admission, "needed_bytes", lambda path, *options, **how: needed.get(int(path.stem[1:]), 10)
        )
        monkeypatch.setattr(admission, "programs_bytes", lambda: 0)
        monkeypatch.setattr(admission, "_PER_WORKER", 0)

    return needs


def test_a_large_volume_is_alone_under_way(tmp_path: Path, room: Callable[[dict[int, int]], None]) -> None:
    room({4: 95})
    gauge = Gauge()
    statuses = statuses_of(
        FakeSegmenters(on=gauge), jobs_of(tmp_path, range(1, 9)), memory=100, workers=4, volumes=8
    )
    assert set(statuses.values()) == {"ok"}
    assert {4} in gauge.together
    assert all(here == {4} for here in gauge.together if 4 in here)


def test_volumes_under_way_never_need_more_than_the_budget(
    tmp_path: Path, room: Callable[[dict[int, int]], None]
) -> None:
    needed = {number: (number * 7) % 40 + 1 for number in range(1, 25)}
    room(needed)
    gauge = Gauge()
    statuses_of(FakeSegmenters(on=gauge), jobs_of(tmp_path, range(1, 25)), memory=60, workers=5, volumes=20)
    loads = [sum(needed[number] for number in here) for here in gauge.together]
    assert max(loads) <= 60
    assert max(map(len, gauge.together)) > 1


def test_a_volume_beyond_the_budget_is_refused_with_the_remedy_and_holds_nobody_up(
    tmp_path: Path, room: Callable[[dict[int, int]], None]
) -> None:
    room({2: 101})
    outcomes = outcomes_of(FakeSegmenters(), jobs_of(tmp_path, [1, 2, 3]), memory=100)
    assert [str(outcome.status) for outcome in outcomes] == ["ok", "out_of_memory", "ok"]
    assert outcomes[1].message == (
        "needs about 101 B of memory, 100 B are left for volumes: raise --mem-gb, or crop it"
    )


def test_no_more_volumes_are_under_way_than_the_limit_says(tmp_path: Path) -> None:
    for volumes in (1, 3):
        gauge = Gauge()
        jobs = jobs_of(tmp_path / str(volumes), range(1, 10))
        outcomes_of(FakeSegmenters(on=gauge), jobs, workers=5, volumes=volumes)
        assert max(map(len, gauge.together)) <= volumes


def test_nothing_piles_up_before_a_slow_reader_of_outcomes(tmp_path: Path) -> None:
    source = volume_file(tmp_path / "v1.nii", n_slices=1)
    taken = itertools.count()
    most = 0

    def endless() -> Iterator[Job | Told]:
        nonlocal most
        for most in taken:
            if most % 3:
                yield Refused(str(most), "no")
            else:
                (job,) = jobs_of(tmp_path / str(most), [1], n_slices=1)
                yield job

    stream = Stream(FakeSegmenters(), Manner(kinds=("mask",)), Limits(workers=2, volumes=4))  # type: ignore[arg-type]
    outcomes = stream.run(endless())
    next(outcomes)
    time.sleep(0.5)  # nobody reads: time enough for hundreds
    assert most <= 64 + 4 + 2 + 1
    stream.stop()
    assert len(list(outcomes)) >= most - 2
    assert source.exists()


@pytest.mark.parametrize("step", ["prepare", "infer", "finish"])
def test_a_volume_that_ran_out_of_memory_is_tried_again_alone(tmp_path: Path, step: str) -> None:
    failed, seen = threading.Event(), list[str]()

    def fail_once(at: str, numbers: list[int]) -> None:
        if at == step and 3 in numbers and not failed.is_set():
            if numbers == [3]:  # among others it is asked about again anyway
                failed.set()
            raise MemoryError

    class Begins(Nobody):
        def begins(self, job: Job) -> None:
            seen.append(job.name)

    gauge = Gauge(fail_once)
    jobs = jobs_of(tmp_path, range(1, 9))
    statuses = statuses_of(
        FakeSegmenters(on=gauge), jobs, observer=Begins(), workers=4, volumes=8, flush_seconds=0.0
    )
    assert set(statuses.values()) == {"ok"}
    assert failed.is_set()
    assert gauge.together[-1] == {3}
    assert_masks(jobs)
    assert sorted(seen) == sorted(job.name for job in jobs)  # each begins once


def test_a_volume_that_runs_out_of_memory_alone_too_is_an_outcome(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(step: str, numbers: list[int]) -> None:
        if step == "finish" and 2 in numbers:
            raise MemoryError

    statuses = statuses_of(FakeSegmenters(on=fail), jobs_of(tmp_path, [1, 2, 3]))
    assert statuses == {1: "ok", 2: "out_of_memory", 3: "ok"}
    assert "v2.nii: ran out of memory; it is tried again alone" in caplog.text


def test_who_sends_jobs_one_by_one_gets_an_outcome_for_each_also_after_memory_ran_out(tmp_path: Path) -> None:
    failed, answered = threading.Event(), threading.Semaphore(0)

    def fail_once(step: str, numbers: list[int]) -> None:
        if step == "finish" and not failed.is_set():
            failed.set()
            raise MemoryError

    def one_by_one() -> Iterator[Job]:
        for job in jobs_of(tmp_path, [1, 2]):
            yield job
            assert answered.acquire(timeout=30)

    statuses = statuses_of(
        FakeSegmenters(on=fail_once), one_by_one(), each=lambda stream, told: answered.release()
    )
    assert statuses == {1: "ok", 2: "ok"}


def test_nothing_is_let_in_beside_a_volume_that_is_tried_again(tmp_path: Path) -> None:
    again, looked_at = threading.Event(), threading.Event()

    def on(step: str, numbers: list[int]) -> None:
        if step == "prepare" and 1 in numbers:
            if not again.is_set():
                again.set()
                raise MemoryError
            assert looked_at.wait(30)
            time.sleep(0.1)  # time enough for others to come in, if they may

    class Reads(Nobody):
        def task(self, stage: str, volume: str, start: float, stop: float) -> None:
            if volume == "v2.nii":
                looked_at.set()

    def source() -> Iterator[Job]:
        jobs = jobs_of(tmp_path, [1, 2, 3])
        yield jobs[0]
        assert again.wait(30)
        yield from jobs[1:]

    gauge = Gauge(on)
    statuses = statuses_of(FakeSegmenters(on=gauge), source(), observer=Reads(), workers=4, volumes=8)
    assert statuses == {1: "ok", 2: "ok", 3: "ok"}
    assert {1} in gauge.together
    assert not any(1 in here and len(here) > 1 for here in gauge.together)
