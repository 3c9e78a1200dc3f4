"""A process for each GPU, and the volumes spread over them: each gets another job when it asks for one.

The parent keeps the ledger and hands out jobs; children (`fastseg.cohort.fleet.worker`) work from file to
files, each with a stream and networks of its own. Nobody but the parent knows of all: a child that dies costs
the volumes that it had begun a second attempt, alone, in a fresh process of the same GPU. A GPU whose
processes die without ever finishing a volume is left out.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Self

from fastseg.cohort.fleet.member import Feed, Log, Mail, Member
from fastseg.cohort.fleet.places import Place, Sent, places_for
from fastseg.cohort.fleet.worker import Asks, Begins, Ended, Go, Hand, Raised, Stop
from fastseg.cohort.job import Job, Outcome, Refused, Status
from fastseg.cohort.stream.stream import Told
from fastseg.engines.compute import Compute
from fastseg.errors import EngineError, EngineUnavailable, NetworkError
from fastseg.outputs import forget_stages
from fastseg.tracing import active_trace

if TYPE_CHECKING:
    from fastseg.cohort.session import Plans

__all__ = ["Fleet", "open_fleet"]

_logger = logging.getLogger(__name__)

# Deaths in a row, without a volume that was begun and ended between them, after which a GPU is left out: the
# first over some volumes, the others over two of these alone. Two in a row may be the doing of one volume.
_DEATHS = 3
# A signal handler cannot wake the thread that waits for mail: how long until it looks by itself.
_LOOK_SECONDS = 0.2
# For a process that was told to stop and has nothing to do.
_PARTING_SECONDS = 10.0


@contextmanager
def open_fleet(computes: Sequence[Compute], plans: Plans, begins: Callable[[Job], None]) -> Iterator[Fleet]:
    """Open what works on jobs with several processes; an executor for `fastseg.cohort.session.Session`.

    Parameters
    ----------
    computes : what the networks of each process run on: as a rule a GPU
    plans : of them, workers and memory of all processes together, and what they have to do
    begins : hears of each job before its volume is read

    Raises
    ------
    OptionError
        There is too little memory for so many processes.
    """
    places = places_for(computes, plans)
    if active_trace() is not None:
        _logger.warning(
            "--trace has only the process of the command in it, not the %d that run networks", len(places)
        )
    with Fleet(places, begins) as fleet:
        yield fleet


class Fleet:
    """Works on jobs with several processes: an `Executor` of `fastseg.cohort.session`.

    A context manager. A process starts when there is a job for it. Whatever happens here happens in the
    thread that takes the outcomes; what gives the jobs is waited for in another one.

    Parameters
    ----------
    places : where its processes run
    begins : hears of each job before its volume is read
    """

    def __init__(self, places: Sequence[Place], begins: Callable[[Job], None]) -> None:
        self._places, self._begins = places, begins
        self._mail: Mail = SimpleQueue()
        self._log = Log()
        self._feed: Feed | None = None
        self._waiting: deque[Sent] = deque()
        self._orphans: deque[Sent] = deque()  # of places that are lost
        self._numbers = itertools.count(1)
        self._finished = 0
        self._stopping = self._stopped = False

    def __enter__(self) -> Self:
        logging.getLogger("fastseg").addHandler(self._log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        members = [place.member for place in self._places if place.member is not None]
        for member in members:
            member.tell(Stop())
        for member in members:
            member.join(_PARTING_SECONDS if kind is None else 0.0)
        logging.getLogger("fastseg").removeHandler(self._log)

    def stop(self) -> None:
        """Take no further job; those that were begun are finished. Safe in a signal handler."""
        self._stopping = True

    def run(self, jobs: Iterable[Job | Told]) -> Iterator[Told]:
        """Work on jobs; may be called again when it has ended.

        Parameters
        ----------
        jobs : may be slow to come, or never end; what is told among them is passed on

        Yields
        ------
        outcomes : in the order in which they come. A volume that kills two processes is one; where no
            process is left, so is each job that was taken.

        Raises
        ------
        NetworkError, EngineError
            The networks of a process cannot be opened, or no process lived to finish a volume.
        """
        feed = self._feed = Feed(jobs, self._mail, len(self._places))
        try:
            while self._busy:
                if self._stopping and not self._stopped:
                    self._let_stop()
                self._hand_out()
                self._start()
                if all(place.lost and place.member is None for place in self._places):
                    yield from self._give_up()
                with suppress(Empty):
                    yield from self._open(*self._mail.get(timeout=_LOOK_SECONDS))
        finally:
            feed.close()
            self._abandon()

    @property
    def _busy(self) -> bool:
        """Whether something is under way, or may still come."""
        if self._feed is not None and not self._stopping:
            return True
        waiting = self._waiting or self._orphans
        return bool(waiting) or any(place.handed or place.suspects for place in self._places)

    # --- jobs

    def _hand_out(self) -> None:
        """Give each process that asks what is best done there."""
        for place in self._places:
            if place.member is None or place.lost or not place.asks:
                continue
            sent = place.next(self._waiting, self._orphans)
            if sent is not None:
                if not sent.number and self._feed is not None:
                    self._feed.more()
                sent.number = next(self._numbers)
                place.asks, place.handed[sent.number] = False, sent
                place.member.tell(Hand(sent.number, sent.job))

    def _start(self) -> None:
        """Start processes for which there are jobs that nobody else is about to ask for."""
        if self._stopping:
            return
        places = [place for place in self._places if not place.lost]
        coming = sum(place.member is not None and not (place.asks or place.handed) for place in places)
        for place in places:
            if place.member is None and (place.suspects or len(self._waiting) + len(self._orphans) > coming):
                coming += 1
                try:
                    place.start(self._mail, self._log)
                except OSError as error:
                    self._lose(place, f"no process can be started ({error.strerror or error})")

    # --- mail

    def _open(self, sender: object, letter: object) -> Iterator[Told]:
        """Do what came by mail."""
        if sender is self._feed:
            yield from self._take(letter)
        for place in self._places:
            if place.member is sender:
                yield from self._hear(place, letter)

    def _take(self, letter: object) -> Iterator[Told]:
        assert self._feed is not None
        if letter is None:
            self._feed = None
        elif isinstance(letter, BaseException):
            raise letter
        elif isinstance(letter, Job):
            if not self._stopping:
                self._waiting.append(Sent(letter))
        elif isinstance(letter, Outcome | Refused):
            self._feed.more()
            yield letter

    def _hear(self, place: Place, letter: object) -> Iterator[Told]:
        assert place.member is not None
        match letter:
            case Asks():
                place.asks = True
            case Begins(number):
                place.handed[number].begin(place.share.manner.kinds)
                self._begins(place.handed[number].job)
                place.member.tell(Go(number))
            case Ended(number, outcome):
                sent = place.handed.pop(number)
                if sent.begun:  # else the GPU had no part in it
                    place.deaths = 0
                    self._finished += 1
                yield replace(outcome, job=sent.job)
            case Raised(error):
                if place.starts == 1 or not isinstance(error, NetworkError | EngineError):
                    raise error
                self._lose(place, f"its networks do not open again: {error}")
            case None:
                yield from self._bury(place, place.member)

    # --- ends

    def _bury(self, place: Place, member: Member) -> Iterator[Told]:
        """Take back what a process had that has ended."""
        how = member.join(_PARTING_SECONDS)
        place.member, place.asks = None, False
        handed, place.handed = [*place.handed.values()], {}
        begun = self._clear(handed, member)
        if not self._stopping:
            place.suspects.extendleft(sent for sent in handed if sent.alone and not sent.begun)
            self._waiting.extendleft(sent for sent in reversed(handed) if not (sent.alone or sent.begun))
        elif not begun:
            return
        place.deaths += 1
        for sent in begun:
            sent.begun = False
            if sent.alone:
                sent.take_back()
                message = (
                    f"two processes died with it, the last one, on {place.label}, {how}: most likely for "
                    "memory, or by a fault of a driver; crop it, or try it by itself"
                )
                yield Outcome(sent.job, Status.ERROR, message)
            elif not self._stopping:
                sent.alone = True
                place.suspects.append(sent)
        again = ", ".join(sent.job.name for sent in place.suspects)
        what = f"; tried again, one by one: {again}" if again else ""
        _logger.warning("a process on %s %s%s", place.label, how, what)
        if place.deaths >= _DEATHS and not place.lost:
            self._lose(place, f"{place.deaths} processes in a row died without a volume that was finished")
        if place.lost:
            self._orphans.extend(place.suspects)
            place.suspects.clear()

    def _clear(self, handed: Iterable[Sent], member: Member) -> list[Sent]:
        """Remove what an ended process left of volumes that it had begun; gives these."""
        begun = [sent for sent in handed if sent.begun]
        for folder in {sent.job.outputs.folder for sent in begun}:
            if folder.is_dir():
                forget_stages(folder, member.tag)
        return begun

    def _lose(self, place: Place, why: str) -> None:
        place.lost = why
        if len(self._places) > 1:
            _logger.warning("%s is left out: %s", place.label, why)

    def _give_up(self) -> Iterator[Told]:
        """End without processes: jobs that were taken fail, or else the next one, so that it shows."""
        reasons = "; ".join(f"{place.label}: {place.lost}" for place in self._places)
        text = f"no process is left to work ({reasons})"
        if not self._finished:
            raise EngineUnavailable(f"{text}: look at `fastseg doctor`, or choose another --device")
        sent = [*self._waiting, *self._orphans]
        self._waiting.clear()
        self._orphans.clear()
        while not sent and self._feed is not None and not self._stopping:
            with suppress(Empty):
                yield from self._open(*self._mail.get(timeout=_LOOK_SECONDS))
            sent = [*self._waiting]
        self._waiting.clear()
        for each in sent:
            if not self._stopping:
                yield Outcome(
                    each.job, Status.ERROR, f"{text}: start the run again, or choose another --device"
                )
        self._stopping = self._stopped = True

    def _let_stop(self) -> None:
        """Drop what no process has begun; what one has begun is finished."""
        self._stopped = True
        self._waiting.clear()
        self._orphans.clear()
        for place in self._places:
            place.suspects.clear()
            if place.member is not None:
                place.member.tell(Stop())

    def _abandon(self) -> None:
        """Where a run ends early, nothing that is under way is written any more."""
        self._feed = None
        self._waiting.clear()
        self._orphans.clear()
        for place in self._places:
            place.suspects.clear()
            if place.handed and place.member is not None:
                place.member.join(0.0)
                self._clear(place.handed.values(), place.member)
                place.member, place.asks, place.handed = None, False, {}
