"""Jobs that arrive one by one: a path or a JSON object a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from fastseg.cohort.job import Job, Refused, Status
from fastseg.cohort.plan.lists import parse_line
from fastseg.cohort.plan.places import Claims, Folders
from fastseg.cohort.plan.planning import Wanted, job_of, outputs_for
from fastseg.cohort.plan.words import Item
from fastseg.errors import FastsegError, OptionError, OutputError
from fastseg.outputs import is_volume_name

__all__ = ["read_stdin_jobs"]


def read_stdin_jobs(
    lines: Iterable[bytes | str], out: Path | None, wanted: Wanted
) -> Iterator[Job | Refused]:
    """Make a job of each line as it comes.

    Parameters
    ----------
    lines : paths, or JSON objects with the columns of a list as keys; empty lines are passed over
    out : folder of the results; None: the current folder
    wanted : what a line does not say

    Yields
    ------
    job : named as the line names the volume; or why the line cannot be one. A job whose outputs an earlier
        one writes or reads is refused.

    Raises
    ------
    OptionError
        `out` is a file.
    OutputError
        Nothing can be written in `out`.
    """
    top = out if out is not None else Path()
    if out is not None and is_volume_name(out) and not out.is_dir():
        raise OptionError(f"-o {out} is one file, but many volumes may come from stdin: give a folder")
    folders = Folders()
    folders.check_writable(top)
    return _jobs(lines, top, wanted, folders)


def _jobs(
    lines: Iterable[bytes | str], top: Path, wanted: Wanted, folders: Folders
) -> Iterator[Job | Refused]:
    claims = Claims(wanted.kinds, folders)
    for number, line in enumerate(lines, 1):
        where = f"line {number}"
        try:
            row = parse_line(line, where, wanted.options, wanted.frame)
            if row is None:
                continue
            where = row.source
            item = Item(row.source, folders.real_file(row.source), row.source, "", row)
            job = job_of(item, outputs_for(item, top, top, wanted), wanted)
            claims.read(item.real)
            if job.centerline is not None:
                claims.read(folders.real_file(str(job.centerline)))
            folders.check_writable(job.outputs.folder)
            claims.write(row.source, job.outputs)
        except FastsegError as error:
            status = Status.ERROR if isinstance(error, OutputError) else Status.BAD_INPUT
            yield Refused(where, str(error).removeprefix(f"{where}: "), status)
        else:
            yield job
