"""What one process of a fleet does: a stream of its own, with jobs that it asks the parent for one by one.

A process holds one connection to its parent. Its end means that the parent is gone, or wants this process to
be: it ends at once, in the middle of whatever it does, as `kill -9` would end a run in one process.

Heavy imports are inside functions: kernels have to be loaded before anything that uses them.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from fastseg.cohort.job import Job, Outcome, Status
from fastseg.cohort.stream.observer import Nobody
from fastseg.engines.compute import Compute
from fastseg.engines.cuda.failures import lost_gpu
from fastseg.errors import FastsegError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from fastseg.cohort.segmenters import Segmenters
    from fastseg.cohort.stream.admission import Limits
    from fastseg.cohort.stream.stream import Stream
    from fastseg.cohort.work import Manner

__all__ = ["PARTING", "Asks", "Begins", "Ended", "Go", "Hand", "Raised", "Says", "Share", "Stop", "work"]

_logger = logging.getLogger(__name__)

#: Signals that a terminal or a batch system sends to all processes at once: the parent tells the others.
PARTING = (signal.SIGINT, signal.SIGTERM)


# --- from the parent


@dataclass(frozen=True, slots=True)
class Share:
    """The first message: how this process works, and how much it may take.

    Parameters
    ----------
    models : see `fastseg.Segmenter`
    manner : how volumes are worked on
    limits : the part of this process
    """

    models: str | Path
    manner: Manner
    limits: Limits


@dataclass(frozen=True, slots=True)
class Hand:
    """A job, under its number."""

    number: int
    job: Job


@dataclass(frozen=True, slots=True)
class Go:
    """The beginning of a job is written down: its volume may be read."""

    number: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Begin nothing more; end when what was begun is done."""


# --- to the parent


@dataclass(frozen=True, slots=True)
class Asks:
    """There is time for another job."""


@dataclass(frozen=True, slots=True)
class Begins:
    """A job is about to be begun; answered by `Go`."""

    number: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a job."""

    number: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Says:
    """A line of the log."""

    logger: str
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Raised:
    """What ends this process: its networks do not open, or its stream fails."""

    error: BaseException


def work(connection: Connection, compute: Compute, levels: Mapping[str, int]) -> None:
    """Be a process of a fleet, to its end.

    Parameters
    ----------
    connection : to the parent, which sends a `Share` first
    compute : what the networks run on here
    levels : of the loggers whose lines are passed on
    """
    for number in PARTING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PARTING)
    line = _Line(connection)
    line.pass_log_on(levels)
    try:
        _begin()
        share: Share = connection.recv()
        _Worker(line, compute, share).run()
    except EOFError:  # nobody wants it any more
        os._exit(1)
    except BaseException as error:
        line.tell(Raised(_sendable(error)))
    # Files are closed; taking numba's objects apart would take longer than the last volume.
    os._exit(0)


def _begin() -> None:
    from fastseg.cohort.memory import tame_allocator
    from fastseg.compilation import load_kernels

    tame_allocator()
    load_kernels(own_process=True)


def _sendable(error: BaseException) -> BaseException:
    """An error that the other side can make again, with the traceback that only this side knows."""
    if not isinstance(error, FastsegError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        again: BaseException = pickle.loads(pickle.dumps(error))
    except Exception:
        again = RuntimeError(f"{type(error).__name__}: {error}")
        again.add_note("".join(traceback.format_exception(error)))
    return again


class _Line:
    """The way to the parent, for all threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def tell(self, message: object) -> None:
        """Send something; without a parent, end."""
        try:
            with self._lock:
                self._connection.send(message)
        except OSError:
            os._exit(1)

    def next(self) -> object:
        """Wait for what the parent sends; without a parent, end."""
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            os._exit(1)

    def pass_log_on(self, levels: Mapping[str, int]) -> None:
        """Let the parent say what is said here, warnings of libraries too."""
        logging.captureWarnings(True)
        passing = _Passing(self)
        for name in ("fastseg", "py.warnings"):
            logging.getLogger(name).addHandler(passing)
            logging.getLogger(name).propagate = False
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


class _Passing(logging.Handler):
    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        self._line.tell(Says(record.name, record.levelno, self.format(record)))


class _Worker(Nobody):
    """Runs one stream as long as jobs come; its observer, which lets the parent write beginnings down."""

    def __init__(self, line: _Line, compute: Compute, share: Share) -> None:
        self._line, self._compute, self._share = line, compute, share
        self._handed: SimpleQueue[Hand | None] = SimpleQueue()
        self._under_way: dict[int, Hand] = {}  # by the identity of the job: two may be equal
        self._gates: dict[int, threading.Event] = {}
        self._stream: Stream | None = None
        self._stopping = False

    def run(self) -> None:
        """Work until the parent stops it."""
        from fastseg.cohort.segmenters import Segmenters
        from fastseg.cohort.stream.stream import Stream

        threading.Thread(target=self._listen, name="parent", daemon=True).start()
        share = self._share
        with Segmenters(models=share.models, compute=self._compute) as segmenters:
            jobs = self._jobs(segmenters)
            # The stream looks how much memory is left when it begins: after the networks are open.
            first = next(jobs, None)
            if first is None:
                return
            self._stream = stream = Stream(segmenters, share.manner, share.limits, self)
            if self._stopping:
                stream.stop()
            for outcome in stream.run(chain([first], jobs)):
                assert isinstance(outcome, Outcome)  # nothing else is handed out
                if outcome.status is Status.ERROR and (lost := lost_gpu()):
                    # It would fail whatever it gets, and faster than any other process works. Its death gives
                    # what it had begun to another one.
                    _logger.warning("%s", lost)
                    os._exit(1)
                number = self._under_way.pop(id(outcome.job)).number
                self._line.tell(Ended(number, outcome))

    def _listen(self) -> None:
        while True:
            message = self._line.next()
            if isinstance(message, Hand):
                self._handed.put(message)
            elif isinstance(message, Go):
                self._gates.pop(message.number).set()
            elif isinstance(message, Stop):
                self._stopping = True
                if self._stream is not None:
                    self._stream.stop()
                self._handed.put(None)

    def _jobs(self, segmenters: Segmenters) -> Iterator[Job]:
        """Ask for one job after the other; networks are open before the first volume that needs them."""
        while True:
            self._line.tell(Asks())
            hand = self._handed.get()
            if hand is None:
                return
            segmenters.of(hand.job.options)
            self._under_way[id(hand.job)] = hand
            yield hand.job

    def begins(self, job: Job) -> None:
        """Wait until the parent has written down that a volume is begun."""
        number = self._under_way[id(job)].number
        self._gates[number] = gate = threading.Event()
        self._line.tell(Begins(number))
        gate.wait()
