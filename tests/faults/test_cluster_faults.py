"""Workers and schedulers of Dask that die in the middle: real processes, really killed."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fastseg.cohort.cluster import client
from tests.faults.cohort_runs import statuses
from tests.phantom_files import fastseg, files_below, save_phantom, voxels_of

distributed = pytest.importorskip("distributed")

PRELOAD = Path(__file__).with_name("cluster_preload.py")


def make_phantoms(folder: Path, n: int) -> None:
    for k in range(n):
        save_phantom(folder / f"v{k}.nii.gz", n_slices=5 + k)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 300  # far more than a start of Dask takes anywhere
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.02)


@contextmanager
def started(*words: object, **how: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **how,  # type: ignore[call-overload]
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def scheduler(port: int) -> tuple[object, ...]:
    return ("-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")


def worker(address: str) -> tuple[object, ...]:
    options = ("--nthreads", 1, "--no-nanny", "--no-dashboard", "--preload", PRELOAD)
    return ("-m", "distributed.cli.dask_worker", address, *options)


@pytest.fixture
def address() -> str:
    """Where a scheduler can start twice: of ports that the system gives to nobody meanwhile."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return f"tcp://127.0.0.1:{port}"


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def leftovers(out: Path) -> list[str]:
    return [name for name in files_below(out) if ".fastseg-" in name]


def is_starting(cluster: Any) -> bool:
    """Whether a worker is not there that will be; of a nanny that has closed no other one comes."""
    return any(
        nanny.status.name not in ("closed", "failed")
        and nanny.worker_address not in cluster.scheduler.workers
        for nanny in list(cluster.workers.values())
    )


@contextmanager
def telling_of_workers(cluster: Any, folder: Path) -> Iterator[None]:
    """Put a file PID.known into a folder for each worker of whose start its nanny has heard."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(0.02):
            for nanny in list(cluster.workers.values()):
                process = nanny.process
                if process is not None and process.status.name == "running" and process.pid:
                    (folder / f"{process.pid}.known").touch()

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()


def test_volumes_of_killed_workers_are_done_again_and_one_that_kills_them_is_found_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import dask
    from distributed import LocalCluster

    folder, out = tmp_path / "in", tmp_path / "out"
    make_phantoms(folder, 6)
    (folder / "v1.kills").write_text("1")
    (folder / "v3.kills").write_text("1000")
    fastseg("run", folder, "-c", "t2", "-o", tmp_path / "undisturbed")

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=":0",
            preload=[str(PRELOAD)],
            silence_logs=logging.CRITICAL + 1,
        ) as workers,
        telling_of_workers(workers, folder),
    ):
        code, _, stderr = fastseg(
            "run", folder, "-c", "t2", "-o", out, "--cluster", workers.scheduler_address
        )
        # Dask's own end trips over a worker that is just being started again.
        while is_starting(workers):
            time.sleep(0.02)

    assert code == 3, stderr
    found = statuses(out)
    assert found.pop("v3.nii.gz") == "error"
    assert set(found.values()) == {"ok"}
    assert len(found) == 5
    assert "every worker that took it was killed" in stderr
    assert "done again: " in caplog.text
    assert (folder / "v1.deaths").read_bytes() == b"x"
    # Two alone, and before that two, of which one may be that of another volume on the same worker.
    assert len((folder / "v3.deaths").read_bytes()) in (3, 4)
    assert leftovers(out) == []
    for name in ("v0", "v1", "v2", "v4", "v5"):
        same = f"{name}_seg.nii.gz"
        assert (out / same).read_bytes() == (tmp_path / "undisturbed" / same).read_bytes()


def test_run_outlives_a_scheduler_that_is_restarted(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "_LOOK_SECONDS", 0.2)
    folder, out = tmp_path / "in", tmp_path / "out"
    make_phantoms(folder, 4)
    (folder / "v1.waits").touch()
    result: list[tuple[int, str, str]] = []

    with ExitStack() as stack:
        first = stack.enter_context(started(*scheduler(port_of(address))))
        stack.enter_context(started(*worker(address)))
        words = ("run", folder, "-c", "t2", "-o", out, "--cluster", address)
        run = threading.Thread(target=lambda: result.append(fastseg(*words)))
        run.start()
        wait_for(folder / "v1.began")
        first.kill()
        first.wait()
        stack.enter_context(started(*scheduler(port_of(address))))
        stack.enter_context(started(*worker(address)))
        (folder / "v1.waits").unlink()  # the old worker goes on, too, if it has not ended
        run.join(300)
        assert not run.is_alive()

    code, _, stderr = result[0]
    assert code == 0, stderr
    assert statuses(out) == {f"v{k}.nii.gz": "ok" for k in range(4)}
    assert "the scheduler is back" in caplog.text
    assert leftovers(out) == []

    code, _, stderr = fastseg("run", folder, "-c", "t2", "-o", out)  # what lies there is what the ledger says
    assert (code, "4 cached" in stderr) == (0, True), stderr


def test_scheduler_that_does_not_come_back_ends_the_run_and_what_was_done_is_kept(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(client, "_PATIENCE_SECONDS", 1.0)
    folder, out = tmp_path / "in", tmp_path / "out"
    make_phantoms(folder, 8)
    (folder / "v1.waits").touch()
    result: list[tuple[int, str, str]] = []

    with started(*scheduler(port_of(address))) as only, started(*worker(address)):
        words = ("run", folder, "-c", "t2", "-o", out, "--cluster", address)
        run = threading.Thread(target=lambda: result.append(fastseg(*words)))
        run.start()
        wait_for(folder / "v1.began")
        while "v0.nii.gz" not in statuses(out):
            time.sleep(0.02)
        only.kill()
        run.join(300)
        assert not run.is_alive()

    code, _, stderr = result[0]
    assert code == 3
    assert "went away and did not come back within 1 s" in stderr
    assert "not tried" in stderr
    assert statuses(out)["v0.nii.gz"] == "ok"

    (folder / "v1.waits").unlink()
    code, _, stderr = fastseg("run", folder, "-c", "t2", "-o", out)
    assert (code, "1 cached" in stderr) == (0, True), stderr
    assert set(statuses(out).values()) == {"ok"}
    assert leftovers(out) == []


def test_ctrl_c_lets_local_workers_finish_and_leaves_none_behind(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    make_phantoms(folder, 1)
    content = (folder / "v0.nii.gz").read_bytes()
    for k in range(300):  # far more than are done in the time of this test
        (folder / f"w{k}.nii.gz").write_bytes(content)
    words = ("run", folder, "-c", "t2", "-o", out, "--cluster", "local", "--jobs", 2, "--no-sidecar")
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "fastseg", *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            while not (out / "v0_seg.nii.gz").exists():
                assert process.poll() is None, log.read_text()
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
            code = process.wait(300)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    told = log.read_text()
    assert code == 130, told
    assert "Traceback" not in told
    assert "distributed" not in told
    assert set(statuses(out).values()) == {"ok"}
    masks = sorted(out.glob("*_seg.nii.gz"))
    assert len(masks) == len(statuses(out)) < 301  # what was begun is finished and written down
    assert all(voxels_of(mask).any() for mask in masks)
    assert leftovers(out) == []
    assert is_empty_soon(process.pid)


def is_empty_soon(group: int) -> bool:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
