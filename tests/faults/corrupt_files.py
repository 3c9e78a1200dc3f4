"""Files that look like NIfTI volumes and are none: the damage that people have met, and some more."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

__all__ = ["corrupt_kinds"]

_AFFINE = np.diag([1.0, 1.0, 2.5, 1.0])
# Fields of the NIfTI-1 header, by their first byte.
_DIM, _DATATYPE, _PIXDIM, _OFFSET, _SLOPE = 40, 70, 76, 108, 112
_CODES, _QUATERN, _SROW, _MAGIC = 252, 256, 280, 344
_HEADER = 352


def corrupt_kinds() -> dict[str, Callable[[Path], Path]]:
    """Every kind of corrupt file.

    Returns
    -------
    kinds : file name -> what writes that file into a folder and gives its path. The reader refuses each of
        them, 4D ones because no frame is chosen; no permission is needed to make or to remove them.
    """
    return {
        **{name: partial(_write, name, content) for name, content in _CONTENTS.items()},
        "folder_with_a_volume_name.nii.gz": _folder,
        "dangling_link.nii.gz": _dangling_link,
        "link_to_itself.nii.gz": _link_to_itself,
        "pipe.nii.gz": _pipe,
    }


def _voxels() -> Any:
    """A volume that does not compress well, so that a cut is inside its voxels."""
    return np.random.default_rng(43).integers(0, 1000, (32, 32, 6)).astype(np.int16)


def _nifti(voxels: Any = None, kind: Any = nib.Nifti1Image) -> bytes:
    voxels = _voxels() if voxels is None else voxels
    content: bytes = kind(voxels, _AFFINE, dtype=voxels.dtype).to_bytes()
    return content


def _patched(*patches: tuple[int, bytes]) -> bytes:
    content = bytearray(_nifti())
    for start, new in patches:
        content[start : start + len(new)] = new
    return bytes(content)


def _shorts(start: int, *values: int) -> tuple[int, bytes]:
    return start, struct.pack(f"<{len(values)}h", *values)


def _floats(start: int, *values: float) -> tuple[int, bytes]:
    return start, struct.pack(f"<{len(values)}f", *values)


def _flipped(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 0xFF
    return bytes(changed)


def _noise(n_bytes: int) -> bytes:
    return np.random.default_rng(44).bytes(n_bytes)


def _dicom() -> bytes:
    return bytes(128) + b"DICM" + _noise(2000)


def _bomb() -> bytes:
    """A small header, and far more behind its voxels than it promises."""
    return gzip.compress(_nifti() + bytes(300_000_000), 1)


def _members(content: bytes) -> list[bytes]:
    return [gzip.compress(content[n : n + 4000]) for n in range(0, len(content), 4000)]


def _without_crc(content: bytes) -> bytes:
    squeezer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return b"\x1f\x8b\x08" + bytes(7) + squeezer.compress(content) + squeezer.flush()


_QFORM_ONLY = _shorts(_CODES, 1, 0)

_CONTENTS: dict[str, Callable[[], bytes]] = {
    "empty.nii": lambda: b"",
    "empty.nii.gz": lambda: b"",
    "one_byte.nii": lambda: b"\x5c",
    "gzip_of_nothing.nii.gz": lambda: gzip.compress(b""),
    "gzip_magic_only.nii.gz": lambda: b"\x1f\x8b",
    "zeros.nii": lambda: bytes(100_000),
    "noise.nii.gz": lambda: _noise(5000),
    "noise_after_gzip_magic.nii.gz": lambda: b"\x1f\x8b\x08\x00" + _noise(5000),
    "text.nii.gz": lambda: b"<html><title>404 Not Found</title></html>" * 20,
    "gzip_of_text.nii.gz": lambda: gzip.compress(b"%PDF-1.4 no volume at all" * 99),
    "dicom.nii": _dicom,
    "cut_in_header.nii": lambda: _nifti()[:200],
    "cut_after_header.nii": lambda: _nifti()[:_HEADER],
    "cut_in_voxels.nii": lambda: _nifti()[:-1],
    "cut_in_gzip.nii.gz": lambda: gzip.compress(_nifti())[:-2000],
    "cut_in_gzip_header.nii.gz": lambda: gzip.compress(_nifti())[:7],
    "cut_in_gzip_trailer.nii.gz": lambda: gzip.compress(_nifti())[:-3],
    "no_gzip_trailer.nii.gz": lambda: _without_crc(_nifti()),
    "gzip_of_a_cut_file.nii.gz": lambda: gzip.compress(_nifti()[:-1000]),
    "lost_member.nii.gz": lambda: b"".join(_members(_nifti())[:-1]),
    "broken_member.nii.gz": lambda: _flipped(b"".join(_members(_nifti())), -600),
    "wrong_checksum.nii.gz": lambda: _flipped(gzip.compress(_nifti()), -8),
    "wrong_length.nii.gz": lambda: _flipped(gzip.compress(_nifti()), -4),
    "flipped_in_gzip.nii.gz": lambda: _flipped(gzip.compress(_nifti()), 5000),
    "unknown_compression.nii.gz": lambda: _flipped(gzip.compress(_nifti()), 2),
    "gzip_bomb.nii.gz": _bomb,
    "twice_compressed.nii.gz": lambda: gzip.compress(gzip.compress(_nifti())),
    "promises_terabytes.nii": lambda: _patched(_shorts(_DIM, 3, 30000, 30000, 30000)),
    "promises_terabytes.nii.gz": lambda: gzip.compress(_patched(_shorts(_DIM, 3, 30000, 30000, 30000))),
    "one_slice_too_many.nii.gz": lambda: gzip.compress(_patched(_shorts(_DIM, 3, 32, 32, 7))),
    "no_axes.nii": lambda: _patched(_shorts(_DIM, 0)),
    "many_axes.nii": lambda: _patched(_shorts(_DIM, 77)),
    "axis_of_zero.nii": lambda: _patched(_shorts(_DIM, 3, 32, 0, 6)),
    "negative_axis.nii": lambda: _patched(_shorts(_DIM, 3, 32, -32, 6)),
    "single_column.nii": lambda: _nifti(_voxels()[:1]),
    "four_dimensions.nii.gz": lambda: gzip.compress(_nifti(np.stack([_voxels()] * 3, axis=3))),
    "five_dimensions.nii.gz": lambda: gzip.compress(_nifti(np.zeros((4, 4, 4, 2, 3), np.int16))),
    "unknown_type.nii": lambda: _patched(_shorts(_DATATYPE, 999)),
    "complex.nii": lambda: _nifti(_voxels().astype(np.complex64)),
    "colour.nii": lambda: _nifti(np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")])),
    "zero_voxel_size.nii": lambda: _patched(_floats(_PIXDIM + 4, 0, 1, 2.5)),
    "negative_voxel_size.nii": lambda: _patched(_floats(_PIXDIM + 4, -1, 1, 2.5)),
    "nan_voxel_size.nii": lambda: _patched(_floats(_PIXDIM + 12, np.nan)),
    "metres.nii": lambda: _patched(_floats(_PIXDIM + 4, 0.001, 0.001, 0.0025)),
    "singular_affine.nii": lambda: _patched(_floats(_SROW, *[0.0] * 12)),
    "nan_affine.nii": lambda: _patched(_floats(_SROW, np.nan)),
    "impossible_quaternion.nii": lambda: _patched(_QFORM_ONLY, _floats(_QUATERN, 3.0, 3.0, 3.0)),
    "infinite_intercept.nii": lambda: _patched(_floats(_SLOPE, 2.0, np.inf)),
    "voxels_before_the_header_ends.nii": lambda: _patched(_floats(_OFFSET, 100.0)),
    "voxels_far_away.nii": lambda: _patched(_floats(_OFFSET, 1e30)),
    "half_a_pair.nii": lambda: _patched((_MAGIC, b"ni1\0")),
    "foreign_magic.nii": lambda: _patched((_MAGIC, b"abc\0")),
    "nifti2_cut_in_header.nii": lambda: _nifti(kind=nib.Nifti2Image)[:400],
    "voxels_without_header.nii.gz": lambda: gzip.compress(_voxels().tobytes()),
}


def _write(name: str, content: Callable[[], bytes], folder: Path) -> Path:
    path = folder / name
    path.write_bytes(content())
    return path


def _folder(folder: Path) -> Path:
    path = folder / "folder_with_a_volume_name.nii.gz"
    path.mkdir()
    return path


def _dangling_link(folder: Path) -> Path:
    path = folder / "dangling_link.nii.gz"
    path.symlink_to("was_here_yesterday.nii.gz")
    return path


def _link_to_itself(folder: Path) -> Path:
    path = folder / "link_to_itself.nii.gz"
    path.symlink_to(path.name)
    return path


def _pipe(folder: Path) -> Path:
    """Nobody ever writes into it: whoever opens it waits for ever."""
    path = folder / "pipe.nii.gz"
    os.mkfifo(path)
    return path
