"""fastseg whose cohorts go to two processes on the CPU, as they would to two GPUs, with a fault in these.

Called as ``python fleet_faulty.py FAULT[:ARGUMENT] WORDS...``; the words are those of ``fastseg``, the faults
those below and in tests/faults/cohort_faulty.py. Processes that are spawned import this file again, under
another name, and so get the fault; the parent does not.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.faults import cohort_faulty

_FAULT = "FASTSEG_TEST_FLEET_FAULT"


def nothing(_: str) -> None:
    """No fault."""


def dies_with_files_that_have_no_names(name: str) -> None:
    """Whenever it has written all files of one volume into their hidden folder."""
    cohort_faulty._after(
        cohort_faulty.work.Work,
        "_write_files",
        cohort_faulty._die,
        lambda volume, stage: volume.job.name == name,
    )


def dies_amid_the_names(name: str) -> None:
    """Whenever all files of one volume but its mask, which is the last, have got their names."""

    def is_last(path: Path, target: Path) -> bool:
        return path.name == f"{name}_seg.nii.gz" and Path(target).parent != path.parent

    cohort_faulty._before(Path, "replace", cohort_faulty._die, is_last)


def dies_at_once(_: str) -> None:
    """While it starts, as with a library of a driver that is broken."""
    cohort_faulty._die()


def loses_its_gpu(mark: str) -> None:
    """In the first process that starts, the driver refuses everything."""
    from fastseg.engines.cuda.failures import failure
    from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu

    def refuse(*_: object) -> None:
        raise failure("cuStreamSynchronize", "CUDA_ERROR_ILLEGAL_ADDRESS", 0)

    try:
        Path(mark).touch(exist_ok=False)
    except FileExistsError:
        return
    cohort_faulty._before(OnnxRuntimeCpu, "infer", refuse, lambda engine, batch: len(batch) > 0)


def starts_late(path: str) -> None:
    """Only when a file is there."""
    while not Path(path).exists():
        time.sleep(0.01)


def _as_a_fleet() -> None:
    from fastseg.cohort import session
    from fastseg.cohort.fleet.parent import open_fleet
    from fastseg.engines.compute import Compute

    whole, cpu = session.Session, Compute(device="cpu", engine="onnxruntime")

    class FleetSession(whole):  # type: ignore[misc, valid-type]
        def __init__(self, plans: Any, observer: Any = None, executor: Any = None) -> None:
            super().__init__(
                plans, observer, executor=lambda plans, begins, _: open_fleet([cpu, cpu], plans, begins)
            )

    session.Session = FleetSession  # type: ignore[misc]


if __name__ == "__mp_main__":
    fault, _, argument = os.environ[_FAULT].partition(":")
    (globals().get(fault) or getattr(cohort_faulty, fault))(argument)
elif __name__ == "__main__":
    os.environ[_FAULT] = sys.argv.pop(1)
    _as_a_fleet()
    cohort_faulty.program()
