"""Volumes through all steps, with every core busy: read | prepare | infer | finish | write, overlapped.

Readers and writers wait for disks and have threads of their own. The workers take whatever is furthest on:
finish before infer before prepare, so that volumes leave before new ones come in. Kernels, inference and
compression run without the GIL, so that threads keep two cores as busy as processes do (benchmarks/cohort.py
measures both), with one copy of the networks and one budget of memory.

A volume is let in when its own need of memory fits into what is left of the budget, so all queues are
bounded. One that runs out of memory all the same is tried again when nothing else is under way. Results
depend neither on the number of threads nor on what else is in the stream.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

import numpy as np
from numpy.typing import NDArray

from fastseg.cohort.job import Job, Outcome, Status
from fastseg.cohort.segmenters import Segmenters
from fastseg.cohort.stream.admission import Admission, Flight, Limits, Told
from fastseg.cohort.stream.batching import Batch, Batcher
from fastseg.cohort.stream.observer import Nobody, Observer, Stage
from fastseg.cohort.stream.watchdog import Crew, Task
from fastseg.cohort.work import Manner, Work
from fastseg.nifti_header import human
from fastseg.profiling import span

__all__ = ["Limits", "Stream", "Told"]

_logger = logging.getLogger(__name__)

# A signal that comes just before the wait for outcomes is heard only after it: so it does not wait for long.
_LOOK_SECONDS = 0.5
# How long the end waits for threads that are in the middle of a step.
_PARTING_SECONDS = 10.0


class Stream:
    """Takes jobs, gives outcomes as they come.

    Parameters
    ----------
    segmenters : open, with one thread inside an inference: threads are the stream's
    manner : how volumes are worked on
    limits : how much may be taken
    observer : hears what happens

    Notes
    -----
    A failure of one volume is its outcome. A step that makes no progress is told of by its name and volume;
    after `Limits.give_up_seconds` its volume ends as an error, and another thread takes the place of the one
    that hangs. What the observer, the jobs or the stream itself raise ends the run.
    """

    def __init__(
        self, segmenters: Segmenters, manner: Manner, limits: Limits, observer: Observer | None = None
    ) -> None:
        self._segmenters, self._manner, self._limits = segmenters, manner, limits
        self._observer: Observer = observer or Nobody()
        self._crew = Crew(
            self._observer.thread,
            self._fails,
            stall_seconds=limits.stall_seconds,
            give_up_seconds=limits.give_up_seconds,
        )
        # One lock for all that follows; whoever changes it wakes the others.
        self._changed = threading.Condition()
        self._prepare: deque[Flight] = deque()
        self._batcher: Batcher[Flight] = Batcher(limits.flush_seconds)
        self._finish: deque[Flight] = deque()
        self._write: deque[Flight] = deque()
        self._outcomes: SimpleQueue[Told | BaseException | None] = SimpleQueue()
        self._admission = Admission(self._changed, limits)

    def stop(self) -> None:
        """Let no further volume in; those under way are finished. May be called from a signal handler."""
        self._admission.stopping = True

    def run(self, jobs: Iterable[Job | Told]) -> Iterator[Told]:
        """Work on jobs; may be called once.

        Parameters
        ----------
        jobs : may be slow to come, or never end; what is told among them is passed on

        Yields
        ------
        outcomes : in the order in which they come
        """
        self._admission.open(jobs)
        try:
            self._crew.start(self._watch_all, "watchdog")
            for k in range(self._limits.io_threads):
                self._crew.start(self._read_all, f"read {k + 1}")
                self._crew.start(self._write_all, f"write {k + 1}")
            for k in range(self._limits.workers):
                self._crew.start(self._work_all, f"worker {k + 1}")
            while (outcome := self._next_outcome()) is not None:
                if isinstance(outcome, BaseException):
                    raise outcome
                with self._changed:
                    self._admission.unread -= 1
                    self._changed.notify_all()
                yield outcome
        finally:
            self._close()

    def _next_outcome(self) -> Told | BaseException | None:
        while True:
            with suppress(Empty):
                return self._outcomes.get(timeout=_LOOK_SECONDS)

    def _fails(self, error: BaseException) -> None:
        """End the run: a bug of the stream, or no space for the ledger."""
        self._outcomes.put(error)

    def _close(self) -> None:
        """Let all threads end. Where the run ends early, nothing that is under way is written any more."""
        with self._changed:
            self._admission.closing = True
            self._changed.notify_all()
            for flight in self._admission.flights:
                flight.work.cancelled = True
        self._crew.join(_PARTING_SECONDS, but=self._admission.asking)

    # --- readers

    def _read_all(self) -> None:
        while (flight := self._next()) is not None:
            if self._do(Stage.READ, flight, flight.look) and self._let_in(flight):
                self._observer.begins(flight.job)
                self._read(flight)

    def _next(self) -> Flight | None:
        while (each := self._admission.next(self._new)) is not None:
            if isinstance(each, Flight):
                return each
            with self._changed:
                self._put(each)
        with self._changed:
            self._check_end()
        return None

    def _new(self, job: Job) -> Flight:
        return Flight(Work(job, self._manner, self._segmenters))

    def _let_in(self, flight: Flight) -> bool:
        room = self._admission.room
        if flight.needed > room:
            message = (
                f"needs about {human(flight.needed)} of memory, {human(room)} are left for volumes: "
                "raise --mem-gb, or crop it"
            )
            with self._changed:
                self._leave(flight, Outcome(flight.job, Status.OUT_OF_MEMORY, message))
            return False
        if self._admission.let_in(flight):
            return True
        with self._changed:
            self._release(flight)
            self._check_end()
        return False

    def _read(self, flight: Flight) -> None:
        if self._do(Stage.READ, flight, flight.work.read):
            with self._changed:
                self._prepare.append(flight)
                self._tell()

    # --- workers

    def _work_all(self) -> None:
        while (step := self._await_step()) is not None:
            step()

    def _await_step(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._admission.closing:
                if (step := self._choose()) is not None:
                    return step
                self._changed.wait(self._batcher.wait_seconds())
        return None

    def _choose(self) -> Callable[[], None] | None:
        """What is to be done next, by the one who asks."""
        if self._finish:
            return partial(self._finish_one, self._finish.popleft())
        batch = self._batcher.take(idle=not self._prepare)
        if batch is not None:
            return partial(self._infer, batch)
        if self._prepare:
            return partial(self._prepare_one, self._prepare.popleft())
        return None

    def _prepare_one(self, flight: Flight) -> None:
        work, ready = flight.work, [False]

        def prepare() -> None:
            ready[0] = work.prepare()
            if work.prepared is not None and not any(map(len, work.prepared.question.batches)):
                flight.answers = [
                    work.segmenter.engine.infer(none) for none in work.prepared.question.batches
                ]

        if not self._do(Stage.PREPARE, flight, prepare):
            return
        with self._changed:
            if not ready[0]:
                self._write.append(flight)
            elif any(map(len, self._questions(flight))):
                self._ask(flight, alone=flight.alone)
            else:
                self._finish.append(flight)
            self._tell()

    def _questions(self, flight: Flight) -> tuple[NDArray[np.float32], ...]:
        assert flight.work.prepared is not None
        return flight.work.prepared.question.batches

    def _ask(self, flight: Flight, *, alone: bool) -> None:
        self._batcher.ask(flight, flight.work.segmenter.engine, self._questions(flight), alone=alone)

    def _infer(self, batch: Batch[Flight]) -> None:
        task = self._begin(Stage.INFER, batch.askers, partial(self._infer_hangs, batch))
        try:
            with span("predict"):  # of several volumes: heard by profiles, in no volume's recorder
                answers = batch.infer()
        except Exception as error:
            self._end(task)
            self._infer_failed(batch, error)
            return
        seconds = self._end(task)
        with self._changed:
            for flight, share in batch.shares.items():
                flight.work.inferred += seconds * share
            for flight, own in self._batcher.answer(batch, answers):
                flight.answers = own
                self._finish.append(flight)
            self._tell()

    def _infer_failed(self, batch: Batch[Flight], error: Exception) -> None:
        with self._changed:
            for flight in self._ask_again(batch):
                self._failed(flight, flight.work.failed(error))

    def _infer_hangs(self, batch: Batch[Flight], reason: str) -> None:
        with self._changed:
            for flight in self._ask_again(batch):
                self._give_up(flight, reason)
        self._crew.start(self._work_all, "worker again")

    def _ask_again(self, batch: Batch[Flight]) -> list[Flight]:
        """One volume's images may spoil a batch for others, so each is asked about alone.

        Gives the volumes for which that has been done already.
        """
        flights = self._batcher.failed(batch)
        if len(batch.askers) == 1:
            return flights
        for flight in flights:
            self._ask(flight, alone=True)
        self._tell()
        return []

    def _finish_one(self, flight: Flight) -> None:
        work, done = flight.work, [False]
        answers, flight.answers = flight.answers, []

        def finish() -> None:
            done[0] = work.finish(answers)

        if self._do(Stage.FINISH, flight, finish):
            with self._changed:
                (self._write if done[0] else self._prepare).append(flight)
                self._tell()

    # --- writers

    def _write_all(self) -> None:
        while (flight := self._await_written()) is not None:
            outcome: list[Outcome] = []
            work = flight.work
            if self._do(Stage.WRITE, flight, lambda w=work, o=outcome: o.append(w.write())):  # type: ignore[misc]
                with self._changed:
                    self._leave(flight, outcome[0])
                    self._tell()

    def _await_written(self) -> Flight | None:
        with self._changed:
            while not self._admission.closing:
                if self._write:
                    return self._write.popleft()
                self._changed.wait()
        return None

    # --- all threads

    def _do(self, stage: Stage, flight: Flight, step: Callable[[], object]) -> bool:
        """Take a step; whether the volume goes on."""
        loops = {Stage.READ: self._read_all, Stage.WRITE: self._write_all}

        def hangs(reason: str) -> None:
            with self._changed:
                self._give_up(flight, reason)
            self._crew.start(loops.get(stage, self._work_all), f"{stage} again")

        task = self._begin(stage, [flight], hangs)
        try:
            step()
        except Exception as error:
            outcome = flight.work.failed(error)
            self._end(task)
            with self._changed:
                self._failed(flight, outcome)
            return False
        self._end(task)
        return True

    def _begin(self, stage: Stage, flights: list[Flight], hangs: Callable[[str], None]) -> Task:
        return self._crew.begin(stage, ", ".join(flight.job.name for flight in flights), hangs)

    def _end(self, task: Task) -> float:
        """Note that a step is done; gives its seconds."""
        stop = self._crew.end(task)
        self._observer.task(task.step, task.volumes, task.since, stop)
        return stop - task.since

    def _failed(self, flight: Flight, outcome: Outcome) -> None:
        if outcome.status is Status.OUT_OF_MEMORY and not flight.alone:
            _logger.warning("%s: ran out of memory; it is tried again alone", flight.job.name)
            self._admission.again(self._new(flight.job))
            self._release(flight)
        else:
            self._leave(flight, outcome)
        self._tell()

    def _give_up(self, flight: Flight, reason: str) -> None:
        job = flight.job
        flight.work.cancelled = True  # the thread that hangs may go on with it one day
        flight.work = Work(job, self._manner, self._segmenters)
        self._leave(flight, Outcome(job, Status.ERROR, reason))
        self._tell()

    def _leave(self, flight: Flight, outcome: Outcome) -> None:
        self._release(flight)
        self._put(outcome)
        self._check_end()

    def _release(self, flight: Flight) -> None:
        flight.work.reset()
        again = self._admission.release(flight)
        if again is not None:
            self._crew.start(partial(self._read, again), "read alone")

    def _put(self, outcome: Told) -> None:
        self._admission.unread += 1
        self._outcomes.put(outcome)

    def _check_end(self) -> None:
        """When all is done, tell whoever takes the outcomes."""
        if self._admission.done and not self._admission.closing:
            self._admission.closing = True
            self._outcomes.put(None)
            self._changed.notify_all()

    def _tell(self) -> None:
        """Wake whoever waits for work; say how long the queues are."""
        self._changed.notify_all()
        self._observer.queues(
            {
                "prepare": len(self._prepare),
                "infer": len(self._batcher),
                "finish": len(self._finish),
                "write": len(self._write),
                "volumes": len(self._admission),
            }
        )

    def _watch_all(self) -> None:
        admission = self._admission
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: admission.closing, self._crew.pause_seconds):
                    return
                if admission.stopping:  # a reader may wait for a source that never ends
                    admission.ended = True
                    self._check_end()
            self._crew.look()
