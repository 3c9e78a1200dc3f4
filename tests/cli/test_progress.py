"""What a run shows while it goes, on a terminal and elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.phantom_files import save_phantom


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    for seed in range(3):
        save_phantom(folder / f"{seed}.nii.gz", seed=seed)
    (folder / "bad\x1b[2J.nii.gz").write_bytes(b"no volume")
    return folder


def _on_a_terminal(volumes: Path, out: Path, *, pipe_stdout: bool, **variables: str) -> tuple[str, str]:
    """Run with a terminal for stderr; gives what the terminal got, and what stdout got otherwise."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the other end is closed
                return
            if not piece:
                return
            shown.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    command = [sys.executable, "-m", "fastseg", "run", volumes, "-o", out]
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM")}
    try:
        done = subprocess.run(
            command,
            env={**environment, "TERM": "xterm", **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipe_stdout else theirs,
            stderr=theirs,
            check=False,
            timeout=600,
        )
    finally:
        os.close(theirs)
        reader.join(600)
        os.close(ours)
    assert done.returncode == 3
    return b"".join(shown).decode(), (done.stdout or b"").decode()


def test_a_terminal_shows_a_bar_and_failures_and_no_paths(volumes: Path, tmp_path: Path) -> None:
    shown, _ = _on_a_terminal(volumes, tmp_path / "out", pipe_stdout=False)
    assert "4/4" in shown
    assert "1 failed" in shown
    assert "bad_input" in shown
    assert "_seg.nii.gz\r\n" not in shown
    assert "\x1b[2J" not in shown  # what a name holds does not reach the terminal
    assert "4 volumes in" in shown


def test_paths_go_to_stdout_where_that_is_no_terminal(volumes: Path, tmp_path: Path) -> None:
    shown, out = _on_a_terminal(volumes, tmp_path / "out", pipe_stdout=True, NO_COLOR="1")
    assert sorted(out.splitlines()) == [str(tmp_path / "out" / f"{k}_seg.nii.gz") for k in range(3)]
    assert "4/4" in shown
    assert not [code for code in ("\x1b[31m", "\x1b[32m", "\x1b[91m") if code in shown]


def test_a_dumb_terminal_gets_a_line_a_volume(volumes: Path, tmp_path: Path) -> None:
    shown, _ = _on_a_terminal(volumes, tmp_path / "out", pipe_stdout=True, TERM="dumb")
    lines = shown.replace("\r\n", "\n").splitlines()
    assert "fastseg.engines: " in lines[0]  # what runs, and why
    lines = [line for line in lines if not line.startswith("fastseg.engines: ")]
    assert sorted(line.split()[0] for line in lines[:4]) == ["bad_input", "ok", "ok", "ok"]
    assert "\x1b" not in shown
    assert "\r" not in shown.replace("\r\n", "\n")
