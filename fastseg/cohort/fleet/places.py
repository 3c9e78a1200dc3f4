"""Where the processes of a fleet run, what each of them may take, and what it has in hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastseg.cohort.fleet.member import Log, Mail, Member
from fastseg.cohort.fleet.worker import Share
from fastseg.cohort.job import Job
from fastseg.cohort.memory import rss_bytes
from fastseg.engines.compute import Compute
from fastseg.errors import OptionError
from fastseg.nifti_header import human

if TYPE_CHECKING:
    from fastseg.cohort.session import Plans
    from fastseg.outputs import Kind

__all__ = ["Place", "Sent", "places_for"]

# Networks and kernels alone take 260 MB of each process, as those of a cluster do; the rest is for a volume.
_LEAST_BYTES = 500_000_000


# What differs when a file is replaced; None where there is none.
_Version = tuple[int, int] | None


def _version(path: Path) -> _Version:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


@dataclass(slots=True, eq=False)
class Sent:
    """A job that was taken.

    Parameters
    ----------
    job : it
    number : under which it was handed out last; 0: not yet
    begun : whether its volume may have been read, and files of it may lie around
    alone : whether a process has died with it: it may be why, so nothing else is under way beside it
    found : which files had the names of its results before it was ever begun
    """

    job: Job
    number: int = 0
    begun: bool = False
    alone: bool = False
    found: dict[Path, _Version] = field(default_factory=dict)

    def begin(self, kinds: Iterable[Kind]) -> None:
        """Note that its volume is about to be read; of its results, these will be written."""
        self.begun = True
        if not self.found:
            self.found = {path: _version(path) for path in self.job.outputs.of_kinds(kinds)}

    def take_back(self) -> None:
        """Remove results that got their names before a process died amid this: not all of them are there."""
        for path, version in self.found.items():
            if _version(path) != version:
                with suppress(OSError):
                    path.unlink(missing_ok=True)


@dataclass(slots=True, eq=False)
class Place:
    """Where a process runs, one after the other if they die.

    Parameters
    ----------
    label : for people
    compute : what networks run on there
    share : what its processes may take
    member : the present one
    asks : whether that waits for a job
    handed : what it has, by number
    suspects : with what an earlier one died: done first, one by one
    starts, deaths : of processes; deaths since a volume was finished
    lost : why no process is started there any more
    """

    label: str
    compute: Compute
    share: Share
    member: Member | None = None
    asks: bool = False
    handed: dict[int, Sent] = field(default_factory=dict)
    suspects: deque[Sent] = field(default_factory=deque)
    starts: int = 0
    deaths: int = 0
    lost: str = ""

    def start(self, mail: Mail, log: Log) -> None:
        """Start a process.

        Raises
        ------
        OSError
            The system has none left.
        """
        self.starts += 1
        manner = self.share.manner
        share = replace(self.share, manner=replace(manner, tag=f"{manner.tag}-{self.starts}"))
        self.member = Member(self.label, self.compute, share, mail, log)

    def next(self, waiting: deque[Sent], orphans: deque[Sent]) -> Sent | None:
        """Take what is best handed to the process that asks here.

        Parameters
        ----------
        waiting : jobs that anybody may do
        orphans : suspects of places that are lost: done where there is nothing else to do
        """
        if any(sent.alone for sent in self.handed.values()):
            return None
        if self.suspects:
            return None if self.handed else self.suspects.popleft()
        if waiting:
            return waiting.popleft()
        return orphans.popleft() if orphans and not self.handed else None


def places_for(computes: Sequence[Compute], plans: Plans) -> list[Place]:
    """Divide workers and memory of a run; each process has at least one worker.

    Raises
    ------
    OptionError
        There is too little memory for so many processes.
    """
    count = len(computes)
    memory = (plans.limits.memory - rss_bytes()) // count
    if memory < _LEAST_BYTES:
        raise OptionError(
            f"{human(max(memory, 0))} for each of {count} processes are too little: give each "
            f"{human(_LEAST_BYTES)} with --mem-gb, or name fewer GPUs with --device"
        )
    places = []
    for number, (label, compute) in enumerate(zip(_labels(computes), computes, strict=True)):
        limits = replace(
            plans.limits,
            workers=_part(plans.limits.workers, number, count),
            memory=memory,
            volumes=_part(plans.limits.volumes, number, count) if plans.limits.volumes else 0,
        )
        manner = replace(plans.manner, tag=f"{plans.manner.tag}-{number}")
        places.append(Place(label, compute, Share(plans.models, manner, limits)))
    return places


def _part(whole: int, number: int, count: int) -> int:
    return max(whole // count + (number < whole % count), 1)


def _labels(computes: Sequence[Compute]) -> list[str]:
    """Names of places, all different."""
    devices = [compute.device for compute in computes]
    return [
        device if devices.count(device) == 1 else f"{device} ({number})"
        for number, device in enumerate(devices, 1)
    ]
