from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from fastseg.cohort.job import Job, Outcome, Refused
from fastseg.cohort.stream import admission
from fastseg.cohort.stream import stream as stream_module
from fastseg.cohort.stream.observer import Nobody
from fastseg.cohort.stream.stream import Limits, Stream, Told
from fastseg.cohort.work import Manner, Work
from fastseg.errors import InferenceError, InputError
from fastseg.options import Options
from tests.phantom_files import voxels_of
from tests.unit.cohort.fake_segmenters import (
    FakeSegmenters,
    jobs_of,
    number_of,
    outcomes_of,
    statuses_of,
    told_by,
    volume_file,
)


def assert_masks(jobs: list[Job]) -> None:
    for job in jobs:
        expected = (3 * voxels_of(job.source).astype(np.float32)).astype(np.uint8)
        np.testing.assert_array_equal(voxels_of(job.outputs.mask), expected)


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


# --- results


@pytest.mark.parametrize(
    ("workers", "volumes", "flush_seconds"),
    [(1, 1, 0.0), (1, 8, 10.0), (2, 3, 0.02), (2, 8, 0.0), (5, 2, 0.0), (5, 8, 0.02), (5, 8, 10.0)],
)
def test_every_volume_gets_its_own_mask_whatever_its_neighbours(
    tmp_path: Path, workers: int, volumes: int, flush_seconds: float
) -> None:
    sizes = [(1, 4), (3, 4), (9, 4), (40, 4), (2, 5), (11, 5), (1, 6), (30, 6), (8, 4), (5, 5)]
    jobs = [
        job
        for number, (n_slices, side) in enumerate(sizes, 1)
        for job in jobs_of(tmp_path, [number], n_slices=n_slices, side=side)
    ]
    statuses = statuses_of(
        FakeSegmenters(), jobs, workers=workers, volumes=volumes, flush_seconds=flush_seconds
    )
    assert statuses == dict.fromkeys(range(1, 11), "ok")
    assert_masks(jobs)


def test_images_of_several_volumes_share_a_batch(tmp_path: Path) -> None:
    read = threading.Semaphore(0)

    class Reads(Nobody):
        def task(self, stage: str, volume: str, start: float, stop: float) -> None:
            if stage == "read":
                read.release()

    def wait_for_others(step: str, numbers: list[int]) -> None:
        if step == "finish" and not held:  # the only worker: what is read meanwhile is inferred together
            held.append(all(read.acquire(timeout=30) for _ in range(12)))  # each is looked at, then read

    held = list[bool]()
    segmenters = FakeSegmenters(on=wait_for_others)
    jobs = jobs_of(tmp_path, range(1, 7))
    outcomes_of(segmenters, jobs, observer=Reads(), workers=1, volumes=8, flush_seconds=10.0)
    assert held == [True]
    assert max(len(batch) for batch in segmenters.engine.batches) > 3  # of 3 slices each


def test_a_question_without_images_is_answered_without_a_batch(tmp_path: Path) -> None:
    segmenters = FakeSegmenters(slices_of=lambda n_slices: 0)
    jobs = jobs_of(tmp_path, [1, 2])
    assert statuses_of(segmenters, jobs) == {1: "ok", 2: "ok"}
    assert not voxels_of(jobs[0].outputs.mask).any()
    assert {len(batch) for batch in segmenters.engine.batches} == {0}


def test_seconds_of_inference_are_shared_out_among_volumes(tmp_path: Path) -> None:
    spent = list[float]()

    class Hears(Nobody):
        def task(self, stage: str, volume: str, start: float, stop: float) -> None:
            if stage == "infer":
                spent.append(stop - start)

    jobs = jobs_of(tmp_path, [1, 2, 3], n_slices=20)
    outcomes = outcomes_of(FakeSegmenters(), jobs, observer=Hears(), workers=1)
    assert all(outcome.seconds["predict"] > 0 for outcome in outcomes)
    assert sum(outcome.seconds["predict"] for outcome in outcomes) == pytest.approx(sum(spent))


def test_what_is_no_job_is_passed_on(tmp_path: Path) -> None:
    refused = Refused("line 3", "is no path")
    done = Outcome(jobs_of(tmp_path, [9])[0], status="cached")  # type: ignore[arg-type]
    told = told_by(FakeSegmenters(), [refused, *jobs_of(tmp_path, [1]), done])
    assert refused in told
    assert done in told
    assert len(told) == 3


def test_a_file_that_cannot_be_read_is_an_outcome_and_others_go_on(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, range(1, 6))
    jobs[1].source.unlink()
    jobs[3].source.write_bytes(b"no volume")
    jobs[4].source.write_bytes(jobs[4].source.read_bytes()[:-7])
    statuses = statuses_of(FakeSegmenters(), jobs)
    assert statuses == {1: "ok", 2: "bad_input", 3: "ok", 4: "bad_input", 5: "bad_input"}


def test_other_attempts_go_through_the_same_stream(tmp_path: Path) -> None:
    def flags(options: Options, number: int) -> tuple[str, ...]:
        return () if options.kernel == "3d" or number % 2 else ("holes",)

    segmenters = FakeSegmenters(flags=flags)
    outcomes = outcomes_of(
        segmenters, jobs_of(tmp_path, range(1, 7)), manner=Manner(kinds=("mask",), rescue=True), workers=2
    )
    assert {str(outcome.status) for outcome in outcomes} == {"ok"}
    assert ["attempts" in outcome.record for outcome in outcomes] == [False, True] * 3


# --- memory


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


# --- failures


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("n_slices", [3, 60])
def test_a_volume_whose_images_break_the_engine_does_not_hurt_others(
    tmp_path: Path, workers: int, n_slices: int
) -> None:
    def fail(step: str, numbers: list[int]) -> None:
        if step == "infer" and 4 in numbers:
            raise InferenceError("segmenter.onnx: onnxruntime failed (bad input)")

    jobs = jobs_of(tmp_path, range(1, 9), n_slices=n_slices)
    statuses = statuses_of(FakeSegmenters(on=fail), jobs, workers=workers, volumes=8, flush_seconds=0.1)
    assert statuses == {number: "error" if number == 4 else "ok" for number in range(1, 9)}
    assert_masks([job for job in jobs if job.name != "v4.nii"])


def test_a_bug_in_a_step_is_the_outcome_of_its_volume_with_a_traceback(tmp_path: Path) -> None:
    def fail(step: str, numbers: list[int]) -> None:
        if step == "prepare" and 1 in numbers:
            raise ZeroDivisionError("division by zero")

    bad, good = outcomes_of(FakeSegmenters(on=fail), jobs_of(tmp_path, [1, 2]))
    assert bad.message.startswith("ZeroDivisionError: division by zero (in ")
    assert "Traceback" in str(bad.record["traceback"])
    assert str(good.status) == "ok"


def test_a_volume_that_cannot_be_used_is_told_in_the_words_of_its_error(tmp_path: Path) -> None:
    def fail(step: str, numbers: list[int]) -> None:
        if step == "prepare":
            raise InputError("all voxels are equal; check the file")

    (outcome,) = outcomes_of(FakeSegmenters(on=fail), jobs_of(tmp_path, [1]))
    assert (str(outcome.status), outcome.message) == ("bad_input", "all voxels are equal; check the file")
    assert not outcome.job.outputs.mask.exists()


class _Faulty(Nobody):
    """An observer that fails in one of its methods."""

    def __init__(self, where: str) -> None:
        self.where = where

    def _fail(self, here: str) -> None:
        if here == self.where:
            raise OSError(28, "No space left on device")

    def begins(self, job: Job) -> None:
        self._fail("begins")

    def task(self, stage: str, volume: str, start: float, stop: float) -> None:
        self._fail(stage)

    def queues(self, lengths: Mapping[str, int]) -> None:
        self._fail("queues")

    def thread(self) -> AbstractContextManager[object]:
        self._fail("thread")
        return nullcontext()


@pytest.mark.parametrize(
    "where", ["begins", "read", "prepare", "infer", "finish", "write", "queues", "thread"]
)
def test_an_observer_that_fails_ends_the_run_with_its_error(tmp_path: Path, where: str) -> None:
    with pytest.raises(OSError, match="No space left"):
        told_by(FakeSegmenters(), jobs_of(tmp_path, range(1, 5)), observer=_Faulty(where), workers=2)


def test_a_source_that_fails_ends_the_run_with_its_error(tmp_path: Path) -> None:
    def source() -> Iterator[Job]:
        yield from jobs_of(tmp_path, [1, 2])
        raise ConnectionError("stdin went away")

    with pytest.raises(ConnectionError, match="went away"):
        told_by(FakeSegmenters(), source(), workers=2)


@pytest.mark.parametrize("step", ["finish", "write"])
def test_nothing_is_written_any_more_when_a_run_ended_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    under_way, go_on = threading.Event(), threading.Event()

    def wait(at: str, numbers: list[int]) -> None:
        if at == step and 2 in numbers:
            under_way.set()
            go_on.wait(30)

    write_files = Work._write_files

    def write_late(self: Work, stage: Path) -> dict[str, str]:
        wait("write", [int(self.job.name[1])])
        return write_files(self, stage)

    monkeypatch.setattr(Work, "_write_files", write_late)
    (first, second) = jobs_of(tmp_path, [1, 2])
    limits = Limits(workers=5)  # two writers
    stream = Stream(FakeSegmenters(on=wait), Manner(kinds=("mask",)), limits)  # type: ignore[arg-type]
    outcomes = stream.run([second, first])
    assert number_of(next(outcomes)) == 1  # type: ignore[arg-type]
    assert under_way.wait(30)

    def when_it_ends() -> None:
        while not stream._admission.closing:
            time.sleep(0.001)
        with stream._changed:  # under which it gives up what is under way
            go_on.set()

    threading.Thread(target=when_it_ends, daemon=True).start()
    outcomes.close()  # type: ignore[attr-defined]
    assert go_on.is_set()  # it waited for the thread that was under way
    assert not second.outputs.mask.exists()
    assert not list(second.outputs.folder.glob(".fastseg*"))


# --- the end


def test_an_endless_source_can_be_stopped_and_what_is_under_way_is_finished(tmp_path: Path) -> None:
    source, begun = volume_file(tmp_path / "v1.nii"), list[Job]()

    def endless() -> Iterator[Job]:
        for k in itertools.count():
            yield jobs_of(tmp_path / str(k), [1])[0]

    class Begins(Nobody):
        def begins(self, job: Job) -> None:
            begun.append(job)

    def stop(stream: Stream, told: Told) -> None:
        stream.stop()

    told = told_by(FakeSegmenters(), endless(), each=stop, observer=Begins(), workers=3)
    assert len(told) == len(begun)
    assert all(job.outputs.mask.exists() for job in begun)
    assert source.exists()


@pytest.mark.parametrize("workers", [1, 9])
def test_a_source_that_blocks_does_not_keep_a_stopped_run_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(
        stream_module, "_PARTING_SECONDS", 600.0
    )  # it does not wait for those who read either
    release = threading.Event()

    def blocks() -> Iterator[Job]:
        yield from jobs_of(tmp_path, [1])
        release.wait(600)

    told = told_by(FakeSegmenters(), blocks(), each=lambda stream, told: stream.stop(), workers=workers)
    assert len(told) == 1
    release.set()


def test_a_run_that_is_stopped_before_it_begins_does_nothing(tmp_path: Path) -> None:
    stream = Stream(FakeSegmenters(), Manner(), Limits())  # type: ignore[arg-type]
    stream.stop()
    assert list(stream.run(jobs_of(tmp_path, [1, 2]))) == []


def test_no_jobs_are_no_outcomes() -> None:
    assert told_by(FakeSegmenters(), [], workers=5) == []


def test_all_threads_of_a_run_have_ended_when_it_ends(tmp_path: Path) -> None:
    inside = list[str]()

    class Threads(Nobody):
        def thread(self) -> AbstractContextManager[object]:
            @contextmanager
            def around() -> Iterator[None]:
                inside.append(threading.current_thread().name)
                yield
                time.sleep(0.01)
                inside.remove(threading.current_thread().name)

            return around()

    told_by(FakeSegmenters(), jobs_of(tmp_path, range(1, 4)), observer=Threads(), workers=5)
    assert inside == []


def test_steps_are_told_with_their_volumes_and_begin_after_the_beginning(tmp_path: Path) -> None:
    events = list[tuple[str, str]]()

    class Hears(Nobody):
        def begins(self, job: Job) -> None:
            events.append(("begins", job.name))

        def task(self, stage: str, volume: str, start: float, stop: float) -> None:
            assert start <= stop
            events.append((stage, volume))

    told_by(FakeSegmenters(), jobs_of(tmp_path, [1]), observer=Hears())
    assert events == [
        (stage, "v1.nii") for stage in ("read", "begins", "read", "prepare", "infer", "finish", "write")
    ]


def test_queues_are_empty_in_the_end(tmp_path: Path) -> None:
    lengths = list[Mapping[str, int]]()

    class Hears(Nobody):
        def queues(self, seen: Mapping[str, int]) -> None:
            lengths.append(dict(seen))

    told_by(FakeSegmenters(), jobs_of(tmp_path, range(1, 20)), observer=Hears(), workers=3, volumes=5)
    assert lengths[-1] == {"prepare": 0, "infer": 0, "finish": 0, "write": 0, "volumes": 0}
    assert max(seen["volumes"] for seen in lengths) <= 5


def test_many_short_runs_neither_hang_nor_lose_anything(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, range(1, 13), n_slices=2)
    for k in range(30):
        shuffled = [jobs[i] for i in np.random.default_rng(k).permutation(len(jobs))][: 1 + k % 12]
        statuses = statuses_of(FakeSegmenters(), shuffled, workers=1 + k % 6, volumes=1 + k % 5)
        assert len(statuses) == len(shuffled)
        assert set(statuses.values()) == {"ok"}
