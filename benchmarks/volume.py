"""Time one volume, from file to file: step by step in a warm process, and as a process of its own.

    python -m benchmarks.volume [--data DIR] [--case NAME]... [--repetitions N] [--out FILE]

Steps are CPU seconds of one thread and add up to the whole; `inference` is what the engine took, `gzip` what
isal took, and `everything_else` is the rest. Parts are inside steps. The yardstick is `benchmarks.baseline`.
"""

from __future__ import annotations

import gzip
import importlib
import inspect
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.inputs import VOLUMES, Inputs
from benchmarks.runner import Case, Commands, Target, main

# Functions that are timed inside the steps, by the module that defines them.
_PARTS = {
    "fastseg.resampling": ("as_slices", "resample_in_plane", "resample_onto"),
    "fastseg.intensity": ("check_signal", "finite_slices", "rescale_percentiles"),
    "fastseg.optic": ("prepare_uint16", "svm_score_map"),
    "fastseg.curve": ("trace_curve",),
    "fastseg.quality": ("ring_contrast",),
    "fastseg.cleanup": ("clean_slices", "clean_volume"),
}


def steps(volume: str, detector: str, inputs: Inputs) -> Case:
    """Every step of the Segmenter on one volume, with one way to find the centerline."""
    from fastseg.quirks import SCT_QUIRKS

    image, origin = inputs.volume(volume)
    drawn = inputs.centerline(volume) if detector == "file" else None
    pack, networks = ("default", "built-in") if detector == "cnn" else inputs.sct_pack()
    contenders: dict[str, Callable[[], object]] = {}
    for name, quirks in (("fastseg", None), ("fastseg, SCT's quirks", SCT_QUIRKS)):
        if quirks is None or detector != "cnn":
            target = inputs.work / f"{volume}-{detector}-{len(contenders)}.nii.gz"
            contenders[name] = _file_to_file(
                image, drawn, target, VOLUMES[volume].contrast, detector, pack, quirks
            )
    facts: dict[str, object] = {"input": origin, "networks": networks}
    n_voxels = int(np.prod(VOLUMES[volume].shape))
    limit = {"t2": 0.060, "lumbar": 0.550}.get(volume)
    targets = ()
    if limit and detector == "svm":
        targets = (Target("fastseg", "steps.everything_else", limit),)
    title = f"{volume}, {detector}"
    if drawn is None:
        return Case(title, n_voxels, contenders, facts, targets)

    from benchmarks import baseline
    from fastseg.networks.network import Role
    from fastseg.networks.packs import find_pack
    from fastseg.nifti import read_volume

    network = find_pack(pack).network(Role.SEGMENT_2D, VOLUMES[volume].contrast)
    if not network.channels_last:
        return Case(title, n_voxels, contenders, facts | {"missing": "a network with channels last"}, targets)
    threshold = network.thresholds[VOLUMES[volume].contrast]
    written = inputs.work / f"{volume}-baseline.nii.gz"
    work = partial(baseline.segment, image, drawn, written, network.path, threshold)
    theirs = work()
    contenders["fastseg, SCT's quirks"]()
    ours = read_volume(inputs.work / f"{volume}-{detector}-1.nii.gz")[0].voxels
    facts |= {"voxels_of_mask": int(theirs.sum()), "different_voxels": int((ours != theirs).sum())}
    return Case(
        title,
        n_voxels,
        contenders | {"numpy, scipy (SCT's way)": work},
        facts,
        targets,
        repetitions=3 if volume == "large" else None,
    )


def _file_to_file(
    image: Path, drawn: Path | None, target: Path, contrast: str, detector: str, pack: str | Path, quirks: Any
) -> Callable[[], dict[str, float]]:
    """Make the function that segments a file once, and gives CPU seconds by step."""
    from fastseg import Options, Segmenter
    from fastseg.nifti import read_volume, write_volume
    from fastseg.quirks import MENDED

    clock = _Clock()
    options = Options(contrast=contrast, detector=detector, quirks=quirks or MENDED)  # type: ignore[arg-type]
    segmenter = Segmenter(options, models=pack)
    segmenter.__enter__()  # open for the life of the process

    def once() -> dict[str, float]:
        clock.reset()
        with _listening(clock):
            start = time.process_time()
            volume, template = read_volume(image)
            centerline = read_volume(drawn)[0] if drawn else None
            read = time.process_time()
            result = segmenter.segment(volume, centerline)
            segmented = time.process_time()
            write_volume(result.mask.voxels, template, target)
            end = time.process_time()
        inference = sum(clock.inference.values())
        steps = {name: seconds - clock.inference.get(name, 0.0) for name, seconds in clock.steps.items()}
        gzip_seconds = unzip + zip_
        return {
            "read": read - start,
            **steps,
            "inference": inference,
            "write": end - segmented,
            "gzip": gzip_seconds,
            "everything_else": end - start - inference - gzip_seconds,
            **{f"part: {name}": seconds for name, seconds in clock.parts.items()},
        }

    unzip = zip_ = 0.0
    once()
    unzip, zip_ = _gzip_seconds([image, *([drawn] if drawn else [])], target)
    return once


class _Clock:
    """CPU seconds of steps, of inference inside them, and of their parts, for one volume."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.steps: dict[str, float] = {}
        self.inference: dict[str, float] = {}
        self.parts: dict[str, float] = {}
        self.step = ""

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time a step, as `fastseg.profiling.span` does."""
        self.step = name
        with _added(self.steps, name):
            yield

    def timing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as a part."""

        def timed(*arguments: Any, **options: Any) -> Any:
            with _added(self.parts, name):
                return function(*arguments, **options)

        return timed


@contextmanager
def _added(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.process_time()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - start


@contextmanager
def _listening(clock: _Clock) -> Iterator[None]:
    """Time steps, inference and parts, wherever their names were imported."""
    from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
    from fastseg.profiling import span

    infer = OnnxRuntimeCpu.infer

    def timed_infer(engine: OnnxRuntimeCpu, batch: Any) -> Any:
        with _added(clock.inference, clock.step):
            return infer(engine, batch)

    replaced: dict[Any, Any] = {span: clock.span}
    for module, names in _PARTS.items():
        for name in names:
            function = getattr(importlib.import_module(module), name)
            replaced[function] = clock.timing(name, function)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(OnnxRuntimeCpu, "infer", timed_infer))
        for module in [m for name, m in sys.modules.items() if name.startswith("fastseg.")]:
            for name, value in list(vars(module).items()):
                if inspect.isfunction(value) and value in replaced:
                    stack.enter_context(mock.patch.object(module, name, replaced[value]))
        yield


def _gzip_seconds(read: list[Path], written: Path) -> tuple[float, float]:
    """What isal alone takes for these files: median of seven."""
    from isal import igzip

    contents, mask = [path.read_bytes() for path in read], gzip.decompress(written.read_bytes())
    unzip, zip_ = [], []
    for _ in range(7):
        start = time.process_time()
        for content in contents:
            igzip.decompress(content)
        middle = time.process_time()
        igzip.compress(mask, 1)
        unzip.append(middle - start)
        zip_.append(time.process_time() - middle)
    return statistics.median(unzip), statistics.median(zip_)


_FASTSEG = [sys.executable, "-m", "fastseg"]


def help_page(_: Inputs) -> Commands:
    """From start to exit of the help page."""
    return Commands(
        "fastseg --help",
        {"fastseg": [*_FASTSEG, "--help"], "python -c pass": [sys.executable, "-c", "pass"]},
        targets=(Target("fastseg", "wall_seconds_median", 0.3),),
    )


def warm_start(inputs: Inputs) -> Commands:
    """`fastseg run` of the t2 volume, kernels compiled before."""
    image, origin = inputs.volume("t2")
    command = [
        *_FASTSEG,
        "run",
        str(image),
        "-c",
        "t2",
        "-o",
        str(inputs.work / "warm.nii.gz"),
        "--overwrite",
    ]
    imports = "import numpy, numba, nibabel, onnxruntime"
    return Commands(
        "fastseg run, t2, from start to exit",
        {"fastseg": command, f"python -c '{imports}'": [sys.executable, "-c", imports]},
        facts={"input": origin, "networks": "built-in"},
        targets=(Target("fastseg", "cpu_seconds_median", 1.5),),
    )


def first_start(inputs: Inputs) -> Commands:
    """`fastseg run` of the t2 volume with an empty kernel cache."""
    image, origin = inputs.volume("t2")
    cache = inputs.work / "empty-kernel-cache"
    cache.mkdir()
    command = [
        *_FASTSEG,
        "run",
        str(image),
        "-c",
        "t2",
        "-o",
        str(inputs.work / "first.nii.gz"),
        "--overwrite",
    ]
    return Commands(
        "fastseg run, t2, first start",
        {"fastseg": command},
        environment={"NUMBA_CACHE_DIR": str(cache)},
        facts={"input": origin, "networks": "built-in"},
        cold=True,
    )


def memory(pack: str, inputs: Inputs) -> Commands:
    """Peak memory of `fastseg run` on 320 x 320 x 64."""
    image, origin = inputs.volume("large")
    models, networks = ("default", "built-in") if pack == "cnn" else inputs.sct_pack()
    out = inputs.work / f"memory-{pack}.nii.gz"
    command = [*_FASTSEG, "run", str(image), "-c", "t2", "-o", str(out), "--overwrite"]
    command += ["--models", str(models), "--centerline", pack]
    return Commands(
        f"fastseg run, 320 x 320 x 64, {pack}",
        {"fastseg": command},
        facts={"input": origin, "networks": networks},
        targets=(Target("fastseg", "rss_mb_peak", 450),),
        repetitions=3,
    )


CASES: dict[str, Callable[[Inputs], Case | Commands]] = {
    **{
        f"{volume}-{detector}": partial(steps, volume, detector)
        for volume in VOLUMES
        for detector in ("svm", "cnn", "file")
    },
    "help": help_page,
    "warm-start": warm_start,
    "first-start": first_start,
    "memory-cnn": partial(memory, "cnn"),
    "memory-svm": partial(memory, "svm"),
}


if __name__ == "__main__":
    main(CASES, __doc__, "benchmarks.volume")
