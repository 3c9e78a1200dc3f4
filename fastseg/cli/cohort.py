"""Runs over many volumes: signals, what is told on the way, what is left behind at the end."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastseg.cli import Exit
from fastseg.cli.progress import Reporter
from fastseg.cli.shared import TERMINATED, opening
from fastseg.errors import FastsegError, OutputError

if TYPE_CHECKING:
    from fastseg.cohort.job import Job, Outcome, Refused
    from fastseg.cohort.plan.planning import Plan
    from fastseg.cohort.session import Session
    from fastseg.cohort.showing import Shown

__all__ = ["Telling", "exit_code", "run_list", "run_stdin"]


_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Telling:
    """Where a run is told of.

    Parameters
    ----------
    reporter : on stderr
    out : output folder
    report : file for the JSON of the run
    facts : for that JSON, the same for all volumes
    shown : the QC report; None: none is wanted
    """

    reporter: Reporter
    out: Path
    report: Path | None
    facts: dict[str, object]
    shown: Shown | None = None


class _Told:
    """Counts what was told, and keeps it where there will be a report of it."""

    def __init__(self, telling: Telling, *, as_lines: bool = False) -> None:
        self._reporter, self._out = telling.reporter, telling.out
        self._as_lines, self._keeps = as_lines, telling.report is not None
        self._shown = telling.shown
        self.volumes: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.failures: list[tuple[str, str]] = []
        self.flags: Counter[str] = Counter()

    def add(self, each: Outcome | Refused) -> None:
        """Tell of one volume."""
        from fastseg.cohort.job import Refused
        from fastseg.cohort.report import volume_record

        record = volume_record(each, self._out)
        if isinstance(each, Refused):
            name, seconds, notes = each.name, 0.0, tuple[str, ...]()
        else:
            name, seconds, notes = each.job.name, sum(each.seconds.values()), each.notes
            self.flags.update(each.flags)
            if self._shown is not None:
                self._shown.note(each)
        status = str(each.status)
        self.counts[status] += 1
        if not each.status.success:
            self.failures.append((status, each.message))
        shown = notes if status != "cached" else ()
        self._reporter.volume(name, status, each.message, shown, seconds)
        if not isinstance(each, Refused) and "traceback" in each.record:
            _logger.debug("%s", each.record["traceback"])
        if self._as_lines:
            click.echo(json.dumps(record))
        elif record["Mask"] is not None:
            self._reporter.mask(each.job.outputs.mask)  # type: ignore[union-attr]  # a mask is a job's
        if self._keeps:
            self.volumes.append(record)

    @property
    def succeeded(self) -> int:
        """Volumes that count as a success."""
        return sum(self.counts.values()) - len(self.failures)


def exit_code(succeeded: int, failed: int, interrupted: int | None) -> int:
    """Exit code of a run.

    Parameters
    ----------
    succeeded, failed : volumes
    interrupted : number of the signal that stopped it
    """
    if interrupted is not None:
        return TERMINATED if interrupted == signal.SIGTERM else Exit.INTERRUPTED
    if not failed:
        return Exit.OK
    return Exit.SOME_FAILED if succeeded else Exit.NONE_SUCCEEDED


def run_list(session: Session, plan: Plan, telling: Telling) -> int:
    """Run over a list that is known; gives the exit code."""
    told = _Told(telling)
    for refused in plan.failures:
        told.add(refused)
    total = session.shard.share(len(plan.jobs)) + len(plan.failures)
    return _run(session, session.run(plan.jobs), told, telling, total)


def run_stdin(session: Session, jobs: Iterable[Job | Refused], telling: Telling) -> int:
    """Run over what comes on stdin, with a JSON line on stdout for each volume; gives the exit code."""
    return _run(session, session.run_stream(jobs), _Told(telling, as_lines=True), telling, None)


def _run(
    session: Session,
    outcomes: Iterator[Outcome | Refused],
    told: _Told,
    telling: Telling,
    total: int | None,
) -> int:
    from fastseg.cohort.ledger import read_ledgers
    from fastseg.cohort.report import SUMMARY, run_report, write_summary
    from fastseg.sidecar import write_json

    began = time.perf_counter()
    reporter, out, report = telling.reporter, telling.out, telling.report
    _tell_history(session, reporter)
    trouble: OutputError | None = None
    with _stoppable(session) as interrupted, reporter.showing():
        try:
            for outcome in outcomes:
                told.add(outcome)
        except OutputError as error:  # the ledger: what is not written down does not count as done
            trouble = error
    seconds = time.perf_counter() - began
    code = exit_code(told.succeeded, len(told.failures), interrupted[0] if interrupted else None)
    tried = sum(told.counts.values())
    n_jobs = total if total is not None else tried
    if telling.shown is not None and telling.shown.earlier and not interrupted:
        _show_earlier(telling.shown)
    if trouble is None:
        trouble = _failure_of(lambda: write_summary(read_ledgers(out), out, session.scratch))
    if trouble is not None:
        code = _complain(trouble, told)
    _conclude(
        told,
        reporter,
        seconds=seconds,
        left=n_jobs - tried,
        out=out,
        table=out / SUMMARY if trouble is None else None,
        stopped=bool(interrupted) or trouble is not None,
        shown=telling.shown,
    )
    if report is not None:
        record = run_report(told.volumes, n_jobs=n_jobs, seconds=seconds, code=code, facts=telling.facts)
        trouble = _failure_of(lambda: write_json(record, report))
        code = _complain(trouble, told) if trouble is not None else code
    return code


def _show_earlier(shown: Shown) -> None:
    """Show what earlier runs made, unless the report has it, and masks that were corrected since."""
    from fastseg.past.build import build_report

    where = shown.showing
    try:
        built = build_report(
            shown.out, shown.folder, inputs=shown.root, dataset=where.dataset, subject=where.subject
        )
    except FastsegError as error:
        shown.remarks.append(f"volumes of earlier runs are not in the QC report: {error}")
    else:
        shown.remarks += built.remarks


def _failure_of(write: Callable[[], object]) -> OutputError | None:
    """Write something; gives the error if that fails, so that the run is concluded all the same."""
    try:
        write()
    except OutputError as error:
        return error
    return None


def _complain(trouble: OutputError, told: _Told) -> int:
    click.echo(f"fastseg: error: {trouble}", err=True)
    return Exit.SOME_FAILED if told.succeeded else Exit.NONE_SUCCEEDED


def _tell_history(session: Session, reporter: Reporter) -> None:
    history = session.history
    if history.torn:
        reporter.say(
            "the ledger's last line was cut off: that run was killed; its volume is done again", warning=True
        )
    if history.foreign:
        reporter.say(
            f"{history.foreign} lines of the ledger are not fastseg's: they are passed over", warning=True
        )
    if session.leftovers:
        reporter.say(f"removed {session.leftovers} temporary folders of a run that was killed")


def _conclude(
    told: _Told,
    reporter: Reporter,
    *,
    seconds: float,
    left: int,
    out: Path,
    table: Path | None,
    stopped: bool,
    shown: Shown | None,
) -> None:
    from fastseg.cohort.report import causes

    tried = sum(told.counts.values())
    worked = told.counts["ok"] + told.counts["ok_flagged"]
    counts = ", ".join(f"{n} {status}" for status, n in told.counts.items())
    speed = f", {3600 * worked / seconds:.0f} volumes an hour" if worked and seconds > 1 else ""
    text = f"{tried} volumes in {seconds:.1f} s{speed}: {counts or 'none'}"
    reporter.say(text + (f", {left} not tried" if left else ""), counts=dict(told.counts), not_tried=left)
    if told.flags:
        flags = ", ".join(f"{n} {flag}" for flag, n in told.flags.most_common())
        reporter.say(f"quality flags: {flags}", flags=dict(told.flags))
    for count, cause in causes(told.failures)[:10]:
        reporter.say(f"{count} x {cause}")
    if table is not None:
        reporter.say(f"table of all volumes: {table}")
    if shown is not None:
        for remark in shown.remarks:
            reporter.say(remark, warning=True)
        reporter.say(f"QC report: {shown.folder / 'index.html'}; to open it: {opening(shown.folder)}")
    if told.counts["no_cord"]:
        command = shlex.join(["fastseg", "view", "--failed", str(out)])
        reporter.say(f"to click on the cord where none was found: {command}")
    if told.failures or left or stopped:
        own = any(status in ("no_cord", "bad_input") for status, _ in told.failures)
        words = [word for word in sys.argv[1:] if word not in ("--retry-failed", "--overwrite")]
        command = shlex.join(["fastseg", *words, *(["--retry-failed"] if own else [])])
        reporter.say(f"{'to go on' if left else 'to try what failed again'}: {command}")


@contextmanager
def _stoppable(session: Session) -> Iterator[list[int]]:
    """Let a first SIGINT or SIGTERM finish what is under way, and a second one end the process at once.

    Gives the signals that came.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # no handlers are allowed there
        yield came
        return

    def stop(number: int, frame: object) -> None:
        came.append(number)
        if len(came) > 1:
            os._exit(TERMINATED if number == signal.SIGTERM else Exit.INTERRUPTED)
        # Not through Python's streams: the main thread may be in the middle of a write to them.
        os.write(2, b"\nfastseg: stopping when the volumes under way are done; once more: at once\n")
        session.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
