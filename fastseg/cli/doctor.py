"""fastseg doctor: is everything there, and does it work on this machine."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from fastseg import __version__
from fastseg.cli import Exit
from fastseg.cli.info import PACKAGES, version_of
from fastseg.errors import FastsegError

__all__ = ["command"]

# The engine that there always is.
_REFERENCE = "onnxruntime"
# The default pack reaches 0.94 and more on this phantom; less than this means that something is broken.
_LEAST_DICE = 0.9


_State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class _Finding:
    state: _State
    what: str
    remedy: str = ""


@click.command("doctor")
@click.option("--quick", is_flag=True, help="Without the self-test.")
def command(quick: bool) -> int:
    """Check this installation, and tell a remedy for what is wrong.

    Looks at packages, networks and engines, then segments a small phantom. Exits with 1 when something
    failed; warnings are about what is optional, or slower than it could be.
    """
    counts = {"ok": 0, "warn": 0, "fail": 0}
    for findings in (_python, _packages, _engines, _packs, _kernels, *(() if quick else (_self_test,))):
        for finding in _guarded(findings):
            counts[finding.state] += 1
            click.echo(f"{finding.state:<4}  {finding.what}")
            if finding.remedy:
                click.echo(f"      -> {finding.remedy}")
    click.echo(f"{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failed")
    return Exit.UNEXPECTED if counts["fail"] else Exit.OK


def _guarded(findings: Callable[[], Iterator[_Finding]]) -> Iterator[_Finding]:
    """Turn what a check stumbles over into a finding: the other checks must still run."""
    try:
        yield from findings()
    except FastsegError as error:
        yield _Finding("fail", str(error))
    except Exception as error:
        name = findings.__name__.strip("_").replace("_", " ")
        told = " ".join(str(error).split())
        yield _Finding(
            "fail",
            f"{name}: {type(error).__name__}: {told}",
            "reinstall fastseg in a fresh environment; if that does not help, report this line",
        )


def _python() -> Iterator[_Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    yield _Finding("ok", f"fastseg {__version__}, Python {version}")


def _packages() -> Iterator[_Finding]:
    versions = {name: version_of(name) for name in PACKAGES}
    there = [f"{name} {version}" for name, version in versions.items() if version]
    if there:
        yield _Finding("ok", ", ".join(there))
    for name, version in versions.items():
        if not version:
            yield _Finding("fail", f"{name} is not installed", f"pip install {name}")
    missing = [name for name in ("h5py", "onnx") if not version_of(name)]
    if missing:
        yield _Finding(
            "warn",
            f"{' and '.join(missing)} not installed: SCT's Keras files cannot be imported",
            'only if you need that: pip install "fastseg[import]"',
        )


def _engines() -> Iterator[_Finding]:
    """Open each engine of the CPU on a network of the default pack, and say what `auto` takes."""
    from fastseg.engines.compute import BACKENDS, Compute
    from fastseg.engines.select import KERNEL_DRIVER, choices, open_engine, problem_of
    from fastseg.networks.network import Role
    from fastseg.networks.packs import find_pack

    network = find_pack("default").network(Role.SEGMENT_2D, "t2")
    for backend in BACKENDS.values():
        problem = problem_of(backend.name)
        if problem:
            gpu_waits = backend.device == "cuda" and KERNEL_DRIVER.exists()
            state: _State = "fail" if backend.name == _REFERENCE else "warn" if gpu_waits else "ok"
            yield _Finding(state, f"engine {backend.name} does not run: {problem}")
        elif backend.device == "cuda":  # building its engines takes a while
            yield _Finding("ok", f"engine {backend.name} can be used: fastseg engines build tries it")
        else:
            try:
                with open_engine(network, Compute(backend.name)) as engine:
                    yield _Finding("ok", f"engine {backend.name} runs: {engine.name}")
            except FastsegError as error:
                state = "fail" if backend.name == _REFERENCE else "warn"
                remedy = f"pip install --force-reinstall {backend.name}"
                yield _Finding(state, f"engine {backend.name} does not run: {error}", remedy)
    chosen = choices(network)[0]
    yield _Finding(
        "ok", f"auto: {network.name} runs on {chosen.engine} in {chosen.precision} ({chosen.reason})"
    )


def _packs() -> Iterator[_Finding]:
    from fastseg.networks.packs import Pack, list_packs, verify_pack

    for pack in list_packs():
        if not isinstance(pack, Pack):
            yield _Finding("fail", str(pack), "remove that folder, or import the pack again")
            continue
        problems = [f"{check.file}: {check.problem}" for check in verify_pack(pack) if check.problem]
        for problem in problems:
            yield _Finding("fail", f"pack {pack.name}: {problem}", f"import {pack.name} again, or reinstall")
        if not problems:
            yield _Finding("ok", f"pack {pack.name} is whole: {pack.folder}")


def _kernels() -> Iterator[_Finding]:
    from fastseg.compilation import kernel_cache, load_kernels

    folder, warm = kernel_cache()
    said: list[str] = []
    began = time.perf_counter()
    load_kernels(said.append)
    seconds = time.perf_counter() - began
    if folder is None:
        yield _Finding(
            "warn",
            f"kernels took {seconds:.1f} s, and no usual folder can keep them",
            "set NUMBA_CACHE_DIR to a folder that can be written",
        )
    else:
        how = "were compiled before" if warm and not said else "were compiled now"
        yield _Finding("ok", f"kernels {how}, {seconds:.1f} s: {folder}")


def _self_test() -> Iterator[_Finding]:
    import numpy as np

    from fastseg.comparison import compare_masks
    from fastseg.nifti import new_template, read_volume, write_volume
    from fastseg.options import Options
    from fastseg.phantom import make_phantom
    from fastseg.segmenter import Segmenter

    image, truth = make_phantom("t2", n_slices=12)
    began = time.perf_counter()
    with Segmenter(Options(contrast="t2")) as segmenter:
        result = segmenter.segment(image)
    seconds = time.perf_counter() - began
    dice = compare_masks(truth, result.mask).dice
    said = f"a phantom was segmented in {seconds:.2f} s, Dice with its true mask {dice:.3f}"
    if dice >= _LEAST_DICE:
        yield _Finding("ok", said)
    else:
        yield _Finding("fail", said, "reinstall fastseg; if that does not help, report this line")

    with tempfile.TemporaryDirectory(prefix="fastseg-") as folder:
        path = Path(folder) / "mask.nii.gz"
        write_volume(result.mask.voxels, new_template(image.grid), path)
        back, _ = read_volume(path)
    if back.grid.same_space(image.grid) and np.array_equal(back.voxels, result.mask.voxels):
        yield _Finding("ok", "a mask was written and read back")
    else:
        yield _Finding("fail", "a mask that was read back is not what was written", "check the disk")
