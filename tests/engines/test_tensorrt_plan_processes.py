"""Several processes at one cache of built engines: they wait for each other, and are killed."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastseg.engines.tensorrt.plans import PlanCache
from tests.engines import plan_cache_killed
from tests.engines.plan_cache_killed import KEY, NEW, OLD

_ENVIRONMENT = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
# Builds what is not there, as an engine does; holds the lock until a line comes in.
_BUILDER = """
import sys
from pathlib import Path
from fastseg.engines.tensorrt.plans import PlanCache, PlanKey
key = PlanKey({"network": "a network"})
cache = PlanCache(Path(sys.argv[1]), say=lambda text: print(text, flush=True))
plan = cache.fetch(key)
if plan is None:
    with cache.building(key):
        plan = cache.fetch(key)
        if plan is None:
            print("building", flush=True)
            sys.stdin.readline()
            plan = cache.store(key, b"built by " + sys.argv[2].encode(), {})
print(plan.content.decode(), plan.path is not None, flush=True)
"""


def _builder(folder: Path, name: str, *, obey: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _BUILDER, folder, name],
        env=_ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_obey_permissions if obey else None,
    )


def _obey_permissions() -> None:
    """Take root's right to ignore permission bits away from the process that is about to start."""
    drop_from_bounding_set, override, read_search = 24, 1, 2
    if os.geteuid() == 0 and sys.platform == "linux":
        for capability in (override, read_search):
            ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def _end(process: subprocess.Popen[str], text: str = "\n") -> tuple[list[str], str]:
    """Let it go on; gives the lines that were left, and the warnings."""
    out, err = process.communicate(text, timeout=300)
    assert process.returncode == 0, err
    return out.splitlines(), err


@contextmanager
def _unwritable(folder: Path) -> Iterator[None]:
    folder.chmod(0o500)
    try:
        yield
    finally:
        folder.chmod(0o700)


def test_the_second_process_waits_says_so_and_takes_what_the_first_built(tmp_path: Path) -> None:
    first = _builder(tmp_path, "first")
    assert _line(first) == "building"
    second = _builder(tmp_path, "second")
    assert "waiting for another process" in _line(second)
    assert _end(first) == (["built by first True"], "")
    assert _end(second) == (["built by first True"], "")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".plan"]


def test_four_processes_at_once_build_one_plan(tmp_path: Path) -> None:
    processes = [_builder(tmp_path / "engines", str(number)) for number in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    lines = [_end(process, "")[0] for process in processes]
    assert sum("building" in told for told in lines) == 1
    assert len({told[-1] for told in lines}) == 1


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    first = _builder(tmp_path, "first")
    assert _line(first) == "building"
    second = _builder(tmp_path, "second")
    assert "waiting" in _line(second)
    first.kill()
    first.communicate()
    assert _line(second) == "building"
    assert _end(second) == (["built by second True"], "")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".plan"]


def test_a_process_that_takes_too_long_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fastseg.engines.tensorrt.plans._PATIENCE_SECONDS", 0.1)
    first = _builder(tmp_path, "first")
    assert _line(first) == "building"
    cache = PlanCache(tmp_path)
    with cache.building(KEY):
        assert cache.store(KEY, NEW, {}).path is not None
    assert "not waiting" in caplog.text
    assert _end(first)[0] == ["built by first True"]  # the same engine: whoever comes last counts
    found = cache.fetch(KEY)
    assert found is not None
    assert found.content == b"built by first"


def test_a_read_only_folder_gives_what_it_has_and_warns_once_where_it_has_nothing(tmp_path: Path) -> None:
    with _unwritable(tmp_path):
        process = _builder(tmp_path, "first", obey=True)
        assert _line(process) == "building"
        told, warned = _end(process)
        if told == ["built by first True"]:
            pytest.skip("this user may write into folders that are not writable")
        assert told == ["built by first False"]
        assert warned.count("\n") == 1
        assert "Permission denied" in warned
        assert "FASTSEG_ENGINES" in warned
    PlanCache(tmp_path).store(KEY, NEW, {})
    with _unwritable(tmp_path):
        assert _end(_builder(tmp_path, "second", obey=True)) == ([f"{NEW.decode()} True"], "")


def test_a_folder_that_cannot_be_made_is_told_of(tmp_path: Path) -> None:
    with _unwritable(tmp_path):
        told, warned = _end(_builder(tmp_path / "engines", "first", obey=True))
    if told[-1].endswith("True"):
        pytest.skip("this user may write into folders that are not writable")
    assert told == ["building", "built by first False"]
    assert warned.count("\n") == 1
    assert "Permission denied" in warned


def _killed(root: Path, action: str) -> list[Path]:
    """Folders as processes left them that were killed at each of their calls; the last one was not killed."""
    subprocess.run(
        [sys.executable, plan_cache_killed.__file__, root, action], env=_ENVIRONMENT, check=True, timeout=300
    )
    return [root / str(number) for number in range(1, len(list(root.glob("[0-9]*"))) + 1)]


def _state(folder: Path) -> str:
    """What a later process finds; it is whole in any case."""
    found = PlanCache(folder).fetch(KEY)
    if found is None:
        return "none"
    expected = {"old": OLD, "new": NEW}
    assert found.content == expected[found.record["made"]]
    return str(found.record["made"]) + "+" * ("drivers" in found.record)


def _goes_on(folder: Path) -> None:
    """A later process builds without waiting, and nothing is left of the killed one."""
    cache = PlanCache(folder, say=pytest.fail)
    with cache.building(KEY):
        cache.store(KEY, NEW, {"made": "new"})
    cache.keep_timing_cache("vendor 1", NEW)
    assert _state(folder) == "new"
    assert cache.timing_cache("vendor 1") == NEW
    assert sorted(path.suffix for path in folder.iterdir()) == [".cache", ".json", ".plan"]


def test_a_first_store_that_is_killed_anywhere_leaves_all_or_nothing(tmp_path: Path) -> None:
    folders = _killed(tmp_path, "store")
    assert len(folders) > 15  # it really was killed
    states = [_state(folder) for folder in folders]
    assert list(dict.fromkeys(states)) == ["none", "new"]
    for folder in folders:
        _goes_on(folder)


def test_a_store_over_another_plan_never_mixes_the_two(tmp_path: Path) -> None:
    PlanCache(tmp_path / "before").store(KEY, OLD, {"made": "old"})
    folders = _killed(tmp_path, "store")
    states = [_state(folder) for folder in folders]
    assert list(dict.fromkeys(states)) == ["old", "none", "new"]
    for folder in folders:
        _goes_on(folder)


def test_a_note_that_is_killed_anywhere_loses_no_plan(tmp_path: Path) -> None:
    PlanCache(tmp_path / "before").store(KEY, OLD, {"made": "old"})
    folders = _killed(tmp_path, "note")
    states = [_state(folder) for folder in folders]
    assert list(dict.fromkeys(states)) == ["old", "old+"]
    for folder in folders:
        _goes_on(folder)


def test_a_removal_that_is_killed_anywhere_leaves_nothing_that_is_not_whole(tmp_path: Path) -> None:
    PlanCache(tmp_path / "before").store(KEY, OLD, {"made": "old"})
    folders = _killed(tmp_path, "discard")
    states = [_state(folder) for folder in folders]
    assert list(dict.fromkeys(states)) == ["old", "none"]
    for folder in folders:
        _goes_on(folder)


def test_a_timing_cache_is_the_older_or_the_newer_one_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    PlanCache(tmp_path / "before").keep_timing_cache("vendor 1", OLD)
    folders = _killed(tmp_path, "timing")
    found = [PlanCache(folder).timing_cache("vendor 1") for folder in folders]
    assert list(dict.fromkeys(found)) == [OLD, NEW]
    for folder in folders:
        _goes_on(folder)
