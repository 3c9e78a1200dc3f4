"""Cohorts on Dask. Workers are threads of this process, but in one run that is started as users start it."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastseg.cohort.cluster import client as cluster_client
from fastseg.cohort.cluster import worker as cluster_worker
from fastseg.cohort.cluster.connection import open_cluster
from fastseg.cohort.job import Job, Outcome, Refused, Status
from fastseg.cohort.session import Plans
from fastseg.cohort.stream.stream import Limits
from fastseg.cohort.work import Manner
from fastseg.compilation import load_kernels
from fastseg.errors import EngineUnavailable, OptionError
from fastseg.options import Options
from fastseg.outputs import outputs_of
from fastseg.qc.report import Report
from tests.phantom_files import fastseg, files_below, save_phantom

distributed = pytest.importorskip("distributed")

OPTIONS = Options(contrast="t2")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A scheduler and two workers of one thread each, in this process."""
    load_kernels()
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        dashboard_address=":0",
        memory_limit="20GB",  # of a thread it is that of the whole test run
        silence_logs=logging.CRITICAL + 1,
    ) as cluster:
        yield cluster.scheduler_address


def job_of(source: Path, out: Path) -> Job:
    return Job(source.name, source, outputs_of(out / source.name.replace(".nii", "_seg.nii")), OPTIONS)


def jobs_of(folder: Path, out: Path, n: int) -> list[Job]:
    paths = [save_phantom(folder / f"v{k}.nii.gz", n_slices=5 + k) for k in range(n)]
    return [job_of(path, out) for path in paths]


def plans_of(out: Path, **limits: Any) -> Plans:
    return Plans(out, out, Manner(tag="run"), Limits(**limits))


def unheard(job: Job) -> None:
    """Nobody keeps a ledger."""


class Slow:
    """Stands in for segmenting: lasts until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began: list[str] = []
        self.go = threading.Event()
        monkeypatch.setattr(cluster_worker, "_watched", self._watched)

    def _watched(self, work: Any, room: int, seconds: float) -> Outcome:
        self.began.append(work.job.name)
        assert self.go.wait(120)
        return Outcome(work.job, Status.OK)

    def wait_for(self, n: int) -> None:
        wait_until(lambda: len(self.began) >= n)


def wait_until(happened: Callable[[], bool]) -> None:
    """Far longer than anything here takes, on any machine: only a hang meets the end."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_run_on_two_processes_gives_the_bytes_of_a_run_on_threads(tmp_path: Path) -> None:
    for k in range(4):
        save_phantom(tmp_path / "in" / f"s{k}" / f"v{k}.nii.gz", n_slices=5 + k)
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"not a volume")
    words = ("run", tmp_path / "in", "-c", "t2", "--save-centerline", "--preview", "--csa")

    reports = {name: tmp_path / f"qc of {name}" for name in ("threads", "dask")}
    code, stdout, _ = fastseg(*words, "-o", tmp_path / "threads", "--jobs", 2, "--qc", reports["threads"])
    on_dask = (
        *words, "-o", tmp_path / "dask", "--cluster", "local", "--jobs", 2, "--qc", reports["dask"]
    )  # fmt: skip
    dask_code, dask_stdout, stderr = fastseg(*on_dask)

    assert (code, dask_code) == (3, 3)
    assert sorted(dask_stdout.replace("/dask/", "/threads/").split()) == sorted(stdout.split())
    assert results(tmp_path / "dask") == results(tmp_path / "threads")
    assert shown(reports["dask"]) == shown(reports["threads"])
    assert "distributed" not in stderr
    assert "Traceback" not in stderr

    code, _, stderr = fastseg(*on_dask)  # resumed: all is done but what failed by itself

    assert code == 3
    assert "1 bad_input, 4 cached" in stderr


def shown(report: Path) -> dict[str, object]:
    """What a QC report has of each volume, and which pictures."""
    return {
        row["name"]: [
            *(row[key] for key in ("status", "slices", "area_mm2", "mask", "message")),
            *(path.suffix for path in sorted(report.glob(f"volumes/*/{row['id']}*g"))),
        ]
        for row in Report(report).rows()
    }


def results(out: Path) -> dict[str, object]:
    """Everything that a run left, without what differs between two runs of the same."""
    contents: dict[str, object] = {}
    for name in files_below(out):
        path = out / name
        if path.is_dir():
            contents[name] = None
        elif path.suffix == ".json":
            record = json.loads(path.read_bytes())
            del record["Fastseg"]["Seconds"]
            contents[name] = record
        elif path.suffix == ".jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            ends = [line for line in lines if line["event"] == "end"]
            contents[name] = {
                line["name"]: {k: v for k, v in line.items() if k not in ("at", "seconds", "outputs")}
                for line in ends
            }
        elif path.suffix == ".log":
            text = path.read_text().splitlines()
            contents[name] = [line for line in text if not line.startswith("seconds ")]
        elif path.suffix != ".tsv" or "csa" in name:
            contents[name] = path.read_bytes()
    return contents


def test_jobs_come_back_as_they_were_given(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = jobs_of(Path("in"), Path("out"), 2)
    missing = job_of(Path("in/no.nii.gz"), Path("out"))
    unwritable = Job("v0", good[0].source, outputs_of(Path("in/v0.nii.gz/x/seg.nii.gz")), OPTIONS)
    refused = Refused("odd", Status.BAD_INPUT, "is odd")
    begun: list[str] = []

    with open_cluster(address, plans_of(Path("out")), lambda job: begun.append(job.name)) as cluster:
        told = list(cluster.run([*good, missing, refused, unwritable]))

    outcomes = {id(each.job): each for each in told if isinstance(each, Outcome)}
    assert refused in told
    assert [outcomes[id(job)].status for job in (*good, missing, unwritable)] == [
        "ok",
        "ok",
        "bad_input",
        "error",
    ]
    assert begun == [job.name for job in (*good, missing, unwritable)]
    assert outcomes[id(unwritable)].message.startswith("in/v0.nii.gz/x: cannot be written")
    assert Path("out/v0_seg.nii.gz").exists()
    assert not [name for name in files_below(tmp_path) if ".fastseg-" in name]


def test_cluster_may_run_again(address: str, tmp_path: Path) -> None:
    first, second = jobs_of(tmp_path / "in", tmp_path / "out", 2)
    with open_cluster(address, plans_of(tmp_path), unheard) as cluster:
        statuses = [[each.status for each in cluster.run(jobs)] for jobs in ([first], [], [second])]
    assert statuses == [["ok"], [], ["ok"]]


def test_no_more_is_taken_than_keeps_the_workers_busy(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, taken = Slow(monkeypatch), 0
    jobs = jobs_of(tmp_path / "in", tmp_path / "out", 1) * 30

    def source() -> Iterator[Job]:
        nonlocal taken
        for job in jobs:
            taken += 1
            yield job

    most: list[int] = []

    def look() -> None:
        slow.wait_for(2)
        time.sleep(0.5)  # time enough for more, if it may be taken
        most.append(taken)
        slow.go.set()

    threading.Thread(target=look, daemon=True).start()
    with open_cluster(address, plans_of(tmp_path), unheard) as cluster:
        done = list(cluster.run(source()))

    assert len(done) == 30
    assert 2 <= most[0] <= 5  # two for each of two threads, and the next one


def test_stop_finishes_what_has_begun_and_drops_what_has_not(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    jobs = jobs_of(tmp_path / "in", tmp_path / "out", 1) * 30
    told: list[Any] = []

    with open_cluster(address, plans_of(tmp_path), unheard) as cluster:
        run = threading.Thread(target=lambda: told.extend(cluster.run(iter(jobs))))
        run.start()
        slow.wait_for(2)
        cluster.stop()
        wait_until(lambda: cluster._duty.run in cluster_worker._stopped)
        slow.go.set()
        run.join(60)

        assert not run.is_alive()
        assert len(told) == len(slow.began) == 2
        assert list(cluster.run(jobs)) == []


def test_stop_does_not_wait_for_jobs_that_never_come(address: str, tmp_path: Path) -> None:
    closed = threading.Event()

    def endless() -> Iterator[Job]:
        closed.wait(600)
        ended.append(True)
        yield from ()

    ended: list[bool] = []
    with open_cluster(address, plans_of(tmp_path), unheard) as cluster:
        threading.Timer(0.3, cluster.stop).start()
        assert list(cluster.run(endless())) == []
        assert not ended
    closed.set()


def test_what_the_source_of_jobs_raises_ends_the_run(address: str, tmp_path: Path) -> None:
    def broken() -> Iterator[Job]:
        yield from jobs_of(tmp_path / "in", tmp_path / "out", 1)
        raise OptionError("the list is broken")

    with (
        open_cluster(address, plans_of(tmp_path), unheard) as cluster,
        pytest.raises(OptionError, match="the list is broken"),
    ):
        list(cluster.run(broken()))


def test_volume_that_hangs_is_given_up(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()
    monkeypatch.setattr(cluster_worker, "_segment", lambda work, room: hang.wait(120))
    with open_cluster(address, plans_of(tmp_path, give_up_seconds=0.2), unheard) as cluster:
        (outcome,) = cluster.run(jobs_of(tmp_path / "in", tmp_path / "out", 1))
    hang.set()
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.message) == ("error", "took more than 0 s; the volume was given up")


def test_volume_that_does_not_fit_into_a_worker_is_not_begun(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_worker, "_SHARE", 0.0)  # less than this process takes, so nothing is left
    with open_cluster(address, plans_of(tmp_path), unheard) as cluster:
        (outcome,) = cluster.run(jobs_of(tmp_path / "in", tmp_path / "out", 1))
    assert isinstance(outcome, Outcome)
    assert outcome.status == "out_of_memory"
    assert "give workers more memory" in outcome.message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("version", "0.0", "has fastseg "), ("pack", "another", "its networks default are not the client's")],
)
def test_worker_that_would_give_other_results_gives_none(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    from dataclasses import replace

    with open_cluster(address, plans_of(tmp_path), unheard) as cluster:
        monkeypatch.setattr(cluster, "_duty", replace(cluster._duty, **{name: value}))
        (outcome,) = cluster.run(jobs_of(tmp_path / "in", tmp_path / "out", 1))
    assert isinstance(outcome, Outcome)
    assert outcome.status == "error"
    assert message in outcome.message
    assert not (tmp_path / "out").exists()


def test_bug_on_a_worker_is_an_outcome_with_its_traceback(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(duty: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(cluster_worker, "_segmenters", broken)
    with open_cluster(address, plans_of(tmp_path), unheard) as cluster:
        (outcome,) = cluster.run(jobs_of(tmp_path / "in", tmp_path / "out", 1))
    assert isinstance(outcome, Outcome)
    assert outcome.status == "error"
    assert outcome.message.startswith("ZeroDivisionError: by zero (on a worker")
    assert "in broken" in str(outcome.record["traceback"])


def test_user_is_told_that_no_worker_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(cluster_client, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(cluster_client, "_LONELY_SECONDS", 0.2)
    jobs = jobs_of(tmp_path / "in", tmp_path / "out", 1)
    with (
        LocalCluster(
            n_workers=0, processes=False, dashboard_address=":0", silence_logs=logging.CRITICAL + 1
        ) as empty,
        open_cluster(empty.scheduler_address, plans_of(tmp_path), unheard) as cluster,
    ):

        def stop() -> None:
            try:
                wait_until(lambda: "no worker has been there for" in caplog.text)
            finally:
                cluster.stop()

        threading.Thread(target=stop, daemon=True).start()
        assert list(cluster.run(jobs)) == []
    assert "no worker has been there for" in caplog.text


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("everywhere", "give local, slurm, or the address"),
        ("tcp://127.0.0.1:1", "start one with `dask scheduler`"),
        ("tcp://nowhere.invalid:8786", "start one with `dask scheduler`"),
        ("ftp://127.0.0.1:1", "start one with `dask scheduler`"),
    ],
)
def test_wrong_place_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, message: str
) -> None:
    monkeypatch.setattr("fastseg.cohort.cluster.connection._CONNECT_SECONDS", 0.3)
    with pytest.raises(OptionError, match=message), open_cluster(where, plans_of(tmp_path), unheard):
        pass


def test_missing_dask_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(OptionError, match=r"fastseg\[cluster\]"),
        open_cluster("local", plans_of(tmp_path), unheard),
    ):
        pass


def test_too_little_memory_for_local_workers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastseg.cohort.cluster.connection.rss_bytes", lambda: 300_000_000)
    plans = plans_of(tmp_path, workers=4, memory=1_300_000_000)
    with (
        pytest.raises(OptionError, match=r"250 MB for each of 4 workers .* --mem-gb"),
        open_cluster("local", plans, unheard),
    ):
        pass


# --- SLURM: its commands are stood in for; the rest is dask-jobqueue's


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an sbatch that starts the script's worker here, and a scancel."""
    import dask
    import dask_jobqueue  # noqa: F401  # brings its defaults, over which the test's settings go

    folder = tmp_path / "bin"
    folder.mkdir()
    script = f"""#!/bin/sh
[ "$1" = --test-only ] && exit
cp "$1" {folder}/script
sh {folder}/script > {folder}/log 2>&1 &
echo Submitted batch job 17
"""
    (folder / "sbatch").write_text(script)
    (folder / "scancel").write_text(
        f"#!/bin/sh\necho $1 > {folder}/cancelled\n"
    )  # Dask ends its worker itself
    for name in ("sbatch", "scancel"):
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    with dask.config.set(
        {
            "jobqueue.slurm.cores": 1,
            "jobqueue.slurm.memory": "2GB",
            "jobqueue.slurm.walltime": "01:30:00",
            "jobqueue.slurm.queue": "long",
            "jobqueue.slurm.log-directory": str(tmp_path / "logs"),
            "jobqueue.slurm.interface": "lo",
        }
    ):
        yield folder


def test_slurm_starts_workers_as_the_users_settings_say(slurm: Path, tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path / "in", tmp_path / "out", 2)
    with open_cluster("slurm", plans_of(tmp_path, workers=1), unheard) as cluster:
        statuses = [each.status for each in cluster.run(jobs)]
    assert statuses == ["ok", "ok"], (slurm / "log").read_text()
    script = (slurm / "script").read_text()
    for line in ("#SBATCH -p long", "#SBATCH -t 01:30:00", "#SBATCH --mem=2G", "--nthreads 1"):
        assert line in script
    assert (slurm / "cancelled").read_text().strip() == "17"


def test_slurm_without_settings_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(OptionError, match=r"jobqueue\.yaml"),
        open_cluster("slurm", plans_of(tmp_path), unheard),
    ):
        pass


def test_slurm_without_sbatch_is_told(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(EngineUnavailable, match="sbatch cannot be run"),
        open_cluster("slurm", plans_of(tmp_path), unheard),
    ):
        pass


def test_what_sbatch_complains_of_is_told(slurm: Path, tmp_path: Path) -> None:
    (slurm / "sbatch").write_text("#!/bin/sh\necho invalid partition: long >&2\nexit 1\n")
    with (
        pytest.raises(EngineUnavailable, match="invalid partition: long"),
        open_cluster("slurm", plans_of(tmp_path), unheard),
    ):
        pass
