"""What the viewer's page says to the program, said without a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastseg.phantom import make_phantom
from fastseg.volume import Volume
from tests.phantom_files import save

# Far more than anything here takes: only a hang meets it.
_PATIENCE = 300.0


def hear_ctrl_c() -> None:
    """Undo, in a process that is about to start, what shells do to what runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Answer(NamedTuple):
    """Status and content of an answer."""

    status: int
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def text(self) -> str:
        return self.content.decode()


def ask(url: str, method: str, path: str, body: object = None) -> Answer:
    """Ask for something below the token."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, content, method=method)
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            return Answer(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read())


def cord_points(image: Volume, mask: Volume, slices: tuple[int, ...] = (0, 3, 5)) -> list[list[float]]:
    """Centres of a mask on some of its slices, in RAS+ mm."""
    points = []
    for z in slices:
        x, y = np.argwhere(mask.voxels[:, :, z]).mean(axis=0)
        points.append((image.grid.affine @ [x, y, z, 1])[:3].tolist())
    return points


def save_hidden_cord(path: Path) -> list[list[float]]:
    """Write a phantom in which no detector finds the cord, for a corner outshines it; gives points on it."""
    image, mask = make_phantom("t2", n_slices=6)
    voxels = image.voxels.astype(np.float32).copy()
    voxels[2:6, 2:6] = 33 * voxels.max()
    save(path, voxels, image.grid.affine)
    return cord_points(image, mask)


class Viewing:
    """A running ``fastseg``, that shows a page.

    Parameters
    ----------
    process : it; its terminal is `terminal`, if it was given one
    """

    def __init__(self, process: subprocess.Popen[str], terminal: int | None) -> None:
        self.process, self.terminal = process, terminal
        self.said = ""
        self.url = ""

    def wait_for_page(self) -> str:
        """Give the URL as soon as it is told."""
        self.url = self.wait_to_hear(r"http://127\.0\.0\.1:\d+/\S+/")
        return self.url

    def wait_to_hear(self, pattern: str) -> str:
        """Wait for something on stderr."""
        assert self.process.stderr is not None
        began = time.monotonic()
        while not (found := re.search(pattern, self.said)):
            line = self.process.stderr.readline()
            assert line, f"it ended: {self.said}"
            assert time.monotonic() - began < _PATIENCE, self.said
            self.said += line
        return found[0]

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        return ask(self.url, method, path, body)

    def type(self, text: str) -> None:
        """Type into its terminal."""
        assert self.terminal is not None
        os.write(self.terminal, text.encode())

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; exit code, stdout and stderr."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        # Not by communicate: that knows nothing of what was read ahead with the lines.
        killer = threading.Timer(_PATIENCE, self.process.kill)
        killer.start()
        said, out = self.said + self.process.stderr.read(), self.process.stdout.read()
        code = self.process.wait(_PATIENCE)
        killer.cancel()
        return code, out, said


@contextmanager
def viewing(*words: object, cwd: Path, terminal: bool = False) -> Iterator[Viewing]:
    """Start ``fastseg`` in a process of its own; it does not outlive the block."""
    ours, its = os.openpty() if terminal else (None, None)
    environment = {
        name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "fastseg", *map(str, words)],
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONUNBUFFERED": "1"},
        stdin=its if its is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )
    try:
        yield Viewing(process, ours)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        for end in (ours, its):
            if end is not None:
                os.close(end)
