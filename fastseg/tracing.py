"""What ran when, in which thread: a file for Perfetto (ui.perfetto.dev) and chrome://tracing.

The format is the array of Chrome's Trace Event Format (Google, "Trace Event Format", 2016). Its closing
bracket may be missing, so the file of a run that was killed opens too. Events are written as they come, a
line each: memory stays bounded, and a kill loses no more than a second of a busy run.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fastseg.profiling import Span, hearing

__all__ = ["Trace", "active_trace", "tracing"]

# An event writes all that wait when there are so many, or when so many seconds passed since the last writing.
_EVENTS, _SECONDS = 512, 1.0


class Trace:
    """An open trace; any thread may write to it. Made by `tracing`.

    Times are seconds on the clock of `time.perf_counter`. A disk that is full ends the trace, not the run:
    `problem` then says why.
    """

    def __init__(self, file: io.FileIO) -> None:
        self.problem: OSError | None = None
        self._file = file
        self._began = self._written = time.perf_counter()
        self._lock = threading.RLock()  # of a handler of signals, which interrupts its own thread
        self._lanes: dict[str, int] = {}
        self._waiting: list[str] = []
        self._closed = False
        self._append("[\n" + self._line({"ph": "M", "name": "process_name", "args": {"name": "fastseg"}}))

    def task(self, stage: str, volume: str, lane: str, start: float, stop: float) -> None:
        """Something that a worker did from start to stop, such as a stage of a volume.

        Parameters
        ----------
        stage, volume : what was done, and with what
        lane : name of the thread, as spans have it
        start, stop : seconds
        """
        self._complete(stage, "task", lane, start, stop, {"volume": volume} if volume else {})

    def span(self, step: Span) -> None:
        """A step that has ended."""
        arguments: dict[str, object] = {"cpu_ms": round(step.cpu_seconds * 1e3, 3)}
        if step.volume:
            arguments["volume"] = step.volume
        self._complete(step.name, "step", step.lane, step.start, step.start + step.seconds, arguments)

    def counter(self, name: str, values: Mapping[str, float], at: float | None = None) -> None:
        """Numbers that are drawn over time, one above the other.

        Parameters
        ----------
        name : of the drawing, as ``queues``
        values : by their names; the same names each time
        at : seconds; now if not given
        """
        with self._lock:
            self._add({"ph": "C", "name": name, "ts": self._microseconds(at), "args": dict(values)})

    def instant(self, name: str, at: float | None = None, **about: object) -> None:
        """Something that happened at once, such as a retry: a mark across all lanes."""
        with self._lock:
            lane = self._lane(threading.current_thread().name)
            event = {"ph": "i", "s": "p", "name": name, "ts": self._microseconds(at), "args": about}
            self._add({**event, "tid": lane})

    def close(self) -> None:
        """Write what waits, and the end. Events that come later are dropped."""
        with self._lock:
            if self._closed:
                return
            self._write(end="\n]\n")
            self._closed = True
            with contextlib.suppress(OSError):  # of the disk that `problem` names already
                self._file.close()

    def _complete(
        self, name: str, category: str, lane: str, start: float, stop: float, arguments: Mapping[str, object]
    ) -> None:
        begin, end = self._nanoseconds(start), self._nanoseconds(stop)
        event = {
            "ph": "X",
            "name": name,
            "cat": category,
            "ts": begin / 1000,
            "dur": (end - begin) / 1000,
            "args": arguments,
        }
        with self._lock:
            self._add({**event, "tid": self._lane(lane)})

    def _lane(self, name: str) -> int:
        """Number of a lane; at its first use it is named."""
        if name not in self._lanes:
            lane = self._lanes[name] = len(self._lanes) + 1
            self._add({"ph": "M", "name": "thread_name", "tid": lane, "args": {"name": name}})
            self._add({"ph": "M", "name": "thread_sort_index", "tid": lane, "args": {"sort_index": lane}})
        return self._lanes[name]

    def _nanoseconds(self, at: float) -> int:
        # Whole ones: rounded floats of an inner and an outer step could end in the wrong order.
        return round((at - self._began) * 1e9)

    def _microseconds(self, at: float | None) -> float:
        return self._nanoseconds(time.perf_counter() if at is None else at) / 1000

    def _add(self, event: Mapping[str, object]) -> None:
        if self._closed or self.problem is not None:
            return
        self._waiting.append(",\n" + self._line(event))
        if len(self._waiting) >= _EVENTS or time.perf_counter() - self._written >= _SECONDS:
            self._write()

    @staticmethod
    def _line(event: Mapping[str, object]) -> str:
        return json.dumps({"pid": os.getpid(), **event})

    def _write(self, end: str = "") -> None:
        events, self._waiting = self._waiting, []
        self._written = time.perf_counter()
        self._append("".join(events) + end)

    def _append(self, text: str) -> None:
        """Write whole lines at once: only a kill in the midst of it leaves a part of one."""
        left = memoryview(text.encode())
        try:
            while left and self.problem is None:  # once round, but for a disk that is just full
                left = left[self._file.write(left) :]
        except OSError as error:
            self.problem = error


_active: Trace | None = None


def active_trace() -> Trace | None:
    """The trace of this process, if there is one."""
    return _active


@contextmanager
def tracing(path: Path) -> Iterator[Trace]:
    """Trace the process inside the block: all spans, and what is told to `active_trace`.

    Raises
    ------
    OSError
        The file cannot be opened.
    """
    global _active
    before, trace = _active, Trace(io.FileIO(path, "wb"))
    _active = trace
    try:
        with hearing(trace.span):
            yield trace
    finally:
        _active = before
        trace.close()
