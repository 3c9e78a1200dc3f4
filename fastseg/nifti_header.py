"""What a NIfTI header claims, checked before any memory is taken."""

from __future__ import annotations

import math
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, Literal, SupportsIndex

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from fastseg.errors import InputError, OptionError
from fastseg.volume import Grid

__all__ = [
    "CHUNK",
    "Frame",
    "VolumeFacts",
    "check_size",
    "checked_dtype",
    "checked_geometry",
    "checked_shape",
    "data_start",
    "forms_apart",
    "human",
    "memory_bytes",
    "read_header",
]

#: Which volume of a 4D file is meant: an index, or the mean of all.
Frame = int | Literal["mean"]

#: Bytes that are read at a time.
CHUNK = 1 << 22
# DEFLATE cannot shrink by more than 1032:1, so a header that promises more than that is wrong.
_DEFLATE_LIMIT = 1032
_NIFTI1, _NIFTI2 = 348, 540


@dataclass(frozen=True, eq=False, slots=True)
class VolumeFacts:
    """What is known of a file before its voxels are read.

    Parameters
    ----------
    grid : of one volume of the file, always 3D
    frames : volumes in the file
    dtype : of the voxels as stored, in the file's byte order
    file_bytes : size of the file
    promised_bytes : header and voxels of all frames, as the header has them
    stated_bytes : size of the content: the file's own, or what the end of a gzip file says, modulo 2**32.
        In a gzip file of one member and nothing else it is `promised_bytes`; in a truncated one, noise.
    compressed : whether the file is gzip
    qform_code, sform_code : 0 where that form is not set
    forms_apart_mm : farthest distance between the places that sform and qform give a voxel; 0 where one of
        them is not set, infinite where the qform is invalid
    notes : what is odd about the file and is accepted, one sentence each
    """

    grid: Grid
    frames: int
    dtype: np.dtype[Any]
    file_bytes: int
    promised_bytes: int
    stated_bytes: int
    compressed: bool
    qform_code: int
    sform_code: int
    forms_apart_mm: float
    notes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of one volume along each axis."""
        return self.grid.shape

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Voxel sizes in mm."""
        return self.grid.zooms

    @property
    def axcodes(self) -> tuple[str, str, str]:
        """Where each axis points to, as nibabel's codes."""
        return self.grid.axcodes

    @property
    def voxel_bytes(self) -> int:
        """Bytes of one volume as stored."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def end_is_plausible(self) -> bool:
        """Whether the end of the file agrees with its header; a file where it does not is best read whole.

        Gzip files of many members, and those with more in or after them than voxels, are sound but not so.
        """
        return not self.compressed or self.stated_bytes == self.promised_bytes & 0xFFFFFFFF


def read_header(path: Path, stream: BinaryIO) -> Any:
    """Read a NIfTI-1 or NIfTI-2 header of either byte order; anything else is an InputError."""
    start = stream.read(4)
    not_nifti = InputError(f"{path}: not a NIfTI volume; convert it to .nii.gz first (dcm2niix, mrconvert)")
    if len(start) < 4:
        raise not_nifti
    sizes = {struct.unpack("<i", start)[0], struct.unpack(">i", start)[0]}
    if _NIFTI1 in sizes:
        kind, length, pair = nib.Nifti1Header, _NIFTI1, b"ni1"
    elif _NIFTI2 in sizes:
        kind, length, pair = nib.Nifti2Header, _NIFTI2, b"ni2"
    else:
        raise not_nifti
    block = start + stream.read(length - 4)
    if len(block) < length:
        raise InputError(f"{path}: the file ends inside its header; copy or convert it again")
    try:
        header = kind(block, check=False)
    except (HeaderDataError, ValueError, TypeError) as error:
        raise InputError(f"{path}: the NIfTI header is corrupt ({error}); convert it again") from error
    magic = bytes(header["magic"].item())[:3]
    if magic == pair:
        raise InputError(f"{path}: one half of a .hdr/.img pair; convert it to a single .nii.gz file")
    if magic[:1] != b"n":
        raise not_nifti
    return header


def checked_shape(path: Path, header: Any, frame: Frame | None) -> tuple[int, ...]:
    """Shape of the volume in the file, without the axis of frames."""
    if not (frame is None or frame == "mean" or isinstance(frame, SupportsIndex)):
        raise OptionError(f"frame {frame!r}: give a number from 0, or 'mean'")
    dim = [int(n) for n in header["dim"]]
    if not 1 <= dim[0] <= 7:
        raise InputError(f"{path}: the header claims {dim[0]} dimensions; convert the file again")
    shape = tuple(dim[1 : 1 + dim[0]])
    if any(n < 1 for n in shape):
        raise InputError(f"{path}: the volume is empty, its shape is {shape}; convert it again")
    if len(shape) < 2 or min(shape[:2]) < 2:
        raise InputError(f"{path}: the shape {shape} is not an image; give a volume of at least 2 x 2 voxels")
    frames = math.prod(shape[3:])
    if frames == 1:
        if frame not in (None, "mean", 0):
            raise InputError(f"{path}: frame {frame} does not exist, the volume is 3D; leave --4d out")
        return shape
    if math.prod(shape[4:]) > 1:
        raise InputError(f"{path}: {len(shape)} dimensions {shape}; split it into 3D volumes first")
    if frame is None:
        raise InputError(
            f"{path}: the volume is 4D {shape}; choose one frame with --4d N or their mean with --4d mean"
        )
    if frame != "mean" and not 0 <= frame < frames:
        raise InputError(
            f"{path}: frame {frame} does not exist, frames are 0 to {frames - 1}; name one of them"
        )
    return shape[:3]


def checked_geometry(path: Path, header: Any) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The affine, and what is odd about it."""
    spatial = min(int(header["dim"][0]), 3)
    zooms = [float(z) for z in header["pixdim"][1 : 1 + spatial]]
    if not all(math.isfinite(z) and z > 0 for z in zooms):
        raise InputError(
            f"{path}: voxel sizes {tuple(zooms)} in the header must be positive; mend pixdim (fslhd, nibabel)"
        )
    header = header.copy()
    if spatial < 3 and not float(header["pixdim"][3]) > 0:
        header["pixdim"][3] = 1.0
    with np.errstate(all="ignore"):  # what overflows or is a signalling NaN is found below
        try:
            affine = np.asarray(_with_handedness(header).get_best_affine(), np.float64)
        except (HeaderDataError, ValueError) as error:
            raise InputError(f"{path}: the orientation is invalid ({error}); mend the qform") from error
        lengths = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
        volume = abs(np.linalg.det(affine[:3, :3] / lengths))
    if not np.isfinite(affine).all() or not np.isfinite(lengths).all() or not (lengths > 1e-6).all():
        raise InputError(f"{path}: the affine is singular or not finite; mend sform or qform")
    if volume < 1e-3:
        raise InputError(f"{path}: the affine is singular, two axes coincide; mend sform or qform")
    if max(zooms) > 100 or min(zooms) < 0.01:
        raise InputError(
            f"{path}: voxel sizes {tuple(round(z, 4) for z in zooms)} are not millimetres of an MR volume; "
            "mend pixdim"
        )
    notes = []
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        notes.append("the header has no orientation (codes 0/0): left and right are nibabel's guess")
    if any(abs(a - z) > 0.02 * z for a, z in zip(lengths, zooms, strict=False)):
        stated = " x ".join(f"{z:.4g}" for z in zooms)
        found = " x ".join(f"{a:.4g}" for a in lengths[:spatial])
        notes.append(f"pixdim ({stated} mm) and affine ({found} mm) disagree: the affine was used")
    return affine, tuple(notes)


def forms_apart(header: Any, shape: tuple[int, ...]) -> float:
    """Farthest distance in mm between the places that sform and qform give a voxel; 0 unless both are set."""
    if not (int(header["sform_code"]) and int(header["qform_code"])):
        return 0.0
    try:
        with np.errstate(all="ignore"):
            change = header.get_sform() - _with_handedness(header).get_qform()
            # One affine map is farthest from another at a corner.
            corners = np.array(list(product(*((0, n - 1) for n in shape))), np.float64)
            apart = float(np.sqrt(((corners @ change[:3, :3].T + change[:3, 3]) ** 2).sum(axis=1)).max())
    except (HeaderDataError, ValueError):
        return math.inf
    return apart if math.isfinite(apart) else math.inf


def _with_handedness(header: Any) -> Any:
    """The header with a sign of the third axis: 0 is to be read as 1, the standard says."""
    if header["pixdim"][0] != 0:
        return header
    header = header.copy()
    header["pixdim"][0] = 1.0
    return header


def checked_dtype(path: Path, header: Any) -> np.dtype[Any]:
    """Give the type of the voxels, which must be real numbers."""
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        code = int(header["datatype"])
        raise InputError(f"{path}: unknown data type {code}; convert the file again") from error
    if dtype.kind == "c":
        raise InputError(f"{path}: voxels are complex; take the magnitude first")
    if dtype.kind not in "iuf" or dtype.itemsize == 0:
        raise InputError(f"{path}: voxels are not numbers ({dtype}); convert the file to grey values")
    return dtype


def check_size(path: Path, header: Any, dtype: np.dtype[Any], size: int, compressed: bool) -> None:
    """Refuse a header that promises more than its file, or this machine, can hold."""
    shape = [int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])]]
    needed = data_start(path, header) + math.prod(shape) * dtype.itemsize
    if needed > (size * _DEFLATE_LIMIT + CHUNK if compressed else size):
        raise InputError(
            f"{path}: the file is truncated, its header promises {human(needed)} of voxels {tuple(shape)}; "
            "copy or convert it again"
        )
    one_frame = math.prod(shape[:3]) * max(dtype.itemsize, 4)
    available = memory_bytes()
    if 3 * one_frame > available:
        raise InputError(
            f"{path}: a volume of {tuple(shape[:3])} voxels needs {human(3 * one_frame)} of memory, "
            f"{human(available)} are there; crop it"
        )


def data_start(path: Path, header: Any) -> int:
    """Byte at which the voxels begin."""
    offset = float(header["vox_offset"])
    if offset == 0:
        return int(header.single_vox_offset)
    if not math.isfinite(offset) or offset < len(header.binaryblock) or offset > 2**40:
        raise InputError(f"{path}: the header puts the voxels at byte {offset:g}; convert the file again")
    return int(offset)


def memory_bytes() -> int:
    """Memory of this machine, or of the container when that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def human(n_bytes: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"
