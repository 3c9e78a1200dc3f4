"""fastseg with a fault in it: a program that dies, hangs or fails at an exact point.

Called as ``python cohort_faulty.py FAULT[:ARGUMENT] WORDS...``; the words are those of ``fastseg``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastseg.compilation import HOG_KERNELS, load_kernels

load_kernels(own_process=True, skip=HOG_KERNELS)  # as the command does, before all that imports kernels

import fastseg.cohort.ledger as ledger  # noqa: E402
import fastseg.cohort.stream.admission as admission  # noqa: E402
import fastseg.cohort.work as work  # noqa: E402
import fastseg.outputs as outputs  # noqa: E402
from fastseg.cli import program  # noqa: E402
from fastseg.segmenter import Segmenter  # noqa: E402

#: Exit code of a program that a fault ended, which fastseg itself never gives.
DIED = 99


def _die(*_: object, **__: object) -> Any:
    os._exit(DIED)


def _hang(*_: object, **__: object) -> Any:
    time.sleep(3600)


def _before(owner: Any, name: str, strike: Callable[..., object], when: Callable[..., bool]) -> None:
    """Let something happen before a function does its work, whenever its arguments say so."""
    original = getattr(owner, name)

    def struck(*given: Any, **named: Any) -> Any:
        if when(*given, **named):
            strike(*given, **named)
        return original(*given, **named)

    setattr(owner, name, struck)


def _after(owner: Any, name: str, strike: Callable[..., object], when: Callable[..., bool]) -> None:
    original = getattr(owner, name)

    def struck(*given: Any, **named: Any) -> Any:
        answer = original(*given, **named)
        if when(*given, **named):
            strike(*given, **named)
        return answer

    setattr(owner, name, struck)


def _always(*_: object, **__: object) -> bool:
    return True


class _Count:
    """True the n-th time that a condition holds, and never again."""

    def __init__(self, number: int, condition: Callable[..., bool] = _always) -> None:
        self.left, self.condition = number, condition

    def __call__(self, *given: Any, **named: Any) -> bool:
        self.left -= self.condition(*given, **named)
        return self.left == 0 and self.condition(*given, **named)


# --- deaths


def dies_when_a_volume_begins(number: str) -> None:
    _before(ledger.Ledger, "begin", _die, _Count(int(number)))


def dies_after_a_volume_was_read(number: str) -> None:
    _after(work, "read_volume", _die, _Count(int(number)))


def dies_in_prepare(number: str) -> None:
    _before(Segmenter, "prepare", _die, _Count(int(number)))


def dies_in_finish(number: str) -> None:
    _before(Segmenter, "finish", _die, _Count(int(number)))


def dies_of(name: str) -> None:
    """Whenever it has made all of one volume but its files."""
    _before(work.Work, "write", _die, lambda volume: volume.job.name == name)


def dies_before_publish(number: str) -> None:
    _before(work, "publish", _die, _Count(int(number)))


def dies_while_files_are_written(number: str) -> None:
    _before(work, "write_json", _die, _Count(int(number)))


def dies_before_rename(number: str) -> None:
    """Of the files of volumes: the first ones of a volume may have their names then, the last ones not."""

    def is_publishing(path: Path, target: Path) -> bool:
        return path.parent.name.startswith(".fastseg-")

    _before(Path, "replace", _die, _Count(int(number), is_publishing))


def dies_after_publish(number: str) -> None:
    """The files have their names, the hidden folder is still there."""
    _before(outputs.shutil, "rmtree", _die, _Count(int(number)))


def dies_before_the_ledger_line(number: str) -> None:
    _before(ledger.Ledger, "end", _die, _Count(int(number)))


def dies_after_the_ledger_line(number: str) -> None:
    _after(ledger.Ledger, "end", _die, _Count(int(number)))


def dies_within_a_line(what: str) -> None:
    """After half of the second line of an event."""

    class Half:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def write(self, content: bytes) -> int:
            self.stream.write(content[: len(content) // 2])
            self.stream.flush()
            return _die()

    def halve(book: Any, *_: object, **__: object) -> None:
        book._stream = Half(book._stream)

    _before(ledger.Ledger, what, halve, _Count(2))


def dies_before_a_log_has_its_name(number: str) -> None:
    def is_log(path: Path, target: Path) -> bool:
        return Path(target).suffix == ".log"

    _before(Path, "replace", _die, _Count(int(number), is_log))


def dies_before_the_table_has_its_name(number: str) -> None:
    def is_table(path: Path, target: Path) -> bool:
        return Path(target).name == "summary.tsv"

    _before(Path, "replace", _die, _Count(int(number), is_table))


# --- hangs


def hangs_in_write(_: str) -> None:
    _before(work.Work, "write", _hang, _always)


def hangs_in(what: str) -> None:
    """A step of one volume: ``step,name``; the first one, before it is let in, is called look."""
    step, name = what.split(",")
    owner = admission.Flight if step == "look" else work.Work
    _before(owner, step, _hang, lambda volume, *_: volume.job.name == name)


def writes_late(what: str) -> None:
    """One volume takes some seconds in its hidden folder, and then goes on: ``seconds,name``."""
    seconds, name = what.split(",")

    def wait(volume: Any, stage: Path) -> None:
        time.sleep(float(seconds))

    _before(work.Work, "_write_files", wait, lambda volume, stage: volume.job.name == name)

    original = work.publish

    @contextmanager
    def told(target: Path, **how: Any) -> Iterator[Path]:
        try:
            with original(target, **how) as stage:
                yield stage
        finally:
            print(f"published or not: {target.name}", file=sys.stderr, flush=True)

    work.publish = told


def waits_to_write(path: str) -> None:
    """All volumes but v00, until a file is there: so that a run does not end before its test has acted."""

    def wait(volume: Any) -> None:
        while not Path(path).exists():
            time.sleep(0.01)

    _before(work.Work, "write", wait, lambda volume: volume.job.source.name != "v00.nii.gz")


# --- failures


def lacks_memory(what: str) -> None:
    """To prepare one volume: ``times,name``."""
    times, name = what.split(",")
    left = [int(times)]

    def fail(volume: Any) -> None:
        left[0] -= 1
        raise MemoryError

    _before(work.Work, "prepare", fail, lambda volume: volume.job.name == name and left[0] > 0)


def fails_like_a_bug(name: str) -> None:
    def fail(volume: Any, *_: object) -> None:
        raise ZeroDivisionError("division by zero")

    _before(work.Work, "finish", fail, lambda volume, *_: volume.job.name == name)


def writes_to_input_while_it_is_read(name: str) -> None:
    """The same content again: only the time tells."""
    _after(work, "read_volume", lambda path, **_: os.utime(path), lambda path, **_: path.name == name)


def removes_input_while_it_is_read(name: str) -> None:
    _after(work, "read_volume", lambda path, **_: path.unlink(), lambda path, **_: path.name == name)


if __name__ == "__main__":
    fault, _, argument = sys.argv.pop(1).partition(":")
    globals()[fault](argument)
    program()
