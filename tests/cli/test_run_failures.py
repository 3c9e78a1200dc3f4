"""fastseg run where something fails or ends it: what is said, how it exits, what is left."""

from __future__ import annotations

import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
from fastseg.errors import InferenceError
from fastseg.segmenter import Segmenter
from fastseg.volume import Volume
from tests.phantom_files import fastseg, files_below, save_phantom


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms, and one file that is no volume."""
    folder = tmp_path_factory.mktemp("volumes")
    save_phantom(folder / "a.nii.gz")
    save_phantom(folder / "deep" / "b.nii", seed=1)
    save_phantom(folder / "c.nii.gz", seed=2)
    (folder / "broken.nii.gz").write_text("not a volume")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTSEG_PACKS", str(tmp_path / "packs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _failing(error: BaseException) -> Any:
    """Segmenter.prepare that fails for volumes of seven slices."""
    prepare = Segmenter.prepare

    def fail(self: Segmenter, volume: Volume, *given: Any) -> Any:
        if volume.grid.shape[2] == 7:
            raise error
        return prepare(self, volume, *given)

    return fail


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (MemoryError(), "out_of_memory", "close other programs"),
        (
            InferenceError("Failed to allocate memory for requested buffer"),
            "out_of_memory",
            "crop the volume",
        ),
        (InferenceError("the engine broke; use another"), "error", "the engine broke; use another"),
        (KeyError("surprise"), "error", "KeyError: 'surprise' (in fastseg/cohort/work.py:"),
    ],
    ids=["memory", "engine-memory", "engine", "bug"],
)
def test_a_failure_inside_one_volume_is_one_line_and_the_run_goes_on(
    volumes: Path, here: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str, said: str
) -> None:
    monkeypatch.setattr(Segmenter, "prepare", _failing(error))
    save_phantom(here / "x.nii.gz", n_slices=7)
    code, out, err = fastseg("run", "x.nii.gz", volumes / "c.nii.gz", "-c", "t2", "-o", "out")
    assert (code, out) == (3, "out/c_seg.nii.gz\n")
    (line,) = [line for line in err.splitlines() if line.startswith(status)]
    assert said in line
    found = [name for name in files_below(here / "out") if not name.startswith(".fastseg")]
    assert found == ["c_seg.json", "c_seg.nii.gz", "logs", "logs/x_seg.log", "summary.tsv"]
    code, out, err = fastseg("run", "x.nii.gz", "-c", "t2", "-o", "alone")
    assert (code, out) == (4, "")
    assert err.startswith(status)
    assert said in err
    assert err.count("\n") == 1
    assert not (here / "alone").exists()


def test_verbose_shows_the_traceback_of_a_bug(
    volumes: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segmenter, "prepare", _failing(KeyError("surprise")))
    level = logging.getLogger("fastseg").level
    x = save_phantom(here / "x.nii.gz", n_slices=7)
    for inputs in ([x], [x, volumes / "c.nii.gz"]):
        code, _, err = fastseg("run", *inputs, "-c", "t2", "-v", "-o", f"out{len(inputs)}")
        assert code == (4 if len(inputs) == 1 else 3)
        assert "Traceback (most recent call last)" in err
        assert "KeyError: 'surprise'" in err
    assert "Traceback" in (here / "out2" / "logs" / "x_seg.log").read_text()
    assert logging.getLogger("fastseg").level == level


def test_a_failing_picture_takes_everything_of_its_volume_away(
    volumes: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preview = pytest.importorskip("fastseg.preview")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(preview, "overlay_png", fail)
    code, out, err = fastseg("run", volumes / "a.nii.gz", "-c", "t2", "-o", "new", "--preview")
    assert (code, out) == (4, "")
    assert "RuntimeError: no ink" in err
    assert files_below(here) == []


def test_an_interrupted_run_exits_with_130_and_keeps_its_report(
    volumes: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxRuntimeCpu, "infer", _interrupted)
    code, out, err = fastseg("run", volumes / "a.nii.gz", "-c", "t2", "--report", "run.json")
    assert (code, out) == (130, "")
    assert "interrupted, 0 of 1 volumes done" in err
    assert files_below(here) == ["run.json"]
    assert json.loads((here / "run.json").read_text())["ExitCode"] == 130


def _interrupted(*_: object) -> Any:
    raise KeyboardInterrupt


def test_a_terminated_run_exits_with_143_and_leaves_nothing_half_done(
    volumes: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminate(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Segmenter, "prepare", terminate)
    code, out, err = fastseg("run", volumes / "a.nii.gz", "-c", "t2")
    assert (code, out) == (143, "")
    assert "terminated, 0 of 1 volumes done" in err
    assert files_below(here) == []
