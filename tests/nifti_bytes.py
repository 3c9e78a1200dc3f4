"""NIfTI files byte for byte, so that neither nibabel nor fastseg tidies their headers."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

AFFINE = nib.affines.from_matvec(
    [[-0.8, 0.02, 0.0], [0.02, 0.9, -0.1], [0.0, 0.03, 3.0]], [10.5, -20.25, 30.125]
)
DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


def random_voxels(dtype: Any, shape: tuple[int, ...] = (5, 4, 3)) -> Any:
    random = np.random.default_rng(43)
    if np.dtype(dtype).kind == "f":
        return random.normal(0, 100, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(max(limits.min, -(2**40)), min(limits.max, 2**40), shape).astype(dtype)


def raw(voxels: Any, kind: Any = nib.Nifti1Header, order: str = "<", **fields: Any) -> bytes:
    """Bytes of a single-file NIfTI; fields of its header may be anything."""
    header = kind(endianness=order)
    header.set_data_dtype(voxels.dtype.newbyteorder(order))
    header.set_data_shape(voxels.shape)
    header.set_sform(AFFINE, 1)
    header.set_qform(AFFINE, 1)
    header["vox_offset"], header["magic"] = header.single_vox_offset, header.single_magic
    header["scl_slope"], header["scl_inter"] = 1, 0
    for name, value in fields.items():
        header[name] = value
    stored = voxels.astype(voxels.dtype.newbyteorder(order)).tobytes(order="F")
    return header.binaryblock + bytes(4) + stored


def file(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path
