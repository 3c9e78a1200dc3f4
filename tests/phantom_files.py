"""Phantoms as NIfTI files, written with nibabel so that fastseg's own writer is not trusted."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from fastseg.cli import main
from fastseg.phantom import make_phantom


def save_phantom(path: Path, *, n_slices: int = 6, dtype: Any = np.int16, **how: Any) -> Path:
    image, _ = make_phantom("t2", n_slices=n_slices, **how)
    save(path, image.voxels.astype(dtype), image.grid.affine)
    return path


def save(path: Path, voxels: Any, affine: Any, kind: Any = nib.Nifti1Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = kind(voxels, affine, dtype=voxels.dtype)
    written.header["descrip"] = b"a phantom"
    written.header.set_xyzt_units("mm", "sec")
    written.to_filename(path)
    return path


def voxels_of(path: Path) -> Any:
    return np.asarray(nib.load(path).dataobj)


def fastseg(*arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process; gives exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(each) for each in arguments])
        except SystemExit as caught:
            code = int(caught.code or 0)
    return code, out.getvalue(), err.getvalue()


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
