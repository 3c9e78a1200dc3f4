"""What runs the networks on workers of a cluster: what runs them at the client, or nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fastseg.cohort.cluster.connection import open_cluster
from fastseg.cohort.job import Job, Outcome
from fastseg.cohort.segmenters import Segmenters
from fastseg.cohort.session import Plans
from fastseg.cohort.stream.stream import Told
from fastseg.cohort.work import Manner
from fastseg.compilation import load_kernels
from fastseg.engines.compute import Compute
from fastseg.options import Options
from fastseg.outputs import outputs_of
from tests.phantom_files import save_phantom

distributed = pytest.importorskip("distributed")

CPU = Compute(device="cpu", engine="onnxruntime")


def run(tmp_path: Path, engine: str) -> Told:
    """What comes of a volume whose network is run by an engine at the client."""
    load_kernels()
    job = Job(
        "v",
        save_phantom(tmp_path / "v.nii.gz"),
        outputs_of(tmp_path / "out" / "v_seg.nii"),
        Options(contrast="t2"),
    )
    plans = Plans(tmp_path / "out", tmp_path, Manner(tag="run"), compute=CPU)
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            dashboard_address=":0",
            memory_limit="20GB",  # of a thread it is that of the whole test run
            silence_logs=logging.CRITICAL + 1,
        ) as workers,
        open_cluster(workers.scheduler_address, plans, lambda job: None, lambda job: engine) as cluster,
    ):
        (told,) = cluster.run([job])
    return told


def test_worker_with_the_client_s_engine_does_the_volume(tmp_path: Path) -> None:
    with Segmenters(compute=CPU) as segmenters:
        engine = segmenters.of(Options(contrast="t2")).engine.name
    assert run(tmp_path, engine).status == "ok"


def test_worker_on_which_another_engine_would_run_does_not_do_it(tmp_path: Path) -> None:
    told = run(tmp_path, "openvino cpu bf16")
    assert isinstance(told, Outcome)
    assert told.status == "error"
    assert (
        "networks run on onnxruntime cpu fp32, at the client on openvino cpu bf16: name one" in told.message
    )
    assert not (tmp_path / "out").exists()
