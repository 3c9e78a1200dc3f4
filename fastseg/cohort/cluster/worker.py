"""What fastseg does on a worker of a Dask cluster: a volume from file to files, with networks that stay open.

A worker knows nothing of a run but what comes with each task, so that one that starts late, or again, needs
no setting up. Heavy imports are inside functions: kernels have to be loaded before anything that uses them.
"""

from __future__ import annotations

import signal
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from fastseg import __version__
from fastseg.cohort.job import Job, Outcome, Status
from fastseg.engines.compute import Compute
from fastseg.errors import FastsegError

if TYPE_CHECKING:
    from fastseg.cohort.segmenters import Segmenters
    from fastseg.cohort.showing import Showing
    from fastseg.cohort.work import Work
    from fastseg.networks.packs import Pack
    from fastseg.outputs import Kind

__all__ = ["Duty", "dask_setup", "facts_digest", "segment", "stage_tag", "stop_run"]

# Of the memory that Dask allows a worker; at 0.95 of it, its nanny kills it.
_SHARE = 0.9
# Runs whose begun tasks a worker remembers; it may outlive many.
_RUNS = 16

_lock = threading.Lock()
_open: dict[tuple[str, Compute], tuple[Segmenters, str]] = {}
_begun: dict[str, set[str]] = {}
_stopped: set[str] = set()


@dataclass(frozen=True, slots=True)
class Duty:
    """What all tasks of a run have in common.

    Parameters
    ----------
    run : names the run
    version : of fastseg at the client
    models : name of the built-in pack, or an absolute folder
    pack : digest of the pack at the client, from `facts_digest`
    compute : what the networks run on, as the client was asked for it
    kinds, rescue, tag, durable, showing : see `fastseg.cohort.work.Manner`, which a worker may not import at
        once
    give_up_seconds : from when on a volume is given up
    """

    run: str
    version: str
    models: str
    pack: str
    compute: Compute
    kinds: tuple[Kind, ...]
    rescue: bool
    tag: str
    durable: bool
    showing: Showing | None
    give_up_seconds: float


def segment(duty: Duty, key: str, job: Job, engine: str = "") -> Outcome | None:
    """Do one task: segment a volume; a failure is an outcome too.

    Parameters
    ----------
    key : names the task, and the temporary files that it leaves behind when the worker is killed
    job : its paths are absolute
    engine : what runs its network at the client, which has to be what runs it here; empty: whatever it is

    Returns
    -------
    outcome : None: nothing was done, because the run was stopped before
    """
    with _lock:
        if duty.run in _stopped:
            return None
        while len(_begun) >= _RUNS and duty.run not in _begun:
            _begun.pop(next(iter(_begun)))
        _begun.setdefault(duty.run, set()).add(key)
    try:
        with _lock:
            segmenters = _segmenters(duty)
        _check_engine(segmenters.of(job.options).engine.name, engine)
    except FastsegError as error:
        return Outcome(job, Status.ERROR, f"worker on {socket.gethostname()}: {error}")
    from fastseg.cohort.work import Manner, Work

    manner = Manner(duty.kinds, duty.rescue, stage_tag(duty, key), duty.durable, duty.showing)
    return _watched(Work(job, manner, segmenters), _room(), duty.give_up_seconds)


def _watched(work: Work, room: int, seconds: float) -> Outcome:
    """Do all steps of a volume in a thread that can be left alone when it hangs in a file system."""
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    thread = threading.Thread(target=lambda: outcomes.put(_segment(work, room)), name="volume", daemon=True)
    thread.start()
    try:
        return outcomes.get(timeout=seconds)
    except Empty:
        work.cancelled = True
        return Outcome(work.job, Status.ERROR, f"took more than {seconds:.0f} s; the volume was given up")


def _segment(work: Work, room: int) -> Outcome:
    from fastseg.cohort.memory import needed_bytes
    from fastseg.cohort.work import segment_file
    from fastseg.nifti import probe_volume
    from fastseg.nifti_header import human

    try:
        needed = needed_bytes(probe_volume(work.job.source, work.job.frame), work.job.options)
    except Exception as error:
        return work.failed(error)
    if needed > room:  # Dask would kill the worker in the middle
        left = f"needs about {human(needed)} of memory, a worker has {human(room)} left for it"
        message = f"{left}: give workers more memory, or have fewer of them, or crop it"
        return Outcome(work.job, Status.OUT_OF_MEMORY, message)
    return segment_file(work)


def stage_tag(duty: Duty, key: str) -> str:
    """Names the temporary files of one task; that of no other task begins like it."""
    return f"{duty.tag}-{key}"


def stop_run(run: str) -> list[str]:
    """Begin no further task of a run; gives those that have begun here, ended ones too."""
    with _lock:
        _stopped.add(run)
        return sorted(_begun.get(run, ()))


def facts_digest(pack: Pack) -> str:
    """Digest of a pack's networks and of what its pack.toml says of them."""
    from fastseg.cohort.fingerprints import file_digest
    from fastseg.networks.packs import pack_digest

    return f"{pack_digest(pack)} {file_digest(pack.folder / 'pack.toml')}"


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the client: a terminal sends it to the workers of a local cluster, too.

    Dask calls this in workers that were started with ``--preload fastseg.cohort.cluster.worker``.
    """
    with suppress(ValueError):  # not the main thread: then no handler has to be replaced
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _segmenters(duty: Duty) -> Segmenters:
    """The open networks of this process; raises FastsegError where they would give other results."""
    if duty.version != __version__:
        raise FastsegError(f"has fastseg {__version__}, the client {duty.version}: install the same one")
    key = duty.models, duty.compute
    if key not in _open:
        from fastseg.cohort.memory import tame_allocator
        from fastseg.compilation import load_kernels

        tame_allocator()
        load_kernels()
        from fastseg.cohort.segmenters import Segmenters
        from fastseg.networks.packs import find_pack

        found = facts_digest(find_pack(duty.models))
        # Never closed: they are the process's, as long as it lives.
        _open[key] = Segmenters(models=duty.models, compute=duty.compute).__enter__(), found
    segmenters, found = _open[key]
    if found != duty.pack:
        raise FastsegError(f"its networks {Path(duty.models).name} are not the client's: install the same")
    return segmenters


def _check_engine(here: str, client: str) -> None:
    """Raise FastsegError where ``auto`` chose another engine than at the client: it gives other last bits."""
    if client not in ("", here):
        raise FastsegError(
            f"networks run on {here}, at the client on {client}: name one that both have with --engine and "
            "--precision"
        )


def _room() -> int:
    """Bytes that this process has for one more volume, when each of its threads takes its part."""
    from distributed import get_worker

    from fastseg.cohort.memory import budget_bytes, rss_bytes

    worker = get_worker()
    limit = worker.memory_manager.memory_limit
    allowed = int(_SHARE * limit) if limit else budget_bytes()
    return max(allowed - rss_bytes(), 0) // max(worker.state.nthreads, 1)
