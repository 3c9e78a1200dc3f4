"""A run that is killed, and the run that goes on after it: together they do what an undisturbed one does."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.cohort_faulty import DIED
from tests.faults.cohort_runs import Run, assert_whole, fill, ledger_lines, parsed, results, run, start

_KINDS = ["--save-centerline", "--csa", "--preview"]
_MODES = {"masks": _KINDS, "soft": ["--soft", "--save-centerline"]}
_N_VOLUMES = 6
_N_KILLS = 25


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good ones, and one that is cut off, of which a log is written."""
    folder = fill(tmp_path_factory.mktemp("volumes"), _N_VOLUMES)
    broken = folder / "broken.nii.gz"
    broken.write_bytes((folder / "v00.nii.gz").read_bytes()[:-2000])
    return folder


@pytest.fixture(scope="module")
def undisturbed(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What runs leave that nothing disturbs."""
    left = {}
    for mode, words in _MODES.items():
        folder = tmp_path_factory.mktemp(mode)
        ended = run("run", volumes, "-o", "out", *words, cwd=folder)
        assert ended.code == 3, ended
        left[mode] = results(folder / "out")
        assert len(left[mode]) == _N_VOLUMES * (2 + len(words) - ("--soft" in words))
    return left


def _assert_same(ended: Run, out: Path, volumes: Path, wanted: dict[str, bytes]) -> None:
    assert ended.code == 3, ended  # for the broken one
    assert len(ended.err.splitlines()) < 40
    found = results(out)
    assert sorted(found) == sorted(wanted), ended
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert_whole(out, [path.name for path in volumes.iterdir()])


def _kill_somewhere(
    process: subprocess.Popen[bytes], out: Path, randomly: random.Random, seconds: float
) -> bool:
    """Kill a process: before its work begins, or some lines of the ledger later; whether it still lived."""
    ledger = out / ".fastseg" / "ledger.jsonl"
    before = _n_lines(ledger)
    n_lines = randomly.choice((0, 0, 1, 2, 3, 4, 6, 8, 10))
    if n_lines == 0:
        time.sleep(randomly.uniform(0, seconds))
    else:
        while _n_lines(ledger) < before + n_lines and process.poll() is None:
            time.sleep(0.001)
        time.sleep(randomly.uniform(0, 0.06))
    process.kill()
    return process.wait() < 0


def _n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_25_kills_at_random_moments_change_nothing(
    volumes: Path, undisturbed: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    randomly = random.Random(4)
    modes = [mode for _ in range(_N_KILLS) for mode in _MODES]
    kills = early = amid = trees = 0
    seconds = 1.0
    while kills < _N_KILLS:
        mode, out = modes[trees], tmp_path / f"out{trees}"
        words = ["run", volumes, "-o", out, "--jobs", "2", *_MODES[mode]]
        while kills < _N_KILLS:
            before = _n_lines(out / ".fastseg" / "ledger.jsonl")
            with start(*words, cwd=tmp_path) as process:
                lived = _kill_somewhere(process, out, randomly, seconds)
            kills += lived
            early += lived and _n_lines(out / ".fastseg" / "ledger.jsonl") == before
            amid += lived and _under_way(out, before)
            if not lived:
                break
        _assert_same(run(*words, cwd=tmp_path), out, volumes, undisturbed[mode])
        trees += 1
    # Of all phases: before the run has written anything, and with volumes on their way.
    assert early >= 2
    assert amid >= 10


def _under_way(out: Path, before: int) -> bool:
    """Whether the last thing that a ledger says of some volume, after so many lines, is that it was begun."""
    ledger = out / ".fastseg" / "ledger.jsonl"
    lines = [parsed(line) for line in ledger.read_bytes().split(b"\n")[before:]] if ledger.exists() else []
    last = {line["mask"]: line["event"] for line in lines if "mask" in line}
    return "begin" in last.values()


_DEATHS = (
    "dies_when_a_volume_begins:2",
    "dies_within_a_line:begin",
    "dies_after_a_volume_was_read:2",
    "dies_before_publish:2",
    "dies_while_files_are_written:2",
    *(f"dies_before_rename:{number}" for number in (6, 8, 10)),  # of the second volume's five files
    "dies_after_publish:2",
    "dies_before_the_ledger_line:2",
    "dies_within_a_line:end",
    "dies_before_a_log_has_its_name:1",
    "dies_before_the_table_has_its_name:1",
)


@pytest.mark.parametrize("fault", _DEATHS)
def test_a_run_that_dies_at_this_point_is_gone_on_with_as_if_nothing_had_happened(
    fault: str, volumes: Path, undisturbed: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    words = ["run", volumes, "-o", "out", *_KINDS]
    died = run(*words, cwd=tmp_path, fault=fault)
    assert died.code == DIED, died
    for path in (tmp_path / "out").rglob("*_seg.nii.gz"):  # whatever has its name is whole
        if not path.parent.name.startswith(".fastseg-"):
            name = path.relative_to(tmp_path / "out").as_posix()
            assert path.read_bytes() == undisturbed["masks"][name]
    ended = run(*words, cwd=tmp_path)
    assert ("last line was cut off" in ended.err) == ("within_a_line" in fault)
    assert "not fastseg's" not in ended.err
    _assert_same(ended, tmp_path / "out", volumes, undisturbed["masks"])


def test_a_run_that_dies_at_the_same_volume_again_and_again_loses_only_that_one(
    volumes: Path, undisturbed: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    words = ["run", volumes, "-o", "out", *_KINDS]
    fault = "dies_of:v03.nii.gz"
    for _ in range(4):  # twice among others, once to learn which of these it is, once as the last of all
        died = run(*words, cwd=tmp_path, fault=fault)
        assert died.code == DIED, died
    assert "v03.nii.gz: earlier runs died while they worked on it" in died.err
    ends = {line["name"] for line in ledger_lines(tmp_path / "out") if line["event"] == "end"}
    assert {path.name for path in volumes.iterdir()} - ends == {"v03.nii.gz"}
    _assert_same(run(*words, cwd=tmp_path), tmp_path / "out", volumes, undisturbed["masks"])
