from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.cohort import work
from fastseg.cohort.fingerprints import Fingerprint, file_digest
from fastseg.cohort.job import Job
from fastseg.cohort.work import Manner, Work, segment_file
from fastseg.errors import InputError, OutputError
from fastseg.options import Options
from tests.phantom_files import files_below, save, voxels_of
from tests.unit.cohort.fake_segmenters import FakeSegmenters, job_of, jobs_of, tripled, volume_file

_ALL = Manner(kinds=("mask", "sidecar", "centerline"))


def work_of(job: Job, manner: Manner = _ALL, **how: Any) -> Work:
    return Work(job, manner, FakeSegmenters(**how))  # type: ignore[arg-type]


def test_all_steps_together_write_the_files_that_are_wanted_and_no_others(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, [1])
    outcome = segment_file(work_of(job))
    assert str(outcome.status) == "ok"
    assert files_below(job.outputs.folder) == ["v1_centerline.nii", "v1_seg.json", "v1_seg.nii"]
    expected = tripled(voxels_of(job.source).astype(np.float32))
    np.testing.assert_array_equal(voxels_of(job.outputs.mask), expected)


def test_an_outcome_holds_the_digests_of_what_was_read_and_written(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, [1])
    outcome = segment_file(work_of(job))
    assert outcome.record["fingerprints"] == {"input": Fingerprint.of(job.source)}
    assert outcome.record["outputs"] == {
        "mask": file_digest(job.outputs.mask),
        "sidecar": file_digest(job.outputs.sidecar),
        "centerline": file_digest(job.outputs.centerline),
    }
    record = json.loads(job.outputs.sidecar.read_text())["Fastseg"]
    assert record["InputSha256"] == file_digest(job.source)
    assert set(outcome.seconds) == {"read", "predict", "write"}


def test_a_flagged_result_says_why(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, [1])
    outcome = segment_file(work_of(job, flags=lambda options, number: ("holes", "short")))
    assert (str(outcome.status), outcome.flags) == ("ok_flagged", ("holes", "short"))
    assert outcome.notes == ("it is holes", "it is short")


@pytest.mark.parametrize("step", ["prepare", "infer", "finish"])
def test_a_step_that_fails_is_an_outcome_and_leaves_nothing(tmp_path: Path, step: str) -> None:
    def fail(at: str, numbers: list[int]) -> None:
        if at == step:
            raise InputError(f"{job.source}: is odd; mend it")

    (job,) = jobs_of(tmp_path, [1])
    outcome = segment_file(work_of(job, on=fail))
    assert (str(outcome.status), outcome.message) == ("bad_input", "is odd; mend it")
    assert not job.outputs.folder.exists()


def test_a_volume_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = jobs_of(tmp_path, [1])
    read_volume = work.read_volume

    def changes(path: Path, **how: Any) -> Any:
        found = read_volume(path, **how)
        volume_file(path, number=7)
        return found

    monkeypatch.setattr(work, "read_volume", changes)
    outcome = segment_file(work_of(job))
    assert str(outcome.status) == "bad_input"
    assert outcome.message == "changed while it was read; run it again when it is complete"
    # Known again would mean that a later run believes to have seen the new content.
    assert outcome.record["fingerprints"] == {}


def test_a_volume_that_goes_away_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = jobs_of(tmp_path, [1])
    read_volume = work.read_volume

    def vanishes(path: Path, **how: Any) -> Any:
        found = read_volume(path, **how)
        path.unlink()
        return found

    monkeypatch.setattr(work, "read_volume", vanishes)
    outcome = segment_file(work_of(job))
    assert str(outcome.status) == "bad_input"
    assert outcome.message == "went away while it was read (No such file or directory); run it again"


def test_a_bad_file_is_known_again_by_its_digest(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, [1])
    job.source.write_bytes(b"no volume")
    outcome = segment_file(work_of(job))
    assert str(outcome.status) == "bad_input"
    assert outcome.record["fingerprints"] == {"input": Fingerprint.of(job.source)}


def test_a_centerline_is_read_and_known_again_too(tmp_path: Path) -> None:
    source, line = volume_file(tmp_path / "v1.nii", 1), volume_file(tmp_path / "line.nii", 2)
    seen: list[Any] = []
    job = job_of(source, tmp_path / "out", centerline=line)
    each = work_of(job)
    each.read()
    prepare = each.segmenter.prepare
    each.segmenters.of = lambda options: segmenter  # type: ignore[method-assign]
    segmenter: Any = type("S", (), {"prepare": lambda self, v, c: seen.append(c) or prepare(v, c)})()
    each.prepare()
    assert int(seen[0].voxels[0, 0, 0]) == 2
    assert each.fingerprints == {"input": Fingerprint.of(source), "centerline": Fingerprint.of(line)}


def test_a_frame_of_a_4d_file_is_taken(tmp_path: Path) -> None:
    voxels = np.stack([np.full((4, 4, 3), number, np.uint8) for number in (1, 2, 3)], axis=-1)
    source = save(tmp_path / "v.nii", voxels, np.eye(4))
    for frame, value in ((2, 9), ("mean", 6)):
        job = job_of(source, tmp_path / str(frame), frame=frame)
        assert str(segment_file(work_of(job)).status) == "ok"
        assert (voxels_of(job.outputs.mask) == value).all()


def test_what_was_given_up_does_not_appear_any_more(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, [1])
    each = work_of(job)
    each.read()
    each.prepare()
    assert each.prepared is not None
    each.finish([tripled(batch) for batch in each.prepared.question.batches])
    each.cancelled = True
    with pytest.raises(OutputError, match="was given up"):
        each.write()
    assert not job.outputs.folder.exists()


def test_after_a_reset_everything_is_forgotten_but_the_job(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, [1])
    each = work_of(job)
    each.read()
    each.prepare()
    each.inferred = 3.0
    each.reset()
    assert (each.prepared, each.fingerprints, each.inferred, each.job) == (None, {}, 0.0, job)
    assert each.seconds() == {}
    assert str(segment_file(each).status) == "ok"


def test_voxels_are_let_go_of_when_the_crops_are_cut(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, [1])
    for manner, kept in ((Manner(), False), (Manner(rescue=True), True), (Manner(("mask", "overlay")), True)):
        each = work_of(job, manner)
        each.read()
        each.prepare()
        assert (each._volume is not None) == kept


def test_a_result_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    source = volume_file(tmp_path / "v1.nii")
    (tmp_path / "out").write_text("a file")
    outcome = segment_file(work_of(job_of(source, tmp_path / "out")))
    assert str(outcome.status) == "error"
    assert outcome.message.endswith("choose another output folder")


def test_soft_results_and_their_options_stand_in_the_sidecar(tmp_path: Path) -> None:
    source = volume_file(tmp_path / "v1.nii")
    job = job_of(source, tmp_path / "out", Options(contrast="t2", soft=True))
    segment_file(work_of(job))
    record = json.loads(job.outputs.sidecar.read_text())["Fastseg"]
    assert (record["Contrast"], record["Soft"]) == ("t2", True)
