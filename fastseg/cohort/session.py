"""A run over a cohort: what is done is not done again, what ends is written down, and it can be stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from fastseg import __version__
from fastseg.cohort.fingerprints import Fingerprint, fingerprint_record
from fastseg.cohort.job import Job, Outcome, Refused, Status
from fastseg.cohort.ledger import History, Ledger, Shard, read_ledgers
from fastseg.cohort.logs import write_log
from fastseg.cohort.resume import Resume, key_of, relative, remove_leftovers
from fastseg.cohort.segmenters import Segmenters
from fastseg.cohort.stream.observer import Nobody, Observer
from fastseg.cohort.stream.stream import Limits, Stream, Told
from fastseg.cohort.work import Manner
from fastseg.engines.compute import AUTO, Compute
from fastseg.engines.cuda.failures import lost_gpu

__all__ = ["Executor", "Plans", "Session"]

_logger = logging.getLogger(__name__)

# Volumes whose results are looked at ahead of time in one go.
_LOOK_THREADS = 4


class Executor(Protocol):
    """What works on jobs: the stream of this process, or a cluster."""

    def run(self, jobs: Iterable[Job | Told]) -> Iterator[Told]:
        """Work on jobs, pass on what else is told; gives outcomes as they come."""

    def stop(self) -> None:
        """Take no further job; those under way are finished. May be called from a signal handler."""


@dataclass(frozen=True, slots=True)
class Plans:
    """How a run goes.

    Parameters
    ----------
    out : output folder; its ledger is there
    root : data set, to which messages name files relatively
    manner : how volumes are worked on
    limits : how much may be taken
    models, compute : see `fastseg.Segmenter`
    shard : of which this run is
    overwrite : whether every volume is worked on, and whatever lies there is replaced
    retry_failed : whether volumes that failed by themselves are tried again
    max_failures : so many, and no further volume is begun; None: never
    command : words of the command line, for the ledger
    """

    out: Path
    root: Path
    manner: Manner = field(default_factory=Manner)
    limits: Limits = field(default_factory=Limits)
    models: str | Path = "default"
    compute: Compute = AUTO
    shard: Shard = field(default_factory=Shard)
    overwrite: bool = False
    retry_failed: bool = False
    max_failures: int | None = None
    command: tuple[str, ...] = ()


MakeExecutor = Callable[
    [Plans, Callable[[Job], None], Callable[[Job], str]], AbstractContextManager[Executor]
]


class Session:
    """Holds the output folder's lock and ledger, and the open networks, while it runs.

    A context manager.

    Parameters
    ----------
    plans : how it goes
    observer : hears what the stream does
    executor : makes what works on the jobs, from the plans, what hears of each job before it begins, and what
        names the engine that a job has to be run by; None: the stream of this process

    Raises
    ------
    OptionError
        Another run works in the output folder.
    OutputError
        The ledger cannot be written.
    NetworkError, EngineError
        The networks cannot be opened.
    """

    def __init__(
        self,
        plans: Plans,
        observer: Observer | None = None,
        executor: MakeExecutor | None = None,
    ) -> None:
        self._plans, self._observer, self._make_executor = plans, observer, executor
        self._stack = ExitStack()
        self._executor: Executor | None = None
        self._keys: dict[tuple[object, ...], str] = {}
        self._stopped = False
        self.leftovers = 0
        self.history = History()
        self.failures = 0

    def __enter__(self) -> Self:
        plans = self._plans
        with ExitStack() as stack:
            self._ledger = stack.enter_context(Ledger(plans.out, plans.shard))
            self.history = read_ledgers(plans.out)
            self.leftovers = remove_leftovers(self.history, plans.out, self._ledger.tag)
            self._segmenters = stack.enter_context(Segmenters(models=plans.models, compute=plans.compute))
            plans = replace(plans, manner=replace(plans.manner, tag=self._ledger.tag, durable=True))
            self._plans = plans
            self._resume = Resume(
                self.history,
                plans.out,
                plans.manner.kinds,
                overwrite=plans.overwrite,
                retry_failed=plans.retry_failed,
            )
            if self._make_executor is not None:
                self._executor = stack.enter_context(
                    self._make_executor(plans, self._begins, self._engine_of)
                )
            self._ledger.run(
                version=__version__,
                command=list(plans.command),
                cwd=str(Path.cwd()),
                root=str(plans.root.absolute()),
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def shard(self) -> Shard:
        """Of which this run is."""
        return self._plans.shard

    @property
    def scratch(self) -> Path:
        """Temporary file of this run alone."""
        return self._ledger.scratch

    def stop(self) -> None:
        """Begin no further volume; those under way are finished. May be called from a signal handler."""
        self._stopped = True
        if self._executor is not None:
            self._executor.stop()

    def run(self, jobs: list[Job]) -> Iterator[Told]:
        """Work on a list of jobs, of which the shard's are taken.

        Yields
        ------
        outcomes : first of what is done already, then in the order in which they come

        Raises
        ------
        OutputError
            The ledger cannot be written: the disk is full.
        """
        own = [job for number, job in enumerate(jobs) if self._plans.shard.holds(number)]
        todo = []
        for decision in self._resume.decide_all(own, self._key, _LOOK_THREADS):
            if self._stopped:
                return
            if decision.outcome is not None:
                yield self._settled(decision.outcome)
            else:
                todo.append(decision)
        yield from self._work(decision.job for decision in todo if not decision.suspect)
        # What runs died over comes last and one by one: only it is lost if that happens again. The likeliest
        # cause is the one with the most deaths, and of those that died together the first: it was furthest.
        suspects = [decision for decision in reversed(todo) if decision.suspect]
        for decision in sorted(suspects, key=lambda decision: decision.deaths):
            if not self._stopped:
                _logger.warning("%s: earlier runs died while they worked on it", decision.job.name)
                yield from self._work([decision.job])

    def run_stream(self, jobs: Iterable[Job | Told]) -> Iterator[Told]:
        """Work on jobs as they come; what cannot be a job comes as its outcome.

        Yields
        ------
        outcomes : in the order in which they come
        """
        yield from self._work(self._looked_at(jobs))

    def _looked_at(self, jobs: Iterable[Job | Told]) -> Iterator[Job | Told]:
        for number, each in enumerate(jobs):
            if not self._plans.shard.holds(number):
                continue
            if not isinstance(each, Job):
                yield each
                continue
            decision = self._resume.decide(each, self._key(each))
            yield decision.job if decision.outcome is None else decision.outcome

    def _work(self, jobs: Iterable[Job | Told]) -> Iterator[Told]:
        plans = self._plans
        if self._stopped or self._failed_enough():
            return
        stream: Executor | None = self._executor
        if self._make_executor is None:
            stream = Stream(
                self._segmenters, plans.manner, plans.limits, _Begins(self._begins, self._observer)
            )
            self._executor = stream
        assert stream is not None
        if self._stopped:  # by a signal that came while the stream was made
            stream.stop()
        for outcome in stream.run(jobs):
            yield self._settled(outcome)
            if self._failed_enough() or self._gpu_is_lost(outcome):
                self.stop()

    def _gpu_is_lost(self, outcome: Told) -> bool:
        """Whether all that would come after this failure would fail too, until another process begins."""
        lost = lost_gpu() if outcome.status is Status.ERROR and not self._stopped else ""
        if lost:
            _logger.warning("%s; the run ends here, and the same command goes on with what is left", lost)
        return bool(lost)

    def _failed_enough(self) -> bool:
        most = self._plans.max_failures
        return most is not None and self.failures >= most

    def _begins(self, job: Job) -> None:
        self._ledger.begin(relative(job.outputs.mask, self._plans.out), job.name)

    def _settled(self, outcome: Told) -> Told:
        """Write an outcome down, if it is news."""
        if isinstance(outcome, Refused):
            self.failures += 1
            return outcome
        outcome = replace(outcome, message=self._relative_text(outcome.message))
        if "earlier" not in outcome.record:  # else a run that stops at failures would never get past old ones
            self.failures += not outcome.status.success
        if outcome.record.get("news", True) and outcome.status is not Status.CACHED:
            mask = relative(outcome.job.outputs.mask, self._plans.out)
            log = write_log(outcome, self._plans.out, self._ledger.scratch)
            self._ledger.end(mask, **self._line(outcome), **({"log": log} if log else {}))
        return outcome

    def _line(self, outcome: Outcome) -> dict[str, object]:
        record = outcome.record
        prints = record.get("fingerprints", {})
        assert isinstance(prints, Mapping)
        known: dict[str, Fingerprint] = dict(prints)
        return {
            "name": outcome.job.name,
            "key": self._key(outcome.job),
            "status": str(outcome.status),
            "message": outcome.message,
            "notes": list(outcome.notes),
            "flags": list(outcome.flags),
            "measures": dict(outcome.measures),
            "seconds": {step: round(seconds, 4) for step, seconds in outcome.seconds.items()},
            "contrast": outcome.job.options.contrast,
            "inputs": fingerprint_record(known),
            "outputs": record.get("outputs", {}),
            "engines": record.get("engines", {}),
            **({"frame": outcome.job.frame} if outcome.job.frame is not None else {}),
            **({"attempts": record["attempts"]} if "attempts" in record else {}),
        }

    def _key(self, job: Job) -> str:
        facts = (job.options, job.frame, job.centerline is not None)
        if facts not in self._keys:
            self._keys[facts] = key_of(self._segmenters.of(job.options), job, self._plans.manner)
        return self._keys[facts]

    def _engine_of(self, job: Job) -> str:
        return self._segmenters.of(job.options).engine.name

    def _relative_text(self, text: str) -> str:
        """Without the folders of this machine, so that reports can be passed on."""
        for folder in (self._plans.root, self._plans.out, self._plans.out.absolute()):
            if folder.name:
                text = text.replace(f"{folder}/", "")
        return text


class _Begins:
    """An observer that writes beginnings down, and passes the rest on."""

    def __init__(self, begins: Callable[[Job], None], observer: Observer | None) -> None:
        self._begins = begins
        self._observer: Observer = observer or Nobody()
        self.task, self.queues = self._observer.task, self._observer.queues
        self.thread = self._observer.thread

    def begins(self, job: Job) -> None:
        self._begins(job)
        self._observer.begins(job)
