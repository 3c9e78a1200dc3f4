"""Threads that are looked after: a step without progress is told of by name, and in the end given up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

__all__ = ["Crew", "Replaced", "Task"]

_logger = logging.getLogger(__name__)


class Replaced(Exception):
    """The thread's step was given up meanwhile, and another thread has taken its place: it has to end."""


@dataclass(slots=True, eq=False)
class Task:
    """What a thread is doing.

    Parameters
    ----------
    step : its name
    volumes : names of those that it is done for
    hangs : called, with the reason, when it is given up; its thread may come back one day, or never
    """

    step: str
    volumes: str
    hangs: Callable[[str], None]
    since: float = field(default_factory=time.perf_counter)
    thread: threading.Thread = field(default_factory=threading.current_thread)
    told: float = 0.0
    replaced: bool = False


class Crew:
    """Threads, and what they do for how long. May be used from several threads.

    Parameters
    ----------
    around : goes around everything that a thread does
    failed : called with what a thread raises
    stall_seconds : from when on a task that does not end is told of, again each time this doubles
    give_up_seconds : from when on it is given up
    """

    def __init__(
        self,
        around: Callable[[], AbstractContextManager[object]],
        failed: Callable[[BaseException], None],
        *,
        stall_seconds: float,
        give_up_seconds: float,
    ) -> None:
        self._around, self._failed = around, failed
        self._stall_seconds, self._give_up_seconds = stall_seconds, give_up_seconds
        self._threads: set[threading.Thread] = set()
        self._tasks: set[Task] = set()
        self._lock = threading.Lock()

    @property
    def pause_seconds(self) -> float:
        """How long to wait between two looks."""
        return min(self._stall_seconds / 4, self._give_up_seconds / 4, 0.2)

    def start(self, loop: Callable[[], None], name: str) -> None:
        """Start a thread."""

        def run() -> None:
            try:
                with self._around():
                    loop()
            except Replaced:
                pass
            except BaseException as error:
                self._failed(error)
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        # A daemon: a thread that hangs in a file system must not keep the process from ending.
        thread = threading.Thread(target=run, name=name, daemon=True)
        with self._lock:  # whoever joins must not see it before it runs
            self._threads.add(thread)
            thread.start()

    def join(self, seconds: float, *, but: threading.Thread | None = None) -> None:
        """Wait for threads to end, but for one and for those that hang, and no longer than that."""
        deadline = time.monotonic() + seconds
        with self._lock:
            threads = self._threads - {but, threading.current_thread()}
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def begin(self, step: str, volumes: str, hangs: Callable[[str], None]) -> Task:
        """Note that this thread begins with something."""
        task = Task(step, volumes, hangs)
        with self._lock:
            self._tasks.add(task)
        return task

    def end(self, task: Task) -> float:
        """Note that it is done; gives the time on the clock of `time.perf_counter`.

        Raises
        ------
        Replaced
            It was given up.
        """
        with self._lock:
            self._tasks.discard(task)
            if task.replaced:
                raise Replaced
        return time.perf_counter()

    def look(self) -> None:
        """Tell of what takes long, give up what takes too long."""
        now, lost = time.perf_counter(), []
        with self._lock:
            for task in list(self._tasks):
                seconds = now - task.since
                if seconds >= max(self._stall_seconds, 2 * task.told):
                    task.told = seconds
                    _logger.warning(
                        "%s: %s has made no progress for %.0f s", task.volumes, task.step, seconds
                    )
                if seconds >= self._give_up_seconds:
                    self._tasks.discard(task)
                    self._threads.discard(task.thread)
                    task.replaced = True
                    lost.append((task, seconds))
        for task, seconds in lost:
            task.hangs(f"{task.step} made no progress for {seconds:.0f} s; the volume was given up")
