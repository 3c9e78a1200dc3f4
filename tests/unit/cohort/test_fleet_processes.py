"""Fleets of real processes, on the CPU in place of GPUs: what passes between them and their parent."""

from __future__ import annotations

import io
import logging
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastseg.cohort.fleet.member import Log
from fastseg.cohort.fleet.parent import open_fleet
from fastseg.cohort.fleet.worker import Says
from fastseg.cohort.job import Job, Outcome
from fastseg.cohort.session import Executor, Plans, Session
from fastseg.cohort.showing import Showing, Shown
from fastseg.cohort.stream.stream import Limits
from fastseg.cohort.work import Manner
from fastseg.compilation import load_kernels
from fastseg.errors import NetworkError
from fastseg.options import Options
from fastseg.outputs import outputs_of
from fastseg.qc.report import Report
from tests.faults.cohort_runs import assert_whole, fill, ledger_lines, results
from tests.unit.cohort.fake_fleet import CPU

_N_VOLUMES = 20


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    load_kernels()
    folder = fill(tmp_path_factory.mktemp("volumes"), _N_VOLUMES - 1)
    (folder / "v99.nii.gz").write_bytes(b"not a volume")
    return folder


def two_processes(plans: Plans, begins: Callable[[Job], None], _: object) -> AbstractContextManager[Executor]:
    return open_fleet([CPU, CPU], plans, begins)


def jobs_of(volumes: Path, out: Path, **options: Any) -> list[Job]:
    return [
        Job(path.name, path, outputs_of(out / path.name.replace(".nii", "_seg.nii")), Options(**options))
        for path in sorted(volumes.iterdir())
    ]


def plans_of(out: Path, volumes: Path, **how: Any) -> Plans:
    return Plans(
        out,
        volumes,
        Manner(("mask", "sidecar", "csa")),
        Limits(workers=2, memory=8_000_000_000),
        **({"compute": CPU} | how),
    )


def test_two_processes_leave_the_bytes_that_one_leaves(volumes: Path, tmp_path: Path) -> None:
    told = {}
    for name, executor in (("one", None), ("two", two_processes)):
        with Session(plans_of(tmp_path / name, volumes), executor=executor) as session:
            told[name] = list(session.run(jobs_of(volumes, tmp_path / name)))
        (tmp_path / name / "summary.tsv").unlink(missing_ok=True)
    outcomes = {
        name: {
            each.job.name: (each.status, each.message, each.notes, each.flags, each.measures)
            for each in of
            if isinstance(each, Outcome)
        }
        for name, of in told.items()
    }
    assert outcomes["two"] == outcomes["one"]
    assert len(outcomes["two"]) == _N_VOLUMES
    assert results(tmp_path / "two") == results(tmp_path / "one")
    events = [(line["event"], line.get("name")) for line in ledger_lines(tmp_path / "two")]
    for name in outcomes["two"]:
        if name != "v99.nii.gz":  # known to be none before it is begun
            assert events.index(("begin", name)) < events.index(("end", name))
    assert multiprocessing.active_children() == []


def test_processes_write_into_one_qc_report(volumes: Path, tmp_path: Path) -> None:
    out, showing = tmp_path / "out", Showing(tmp_path / "qc", "phantoms")
    plans = plans_of(out, volumes)
    plans = replace(plans, manner=replace(plans.manner, showing=showing))
    with Shown(showing, out, volumes) as shown, Session(plans, executor=two_processes) as session:
        for outcome in session.run(jobs_of(volumes, out)):
            assert isinstance(outcome, Outcome)
            shown.note(outcome)
    rows = {row["name"]: row for row in Report(showing.folder).rows()}
    assert len(rows) == _N_VOLUMES
    for name, row in rows.items():
        whole = name != "v99.nii.gz"
        assert (row["status"], row["pictures"]) == (("ok", True) if whole else ("bad_input", False))
        pictures = list(showing.folder.glob(f"volumes/*/{row['id']}*g"))
        assert len(pictures) == (3 if whole else 0)


def test_what_was_done_is_not_done_again_and_costs_no_process(volumes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs = jobs_of(volumes, out)[:2]
    statuses = []
    for executor in (None, two_processes):
        with Session(plans_of(out, volumes), executor=executor) as session:
            statuses.append([str(each.status) for each in session.run(jobs)])
            assert multiprocessing.active_children() == []
    assert statuses == [["ok", "ok"], ["cached", "cached"]]


def test_networks_that_a_process_cannot_open_are_an_error_of_the_run(volumes: Path, tmp_path: Path) -> None:
    plans = plans_of(tmp_path / "out", volumes, models=tmp_path / "no-such-pack")
    with (
        pytest.raises(NetworkError, match="no-such-pack"),
        open_fleet([CPU, CPU], plans, lambda job: None) as fleet,
    ):
        list(fleet.run(jobs_of(volumes, tmp_path / "out")))
    assert multiprocessing.active_children() == []


def test_log_lines_of_processes_are_said_once_by_the_parent(volumes: Path, tmp_path: Path) -> None:
    """Each of them says which engine runs which network."""
    heard = io.StringIO()
    loggers = {
        logging.getLogger("fastseg"): logging.WARNING,
        logging.getLogger("fastseg.engines"): logging.INFO,
    }
    before = {logger: logger.level for logger in loggers}
    handler = logging.StreamHandler(heard)
    logging.getLogger("fastseg").addHandler(handler)
    try:
        for logger, level in loggers.items():
            logger.setLevel(level)
        plans = plans_of(tmp_path / "out", volumes)
        with open_fleet([CPU, CPU], plans, lambda job: None) as fleet:
            list(fleet.run(jobs_of(volumes, tmp_path / "out")))
    finally:
        logging.getLogger("fastseg").removeHandler(handler)
        for logger, level in before.items():
            logger.setLevel(level)
    chosen = [line for line in heard.getvalue().splitlines() if "runs on onnxruntime cpu fp32" in line]
    assert chosen
    assert len(chosen) == len(set(chosen)), chosen
    assert len(heard.getvalue().splitlines()) == len(chosen)


def test_a_line_is_said_again_by_whoever_said_it_and_by_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastseg")
    log, logger = Log(), logging.getLogger("fastseg")
    logger.addHandler(log)
    try:
        logging.getLogger("fastseg.x").warning("%s is slow", "it")
        for who, text in (("a", "it is slow"), ("a", "hangs"), ("b", "hangs"), ("a", "hangs"), ("b", "new")):
            log.say(who, Says("fastseg.x", logging.WARNING, text))
        log.say("b", Says("fastseg.x", logging.DEBUG, "not wanted"))
    finally:
        logger.removeHandler(log)
    assert [record.getMessage() for record in caplog.records] == ["it is slow", "hangs", "hangs", "new"]


_FORGETFUL = """
import sys
from pathlib import Path
from fastseg.cohort.fleet.parent import open_fleet
from fastseg.cohort.job import Job
from fastseg.cohort.session import Plans
from fastseg.cohort.stream.stream import Limits
from fastseg.engines.compute import Compute
from fastseg.options import Options
from fastseg.outputs import outputs_of
from fastseg.qc.report import Report

if __name__ == "__main__":
    volume, out = map(Path, sys.argv[1:])
    cpu = Compute(device="cpu", engine="onnxruntime")
    plans = Plans(out, out, limits=Limits(memory=8_000_000_000), compute=cpu)
    opened = open_fleet([cpu], plans, lambda job: None)
    job = Job("v", volume, outputs_of(out / "v_seg.nii"), Options())
    print([str(outcome.status) for outcome in opened.__enter__().run([job])])
"""


def test_a_program_that_forgets_to_close_its_fleet_ends_all_the_same(volumes: Path, tmp_path: Path) -> None:
    script = tmp_path / "forgetful.py"
    script.write_text(_FORGETFUL)
    ended = subprocess.run(
        [sys.executable, script, volumes / "v00.nii.gz", tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=300,  # far more than it takes anywhere: one that waits for its process does so for ever
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "['ok']"), ended.stderr


def test_a_fleet_is_a_whole_run_for_a_session(volumes: Path, tmp_path: Path) -> None:
    """A failure stops it, what was not tried is done by the next run, and nothing temporary stays."""
    from fastseg.cohort.ledger import read_ledgers
    from fastseg.cohort.report import write_summary

    out = tmp_path / "out"
    jobs = sorted(jobs_of(volumes, out), key=lambda job: job.name, reverse=True)  # the bad one comes first
    executor = two_processes
    with Session(plans_of(out, volumes, max_failures=1), executor=executor) as session:
        first = list(session.run(jobs))
    assert 1 <= len(first) < len(jobs)
    with Session(plans_of(out, volumes), executor=executor) as session:
        list(session.run(jobs))
        write_summary(read_ledgers(out), out, session.scratch)
    assert_whole(out, [job.name for job in jobs])


def test_even_the_first_process_hears_no_ctrl_c_before_it_can_ignore_it(tmp_path: Path) -> None:
    """The first one also starts multiprocessing's tracker, which unblocks signals when it has started."""
    script = tmp_path / "first.py"
    script.write_text(
        "import multiprocessing, signal\n"
        "from fastseg.cohort.fleet.member import _parting_signals_held\n"
        "def born_with():\n"
        "    print(sorted(number.name for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())))\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=born_with)\n"
        "    with _parting_signals_held():\n"
        "        process.start()\n"
        "    process.join()\n"
        "    print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))\n"
    )
    said = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=300)
    assert said.stdout.splitlines() == ["['SIGINT', 'SIGTERM']", "[]"]
