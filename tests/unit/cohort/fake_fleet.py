"""Processes of a fleet without processes: each is a thread that does what a script says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from fastseg.cohort.fleet import places
from fastseg.cohort.fleet.worker import Asks, Begins, Ended, Go, Hand, Raised, Share, Stop
from fastseg.cohort.job import Job, Outcome, Status
from fastseg.cohort.session import Plans
from fastseg.cohort.stream.stream import Limits
from fastseg.cohort.work import Manner
from fastseg.engines.compute import Compute
from fastseg.options import Options
from fastseg.outputs import outputs_of

__all__ = ["CPU", "Dies", "FakeMember", "Script", "fake_jobs", "plans_of"]

CPU = Compute(device="cpu", engine="onnxruntime")


class Dies(Exception):
    """The process dies now."""


class Script:
    """What all processes of a test do, and what they did.

    Attributes
    ----------
    act : called in the thread of a process when a volume may be read; gives None where the volume is held
        until the process is stopped or dies
    at_once : jobs that a process has at the same time
    opens : called for the first job of a process; may raise
    """

    def __init__(self) -> None:
        self.act: Callable[[FakeMember, Job], Outcome | None] = lambda member, job: Outcome(job, Status.OK)
        self.opens: Callable[[FakeMember], object] = lambda member: None
        self.at_once = 1
        self.members: list[FakeMember] = []

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> Script:
        """Let fleets be made of these from now on."""

        def make(label: str, compute: Compute, share: Share, mail: Any, log: Any) -> FakeMember:
            self.members.append(FakeMember(self, label, share, mail))
            return self.members[-1]

        monkeypatch.setattr(places, "Member", make)
        return self

    def done_by(self) -> dict[str, int]:
        """How many volumes were finished where."""
        counts: dict[str, int] = {}
        for member in self.members:
            counts[member.label] = counts.get(member.label, 0) + len(member.done)
        return counts


class FakeMember:
    """A process that is none."""

    def __init__(self, script: Script, label: str, share: Share, mail: Any) -> None:
        self.label, self.tag, self.share = label, share.manner.tag, share
        self.script, self._mail = script, mail
        self.begun: list[str] = []
        self.done: list[str] = []
        self.ended = threading.Event()
        self._hands: dict[int, Hand] = {}
        self._inbox: SimpleQueue[object] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def tell(self, message: object) -> None:
        self._inbox.put(message)

    def join(self, seconds: float) -> str:
        self._inbox.put(None)
        assert self.ended.wait(60)
        return "was killed by SIGKILL"

    def _run(self) -> None:
        try:
            self._say(Asks())
            while (message := self._inbox.get()) is not None:
                if isinstance(message, Hand):
                    self._take(message)
                elif isinstance(message, Go):
                    self._act(message.number)
                elif isinstance(message, Stop):
                    break
        except Dies:
            pass
        finally:
            self.ended.set()
            self._mail.put((self, None))

    def _say(self, message: object) -> None:
        self._mail.put((self, message))

    def _take(self, hand: Hand) -> None:
        try:
            self.script.opens(self)
        except Dies:
            raise
        except Exception as error:
            self._say(Raised(error))
            raise Dies from error
        self._hands[hand.number] = hand
        self._say(Begins(hand.number))
        if len(self._hands) < self.script.at_once:
            self._say(Asks())

    def _act(self, number: int) -> None:
        job = self._hands[number].job
        self.begun.append(job.name)
        outcome = self.script.act(self, job)
        if outcome is None:
            return
        was_full = len(self._hands) == self.script.at_once
        del self._hands[number]
        self.done.append(job.name)
        self._say(Ended(number, outcome))
        if was_full:
            self._say(Asks())


def fake_jobs(folder: Path, n: int) -> list[Job]:
    """Jobs for volumes that are not there."""
    return [
        Job(f"v{k}.nii", folder / f"v{k}.nii", outputs_of(folder / "out" / f"v{k}_seg.nii"), Options())
        for k in range(n)
    ]


def plans_of(out: Path, **limits: Any) -> Plans:
    """Plans with enough memory for a few processes."""
    given = {"workers": 2, "memory": 20_000_000_000} | limits
    return Plans(out, out, Manner(tag="run"), Limits(**given), compute=CPU)
