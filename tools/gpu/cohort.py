"""A cohort from files to files, on the GPU and on the CPU: how long it takes, and how the masks differ."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import ProcessUse, measure
from fastseg.comparison import compare_masks
from fastseg.nifti import read_volume
from tools.gpu.bench import Bench, NotHere
from tools.gpu.networks import precisions

__all__ = ["check"]


# In fp32 only voxels next to the threshold may change sides: one or two of a small mask of a thousand.
_LEAST_DICE = 0.998


@dataclass(frozen=True, slots=True)
class _Run:
    name: str
    precision: str
    folder: Path
    use: ProcessUse


def check(bench: Bench) -> None:
    """Run the same volumes on both, each into a folder of its own, and compare the masks."""
    bench.vendor()
    inputs = bench.settings.data or _phantoms(bench)
    out = bench.settings.work / "masks"
    # The first start compiles kernels, and builds what is not in the cache; neither is of the cohort.
    one = min(inputs.rglob("*.nii*"), default=None)
    if one is None:
        raise NotHere("no volume lies below the folder of --data: give one with .nii or .nii.gz files")
    reference: _Run | None = None
    for device, precision in _ways(bench):
        name = f"{device} {precision}"
        if not bench.time_for(f"the cohort on {name}"):
            continue
        warm = _run(bench, [one], out / f"warm-{len(list(out.glob('*')))}", device, precision)
        if warm is None or warm.code:
            _complain(bench, f"the first volume on {name}", warm)
            continue
        folder = out / name.replace(":", "").replace(" ", "-")
        use = _run(bench, [inputs], folder, device, precision)
        if use is None or use.code:
            _complain(bench, f"the cohort on {name}", use)
            continue
        run = _Run(name, precision, folder, use)
        reference = reference or run
        _tell(bench, run, reference)


def _ways(bench: Bench) -> list[tuple[str, str]]:
    """Devices and precisions: the CPU, one GPU, all of them in its first precision, one in the others."""
    number = bench.settings.gpu
    ways = [(f"cuda:{number}", precision) for precision in precisions(bench, bench.gpu())]
    others = [str(gpu.number) for gpu in bench.hardware.probe().gpus if gpu.number != number]
    if not others:
        bench.left_out("a cohort spread over several GPUs: there is one only")
    elif ways:
        ways.insert(1, (",".join([ways[0][0], *others]), ways[0][1]))
    return [("cpu", "fp32"), *ways]


def _phantoms(bench: Bench) -> Path:
    """Phantoms in the sizes of a mixed cohort."""
    bench.doing("making phantoms")
    folder = bench.settings.work / "phantoms"
    command = [sys.executable, "-P", "-m", "tools.cohort", "--kind", "phantoms", "--out", str(folder)]
    command += ["--volumes", str(bench.settings.volumes)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def _run(bench: Bench, inputs: list[Path], folder: Path, device: str, precision: str) -> ProcessUse | None:
    """Run fastseg; None where the time was spent before it ended."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [*bench.hardware.fastseg, "run", *(str(path.resolve()) for path in inputs), "-o", str(folder)]
    command += ["--device", device, "--precision", precision, "--quiet"]
    try:
        return measure(
            command, environment=os.environ, folder=bench.settings.work, timeout=max(bench.seconds_left, 1.0)
        )
    except subprocess.TimeoutExpired:
        return None


def _complain(bench: Bench, what: str, use: ProcessUse | None) -> None:
    if use is None:
        bench.left_out(f"{what}: the time was spent before it ended; --volumes makes the cohort smaller")
    else:
        lines = [line.strip() for line in use.output.splitlines() if line.strip()]
        bench.failed(f"{what}: exit code {use.code}: {lines[-1] if lines else 'nothing was said'}")


def _tell(bench: Bench, run: _Run, reference: _Run) -> None:
    bench.doing(f"comparing the masks of {run.name} with those of {reference.name}")
    masks = _masks(run.folder)
    theirs = _masks(reference.folder)
    flipped, voxels, least, differing = 0, 0, 1.0, 0
    for name in masks.keys() & theirs.keys():
        one, other = read_volume(theirs[name])[0], read_volume(masks[name])[0]
        difference = compare_masks(one, other)
        flipped += difference.differing
        differing += difference.differing > 0
        voxels += int(one.voxels.size)
        least = min(least, difference.dice)
    bench.row(
        engine=run.name,
        volumes=len(masks),
        seconds=round(run.use.wall_seconds, 2),
        cpu_seconds=round(run.use.cpu_seconds, 2),
        volumes_per_second=round(len(masks) / run.use.wall_seconds, 2),
        times_the_cpu=round(reference.use.wall_seconds / run.use.wall_seconds, 2),
        host_mb_peak=round(run.use.peak_bytes / 1e6),
        masks_that_differ=differing,
        flipped_voxels=flipped,
        voxels=voxels,
        least_dice=round(least, 6),
    )
    if run.precision == "fp32" and least < _LEAST_DICE:
        bench.failed(
            f"{run.name}: a mask has Dice {least:.4f} to the CPU's, at least {_LEAST_DICE} was expected"
        )
    if missing := theirs.keys() ^ masks.keys():
        bench.failed(f"{run.name}: {len(missing)} masks are there on one of the two only")


def _masks(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in folder.rglob("*_seg.nii.gz")}
