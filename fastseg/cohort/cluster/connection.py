"""The same jobs on more than one machine: Dask distributes them, the client keeps the ledger."""

from __future__ import annotations

import logging
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastseg.networks
from fastseg import __version__
from fastseg.cohort.cluster.client import Cluster, any_engine
from fastseg.cohort.cluster.worker import Duty, facts_digest
from fastseg.cohort.job import Job
from fastseg.cohort.memory import rss_bytes
from fastseg.errors import EngineUnavailable, OptionError
from fastseg.networks.packs import find_pack
from fastseg.nifti_header import human

if TYPE_CHECKING:
    from fastseg.cohort.session import Plans

__all__ = ["open_cluster"]

_logger = logging.getLogger(__name__)

_WORKER_MODULE = "fastseg.cohort.cluster.worker"
_INSTALL = "pip install 'fastseg[cluster]'"
# Dask, the kernels and the networks alone take 260 MB (VmHWM of a worker, phantoms of 17 slices); the rest
# is for a volume.
_LEAST_BYTES = 500_000_000
# Deaths of workers over which Dask gives a job to the next one. Beyond, the client tries it alone.
_FAILURES = 1
# For an answer of SLURM's.
_SBATCH_SECONDS = 60.0
# For a scheduler that was started by somebody else.
_CONNECT_SECONDS = 10.0


@contextmanager
def open_cluster(
    where: str, plans: Plans, begins: Callable[[Job], None], engine_of: Callable[[Job], str] = any_engine
) -> Iterator[Cluster]:
    """Open what works on jobs with Dask; an executor for `fastseg.cohort.session.Session`.

    Parameters
    ----------
    where : local: processes of this machine; slurm: jobs of SLURM, as the user's jobqueue.yaml describes
        them; or the address of a scheduler
    plans : of them, the number of workers, the memory of all on this machine, and what they have to do
    begins : hears of each job before it is submitted
    engine_of : gives what runs a job's network here; a worker on which another engine would does not do it

    Raises
    ------
    OptionError
        Dask is not installed, there is no such scheduler, or a setting is missing.
    EngineUnavailable
        The workers cannot be started.
    NetworkError
        There is no such pack.
    """
    if where not in ("local", "slurm") and "://" not in where:
        raise OptionError(
            f"--cluster {where}: give local, slurm, or the address of a scheduler, as tcp://host:8786"
        )
    try:
        import distributed
    except ImportError as error:
        raise OptionError(f"--cluster {where}: Dask is not installed: {_INSTALL}") from error
    with ExitStack() as stack:
        level = stack.enter_context(_quiet())
        if where == "local":
            cluster = _local(plans, stack, level)
        elif where == "slurm":
            cluster = _slurm(plans, stack)
        else:
            cluster = None

        def connect(seconds: float) -> Any:
            return distributed.Client(cluster or where, timeout=seconds, set_as_default=False, name="fastseg")

        if cluster is None:  # before anything else: most errors are here
            try:
                connect(_CONNECT_SECONDS).close()
            except (OSError, ValueError) as error:
                raise OptionError(
                    f"--cluster {where}: no scheduler answers there; start one with `dask scheduler`, and "
                    f"workers with `dask worker {where}`"
                ) from error
        yield stack.enter_context(Cluster(connect, _duty(plans), begins, engine_of))


def _duty(plans: Plans) -> Duty:
    pack = find_pack(plans.models)
    built_in = Path(fastseg.networks.__file__).parent in pack.folder.parents
    return Duty(
        run=f"fastseg-{secrets.token_hex(4)}",
        version=__version__,
        models=pack.folder.name if built_in else str(pack.folder.absolute()),
        pack=facts_digest(pack),
        compute=plans.compute,
        kinds=plans.manner.kinds,
        rescue=plans.manner.rescue,
        tag=plans.manner.tag,
        durable=plans.manner.durable,
        showing=plans.manner.showing,
        give_up_seconds=plans.limits.give_up_seconds,
    )


def _local(plans: Plans, stack: ExitStack, level: int) -> Any:
    """Start a process for each worker, with its part of the memory."""
    import dask
    from distributed import LocalCluster

    workers = plans.limits.workers
    each = (plans.limits.memory - rss_bytes()) // workers
    if each < _LEAST_BYTES:
        raise OptionError(
            f"--cluster local: {human(max(each, 0))} for each of {workers} workers are too little: give each "
            f"{human(_LEAST_BYTES)} with --mem-gb, or have fewer with --jobs"
        )
    settings: dict[str, object] = {
        "distributed.scheduler.allowed-failures": _FAILURES,
        # Workers hold nothing of Dask's that could be spilled, and pausing one helps nobody.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.profile.enabled": False,
    }
    stack.enter_context(dask.config.set(settings))
    try:
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=each,
            dashboard_address="127.0.0.1:0",  # no port of Dask's own choice, which another run may have
            scheduler_kwargs={"dashboard": False},
            silence_logs=level,
            preload=[_WORKER_MODULE],
        )
    except (OSError, RuntimeError) as error:
        raise EngineUnavailable(f"--cluster local: the workers do not start ({_line(error)})") from error
    stack.callback(_close, cluster)
    return cluster


def _slurm(plans: Plans, stack: ExitStack) -> Any:
    """Have SLURM start workers, as many jobs as there are to be workers here."""
    import dask

    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise OptionError(f"--cluster slurm: dask-jobqueue is not installed: {_INSTALL}") from error
    settings = dask.config.get("jobqueue.slurm")
    missing = [name for name in ("cores", "memory") if not settings.get(name)]
    if missing:
        raise OptionError(
            f"--cluster slurm: {' and '.join(missing)} of a job are not set: set them, queue and walltime "
            "under jobqueue: slurm: in ~/.config/dask/jobqueue.yaml (docs/cluster.md has an example)"
        )
    stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": _FAILURES}))
    options = {"dashboard_address": ":0", **(settings.get("scheduler-options") or {})}
    try:
        cluster = SLURMCluster(scheduler_options=options)
    except (OSError, RuntimeError, ValueError) as error:
        raise EngineUnavailable(f"--cluster slurm: the scheduler does not start ({_line(error)})") from error
    stack.callback(_close, cluster)
    _try_script(cluster.job_script())
    cluster.scale(n=plans.limits.workers)
    return cluster


def _try_script(script: str) -> None:
    """Ask SLURM whether it would take the script: what it says to a real job, only Dask's log tells."""
    _logger.debug("job script:\n%s", script)
    try:
        asked = subprocess.run(
            ["sbatch", "--test-only"], input=script, capture_output=True, text=True, timeout=_SBATCH_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineUnavailable(
            f"--cluster slurm: sbatch cannot be run ({_line(error)}): run it where you submit jobs"
        ) from error
    if asked.returncode:
        raise EngineUnavailable(
            f"--cluster slurm: sbatch refuses the workers' jobs ({' '.join(asked.stderr.split())}): mend "
            "~/.config/dask/jobqueue.yaml"
        )


def _close(cluster: Any) -> None:
    """End the workers. What goes wrong in it must not hide how the run ended."""
    try:
        cluster.close()
    except Exception as error:
        _logger.debug("the cluster did not close well: %r", error)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".:")


@contextmanager
def _quiet() -> Iterator[int]:
    """Keep Dask's log from the terminal, for the client tells of losses itself; gives the level.

    With -v, its warnings are shown.
    """
    level = logging.WARNING if _logger.isEnabledFor(logging.DEBUG) else logging.CRITICAL + 1
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "tornado")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield level
    finally:
        for logger, was in zip(loggers, before, strict=True):
            logger.setLevel(was)
