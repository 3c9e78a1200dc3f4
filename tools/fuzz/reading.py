"""One input through the reader, under guard: what escapes, how long it takes, how much memory it has."""

from __future__ import annotations

import re
import signal
import time
import tracemalloc
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from isal import igzip_lib

from fastseg.errors import InputError, OptionError, OutputError
from fastseg.nifti import probe_volume, read_volume, write_volume
from tools.fuzz.inputs import Input

__all__ = ["MEMORY_CONSTANT", "MEMORY_FACTOR", "SECONDS", "Verdict", "read_input", "watch_time"]

#: No input may take longer, in CPU time: other programs on the machine are not the reader's fault. One that
#: waits without using any is found by `tools.fuzz.pool`.
SECONDS = 2.0
#: The reader may take so many times what the file holds, uncompressed, and always the constant: bytes that
#: are scaled become float32, four times their size, beside the bytes themselves, whose buffer grows by an
#: eighth; the constant is the pieces of 4 MB in which it reads, three at a time.
MEMORY_FACTOR, MEMORY_CONSTANT = 6, 16_000_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one input.

    Parameters
    ----------
    kind : "read", or what it was refused for, without names and numbers
    failure : what must not happen; empty where nothing did
    seconds : CPU time in the reader
    peak : bytes allocated at most; None where nobody counted
    content : bytes that the file holds when uncompressed
    """

    kind: str
    failure: str
    seconds: float
    peak: int | None
    content: int


class _TooSlow(BaseException):
    """Not an Exception, so that nobody on the way takes it for one of the file's."""


def read_input(case: Input, folder: Path, *, count_memory: bool) -> Verdict:
    """Write an input to a file, and read that as fastseg does.

    Parameters
    ----------
    case : from `make_input`
    folder : for the file, which is removed again
    count_memory : whether to count allocations, which takes some time
    """
    path = folder / ("input.nii.gz" if case.story[0] != "plain" else "input.nii")
    path.write_bytes(case.content)
    if count_memory:
        tracemalloc.start()
    began = time.process_time()
    kind, failure = "", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            kind, failure = _outcome(case, path)
    except _TooSlow:
        failure = f"takes more than {SECONDS:g} s"
    except BaseException as error:
        failure = f"escapes: {type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        seconds = time.process_time() - began
        peak = tracemalloc.get_traced_memory()[1] if count_memory else None
        tracemalloc.stop()
        path.unlink()
    content = _content(case.content)
    if peak is not None and peak > MEMORY_FACTOR * content + MEMORY_CONSTANT:
        failure = failure or f"takes {peak / 1e6:.1f} MB for {content / 1e6:.1f} MB of content"
    return Verdict(kind or "failure", failure, seconds, peak, content)


def watch_time() -> None:
    """Let the timer of `read_input` raise; once a process, in its main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooSlow

    signal.signal(signal.SIGPROF, stop)


def _outcome(case: Input, path: Path) -> tuple[str, str]:
    """What came of it, and what is wrong with that."""
    frame: Any = case.frame
    probed = _probed(path, frame)
    try:
        volume, template = read_volume(path, frame=frame)
    except (InputError, OptionError) as error:
        said = str(error)
        failure = ""
        if "\n" in said or "\r" in said:
            failure = f"not one line: {said!r}"
        elif case.sound:
            failure = f"a sound file is refused: {said}"
        elif isinstance(probed, str) and probed != said:
            failure = f"the probe said: {probed!r}, the reader: {said!r}"
        return _without_names(said, path), failure
    if probed != volume.grid.shape:
        return "read", f"the probe said {probed}, the reader {volume.grid.shape}"
    # What can be read must be writable: the mask takes its header from the input.
    out = path.with_name("mask.nii")
    try:
        write_volume(np.zeros(volume.grid.shape, np.uint8), template, out)
        again = read_volume(out)[0]
    except OutputError as error:
        return "read", f"its mask cannot be written: {error}"
    except InputError as error:
        return "read", f"its mask cannot be read: {error}"
    if not np.array_equal(again.grid.affine, volume.grid.affine):
        return "read", "its mask lies elsewhere"
    return "read", ""


def _probed(path: Path, frame: Any) -> tuple[int, int, int] | str:
    try:
        return probe_volume(path, frame).shape
    except (InputError, OptionError) as error:
        return str(error)


def _content(content: bytes) -> int:
    """Bytes of a file when uncompressed, as far as that goes."""
    total, rest = len(content), content
    while rest[:2] == b"\x1f\x8b":
        member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        try:
            piece = member.decompress(rest, 1 << 20)
            while piece and not member.eof:
                total += len(piece)
                piece = member.decompress(b"", 1 << 20)
            total += len(piece)
        except Exception:  # of igzip, which has no types: the rest does not count
            return total
        rest = member.unused_data if member.eof else b""
    return total


def _without_names(text: str, path: Path) -> str:
    """The sentence of an error, the same for all files it is said of."""
    text = text.replace(f"{path}: ", "").split("; ")[0]
    text = re.sub(r"\([^()]*(\([^()]*\)[^()]*)*\)", "", text)
    text = re.sub(r"-?\d[\d.e+-]*( [kMGT]?B\b)?", "N", text)
    text = re.sub(r"frame .* does", "frame N does", text)
    return " ".join(text.split())[:80]
