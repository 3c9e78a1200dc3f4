"""What fastseg bench measures, on phantoms that it draws itself. Seconds are those of the clock."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastseg import __version__
from fastseg.cli.info import version_of
from fastseg.cli.shared import usable_threads

if TYPE_CHECKING:
    from fastseg.networks.network import Network
    from fastseg.volume import Volume

__all__ = ["Effort", "measure_machine"]

_VERSIONS = ("numpy", "numba", "scipy", "onnxruntime", "openvino", "tensorrt", "isal")
# Voxels from side to side, back to front, and slices of the phantom of kernels and steps; mm.
_SHAPE, _SLICES, _ZOOMS = (128, 128), 48, (1.0, 1.0, 2.0)
# Phantoms of the cohort. Each is there several times: to draw one takes longer than to segment it.
_CONTRASTS = ("t1", "t2", "t2s", "dwi")
_COHORT_SLICES = 32
# Sides of whole slices for detectors, and depth of blocks where a network takes any.
_WHOLE, _DEPTH = 144, 48
# Crops, whole slices and blocks that an engine gets at once: enough for several threads.
_CROPS, _WHOLES, _BLOCKS = 48, 16, 2


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Parameters
    ----------
    seconds : for each number, warm-up not counted
    repetitions : at least
    volumes : of the cohort
    """

    seconds: float = 1.0
    repetitions: int = 5
    volumes: int = 24

    @classmethod
    def little(cls) -> Effort:
        """Less, for a first impression."""
        return cls(seconds=0.2, repetitions=3, volumes=8)

    def median(self, work: Callable[[], object]) -> tuple[float, int]:
        """Median of the seconds that some work takes, and how often it was done after the first time."""
        work()
        taken: list[float] = []
        began = time.perf_counter()
        while len(taken) < self.repetitions or time.perf_counter() - began < self.seconds:
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
        return statistics.median(taken), len(taken)


def measure_machine(effort: Effort, folder: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything.

    Parameters
    ----------
    folder : for files, empty
    tell : gets a word about what is measured now

    Returns
    -------
    facts : as JSON values
    """
    from fastseg.phantom import make_phantom

    facts: dict[str, Any] = {"machine": _machine()}
    tell("kernels")
    image, mask = make_phantom("t2", shape=_SHAPE, n_slices=_SLICES, zooms=_ZOOMS)
    facts["kernels"] = [_kernel(effort, *each) for each in _kernels(image, mask, folder)]
    tell("networks")
    facts["networks"] = list(_networks(effort))
    tell("one volume")
    facts["volume"] = _volume(effort, image, folder)
    tell("cohort")
    facts["cohort"] = _cohort(effort, folder)
    facts["peak_mb"] = _peak_mb()
    return facts


def _machine() -> dict[str, Any]:
    from fastseg.nifti_header import memory_bytes

    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    versions = {name: version_of(name) for name in _VERSIONS}
    return {
        "processor": model[1] if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": usable_threads(most=None),
        "memory_gb": round(memory_bytes() / 1e9, 1),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "fastseg": __version__,
        "versions": {name: version for name, version in versions.items() if version},
        "date": datetime.date.today().isoformat(),
    }


_Kernel = tuple[str, int, Callable[[], object]]


def _kernels(image: Volume, mask: Volume, folder: Path) -> Iterator[_Kernel]:
    """Name, voxels and work of everything that has a row among the kernels; each on one thread."""
    import numpy as np

    from fastseg.curve import trace_curve
    from fastseg.kernels.components import keep_cord_slices
    from fastseg.networks.packs import find_pack, read_svm
    from fastseg.nifti import new_template, read_volume, write_volume
    from fastseg.optic import optic_centerline, prepare_uint16, svm_score_map
    from fastseg.resampling import as_slices, resample_in_plane, working_grid
    from fastseg.volume import SCT_RPI

    native = image.reoriented(SCT_RPI)
    slices, working = as_slices(native), working_grid(native.grid)
    detector = read_svm(find_pack("default").svm("t2"))
    stretched, zooms = prepare_uint16(native.voxels), native.grid.zooms
    heat = svm_score_map(stretched, zooms, detector)
    probabilities = np.ascontiguousarray(as_slices(mask.reoriented(SCT_RPI))[:, 32:96, 32:96])
    n_working = working.shape[0] * working.shape[1] * working.shape[2]
    template, path, written = new_template(image.grid), folder / "image.nii.gz", folder / "mask.nii.gz"
    write_volume(image.voxels, template, path)
    yield "resample to 0.5 mm in plane", n_working, lambda: resample_in_plane(slices, working)
    yield "HOG + SVM score map", slices.size, lambda: svm_score_map(stretched, zooms, detector)
    yield "smoothest curve through it", heat.size, lambda: trace_curve(heat, zooms)
    yield "OptiC, the whole of it", slices.size, lambda: optic_centerline(native.voxels, zooms, detector)
    yield (
        "one object a slice, holes filled",
        probabilities.size,
        lambda: keep_cord_slices(probabilities, np.float32(0.5)),
    )
    yield "read .nii.gz", slices.size, lambda: read_volume(path)
    yield "write mask .nii.gz", slices.size, lambda: write_volume(mask.voxels, template, written)


def _kernel(effort: Effort, name: str, voxels: int, work: Callable[[], object]) -> dict[str, Any]:
    seconds, repetitions = effort.median(work)
    return {
        "name": name,
        "voxels": int(voxels),
        "milliseconds": round(seconds * 1e3, 3),
        "mvx_per_second": round(voxels / seconds / 1e6, 1),
        "repetitions": repetitions,
    }


def _networks(effort: Effort) -> Iterator[dict[str, Any]]:
    """Images per second of every network of the default pack, by every engine."""
    from fastseg.engines.compute import BACKENDS, Compute
    from fastseg.engines.select import open_engine
    from fastseg.errors import EngineError
    from fastseg.networks.packs import find_pack

    cores = usable_threads(most=None)
    ways = [(name, precision) for name, each in BACKENDS.items() for precision in each.precisions]
    for backend, precision in ways:
        for network in find_pack("default").networks:
            row: dict[str, Any] = {
                "backend": backend,
                "precision": precision,
                "network": network.path.stem,
                "role": str(network.role),
            }
            batch, items, item = _batch(network)
            row |= {"item": item, "items": items, "mmacs": network.macs_millions}
            try:
                for key, threads in (("one_thread", 1), ("all_threads", cores)):
                    compute = Compute(backend, precision=precision, threads=threads)
                    with open_engine(network, compute) as engine:
                        seconds, _ = effort.median(lambda: engine.infer(batch))  # noqa: B023  # at once
                        row |= {"engine": engine.name, f"per_second_{key}": round(items / seconds, 1)}
            except EngineError as error:
                row["error"] = str(error)
            yield row


def _batch(network: Network) -> tuple[Any, int, str]:
    """Noise of a shape that a network takes, how many items it is, and what one is."""
    import numpy as np

    from fastseg.networks.network import Role

    sides = [side or _WHOLE for side in network.spatial[:2]]
    size = " x ".join(map(str, sides))
    if network.role is Role.SEGMENT_3D:
        depth = network.spatial[2] or _DEPTH
        shape, item = (_BLOCKS, 1, *sides, depth), f"slice of a block, {size}"
    elif network.role is Role.DETECT_SLICES:
        shape, item = (_WHOLES, 1, *sides), f"whole slice, {size}"
    else:
        shape, item = (_CROPS, 1, *sides), f"crop, {size}"
    noise = np.random.default_rng(0).random(shape, np.float32)
    return noise, int(noise.size // (sides[0] * sides[1])), item


def _volume(effort: Effort, image: Volume, folder: Path) -> dict[str, Any]:
    """Wall seconds of every step of one volume, from file to file, with all threads that a run takes."""
    from fastseg.cohort.job import Job
    from fastseg.cohort.segmenters import Segmenters
    from fastseg.cohort.work import Manner, Work, segment_file
    from fastseg.engines.compute import Compute
    from fastseg.nifti import new_template, write_volume
    from fastseg.options import Options
    from fastseg.outputs import outputs_of

    source, outputs = folder / "one.nii.gz", outputs_of(folder / "one" / "one_seg.nii.gz")
    write_volume(image.voxels, new_template(image.grid), source)
    job = Job(source.name, source, outputs, Options(contrast="t2"))
    threads = usable_threads()
    steps: dict[str, list[float]] = {}

    def once() -> None:
        work = Work(job, Manner(("mask", "sidecar")), segmenters)
        segment_file(work)
        for span in work.recorder.spans:
            if span.depth == 0:
                steps.setdefault(span.name, []).append(span.seconds)

    with Segmenters(compute=Compute(threads=threads)) as segmenters:
        seconds, repetitions = effort.median(once)
        engine = segmenters.of(job.options).engine.name
    return {
        "shape": [*_SHAPE, _SLICES],
        "zooms_mm": list(_ZOOMS),
        "threads": threads,
        "engine": engine,
        "seconds": round(seconds, 4),
        "steps": {name: round(statistics.median(each[1:]), 4) for name, each in steps.items()},
        "repetitions": repetitions,
    }


def _cohort(effort: Effort, folder: Path) -> dict[str, Any]:
    """Wall seconds of a cohort with one worker and with all, ledger, sidecars and all."""
    from fastseg.cohort.memory import tame_allocator
    from fastseg.cohort.plan.planning import Wanted, plan
    from fastseg.nifti import new_template, write_volume
    from fastseg.options import Options
    from fastseg.phantom import make_phantom

    volumes = folder / "volumes"
    volumes.mkdir()
    for number, contrast in enumerate(_CONTRASTS):
        image, _ = make_phantom(contrast, n_slices=_COHORT_SLICES, seed=number)
        for copy in range(number, effort.volumes, len(_CONTRASTS)):
            write_volume(image.voxels, new_template(image.grid), volumes / f"phantom-{copy:02d}.nii.gz")
    tame_allocator()  # as fastseg run does
    kinds: Any = ("mask", "sidecar")
    cores = usable_threads(most=None)
    runs = []
    for workers in dict.fromkeys((1, cores)):
        jobs = plan((volumes,), folder / f"workers-{workers}", Wanted(Options(), kinds=kinds)).jobs
        runs.append(_run(jobs, volumes, folder / f"workers-{workers}", workers))
    return {"volumes": effort.volumes, "shape": [64, 64, _COHORT_SLICES], "runs": runs}


def _run(jobs: Any, root: Path, out: Path, workers: int) -> dict[str, Any]:
    """Run a cohort once; networks are opened before the clock starts."""
    from fastseg.cohort.memory import budget_bytes
    from fastseg.cohort.session import Plans, Session
    from fastseg.cohort.stream.stream import Limits
    from fastseg.cohort.work import Manner

    limits = Limits(workers=workers, memory=budget_bytes())
    with Session(Plans(out=out, root=root, manner=Manner(("mask", "sidecar")), limits=limits)) as session:
        wall, cpu = time.perf_counter(), time.process_time()
        succeeded = sum(outcome.status.success for outcome in session.run(jobs))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "workers": workers,
        "succeeded": succeeded,
        "seconds": round(wall, 3),
        "cpu_seconds": round(cpu, 3),
        "volumes_per_hour": round(3600 * len(jobs) / wall),
    }


def _peak_mb() -> int:
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6)
