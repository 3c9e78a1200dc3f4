"""The tests that need a GPU, with pytest: the suite that every engine has to pass, over TensorRT."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tools.gpu.bench import Bench, NotHere

__all__ = ["check"]

_CHECKOUT = Path(__file__).resolve().parents[2]
_VERDICT = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)\b", re.MULTILINE)
_BEGUN = re.compile(r"^(\S+::\S.*?) *$", re.MULTILINE)
# Names of failures that are told; the table has their number.
_NAMED = 20


def check(bench: Bench) -> None:
    """Run them, and count; what was not reached in time is told."""
    bench.vendor()
    if importlib.util.find_spec("pytest") is None:
        raise NotHere("pytest is not installed: pip install pytest, or leave --no-install away")
    command = [sys.executable, "-m", "pytest", "-v", "-rs", "--tb=short", "-p", "no:cacheprovider"]
    bench.doing("running pytest")
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        pytest = subprocess.Popen(
            [*command, *bench.hardware.tests],
            cwd=_CHECKOUT,
            # What else is installed on the machine must not take part.
            env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            pytest.wait(max(bench.seconds_left, 1.0))
        except subprocess.TimeoutExpired:
            pytest.kill()
            pytest.wait()
            bench.left_out("the tests that had not run when the time was spent")
        said.seek(0)
        _tell(bench, said.read(), pytest.returncode)


def _tell(bench: Bench, said: str, code: int) -> None:
    verdicts = dict(_VERDICT.findall(said))
    counts = Counter(verdicts.values())
    bench.row(
        tests=len(verdicts),
        passed=counts["PASSED"],
        failed=counts["FAILED"] + counts["ERROR"],
        skipped=counts["SKIPPED"],
    )
    failures = [name for name, verdict in verdicts.items() if verdict in ("FAILED", "ERROR")]
    for name in failures[:_NAMED]:
        bench.failed(f"{name}{_why(said, name)}")
    if len(failures) > _NAMED:
        bench.failed(f"and {len(failures) - _NAMED} more")
    skips = [line.strip() for line in said.splitlines() if line.startswith("SKIPPED [")]
    if verdicts and counts["SKIPPED"] == len(verdicts):
        raise NotHere(skips[0] if skips else "all tests were skipped")
    for line in skips:
        bench.left_out(line)
    if code > 0 and not failures:
        bench.failed(f"pytest ended with {code}: {_last(said)}")
    elif code < 0 and code != -9:
        unfinished = [name for name in _BEGUN.findall(said) if name not in verdicts]
        bench.failed(f"pytest was ended by signal {-code} in {unfinished[-1] if unfinished else _last(said)}")


def _why(said: str, name: str) -> str:
    """Give the error of a failed test, from the lines below its title."""
    title = re.escape(name.split("::", 1)[1].replace("::", "."))
    found = re.search(rf"^_+ {title} _+$.*?^E +(.*?)$", said, re.MULTILINE | re.DOTALL)
    return f": {found[1][:200]}" if found else ""


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
