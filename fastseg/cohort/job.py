"""One volume of a cohort: what is to be done with it, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from fastseg.options import Options
from fastseg.outputs import Outputs

if TYPE_CHECKING:
    from fastseg.nifti_header import Frame

__all__ = ["Job", "Outcome", "Refused", "Status"]


class Status(StrEnum):
    """What came of a volume.

    OK
        Segmented; nothing is odd about the result.
    OK_FLAGGED
        Segmented; the quality flags say what to look at.
    NO_CORD
        A good volume in which no cord was found.
    BAD_INPUT
        The volume, or its centerline, cannot be used.
    OUT_OF_MEMORY
        The memory, or the budget for it, does not suffice.
    ERROR
        Anything else: a result that cannot be written, a bug.
    SKIPPED
        The user excluded it.
    CACHED
        Done by an earlier run, and its files still are what that run wrote.
    """

    OK = "ok"
    OK_FLAGGED = "ok_flagged"
    NO_CORD = "no_cord"
    BAD_INPUT = "bad_input"
    OUT_OF_MEMORY = "out_of_memory"
    ERROR = "error"
    SKIPPED = "skipped"
    CACHED = "cached"

    @property
    def success(self) -> bool:
        """Whether it counts as one for the exit code."""
        return self in (Status.OK, Status.OK_FLAGGED, Status.SKIPPED, Status.CACHED)


@dataclass(frozen=True, slots=True)
class Job:
    """One volume to segment, from file to files.

    Parameters
    ----------
    name : of the volume for people, reports and the ledger: its path relative to the data set
    source : where it lies
    outputs : where its results go
    options : what to do with it
    frame : of a 4D file, which of its volumes
    centerline : centerline or mask that was drawn on it, for the detector ``file``
    skip : why the user excluded it; empty if not
    """

    name: str
    source: Path
    outputs: Outputs
    options: Options
    frame: Frame | None = None
    centerline: Path | None = None
    skip: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job.

    Parameters
    ----------
    job : that was done
    status : how it ended
    message : why it failed or was skipped, on one line; empty where it was segmented
    notes : what was noticed on the way, one sentence each
    flags : quality flags, as `fastseg.quality` names them
    measures : quality measures by name
    seconds : wall time by step
    record : what a ledger keeps besides: digests, engine, attempts
    """

    job: Job
    status: Status
    message: str = ""
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    record: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that the user named, or that was met, and that cannot become a job.

    Parameters
    ----------
    name : of the folder, relative to the data set; or of the volume, as it was given
    message : what is wrong and what to do, on one line
    status : what it counts as
    """

    name: str
    message: str
    status: Status = Status.BAD_INPUT
