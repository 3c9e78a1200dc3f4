"""What CI runs: one line a step, what failed, and pytest's closing line last."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import packages
from debian import install_packages
from environment import CHECKOUT, SetupError, ensure_environment

_DESCRIPTION = """\
Run everything that CI runs, in an environment of its own (.venv-test, made when pyproject.toml changes).

  tools/test                      all of it
  tools/test --quick              without packaging, golden, fault and browser tests: under five minutes
  tools/test --quick -- -k crops  arguments after -- go to pytest
  tools/test --only types         one step
  tools/test --slow               soak and kill tests, and nothing else
"""

_NO_TESTS = 5  # pytest's exit code when nothing was selected
_KERNEL_TESTS = ("tests/unit/kernels", "fastseg/kernels")
_LOAD_KERNELS = "from fastseg.compilation import load_kernels; load_kernels(print)"


class StepFailed(Exception):
    """A step found something; the message is what there is to read."""


@dataclass
class Bench:
    """What the steps work with."""

    binaries: Path
    scratch: Path
    quick: bool
    slow: bool
    pytest_arguments: list[str]
    closing_line: str = ""
    distributions: list[Path] = field(default_factory=list)

    def call(self, tool: str, *arguments: str, **variables: str) -> str:
        """Run a program of the environment in the checkout, silently unless it fails."""
        done = subprocess.run(
            [self.binaries / tool, *arguments],
            cwd=CHECKOUT,
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode and not (tool == "pytest" and done.returncode == _NO_TESTS):
            raise StepFailed(done.stdout)
        return done.stdout.strip()


def _lint(bench: Bench) -> None:
    # The cache does not notice that a module which is imported has come or gone.
    bench.call("ruff", "check", "--quiet", "--no-cache")


def _format(bench: Bench) -> None:
    bench.call("ruff", "format", "--check", "--quiet", "--diff")


def _types(bench: Bench) -> None:
    bench.call("mypy")


def _vendor_types(bench: Bench) -> str:
    """Hold what engines/tensorrt calls against the vendor's own bindings, where they are installed."""
    return bench.call("python", "tools/lib/stubs.py", "--check").splitlines()[-1]


def _imports(bench: Bench) -> None:
    bench.call("lint-imports")


def _kernels(bench: Bench) -> str:
    """Compile before the tests do, so that no test is timed while it compiles."""
    return bench.call("python", "-c", _LOAD_KERNELS).replace("\n", "; ")


def _pytest(bench: Bench) -> str:
    if bench.slow:
        selection = ["-m", "slow"]
    elif bench.quick:
        left_out = [f"--ignore=tests/{folder}" for folder in ("golden", "faults", "browser")]
        selection = ["-m", "not slow and not golden", *left_out]
    else:
        selection = ["-m", "not slow"]
    workers = [] if bench.slow else ["-n", str(min(_cores(), 4)), "--dist=worksteal"]
    tests = subprocess.Popen(
        [bench.binaries / "pytest", *workers, *selection, *bench.pytest_arguments],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )
    assert tests.stdout is not None
    for line in tests.stdout:
        if re.match(r"=+ .*\d+ .* in [\d.]+s.* =+$", line):
            bench.closing_line = line.strip()  # comes last of all
        else:
            print(line, end="", flush=True)
    if tests.wait() == _NO_TESTS and bench.slow:
        return "there are none"
    if tests.returncode:
        raise StepFailed("")
    return ""


def _kernels_as_python(bench: Bench) -> str:
    """Without the JIT an index out of range is an error, and coverage sees the lines."""
    output = bench.call("pytest", *_KERNEL_TESTS, "-m", "not slow and not golden", NUMBA_DISABLE_JIT="1")
    return output.splitlines()[-1].strip("= ")


def _build(bench: Bench) -> None:
    bench.distributions = packages.build(bench.binaries, bench.scratch)


def _elsewhere(bench: Bench) -> str:
    return packages.try_elsewhere(bench.distributions, bench.scratch)


_STEPS: dict[str, tuple[str, Callable[[Bench], str | None]]] = {
    "lint": ("ruff check", _lint),
    "format": ("ruff format", _format),
    "build": ("wheel and sdist", _build),
    "types": ("mypy --strict", _types),
    "elsewhere": ("wheel in a fresh environment", _elsewhere),
    "vendor-types": ("mypy, TensorRT's own types", _vendor_types),
    "imports": ("import contracts", _imports),
    "nojit": ("kernel tests without the JIT", _kernels_as_python),
    "kernels": ("kernels compile", _kernels),
    "pytest": ("pytest and doctests", _pytest),
}
_AFTER = {"elsewhere": "build"}
_QUICK = ("lint", "format", "types", "vendor-types", "imports", "kernels", "pytest")
_SLOW = ("kernels", "pytest")


@dataclass(frozen=True)
class _Ended:
    """How a step ended; `output` is what there is to read where it failed."""

    title: str
    seconds: float
    failed: bool = False
    remark: str = ""
    output: str = ""

    def report(self) -> None:
        """Say so, in a line."""
        if self.output:
            print(self.output, flush=True)
        verdict = "FAILED" if self.failed else "ok"
        print(f"{verdict:7}{self.title:32}{self.seconds:7.1f} s  {self.remark}".rstrip(), flush=True)


def main() -> int:
    """Run the steps that were asked for."""
    options, pytest_arguments = _parse(sys.argv[1:])
    names = _SLOW if options.slow else _QUICK if options.quick else tuple(_STEPS)
    if options.only:
        names = tuple(name for name in _STEPS if name in options.only)
    failed: list[str] = []
    # What one process compiled need not be compiled by the next: collecting takes half as long, a start of
    # fastseg a tenth less.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if options.system_packages and not shutil.which("chromium"):
        install_packages("chromium")  # where it cannot be had, its tests skip and say so

    with tempfile.TemporaryDirectory(prefix="fastseg-test-") as scratch:
        started = time.monotonic()
        try:
            binaries = ensure_environment(
                CHECKOUT / ".venv-test",
                extras="[test]",
                system_packages=options.system_packages,
                compiled=False,
            )
        except SetupError as error:
            print(f"FAILED environment: {error}", flush=True)
            return 1
        _Ended(f"environment (Python {sys.version.split()[0]})", time.monotonic() - started).report()
        bench = Bench(binaries, Path(scratch), options.quick, options.slow, pytest_arguments)
        for ended in _run(names, bench):
            ended.report()
            if ended.failed:
                failed.append(ended.title)

    print(f"failed: {', '.join(failed)}" if failed else "all steps passed")
    if bench.closing_line:
        print(bench.closing_line)
    return 1 if failed else 0


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    pytest_arguments: list[str] = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, pytest_arguments = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(
        prog="tools/test", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the part to run while working")
    parser.add_argument("--slow", action="store_true", help="soak and kill tests, and nothing else")
    parser.add_argument("--only", action="append", choices=list(_STEPS), help="this step; may be repeated")
    parser.add_argument(
        "--system-packages",
        action="store_true",
        help="install Debian packages that are missing: venv, and chromium for the tests of pages",
    )
    return parser.parse_args(arguments), pytest_arguments


def _run(names: tuple[str, ...], bench: Bench) -> Iterator[_Ended]:
    """Run steps beside each other, a core each, and then pytest, which takes all; gives them in order."""
    begun: dict[str, Future[_Ended]] = {}
    with ThreadPoolExecutor(_cores()) as pool:
        for name in names:
            if name != "pytest":
                begun[name] = pool.submit(_run_step, name, bench, begun.get(_AFTER.get(name, "")))
        for step in begun.values():
            yield step.result()
    if "pytest" in names:
        yield _run_step("pytest", bench)


def _run_step(name: str, bench: Bench, after: Future[_Ended] | None = None) -> _Ended:
    if after is not None:
        wait([after])
    title, step = _STEPS[name]
    started = time.monotonic()
    try:
        remark = step(bench)
    except (StepFailed, SetupError, packages.PackageError) as error:
        return _Ended(title, time.monotonic() - started, failed=True, output=str(error))
    return _Ended(title, time.monotonic() - started, remark=remark or "")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
