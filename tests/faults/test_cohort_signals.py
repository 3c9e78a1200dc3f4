"""A run that is told to stop finishes what is under way; told twice, it stops at once. Both can go on."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.faults.cohort_runs import (
    assert_whole,
    fill,
    finish,
    hear,
    ledger_lines,
    results,
    run,
    start,
    statuses,
    wait_for,
)

_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
_N_VOLUMES = 24
_STOPPING = "fastseg: stopping when the volumes under way are done; once more: at once"


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("volumes"), _N_VOLUMES)


@pytest.fixture(scope="module")
def undisturbed(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run("run", volumes, "-o", "out", cwd=folder).code == 0
    return results(folder / "out")


@pytest.mark.parametrize("number", _CODES)
def test_a_signal_lets_the_volumes_under_way_end_and_begins_no_other(
    number: signal.Signals, volumes: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out, go_on = tmp_path / "out", tmp_path / "go on"
    words = ["run", volumes, "-o", "out", "--jobs", "1", "--report", "run.json"]
    with start(*words, cwd=tmp_path, fault=f"waits_to_write:{go_on}") as process:
        wait_for(lambda: statuses(out), process)
        process.send_signal(number)
        heard = hear(_STOPPING, process)
        go_on.touch()
        stopped = finish(process, heard)
    assert stopped.code == _CODES[number], stopped
    assert _STOPPING in stopped.err
    done = statuses(out)
    assert 0 < len(done) < _N_VOLUMES
    assert set(done.values()) == {"ok"}
    begun = {line["name"] for line in ledger_lines(out) if line["event"] == "begin"}
    assert begun == set(done)
    assert f"{_N_VOLUMES - len(done)} not tried" in stopped.err
    assert "fastseg: to go on: fastseg run " in stopped.err
    assert f'"NotTried": {_N_VOLUMES - len(done)}' in (tmp_path / "run.json").read_text()
    assert_whole(out, done)

    ended = run(*words, cwd=tmp_path)
    assert ended.code == 0, ended
    assert len(ended.lines("cached")) == len(done)
    assert results(out) == undisturbed
    assert_whole(out, [path.name for path in volumes.iterdir()])


@pytest.mark.parametrize("number", _CODES)
def test_a_second_signal_ends_a_run_at_once_whatever_hangs(
    number: signal.Signals, volumes: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["run", volumes, "-o", "out"]
    with start(*words, cwd=tmp_path, fault="hangs_in_write:") as process:
        wait_for(lambda: any(line["event"] == "begin" for line in ledger_lines(out)), process)
        process.send_signal(number)
        hear(_STOPPING, process)
        process.send_signal(number)
        assert process.wait(60) == _CODES[number]  # what hangs does so for an hour
    assert statuses(out) == {}
    ended = run(*words, cwd=tmp_path)
    assert ended.code == 0, ended
    assert results(out) == undisturbed
    assert_whole(out, [path.name for path in volumes.iterdir()])


def test_a_signal_stops_a_run_that_waits_for_more_on_stdin(volumes: Path, tmp_path: Path) -> None:
    """The end of its input never comes."""
    out = tmp_path / "out"
    with start("run", "-", "-o", "out", cwd=tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(os.fsencode(volumes / "v00.nii.gz") + b"\n")
        process.stdin.flush()
        wait_for(lambda: statuses(out), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        stopped = finish(process)
    assert stopped.out.count("\n") == 1
    assert_whole(out, statuses(out))
