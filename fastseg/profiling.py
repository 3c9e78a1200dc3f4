"""Where the time goes: named spans, heard by whoever listens."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from fastseg.call_profile import thread_profile

__all__ = [
    "Recorder",
    "Span",
    "hearing",
    "recording",
    "span",
    "thread_profile",
]


@dataclass(frozen=True, slots=True)
class Span:
    """One step of one volume.

    Parameters
    ----------
    name : the step
    start : seconds on the clock of `time.perf_counter`, which all threads share
    seconds : wall time
    cpu_seconds : CPU time of the thread meanwhile; what an engine's own threads use is not in it
    lane : name of the thread
    volume : name of the volume, empty if it has none
    depth : number of spans around it in its thread; those of depth 0 add up without counting twice
    """

    name: str
    start: float
    seconds: float
    cpu_seconds: float
    lane: str = ""
    volume: str = ""
    depth: int = 0


@dataclass(slots=True)
class Recorder:
    """Collects spans; one volume's may come from several threads, also at once.

    Parameters
    ----------
    began : seconds on the clock of `time.perf_counter`
    spans : in the order in which they ended
    volume : name of the volume, empty if it has none

    Examples
    --------
    >>> with recording(volume="a.nii.gz") as recorder, span("resample"):
    ...     pass
    >>> with recording(recorder), span("predict"):  # later, maybe in another thread
    ...     pass
    >>> [(step.name, step.volume) for step in recorder.spans]
    [('resample', 'a.nii.gz'), ('predict', 'a.nii.gz')]
    """

    began: float = field(default_factory=time.perf_counter)
    spans: list[Span] = field(default_factory=list)
    volume: str = ""

    def seconds(self) -> dict[str, float]:
        """Wall time by step, in the order in which the steps first ended."""
        total: dict[str, float] = {}
        for step in self.spans:
            total[step.name] = total.get(step.name, 0.0) + step.seconds
        return total


@dataclass(slots=True)
class _Place:
    """Where a thread is: who records it, on which volume, how deep in spans."""

    recorder: Recorder | None
    volume: str
    depth: int = 0


_place: ContextVar[_Place | None] = ContextVar("place", default=None)
_nothing = nullcontext()


@contextmanager
def recording(recorder: Recorder | None = None, volume: str = "") -> Iterator[Recorder]:
    """Record the spans inside the block, of this thread.

    Parameters
    ----------
    recorder : to continue, as when a volume goes on in another thread; a new one if not given
    volume : name for the spans; if empty the recorder's, or else that of the recording around this one
    """
    around = _place.get()
    volume = volume or (recorder.volume if recorder else "") or (around.volume if around else "")
    if recorder is None:
        recorder = Recorder(volume=volume)
    token = _place.set(_Place(recorder, volume, around.depth if around else 0))
    try:
        yield recorder
    finally:
        _place.reset(token)


# Who hears the spans of all threads, recorded or not: a trace. Replaced as a whole, so that no thread
# sees it half changed.
_listeners: tuple[Callable[[Span], None], ...] = ()
_registering = threading.Lock()


@contextmanager
def hearing(listener: Callable[[Span], None]) -> Iterator[None]:
    """Let a function hear every span of the process that ends inside the block.

    It is called in the thread of the span, from several at once, and must not raise.
    """
    global _listeners
    with _registering:
        _listeners = (*_listeners, listener)
    try:
        yield
    finally:
        with _registering:
            _listeners = tuple(each for each in _listeners if each is not listener)


def span(name: str) -> AbstractContextManager[None]:
    """Time the block under a name; costs next to nothing when nobody listens."""
    if _place.get() is None and not _listeners and not _always_ranges:
        return _nothing
    return _Step(name)


class _Step:
    """A span that runs. A class, because a generator would cost every step another microsecond."""

    __slots__ = ("_cpu", "_name", "_place", "_ranges", "_start", "_token")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        place = _place.get()
        self._token = None
        if place is None:  # nobody records: only the depth is kept
            place = _Place(None, "")
            self._token = _place.set(place)
        place.depth += 1
        self._place = place
        self._ranges = _nvtx()
        if self._ranges is not None:
            self._ranges.push_range(self._name, domain="fastseg")
        self._cpu, self._start = time.thread_time(), time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop, cpu = time.perf_counter(), time.thread_time()
        if self._ranges is not None:
            self._ranges.pop_range(domain="fastseg")
        place = self._place
        place.depth -= 1
        if self._token is not None:
            _place.reset(self._token)
        step = Span(
            self._name,
            self._start,
            stop - self._start,
            cpu - self._cpu,
            threading.current_thread().name,
            place.volume,
            place.depth,
        )
        if place.recorder is not None:
            place.recorder.spans.append(step)
        for listener in _listeners:
            listener(step)


class _Ranges(Protocol):
    """What we use of the package nvtx."""

    def push_range(self, message: str, *, domain: str) -> object: ...

    def pop_range(self, *, domain: str) -> object: ...


# Ranges for NVIDIA's profilers even where nobody records.
_always_ranges = os.environ.get("FASTSEG_NVTX") == "1"


@functools.cache
def _nvtx() -> _Ranges | None:
    try:
        import nvtx
    except ImportError:
        return None
    ranges: _Ranges = nvtx
    return ranges
