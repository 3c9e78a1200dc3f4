"""What each process of a fleet may take, and what it leaves of a volume that killed it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastseg.cohort.fleet import places as fleet_places
from fastseg.cohort.fleet.places import Sent, places_for
from fastseg.cohort.memory import rss_bytes
from fastseg.engines.compute import Compute
from fastseg.errors import OptionError
from tests.unit.cohort.fake_fleet import CPU, fake_jobs, plans_of

GPUS = [Compute(device="cuda:0"), Compute(device="cuda:1")]


def test_workers_and_memory_are_divided_among_the_processes(tmp_path: Path) -> None:
    places = places_for([CPU, CPU, Compute(device="cuda:1")], plans_of(tmp_path, workers=4, volumes=7))
    limits = [place.share.limits for place in places]
    assert [each.workers for each in limits] == [2, 1, 1]
    assert [each.volumes for each in limits] == [3, 2, 2]
    assert 3 * limits[0].memory == pytest.approx(20e9 - rss_bytes(), rel=0.05)
    assert [place.label for place in places] == ["cpu (1)", "cpu (2)", "cuda:1"]
    assert [place.share.manner.tag for place in places] == ["run-0", "run-1", "run-2"]


def test_each_process_has_a_worker_where_there_are_fewer_than_processes(tmp_path: Path) -> None:
    places = places_for(GPUS, plans_of(tmp_path, workers=1))
    assert [place.share.limits.workers for place in places] == [1, 1]
    assert [place.share.limits.volumes for place in places] == [0, 0]  # whatever suits the workers


def test_too_little_memory_for_so_many_processes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_places, "rss_bytes", lambda: 300_000_000)
    plans = plans_of(tmp_path, memory=1_200_000_000)
    with pytest.raises(OptionError, match=r"450 MB for each of 2 processes .* --mem-gb, or name fewer GPUs"):
        places_for(GPUS, plans)


def test_only_what_was_written_since_the_beginning_is_taken_back(tmp_path: Path) -> None:
    sent = Sent(fake_jobs(tmp_path, 1)[0])
    outputs = sent.job.outputs
    outputs.folder.mkdir()
    outputs.mask.write_bytes(b"of an earlier run")
    outputs.csa.write_bytes(b"of an earlier run")
    sent.begin(("mask", "sidecar", "csa"))
    for path in (outputs.sidecar, outputs.csa):  # the mask comes last
        new = path.with_name("new")
        new.write_bytes(b"of a process that died")
        new.replace(path)
    sent.begin(("mask", "sidecar", "csa"))  # alone
    sent.take_back()
    assert [path.name for path in outputs.folder.iterdir()] == [outputs.mask.name]
    assert outputs.mask.read_bytes() == b"of an earlier run"
