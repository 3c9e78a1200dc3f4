"""NIfTI files in and out. The only module that reads or writes volumes; nifti_header.py checks headers.

Reading trusts nothing: the header is checked before any memory is taken, and memory grows only with data that
really arrives. Writing goes to a temporary file beside the target, which is then renamed.
"""

from __future__ import annotations

import math
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from isal import igzip, igzip_lib
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from fastseg.errors import InputError, OutputError
from fastseg.nifti_header import (
    CHUNK,
    Frame,
    VolumeFacts,
    check_size,
    checked_dtype,
    checked_geometry,
    checked_shape,
    data_start,
    forms_apart,
    human,
    read_header,
)
from fastseg.volume import Grid, Volume

__all__ = [
    "Frame",
    "Template",
    "VolumeFacts",
    "new_template",
    "probe_volume",
    "read_volume",
    "sct_header",
    "write_volume",
]

_GZIP_MAGIC = b"\x1f\x8b"
_COMPRESSED_CHUNK = 1 << 18
# igzip 1.9 loses its place in a member's header of several parts (extra field, name, checksum) when that is
# cut, so that it gets at least so many bytes of a member at once: as many as the extra field can have.
_MEMBER_HEADER = 1 << 16
_SUFFIXES = (".nii.gz", ".nii")
# What may follow the voxels in a gzip file: so many times their size, and always so many bytes. There are
# files whose header calls many frames one volume.
_SURPLUS, _SURPLUS_BYTES = 64, 1 << 26
# Voxels that are scaled at a time.
_SCALED_CHUNK = 1 << 18
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
    keep_display_range : whether an output keeps cal_min and cal_max of the image
    """

    path: Path
    header: Any
    shape: tuple[int, ...]
    notes: tuple[str, ...] = ()
    keep_display_range: bool = False


def new_template(grid: Grid, description: str = "") -> Template:
    """Header for a volume that comes from no file: scanner coordinates in mm.

    Parameters
    ----------
    grid : of the volume
    description : at most 79 characters
    """
    header = nib.Nifti1Header()
    header.set_data_shape(grid.shape)
    header.set_sform(grid.affine, 1)
    header.set_qform(grid.affine, 1)
    header.set_xyzt_units("mm")
    header["descrip"] = description.encode()[:79]
    return Template(Path("new.nii.gz"), header, grid.shape)


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
            header = read_header(path, stream)
            shape = checked_shape(path, header, frame)
            affine, notes = checked_geometry(path, header)
            dtype = checked_dtype(path, header)
            check_size(path, header, dtype, size, compressed)
            raw = _read_voxels(path, stream, header, dtype, shape, frame)
            _check_tail(path, stream, compressed, math.prod(shape) * dtype.itemsize)
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    voxels = _scaled(path, raw, header)
    spatial = (*voxels.shape[:3], *(1,) * (3 - voxels.ndim))
    grid = Grid((spatial[0], spatial[1], spatial[2]), affine)
    return Volume(voxels.reshape(spatial, order="F"), grid), Template(path, header, shape, notes)


def probe_volume(path: Path | str, frame: Frame | None = None) -> VolumeFacts:
    """What a file's header says, checked as `read_volume` does, without reading its voxels.

    Parameters
    ----------
    path : single-file NIfTI (.nii, .nii.gz)
    frame : for a 4D file, the volume that is meant: an index from 0, or "mean"

    Raises
    ------
    InputError
        What `read_volume` raises before it comes to the voxels. That these are whole is not checked.
    """
    path = Path(path)
    try:
        with _open(path, _MEMBER_HEADER) as (stream, size, compressed):
            header = read_header(path, stream)
            shape = checked_shape(path, header, frame)
            affine, notes = checked_geometry(path, header)
            dtype = checked_dtype(path, header)
            check_size(path, header, dtype, size, compressed)
            stated = stream.stated_size() if isinstance(stream, _GzipStream) else size
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    spatial = (*shape[:3], 1)[:3]
    grid = Grid((spatial[0], spatial[1], spatial[2]), affine)
    frames = math.prod(int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])]) // math.prod(shape)
    return VolumeFacts(
        grid=grid,
        frames=frames,
        dtype=dtype,
        file_bytes=size,
        promised_bytes=data_start(path, header) + math.prod(shape) * frames * dtype.itemsize,
        stated_bytes=stated,
        compressed=compressed,
        qform_code=int(header["qform_code"]),
        sform_code=int(header["sform_code"]),
        forms_apart_mm=forms_apart(header, grid.shape),
        notes=notes,
    )


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
    if math.prod(voxels.shape) != math.prod(template.shape) or voxels.shape[:2] != template.shape[:2]:
        raise OutputError(f"{path}: voxels {voxels.shape} do not fit the header's shape {template.shape}")
    if voxels.dtype == np.bool_:
        voxels = voxels.view(np.uint8)
    header = template.header.copy()
    try:
        header.set_data_dtype(voxels.dtype)
    except HeaderDataError as error:
        raise OutputError(f"{path}: NIfTI has no type for {voxels.dtype}; give uint8 or float32") from error
    if tuple(int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])]) != template.shape:
        header.set_data_shape(template.shape)  # one frame of a 4D file
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    if not template.keep_display_range:
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
    temporary = path.with_name(f".{path.name[:64]}.{os.urandom(8).hex()}.tmp")
    made = False
    try:
        # The system applies the umask. To ask for it is to change it, which other threads would meet.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        made = True
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{path}: cannot be written ({reason}); choose another output folder") from error
    finally:
        if made:
            with suppress(OSError):
                temporary.unlink()


def sct_header(template: Template, affine: NDArray[np.float64]) -> Template:
    """The header that SCT writes (quirk 13): both forms from the affine, codes of 0 become 2.

    The display range is the image's.

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
    return replace(template, header=header, keep_display_range=True)


@contextmanager
def _open(path: Path, chunk: int = _COMPRESSED_CHUNK) -> Iterator[tuple[BinaryIO, int, bool]]:
    """Open a file for reading; gives the stream of NIfTI bytes, the file's size, whether it is gzip."""
    # Opening a pipe would wait for whoever writes into it, maybe for ever.
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder, not a volume; name a file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is a pipe or a device, not a file; save it as one first")
    with path.open("rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        if size == 0:
            raise InputError(f"{path}: the file is empty; copy or convert it again")
        compressed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        yield (cast(BinaryIO, _GzipStream(raw, chunk)) if compressed else raw), size, compressed


class _GzipStream:
    """Bytes of a gzip file of any number of members; what follows the last one is left alone.

    Python's readers meet such a tail while they read ahead, and refuse the file.
    """

    def __init__(self, raw: BinaryIO, chunk: int) -> None:
        self._raw = raw
        self._chunk = chunk
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self._ended = False

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end. EOFError inside a member."""
        out = bytearray()
        while len(out) < size and not self._ended:
            if self._member.eof:
                tail = self._member.unused_data
                tail += b"" if len(tail) >= _MEMBER_HEADER else self._raw.read(self._chunk)
                if tail[:2] != _GZIP_MAGIC:
                    self._ended = True
                    break
                self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
                out += self._member.decompress(tail, size - len(out))
                continue
            more = b""
            if self._member.needs_input:
                more = self._raw.read(self._chunk)
                if not more:
                    raise EOFError
            out += self._member.decompress(more, size - len(out))
        return bytes(out)

    def stated_size(self) -> int:
        """What the last four bytes say of the content's size, modulo 2**32; nothing can be read any more."""
        self._raw.seek(-4, os.SEEK_END)
        self._ended = True
        return int.from_bytes(self._raw.read(4), "little")


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file; check the name, and where a link leads")
    if isinstance(error, PermissionError):
        return InputError(f"{path}: no permission to read it; change that with chmod, or ask its owner")
    if isinstance(error, EOFError):
        return InputError(f"{path}: the file is truncated; copy or convert it again")
    text = getattr(error, "strerror", None) or re.sub(r"^Error -?\d+ ", "", str(error).strip())
    return InputError(
        f"{path}: the file is corrupt ({text or type(error).__name__}); copy or convert it again"
    )


def _read_voxels(
    path: Path,
    stream: BinaryIO,
    header: Any,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    frame: Frame | None,
) -> NDArray[Any]:
    _skip(path, stream, data_start(path, header) - len(header.binaryblock))
    count = math.prod(shape)
    n_bytes = count * dtype.itemsize
    frames = math.prod(int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])]) // count
    if frame == "mean" and frames > 1:
        total = np.zeros(count, np.float64)
        with np.errstate(all="ignore"):  # NaN and Inf stay what they are
            for _ in range(frames):
                total += np.frombuffer(_take(path, stream, n_bytes), dtype)
            return (total / frames).astype(np.float32).reshape(shape, order="F")
    wanted = 0 if frame in (None, "mean") else int(frame)
    _skip(path, stream, wanted * n_bytes)
    voxels = np.frombuffer(_take(path, stream, n_bytes), dtype).reshape(shape, order="F")
    _skip(path, stream, (frames - 1 - wanted) * n_bytes)
    return voxels


def _take(path: Path, stream: BinaryIO, n_bytes: int) -> bytearray:
    """Exactly n_bytes from the stream; memory grows with what arrives, not with what was promised."""
    data = bytearray()
    while len(data) < n_bytes:
        piece = stream.read(min(CHUNK, n_bytes - len(data)))
        if not piece:
            raise InputError(
                f"{path}: the file is truncated ({human(len(data))} of {human(n_bytes)} of voxels); "
                "copy or convert it again"
            )
        data += piece
    return data


def _skip(path: Path, stream: BinaryIO, n_bytes: int) -> None:
    while n_bytes > 0:
        piece = stream.read(min(CHUNK, n_bytes))
        if not piece:
            raise InputError(f"{path}: the file is truncated; copy or convert it again")
        n_bytes -= len(piece)


def _check_tail(path: Path, stream: BinaryIO, compressed: bool, expected: int) -> None:
    """Read a gzip file to its end, which checks its checksum; bytes after the voxels do little harm.

    A gzip file can hold a thousand times its own size, though, and reading that takes as long.
    """
    left = max(_SURPLUS * expected, _SURPLUS_BYTES) if compressed else 0
    while compressed and (piece := stream.read(CHUNK)):
        left -= len(piece)
        if left < 0:
            raise InputError(
                f"{path}: the file is corrupt, it goes on and on after the {human(expected)} of voxels that "
                "its header promises; convert it again"
            )


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
    # Piece by piece, because float64 takes eight times the memory of bytes.
    scaled = np.empty(native.shape, np.float32 if native.dtype.itemsize <= 2 else np.float64, order="F")
    given, taken = native.reshape(-1, order="F"), scaled.reshape(-1, order="F")
    with np.errstate(all="ignore"):
        for start in range(0, len(given), _SCALED_CHUNK):
            piece = np.multiply(given[start : start + _SCALED_CHUNK], slope, dtype=np.float64)
            piece += inter
            taken[start : start + _SCALED_CHUNK] = piece
    return scaled
