"""A log for each volume of which there is more to say than that it went well."""

from __future__ import annotations

from pathlib import Path

from fastseg import __version__
from fastseg.cohort.job import Outcome, Status
from fastseg.outputs import not_writable, write_file

__all__ = ["LOGS", "write_log"]

#: Folder of the logs inside the output folder.
LOGS = "logs"


def write_log(outcome: Outcome, out: Path, scratch: Path | None = None) -> str:
    """Write what happened to a volume, if it was flagged, noted or failed.

    Parameters
    ----------
    out : output folder
    scratch : see `fastseg.cohort.ledger.Ledger`

    Returns
    -------
    log : path below the output folder; empty where there is nothing to say

    Raises
    ------
    OutputError
        It cannot be written.
    """
    quiet = outcome.status in (Status.OK, Status.SKIPPED, Status.CACHED) and not outcome.notes
    if quiet:
        return ""
    stem = outcome.job.outputs.mask.relative_to(out) if outcome.job.outputs.mask.is_relative_to(out) else None
    name = (stem or Path(outcome.job.outputs.mask.name)).as_posix()
    for suffix in (".nii.gz", ".nii"):
        name = name.removesuffix(suffix)
    path = out / LOGS / f"{name}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(path.parent, error) from error
    write_file(path, _text(outcome).encode(errors="backslashreplace"), temporary=scratch)
    return path.relative_to(out).as_posix()


def _text(outcome: Outcome) -> str:
    job, options = outcome.job, outcome.job.options
    lines = [
        f"volume     {job.name}",
        f"status     {outcome.status}",
        f"fastseg    {__version__}",
        f"options    contrast {options.contrast}, kernel {options.kernel}, centerline {options.detector}"
        + (f", threshold {options.threshold:g}" if options.threshold is not None else "")
        + (", soft" if options.soft else ""),
    ]
    lines += [f"message    {outcome.message}"] * bool(outcome.message)
    lines += [f"note       {note}" for note in outcome.notes]
    lines += [f"flag       {flag}" for flag in outcome.flags]
    attempts = outcome.record.get("attempts", ())
    assert isinstance(attempts, list | tuple)
    lines += [f"attempt    {attempt}" for attempt in attempts]
    lines += [f"seconds    {step} {seconds:.3f}" for step, seconds in outcome.seconds.items()]
    trace = outcome.record.get("traceback")
    return "\n".join([*lines, *([str(trace).rstrip()] if trace else []), ""])
