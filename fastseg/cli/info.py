"""fastseg info: this installation, or one file."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path

import click

from fastseg import __version__
from fastseg.cli.shared import frame_option

__all__ = ["PACKAGES", "command", "version_of"]

#: What fastseg needs, and what its extras add.
PACKAGES = ("numpy", "numba", "scipy", "nibabel", "onnxruntime", "isal", "click", "rich", "Pillow")
_OPTIONAL = ("h5py", "onnx", "openvino", "tensorrt", "tensorrt_rtx", "pycuda", "cuda-bindings")
_VARIABLES = ("FASTSEG_PACKS", "NUMBA_CACHE_DIR", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


@click.command("info")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@frame_option
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def command(file: Path | None, frame: int | str | None, as_json: bool) -> None:
    """Show what this installation is, or what a volume's FILE holds."""
    facts = _installation() if file is None else _volume(file, frame)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    width = max(len(label) for label in facts)
    for label, value in facts.items():
        lines = _lines(value)
        click.echo(f"{label.replace('_', ' '):<{width}}  {lines[0]}")
        for line in lines[1:]:
            click.echo(f"{'':<{width}}  {line}")


def version_of(package: str) -> str | None:
    """Version of an installed package, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _installation() -> dict[str, object]:
    from fastseg.compilation import kernel_cache
    from fastseg.engines.compute import BACKENDS
    from fastseg.networks.packs import Pack, list_packs
    from fastseg.nifti_header import memory_bytes

    folder, warm = kernel_cache()
    return {
        "fastseg": __version__,
        "installed_in": str(Path(__file__).absolute().parents[1]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": _cores(),
        "memory_gb": round(memory_bytes() / 1e9, 1),
        "packages": {name: version_of(name) for name in (*PACKAGES, *_OPTIONAL)},
        "packs": {pack.name: str(pack.folder) for pack in reversed(list_packs()) if isinstance(pack, Pack)},
        "engines": list(BACKENDS),
        "kernel_cache": str(folder) if folder else None,
        "kernels_compiled": warm,
        "environment": {name: os.environ.get(name) for name in _VARIABLES},
    }


def _volume(file: Path, frame: int | str | None) -> dict[str, object]:
    """Facts of a file; of a 4D one also without a frame."""
    import numpy as np

    from fastseg.nifti import read_volume

    chosen = 0 if frame is None else frame
    volume, template = read_volume(file, frame=chosen)  # type: ignore[arg-type]  # the option has checked it
    header, frames, notes = template.header, 1, list(template.notes)
    if int(header["dim"][0]) > 3:
        frames = int(np.prod(header["dim"][4 : 1 + int(header["dim"][0])]))
    if frames > 1:
        notes.append(f"4D: the range is that of {'the mean' if chosen == 'mean' else f'frame {chosen}'}")
    finite = volume.voxels[np.isfinite(volume.voxels)]
    return {
        "file": str(file),
        "shape": list(volume.grid.shape),
        "frames": frames,
        "zooms_mm": [round(zoom, 6) for zoom in volume.grid.zooms],
        "orientation": "".join(volume.grid.axcodes),
        "stored_as": header.get_data_dtype().name,
        "slope_inter": [_number(header["scl_slope"]), _number(header["scl_inter"])],
        "qform_code": int(header["qform_code"]),
        "sform_code": int(header["sform_code"]),
        "range": [float(finite.min()), float(finite.max())] if finite.size else None,
        "not_finite": int(volume.voxels.size - finite.size),
        "notes": notes,
    }


def _number(value: object) -> float | None:
    """JSON has no nan, which is how a header leaves its slope unset."""
    number = float(str(value))
    return number if number == number else None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _lines(value: object) -> list[str]:
    if isinstance(value, dict):
        return [f"{key} {'-' if each is None else each}" for key, each in value.items()] or ["-"]
    if isinstance(value, list):
        if value and isinstance(value[0], str):
            return [str(each) for each in value]
        return ["  ".join("-" if each is None else f"{each:g}" for each in value) or "-"]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return ["-" if value is None else str(value)]
