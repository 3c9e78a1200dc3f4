"""Which volumes have to be worked on, by what earlier runs wrote down and by what lies on the disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastseg import __version__
from fastseg.cohort.fingerprints import file_digest, is_unchanged
from fastseg.cohort.job import Job, Outcome, Status
from fastseg.cohort.ledger import History
from fastseg.cohort.work import Manner
from fastseg.networks.packs import pack_digest
from fastseg.outputs import Kind, forget_stages
from fastseg.segmenter import Segmenter

__all__ = [
    "Decision",
    "Resume",
    "key_of",
    "relative",
    "remove_leftovers",
]

# Jobs that are looked at in one go.
_AT_ONCE = 512
# Failures that come from the volume itself: the same file with the same options fails again.
_ITS_OWN = (Status.NO_CORD, Status.BAD_INPUT)


def key_of(segmenter: Segmenter, job: Job, manner: Manner) -> str:
    """Digest of all that a result depends on besides its input files.

    Parameters
    ----------
    segmenter : for the job's options
    job : of it, options and frame
    manner : of it, whether there are further attempts
    """
    pack = segmenter.pack
    facts = {
        "version": __version__,
        "options": {name: _plain(value) for name, value in asdict(job.options).items()},
        "frame": job.frame,
        "centerline": job.centerline is not None,
        "rescue": manner.rescue,
        "pack": pack_digest(pack),
        "facts": file_digest(pack.folder / "pack.toml"),
        "engine": segmenter.engine.name,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with a job.

    Parameters
    ----------
    job : it
    outcome : what came of it, if nothing has to be done
    deaths : how often runs died while they worked on it
    """

    job: Job
    outcome: Outcome | None = None
    deaths: int = 0

    @property
    def suspect(self) -> bool:
        """Whether it may be what killed them: whatever is under way when a run dies has one death."""
        return self.deaths > 1


class Resume:
    """Decides for each job whether it is done.

    Parameters
    ----------
    history : of the output folder
    out : the output folder
    kinds : results that are wanted
    overwrite : whether every volume is worked on, and whatever lies there is replaced
    retry_failed : whether volumes that failed by themselves are tried again
    """

    def __init__(
        self,
        history: History,
        out: Path,
        kinds: tuple[Kind, ...],
        *,
        overwrite: bool = False,
        retry_failed: bool = False,
    ) -> None:
        self._history, self._out, self._kinds = history, out, kinds
        self._overwrite, self._retry_failed = overwrite, retry_failed

    def decide(self, job: Job, key: str) -> Decision:
        """Look at one job.

        Parameters
        ----------
        key : from `key_of`
        """
        if job.skip:
            return Decision(job, Outcome(job, Status.SKIPPED, job.skip))
        mask = relative(job.outputs.mask, self._out)
        line = self._history.ends.get(mask)
        deaths = self._history.begun.get(mask, 0)
        if self._overwrite:
            return Decision(job, deaths=deaths)
        try:
            found = self._look(job, key, line, known=mask in self._history.begun)
        except OSError as error:
            found = Outcome(
                job,
                Status.ERROR,
                f"{error.filename}: cannot be looked at ({error.strerror})",
                record={"news": False},
            )
        return Decision(job, found, deaths)

    def _look(self, job: Job, key: str, line: Mapping[str, Any] | None, *, known: bool) -> Outcome | None:
        """What came of a job, if it need not be worked on."""
        digests = dict(line.get("outputs", {})) if line is not None else {}
        written = (dict(line.get("older", {})) if line is not None else {}) | digests
        whole, foreign = True, None
        for kind, path in zip(self._kinds, job.outputs.of_kinds(self._kinds), strict=True):
            if not os.path.lexists(path):
                whole = False
            elif kind not in written or not path.is_file() or file_digest(path) != written[kind]:
                whole, foreign = False, foreign or (path, kind in written)
            elif kind not in digests:  # of an earlier run, with other options or of another input
                whole = False
        if foreign is not None and not known:
            path, ours = foreign
            what = "was changed since fastseg wrote it" if ours else "exists, and no ledger here knows it"
            message = f"{relative(path, self._out)} {what}: add --overwrite, or choose another output folder"
            return Outcome(job, Status.ERROR, message, record={"news": False})
        if line is None or known or line.get("key") != key or not self._same_inputs(job, line):
            return None
        status = Status(line["status"]) if line.get("status") in list(Status) else Status.ERROR
        facts: dict[str, Any] = {
            "notes": tuple(line.get("notes", ())),
            "flags": tuple(line.get("flags", ())),
            "measures": dict(line.get("measures", {})),
            "record": {"news": False, "earlier": str(status)},
        }
        if status in (Status.OK, Status.OK_FLAGGED) and whole:
            return Outcome(job, Status.CACHED, **facts)
        if status in _ITS_OWN and not self._retry_failed:
            message = f"{line.get('message', '')} (an earlier run; --retry-failed tries again)"
            return Outcome(job, status, message, **facts)
        return None

    def _same_inputs(self, job: Job, line: Mapping[str, Any]) -> bool:
        inputs = line.get("inputs", {})
        paths = {"input": job.source} | ({"centerline": job.centerline} if job.centerline else {})
        if set(inputs) != set(paths):
            return False
        return all(is_unchanged(paths[role], inputs[role]) for role in paths)

    def decide_all(self, jobs: Sequence[Job], key: Callable[[Job], str], threads: int) -> Iterator[Decision]:
        """Look at many jobs, some hundred at a time; what has to be read is read by several threads."""
        with ThreadPoolExecutor(threads, "resume") as pool:
            for first in range(0, len(jobs), _AT_ONCE):
                some = jobs[first : first + _AT_ONCE]
                yield from pool.map(self.decide, some, map(key, some))


def remove_leftovers(history: History, out: Path, tag: str) -> int:
    """Remove the temporary files of runs that were killed; gives how many there were.

    Parameters
    ----------
    tag : of this run's ledger, whose lock is held: no living run has the same
    """
    # What failed may have left some too, where nothing could be removed: in a folder that was read-only.
    failed = [mask for mask, line in history.ends.items() if line.get("status") == Status.ERROR]
    folders = {(out / mask).parent for mask in (*history.begun, *failed)}
    return sum(forget_stages(folder, tag) for folder in folders if folder.is_dir())


def relative(path: Path, folder: Path) -> str:
    """Path below a folder, with / between its parts; as it is where it lies elsewhere."""
    try:
        return path.relative_to(folder).as_posix()
    except ValueError:
        return path.as_posix()
