"""Which volumes are let into a stream, and when: by memory, by number, and until it is stopped."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastseg.cohort.job import Job, Outcome, Refused
from fastseg.cohort.memory import needed_bytes, programs_bytes
from fastseg.cohort.work import Work
from fastseg.nifti import probe_volume

__all__ = ["Admission", "Flight", "Limits", "Told"]

#: What is told of a volume, or of something that could not become one.
Told = Outcome | Refused

# What a network's inner layers and a thread's arrays take, for each worker.
_PER_WORKER = 24_000_000
# Outcomes that nobody has taken yet; beyond, no job is taken from the source.
_UNREAD = 64
# A signal handler cannot wake a thread that waits: how long until it looks by itself.
_LOOK_SECONDS = 0.2


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
class Flight:
    """A volume on its way through the stream.

    Parameters
    ----------
    work : its steps
    needed : bytes of memory
    alone : whether nothing else may be under way meanwhile
    admitted : whether it was let in
    answers : of the engine, between inference and finish
    """

    work: Work
    needed: int = 0
    alone: bool = False
    admitted: bool = False
    answers: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def job(self) -> Job:
        """What is to be done."""
        return self.work.job

    def look(self) -> None:
        """Find out how much memory it needs."""
        job = self.job
        facts = probe_volume(job.source, job.frame)
        self.needed = needed_bytes(facts, job.options, frame=job.frame, rescue=self.work.manner.rescue)


class Admission:
    """Counts the volumes that are under way, and their memory.

    Parameters
    ----------
    changed : the stream's lock. Whoever calls holds it, but for `next` and `let_in`, which may wait.
    limits : how much may be taken
    """

    def __init__(self, changed: threading.Condition, limits: Limits) -> None:
        self._changed, self._limits = changed, limits
        self._source: Iterator[Job | Told] = iter(())
        self._door = threading.Lock()
        self._again: deque[Flight] = deque()
        self._used = self._admitted = 0
        #: Bytes of memory for all volumes together.
        self.room = 0
        self.flights: set[Flight] = set()
        self.asking: threading.Thread | None = None
        self.unread = 0
        self.stopping = self.ended = self.closing = False

    @property
    def done(self) -> bool:
        """Whether nothing is under way, and nothing will come."""
        return self.ended and not self.flights

    def __len__(self) -> int:
        """Volumes that were let in."""
        return self._admitted

    def open(self, jobs: Iterable[Job | Told]) -> None:
        """Begin with a source, which may be slow, or never end, and with the memory that programs leave."""
        taken = programs_bytes() + _PER_WORKER * self._limits.workers
        self.room = max(self._limits.memory - taken, 0)
        self._source = iter(jobs)

    def next(self, board: Callable[[Job], Flight]) -> Flight | Told | None:
        """Take what comes next from the source, when those who read the outcomes keep up.

        Parameters
        ----------
        board : makes a flight of a job

        Returns
        -------
        each : None when nothing more will come
        """
        with self._changed:
            while not self._over and (self.asking is not None or self.unread >= _UNREAD):
                self._changed.wait(_LOOK_SECONDS)
            if self._over:
                self.ended = True
                return None
            self.asking = threading.current_thread()
        job = next(self._source, None)
        with self._changed:
            each = board(job) if isinstance(job, Job) else job
            if isinstance(each, Flight):
                self.flights.add(each)
            self.asking = None
            self.ended = self.ended or each is None
            self._changed.notify_all()
        return each

    @property
    def _over(self) -> bool:
        return self.ended or self.closing or self.stopping

    def let_in(self, flight: Flight) -> bool:
        """Wait until there is room for a volume; one after the other, so that a large one's turn comes.

        Returns
        -------
        in : whether it was let in; if not, the stream was stopped meanwhile
        """
        with self._door, self._changed:
            while not (self._fits(flight) or self.closing or self.stopping):
                self._changed.wait(_LOOK_SECONDS)
            if not (self.closing or self.stopping):
                self._admit(flight)
        return flight.admitted

    def _fits(self, flight: Flight) -> bool:
        enough = self._used + flight.needed <= self.room
        return not self._admitted or (enough and self._admitted < self._limits.at_once)

    def _admit(self, flight: Flight) -> None:
        flight.admitted = True
        self._admitted += 1
        self._used += flight.needed

    def again(self, flight: Flight) -> None:
        """Note that a volume is to be tried once more, when nothing else is under way."""
        flight.alone, flight.needed = True, self.room  # with all the room, nothing is let in beside it
        self._again.append(flight)
        self.flights.add(flight)

    def release(self, flight: Flight) -> Flight | None:
        """Let go of a volume; gives one whose time to be tried again has come, let in."""
        self.flights.discard(flight)
        if flight.admitted:
            self._admitted -= 1
            self._used -= flight.needed
        self._changed.notify_all()
        if self._admitted or self.closing or not self._again:
            return None
        again = self._again.popleft()
        self._admit(again)
        return again
