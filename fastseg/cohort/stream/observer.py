"""What a stream tells of what it does."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Protocol

from fastseg.cohort.job import Job

__all__ = ["Nobody", "Observer", "Stage"]


class Stage(StrEnum):
    """What a thread does with a volume."""

    READ = "read"
    PREPARE = "prepare"
    INFER = "infer"
    FINISH = "finish"
    WRITE = "write"


class Observer(Protocol):
    """Hears what the stream does; called from all of its threads."""

    def begins(self, job: Job) -> None:
        """Work on a volume begins; none of its files is there yet."""

    def task(self, stage: str, volume: str, start: float, stop: float) -> None:
        """A thread did something for a volume, or several; seconds on the clock of `time.perf_counter`."""

    def queues(self, lengths: Mapping[str, int]) -> None:
        """How many volumes, or images for infer, wait for what."""

    def thread(self) -> AbstractContextManager[object]:
        """Goes around everything that a thread does."""


class Nobody:
    """An observer that looks away."""

    def begins(self, job: Job) -> None:
        """Look away."""

    def task(self, stage: str, volume: str, start: float, stop: float) -> None:
        """Look away."""

    def queues(self, lengths: Mapping[str, int]) -> None:
        """Look away."""

    def thread(self) -> AbstractContextManager[object]:
        """Do nothing around a thread."""
        return nullcontext()
