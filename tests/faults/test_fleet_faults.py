"""Processes of a fleet that are killed, a parent that is killed or told to stop: real ones, on the CPU."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults import cohort_runs
from tests.faults.cohort_runs import (
    assert_whole,
    fill,
    finish,
    hear,
    ledger_lines,
    lives,
    results,
    run,
    start,
    statuses,
    wait_for,
)

_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
_N_VOLUMES = 20
_N_KILLS = 5
_ENGINE = ("--engine", "onnxruntime", "--jobs", "2")
_STOPPING = "fastseg: stopping when the volumes under way are done; once more: at once"


@pytest.fixture(autouse=True)
def fleets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs with a fault are those of a fleet."""
    monkeypatch.setattr(cohort_runs, "_FAULTS", Path(__file__).with_name("fleet_faulty.py"))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("volumes"), _N_VOLUMES)


@pytest.fixture(scope="module")
def undisturbed(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run("run", volumes, "-o", "out", *_ENGINE, cwd=folder).code == 0
    return results(folder / "out")


def names(volumes: Path) -> list[str]:
    return sorted(path.name for path in volumes.iterdir())


def assert_completes(volumes: Path, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """The same command once more, in one process, ends with what an undisturbed run leaves."""
    ended = run("run", volumes, "-o", "out", *_ENGINE, cwd=tmp_path)
    assert ended.code == 0, ended
    assert results(tmp_path / "out") == undisturbed
    assert_whole(tmp_path / "out", names(volumes))


def processes_of(parent: int) -> list[int]:
    """The processes of a fleet that live now."""
    found = []
    for path in Path(f"/proc/{parent}/task").glob("*/children"):
        children = []
        with suppress(OSError):
            children = path.read_text().split()
        for pid in children:
            with suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
    return found


def are_gone_soon(pids: list[int]) -> bool:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if not any(map(lives, pids)):
            return True
        time.sleep(0.02)
    return False


def n_ends(out: Path) -> int:
    return sum(line["event"] == "end" for line in ledger_lines(out))


def test_killed_processes_at_random_moments_cost_no_volume_but_those_that_are_killed_twice(
    volumes: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    randomly, kills, runs = random.Random(5), 0, 0
    while kills < _N_KILLS:
        runs += 1
        out = tmp_path / f"{runs}" / "out"
        out.parent.mkdir()
        words = ["run", volumes, "-o", "out", *_ENGINE]
        kills_here = 0
        with start(*words, cwd=out.parent, fault="nothing") as process:
            while process.poll() is None:
                wait_for_another_end(process, out)
                time.sleep(randomly.uniform(0, 0.1))
                pids = processes_of(process.pid)
                if pids:
                    with suppress(ProcessLookupError):
                        os.kill(randomly.choice(pids), signal.SIGKILL)
                        kills_here += 1
                time.sleep(0.3)
            ended = finish(process)
        found = statuses(out)
        errors = sum(status == "error" for status in found.values())
        assert sorted(found) == names(volumes), ended
        assert set(found.values()) <= {"ok", "error"}
        assert errors < max(kills_here, 1), (
            ended
        )  # of the volumes of one kill, each later kill makes one an error
        assert ended.code == (3 if errors else 0)
        assert "Traceback" not in ended.err
        assert_whole(out, names(volumes))
        assert_completes(volumes, out.parent, undisturbed)
        kills += kills_here


def wait_for_another_end(process: subprocess.Popen[bytes], out: Path) -> None:
    """Wait until one more volume has ended, or the run."""
    began, before = time.monotonic(), n_ends(out)
    while process.poll() is None and n_ends(out) == before:
        assert time.monotonic() - began < 300
        time.sleep(0.005)


def test_a_process_that_loses_its_gpu_fails_no_volume(
    volumes: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fault = f"loses_its_gpu:{tmp_path / 'mark'}"
    ended = run("run", volumes, "-o", "out", *_ENGINE, cwd=tmp_path, fault=fault)
    assert ended.code == 0, ended
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in ended.err
    assert "tried again, one by one: " in ended.err
    assert "Traceback" not in ended.err
    assert results(out) == undisturbed
    assert_whole(out, names(volumes))


@pytest.mark.parametrize(
    "fault", ["dies_with_files_that_have_no_names:v03.nii.gz", "dies_amid_the_names:v03"]
)
def test_a_volume_that_kills_its_processes_is_an_error_and_the_others_are_done(
    fault: str, volumes: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = run("run", volumes, "-o", "out", *_ENGINE, cwd=tmp_path, fault=fault)
    assert ended.code == 3, ended
    found = statuses(out)
    assert found.pop("v03.nii.gz") == "error"
    assert set(found.values()) == {"ok"}
    (line,) = ended.lines("error")
    assert "two processes died with it" in line
    assert "tried again, one by one: " in ended.err
    assert "Traceback" not in ended.err
    assert results(out) == {k: v for k, v in undisturbed.items() if not k.startswith("v03")}
    assert_whole(out, names(volumes))  # the hidden folders of the dead are gone
    assert_completes(volumes, tmp_path, undisturbed)


def test_processes_that_die_while_they_start_end_the_run_with_one_line(volumes: Path, tmp_path: Path) -> None:
    ended = run("run", volumes, "-o", "out", *_ENGINE, cwd=tmp_path, fault="dies_at_once")
    assert ended.code == 2, ended
    assert "fastseg: error: no process is left to work (cpu (1): 3 processes in a row died" in ended.err
    assert "Traceback" not in ended.err


def test_a_parent_that_is_killed_takes_its_processes_with_it(
    volumes: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fault = f"waits_to_write:{tmp_path / 'never'}"
    with start("run", volumes, "-o", "out", *_ENGINE, cwd=tmp_path, fault=fault) as process:
        wait_for(lambda: statuses(out) and len(processes_of(process.pid)) == 2, process)
        pids = processes_of(process.pid)
        process.kill()
        assert are_gone_soon(pids)
    assert len(pids) == 2
    assert_completes(volumes, tmp_path, undisturbed)


@pytest.mark.parametrize("number", _CODES)
def test_a_signal_to_all_lets_what_was_begun_end_and_leaves_no_process(
    number: signal.Signals, volumes: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """As a terminal sends Ctrl-C, and a batch system SIGTERM: to the whole group."""
    out, go_on = tmp_path / "out", tmp_path / "go on"
    words = ["run", volumes, "-o", "out", *_ENGINE]
    with start(*words, cwd=tmp_path, fault=f"waits_to_write:{go_on}", start_new_session=True) as process:
        wait_for(lambda: statuses(out), process)
        pids = processes_of(process.pid)
        os.killpg(process.pid, number)
        heard = hear(_STOPPING, process)
        go_on.touch()
        stopped = finish(process, heard)
    assert stopped.code == _CODES[number], stopped
    assert stopped.err.count(_STOPPING) == 1
    assert "Traceback" not in stopped.err
    done = statuses(out)
    assert 0 < len(done) < _N_VOLUMES
    assert set(done.values()) == {"ok"}
    assert {line["name"] for line in ledger_lines(out) if line["event"] == "begin"} == set(done)
    assert f"{_N_VOLUMES - len(done)} not tried" in stopped.err
    assert are_gone_soon(pids)
    assert_whole(out, done)
    assert_completes(volumes, tmp_path, undisturbed)


def test_a_signal_while_processes_start_ends_the_run_without_a_traceback(
    volumes: Path, tmp_path: Path
) -> None:
    words, go_on = ["run", volumes, "-o", "out", *_ENGINE], tmp_path / "go on"
    with start(*words, cwd=tmp_path, fault=f"starts_late:{go_on}", start_new_session=True) as process:
        wait_for(lambda: processes_of(process.pid), process)
        os.killpg(process.pid, signal.SIGINT)
        heard = hear(_STOPPING, process)
        go_on.touch()
        stopped = finish(process, heard)
    assert stopped.code == 130, stopped
    assert "Traceback" not in stopped.err
    assert statuses(tmp_path / "out") == {}


def test_a_second_signal_ends_all_processes_at_once_whatever_hangs(
    volumes: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with start("run", volumes, "-o", "out", *_ENGINE, cwd=tmp_path, fault="hangs_in_write:") as process:
        wait_for(lambda: any(line["event"] == "begin" for line in ledger_lines(out)), process)
        pids = processes_of(process.pid)
        process.send_signal(signal.SIGTERM)
        hear(_STOPPING, process)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert are_gone_soon(pids)
    assert pids
    assert_completes(volumes, tmp_path, undisturbed)


def test_volumes_on_stdin_are_done_as_they_come(volumes: Path, tmp_path: Path) -> None:
    words = ("run", "-", "-o", "out", *_ENGINE)
    with start(*words, cwd=tmp_path, fault="nothing", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):  # the next one only when the last is answered
            process.stdin.write(os.fsencode(volumes / f"v{number:02}.nii.gz") + b"\n")
            process.stdin.flush()
            assert f"v{number:02}".encode() in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        stopped = finish(process)
    assert "Traceback" not in stopped.err
    assert set(statuses(tmp_path / "out").values()) == {"ok"}
    assert len(statuses(tmp_path / "out")) == 3
