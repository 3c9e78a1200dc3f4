"""What tools/fuzz_reader found, and that the fuzz itself would find it."""

from __future__ import annotations

import gzip
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest

from fastseg.errors import InputError
from fastseg.nifti import probe_volume, read_volume, write_volume
from tests.nifti_bytes import file, random_voxels, raw
from tools.fuzz.inputs import make_input
from tools.fuzz.pool import fuzz


@pytest.mark.parametrize("huge", [3e38, -3e38, 1e25])
def test_an_affine_that_overflows_is_refused_without_a_warning(huge: float, tmp_path: Path) -> None:
    path = file(tmp_path / "a.nii", raw(random_voxels("i2"), srow_x=[huge, huge, huge, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="affine is singular"):
            read_volume(path)


def test_a_signalling_nan_is_refused_without_a_warning(tmp_path: Path) -> None:
    content = bytearray(raw(random_voxels("i2")))
    content[280:284] = struct.pack("<I", 0x7FA00001)  # srow_x
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="affine is singular or not finite"):
            read_volume(file(tmp_path / "a.nii", bytes(content)))


def _member(content: bytes, *, extra: bytes | None = None, name: bytes = b"") -> bytes:
    """A gzip member whose header has an extra field, a name and a checksum."""
    flags = (4 if extra is not None else 0) | (8 if name else 0) | 2
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
    if extra is not None:
        head += struct.pack("<H", len(extra)) + extra
    head += name and name + b"\0"
    head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    squeezer = zlib.compressobj(1, zlib.DEFLATED, -15)
    body = squeezer.compress(content) + squeezer.flush()
    return head + body + struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)


@pytest.mark.parametrize("name", [b"", b"n" * 2000])
@pytest.mark.parametrize("extra", [0, 6, 60000])
def test_a_long_gzip_header_is_read_whole(extra: int, name: bytes, tmp_path: Path) -> None:
    """igzip 1.9 loses its place in a header of several parts that comes in pieces."""
    path = tmp_path / "a.nii.gz"
    path.write_bytes(_member(raw(random_voxels("i2")), extra=bytes(extra), name=name))
    assert probe_volume(path).shape == read_volume(path)[0].grid.shape == (5, 4, 3)


@pytest.mark.parametrize("part", [1, 5, 10, 14, 20])
def test_a_member_whose_header_lies_across_a_read_is_read(part: int, tmp_path: Path) -> None:
    """256 kB are read at a time."""
    voxels = np.random.default_rng(1).integers(0, 60000, (200, 200, 10)).astype(np.uint16)
    content = raw(voxels)
    place = 240_000
    short = (1 << 18) - part - len(_member(content[:place], name=b"n"))
    first = _member(content[:place], name=b"n" * (1 + short))
    assert len(first) == (1 << 18) - part
    path = tmp_path / "a.nii.gz"
    path.write_bytes(first + _member(content[place:], extra=b"BC\x02\0\0\0", name=b"a.nii"))
    np.testing.assert_array_equal(read_volume(path)[0].voxels, voxels)


def test_an_axis_of_one_behind_the_frames_does_no_harm(tmp_path: Path) -> None:
    voxels = random_voxels("i2", (5, 4, 3, 2, 1))
    path = file(tmp_path / "a.nii", raw(voxels))
    volume, template = read_volume(path, frame=1)
    np.testing.assert_array_equal(volume.voxels, voxels[..., 1, 0])
    write_volume(volume.voxels, template, tmp_path / "b.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nii")[0].voxels, volume.voxels)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nii")
    for read in (read_volume, probe_volume):
        with pytest.raises(InputError, match="is a pipe or a device, not a file; save it as one first"):
            read(tmp_path / "a.nii")


def test_many_frames_that_a_header_calls_one_volume_are_accepted(tmp_path: Path) -> None:
    """Only a file that goes on for more than 64 times its voxels, and 64 MB, is refused."""
    voxels = random_voxels("i2", (50, 40, 3))
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(raw(voxels) + 60 * voxels.tobytes(order="F"), 1))
    np.testing.assert_array_equal(read_volume(path)[0].voxels, voxels)
    path.write_bytes(gzip.compress(raw(voxels) + bytes(70_000_000), 1))
    with pytest.raises(InputError, match="goes on and on after the 12 kB of voxels"):
        read_volume(path)


def test_the_fuzz_makes_the_same_input_from_the_same_numbers() -> None:
    assert make_input(5, 17) == make_input(5, 17)
    assert make_input(5, 17).content != make_input(5, 18).content


def test_a_short_fuzz_finds_nothing() -> None:
    found = list(fuzz(44, range(300), workers=1))
    assert sorted(each.number for each in found) == list(range(300))
    assert [each for each in found if each.verdict.failure] == []
    assert {"read", "the file is truncated"} < {each.verdict.kind for each in found}
