"""What a run does at the client of a Dask cluster: submit jobs, take outcomes, outlive the workers.

A job goes from file to file, on file systems that all machines share; what comes back is its outcome.
Dask schedules, finds out that a worker died, and gives its jobs to others. What is left to this module: so
many jobs ahead, not more; a scheduler that comes back is given again what it had not answered; a volume that
kills workers is found out and ends as an error.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

from fastseg.cohort.cluster.worker import Duty, segment, stage_tag, stop_run
from fastseg.cohort.job import Job, Outcome, Refused, Status
from fastseg.cohort.stream.stream import Told
from fastseg.outputs import forget_stages

__all__ = ["Cluster", "any_engine"]

_logger = logging.getLogger(__name__)

# Jobs for each thread of a worker: one under way and one waiting. Jobs that wait when a client is killed
# count as begun, so there are not more of them than keep the workers busy.
_AHEAD = 2
# How often the scheduler is asked whether it lives, and how long it and its workers may take to answer.
_LOOK_SECONDS = 2.0
_ANSWER_SECONDS = 10.0
# How long a scheduler that went away may take to come back.
_PATIENCE_SECONDS = 60.0
# From when on it is told that no worker comes; again each time this doubles.
_LONELY_SECONDS = 15.0


@dataclass(slots=True, eq=False)
class _Sent:
    """A job that was submitted.

    Parameters
    ----------
    job : as it was given
    key : names its task
    future : Dask's
    alone : whether it is the only one under way: it may be what kills workers
    torn : whether a worker may have been killed over it: temporary files may be left
    """

    job: Job
    key: str
    future: Any
    alone: bool = False
    torn: bool = False


def any_engine(job: Job) -> str:
    """Leave it to the worker what runs a job's network."""
    return ""


class Cluster:
    """Works on jobs with the workers of a Dask cluster: an `Executor` of `fastseg.cohort.session`.

    A context manager. Jobs and outcomes pass through the thread that takes the outcomes; only what gives the
    jobs is waited for in another one.

    Parameters
    ----------
    connect : gives a connected Client of Dask within some seconds, or raises OSError
    duty : what the workers have to know of the run
    begins : hears of each job before it is submitted
    engine_of : gives what runs a job's network at the client, and has to run it on workers too
    """

    def __init__(
        self,
        connect: Callable[[float], Any],
        duty: Duty,
        begins: Callable[[Job], None] = lambda job: None,
        engine_of: Callable[[Job], str] = any_engine,
    ) -> None:
        self._connect, self._duty, self._begins, self._engine_of = connect, duty, begins, engine_of
        self._sent: dict[str, _Sent] = {}
        self._again: deque[Job] = deque()
        self._mail: SimpleQueue[object] = SimpleQueue()
        self._room = threading.Condition()
        self._taken, self._ahead = 0, _AHEAD
        self._number = 0
        self._looked = self._since_workers = 0.0
        self._told_lonely = _LONELY_SECONDS
        self._stopping = self._stopped = self._source_ended = False
        self._lost = ""
        self._cwd = Path.cwd()

    def __enter__(self) -> Self:
        self._adopt(self._connect(_ANSWER_SECONDS))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._leave()

    def stop(self) -> None:
        """Take no further job; those that a worker has begun are finished. Safe in a signal handler."""
        self._stopping = True

    def run(self, jobs: Iterable[Job | Told]) -> Iterator[Told]:
        """Work on jobs; may be called again when it has ended.

        Parameters
        ----------
        jobs : may be slow to come, or never end; what is told among them is passed on

        Yields
        ------
        outcomes : in the order in which they come. A volume that kills its workers is one, as is, for each
            job that was under way, a scheduler that goes away and does not come back.
        """
        mail: SimpleQueue[object] = SimpleQueue()
        self._mail, self._taken, self._source_ended = mail, 0, False
        feeder = threading.Thread(target=self._feed, args=(jobs, mail), name="jobs", daemon=True)
        feeder.start()
        try:
            while self._sent or not (self._source_ended or self._stopping) or self._again:
                if self._stopping and not self._stopped:
                    self._stop_workers()
                    continue
                if time.monotonic() - self._looked >= _LOOK_SECONDS:
                    self._look()
                if self._lost:
                    yield from self._give_up()
                    continue
                if self._again and self._source_ended and not self._sent:
                    self._submit(self._again.popleft(), alone=True)
                with suppress(Empty):
                    yield from self._open(mail.get(timeout=0.2))
        finally:
            with self._room:
                self._mail = SimpleQueue()  # by this the feeder knows that its run is over
                self._room.notify_all()
            self._cancel(list(self._sent.values()))

    # --- jobs

    def _feed(self, jobs: Iterable[Job | Told], mail: SimpleQueue[object]) -> None:
        """Take jobs from their source while there is room; the end, and what goes wrong, are mail too."""
        try:
            for each in jobs:
                with self._room:
                    self._taken += 1
                    mail.put(each)
                    while self._taken >= self._ahead and self._mail is mail and not self._stopping:
                        self._room.wait(0.2)
                    if self._mail is not mail or self._stopping:
                        break
            mail.put(None)
        except BaseException as error:  # the client's thread raises it
            mail.put(error)

    def _open(self, letter: object) -> Iterator[Told]:
        """Do what came by mail."""
        if letter is None:
            self._source_ended = True
        elif isinstance(letter, BaseException):
            raise letter
        elif isinstance(letter, Job):
            if not self._stopping:
                self._begins(letter)
                self._submit(letter)
        elif isinstance(letter, Outcome | Refused):
            self._answered()
            yield letter
        else:  # a future
            sent = self._sent.get(getattr(letter, "key", ""))
            if sent is not None and sent.future is letter:
                outcome = self._outcome(sent)
                if outcome is not None:
                    yield outcome

    def _submit(self, job: Job, *, alone: bool = False) -> None:
        self._number += 1
        key = f"{self._duty.run}-{self._number:08d}"  # no key begins like another one
        self._sent[key] = sent = _Sent(job, key, None, alone=alone, torn=alone)
        self._send(sent)

    def _send(self, sent: _Sent) -> None:
        job, outputs = sent.job, sent.job.outputs
        absolute = replace(
            job,
            source=job.source.absolute(),
            outputs=replace(outputs, folder=outputs.folder.absolute()),
            centerline=job.centerline.absolute() if job.centerline is not None else None,
        )
        mail = self._mail
        sent.future = self._client.submit(
            segment, self._duty, sent.key, absolute, self._engine_of(job), key=sent.key, pure=False
        )
        sent.future.add_done_callback(mail.put)

    def _answered(self) -> None:
        with self._room:
            self._taken -= 1
            self._room.notify_all()

    # --- outcomes

    def _outcome(self, sent: _Sent) -> Outcome | None:
        """What came of a job; None: nothing yet, or never, because the run was stopped."""
        from distributed import KilledWorker

        future, outcome = sent.future, None
        error = future.exception(timeout=_ANSWER_SECONDS) if future.status == "error" else None
        if isinstance(error, KilledWorker):
            return self._killer(sent)
        if error is not None:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            message = f"{text} (on a worker: is the same fastseg, and the same Dask, installed there?)"
            record = {"traceback": "".join(traceback.format_exception(error))}
            outcome = Outcome(sent.job, Status.ERROR, message, record=record)
        else:
            try:
                outcome = future.result(timeout=_ANSWER_SECONDS)
            except (CancelledError, asyncio.CancelledError, OSError):  # no connection, or no answer in time
                sent.future = None  # the next look finds out why, and sends it again
                self._looked = 0.0
                return None
        self._forget(sent)
        if outcome is None:
            return None
        notes = tuple(self._as_given(note, sent.job) for note in outcome.notes)
        return replace(outcome, job=sent.job, message=self._as_given(outcome.message, sent.job), notes=notes)

    def _killer(self, sent: _Sent) -> Outcome | None:
        """Workers died; Dask does not know over which of their jobs, so each of them is tried alone."""
        self._forget(sent)
        if not sent.alone:
            _logger.warning("%s: several workers died with it; it is tried again alone", sent.job.name)
            self._again.append(sent.job)
            return None
        message = (
            "every worker that took it was killed, most likely for its memory: give workers more of it, "
            "or crop the volume"
        )
        return Outcome(sent.job, Status.ERROR, message)

    def _forget(self, sent: _Sent) -> None:
        """Hold a job no longer; remove what a killed worker left of it."""
        del self._sent[sent.key]
        sent.future = None  # Dask forgets the task with it
        self._answered()
        folder = sent.job.outputs.folder
        if sent.torn and folder.is_dir():
            forget_stages(folder, stage_tag(self._duty, sent.key))

    def _as_given(self, text: str, job: Job) -> str:
        """Name files as the user did: workers are given absolute paths."""
        paths = (job.source, job.outputs.folder, job.centerline or job.source)
        return text if all(p.is_absolute() for p in paths) else text.replace(f"{self._cwd}/", "")

    # --- the scheduler and its workers

    def _adopt(self, client: Any) -> None:
        """Take a client that has just connected."""
        self._client = client
        self._scheduler = ""
        client.subscribe_topic("all", self._hear)
        self._looked, self._since_workers = 0.0, time.monotonic()

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """Hear what happens to workers; in the thread of the client's network."""
        _, facts = event
        if facts.get("action") != "remove-worker" or facts.get("expected"):
            return
        own = [self._sent.get(str(key)) for key in facts.get("processing-tasks", ())]
        torn = [sent for sent in own if sent is not None]
        for sent in torn:
            sent.torn = True
        if torn:
            names = ", ".join(sorted(sent.job.name for sent in torn))
            _logger.warning("worker %s was lost; done again: %s", facts.get("worker", ""), names)

    def _look(self) -> None:
        """See that the scheduler is there, and how many workers; send again what it does not know."""
        there = self._client.status == "running"  # otherwise it has noticed already, and an answer takes long
        try:
            if there:
                facts = self._client.sync(self._client.scheduler.identity, callback_timeout=_ANSWER_SECONDS)
                there = self._scheduler in ("", facts["id"])
        except Exception as error:  # whatever a client raises whose connection goes away
            _logger.debug("the scheduler does not answer: %r", error)
            there = False
        if there:
            self._looked, self._scheduler = time.monotonic(), facts["id"]
            self._count(sum(int(each["nthreads"]) for each in facts["workers"].values()))
        elif not self._come_back():
            return
        for sent in self._sent.values():
            if sent.future is None or sent.future.status == "cancelled" or not there:
                sent.torn = True
                self._send(sent)

    def _count(self, threads: int) -> None:
        with self._room:
            self._ahead = _AHEAD * max(threads, 1)
            self._room.notify_all()
        alone = time.monotonic() - self._since_workers
        if threads or not self._sent:
            self._since_workers, self._told_lonely = time.monotonic(), _LONELY_SECONDS
        elif alone >= self._told_lonely:
            self._told_lonely = 2 * alone
            _logger.warning("no worker has been there for %.0f s: volumes wait for one", alone)

    def _come_back(self) -> bool:
        """Wait for a scheduler that went away."""
        address = getattr(getattr(self._client, "scheduler", None), "address", "of the cluster")
        _logger.warning("the scheduler %s went away: waiting up to %.0f s for it", address, _PATIENCE_SECONDS)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        self._leave()
        while (left := deadline - time.monotonic()) > 0 and not self._stopping:
            try:
                self._adopt(self._connect(min(left, 5.0)))
            except OSError:
                time.sleep(min(0.2, left))
            else:
                _logger.warning("the scheduler is back; %d volumes are given to it again", len(self._sent))
                return True
        self._lost = (
            f"the scheduler {address} went away and did not come back within {_PATIENCE_SECONDS:.0f} s: "
            "start it again, and then this run"
        )
        return False

    def _give_up(self) -> Iterator[Told]:
        """End without a scheduler: jobs under way fail; if there are none, the next one, so that it shows."""
        jobs = [sent.job for sent in self._sent.values()] + list(self._again)
        self._sent.clear()
        self._again.clear()
        while not jobs and not self._source_ended and not self._stopping:
            with suppress(Empty):
                letter = self._mail.get(timeout=0.2)
                if isinstance(letter, Job):
                    jobs = [letter]
                else:
                    yield from self._open(letter)
        if not self._stopping:
            for job in jobs:
                yield Outcome(job, Status.ERROR, self._lost)
        self._stopping = self._stopped = True

    def _stop_workers(self) -> None:
        """Let no worker begin another job, and hold only what one has begun."""
        self._stopped = True
        begun: set[str] = set()
        self._again.clear()
        with suppress(Exception):  # a scheduler or worker that does not answer has begun nothing that counts
            told = self._client.run(stop_run, self._duty.run, on_error="return")
            begun = {key for keys in told.values() if isinstance(keys, list) for key in keys}
        self._cancel([sent for sent in self._sent.values() if sent.key not in begun])

    def _cancel(self, sent: list[_Sent]) -> None:
        for each in sent:
            del self._sent[each.key]
        futures = [each.future for each in sent if each.future is not None]
        if futures:
            with suppress(Exception):  # without a scheduler nothing has to be cancelled
                self._client.cancel(futures)

    def _leave(self) -> None:
        with suppress(Exception):  # a connection that is broken cannot be closed well
            self._client.unsubscribe_topic("all")
            self._client.close(timeout=2)
