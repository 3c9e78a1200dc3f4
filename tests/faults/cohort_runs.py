"""Cohorts of small phantoms, the real command line on them, and what must be true of what it leaves."""

from __future__ import annotations

import ctypes
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from fastseg.phantom import make_phantom

__all__ = [
    "Run",
    "assert_whole",
    "fill",
    "finish",
    "hear",
    "ledger_lines",
    "lives",
    "obey_permissions",
    "parsed",
    "phantom",
    "results",
    "run",
    "start",
    "statuses",
    "wait_for",
]

# Far more than any of these runs takes on a machine that does other things: only a hang meets it.
_PATIENCE = 300.0
_FAULTS = Path(__file__).with_name("cohort_faulty.py")


class Run:
    """How a command ended, and what it told."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.out = out.decode(errors="surrogateescape")
        self.err = err.decode(errors="surrogateescape")

    def __repr__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    def lines(self, status: str) -> list[str]:
        """Lines of stderr about volumes of one status."""
        return [line for line in self.err.splitlines() if line.startswith(f"{status} ")]


@lru_cache
def phantom(seed: int = 0) -> bytes:
    """A .nii.gz file of six slices."""
    image, _ = make_phantom("t2", n_slices=6, seed=seed)
    voxels = image.voxels.astype(np.int16)
    content: bytes = nib.Nifti1Image(voxels, image.grid.affine, dtype=voxels.dtype).to_bytes()
    return gzip.compress(content, 1, mtime=0)


def fill(folder: Path, n_volumes: int, *, different: int = 6) -> Path:
    """Make volumes v00.nii.gz, v01.nii.gz, ..., of which so many differ."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(n_volumes):
        (folder / f"v{k:02}.nii.gz").write_bytes(phantom(k % different))
    return folder


@contextmanager
def start(
    *words: str | os.PathLike[str],
    cwd: Path,
    fault: str | None = None,
    before: Callable[[], None] | None = None,
    **how: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start ``fastseg`` as a process of its own; it does not outlive the block.

    Parameters
    ----------
    words : of the command line
    cwd : where
    fault : one of tests/faults/cohort_faulty.py that strikes it, as ``name`` or ``name:argument``
    before : what the new process does to itself first

    Yields
    ------
    process : for `wait_for` and `finish`
    """
    program = ["-m", "fastseg"] if fault is None else [str(_FAULTS), fault]
    # Tests of how coverage or pytest is set up must not reach the process.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))
    }
    process = subprocess.Popen(
        [sys.executable, *program, *map(os.fsencode, words)],
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=before,
        **how,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(OSError):  # what was not sent any more
                    stream.close()


def finish(process: subprocess.Popen[bytes], heard: bytes = b"") -> Run:
    """Wait for the end of a process, of whose stderr `hear` has given the beginning."""
    try:
        out, err = process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it hangs: {err.decode(errors='replace')}") from None
    return Run(process.returncode, out, heard + err)


def run(*words: str | os.PathLike[str], cwd: Path, **how: Any) -> Run:
    """Run ``fastseg`` to its end; parameters as of `start`."""
    with start(*words, cwd=cwd, **how) as process:
        return finish(process)


def wait_for(happened: Callable[[], Any], process: subprocess.Popen[bytes]) -> None:
    """Wait until something happened, or a process ended without it, which is an error."""
    began = time.monotonic()
    while not happened():
        code = process.poll()
        if code is not None:
            if happened():
                return
            raise AssertionError(f"it ended before that: {finish(process)}")
        if time.monotonic() - began > _PATIENCE:
            process.kill()
            raise AssertionError(f"it never happened: {finish(process)}")
        time.sleep(0.002)


def hear(words: str, process: subprocess.Popen[bytes]) -> bytes:
    """Wait until a process has said something on stderr; gives all that it has said, for `finish`."""
    assert process.stderr is not None
    handle, heard = process.stderr.fileno(), bytearray()
    os.set_blocking(handle, False)

    def said() -> bool:
        with suppress(BlockingIOError):
            heard.extend(os.read(handle, 1 << 16))
        return words.encode() in heard

    wait_for(said, process)
    os.set_blocking(handle, True)
    return bytes(heard)


def lives(pid: int) -> bool:
    """Whether a process has not ended; nobody may have asked yet how it did."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def ledger_lines(out: Path) -> list[dict[str, Any]]:
    """Whole lines of all ledgers of an output folder."""
    ledgers = sorted((out / ".fastseg").glob("ledger*.jsonl"))
    lines = [parsed(line) for path in ledgers for line in path.read_bytes().split(b"\n")]
    return [line for line in lines if line]


def parsed(line: bytes) -> dict[str, Any]:
    """A line of a ledger; nothing where it was cut off."""
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return record


def statuses(out: Path) -> dict[str, str]:
    """The last status of each volume in the ledgers."""
    return {line["name"]: line["status"] for line in ledger_lines(out) if line.get("event") == "end"}


def results(out: Path) -> dict[str, bytes]:
    """Files that a run leaves to its users, but for the times in sidecars."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if not path.is_file() or name.startswith((".fastseg/", "logs/")) or name == "summary.tsv":
            continue
        content = path.read_bytes()
        if name.endswith(".json"):
            record = json.loads(content)
            record["Fastseg"].pop("Seconds")
            content = json.dumps(record).encode()
        found[name] = content
    return found


def assert_whole(out: Path, names: Iterable[str]) -> None:
    """Check that a run ended well: all volumes are in the ledger and the table, nothing temporary is left."""
    lines = ledger_lines(out)
    names = sorted(names)
    assert sorted({line["name"] for line in lines if line["event"] == "end"}) == names
    table = (out / "summary.tsv").read_text().splitlines()
    assert table[0].startswith("name\tstatus\t")
    assert sorted(row.split("\t")[0] for row in table[1:]) == names
    temporary = [p for p in out.rglob("*") if p.name.startswith(".fastseg-") or p.name.endswith(".tmp")]
    assert temporary == []


def obey_permissions() -> None:
    """Take root's right to ignore permission bits away from the process that is about to start."""
    drop_from_bounding_set, override, read_search = 24, 1, 2
    if os.geteuid() == 0 and sys.platform == "linux":
        for capability in (override, read_search):
            ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)
