"""The command line of tools/fuzz_reader."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.fuzz.inputs import make_input
from tools.fuzz.pool import Numbered, fuzz
from tools.fuzz.reading import MEMORY_CONSTANT, MEMORY_FACTOR, SECONDS

_DESCRIPTION = f"""\
Damaged NIfTI files through the reader. Each has to be read, or refused with an InputError of one line, in
{SECONDS:g} s and {MEMORY_FACTOR} times its uncompressed content + {MEMORY_CONSTANT / 1e6:g} MB of memory.
A probe has to say what the reader says, sound files have to be read, and a mask for what was read written.

  tools/fuzz_reader                                  200,000 inputs
  tools/fuzz_reader --inputs 1000 --seed 7
  tools/fuzz_reader --seed 7 --only 123 --keep DIR   one input, and its file
"""


@dataclass(slots=True)
class _Tally:
    kinds: Counter[str] = field(default_factory=Counter)
    failures: list[Numbered] = field(default_factory=list)
    slowest: Numbered | None = None
    hungriest: Numbered | None = None
    counted: int = 0

    def add(self, one: Numbered) -> None:
        verdict = one.verdict
        self.kinds[verdict.kind] += 1
        if verdict.failure:
            self.failures.append(one)
        if self.slowest is None or verdict.seconds > self.slowest.verdict.seconds:
            self.slowest = one
        if verdict.peak is not None:
            self.counted += 1
            if self.hungriest is None or _hunger(one) > _hunger(self.hungriest):
                self.hungriest = one


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fuzz.

    Returns
    -------
    code : 0; 1 where something came of an input that must not
    """
    parser = argparse.ArgumentParser(
        prog="tools/fuzz_reader", description=_DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--inputs", metavar="N", type=int, default=200_000, help="how many (200000)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="other inputs (0)")
    parser.add_argument("--workers", metavar="N", type=int, default=2, help="processes (2)")
    parser.add_argument("--only", metavar="N", type=int, help="this input alone")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="write the files of failures, or of --only")
    options = parser.parse_args(arguments)
    if options.inputs < 1 or options.workers < 1 or (options.only is not None and options.only < 0):
        parser.error("--inputs and --workers are at least 1, --only at least 0")
    numbers = range(options.inputs) if options.only is None else range(options.only, options.only + 1)
    tally, began, told = _Tally(), time.monotonic(), time.monotonic()
    for one in fuzz(options.seed, numbers, workers=min(options.workers, len(numbers))):
        tally.add(one)
        if one.verdict.failure:
            print(f"{_named(one)}: {one.verdict.failure}", file=sys.stderr)
        if time.monotonic() - told > 30:
            told = time.monotonic()
            done, failed = tally.kinds.total(), len(tally.failures)
            print(f"{done} of {len(numbers)}, {failed} failures, {told - began:.0f} s", file=sys.stderr)
    _report(tally, time.monotonic() - began, options)
    if options.keep is not None:
        kept = [one.number for one in tally.failures] if options.only is None else [options.only]
        _keep(options.keep, options.seed, kept)
    return 1 if tally.failures else 0


def _report(tally: _Tally, seconds: float, options: argparse.Namespace) -> None:
    for kind, count in tally.kinds.most_common():
        print(f"{count:8d}  {kind}")
    total = tally.kinds.total()
    print(f"{total} inputs of seed {options.seed} in {seconds:.0f} s, {options.workers} workers")
    if tally.slowest is not None:
        print(f"slowest: {tally.slowest.verdict.seconds:.2f} s, {_named(tally.slowest)}")
    if tally.hungriest is not None:
        verdict = tally.hungriest.verdict
        print(
            f"most memory for its content, of {tally.counted} counted: {(verdict.peak or 0) / 1e6:.1f} MB "
            f"for {verdict.content / 1e6:.2f} MB, {_named(tally.hungriest)}"
        )
    for one in tally.failures[:50]:
        print(f"FAILURE  {_named(one)}: {one.verdict.failure}")
    print(f"{len(tally.failures)} failures")


def _named(one: Numbered) -> str:
    return f"input {one.number} ({', '.join(one.story)})"


def _hunger(one: Numbered) -> float:
    """Part of what it may take that an input took."""
    return (one.verdict.peak or 0) / (MEMORY_FACTOR * one.verdict.content + MEMORY_CONSTANT)


def _keep(folder: Path, seed: int, numbers: Sequence[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        path = folder / f"seed{seed}_input{number}.nii"
        path.write_bytes(make_input(seed, number).content)
        print(f"{path}  frame {make_input(seed, number).frame!r}")


if __name__ == "__main__":
    sys.exit(main())
