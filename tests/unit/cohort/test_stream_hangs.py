"""Steps that make no progress: they are told of, given up in the end, and nobody else suffers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastseg.cohort import work
from fastseg.cohort.job import Job
from fastseg.cohort.stream import admission, watchdog
from fastseg.cohort.stream.watchdog import Crew, Task
from tests.fake_engines import FakeEngine
from tests.unit.cohort.fake_segmenters import (
    FakeSegmenters,
    jobs_of,
    outcomes_of,
    statuses_of,
    tripled,
)

_Pass = Callable[[float], None]


@pytest.fixture
def seconds_pass(monkeypatch: pytest.MonkeyPatch) -> _Pass:
    """Called in a step: it began so much earlier. No other step is, however slow the machine is."""
    tasks = dict[threading.Thread, Task]()
    begin = Crew.begin

    def noted(crew: Crew, *given: Any) -> Task:
        task = begin(crew, *given)
        tasks[task.thread] = task
        return task

    def age(seconds: float) -> None:
        tasks[threading.current_thread()].since -= seconds

    monkeypatch.setattr(Crew, "begin", noted)
    return age


@pytest.fixture
def hang(seconds_pass: _Pass) -> Iterator[Callable[[], None]]:
    """Waits, until the test ends; then the threads that hung go on, and must do no harm any more."""
    release = threading.Event()
    hanging = list[threading.Thread]()

    def wait() -> None:
        hanging.append(threading.current_thread())
        seconds_pass(3600)
        release.wait(60)

    yield wait
    release.set()
    for thread in hanging:
        thread.join(30)
        assert not thread.is_alive()


def struck(original: Callable[..., Any], name: str, strike: Callable[[], None]) -> Callable[..., Any]:
    """A function that hangs for a file."""

    def call(*given: Any, **named: Any) -> Any:
        if any(isinstance(each, Path) and name in each.name for each in given):
            strike()
        return original(*given, **named)

    return call


@pytest.mark.parametrize("step", ["look", "read", "prepare", "infer", "finish", "write"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_volume_that_hangs_is_told_of_by_name_and_given_up_and_all_others_are_done(
    tmp_path: Path,
    hang: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    step: str,
    workers: int,
) -> None:
    def on(at: str, numbers: list[int]) -> None:
        if at == step and 2 in numbers:
            hang()

    for owner, name, at in (
        (admission, "probe_volume", "look"),
        (work, "read_volume", "read"),
        (work, "write_volume", "write"),
    ):
        if at == step:
            monkeypatch.setattr(owner, name, struck(getattr(owner, name), "v2", hang))
    jobs = jobs_of(tmp_path, range(1, 8))
    with caplog.at_level(logging.WARNING):
        outcomes = outcomes_of(FakeSegmenters(on=on), jobs, workers=workers, volumes=4)
    assert [str(outcome.status) for outcome in outcomes] == ["ok", "error", *["ok"] * 5]
    told = {"look": "read"}.get(step, step)
    assert outcomes[1].message.startswith(f"{told} made no progress for ")
    assert outcomes[1].message.endswith("; the volume was given up")
    assert f"{told} has made no progress for" in caplog.text
    assert "v2.nii" in caplog.text


@pytest.mark.parametrize("step", ["finish", "write"])
def test_a_volume_that_was_given_up_leaves_no_file_when_its_thread_comes_back(
    tmp_path: Path, seconds_pass: _Pass, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    release, threads = threading.Event(), list[threading.Thread]()

    def hang() -> None:
        threads.append(threading.current_thread())
        seconds_pass(3600)
        release.wait(60)

    def on(at: str, numbers: list[int]) -> None:
        if at == step:
            hang()

    if step == "write":
        monkeypatch.setattr(work, "write_volume", struck(work.write_volume, "v1", hang))
    (job,) = jobs_of(tmp_path, [1])
    assert statuses_of(FakeSegmenters(on=on), [job]) == {1: "error"}
    release.set()
    threads[0].join(30)
    assert not threads[0].is_alive()
    assert not job.outputs.mask.exists()
    assert not list(job.outputs.folder.glob(".fastseg*"))


@pytest.mark.parametrize("step", ["prepare", "infer", "finish"])
def test_a_thread_that_comes_back_to_a_run_ends_and_does_nothing_more(
    tmp_path: Path, seconds_pass: _Pass, step: str
) -> None:
    release, hanging = threading.Event(), list[threading.Thread]()
    came_back = list[bool]()

    def on(at: str, numbers: list[int]) -> None:
        if at == step and 1 in numbers:
            hanging.append(threading.current_thread())
            seconds_pass(3600)
            release.wait(30)
        if at == "prepare" and 2 in numbers:
            hanging[0].join(30)
            came_back.append(not hanging[0].is_alive())

    given_up = threading.Event()

    def source() -> Iterator[Job]:
        jobs = jobs_of(tmp_path, [1, 2])
        yield jobs[0]
        assert given_up.wait(30)
        release.set()
        yield jobs[1]

    statuses = statuses_of(FakeSegmenters(on=on), source(), each=lambda stream, told: given_up.set())
    assert statuses == {1: "error", 2: "ok"}
    assert came_back == [True]


def test_an_engine_for_one_thread_is_free_again_when_a_batch_of_it_was_given_up(
    tmp_path: Path, hang: Callable[[], None]
) -> None:
    class OneAtATime(FakeEngine):
        @property
        def concurrent(self) -> bool:
            return False

    def answer(images: Any) -> Any:
        if 2 in images[:, 0, 0, 0]:
            hang()
        return tripled(images)

    segmenters = FakeSegmenters(engine=OneAtATime(answer))
    statuses = statuses_of(segmenters, jobs_of(tmp_path, range(1, 6)), workers=2, volumes=5)
    assert statuses == {1: "ok", 2: "error", 3: "ok", 4: "ok", 5: "ok"}


def test_a_volume_whose_batches_all_hang_ends_once(tmp_path: Path, hang: Callable[[], None]) -> None:
    def on(step: str, numbers: list[int]) -> None:
        if step == "infer" and 1 in numbers:
            hang()

    statuses = statuses_of(
        FakeSegmenters(on=on), jobs_of(tmp_path, [1, 2], n_slices=60), workers=4, volumes=2
    )
    assert statuses == {1: "error", 2: "ok"}


def test_what_hangs_is_told_again_only_when_the_time_has_doubled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now, told, reasons = [0], list[int](), list[str]()
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    crew = Crew(nullcontext, lambda error: None, stall_seconds=60.0, give_up_seconds=1000.0)
    crew.begin("prepare", "v1.nii", reasons.append).since = 0.0
    for now[0] in range(0, 1000, 10):
        crew.look()
        told += [now[0]] * (len(caplog.records) - len(told))
    assert told == [60, 120, 240, 480, 960]
    assert reasons == []
    now[0] = 1000
    crew.look()
    assert reasons == ["prepare made no progress for 1000 s; the volume was given up"]


def test_a_step_that_takes_long_and_ends_is_no_failure(
    tmp_path: Path, seconds_pass: _Pass, caplog: pytest.LogCaptureFixture
) -> None:
    def on(step: str, numbers: list[int]) -> None:
        if step == "finish":
            seconds_pass(100)
            deadline = time.monotonic() + 30
            while "no progress" not in caplog.text and time.monotonic() < deadline:
                time.sleep(0.01)

    statuses = statuses_of(FakeSegmenters(on=on), jobs_of(tmp_path, [1]))
    assert statuses == {1: "ok"}
    assert "v1.nii: finish has made no progress" in caplog.text
