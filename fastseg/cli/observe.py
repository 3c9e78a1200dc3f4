"""The options --profile-time, --trace-memory and --trace, and the files that they write."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastseg import __version__
from fastseg.cli.shared import with_options
from fastseg.errors import OptionError
from fastseg.outputs import is_volume_name
from fastseg.profiling import Span, hearing

if TYPE_CHECKING:
    from fastseg.call_profile import CallProfile

__all__ = ["observed", "observing_options"]

_PROFILE_HEAD = "Time profile of fastseg"
_TRACE_HEAD = "["
# Of memory: lines told of a snapshot, snapshots kept, and how much more there must be for the next one.
_ALLOCATIONS, _SNAPSHOTS, _MORE = 15, 20, 1.1


def observing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `observed` takes, under its names."""
    options = (
        click.option(
            "--profile-time",
            metavar="[FILE]",
            is_flag=False,
            flag_value="time_profiling_results.txt",
            type=click.Path(path_type=Path),
            help="Write where the time goes: text, or for snakeviz a binary FILE.prof.  "
            "[FILE: time_profiling_results.txt]",
        ),
        click.option(
            "--trace-memory",
            metavar="[DIR]",
            is_flag=False,
            flag_value=".",
            type=click.Path(path_type=Path),
            help="Write peak_memory.txt and memory_snapshots.txt into DIR.  [DIR: current folder]",
        ),
        click.option(
            "--trace",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="Write what ran when in which thread, for ui.perfetto.dev.",
        ),
    )
    return with_options(options, command)


@contextmanager
def observed(
    profile_time: Path | None = None, trace_memory: Path | None = None, trace: Path | None = None
) -> Iterator[None]:
    """Observe what happens inside the block, and write the files however it ends.

    A file that cannot be written in the end costs a warning: the run's own results are there.

    Parameters
    ----------
    profile_time : file for the calls of all threads; text, or binary if it ends in .prof
    trace_memory : folder for peak_memory.txt and memory_snapshots.txt
    trace : file for what ran when

    Raises
    ------
    OptionError
        A file cannot be written, or is none of ours. Nothing has run then.
    """
    if profile_time is not None:
        _check("--profile-time", profile_time, "" if profile_time.suffix == ".prof" else _PROFILE_HEAD)
    if trace is not None:
        _check("--trace", trace, _TRACE_HEAD)
        if profile_time is not None and trace.resolve() == profile_time.resolve():
            raise OptionError(f"--trace {trace}: --profile-time writes there too; choose another name")
    if trace_memory is not None:
        _check_folder("--trace-memory", trace_memory)
    with ExitStack() as stack:
        if trace_memory is not None:
            stack.enter_context(_memory_followed(trace_memory))
        if trace is not None:
            stack.enter_context(_traced(trace))
        if profile_time is not None:
            stack.enter_context(_profiled(profile_time))
        yield


def _check(option: str, path: Path, head: str) -> None:
    """Find out before the run whether the file can be written, and that nothing of worth is lost by it.

    `--profile-time a.nii.gz` takes an input for FILE.
    """
    if is_volume_name(path) or (path.exists() and not path.is_file()):
        raise OptionError(
            f"{option} {path}: is no file to write to; write {option}=FILE, or give inputs first"
        )
    if not path.absolute().parent.is_dir():
        raise OptionError(f"{option} {path}: its folder does not exist")
    try:
        exists = path.exists()
        with path.open("a+b") as file:
            file.seek(0)
            start = file.read(len(head))
        if not exists:
            path.unlink()
    except OSError as error:
        raise OptionError(f"{option} {path}: cannot be written ({error.strerror or error})") from error
    if start and start != head.encode():
        raise OptionError(f"{option} {path}: exists, and no fastseg {option} wrote it; choose another name")


def _check_folder(option: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{option} {folder}: cannot be made ({error.strerror or error})") from error
    for name in ("peak_memory.txt", "memory_snapshots.txt"):
        _check(option, folder / name, "")


@contextmanager
def _warned(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _warn(path, error)


def _warn(path: Path, error: OSError) -> None:
    click.echo(f"warning: {path}: cannot be written ({error.strerror or error})", err=True)


@contextmanager
def _traced(path: Path) -> Iterator[None]:
    from fastseg.tracing import tracing

    with ExitStack() as stack:
        trace = stack.enter_context(tracing(path))
        try:
            yield
        finally:
            stack.close()
            if trace.problem is not None:
                _warn(path, trace.problem)


@contextmanager
def _profiled(path: Path) -> Iterator[None]:
    from fastseg.call_profile import profiling_calls

    steps, began = _Steps(), time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(hearing(steps))
        profile = stack.enter_context(profiling_calls())
        try:
            yield
        finally:
            stack.close()
            with _warned(path):
                if path.suffix == ".prof":
                    profile.dump_stats(path)
                else:
                    text = _readable(profile, steps, time.perf_counter() - began)
                    path.write_text(text, encoding="utf-8", errors="replace")


class _Steps:
    """Hears spans and adds them up, by step."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: dict[str, tuple[int, float, float]] = {}

    def __call__(self, step: Span) -> None:
        with self._lock:
            count, seconds, cpu_seconds = self._totals.get(step.name, (0, 0.0, 0.0))
            self._totals[step.name] = count + 1, seconds + step.seconds, cpu_seconds + step.cpu_seconds

    def table(self) -> str:
        """One line a step, in the order in which they first ended."""
        lines = [f"{'step':<20} {'times':>7} {'wall s':>10} {'CPU s':>10}"]
        for name, (count, seconds, cpu_seconds) in tuple(self._totals.items()):
            lines.append(f"{name:<20} {count:>7} {seconds:>10.3f} {cpu_seconds:>10.3f}")
        return "\n".join(lines)


def _readable(profile: CallProfile, steps: _Steps, seconds: float) -> str:
    import pstats

    text = io.StringIO()
    text.write(
        f"{_PROFILE_HEAD} {__version__}: {seconds:.3f} s, {profile.n_threads} thread(s), Python "
        f"{sys.version.split()[0]}\n\n"
        "Steps of all volumes added up. A step within another is in both. CPU seconds are those of the\n"
        "step's thread, without the threads that an engine starts.\n\n"
        f"{steps.table()}\n\n"
        "Calls of all threads added up, in wall time: a thread that waits counts too.\n\n"
    )
    # it has what pstats needs of a cProfile.Profile
    pstats.Stats(profile, stream=text).sort_stats("cumulative").print_stats()  # type: ignore[arg-type]
    return text.getvalue()


@contextmanager
def _memory_followed(folder: Path) -> Iterator[None]:
    import tracemalloc

    tracemalloc.start()
    memory = _Memory()
    try:
        with hearing(memory):
            yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        memory.look("at the end")
        tracemalloc.stop()
        resident = _resident_peak_kib()
        with _warned(folder):
            (folder / "peak_memory.txt").write_text(
                f"{peak / 1024:.1f} KiB traced (Python and numpy, by tracemalloc)\n"
                + (f"{resident} KiB resident (the whole process)\n" if resident is not None else "")
            )
            (folder / "memory_snapshots.txt").write_text(memory.text(), encoding="utf-8", errors="replace")


class _Memory:
    """Hears spans, keeps how much memory was held at their ends, and looks who holds it when it grows.

    A snapshot takes seconds: with all that is imported there are 400,000 allocations. So one is taken only at
    a step that ends with clearly more than any before it; their number does not grow with that of volumes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._most: dict[str, tuple[int, str]] = {}
        self._looked_at = 0.0
        self._looks: deque[str] = deque(maxlen=_SNAPSHOTS)

    def __call__(self, step: Span) -> None:
        import tracemalloc

        traced = tracemalloc.get_traced_memory()[0]
        with self._lock:
            if traced > self._most.get(step.name, (0, ""))[0]:
                self._most[step.name] = traced, step.volume
            if traced > _MORE * self._looked_at:
                self._looked_at = traced
                self.look(f"at the end of {step.name}{_of(step.volume)}")

    def look(self, when: str) -> None:
        """Take a snapshot, which may push out the oldest one."""
        import tracemalloc

        total = tracemalloc.get_traced_memory()[0]
        statistics = tracemalloc.take_snapshot().statistics("lineno")
        others = [each for each in statistics if each.traceback[0].filename != tracemalloc.__file__]
        lines = [f"{when}: {total / 1024:.1f} KiB", *(f"  {each}" for each in others[:_ALLOCATIONS])]
        self._looks.append("\n".join(lines))

    def text(self) -> str:
        """Steps in the order in which they first ended, then snapshots in the order of time."""
        lines = ["Memory that Python and numpy held at the end of steps, the most of all times:", ""]
        lines += [
            f"{name:<20} {most / 1024:>12.1f} KiB{_of(volume)}" for name, (most, volume) in self._most.items()
        ]
        lines += ["", f"Snapshots, whenever it had grown by a tenth: the {_ALLOCATIONS} largest by line.", ""]
        return "\n".join(lines) + "\n" + "\n\n".join(self._looks) + "\n"


def _of(volume: str) -> str:
    return f" of {volume}" if volume else ""


def _resident_peak_kib() -> int | None:
    """Most memory that the process had resident, where the system tells."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // 1024 if sys.platform == "darwin" else most  # bytes there
