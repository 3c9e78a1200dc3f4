"""Sections as processes: one that crashes or hangs costs itself, and the report says which, and at what."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.gpu.bench import Settings
from tools.gpu.sections import Section

__all__ = ["Outcome", "run_sections"]

_CHECKOUT = Path(__file__).resolve().parents[2]
# A section begins nothing more after this part of its time, so that what it has begun can end.
_SOFT = 0.8
# A section with less time than this would only start Python.
_LEAST_SECONDS = 3.0
# A process in the driver's hands may not die at once; one that does not is left behind.
_KILL_SECONDS = 5.0


@dataclass(slots=True)
class Outcome:
    """What came of a section.

    Parameters
    ----------
    section : which one
    state : ok, failed, skipped, crashed, or killed because it outran its time
    seconds : that it took
    reasons : why it is not ok, one line each
    rows : of its table
    left_out : what it did not check although it ran
    """

    section: Section
    state: str = "ok"
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def bad(self) -> bool:
        """Whether something is wrong, rather than missing."""
        return self.state in ("failed", "crashed", "killed")


def run_sections(
    sections: Sequence[Section], settings: Settings, seconds: float, say: Callable[[str], None]
) -> Iterator[Outcome]:
    """Run sections one after another, within a time for all of them.

    Each gets its part, by weight, of the time that is left when it begins. Killed by Ctrl-C or not, a section
    takes its own children with it.

    Parameters
    ----------
    seconds : for all of them
    say : gets a line when a section begins and one when it ends

    Yields
    ------
    outcome : of each, when it has ended
    """
    end, before = time.monotonic() + seconds, ""
    for index, section in enumerate(sections):
        left = end - time.monotonic()
        share = left * section.weight / sum(each.weight for each in sections[index:])
        if share < _LEAST_SECONDS:
            outcome = Outcome(
                section, "skipped", 0.0, [f"the time is spent ({seconds:g} s): --seconds gives more"]
            )
        else:
            say(f"{section.title} (at most {share:.0f} s) ...")
            outcome = _run(section, settings, share)
        reason = next(iter(outcome.reasons), "")
        why = "the same" if reason and reason == before else reason
        say(f"{outcome.state:8} {outcome.seconds:6.1f} s  {section.title}{f': {why}' if why else ''}")
        before = reason
        yield outcome


def _run(section: Section, settings: Settings, seconds: float) -> Outcome:
    path = os.pathsep.join(filter(None, [str(_CHECKOUT), os.environ.get("PYTHONPATH")]))
    # Plans of the check are its own: what it measures must not depend on what was built before.
    environment = os.environ | {"PYTHONPATH": path, "FASTSEG_ENGINES": str(settings.work / "plans")}
    with tempfile.TemporaryDirectory(prefix="fastseg-gpu-") as scratch:
        findings, errors = Path(scratch, "findings"), Path(scratch, "stderr")
        findings.touch()
        command = [sys.executable, "-P", "-m", "tools.gpu.child", section.name]
        command += [str(seconds * _SOFT), str(findings), settings.told()]
        began = time.monotonic()
        with errors.open("wb") as stderr:
            child = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
                start_new_session=True,
            )  # fmt: skip
            hung = False
            try:
                child.wait(seconds)
            except subprocess.TimeoutExpired:
                hung = True
            finally:
                _end(child)
        outcome = _read(section, findings.read_text())
        outcome.seconds = time.monotonic() - began
        last = errors.read_text(errors="replace").strip()
    return _judged(outcome, child.returncode, hung, seconds, last)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the section and everything that it started: its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_KILL_SECONDS)


@dataclass(slots=True)
class _Findings(Outcome):
    doing: str = ""
    ended: bool = False


def _read(section: Section, text: str) -> _Findings:
    found = _Findings(section)
    for line in text.splitlines():
        try:
            told = json.loads(line)
        except ValueError:  # cut off by a crash
            continue
        for kind, what in told.items():
            if kind == "row":
                found.rows.append(what)
            elif kind == "left_out":
                found.left_out.append(what)
            elif kind == "failed":
                found.state = "failed"
                found.reasons.append(what)
            elif kind == "doing":
                found.doing = what
            elif kind == "skipped":
                found.state, found.ended = "skipped", True
                found.reasons.append(what)
            elif kind == "ended":
                found.ended = True
    return found


def _judged(found: _Findings, code: int | None, hung: bool, seconds: float, stderr: str) -> Outcome:
    at = f" while {found.doing}" if found.doing else ""
    if hung:
        found.state = "killed"
        found.reasons.insert(0, f"killed after {seconds:.0f} s{at}")
    elif not found.ended:
        found.state = "crashed"
        found.reasons.insert(0, f"the process ended with {_named(code)}{at}{_tail(stderr)}")
    elif code and found.state == "ok":
        # It said that it was done, and fell over afterwards: in a vendor's library that is unloaded.
        found.state = "crashed"
        found.reasons.insert(0, f"the process ended with {_named(code)} after it was done{_tail(stderr)}")
    return Outcome(found.section, found.state, found.seconds, found.reasons, found.rows, found.left_out)


def _named(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _tail(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    # faulthandler's first line names the error; of other programs the last one does.
    told = next((line for line in lines if line.startswith("Fatal Python error")), lines[-1] if lines else "")
    return f": {told[:300]}" if told else ""
