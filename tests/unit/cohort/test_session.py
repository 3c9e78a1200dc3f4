from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastseg.cohort import session
from fastseg.cohort.job import Job, Outcome, Refused, Status
from fastseg.cohort.ledger import FOLDER, Ledger, Shard, read_ledgers
from fastseg.cohort.session import Executor, Plans, Session
from fastseg.cohort.stream.observer import Nobody
from fastseg.cohort.stream.stream import Limits, Told
from fastseg.cohort.work import Manner, Work, segment_file
from fastseg.engines.cuda import failures
from fastseg.engines.cuda.failures import failure, lost_gpu
from fastseg.errors import OptionError, OutputError
from tests.phantom_files import files_below
from tests.unit.cohort.fake_segmenters import FakeSegmenters, jobs_of, number_of, volume_file


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> FakeSegmenters:
    """The segmenters that every session of the test opens."""
    segmenters = FakeSegmenters()
    monkeypatch.setattr(session, "Segmenters", lambda **how: segmenters)
    return segmenters


def plans_for(tmp_path: Path, **how: Any) -> Plans:
    return Plans(
        out=tmp_path / "out",
        root=tmp_path / "in",
        manner=Manner(kinds=("mask", "sidecar")),
        limits=Limits(workers=2),
        **how,
    )


def run(tmp_path: Path, jobs: list[Job], **how: Any) -> list[tuple[int, str]]:
    """Number and status of each volume, as they come."""
    with Session(plans_for(tmp_path, **how)) as each:
        return [(number_of(told), str(told.status)) for told in each.run(jobs) if isinstance(told, Outcome)]


def lines_of(tmp_path: Path, event: str, ledger: str = "ledger.jsonl") -> list[dict[str, Any]]:
    text = (tmp_path / "out" / FOLDER / ledger).read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["event"] == event]


def find_no_cord_in(fakes: FakeSegmenters, *numbers: int) -> None:
    fakes.flags = lambda options, number: None if number in numbers else ()


def test_a_second_run_does_nothing_and_writes_nothing_down(tmp_path: Path, fakes: FakeSegmenters) -> None:
    jobs = jobs_of(tmp_path, [1, 2, 3])
    assert sorted(run(tmp_path, jobs)) == [(1, "ok"), (2, "ok"), (3, "ok")]
    ends, asked = lines_of(tmp_path, "end"), len(fakes.engine.batches)
    assert run(tmp_path, jobs) == [(1, "cached"), (2, "cached"), (3, "cached")]
    assert lines_of(tmp_path, "end") == ends
    assert len(fakes.engine.batches) == asked
    assert len(lines_of(tmp_path, "run")) == 2


def test_only_what_is_left_is_done_and_what_is_done_is_told_first(
    tmp_path: Path, fakes: FakeSegmenters
) -> None:
    jobs = jobs_of(tmp_path, range(1, 6))
    run(tmp_path, jobs[2:4])
    told = run(tmp_path, jobs)
    assert told[:2] == [(3, "cached"), (4, "cached")]
    assert sorted(told[2:]) == [(1, "ok"), (2, "ok"), (5, "ok")]


def test_the_ledger_says_how_each_volume_ended(tmp_path: Path, fakes: FakeSegmenters) -> None:
    fakes.flags = lambda options, number: {1: ("holes",), 2: None}.get(number, ())
    jobs = jobs_of(tmp_path, [1, 2, 3])
    run(tmp_path, jobs, command=("run", "in"))
    ends = {line["name"]: line for line in lines_of(tmp_path, "end")}
    assert {name: line["status"] for name, line in ends.items()} == {
        "v1.nii": "ok_flagged", "v2.nii": "no_cord", "v3.nii": "ok",
    }  # fmt: skip
    first = ends["v1.nii"]
    assert (first["mask"], first["flags"], first["notes"]) == ("v1_seg.nii", ["holes"], ["it is holes"])
    assert first["measures"] == {"Objects": 1.0}
    assert set(first["outputs"]) == {"mask", "sidecar"}
    assert first["log"] == "logs/v1_seg.log"
    assert "log" not in ends["v3.nii"]
    assert ends["v2.nii"]["message"].startswith("no spinal cord was found")
    assert lines_of(tmp_path, "run")[0]["command"] == ["run", "in"]
    assert sorted(line["name"] for line in lines_of(tmp_path, "begin")) == sorted(ends)


def test_a_beginning_is_written_down_before_any_file_appears(tmp_path: Path, fakes: FakeSegmenters) -> None:
    known = list[bool]()

    def on(step: str, numbers: list[int]) -> None:
        if step == "prepare":
            known.append(
                f'"mask": "v{numbers[0]}_seg.nii"' in (tmp_path / "out/.fastseg/ledger.jsonl").read_text()
            )

    fakes.on = on
    run(tmp_path, jobs_of(tmp_path, [1, 2]))
    assert known == [True, True]


def test_skipped_volumes_are_told_and_their_files_stay(tmp_path: Path, fakes: FakeSegmenters) -> None:
    jobs = jobs_of(tmp_path, [1, 2])
    run(tmp_path, jobs)
    left_out = [replace(jobs[0], skip="excluded by qc_fail.yml"), jobs[1]]
    assert run(tmp_path, left_out) == [(1, "skipped"), (2, "cached")]
    assert jobs[0].outputs.mask.exists()
    assert run(tmp_path, jobs) in ([(2, "cached"), (1, "ok")], [(1, "cached"), (2, "cached")])


def test_volumes_that_failed_by_themselves_wait_for_retry_failed(
    tmp_path: Path, fakes: FakeSegmenters
) -> None:
    jobs = jobs_of(tmp_path, [1, 2])
    find_no_cord_in(fakes, 2)
    run(tmp_path, jobs)
    find_no_cord_in(fakes)
    assert run(tmp_path, jobs) == [(1, "cached"), (2, "no_cord")]
    assert run(tmp_path, jobs, retry_failed=True) == [(1, "cached"), (2, "ok")]


def test_overwrite_does_all_again_and_replaces_what_nobody_knows(
    tmp_path: Path, fakes: FakeSegmenters
) -> None:
    jobs = jobs_of(tmp_path, [1, 2])
    run(tmp_path, jobs[:1])
    jobs[1].outputs.mask.write_bytes(b"drawn by hand")
    assert run(tmp_path, jobs) == [(1, "cached"), (2, "error")]
    assert jobs[1].outputs.mask.read_bytes() == b"drawn by hand"
    assert sorted(run(tmp_path, jobs, overwrite=True)) == [(1, "ok"), (2, "ok")]
    assert run(tmp_path, jobs) == [(1, "cached"), (2, "cached")]


def test_a_refusal_to_replace_files_is_no_news_for_the_ledger(tmp_path: Path, fakes: FakeSegmenters) -> None:
    (job,) = jobs_of(tmp_path, [1])
    job.outputs.folder.mkdir()
    job.outputs.mask.write_bytes(b"drawn by hand")
    assert run(tmp_path, [job]) == [(1, "error")]
    assert lines_of(tmp_path, "end") == []


def test_an_input_that_changed_is_done_again(tmp_path: Path, fakes: FakeSegmenters) -> None:
    jobs = jobs_of(tmp_path, [1, 2])
    run(tmp_path, jobs)
    volume_file(jobs[1].source, 9)
    assert run(tmp_path, jobs) == [(1, "cached"), (2, "ok")]


# --- failures


def test_no_further_volume_is_begun_after_so_many_failures(tmp_path: Path, fakes: FakeSegmenters) -> None:
    find_no_cord_in(fakes, *range(100))
    told = run(tmp_path, jobs_of(tmp_path, range(1, 60)), max_failures=3)
    under_way = Limits(workers=2).at_once
    assert 3 <= len(told) <= 3 + 2 * under_way + 4  # those that were under way, or let in meanwhile
    begun = len(lines_of(tmp_path, "begin"))
    assert begun == len(told)


def test_failures_of_earlier_runs_do_not_stop_a_run(tmp_path: Path, fakes: FakeSegmenters) -> None:
    jobs = jobs_of(tmp_path, range(1, 8))
    find_no_cord_in(fakes, 1)
    assert (1, "no_cord") in run(tmp_path, jobs, max_failures=1)
    told = run(tmp_path, jobs, max_failures=1)
    assert len(told) == 7
    assert sum(status == "no_cord" for _, status in told) == 1


def test_files_in_the_way_count_as_failures_before_anything_begins(
    tmp_path: Path, fakes: FakeSegmenters
) -> None:
    jobs = jobs_of(tmp_path, range(1, 5))
    jobs[2].outputs.folder.mkdir()
    jobs[2].outputs.mask.write_bytes(b"drawn by hand")
    assert run(tmp_path, jobs, max_failures=1) == [(3, "error")]
    assert lines_of(tmp_path, "begin") == []


def test_a_run_that_loses_its_gpu_ends_and_the_next_one_goes_on(
    tmp_path: Path, fakes: FakeSegmenters, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(step: str, numbers: list[int]) -> None:
        if step == "finish" and (lost_gpu() or 3 in numbers):
            raise failure("cuStreamSynchronize", "CUDA_ERROR_ILLEGAL_ADDRESS", 0)

    jobs = jobs_of(tmp_path, range(1, 60))
    with monkeypatch.context() as patch:
        patch.setattr(failures, "_lost", [])
        patch.setattr(fakes, "on", refuse)
        told = run(tmp_path, jobs)
    assert len(told) < 30
    assert told.count((3, "error")) == 1
    assert [each.getMessage().count("the same command goes on") for each in caplog.records] == [1]
    assert sorted(number for number, status in run(tmp_path, jobs) if status == "ok") == sorted(
        set(range(1, 60)) - {number for number, status in told if status == "ok"}
    )


def test_a_stopped_session_begins_nothing_more(tmp_path: Path, fakes: FakeSegmenters) -> None:
    told = []
    with Session(plans_for(tmp_path)) as each:
        for outcome in each.run(jobs_of(tmp_path, range(1, 60))):
            told.append(outcome)
            each.stop()
    assert len(told) < 30
    assert len(told) == len(lines_of(tmp_path, "begin")) == len(lines_of(tmp_path, "end"))
    with Session(plans_for(tmp_path)) as each:
        each.stop()
        assert list(each.run(jobs_of(tmp_path, range(1, 60)))) == []


def test_a_ledger_that_cannot_be_written_ends_the_run(
    tmp_path: Path, fakes: FakeSegmenters, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of(tmp_path, range(1, 10))

    def full(self: Ledger, *line: str, **facts: object) -> None:
        raise OutputError("ledger.jsonl: cannot be written (No space left on device)")

    for method in ("begin", "end"):
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, method, full)
            with pytest.raises(OutputError, match="No space"):
                run(tmp_path, jobs)
    assert len(run(tmp_path, jobs)) == 9


def test_what_runs_died_over_comes_last_and_one_by_one(
    tmp_path: Path, fakes: FakeSegmenters, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = jobs_of(tmp_path, range(1, 9))
    for _ in range(2):  # two runs that died over these
        with Ledger(tmp_path / "out") as ledger:
            for job in jobs[:3]:
                ledger.begin(job.outputs.mask.name, job.name)
    with Ledger(tmp_path / "out") as ledger:  # and a third one, over the second of them
        ledger.begin("v2_seg.nii", "v2.nii")
    here, together, lock = set[int](), list[set[int]](), threading.Lock()

    def on(step: str, numbers: list[int]) -> None:
        with lock:
            here.update(numbers)
            together.append(set(here))
            if step == "finish":
                here.difference_update(numbers)

    fakes.on = on
    told = run(tmp_path, jobs)
    assert sorted(told[:5]) == [(number, "ok") for number in range(4, 9)]
    assert told[5:] == [(3, "ok"), (1, "ok"), (2, "ok")]  # the likeliest cause is the last
    assert all(len(each) == 1 for each in together if each & {1, 2, 3})
    assert "v1.nii: earlier runs died while they worked on it" in caplog.text
    assert read_ledgers(tmp_path / "out").begun == {}


def test_what_one_run_died_over_is_simply_done_again(tmp_path: Path, fakes: FakeSegmenters) -> None:
    jobs = jobs_of(tmp_path, [1, 2])
    with Ledger(tmp_path / "out") as ledger:
        ledger.begin("v1_seg.nii", "v1.nii")
    jobs[0].outputs.mask.write_bytes(b"the killed run got as far as this")
    (tmp_path / "out" / ".fastseg-run-x").mkdir()
    with Session(plans_for(tmp_path)) as each:
        assert each.leftovers == 1
        assert each.history.begun == {"v1_seg.nii": 1}
        assert {str(told.status) for told in each.run(jobs)} == {"ok"}
    assert not list((tmp_path / "out").glob(".fastseg-*"))


# --- the folder


def test_two_sessions_in_one_folder_are_refused(tmp_path: Path, fakes: FakeSegmenters) -> None:
    with Session(plans_for(tmp_path)), pytest.raises(OptionError, match="another run"):
        Session(plans_for(tmp_path)).__enter__()
    with Session(plans_for(tmp_path)):
        pass


def test_shards_share_the_list_out_and_keep_ledgers_of_their_own(
    tmp_path: Path, fakes: FakeSegmenters
) -> None:
    jobs = jobs_of(tmp_path, range(1, 8))
    told = [run(tmp_path, jobs, shard=Shard(index, 3)) for index in (1, 2, 3)]
    assert [sorted(number for number, _ in each) for each in told] == [[1, 4, 7], [2, 5], [3, 6]]
    assert [line["name"] for line in lines_of(tmp_path, "end", "ledger-3-of-3.jsonl")] in (
        ["v3.nii", "v6.nii"],
        ["v6.nii", "v3.nii"],
    )
    # A run of all of them, or of another number of shards, knows what they did.
    assert [status for _, status in run(tmp_path, jobs)] == ["cached"] * 7
    assert run(tmp_path, jobs, shard=Shard(2, 4)) == [(2, "cached"), (6, "cached")]


def test_only_results_and_records_are_left_in_the_folder(tmp_path: Path, fakes: FakeSegmenters) -> None:
    find_no_cord_in(fakes, 2)
    run(tmp_path, jobs_of(tmp_path, [1, 2]))
    assert files_below(tmp_path / "out") == [
        ".fastseg",
        ".fastseg/ledger.jsonl",
        ".fastseg/lock",
        "logs",
        "logs/v2_seg.log",
        "v1_seg.json",
        "v1_seg.nii",
    ]


def test_messages_name_files_without_the_folders_of_this_machine(
    tmp_path: Path, fakes: FakeSegmenters
) -> None:
    (job,) = jobs_of(tmp_path, [1])

    def on(step: str, numbers: list[int]) -> None:
        raise OutputError(f"{job.outputs.mask}: cannot be compared with {job.source}; mend it")

    fakes.on = on
    run(tmp_path, [job])
    (line,) = lines_of(tmp_path, "end")
    assert line["message"] == "v1_seg.nii: cannot be compared with v1.nii; mend it"
    assert str(tmp_path) not in json.dumps(line)


# --- the streaming mode, and other executors


def test_jobs_that_come_one_by_one_are_decided_as_they_come(tmp_path: Path, fakes: FakeSegmenters) -> None:
    jobs = jobs_of(tmp_path, [1, 2])
    run(tmp_path, jobs[:1])
    refused = Refused("line 3", "is no path")
    with Session(plans_for(tmp_path)) as each:
        told = list(each.run_stream(iter([*jobs, refused])))
        assert each.failures == 1
    assert refused in told
    statuses = {number_of(o): str(o.status) for o in told if isinstance(o, Outcome)}
    assert statuses == {1: "cached", 2: "ok"}


def test_one_output_of_two_lines_of_a_stream_is_only_made_once_a_run(
    tmp_path: Path, fakes: FakeSegmenters
) -> None:
    """What was done in a run is not in the history that it began with: the second is done again, in order."""
    (job,) = jobs_of(tmp_path, [1])
    with Session(plans_for(tmp_path)) as each:
        told = [str(told.status) for told in each.run_stream([job])]
    with Session(plans_for(tmp_path)) as each:
        told += [str(told.status) for told in each.run_stream([job, job])]
    assert told == ["ok", "cached", "cached"]


class _OneByOne:
    """An executor without threads, as simple as can be."""

    def __init__(self, plans: Plans, begins: Callable[[Job], None], segmenters: FakeSegmenters) -> None:
        self._plans, self._begins, self._segmenters = plans, begins, segmenters
        self.stopped = False

    def run(self, jobs: Iterable[Job | Told]) -> Iterator[Told]:
        for job in jobs:
            if self.stopped:
                return
            if isinstance(job, Job):
                self._begins(job)
                yield segment_file(Work(job, self._plans.manner, self._segmenters))  # type: ignore[arg-type]
            else:
                yield job

    def stop(self) -> None:
        self.stopped = True


def test_another_executor_works_on_what_the_session_decides_and_the_session_writes_it_down(
    tmp_path: Path, fakes: FakeSegmenters
) -> None:
    made = list[Plans]()

    def executor(
        plans: Plans, begins: Callable[[Job], None], engine_of: Callable[[Job], str]
    ) -> AbstractContextManager[Executor]:
        @contextmanager
        def opened() -> Iterator[Executor]:
            made.append(plans)
            yield _OneByOne(plans, begins, fakes)

        return opened()

    jobs = jobs_of(tmp_path, [1, 2, 3])
    run(tmp_path, jobs[:1])
    with Session(plans_for(tmp_path), executor=executor) as each:
        told = [(number_of(o), o.status) for o in each.run(jobs) if isinstance(o, Outcome)]
        each.stop()
        assert list(each.run(jobs_of(tmp_path, [4]))) == []
    assert told == [(1, Status.CACHED), (2, Status.OK), (3, Status.OK)]
    assert (made[0].manner.tag, made[0].manner.durable) == ("run", True)
    assert [line["name"] for line in lines_of(tmp_path, "begin")] == ["v1.nii", "v2.nii", "v3.nii"]


def test_an_observer_hears_of_beginnings_and_steps(tmp_path: Path, fakes: FakeSegmenters) -> None:
    heard = list[str]()

    class Hears(Nobody):
        def begins(self, job: Job) -> None:
            heard.append(job.name)

        def task(self, stage: str, volume: str, start: float, stop: float) -> None:
            heard.append(stage)

    with Session(plans_for(tmp_path), Hears()) as each:
        list(each.run(jobs_of(tmp_path, [1])))
    assert heard[heard.index("v1.nii") :] == ["v1.nii", "read", "prepare", "infer", "finish", "write"]
