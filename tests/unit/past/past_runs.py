"""What runs leave behind: images of phantoms, their masks, a ledger; written without running any network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from fastseg.cohort.ledger import Ledger
from fastseg.phantom import make_phantom
from fastseg.qc.report import Report, id_of
from fastseg.sidecar import write_json

__all__ = ["MEASURES", "PastRun", "details", "digest", "entries", "save_mask"]

MEASURES = {"MedianAreaMm2": 80.0, "LengthMm": 15.0, "CentreJumpMm": 0.5}


@lru_cache
def _phantom() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    image, mask = make_phantom("t2", n_slices=6)
    return image.voxels.astype(np.int16), mask.voxels, image.grid.affine


def save_mask(path: Path, change: Any = None, *, affine: Any = None) -> Path:
    """Write the phantom's mask; `change` makes other voxels of its own."""
    _, voxels, own = _phantom()
    voxels = voxels if change is None else change(voxels.copy())
    return _save(path, voxels, own if affine is None else affine)


def _save(path: Path, voxels: NDArray[Any], affine: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(voxels, affine, dtype=voxels.dtype).to_filename(path)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class PastRun:
    """A data set and the output folder of a run over it.

    Parameters
    ----------
    folder : of both: its ``data`` and ``out``
    run : what the ledger's line of the run says
    """

    def __init__(self, folder: Path, **run: Any) -> None:
        self.folder, self.data, self.out = folder, folder / "data", folder / "out"
        self.data.mkdir(parents=True)
        with Ledger(self.out) as ledger:
            ledger.run(**({"root": str(self.data)} | run))

    def image(self, name: str) -> Path:
        voxels, _, affine = _phantom()
        return _save(self.data / name, voxels, affine)

    def add(self, name: str, mask: str = "", **facts: Any) -> Path:
        """Add a volume that was segmented; gives its mask."""
        mask = mask or name.replace(".nii", "_seg.nii")
        image, path = self.image(name), save_mask(self.out / mask)
        self.end(mask, name, image, **{"outputs": {"mask": digest(path)}} | facts)
        return path

    def fail(self, name: str, status: str = "no_cord", **facts: Any) -> Path:
        """Add a volume that failed; gives where its mask would be."""
        mask = name.replace(".nii", "_seg.nii")
        self.end(mask, name, self.image(name), status=status, **{"message": "no cord was found"} | facts)
        return self.out / mask

    def end(self, mask: str, name: str, image: Path, **facts: Any) -> None:
        """Write into the ledger how a volume ended."""
        status = image.stat()
        known = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest(image)}
        told = {
            "name": name,
            "status": "ok",
            "message": "",
            "notes": [],
            "flags": [],
            "measures": MEASURES,
            "seconds": {"read": 0.1, "predict": 0.3},
            "contrast": "t2",
            "inputs": {"input": known},
            "outputs": {},
            "engines": {"segment": "onnxruntime cpu fp32"},
        }
        with Ledger(self.out) as ledger:
            ledger.end(mask, **told | facts)

    def sidecar(self, mask: Path, name: str, **block: Any) -> Path:
        """Write the sidecar of a mask."""
        told = {"Status": "ok", "Contrast": "t2", "InputSha256": digest(self.data / name), "Soft": False}
        record = {"GeneratedBy": [{"Name": "fastseg", "Version": "0.1.0"}], "Sources": [name]}
        path = mask.with_name(mask.name.replace(".nii.gz", ".json"))
        write_json(record | {"Manual": False, "Fastseg": told | block}, path)
        return path


def entries(report: Path) -> dict[str, dict[str, Any]]:
    """Rows of a report by name."""
    return {row["name"]: row for row in Report(report).rows()}


def details(report: Path, mask: Path) -> Mapping[str, Any]:
    """What the report's file of a volume says."""
    key = id_of(mask)
    text = (report / "volumes" / key[:2] / f"{key}.js").read_text(encoding="ascii")
    found: dict[str, Any] = json.loads(
        text.removeprefix(f'fastsegDetail("{key}", ').rstrip("\n)").rstrip(");")
    )
    return found
