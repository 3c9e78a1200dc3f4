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
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from fastseg.cohort.batching import Batch, Batcher
from fastseg.cohort.failures import failure_of
from fastseg.cohort.inputs import Refused
from fastseg.cohort.job import Job, Outcome, Status
from fastseg.cohort.memory import needed_bytes, rss_bytes
from fastseg.cohort.observer import Nobody, Observer, Stage
from fastseg.cohort.segmenters import Segmenters
from fastseg.cohort.work import Manner, Work
from fastseg.nifti import probe_volume
from fastseg.nifti_header import human

__all__ = ["Limits", "Stream", "Told"]

#: What is told of a volume, or of something that could not become one.
Told = Outcome | Refused

_logger = logging.getLogger(__name__)

# Outcomes that nobody has taken yet; beyond, no volume is let in.
_UNREAD = 64
# What a network's inner layers and a thread's arrays take, for each worker.
_PER_WORKER = 24_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a stream may take.

    Parameters
    ----------
    workers : threads that compute
    memory : bytes that the process may take, programs and networks included
    volumes : that are under way at once; 0: two for each worker and two more
    flush_seconds : the longest that an image waits for a batch to fill
    stall_seconds : from when on a step that does not end is told of, again each time this doubles
    give_up_seconds : from when on its volume is given up
    """

    workers: int = 1
    memory: int = 4_000_000_000
    volumes: int = 0
    flush_seconds: float = 0.02
    stall_seconds: float = 60.0
    give_up_seconds: float = 1800.0

    @property
    def io_threads(self) -> int:
        """Readers, and writers: one of each keeps four workers supplied."""
        return -(-self.workers // 4)

    @property
    def at_once(self) -> int:
        """Volumes under way."""
        return self.volumes or 2 * self.workers + 2


@dataclass(slots=True, eq=False)
class _Flight:
    """A volume that was let in."""

    work: Work
    needed: int
    alone: bool = False
    gone: bool = False
    answers: list[NDArray[np.float32]] = field(default_factory=list)


@dataclass(slots=True)
class _Task:
    stage: Stage
    flights: tuple[_Flight, ...]
    since: float
    told: float = 0.0


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
    that hangs.
    """

    def __init__(
        self, segmenters: Segmenters, manner: Manner, limits: Limits, observer: Observer | None = None
    ) -> None:
        self._segmenters, self._manner, self._limits = segmenters, manner, limits
        self._observer: Observer = observer or Nobody()
        self._changed = threading.Condition()
        self._source_lock = threading.Lock()
        self._outcomes: SimpleQueue[Told | BaseException | None] = SimpleQueue()
        self._unread = 0
        self._prepare: deque[_Flight] = deque()
        self._finish: deque[_Flight] = deque()
        self._write: deque[_Flight] = deque()
        self._batcher: Batcher[_Flight] = Batcher(limits.flush_seconds)
        self._again: deque[_Flight] = deque()
        self._tasks: dict[int, _Task] = {}
        self._in_flight = self._used = self._reading = 0
        self._room = 0
        self._stopping = self._ended = self._closing = False

    def stop(self) -> None:
        """Let no further volume in; those under way are finished. May be called from a signal handler."""
        self._stopping = True

    def run(self, jobs: Iterable[Job | Told]) -> Iterator[Told]:
        """Work on jobs; may be called once.

        Parameters
        ----------
        jobs : may be slow to come, or never end; what is told among them is passed on

        Yields
        ------
        outcomes : in the order in which they come
        """
        self._room = max(self._limits.memory - rss_bytes() - _PER_WORKER * self._limits.workers, 0)
        self._source = iter(jobs)
        for k in range(self._limits.io_threads):
            self._start(self._read_all, f"read {k + 1}")
            self._start(self._write_all, f"write {k + 1}")
        for k in range(self._limits.workers):
            self._start(self._work_all, f"worker {k + 1}")
        watch = threading.Thread(target=self._watch_all, name="watchdog", daemon=True)
        watch.start()
        try:
            while (outcome := self._outcomes.get()) is not None:
                if isinstance(outcome, BaseException):
                    raise outcome
                with self._changed:
                    self._unread -= 1
                    self._changed.notify_all()
                yield outcome
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()

    def _start(self, loop: Callable[[], None], name: str) -> None:
        def run() -> None:
            try:
                with self._observer.thread():
                    loop()
            except BaseException as error:  # a bug of this module, or no space for the ledger
                self._outcomes.put(error)

        # Daemons: a thread that hangs in a file system must not keep the process from ending.
        threading.Thread(target=run, name=name, daemon=True).start()

    # --- readers

    def _read_all(self) -> None:
        while True:
            flight = self._let_in()
            if flight is None:
                return
            if not self._do(Stage.READ, flight, flight.work.read):
                if flight.gone:
                    return
                continue
            with self._changed:
                self._prepare.append(flight)
                self._tell()

    def _let_in(self) -> _Flight | None:
        """The next volume, when there is room for it."""
        with self._source_lock:
            while True:
                flight = self._next()
                if flight is None:
                    return None
                with self._changed:
                    while not (self._fits(flight) or self._closing):
                        self._changed.wait(0.2)
                        if self._stopping and not flight.alone:
                            break
                    if self._closing or (self._stopping and not flight.alone):
                        self._ended = True
                        self._check_end()
                        return None
                    if flight.needed > self._room:
                        self._refuse(flight)
                        continue
                    self._in_flight += 1
                    self._used += flight.needed
                self._observer.begins(flight.work.job)
                return flight

    def _next(self) -> _Flight | None:
        """The next volume of the source; when that has ended, those that ran out of memory, one by one."""
        while not (self._ended or self._stopping):
            job = next(self._source, None)
            if job is None:
                with self._changed:
                    self._ended = True
                break
            if not isinstance(job, Job):
                with self._changed:
                    self._put(job)
                continue
            try:
                needed = needed_bytes(probe_volume(job.source, job.frame), job.options)
            except Exception as error:
                with self._changed:
                    self._put(Work(job, self._manner, self._segmenters).failed(error))
                continue
            return _Flight(Work(job, self._manner, self._segmenters), needed)
        with self._changed:
            self._ended = True
            while not self._closing:
                if self._again and not self._in_flight:
                    return self._again.popleft()
                if self._check_end():
                    break
                self._changed.wait(0.2)
        return None

    def _fits(self, flight: _Flight) -> bool:
        if flight.alone or not self._in_flight:
            return not self._in_flight
        free = self._used + flight.needed <= self._room
        return free and self._in_flight < self._limits.at_once and self._unread < _UNREAD

    def _refuse(self, flight: _Flight) -> None:
        message = (
            f"needs about {human(flight.needed)} of memory, {human(self._room)} are left for volumes: "
            "raise --mem-gb, or crop it"
        )
        self._put(Outcome(flight.work.job, Status.OUT_OF_MEMORY, message))

    # --- workers

    def _work_all(self) -> None:
        while True:
            with self._changed:
                while (task := self._choose()) is None:
                    if self._closing:
                        return
                    self._changed.wait(self._batcher.wait_seconds())
            if not task():
                return

    def _choose(self) -> Callable[[], bool] | None:
        """What is to be done next, by the one who asks; it says whether that one may go on."""
        if self._finish:
            flight = self._finish.popleft()
            return lambda: self._finish_one(flight)
        batch = self._batcher.take(idle=not self._prepare)
        if batch is not None:
            return lambda: self._infer(batch)
        if self._prepare:
            flight = self._prepare.popleft()
            return lambda: self._prepare_one(flight)
        return None

    def _prepare_one(self, flight: _Flight) -> bool:
        work, ready = flight.work, [False]

        def prepare() -> None:
            ready[0] = work.prepare()

        if not self._do(Stage.PREPARE, flight, prepare):
            return not flight.gone
        with self._changed:
            if ready[0] and work.prepared is not None:
                engine, batches = work.segmenter.engine, work.prepared.question.batches
                if batches and any(map(len, batches)):
                    self._batcher.ask(flight, engine, batches, alone=flight.alone)
                else:
                    flight.answers = []
                    self._finish.append(flight)
            else:
                self._write.append(flight)
            self._tell()
        return True

    def _infer(self, batch: Batch[_Flight]) -> bool:
        flights = tuple(batch.askers)
        task = self._begin(Stage.INFER, flights)
        try:
            answers = batch.infer()
        except Exception as error:
            self._end(task)
            return self._infer_failed(batch, error)
        self._end(task)
        seconds = time.perf_counter() - task.since
        images = sum(len(piece.images) for piece in batch.pieces)
        with self._changed:
            for piece in batch.pieces:  # a volume is charged for its share
                flight = piece.asker
                assert isinstance(flight, _Flight)
                flight.work.inferred += seconds * len(piece.images) / images
            for flight, own in self._batcher.answer(batch, answers):
                flight.answers = own
                self._finish.append(flight)
            self._tell()
        return not any(flight.gone for flight in flights)

    def _infer_failed(self, batch: Batch[_Flight], error: Exception) -> bool:
        """One volume's images may spoil a batch for others: these are asked about again, each alone."""
        flights = [flight for flight in batch.askers if not flight.gone]
        with self._changed:
            self._batcher.failed(batch)
            if len(flights) > 1:
                for flight in flights:
                    assert flight.work.prepared is not None
                    batches = flight.work.prepared.question.batches
                    self._batcher.ask(flight, batch.engine, batches, alone=True)
                self._tell()
        if len(flights) == 1:
            self._failed(flights[0], error)
        return len(flights) == len(batch.askers)

    def _finish_one(self, flight: _Flight) -> bool:
        work, done = flight.work, [False]
        answers, flight.answers = flight.answers, []

        def finish() -> None:
            done[0] = work.finish(answers)

        if not self._do(Stage.FINISH, flight, finish):
            return not flight.gone
        with self._changed:
            (self._write if done[0] else self._prepare).append(flight)
            self._tell()
        return True

    # --- writers

    def _write_all(self) -> None:
        while True:
            with self._changed:
                while not self._write:
                    if self._closing:
                        return
                    self._changed.wait()
                flight = self._write.popleft()
            outcome: list[Outcome] = []
            if self._do(Stage.WRITE, flight, lambda f=flight, o=outcome: o.append(f.work.write())):  # type: ignore[misc]
                with self._changed:
                    self._leave(flight, outcome[0])
            elif flight.gone:
                return

    # --- all threads

    def _do(self, stage: Stage, flight: _Flight, step: Callable[[], object]) -> bool:
        """Take a step; whether the volume goes on."""
        task = self._begin(stage, (flight,))
        try:
            step()
        except Exception as error:
            self._end(task)
            if not flight.gone:
                self._failed(flight, error)
            return False
        self._end(task)
        return not flight.gone

    def _begin(self, stage: Stage, flights: tuple[_Flight, ...]) -> _Task:
        task = _Task(stage, flights, time.perf_counter())
        with self._changed:
            self._tasks[threading.get_ident()] = task
        return task

    def _end(self, task: _Task) -> None:
        stop = time.perf_counter()
        with self._changed:
            self._tasks.pop(threading.get_ident(), None)
        names = ", ".join(flight.work.job.name for flight in task.flights)
        self._observer.task(task.stage, names, task.since, stop)

    def _failed(self, flight: _Flight, error: Exception) -> None:
        status, _ = failure_of(error, flight.work.job.source)
        outcome = flight.work.failed(error)
        del error  # it holds the volume through its traceback
        with self._changed:
            if status is Status.OUT_OF_MEMORY and not flight.alone:
                _logger.warning("%s: ran out of memory; it is tried again alone", flight.work.job.name)
                flight.work.reset()
                flight.alone = True
                self._release(flight)
                self._again.append(flight)
            else:
                self._leave(flight, outcome)
            self._tell()

    def _leave(self, flight: _Flight, outcome: Outcome) -> None:
        flight.work.reset()
        self._release(flight)
        self._put(outcome)
        self._check_end()

    def _release(self, flight: _Flight) -> None:
        self._in_flight -= 1
        self._used -= flight.needed
        self._changed.notify_all()

    def _put(self, outcome: Told) -> None:
        self._unread += 1
        self._outcomes.put(outcome)

    def _check_end(self) -> bool:
        """Whether all is done; tells whoever takes the outcomes."""
        if self._ended and not self._in_flight and not self._again and not self._closing:
            self._closing = True
            self._outcomes.put(None)
            self._changed.notify_all()
        return self._closing

    def _tell(self) -> None:
        """Wake whoever waits for work; say how long the queues are."""
        self._changed.notify_all()
        self._observer.queues(
            {
                "prepare": len(self._prepare),
                "infer": len(self._batcher),
                "finish": len(self._finish),
                "write": len(self._write),
                "volumes": self._in_flight,
            }
        )

    # --- watchdog

    def _watch_all(self) -> None:
        pause = min(self._limits.stall_seconds / 4, self._limits.give_up_seconds / 4, 0.2)
        while not self._closing:
            time.sleep(pause)
            now = time.perf_counter()
            with self._changed:
                if self._stopping:  # the reader may wait for a source that never ends
                    self._ended = True
                    self._check_end()
                for thread, task in list(self._tasks.items()):
                    self._watch(thread, task, now - task.since)

    def _watch(self, thread: int, task: _Task, seconds: float) -> None:
        names = ", ".join(flight.work.job.name for flight in task.flights)
        if seconds >= max(self._limits.stall_seconds, 2 * task.told):
            task.told = seconds
            _logger.warning("%s: %s has made no progress for %.0f s", names, task.stage, seconds)
        if seconds >= self._limits.give_up_seconds:
            del self._tasks[thread]
            for flight in task.flights:
                flight.gone = True
                self._batcher.withdraw(flight)
                message = f"{task.stage} made no progress for {seconds:.0f} s; the volume was given up"
                job = flight.work.job
                flight.work = Work(
                    job, self._manner, self._segmenters
                )  # the thread that hangs has the old one
                self._leave(flight, Outcome(job, Status.ERROR, message))
            loops = {Stage.READ: self._read_all, Stage.WRITE: self._write_all}
            self._start(loops.get(task.stage, self._work_all), f"{task.stage} again")
