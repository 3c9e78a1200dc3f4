"""What a run shows on stderr while it goes: a bar on a terminal, otherwise a line a volume."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from fastseg.cli.shared import put

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from fastseg.cohort.job import Job

__all__ = ["Reporter"]


class Reporter:
    """Tells of volumes as they end; hears a stream, to say which of its stages is the busiest.

    Parameters
    ----------
    total : volumes; None: nobody knows
    quiet : tell failures and warnings only
    as_json : every line is a JSON object
    """

    def __init__(self, total: int | None, *, quiet: bool = False, as_json: bool = False) -> None:
        self._total, self._quiet, self._json = total, quiet, as_json
        self._busy: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._bar: Bar | None = None
        self._row: TaskID | None = None
        self._failed = self._worked = 0
        self._began = time.perf_counter()

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the bar, where there is a terminal and something to follow."""
        many = self._total is None or self._total > 1
        if (
            self._quiet
            or self._json
            or not many
            or not sys.stderr.isatty()
            or os.environ.get("TERM") == "dumb"
        ):
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(file=sys.stderr, no_color="NO_COLOR" in os.environ)
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            self._bar, self._row = bar, bar.add_task("", total=self._total)
            try:
                yield
            finally:
                self._bar = None

    def mask(self, path: Path) -> None:
        """Write the path of a result to stdout; not into the bar, where both are on one terminal."""
        if self._bar is None or not sys.stdout.isatty():
            put(str(path))

    def volume(self, name: str, status: str, message: str, notes: tuple[str, ...], seconds: float) -> None:
        """Tell of one volume that ended."""
        failed = status not in ("ok", "ok_flagged", "skipped", "cached")
        self._failed += failed
        self._worked += status in ("ok", "ok_flagged")
        if self._json:
            facts = {"name": name, "status": status, "seconds": round(seconds, 3)}
            self._emit("volume", **facts, message=message, notes=list(notes))
        else:
            for note in notes:
                self._line(f"warning: {name}: {note}")
            if failed or not (self._quiet or (self._bar is not None and not notes)):
                self._line(f"{status:<13} {name}  {seconds:.2f} s  {message}".rstrip())
        if self._bar is not None and self._row is not None:
            rate = 60 * self._worked / max(time.perf_counter() - self._began, 1e-9)
            with self._lock:
                busiest = max(self._busy, key=self._busy.__getitem__, default="")
                for stage in self._busy:
                    self._busy[stage] *= 0.9  # lately, not since the beginning
            text = f"{rate:.0f}/min, {self._failed} failed" + (f", busiest: {busiest}" if busiest else "")
            self._bar.update(self._row, advance=1, description=text)

    def say(self, text: str, *, warning: bool = False, **facts: object) -> None:
        """Tell something about the run as a whole."""
        if self._json:
            self._emit("warning" if warning else "message", message=text, **facts)
        elif warning:
            self._line(f"warning: {text}")
        elif not self._quiet:
            self._line(f"fastseg: {text}")

    def _emit(self, event: str, **facts: Any) -> None:
        self._line(json.dumps({"event": event, "at": round(time.time(), 3), **facts}))

    def _line(self, text: str) -> None:
        # A name that holds line ends or escape codes must not draw over other lines.
        shown = "".join(c if c.isprintable() or 0xDC80 <= ord(c) <= 0xDCFF else repr(c)[1:-1] for c in text)
        if self._bar is not None:
            self._bar.console.print(shown, markup=False, highlight=False, soft_wrap=True)
        else:
            put(shown, err=True)

    # --- as the observer of a stream

    def begins(self, job: Job) -> None:
        """Nothing is told of beginnings."""

    def task(self, stage: str, volume: str, start: float, stop: float) -> None:
        """Add up what the stages take."""
        with self._lock:
            self._busy[stage] += stop - start
        trace = _trace()
        if trace is not None:
            trace.task(stage, volume, threading.current_thread().name, start, stop)

    def queues(self, lengths: Mapping[str, int]) -> None:
        """Pass the lengths on to the trace, where there is one."""
        trace = _trace()
        if trace is not None:
            trace.counter("queues", lengths)

    def thread(self) -> AbstractContextManager[object]:
        """Profile the thread, where that was asked for."""
        from fastseg.call_profile import thread_profile

        return thread_profile()


def _trace() -> Any:
    from fastseg.tracing import active_trace

    return active_trace()
