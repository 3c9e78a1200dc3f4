"""NIfTI files in and out. The only module that reads or writes volumes.

Reading trusts nothing: the header is checked before any memory is taken, and memory grows only with data that
really arrives. Writing goes to a temporary file beside the target, which is then renamed.
"""

from __future__ import annotations

import math
import os
import struct
import tempfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import nibabel as nib
import numpy as np
from isal import igzip, igzip_lib
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from fastseg.errors import InputError, OutputError
from fastseg.volume import Grid, Volume

__all__ = ["Frame", "Template", "read_volume", "sct_header", "strip_suffix", "write_volume"]

#: Which volume of a 4D file is meant: an index, or the mean of all.
Frame = int | Literal["mean"]

_GZIP_MAGIC = b"\x1f\x8b"
# DEFLATE cannot shrink by more than 1032:1, so a header that promises more than that is wrong.
_DEFLATE_LIMIT = 1032
_CHUNK = 1 << 22
_NIFTI1, _NIFTI2 = 348, 540
_SUFFIXES = (".nii.gz", ".nii")
# What streams raise on files that are missing, truncated or corrupt.
_BROKEN: Any = (OSError, EOFError, zlib.error, igzip_lib.IsalError)


@dataclass(frozen=True, eq=False)
class Template:
    """What an output takes from its input: the header, and the shape in the file.

    Parameters
    ----------
    path : file that was read
    header : nibabel header, as stored
    shape : shape in the file; () axes of length one are kept, a chosen frame of a 4D file is not
    notes : what is odd about the file and was accepted, one sentence each
    """

    path: Path
    header: Any
    shape: tuple[int, ...]
    notes: tuple[str, ...] = ()


def strip_suffix(path: Path) -> str:
    """File name without .nii or .nii.gz.

    Examples
    --------
    >>> strip_suffix(Path("sub-01/anat/sub-01_T2w.nii.gz"))
    'sub-01_T2w'
    """
    for suffix in _SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def read_volume(path: Path | str, *, frame: Frame | None = None) -> tuple[Volume, Template]:
    """Read a NIfTI-1 or NIfTI-2 volume, compressed or not, whatever its name says.

    Parameters
    ----------
    path : single-file NIfTI (.nii, .nii.gz)
    frame : for a 4D file, the volume to take: an index from 0, or "mean"

    Returns
    -------
    volume : in the file's orientation; integers as stored, scaled values as floats, NaN and Inf untouched
    template : for `write_volume`

    Raises
    ------
    InputError
        The file is missing, empty, truncated, corrupt, not a NIfTI volume, 4D without `frame`, or its
        header makes no sense. The message says what to do.
    """
    path = Path(path)
    try:
        with _open(path) as (stream, size, compressed):
            header = _read_header(path, stream)
            shape = _checked_shape(path, header, frame)
            affine, notes = _checked_geometry(path, header)
            dtype = _checked_dtype(path, header)
            _check_size(path, header, dtype, size, compressed)
            raw = _read_voxels(path, stream, header, dtype, shape, frame)
            _check_tail(path, stream, compressed)
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    voxels = _scaled(path, raw, header)
    spatial = (*voxels.shape[:3], *(1,) * (3 - voxels.ndim))
    grid = Grid((spatial[0], spatial[1], spatial[2]), affine)
    return Volume(voxels.reshape(spatial, order="F"), grid), Template(path, header, shape, notes)


def write_volume(voxels: NDArray[Any], template: Template, path: Path | str) -> None:
    """Write voxels with the header of the volume they belong to.

    Shape, affine, qform and sform with their codes, pixdim, units and description stay exactly those of the
    template; data type and scaling are the voxels', and the display range is unset, because that of the
    image would hide a mask. Equal voxels give equal bytes (no time stamp).

    Parameters
    ----------
    voxels : (x, y, z) uint8, int16 or float32, in the orientation of the template's file
    template : from `read_volume`
    path : .nii or .nii.gz; its folder must exist

    Raises
    ------
    OutputError
        The file cannot be written. Nothing is left behind.
    """
    path = Path(path)
    if not path.name.lower().endswith(_SUFFIXES):
        raise OutputError(f"{path}: the name of an output volume ends in .nii.gz or .nii")
    header = template.header.copy()
    header.set_data_dtype(voxels.dtype)
    if tuple(int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])]) != template.shape:
        header.set_data_shape(template.shape)  # one frame of a 4D file
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    if not isinstance(template, _SctTemplate):
        header["cal_max"] = header["cal_min"] = 0.0
    header["vox_offset"] = header.single_vox_offset
    header["magic"] = header.single_magic
    stored = voxels.astype(header.get_data_dtype(), copy=False).tobytes(order="F")
    content = b"".join((header.binaryblock, bytes(4), stored))  # four zeros: no extensions
    if path.name.lower().endswith(".gz"):
        content = igzip.compress(content, compresslevel=1, mtime=0)
    _replace(path, content)


def _replace(path: Path, content: bytes) -> None:
    """Write to a temporary file beside the target, then rename: readers see the old file or the new one."""
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:64]}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{path}: cannot be written ({reason}); choose another output folder") from error
    finally:
        if temporary:
            with suppress(OSError):
                Path(temporary).unlink()


@dataclass(frozen=True, eq=False)
class _SctTemplate(Template):
    """A template whose header was rewritten as SCT does."""


def sct_header(template: Template, affine: NDArray[np.float64]) -> Template:
    """The header that SCT writes (quirk 13): both forms from the affine, codes of 0 become 2.

    Parameters
    ----------
    template : of the input
    affine : (4, 4) of the input's grid
    """
    header = template.header.copy()
    qcode, scode = int(header["qform_code"]), int(header["sform_code"])
    header.set_sform(affine, scode or 2)
    header.set_qform(affine, qcode or 2, strip_shears=True)
    header["pixdim"][4:] = 1.0
    return _SctTemplate(template.path, header, template.shape, template.notes)


class _open:
    """Open a file for reading; yields the stream of NIfTI bytes, the file's size, whether it is gzip."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack: list[Any] = []

    def __enter__(self) -> tuple[BinaryIO, int, bool]:
        path = self._path
        if path.is_dir():
            raise InputError(f"{path}: is a folder, not a volume")
        raw = path.open("rb")
        self._stack.append(raw)
        size = os.fstat(raw.fileno()).st_size
        if size == 0:
            raise InputError(f"{path}: the file is empty; copy or convert it again")
        compressed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        if not compressed:
            return raw, size, False
        stream = igzip.GzipFile(fileobj=raw, mode="rb")
        self._stack.append(stream)
        return stream, size, True

    def __exit__(self, *_: object) -> None:
        for stream in reversed(self._stack):
            stream.close()


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file")
    if isinstance(error, PermissionError):
        return InputError(f"{path}: no permission to read it")
    if isinstance(error, EOFError):
        return InputError(f"{path}: the file is truncated; copy or convert it again")
    text = str(error).strip() or type(error).__name__
    return InputError(f"{path}: the file is corrupt ({text}); copy or convert it again")


def _read_header(path: Path, stream: BinaryIO) -> Any:
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


def _checked_shape(path: Path, header: Any, frame: Frame | None) -> tuple[int, ...]:
    """Shape of the volume in the file, without the axis of frames."""
    dim = [int(n) for n in header["dim"]]
    if not 1 <= dim[0] <= 7:
        raise InputError(f"{path}: the header claims {dim[0]} dimensions; convert the file again")
    shape = tuple(dim[1 : 1 + dim[0]])
    if any(n < 1 for n in shape):
        raise InputError(f"{path}: the volume is empty, its shape is {shape}")
    if len(shape) < 2 or min(shape[:2]) < 2:
        raise InputError(f"{path}: the shape {shape} is not an image; at least 2 x 2 voxels are needed")
    frames = math.prod(shape[3:])
    if frames == 1:
        if frame not in (None, "mean", 0):
            raise InputError(f"{path}: frame {frame} does not exist, the volume is 3D")
        return shape
    if len(shape) > 4:
        raise InputError(f"{path}: {len(shape)} dimensions {shape}; split it into 3D volumes first")
    if frame is None:
        raise InputError(
            f"{path}: the volume is 4D {shape}; choose one frame with --4d N or their mean with --4d mean"
        )
    if isinstance(frame, int) and not 0 <= frame < frames:
        raise InputError(f"{path}: frame {frame} does not exist, frames are 0 to {frames - 1}")
    return shape[:3]


def _checked_geometry(path: Path, header: Any) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The affine, and what is odd about it."""
    spatial = min(int(header["dim"][0]), 3)
    zooms = [float(z) for z in header["pixdim"][1 : 1 + spatial]]
    if not all(math.isfinite(z) and z > 0 for z in zooms):
        raise InputError(
            f"{path}: voxel sizes {tuple(zooms)} in the header must be positive; mend pixdim (fslhd, nibabel)"
        )
    if spatial < 3 and not float(header["pixdim"][3]) > 0:
        header = header.copy()
        header["pixdim"][3] = 1.0
    try:
        affine = np.asarray(header.get_best_affine(), np.float64)
    except (HeaderDataError, ValueError) as error:
        raise InputError(f"{path}: the orientation is invalid ({error}); mend the qform") from error
    lengths = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if not np.isfinite(affine).all() or not (lengths > 1e-6).all():
        raise InputError(f"{path}: the affine is singular or not finite; mend sform or qform")
    if abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
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


def _checked_dtype(path: Path, header: Any) -> np.dtype[Any]:
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


def _check_size(path: Path, header: Any, dtype: np.dtype[Any], size: int, compressed: bool) -> None:
    shape = [int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])]]
    needed = _data_start(path, header) + math.prod(shape) * dtype.itemsize
    if needed > (size * _DEFLATE_LIMIT + _CHUNK if compressed else size):
        raise InputError(
            f"{path}: the file is truncated, its header promises {_human(needed)} of voxels {tuple(shape)}; "
            "copy or convert it again"
        )
    one_frame = math.prod(shape[:3]) * max(dtype.itemsize, 4)
    available = _memory_bytes()
    if 3 * one_frame > available:
        raise InputError(
            f"{path}: a volume of {tuple(shape[:3])} voxels needs {_human(3 * one_frame)} of memory, "
            f"{_human(available)} are there; crop it"
        )


def _data_start(path: Path, header: Any) -> int:
    offset = float(header["vox_offset"])
    if offset == 0:
        return int(header.single_vox_offset)
    if not math.isfinite(offset) or offset < len(header.binaryblock) or offset > 2**40:
        raise InputError(f"{path}: the header puts the voxels at byte {offset:g}; convert the file again")
    return int(offset)


def _memory_bytes() -> int:
    """Memory of this machine, or of the container when that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def _human(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def _read_voxels(
    path: Path,
    stream: BinaryIO,
    header: Any,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    frame: Frame | None,
) -> NDArray[Any]:
    _skip(path, stream, _data_start(path, header) - len(header.binaryblock))
    count = math.prod(shape)
    n_bytes = count * dtype.itemsize
    frames = math.prod(int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])]) // count
    if frame == "mean" and frames > 1:
        total = np.zeros(count, np.float64)
        for _ in range(frames):
            total += np.frombuffer(_take(path, stream, n_bytes), dtype)
        return (total / frames).astype(np.float32).reshape(shape, order="F")
    wanted = frame if isinstance(frame, int) else 0
    _skip(path, stream, wanted * n_bytes)
    voxels = np.frombuffer(_take(path, stream, n_bytes), dtype).reshape(shape, order="F")
    _skip(path, stream, (frames - 1 - wanted) * n_bytes)
    return voxels


def _take(path: Path, stream: BinaryIO, n_bytes: int) -> bytearray:
    """Exactly n_bytes from the stream; memory grows with what arrives, not with what was promised."""
    data = bytearray()
    while len(data) < n_bytes:
        piece = stream.read(min(_CHUNK, n_bytes - len(data)))
        if not piece:
            raise InputError(
                f"{path}: the file is truncated ({_human(len(data))} of {_human(n_bytes)} of voxels); "
                "copy or convert it again"
            )
        data += piece
    return data


def _skip(path: Path, stream: BinaryIO, n_bytes: int) -> None:
    while n_bytes > 0:
        piece = stream.read(min(_CHUNK, n_bytes))
        if not piece:
            raise InputError(f"{path}: the file is truncated; copy or convert it again")
        n_bytes -= len(piece)


def _check_tail(path: Path, stream: BinaryIO, compressed: bool) -> None:
    """Read a gzip file to its end, which checks its checksum; bytes after the last member do no harm."""
    if not compressed:
        return
    try:
        while stream.read(_CHUNK):
            pass
    except igzip.BadGzipFile as error:
        if "Not a gzipped file" not in str(error):
            raise


def _scaled(path: Path, raw: NDArray[Any], header: Any) -> NDArray[Any]:
    """Voxels with the header's slope and intercept; integers without them stay integers."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    native = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    if native.dtype.kind == "f" and native.dtype.itemsize not in (4, 8):
        native = native.astype(np.float64)
    if not math.isfinite(slope) or slope == 0 or (slope == 1 and inter == 0):
        return native
    if not math.isfinite(inter):
        raise InputError(f"{path}: scl_inter is not finite; mend the header")
    # Sums in float64; what came from at most 16 bits is as exact in float32 as any further step uses it.
    narrow = native.dtype.itemsize <= 2
    with np.errstate(all="ignore"):
        scaled = np.multiply(native, slope, dtype=np.float64)
        scaled += inter
        return scaled.astype(np.float32) if narrow else scaled
