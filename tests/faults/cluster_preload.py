"""Loaded by the workers of test clusters: volumes that kill their worker, or keep it waiting.

What a volume does stands in a file beside it: ``NAME.kills`` holds how many workers it kills, ``NAME.waits``
makes it wait until that file is gone. The process is really killed, in the middle of its task, and leaves
half a result behind, as it would while it writes. It waits for ``PID.known`` first: Dask does not start a
worker again that dies before its nanny has heard of its start.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from fastseg.cohort.cluster import worker as cluster_worker


def dask_setup(worker: Any) -> None:
    real = cluster_worker.segment

    def segment(duty: Any, key: str, job: Any, engine: str = "") -> Any:
        beside = job.source.parent / job.source.name.split(".")[0]
        kills, deaths = beside.with_suffix(".kills"), beside.with_suffix(".deaths")
        if kills.exists():
            died = len(deaths.read_bytes()) if deaths.exists() else 0
            if died < int(kills.read_text()):
                while not (job.source.parent / f"{os.getpid()}.known").exists():
                    time.sleep(0.02)
                deaths.write_bytes(b"x" * (died + 1))
                leave_half_a_result(job.outputs.folder, cluster_worker.stage_tag(duty, key))
                os.kill(os.getpid(), signal.SIGKILL)
        if beside.with_suffix(".waits").exists():
            beside.with_suffix(".began").touch()
            while beside.with_suffix(".waits").exists():
                time.sleep(0.02)
        return real(duty, key, job, engine)

    cluster_worker.segment = segment


def leave_half_a_result(folder: Path, tag: str) -> None:
    stage = folder / f".fastseg-{tag}-dead"
    stage.mkdir(parents=True, exist_ok=True)
    (stage / "half.nii.gz").write_bytes(b"half")
