"""Fleets of processes that are threads: who gets which job, and what happens when something dies."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fastseg.cohort.fleet import places
from fastseg.cohort.fleet.parent import Fleet, open_fleet
from fastseg.cohort.job import Job, Outcome, Refused, Status
from fastseg.cohort.stream.stream import Told
from fastseg.engines.compute import Compute
from fastseg.errors import EngineBuildError, EngineUnavailable, NetworkError, OptionError, OutputError
from tests.unit.cohort.fake_fleet import Dies, FakeMember, Script, fake_jobs, plans_of

GPUS = [Compute(device="cuda:0"), Compute(device="cuda:1")]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script().patch(monkeypatch)


def unheard(job: Job) -> None:
    """Nobody keeps a ledger."""


def statuses(told: list[Told]) -> dict[str, str]:
    found = {each.job.name: str(each.status) for each in told if isinstance(each, Outcome)}
    assert len(found) == len(told), "a volume has two outcomes"
    return found


def wait_until(happened: Callable[[], bool]) -> None:
    """Far longer than anything here takes, on any machine: only a hang meets the end."""
    deadline = time.monotonic() + 60
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.01)


def run_all(jobs: list[Job], out: Path, computes: list[Compute] = GPUS) -> dict[str, str]:
    with open_fleet(computes, plans_of(out), unheard) as fleet:
        return statuses(list(fleet.run(jobs)))


# --- jobs


def test_the_faster_process_gets_more_jobs(tmp_path: Path, script: Script) -> None:
    others_done = threading.Event()

    def act(member: FakeMember, job: Job) -> Outcome:
        if member.label == "cuda:0":
            assert others_done.wait(60)
        elif sum(script.done_by().values()) == 8:
            others_done.set()
        return Outcome(job, Status.OK)

    script.act = act
    assert set(run_all(fake_jobs(tmp_path, 10), tmp_path).values()) == {"ok"}
    assert script.done_by() == {"cuda:0": 1, "cuda:1": 9}


def test_a_beginning_is_heard_before_the_volume_is_read(tmp_path: Path, script: Script) -> None:
    heard, known = [], []

    def act(member: FakeMember, job: Job) -> Outcome:
        known.append(job.name in heard)
        return Outcome(job, Status.OK)

    script.act = act
    with open_fleet(GPUS, plans_of(tmp_path), lambda job: heard.append(job.name)) as fleet:
        list(fleet.run(fake_jobs(tmp_path, 6)))
    assert known == [True] * 6
    assert len(heard) == 6


def test_no_volume_is_read_whose_beginning_cannot_be_written_down(tmp_path: Path, script: Script) -> None:
    def full(job: Job) -> None:
        raise OutputError("the disk is full")

    with (
        pytest.raises(OutputError, match="the disk is full"),
        open_fleet(GPUS, plans_of(tmp_path), full) as fleet,
    ):
        list(fleet.run(fake_jobs(tmp_path, 6)))
    assert [member.begun for member in script.members] == [[]] * len(script.members)
    assert all(member.ended.is_set() for member in script.members)


def test_jobs_come_back_as_they_were_given_and_what_is_told_is_passed_on(
    tmp_path: Path, script: Script
) -> None:
    script.act = lambda member, job: Outcome(replace(job), Status.OK)  # pickled: another object
    jobs, refused = fake_jobs(tmp_path, 3), Refused("odd", Status.BAD_INPUT, "is odd")
    with open_fleet(GPUS, plans_of(tmp_path), unheard) as fleet:
        told = list(fleet.run([*jobs[:2], refused, jobs[2]]))
    assert refused in told
    assert {id(each.job) for each in told if isinstance(each, Outcome)} == {id(job) for job in jobs}


def test_a_fleet_may_run_again_with_the_same_processes(tmp_path: Path, script: Script) -> None:
    first, second, third = fake_jobs(tmp_path, 3)
    with open_fleet(GPUS, plans_of(tmp_path), unheard) as fleet:
        told = [statuses(list(fleet.run(jobs))) for jobs in ([first], [], [second], [third])]
    assert told == [{"v0.nii": "ok"}, {}, {"v1.nii": "ok"}, {"v2.nii": "ok"}]
    assert len(script.members) == 1  # no more than there was ever work for


def test_no_more_is_taken_from_a_slow_consumer_s_list_than_keeps_all_busy(
    tmp_path: Path, script: Script
) -> None:
    go, taken = threading.Event(), []

    def act(member: FakeMember, job: Job) -> Outcome:
        assert go.wait(60)
        return Outcome(job, Status.OK)

    def source() -> Iterator[Job]:
        for job in fake_jobs(tmp_path, 30):
            taken.append(job)
            yield job

    most: list[int] = []

    def look() -> None:
        wait_until(lambda: sum(len(member.begun) for member in script.members) == 2)
        time.sleep(0.3)  # time enough for more, if it may be taken
        most.append(len(taken))
        go.set()

    script.act = act
    threading.Thread(target=look, daemon=True).start()
    with open_fleet(GPUS, plans_of(tmp_path), unheard) as fleet:
        assert len(list(fleet.run(source()))) == 30
    assert 2 <= most[0] <= 5  # one for each of two processes, one ahead for each, and the next one


def test_a_job_that_comes_late_is_done_when_it_comes(tmp_path: Path, script: Script) -> None:
    came: list[tuple[str, int]] = []

    def source() -> Iterator[Job]:
        for number, job in enumerate(fake_jobs(tmp_path, 3)):
            wait_until(lambda number=number: len(came) >= number)  # type: ignore[misc]  # as who waits for answers
            yield job

    with open_fleet(GPUS, plans_of(tmp_path), unheard) as fleet:
        for outcome in fleet.run(source()):
            assert isinstance(outcome, Outcome)
            came.append((outcome.job.name, len(came)))
    assert came == [("v0.nii", 0), ("v1.nii", 1), ("v2.nii", 2)]


def test_stop_finishes_what_was_begun_and_drops_what_was_not(tmp_path: Path, script: Script) -> None:
    def act(member: FakeMember, job: Job) -> Outcome:
        fleet.stop()
        time.sleep(0.3)
        return Outcome(job, Status.OK)

    script.act = act
    with open_fleet(GPUS, plans_of(tmp_path), unheard) as fleet:
        told = list(fleet.run(fake_jobs(tmp_path, 30)))
        assert list(fleet.run(fake_jobs(tmp_path, 3))) == []
    begun = [name for member in script.members for name in member.begun]
    assert sorted(statuses(told)) == sorted(begun)
    assert 1 <= len(begun) <= 2


def test_stop_does_not_wait_for_jobs_that_never_come(tmp_path: Path, script: Script) -> None:
    closed = threading.Event()

    def endless() -> Iterator[Job]:
        closed.wait(600)
        ended.append(True)
        yield from ()

    ended: list[bool] = []
    with open_fleet(GPUS, plans_of(tmp_path), unheard) as fleet:
        threading.Timer(0.2, fleet.stop).start()
        assert list(fleet.run(endless())) == []
        assert not ended
    closed.set()


def test_a_run_that_ends_early_ends_the_processes_that_work_and_removes_what_they_left(
    tmp_path: Path, script: Script
) -> None:
    jobs = fake_jobs(tmp_path, 4)

    def broken() -> Iterator[Job]:
        yield from jobs
        wait_until(lambda: len(stages(tmp_path)) == 4)
        raise OptionError("the list is broken")

    script.at_once, script.act = 2, leave_a_stage
    with open_fleet(GPUS, plans_of(tmp_path), unheard) as fleet:
        with pytest.raises(OptionError, match="the list is broken"):
            list(fleet.run(broken()))
        assert sum(len(member.begun) for member in script.members) == 4
        assert all(member.ended.is_set() for member in script.members)
        assert stages(tmp_path) == []
        script.act = lambda member, job: Outcome(job, Status.OK)
        assert set(statuses(list(fleet.run(jobs))).values()) == {"ok"}


def leave_a_stage(member: FakeMember, job: Job) -> None:
    stage = job.outputs.folder / f".fastseg-{member.tag}-{job.name}"
    stage.mkdir(parents=True, exist_ok=True)
    (stage / "half.nii").write_bytes(b"half")


def stages(folder: Path) -> list[str]:
    return [path.name for path in (folder / "out").glob(".fastseg-*")]


# --- deaths


def test_volumes_of_a_process_that_dies_are_tried_again_one_by_one_where_it_was(
    tmp_path: Path, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    alone: list[str] = []

    def act(member: FakeMember, job: Job) -> Outcome | None:
        if len(script.members) == 1:
            leave_a_stage(member, job)
            if len(member.begun) < 3:
                return None
            raise Dies
        if script.members[1] is member and len(alone) < 3:
            assert len(member._hands) == 1
            alone.append(job.name)
        return Outcome(job, Status.OK)

    script.at_once, script.act = 3, act
    found = run_all(fake_jobs(tmp_path, 8), tmp_path, GPUS[:1])
    assert found == {f"v{k}.nii": "ok" for k in range(8)}
    assert alone == ["v0.nii", "v1.nii", "v2.nii"]
    assert stages(tmp_path) == []
    assert "a process on cuda:0 was killed by SIGKILL; tried again, one by one: v0.nii" in caplog.text


def test_a_volume_that_kills_two_processes_is_an_error_and_the_others_are_done(
    tmp_path: Path, script: Script
) -> None:
    def act(member: FakeMember, job: Job) -> Outcome:
        if job.name == "v3.nii":
            raise Dies
        return Outcome(job, Status.OK)

    script.act = act
    with open_fleet(GPUS, plans_of(tmp_path), unheard) as fleet:
        told = list(fleet.run(fake_jobs(tmp_path, 8)))
    found = statuses(told)
    assert found.pop("v3.nii") == "error"
    assert found == {f"v{k}.nii": "ok" for k in (0, 1, 2, 4, 5, 6, 7)}
    (message,) = [each.message for each in told if each.status is Status.ERROR]
    assert message.startswith("two processes died with it, the last one, on cuda:")
    assert "\n" not in message
    assert sum(member.begun.count("v3.nii") for member in script.members) == 2


def test_jobs_that_a_dead_process_had_not_begun_are_nobody_s_suspects(tmp_path: Path, script: Script) -> None:
    """They go to whoever asks, and are done beside others."""

    def opens(member: FakeMember) -> None:
        if member.share.manner.tag == "run-0-1":
            raise Dies

    script.opens = opens
    assert set(run_all(fake_jobs(tmp_path, 6), tmp_path).values()) == {"ok"}


def test_a_gpu_whose_processes_always_die_is_left_out_and_its_volumes_are_done_by_others(
    tmp_path: Path, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    broken_first = threading.Event()

    def act(member: FakeMember, job: Job) -> Outcome | None:
        if member.label == "cuda:1":
            broken_first.wait(60)
            return Outcome(job, Status.OK)
        if member.tag == "run-0-1":
            return None if len(member.begun) < 4 else die()
        return die()

    def die() -> None:
        if sum(member.label == "cuda:0" for member in script.members) == 3:
            broken_first.set()
        raise Dies

    script.at_once, script.act = 4, act
    found = run_all(fake_jobs(tmp_path, 20), tmp_path)
    # Of four volumes, two were tried alone before it was clear that it is not the volumes.
    assert sorted(found.values()) == ["error"] * 2 + ["ok"] * 18
    assert sum(member.label == "cuda:0" for member in script.members) == 3
    assert "cuda:0 is left out: 3 processes in a row died" in caplog.text


def test_a_run_without_any_process_that_lives_is_an_error_that_says_why(
    tmp_path: Path, script: Script
) -> None:
    script.opens = lambda member: (_ for _ in ()).throw(Dies)
    with (
        pytest.raises(EngineUnavailable, match=r"no process is left to work \(cuda:0: 3 processes in a row"),
        open_fleet(GPUS, plans_of(tmp_path), unheard) as fleet,
    ):
        list(fleet.run(fake_jobs(tmp_path, 6)))


def test_when_the_last_process_is_lost_what_was_taken_fails_and_the_rest_is_not_tried(
    tmp_path: Path, script: Script
) -> None:
    def opens(member: FakeMember) -> None:
        if len(script.members) > 1 or len(member.done) == 2:
            raise Dies

    script.opens = opens
    with open_fleet(GPUS[:1], plans_of(tmp_path), unheard) as fleet:
        told = list(fleet.run(fake_jobs(tmp_path, 30)))
        assert list(fleet.run(fake_jobs(tmp_path, 1))) == []
    found = list(statuses(told).values())
    assert found[:2] == ["ok", "ok"]
    assert 1 <= len(found) - 2 <= 2
    assert set(found[2:]) == {"error"}
    assert isinstance(told[-1], Outcome)
    assert "no process is left to work (cuda:0: 3 processes in a row died" in told[-1].message


@pytest.mark.parametrize("error", [EngineBuildError("fp16: 3 pixels flip"), NetworkError("no such pack")])
def test_networks_that_do_not_open_end_the_run_with_their_own_error(
    tmp_path: Path, script: Script, error: Exception
) -> None:
    def opens(member: FakeMember) -> None:
        raise error

    script.opens = opens
    with (
        pytest.raises(type(error), match=str(error)),
        open_fleet(GPUS, plans_of(tmp_path), unheard) as fleet,
    ):
        list(fleet.run(fake_jobs(tmp_path, 6)))


def test_networks_that_do_not_open_again_after_a_death_leave_the_work_to_others(
    tmp_path: Path, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    lost = threading.Event()

    def opens(member: FakeMember) -> None:
        if member.tag == "run-0-2":
            lost.set()
            raise EngineUnavailable("the GPU fell off the bus")

    def act(member: FakeMember, job: Job) -> Outcome:
        if member.label == "cuda:0":
            raise Dies
        assert lost.wait(60)
        return Outcome(job, Status.OK)

    script.opens, script.act = opens, act
    assert set(run_all(fake_jobs(tmp_path, 6), tmp_path).values()) == {"ok"}
    assert "cuda:0 is left out: its networks do not open again: the GPU fell off the bus" in caplog.text


def test_networks_that_do_not_open_again_on_the_only_gpu_fail_what_was_taken(
    tmp_path: Path, script: Script
) -> None:
    def opens(member: FakeMember) -> None:
        if len(script.members) > 1:
            raise EngineUnavailable("the GPU fell off the bus")

    def act(member: FakeMember, job: Job) -> Outcome:
        if job.name == "v1.nii":
            raise Dies
        return Outcome(job, Status.OK)

    script.opens, script.act = opens, act
    found = run_all(fake_jobs(tmp_path, 2), tmp_path, GPUS[:1])
    assert found == {"v0.nii": "ok", "v1.nii": "error"}


def test_a_process_that_cannot_be_started_leaves_its_work_to_others(
    tmp_path: Path,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make = places.Member

    def refuse(label: str, *given: object) -> object:
        if label == "cuda:0":
            raise OSError(11, "Resource temporarily unavailable")
        return make(label, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(places, "Member", refuse)
    assert set(run_all(fake_jobs(tmp_path, 6), tmp_path).values()) == {"ok"}
    assert "cuda:0 is left out: no process can be started (Resource temporarily" in caplog.text


def test_a_volume_whose_process_dies_while_the_run_stops_is_not_tried_again(
    tmp_path: Path, script: Script
) -> None:
    def act(member: FakeMember, job: Job) -> Outcome:
        fleet.stop()
        time.sleep(0.3)
        raise Dies

    script.act = act
    with open_fleet(GPUS[:1], plans_of(tmp_path), unheard) as fleet:
        assert list(fleet.run(fake_jobs(tmp_path, 6))) == []
    assert [member.begun for member in script.members] == [["v0.nii"]]


def test_a_bug_in_a_process_ends_the_run(tmp_path: Path, script: Script) -> None:
    def opens(member: FakeMember) -> None:
        raise ZeroDivisionError("by zero")

    script.opens = opens
    with pytest.raises(ZeroDivisionError), open_fleet(GPUS, plans_of(tmp_path), unheard) as fleet:
        list(fleet.run(fake_jobs(tmp_path, 2)))


# --- what is told


def test_a_trace_without_the_processes_is_told_of(
    tmp_path: Path, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    from fastseg.tracing import tracing

    with tracing(tmp_path / "trace"), open_fleet(GPUS, plans_of(tmp_path), unheard):
        pass
    assert "--trace has only the process of the command in it, not the 2 that run networks" in caplog.text


def test_the_log_of_fastseg_is_left_as_it_was(tmp_path: Path, script: Script) -> None:
    before = list(logging.getLogger("fastseg").handlers)
    with open_fleet(GPUS, plans_of(tmp_path), unheard) as fleet:
        assert isinstance(fleet, Fleet)
    assert logging.getLogger("fastseg").handlers == before
