"""The options that observe a run: what they write, also when it fails, and what they refuse."""

from __future__ import annotations

import json
import pstats
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from fastseg.call_profile import thread_profile
from fastseg.cli.observe import observed, observing_options
from fastseg.errors import OptionError
from fastseg.profiling import recording, span
from fastseg.tracing import active_trace


def _work(volume: str, kept: list[Any]) -> None:
    with thread_profile(), recording(volume=volume):
        _segment(kept)


def _segment(kept: list[Any]) -> None:
    with span("prepare"):
        kept.append(np.ones(2_000_000, np.uint8))
    with span("infer"):
        sum(range(1000))


@click.command()
@click.argument("inputs", nargs=-1, required=True)
@click.option("--end", default="")
@observing_options
def _command(
    inputs: tuple[str, ...],
    end: str,
    profile_time: Path | None,
    trace_memory: Path | None,
    trace: Path | None,
) -> None:
    """A cohort: one worker a volume."""
    kept: list[Any] = []
    with observed(profile_time, trace_memory, trace):
        workers = [threading.Thread(target=_work, args=(each, kept), name=f"on {each}") for each in inputs]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if end == "error":
            raise KeyError(end)
        if end == "interrupted":
            raise KeyboardInterrupt
    click.echo("done")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(_command, ["a.nii", "b.nii", *arguments])


def test_nothing_is_observed_unless_asked_for(here: Path) -> None:
    assert _run().output == "done\n"
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("end", ["", "error", "interrupted"])
def test_all_files_are_there_however_the_run_ends(here: Path, end: str) -> None:
    result = _run("--end", end, "--profile-time", "--trace-memory", "--trace", "run.json")
    assert (result.exit_code == 0) == (not end)
    names = ["memory_snapshots.txt", "peak_memory.txt", "run.json", "time_profiling_results.txt"]
    assert sorted(path.name for path in here.iterdir()) == names

    profile = (here / "time_profiling_results.txt").read_text()
    assert ", 3 thread(s)," in profile.splitlines()[0]
    assert re.search(r"^prepare +2 +\d+\.\d{3} +\d+\.\d{3}$", profile, re.MULTILINE)
    assert re.search(r"^ +2 .*test_observe.py:\d+\(_segment\)$", profile, re.MULTILINE)  # of both workers

    steps = [event for event in json.loads((here / "run.json").read_text()) if event["ph"] == "X"]
    found = sorted((step["name"], step["args"]["volume"]) for step in steps)
    assert found == [(name, volume) for name in ("infer", "prepare") for volume in ("a.nii", "b.nii")]

    traced, resident = (here / "peak_memory.txt").read_text().splitlines()
    # two arrays of 2 million bytes; whatever pytest holds was there before
    assert 3900 < float(re.match(r"([\d.]+) KiB traced", traced)[1]) < 30_000  # type: ignore[index]
    assert int(re.match(r"(\d+) KiB resident", resident)[1]) > 10_000  # type: ignore[index]
    snapshots = (here / "memory_snapshots.txt").read_text()
    assert re.search(r"^prepare +\d+\.\d KiB of [ab].nii$", snapshots, re.MULTILINE)
    assert re.search(r"^at the end of prepare of [ab].nii: \d+\.\d KiB$", snapshots, re.MULTILINE)
    at_the_end = snapshots[snapshots.index("\nat the end: ") :]
    assert re.search(r"numpy.*: size=390[67] KiB", at_the_end)


def test_nothing_goes_on_listening_afterwards(here: Path) -> None:
    _run("--end", "error", "--profile-time", "--trace-memory", "--trace", "run.json")
    before = {path: path.read_bytes() for path in here.iterdir()}
    with span("late"):
        pass
    assert (active_trace(), sys.getprofile()) == (None, None)
    assert {path: path.read_bytes() for path in here.iterdir()} == before


def test_files_and_folders_can_be_named(here: Path) -> None:
    assert _run("--profile-time=run.prof", "--trace-memory", "deep/memory").exit_code == 0
    assert (here / "deep" / "memory" / "peak_memory.txt").is_file()
    stats = pstats.Stats(str(here / "run.prof"))
    assert any(name == "_segment" for _, _, name in stats.stats)  # type: ignore[attr-defined]


def test_files_of_an_earlier_run_are_replaced(here: Path) -> None:
    arguments = ("--profile-time", "--trace-memory=memory", "--trace", "run.json")
    assert _run(*arguments).exit_code == 0
    assert _run(*arguments).exit_code == 0
    assert (here / "time_profiling_results.txt").read_text().count("Time profile of fastseg") == 1
    assert isinstance(json.loads((here / "run.json").read_text()), list)
    assert len((here / "memory" / "peak_memory.txt").read_text().splitlines()) == 2


@pytest.mark.parametrize("option", ["profile_time", "trace"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("input.nii.gz", "is no file to write to"),
        ("folder", "is no file to write to"),
        ("missing/file.txt", "its folder does not exist"),
        ("list.tsv", "exists, and no fastseg --.* wrote it"),
    ],
)
def test_what_cannot_or_must_not_be_written_is_an_error_before_the_run(
    here: Path, option: str, name: str, message: str
) -> None:
    (here / "folder").mkdir()
    (here / "list.tsv").write_text("path\n")
    before = sorted(here.iterdir())
    with pytest.raises(OptionError, match=message), observed(**{option: Path(name)}):
        pytest.fail("it ran")
    assert sorted(here.iterdir()) == before
    assert (here / "list.tsv").read_text() == "path\n"


def test_a_folder_that_cannot_be_made_is_an_error_before_the_run(here: Path) -> None:
    (here / "file").write_text("")
    message = "--trace-memory file/memory: cannot be made"
    with pytest.raises(OptionError, match=message), observed(trace_memory=Path("file/memory")):
        pytest.fail("it ran")


def test_two_options_cannot_share_a_file(here: Path) -> None:
    message = "--profile-time writes there too"
    with pytest.raises(OptionError, match=message), observed(Path("run"), trace=here / "run"):
        pytest.fail("it ran")


def test_a_file_that_cannot_be_written_in_the_end_costs_a_warning(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with observed(profile_time=Path("time.txt"), trace_memory=Path("memory")):
        (here / "memory").rename(here / "elsewhere")
        (here / "time.txt").mkdir()
    err = capsys.readouterr().err
    assert "warning: time.txt: cannot be written (Is a directory)" in err
    assert "warning: memory: cannot be written (No such file or directory)" in err


def test_an_error_of_the_run_on_a_file_is_not_taken_for_one_of_ours(here: Path) -> None:
    with pytest.raises(FileNotFoundError), observed(Path("time.txt"), Path("memory"), Path("run.json")):
        Path("missing").read_text()


def test_importing_the_options_is_light() -> None:
    code = "import sys, fastseg.cli.observe; print({'pstats', 'tracemalloc', 'numpy'} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout == "set()\n"
