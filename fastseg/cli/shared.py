"""What the commands that segment have in common: options, messages, limits, outcomes."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fastseg.engines.compute import Compute

__all__ = [
    "TERMINATED",
    "compute_of",
    "compute_options",
    "frame_option",
    "load_needed_kernels",
    "locating_options",
    "logging_to_stderr",
    "opening",
    "put",
    "say",
    "terminable",
    "usable_threads",
    "with_options",
]

#: Exit code after SIGTERM: 128 + 15.
TERMINATED = 143


def _frame(context: click.Context, option: click.Parameter, value: str | None) -> int | str | None:
    if value is None or value == "mean":
        return value
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r} is neither 'mean' nor the number of a volume (from 0)")
    return int(value)


#: The option --4d, for every command that reads a volume.
frame_option = click.option(
    "--4d", "frame", metavar="mean|N", callback=_frame, help="Of a 4D file, the mean or volume N (from 0)."
)


def with_options(options: Sequence[Callable[..., Any]], command: Callable[..., Any]) -> Callable[..., Any]:
    """Add click's options to a command, in their order on its help page."""
    for option in reversed(options):
        command = option(command)
    return command


#: The options that say what the networks run on; `compute_of` reads them.
compute_options = (
    click.option(
        "--device",
        metavar="DEVICE",
        default="auto",
        help="cpu; cuda: the first GPU; cuda:0,1: these GPUs, between which a cohort is parted; auto: a GPU "
        "where there is one that can be used.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "tf32", "fp16", "bf16", "int8"]),
        default="auto",
        help="Of the networks' arithmetic; auto: the fastest that PACK accepts.",
    ),
    click.option(
        "--engine",
        metavar="NAME",
        default="auto",
        help="What runs the networks: tensorrt, openvino or onnxruntime; see fastseg doctor.",
    ),
)


def compute_of(given: Mapping[str, Any], *, threads: int = 1) -> Compute:
    """Read what the networks shall run on from the options of a command.

    Raises
    ------
    OptionError
        They do not go together.
    """
    from fastseg.engines.compute import Compute

    return Compute(given["engine"], given["device"], given["precision"], threads)


def locating_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command that looks for the cord."""
    options = (
        click.option(
            "-c",
            "--contrast",
            default="auto",
            type=click.Choice(["auto", "t1", "t2", "t2s", "dwi"]),
            help="Of the volume; auto: for networks that need not know it, as the built-in ones.",
        ),
        click.option(
            "--centerline",
            "detector",
            default="auto",
            type=click.Choice(["auto", "svm", "cnn", "viewer", "file"]),
            help="How the cord is found; auto: as PACK says, and where that finds nothing, the other way; "
            "viewer: by points that you click in a page, see fastseg view.",
        ),
        click.option(
            "--file-centerline",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="Centerline, mask or points (.json, labels) drawn on INPUT; means --centerline file. For a "
            "cohort, a pattern as lines/{below}/{stem}_line.nii.gz.",
        ),
        click.option(
            "--brain", type=click.Choice(["0", "1"]), help="Whether brain is in view (SCT's cnn only)."
        ),
        click.option(
            "--models", metavar="PACK", default="default", help="Networks: name of a pack or its folder."
        ),
        frame_option,
        *compute_options,
        click.option("--threads", type=click.IntRange(min=1), help="Cores to use.  [default: those at hand]"),
    )
    return with_options(options, command)


def load_needed_kernels(detector: str, contrast: str, models: str, *, quiet: bool = False) -> None:
    """Load the kernels, of a detector that is not used only if nothing is compiled yet."""
    from fastseg.compilation import HOG_KERNELS, load_kernels
    from fastseg.networks.packs import find_pack

    svm = detector == "svm" or (detector == "auto" and "svm" in find_pack(models).detectors(contrast)[:1])
    tell = (lambda _: None) if quiet else say
    load_kernels(tell, own_process=True, skip=() if svm else HOG_KERNELS)


def put(text: str, *, err: bool = False) -> None:
    """Write a line in which a file name may not be valid UTF-8."""
    stream = sys.stderr if err else sys.stdout
    try:
        click.echo(text, err=err)
    except UnicodeEncodeError:
        stream.buffer.write(os.fsencode(text) + b"\n")
        stream.buffer.flush()


def opening(report: Path) -> str:
    """The command that opens a QC report."""
    return shlex.join(["fastseg", "qc", "open", os.fspath(report)])


def say(text: str) -> None:
    """Tell the user something that is not a result."""
    click.echo(f"fastseg: {text}", err=True)


def usable_threads(most: int | None = 8) -> int:
    """Cores that this process may use, at most so many: one volume has no use for more than 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # "max 100000" where there is no limit
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, min(cores, most or cores))


@contextlib.contextmanager
def logging_to_stderr(level: int, *, engines: bool = False) -> Iterator[None]:
    """Show what fastseg's loggers say from a level on, and on request also what the networks run on."""
    levels = {"fastseg": level} | ({"fastseg.engines": min(level, logging.INFO)} if engines else {})
    loggers = {logging.getLogger(name): each for name, each in levels.items()}
    before = {logger: logger.level for logger in loggers}
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logging.getLogger("fastseg").addHandler(handler)
    for logger, wanted in loggers.items():
        logger.setLevel(wanted)
    try:
        yield
    finally:
        logging.getLogger("fastseg").removeHandler(handler)
        for logger, level_before in before.items():
            logger.setLevel(level_before)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the run as an exception, so that what is half-written is removed."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():  # no handlers are allowed there
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
