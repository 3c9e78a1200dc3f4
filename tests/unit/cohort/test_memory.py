from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.cohort import memory
from fastseg.cohort.memory import budget_bytes, needed_bytes, programs_bytes
from fastseg.errors import OptionError
from fastseg.nifti import probe_volume
from fastseg.options import Options
from tests.phantom_files import save, save_phantom, voxels_of

# What volumes add to a process that has everything loaded, at their peak. What the allocator kept of the ones
# before is given back first, so that it cannot stand in for memory that a volume needs.
_MEASURE = """
import ctypes, json, sys
from pathlib import Path
from fastseg.cohort.job import Job
from fastseg.cohort.memory import needed_bytes, rss_bytes, tame_allocator
from fastseg.cohort.segmenters import Segmenters
from fastseg.cohort.work import Manner, Work, segment_file
from fastseg.nifti import probe_volume
from fastseg.options import Options
from fastseg.outputs import outputs_of

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

tame_allocator()
found = []
with Segmenters() as segmenters:
    for path, frame, options, kinds in json.loads(sys.argv[1]):
        source, options = Path(path), Options(**options)
        job = Job(source.name, source, outputs_of(source.parent / "out" / "seg.nii.gz"), options, frame=frame)
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held now
        before = peak()
        outcome = segment_file(Work(job, Manner(tuple(kinds)), segmenters))
        needed = needed_bytes(probe_volume(source, frame), options, frame=frame)
        found.append([str(outcome.status), outcome.message, peak() - before, needed])
print(json.dumps(found))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is told by Linux only")
def test_no_volume_takes_more_than_what_is_set_aside_for_it(tmp_path: Path) -> None:
    small = save_phantom(tmp_path / "small.nii.gz", n_slices=6)
    middle = save_phantom(tmp_path / "middle.nii.gz", n_slices=40, shape=(100, 110))
    # Voxels of 1 mm are four of the grid of OptiC.
    large = save_phantom(tmp_path / "large.nii.gz", n_slices=60, shape=(180, 180), zooms=(1, 1, 1))
    frames = save(tmp_path / "frames.nii.gz", np.stack([voxels_of(large)] * 3, axis=-1), np.eye(4))
    cnn, svm = {"contrast": "t2", "detector": "cnn"}, {"contrast": "t2", "detector": "svm"}
    some, every = ["mask", "sidecar"], ["mask", "sidecar", "centerline", "overlay", "csa"]
    warm: list[list[Any]] = [
        [str(small), None, options | more, every] for options in (cnn, svm) for more in ({}, {"kernel": "3d"})
    ]
    cases: list[list[Any]] = [
        [str(path), None, options, some] for path in (middle, large) for options in (cnn, svm)
    ]
    cases += [
        [str(large), None, cnn | {"soft": True}, every],
        [str(large), None, svm | {"soft": True}, every],
    ]
    cases += [[str(frames), "mean", cnn, some]]
    program = subprocess.run(
        [sys.executable, "-c", _MEASURE, json.dumps(warm + cases)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "PermissionError" in program.stderr:
        pytest.skip("the system does not let a process reset its peak")
    assert program.returncode == 0, program.stderr
    for case, (status, message, taken, needed) in zip(
        cases, json.loads(program.stdout)[len(warm) :], strict=True
    ):
        assert status in ("ok", "ok_flagged"), (case, message)
        assert taken <= needed, case
        assert needed <= 5 * taken, case  # or a budget would hold nothing


def facts_of(tmp_path: Path, dtype: Any = np.int16, zooms: float = 1.0, frames: int = 1) -> Any:
    shape = (40, 50, 60) if frames == 1 else (40, 50, 60, frames)
    return probe_volume(
        save(tmp_path / "v.nii", np.zeros(shape, dtype), np.diag([zooms, zooms, 1, 1])),
        None if frames == 1 else "mean",
    )


def test_larger_numbers_and_voxels_need_more(tmp_path: Path) -> None:
    plain, cnn = Options(detector="svm"), Options(detector="cnn")
    base = needed_bytes(facts_of(tmp_path), plain)
    assert needed_bytes(facts_of(tmp_path), cnn) < base
    assert needed_bytes(facts_of(tmp_path, np.float64), plain) > base
    assert needed_bytes(facts_of(tmp_path, zooms=2.0), plain) > base


def test_a_rescue_may_come_to_any_detector(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    cnn, svm, given = (Options(detector=each) for each in ("cnn", "svm", "file"))
    assert needed_bytes(facts, cnn, rescue=True) == needed_bytes(facts, svm)
    assert needed_bytes(facts, given, rescue=True) == needed_bytes(facts, given)


def test_one_frame_of_many_needs_as_much_as_a_file_of_one(tmp_path: Path) -> None:
    options = Options(detector="cnn")
    one, many = needed_bytes(facts_of(tmp_path), options), facts_of(tmp_path, frames=5)
    assert needed_bytes(many, options, frame=2) == one
    assert needed_bytes(many, options, frame="mean") > one


def test_a_budget_is_what_the_user_says() -> None:
    assert budget_bytes(2.5) == 2_500_000_000


@pytest.mark.parametrize("gigabytes", [0.0, 0.49, -1.0, float("nan")])
def test_a_budget_that_does_not_hold_the_programs_is_refused(gigabytes: float) -> None:
    with pytest.raises(OptionError, match=r"--mem-gb .*; give 0\.5 or more"):
        budget_bytes(gigabytes)


def test_without_a_word_a_budget_is_four_fifths_of_what_is_free_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_available", lambda: 7_000_000_000)
    monkeypatch.setattr(memory, "rss_bytes", lambda: 1_000_000_000)
    monkeypatch.setattr(memory, "memory_bytes", lambda: 100_000_000_000)
    assert budget_bytes() == 6_400_000_000
    monkeypatch.setattr(memory, "memory_bytes", lambda: 5_000_000_000)  # of the container
    assert budget_bytes() == 4_000_000_000


def test_programs_count_with_what_they_will_hold_when_all_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "rss_bytes", lambda: 100)
    assert programs_bytes() > 200_000_000
    monkeypatch.setattr(memory, "rss_bytes", lambda: 10**9)
    assert programs_bytes() == 10**9


_FREE_AND_LOOK = """
import numpy as np
from fastseg.cohort.memory import rss_bytes, tame_allocator

def hold():
    return [np.ones(2_000_000) for _ in range(20)], bytearray(100_000)  # what lies above keeps all below it

np.ones(3_900_000)  # 31 MB: from when they are freed on, glibc keeps such arrays by itself
tame_allocator()
before = rss_bytes()
arrays, above = hold()
print(rss_bytes() - before)
arrays.clear()
print(rss_bytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_arrays_go_back_to_the_system() -> None:
    # In a process of its own: what else this one has may go or come back meanwhile.
    done = subprocess.run([sys.executable, "-c", _FREE_AND_LOOK], capture_output=True, text=True, check=True)
    held, left = map(int, done.stdout.split())
    assert held > 250_000_000
    assert left < 50_000_000  # 320 MB where the allocator is not tamed
