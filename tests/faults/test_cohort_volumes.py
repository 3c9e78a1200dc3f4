"""Volumes that hang, that find no memory, or meet a bug; and what a run prints, whatever happens."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import pytest

from tests.faults.cohort_runs import assert_whole, fill, finish, results, run, start, statuses

_N_VOLUMES = 4
_BAD = "v01.nii.gz"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    fill(tmp_path / "volumes", _N_VOLUMES)
    return tmp_path


def _assert_completes(here: Path) -> None:
    ended = run("run", "volumes", "-o", "out", cwd=here)
    assert (ended.code, len(ended.lines("cached")), len(ended.lines("ok"))) == (0, _N_VOLUMES - 1, 1), ended
    assert_whole(here / "out", [f"v{k:02}.nii.gz" for k in range(_N_VOLUMES)])


@pytest.mark.parametrize("step", ["look", "read", "prepare", "finish", "write"])
def test_a_step_that_hangs_is_told_of_by_name_and_its_volume_given_up(step: str, here: Path) -> None:
    words = ["run", "volumes", "-o", "out", "--jobs", "1", "--stall", "5"]
    ended = run(*words, cwd=here, fault=f"hangs_in:{step},{_BAD}")
    assert ended.code == 3, ended
    (line,) = ended.lines("error")
    assert line.split()[1] == _BAD
    assert f"{step.replace('look', 'read')} made no progress for" in line
    assert "; the volume was given up" in line
    assert len(ended.lines("ok")) == _N_VOLUMES - 1
    _assert_completes(here)


def test_a_volume_that_was_given_up_leaves_nothing_when_it_goes_on_after_all(here: Path) -> None:
    """What waits for more on stdin still lives when the late one comes."""
    words = ["run", "-", "-o", "out", "--jobs", "1", "--stall", "3"]
    late = f"writes_late:9,volumes/{_BAD}"
    with start(*words, cwd=here, fault=late, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(f"volumes/{_BAD}\n".encode())
        process.stdin.flush()
        too_long = threading.Timer(300, process.kill)
        too_long.start()
        said = iter(process.stderr.readline, b"")
        assert any(b"the volume was given up" in line for line in said)
        assert any(b"published or not: v01_seg.nii.gz" in line for line in said)
        too_long.cancel()
        ended = finish(process)
    assert ended.code == 4, ended
    assert results(here / "out") == {}
    assert run("run", "volumes", "-o", "out", cwd=here).code == 0


def test_a_volume_that_finds_no_memory_once_is_tried_again_alone(here: Path) -> None:
    ended = run("run", "volumes", "-o", "out", cwd=here, fault=f"lacks_memory:1,{_BAD}")
    assert ended.code == 0, ended
    assert f"{_BAD}: ran out of memory; it is tried again alone" in ended.err
    assert ended.lines("ok")[-1].split()[1] == _BAD
    assert len(ended.lines("ok")) == _N_VOLUMES


def test_a_volume_that_never_finds_memory_is_one_line_and_tried_again_by_the_next_run(here: Path) -> None:
    ended = run("run", "volumes", "-o", "out", cwd=here, fault=f"lacks_memory:9,{_BAD}")
    assert ended.code == 3, ended
    (line,) = ended.lines("out_of_memory")
    assert line.split()[1] == _BAD
    assert "the memory does not suffice: " in line
    assert len(ended.lines("ok")) == _N_VOLUMES - 1
    _assert_completes(here)


def test_a_bug_costs_its_volume_only_and_its_traceback_is_in_the_log(here: Path) -> None:
    ended = run("run", "volumes", "-o", "out", cwd=here, fault=f"fails_like_a_bug:{_BAD}")
    assert ended.code == 3, ended
    (line,) = ended.lines("error")
    assert "ZeroDivisionError: division by zero" in line
    assert "Traceback" not in ended.err
    log = (here / "out" / "logs" / "v01_seg.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "cohort_faulty.py" in log
    _assert_completes(here)


# --- prints


def test_stdout_has_paths_only_and_stderr_a_line_for_each_volume(here: Path) -> None:
    (here / "volumes" / "broken.nii.gz").write_text("not a volume")
    ended = run("run", "volumes", "-o", "out", cwd=here)
    assert ended.code == 3, ended
    assert sorted(ended.out.splitlines()) == [f"out/v{k:02}_seg.nii.gz" for k in range(_N_VOLUMES)]
    assert "\r" not in ended.err
    assert "\x1b" not in ended.err
    lines = ended.err.splitlines()[2:]  # behind what the two networks run on
    told, said = lines[: _N_VOLUMES + 1], lines[_N_VOLUMES + 1 :]
    assert sorted(line.split()[1] for line in told) == sorted(p.name for p in (here / "volumes").iterdir())
    assert all(line.startswith("fastseg: ") for line in said)


def test_as_json_every_line_of_stderr_is_an_object(here: Path) -> None:
    (here / "volumes" / "broken.nii.gz").write_text("not a volume")
    ended = run("run", "volumes", "-o", "out", "--log-json", cwd=here)
    assert ended.code == 3, ended
    told = [json.loads(line) for line in ended.err.splitlines()]
    assert [each["event"] for each in told].count("volume") == _N_VOLUMES + 1
    assert len(ended.out.splitlines()) == _N_VOLUMES


def test_quiet_tells_of_failures_only(here: Path) -> None:
    (here / "volumes" / "broken.nii.gz").write_text("not a volume")
    ended = run("run", "volumes", "-o", "out", "--quiet", cwd=here)
    assert ended.code == 3, ended
    (line,) = ended.err.splitlines()
    assert line.startswith("bad_input     broken.nii.gz  ")


def test_a_run_whose_reader_has_gone_ends_without_a_traceback_and_can_be_gone_on_with(here: Path) -> None:
    with start("run", "volumes", "-o", "out", cwd=here) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        assert process.wait(300) == 1, err
    assert b"Traceback" not in err
    ended = run("run", "volumes", "-o", "out", cwd=here)
    assert ended.code == 0, ended
    assert set(statuses(here / "out").values()) == {"ok"}
    assert_whole(here / "out", [f"v{k:02}.nii.gz" for k in range(_N_VOLUMES)])
