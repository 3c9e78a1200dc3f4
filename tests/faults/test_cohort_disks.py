"""Full disks and folders that cannot be written: one clear line, nothing corrupt, and on afterwards."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.cohort_runs import (
    Run,
    assert_whole,
    fill,
    finish,
    ledger_lines,
    obey_permissions,
    results,
    run,
    start,
    statuses,
    wait_for,
)

_N_VOLUMES = 16
_KINDS = ["--save-centerline", "--csa"]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("volumes"), _N_VOLUMES)


@pytest.fixture(scope="module")
def undisturbed(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run("run", volumes, "-o", "out", *_KINDS, cwd=folder).code == 0
    return results(folder / "out")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system for a few of the volumes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = _mount("-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk))
    if not mounted:
        pytest.skip("this user may not mount a small file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


def _mount(*words: str) -> bool:
    try:
        return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _assert_stopped_well(stopped: Run, out: Path, undisturbed: dict[str, bytes]) -> None:
    """Some volumes failed, or the run stopped, and it says so; whatever has a name is whole."""
    assert stopped.code in (3, 4), stopped
    assert "Traceback" not in stopped.err
    assert len(stopped.err.splitlines()) < 3 * _N_VOLUMES
    for name, content in results(out).items():
        if not Path(name).parent.name.startswith(".fastseg-"):
            assert content == undisturbed[name], name
    ok = {line["mask"] for line in ledger_lines(out) if line.get("status") == "ok"}
    assert all((out / mask).exists() for mask in ok)


def _assert_completes(words: list[str | Path], cwd: Path, out: Path, undisturbed: dict[str, bytes]) -> None:
    ended = run(*words, cwd=cwd)
    assert ended.code == 0, ended
    assert results(out) == undisturbed
    assert_whole(out, [f"v{k:02}.nii.gz" for k in range(_N_VOLUMES)])


def test_a_full_disk_stops_the_run_with_one_line_and_it_goes_on_when_there_is_space(
    volumes: Path, small_disk: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = small_disk / "out"
    words: list[str | Path] = ["run", volumes, "-o", out, *_KINDS]
    stopped = run(*words, cwd=tmp_path)
    _assert_stopped_well(stopped, out, undisturbed)
    assert "No space left on device" in stopped.err
    assert "free space there" in stopped.err
    assert sum(line.startswith("fastseg: error: ") for line in stopped.err.splitlines()) <= 1
    assert "fastseg: to" in stopped.err  # go on, or try again what failed
    assert statuses(out)
    assert _mount("-o", "remount,size=20m", str(small_disk))
    _assert_completes(words, tmp_path, out, undisturbed)


def test_a_disk_that_fills_up_while_results_are_replaced_spoils_none_of_the_old_ones(
    volumes: Path, small_disk: Path, tmp_path: Path
) -> None:
    inputs = fill(tmp_path / "inputs", 4, different=4)
    out = small_disk / "out"
    assert run("run", inputs, "-o", out, *_KINDS, cwd=tmp_path).code == 0
    old = results(out)
    filler = small_disk / "filler"
    _fill_up(filler)
    words: list[str | Path] = ["run", inputs, "-o", out, *_KINDS, "--soft"]
    stopped = run(*words, cwd=tmp_path)
    assert stopped.code in (3, 4), stopped
    assert "free space there" in stopped.err
    kept = results(out)
    assert {name: kept.get(name) for name in old} == old
    filler.unlink()
    ended = run(*words, cwd=tmp_path)
    assert ended.code == 0, ended
    soft = results(out)
    assert all(soft[name] != old[name] for name in old if name.endswith("_seg.nii.gz"))
    assert_whole(out, [path.name for path in inputs.iterdir()])


def _fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as stream:
        for size in (4096, 512):
            try:
                while True:
                    stream.write(bytes(size))
            except OSError:
                continue


@pytest.mark.parametrize("limit", [300, 3000, 6000])
def test_a_ledger_that_finds_no_space_stops_the_run_and_loses_at_most_its_last_line(
    limit: int, volumes: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """A limit on the size of files stands in for the disk: it is reached within a line."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    out = tmp_path / "out"
    words: list[str | Path] = ["run", volumes, "-o", "out", *_KINDS]
    stopped = run(*words, cwd=tmp_path, before=limited)
    _assert_stopped_well(stopped, out, undisturbed)
    (complaint,) = [line for line in stopped.err.splitlines() if line.startswith("fastseg: error: ")]
    assert complaint == (
        "fastseg: error: out/.fastseg/ledger.jsonl: cannot be written (File too large); free space there, "
        "or choose another output folder"
    )
    assert (out / ".fastseg" / "ledger.jsonl").stat().st_size <= limit
    _assert_completes(words, tmp_path, out, undisturbed)


def test_a_folder_that_is_not_writable_is_refused_before_any_work(volumes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o555)
    refused = run("run", volumes, "-o", "out", cwd=tmp_path, before=obey_permissions)
    assert (refused.code, refused.out) == (4, ""), refused
    assert refused.err.splitlines() == [
        f"fastseg: error: {out}: no permission to write there; choose another output folder"
    ]
    assert list(out.iterdir()) == []


def _take_permission(out: Path) -> Callable[[], None]:
    out.chmod(0o555)
    return lambda: out.chmod(0o755)


def _remount_read_only(out: Path) -> Callable[[], None]:
    """Not of the ledger: whoever has a file open for writing keeps a disk writable."""
    assert _mount("-o", "bind", str(out / "deep"), str(out / "deep"))
    for _ in range(100):  # refused while the run has a file open for writing, which it never has for long
        if _mount("-o", "remount,bind,ro", str(out / "deep")):
            break
        time.sleep(0.02)
    else:
        subprocess.run(["umount", out / "deep"], check=True)
        pytest.fail("a disk cannot be made read-only")
    return lambda: subprocess.run(["umount", out / "deep"], check=True)


@pytest.mark.parametrize("take_away", [_take_permission, _remount_read_only])
def test_a_folder_that_becomes_read_only_stops_or_fails_what_goes_there(
    take_away: Callable[[Path], Callable[[], None]],
    volumes: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
) -> None:
    if take_away is _remount_read_only and os.geteuid() != 0:
        pytest.skip("this user may not mount anything")
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "deep").symlink_to(volumes)
    out = tmp_path / "out" / ("deep" if take_away is _take_permission else "")
    words: list[str | Path] = ["run", inputs, "-o", "out", *_KINDS, "--jobs", "1"]
    go_on = tmp_path / "go on"
    fault = f"waits_to_write:{go_on}"
    with start(*words, cwd=tmp_path, fault=fault, before=obey_permissions) as process:
        wait_for(lambda: statuses(tmp_path / "out"), process)
        give_back = take_away(out)
        try:
            go_on.touch()
            stopped = finish(process)
            left = _masks(tmp_path / "out" / "deep")
            assert {name: undisturbed[name] for name in left} == left
        finally:
            give_back()
    assert stopped.code == 3, stopped
    assert "Traceback" not in stopped.err
    assert "cannot be written (Permission denied)" in stopped.err or "Read-only" in stopped.err
    failed = stopped.lines("error")
    assert failed
    assert all(line.endswith("; choose another output folder") for line in failed)
    ended = run(*words, cwd=tmp_path)
    assert ended.code == 0, ended
    assert results(tmp_path / "out" / "deep").keys() == undisturbed.keys()
    assert _masks(tmp_path / "out" / "deep") == {
        name: content for name, content in undisturbed.items() if name.endswith("_seg.nii.gz")
    }
    assert_whole(tmp_path / "out", [f"deep/v{k:02}.nii.gz" for k in range(_N_VOLUMES)])


def _masks(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*_seg.nii.gz")}
