"""Where the time goes: named spans, recorded by whoever listens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

__all__ = ["Recorder", "Span", "recording", "span"]


@dataclass(frozen=True, slots=True)
class Span:
    """One step of one volume.

    Parameters
    ----------
    name : the step
    start : seconds since the recorder began
    seconds : wall time
    cpu_seconds : CPU time of the whole process meanwhile
    """

    name: str
    start: float
    seconds: float
    cpu_seconds: float


@dataclass(slots=True)
class Recorder:
    """Collects spans.

    Examples
    --------
    >>> with recording() as recorder, span("resample"):
    ...     pass
    >>> [step.name for step in recorder.spans]
    ['resample']
    """

    began: float = field(default_factory=time.perf_counter)
    spans: list[Span] = field(default_factory=list)

    def seconds(self) -> dict[str, float]:
        """Wall time by step, in the order in which the steps first ended."""
        total: dict[str, float] = {}
        for step in self.spans:
            total[step.name] = total.get(step.name, 0.0) + step.seconds
        return total


_recorder: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


@contextmanager
def recording() -> Iterator[Recorder]:
    """Record the spans inside the block."""
    recorder = Recorder()
    token = _recorder.set(recorder)
    try:
        yield recorder
    finally:
        _recorder.reset(token)


@contextmanager
def span(name: str) -> Iterator[None]:
    """Time the block under a name; costs next to nothing when nobody records."""
    recorder = _recorder.get()
    if recorder is None:
        yield
        return
    start, cpu = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        recorder.spans.append(
            Span(name, start - recorder.began, time.perf_counter() - start, time.process_time() - cpu)
        )
