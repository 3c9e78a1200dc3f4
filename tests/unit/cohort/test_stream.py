from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from fastseg.cohort.job import Job, Outcome, Refused
from fastseg.cohort.stream import stream as stream_module
from fastseg.cohort.stream.observer import Nobody
from fastseg.cohort.stream.stream import Limits, Stream, Told
from fastseg.cohort.work import Manner, Work
from fastseg.errors import InferenceError, InputError
from fastseg.options import Options
from tests.phantom_files import voxels_of
from tests.unit.cohort.fake_segmenters import (
    FakeSegmenters,
    assert_masks,
    jobs_of,
    number_of,
    outcomes_of,
    statuses_of,
    told_by,
    volume_file,
)

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
