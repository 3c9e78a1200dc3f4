"""The shipped networks: a result is the same, bit for bit, whatever else is in the stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fastseg.cohort.job import Job
from fastseg.cohort.segmenters import Segmenters
from fastseg.cohort.work import Manner, Work, segment_file
from fastseg.options import Options
from tests.phantom_files import save_phantom
from tests.unit.cohort.fake_segmenters import job_of, told_by

_MANNER = Manner(kinds=("mask", "sidecar", "centerline", "csa"))
# One more slice than a block holds at once; less than a batch; sizes that are no multiple of anything.
_PHANTOMS = {
    "one": {"n_slices": 3, "seed": 1},
    "two": {"n_slices": 13, "seed": 2, "shape": (50, 61)},
    "three": {"n_slices": 8, "seed": 3, "zooms": (0.8, 0.8, 4.0)},
    "four": {"n_slices": 5, "seed": 4, "axcodes": ("P", "S", "R")},
}
_OPTIONS = {
    "2d": Options(contrast="t2"),
    "soft": Options(contrast="t2", soft=True),
    "3d": Options(contrast="t2", kernel="3d"),
    "light": Options(kernel="2d-light"),
}


@pytest.fixture(scope="module")
def segmenters() -> Iterator[Segmenters]:
    with Segmenters() as opened:
        yield opened


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("phantoms")
    return {name: save_phantom(folder / f"{name}.nii.gz", **how) for name, how in _PHANTOMS.items()}


def jobs_for(sources: dict[str, Path], out: Path) -> list[Job]:
    return [
        job_of(source, out / kind, options)
        for kind, options in _OPTIONS.items()
        for source in sources.values()
    ]


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; of sidecars, all but the times."""
    content = {}
    for path in sorted(folder.rglob("*.*")):
        content[path.relative_to(folder).as_posix()] = path.read_bytes()
        if path.suffix == ".json":
            record = json.loads(path.read_text())
            del record["Fastseg"]["Seconds"]
            content[path.relative_to(folder).as_posix()] = json.dumps(record).encode()
    return content


@pytest.fixture(scope="module")
def alone(
    sources: dict[str, Path], segmenters: Segmenters, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What each volume gives when it is the only one."""
    out = tmp_path_factory.mktemp("alone")
    for job in jobs_for(sources, out):
        outcome = segment_file(Work(job, _MANNER, segmenters))
        assert outcome.status in ("ok", "ok_flagged"), outcome.message
    return content_of(out)


@pytest.mark.parametrize(
    ("workers", "volumes", "flush_seconds", "order"),
    [(1, 8, 10.0, 1), (2, 3, 0.02, 2), (5, 8, 0.0, 3)],
)
def test_files_are_the_same_for_any_number_of_workers_and_any_neighbours(
    sources: dict[str, Path],
    segmenters: Segmenters,
    alone: dict[str, bytes],
    tmp_path: Path,
    workers: int,
    volumes: int,
    flush_seconds: float,
    order: int,
) -> None:
    jobs = jobs_for(sources, tmp_path)
    shuffled = [jobs[i] for i in np.random.default_rng(order).permutation(len(jobs))]
    told = told_by(
        segmenters, shuffled, manner=_MANNER, workers=workers, volumes=volumes, flush_seconds=flush_seconds
    )
    assert len(told) == len(jobs)
    assert content_of(tmp_path) == alone


def test_a_volume_that_was_asked_about_image_by_image_has_the_same_files(
    sources: dict[str, Path], segmenters: Segmenters, alone: dict[str, bytes], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As after memory ran out, or after a neighbour's images broke a batch."""
    read, failed = Work.read, set[str]()

    def fail_once(self: Work) -> None:
        read(self)
        if self.job.name not in failed:
            failed.add(self.job.name)
            raise MemoryError

    monkeypatch.setattr(Work, "read", fail_once)
    jobs = [
        job_of(source, tmp_path / kind, _OPTIONS[kind])
        for kind in ("2d", "3d")
        for source in sources.values()
    ]
    told_by(segmenters, jobs, manner=_MANNER, workers=2)
    assert len(failed) == len(sources)
    assert content_of(tmp_path) == {
        name: each for name, each in alone.items() if name.startswith(("2d/", "3d/"))
    }
