from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastseg.cohort import resume
from fastseg.cohort.fingerprints import fingerprint_record
from fastseg.cohort.job import Job
from fastseg.cohort.ledger import Ledger, read_ledgers
from fastseg.cohort.resume import Decision, Resume, key_of, relative, remove_leftovers
from fastseg.cohort.work import Manner, Work, segment_file
from fastseg.options import Options
from fastseg.outputs import Kind
from fastseg.quirks import SCT_QUIRKS
from tests.unit.cohort.fake_segmenters import FakeSegmenters, job_of, jobs_of, volume_file

_KINDS: tuple[Kind, ...] = ("mask", "sidecar")


def key(job: Job, segmenters: FakeSegmenters | None = None, manner: Manner = Manner(_KINDS)) -> str:  # noqa: B008
    return key_of((segmenters or FakeSegmenters()).of(job.options), job, manner)


def done(job: Job, **segmenter: Any) -> None:
    """Work on a job and write down what came of it, as a session does."""
    out = job.outputs.folder
    with Ledger(out) as ledger:
        mask = relative(job.outputs.mask, out)
        ledger.begin(mask, job.name)
        outcome = segment_file(Work(job, Manner(_KINDS), FakeSegmenters(**segmenter)))  # type: ignore[arg-type]
        prints: Any = outcome.record["fingerprints"]
        facts = {"status": str(outcome.status), "message": outcome.message, "key": key(job)}
        outputs = outcome.record.get("outputs", {})
        ledger.end(mask, name=job.name, inputs=fingerprint_record(prints), outputs=outputs, **facts)


def decide(job: Job, kinds: tuple[Kind, ...] = _KINDS, changed_key: str = "", **how: Any) -> Decision:
    out = job.outputs.folder
    return Resume(read_ledgers(out), out, kinds, **how).decide(job, changed_key or key(job))


def status_of(*given: Any, **how: Any) -> str:
    """What came of a job that has not to be done again; "again" if it has."""
    outcome = decide(*given, **how).outcome
    return "again" if outcome is None else str(outcome.status)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (each,) = jobs_of(tmp_path, [1])
    done(each)
    return each


def test_what_is_done_and_still_there_is_cached_with_what_was_known_of_it(job: Job) -> None:
    outcome = decide(job).outcome
    assert outcome is not None
    assert str(outcome.status) == "cached"
    assert outcome.record == {"news": False, "earlier": "ok"}


def test_what_no_ledger_knows_has_to_be_done(tmp_path: Path) -> None:
    assert status_of(jobs_of(tmp_path, [1])[0]) == "again"


def test_an_input_that_changed_is_done_again(job: Job) -> None:
    volume_file(job.source, 2)
    assert status_of(job) == "again"


def test_an_input_that_was_only_touched_or_copied_back_is_the_same(job: Job) -> None:
    os.utime(job.source, (1, 1))
    assert status_of(job) == "cached"


def test_an_input_that_went_away_is_done_again_and_so_told_of(job: Job) -> None:
    job.source.unlink()
    assert status_of(job) == "again"


@pytest.mark.parametrize("kind", _KINDS)
def test_a_result_that_went_away_is_done_again(job: Job, kind: Kind) -> None:
    (path,) = job.outputs.of_kinds([kind])
    path.unlink()
    assert status_of(job) == "again"


@pytest.mark.parametrize("kind", _KINDS)
def test_a_result_that_somebody_edited_is_kept(job: Job, kind: Kind) -> None:
    (path,) = job.outputs.of_kinds([kind])
    path.write_bytes(path.read_bytes() + b"\0")
    outcome = decide(job).outcome
    assert outcome is not None
    assert str(outcome.status) == "error"
    assert outcome.message == (
        f"{path.name} was changed since fastseg wrote it: add --overwrite, or choose another output folder"
    )
    assert status_of(job, overwrite=True) == "again"


def test_a_file_that_no_ledger_knows_is_kept(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, [1])
    job.outputs.folder.mkdir()
    job.outputs.mask.write_bytes(b"drawn by hand")
    outcome = decide(job).outcome
    assert outcome is not None
    assert outcome.message.startswith("v1_seg.nii exists, and no ledger here knows it: add --overwrite")
    assert outcome.record == {"news": False}
    assert status_of(job, overwrite=True) == "again"


def test_a_dangling_link_in_place_of_a_result_is_kept_too(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, [1])
    job.outputs.folder.mkdir()
    job.outputs.mask.symlink_to(tmp_path / "nowhere")
    assert status_of(job) == "error"


def test_another_kind_of_result_is_made_later(job: Job) -> None:
    assert status_of(job, ("mask", "sidecar", "centerline")) == "again"
    assert status_of(job, ("mask",)) == "cached"
    job.outputs.centerline.write_bytes(b"drawn by hand")
    assert status_of(job, ("mask", "sidecar", "centerline")) == "error"


@pytest.mark.parametrize(
    "change",
    [
        {"contrast": "t1"},
        {"kernel": "3d"},
        {"detector": "svm"},
        {"threshold": 0.5},
        {"soft": True},
        {"brain": True},
        {"quirks": SCT_QUIRKS},
    ],
)
def test_other_options_are_done_again(job: Job, change: dict[str, Any]) -> None:
    assert status_of(replace(job, options=replace(job.options, **change))) == "again"


def test_the_options_that_the_key_holds_are_all_there_are() -> None:
    assert set(Options.__dataclass_fields__) == {
        "contrast", "kernel", "detector", "threshold", "soft", "brain", "quirks",
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [{"frame": 0}, {"frame": "mean"}, {"centerline": Path("line.nii")}],
    ids=lambda change: str(change),
)
def test_another_frame_or_centerline_is_done_again(job: Job, change: dict[str, Any]) -> None:
    assert status_of(replace(job, **change)) == "again"


def test_a_centerline_that_changed_is_done_again(tmp_path: Path) -> None:
    source, line = volume_file(tmp_path / "v1.nii", 1), volume_file(tmp_path / "line.nii", 2)
    job = job_of(source, tmp_path / "out", centerline=line)
    done(job)
    assert status_of(job) == "cached"
    volume_file(line, 3)
    assert status_of(job) == "again"


def test_another_version_engine_pack_or_way_of_rescue_is_another_key(
    job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = key(job)
    assert key(job) == before
    assert key(job, manner=Manner(_KINDS, rescue=True)) != before
    assert key(job, manner=Manner(("mask",), tag="run7", durable=True)) == before  # nothing of the result

    class Other(type(FakeSegmenters().engine)):  # type: ignore[misc]
        name = "tensorrt fp16"

    assert key(job, FakeSegmenters(engine=Other())) != before
    with monkeypatch.context() as patch:
        patch.setattr(resume, "__version__", "99")
        assert key(job) != before
    with monkeypatch.context() as patch:
        patch.setattr(resume, "pack_digest", lambda pack: "another")
        assert key(job) != before
    with monkeypatch.context() as patch:  # thresholds stand in pack.toml
        patch.setattr(resume, "file_digest", lambda path: "another")
        assert key(job) != before


def test_a_result_of_another_key_is_ours_to_replace(job: Job) -> None:
    assert status_of(job, changed_key="another") == "again"


def test_what_fails_by_itself_is_not_tried_again_unless_that_is_asked_for(tmp_path: Path) -> None:
    (lost,) = jobs_of(tmp_path / "a", [1])
    done(lost, flags=lambda options, number: None)
    (broken,) = jobs_of(tmp_path / "b", [1])
    broken.source.write_bytes(b"no volume")
    done(broken)
    for job, status in ((lost, "no_cord"), (broken, "bad_input")):
        outcome = decide(job).outcome
        assert outcome is not None
        assert str(outcome.status) == status
        assert outcome.message.endswith("(an earlier run; --retry-failed tries again)")
        assert status_of(job, retry_failed=True) == "again"
        assert status_of(job, changed_key="another") == "again"
    volume_file(broken.source, 1)
    assert status_of(broken) == "again"


def test_what_failed_for_other_reasons_is_tried_again(tmp_path: Path) -> None:
    def fail(step: str, numbers: list[int]) -> None:
        raise MemoryError if numbers == [1] else ZeroDivisionError

    for number in (1, 2):
        (job,) = jobs_of(tmp_path / str(number), [number])
        done(job, on=fail)
        assert status_of(job) == "again"


def test_results_of_before_a_failure_are_still_ours(job: Job) -> None:
    volume_file(job.source, 2)
    done(job, flags=lambda options, number: None)
    assert job.outputs.mask.exists()
    assert status_of(job) == "no_cord"
    volume_file(job.source, 3)
    assert status_of(job) == "again"


def test_a_volume_that_was_excluded_for_a_while_needs_no_overwrite(job: Job) -> None:
    mask = relative(job.outputs.mask, job.outputs.folder)
    with Ledger(job.outputs.folder) as ledger:
        ledger.end(mask, name=job.name, status="skipped", key=key(job), inputs={}, outputs={})
    assert status_of(job) == "again"


def test_an_excluded_volume_is_skipped_for_the_reason_that_was_given(job: Job) -> None:
    outcome = decide(replace(job, skip="excluded by qc_fail.yml")).outcome
    assert outcome is not None
    assert (str(outcome.status), outcome.message) == ("skipped", "excluded by qc_fail.yml")


def test_what_a_killed_run_began_is_done_again_and_suspect_the_second_time(job: Job) -> None:
    for times, suspect in ((1, False), (2, True)):
        with Ledger(job.outputs.folder) as ledger:
            ledger.begin("v1_seg.nii", job.name)
        job.outputs.mask.write_bytes(b"of the run that was killed")
        decision = decide(job)
        assert (times, decision.outcome, decision.suspect) == (times, None, suspect)
    done(job)
    assert decide(job).suspect is False


def test_a_file_that_cannot_be_looked_at_is_an_outcome(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(resume, "file_digest", refuse)
    outcome = decide(job, changed_key="given").outcome
    assert outcome is not None
    assert str(outcome.status) == "error"
    assert outcome.message == f"{job.outputs.mask}: cannot be looked at (Permission denied)"


def test_many_jobs_are_decided_in_their_order(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, range(1, 30))
    for job in jobs[::7]:
        done(job)
    out = jobs[0].outputs.folder
    decisions = list(Resume(read_ledgers(out), out, _KINDS).decide_all(jobs, key, 3))
    assert [decision.job for decision in decisions] == jobs
    assert [decision.outcome is not None for decision in decisions] == [k % 7 == 0 for k in range(29)]


def test_temporary_folders_of_a_killed_run_are_removed_and_no_others(tmp_path: Path) -> None:
    names = [".fastseg-run-a1", ".fastseg-run-b2", ".fastseg-other-c3", "fastseg-run-d4"]
    for name in names:
        (tmp_path / "sub" / name).mkdir(parents=True)
        (tmp_path / "sub" / name / "v_seg.nii").touch()
    (tmp_path / "elsewhere" / ".fastseg-run-e5").mkdir(parents=True)
    with Ledger(tmp_path) as ledger:
        ledger.begin("sub/v_seg.nii", "v.nii")
        ledger.begin("gone/v_seg.nii", "w.nii")
        assert remove_leftovers(read_ledgers(tmp_path), tmp_path, ledger.tag) == 2
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == names[2:]


def test_paths_outside_the_folder_stay_whole() -> None:
    assert relative(Path("/out/a b/c.nii"), Path("/out")) == "a b/c.nii"
    assert relative(Path("/other/c.nii"), Path("/out")) == "/other/c.nii"
