"""NIfTI files as files: compressed in any way, truncated, written and replaced."""

from __future__ import annotations

import gc
import gzip
import os
import stat
import struct
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastseg.errors import InputError, OutputError
from fastseg.nifti import read_volume, sct_header, write_volume
from tests.nifti_bytes import AFFINE, file, random_voxels, raw


def _forms(content: bytes) -> dict[str, bytes]:
    half = len(content) // 2
    members = gzip.compress(content[:half]) + gzip.compress(content[half:])
    return {
        "plain.nii": content,
        "plain-named.nii.gz": content,
        "gzip.nii.gz": gzip.compress(content),
        "gzip-named.nii": gzip.compress(content),
        "members.nii.gz": members,
        "header-alone-in-a-member.nii.gz": gzip.compress(content[:352]) + gzip.compress(content[352:]),
        "padded.nii.gz": gzip.compress(content) + bytes(512),
        "stored.nii.gz": gzip.compress(content, compresslevel=0),
        "more-than-promised.nii": content + b"more",
        "more-than-promised.nii.gz": gzip.compress(content + b"more"),
    }


@pytest.mark.parametrize("name", _forms(b""))
def test_the_content_decides_whether_a_file_is_gzip(name: str, tmp_path: Path) -> None:
    voxels = random_voxels("i2", (50, 40, 3))
    path = tmp_path / name
    path.write_bytes(_forms(raw(voxels))[name])
    np.testing.assert_array_equal(read_volume(path)[0].voxels, voxels)


@pytest.mark.parametrize("tail", [b"left over from a longer file", b"junk", bytes(512) + b"x"])
def test_bytes_after_the_last_member_do_no_harm(tail: bytes, tmp_path: Path) -> None:
    """nibabel reads this file too."""
    voxels = random_voxels("i2", (50, 40, 3))
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(raw(voxels)) + tail)
    np.testing.assert_array_equal(np.asanyarray(nib.load(path).dataobj), voxels)
    np.testing.assert_array_equal(read_volume(path)[0].voxels, voxels)


def test_a_wrong_checksum_is_corrupt(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(raw(random_voxels("i2"))))
    content[-8] ^= 1
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii\.gz: the file is corrupt .*copy or convert it again"):
        read_volume(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_wherever_it_ends(part: float, tmp_path: Path) -> None:
    plain = raw(random_voxels("f8", (30, 20, 6)))
    for name, content in (("a.nii", plain), ("a.nii.gz", gzip.compress(plain))):
        path = tmp_path / name
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises(InputError, match=r"truncated|ends inside its header|corrupt|header promises"):
            read_volume(path)


@pytest.mark.parametrize("size", [3, 200, 352, 2000, 20000])
@pytest.mark.parametrize("frame", [None, 1])
def test_a_sound_gzip_of_a_truncated_file_is_refused(size: int, frame: int | None, tmp_path: Path) -> None:
    plain = raw(random_voxels("f8", (30, 20, 6) if frame is None else (30, 20, 6, 2)))
    path = file(tmp_path / "a.nii.gz", plain[:size])
    with pytest.raises(InputError, match=r"truncated|ends inside its header|not a NIfTI"):
        read_volume(path, frame=frame)


def test_voxels_that_begin_later_are_found(tmp_path: Path) -> None:
    voxels = random_voxels("i2")
    content = raw(voxels, vox_offset=352 + 64)
    path = file(tmp_path / "a.nii.gz", content[:352] + b"extension" + bytes(55) + content[352:])
    volume, template = read_volume(path)
    np.testing.assert_array_equal(volume.voxels, voxels)
    write_volume(volume.voxels, template, tmp_path / "b.nii")
    np.testing.assert_array_equal(np.asanyarray(nib.load(tmp_path / "b.nii").dataobj), voxels)


@pytest.mark.parametrize("offset", [0, 352])
def test_an_unset_voxel_offset_means_behind_the_header(offset: int, tmp_path: Path) -> None:
    voxels = random_voxels("i2")
    volume, _ = read_volume(file(tmp_path / "a.nii", raw(voxels, vox_offset=offset)))
    np.testing.assert_array_equal(volume.voxels, voxels)


def test_a_header_that_promises_terabytes_takes_no_memory(tmp_path: Path) -> None:
    content = bytearray(raw(random_voxels("i2")))
    struct.pack_into("<4h", content, 40, 3, 30000, 30000, 30000)
    for name in ("a.nii", "a.nii.gz"):
        with pytest.raises(InputError, match=r"header promises .* TB|TB of memory"):
            read_volume(file(tmp_path / name, bytes(content)))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.nii: no such file"):
        read_volume(tmp_path / "none.nii")
    with pytest.raises(InputError, match="is a folder"):
        read_volume(tmp_path)


def test_an_empty_file_is_refused_and_closed(tmp_path: Path) -> None:
    (tmp_path / "a.nii").touch()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ResourceWarning)
        with pytest.raises(InputError, match="the file is empty"):
            read_volume(tmp_path / "a.nii")
        gc.collect()
    assert not seen


# Writing ---------------------------------------------------------------------------------------------------


def _odd_header(kind: Any, order: str) -> bytes:
    """A file in which every field that may be kept has a value of its own."""
    voxels = random_voxels("i2")
    fields = {
        "descrip": b"TE=40;Time=123456.789",
        "aux_file": b"aside",
        "intent_name": b"intent",
        "intent_code": 5,
        "intent_p1": 2.5,
        "xyzt_units": 10,
        "pixdim": [-1, 0.8, 0.9, 3.0, 2.5, 6, 7, 8],
        "dim_info": 57,
        "slice_code": 3,
        "slice_start": 1,
        "slice_end": 2,
        "slice_duration": 0.25,
        "toffset": 4.5,
        "qform_code": 3,
        "sform_code": 4,
        "quatern_b": 0.125,
        "cal_max": 900,
        "cal_min": 5,
        "scl_slope": 0.5,
        "scl_inter": 3,
    }
    return raw(voxels, kind, order, **fields)


# What describes the voxels, and the display range, which is the image's.
_MAY_CHANGE = {"datatype", "bitpix", "scl_slope", "scl_inter", "cal_max", "cal_min", "vox_offset"}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
@pytest.mark.parametrize("dtype", ["u1", "f4", "i2"])
def test_the_header_is_kept_but_for_what_describes_the_voxels(
    dtype: str, kind: Any, order: str, suffix: str, tmp_path: Path
) -> None:
    content = _odd_header(kind, order)
    volume, template = read_volume(file(tmp_path / "in.nii.gz", content))
    result = random_voxels(dtype)
    write_volume(result, template, tmp_path / f"out{suffix}")
    written = (tmp_path / f"out{suffix}").read_bytes()
    written = gzip.decompress(written) if suffix == ".nii.gz" else written
    length = len(kind().binaryblock)
    before, after = (kind(block[:length], check=False) for block in (content, written))
    assert after.endianness == order
    changed = {name for name in before.keys() if before[name].tobytes() != after[name].tobytes()}  # noqa: SIM118
    assert changed <= _MAY_CHANGE
    assert after.get_data_dtype() == np.dtype(dtype).newbyteorder(order)
    assert (after["scl_slope"], after["scl_inter"], after["cal_min"], after["cal_max"]) == (1, 0, 0, 0)
    assert len(written) == length + 4 + result.nbytes
    again = nib.load(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(np.asanyarray(again.dataobj), result)
    np.testing.assert_array_equal(again.affine, volume.grid.affine)


def test_writing_does_not_change_the_template(tmp_path: Path) -> None:
    _, template = read_volume(file(tmp_path / "in.nii", _odd_header(nib.Nifti1Header, "<")))
    before = template.header.binaryblock
    write_volume(random_voxels("f4"), template, tmp_path / "out.nii")
    sct_header(template, AFFINE)
    assert template.header.binaryblock == before


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_equal_voxels_give_equal_bytes(suffix: str, tmp_path: Path) -> None:
    path = file(tmp_path / "in.nii", raw(random_voxels("i2")))
    for name, at in (("a", 1.0), ("b", 2e9)):
        _, template = read_volume(path)
        write_volume(random_voxels("u1"), template, tmp_path / f"{name}{suffix}")
        os.utime(path, (at, at))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_any_memory_order_gives_the_same_file(tmp_path: Path) -> None:
    _, template = read_volume(file(tmp_path / "in.nii", raw(random_voxels("i2"))))
    mask = random_voxels("u1")
    write_volume(np.ascontiguousarray(mask), template, tmp_path / "a.nii")
    write_volume(np.asfortranarray(mask), template, tmp_path / "b.nii")
    write_volume(mask[::-1][::-1], template, tmp_path / "c.nii")
    assert len({(tmp_path / f"{name}.nii").read_bytes() for name in "abc"}) == 1


def test_an_existing_file_is_replaced_with_the_permissions_of_a_new_one(tmp_path: Path) -> None:
    _, template = read_volume(file(tmp_path / "in.nii", raw(random_voxels("i2"))))
    (tmp_path / "out.nii").write_bytes(b"old")
    write_volume(random_voxels("u1"), template, tmp_path / "out.nii")
    (tmp_path / "new").touch()
    assert (tmp_path / "out.nii").stat().st_mode == (tmp_path / "new").stat().st_mode
    np.testing.assert_array_equal(read_volume(tmp_path / "out.nii")[0].voxels, random_voxels("u1"))


def test_the_umask_counts_and_is_never_changed_not_even_to_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of all threads: what another one makes meanwhile would be anybody's to write."""
    _, template = read_volume(file(tmp_path / "in.nii", raw(random_voxels("i2"))))
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda _: pytest.fail("the umask was changed"))
            write_volume(random_voxels("u1"), template, tmp_path / "out.nii")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.nii").stat().st_mode) == 0o640


@pytest.mark.parametrize("failing", ["fdopen", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_and_keeps_the_old_file(
    failing: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, template = read_volume(file(tmp_path / "in.nii", raw(random_voxels("i2"))))
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "mask.nii.gz"
    target.write_bytes(b"old")
    opened = os.fdopen

    class FullDisk:
        def __init__(self, handle: int, mode: str) -> None:
            self.stream = opened(handle, mode)

        def __enter__(self) -> FullDisk:
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()

        def write(self, content: bytes) -> None:
            self.stream.write(content[:10])
            raise error

    def no_replace(*_: object) -> None:
        raise error

    if failing == "fdopen":
        monkeypatch.setattr(os, "fdopen", FullDisk)
    else:
        monkeypatch.setattr(Path, "replace", no_replace)
    wanted = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(wanted) as caught:
        write_volume(random_voxels("u1"), template, target)
    if wanted is OutputError:
        assert str(caught.value) == (
            f"{target}: cannot be written (No space left on device); choose another output folder"
        )
    assert target.read_bytes() == b"old"
    assert list(target.parent.iterdir()) == [target]


def test_a_missing_folder_a_folder_as_target_and_another_suffix_are_refused(tmp_path: Path) -> None:
    _, template = read_volume(file(tmp_path / "in.nii", raw(random_voxels("i2"))))
    (tmp_path / "folder.nii").mkdir()
    for target in ("none/mask.nii", "folder.nii", "mask.img"):
        with pytest.raises(OutputError, match=target):
            write_volume(random_voxels("u1"), template, tmp_path / target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.nii", "in.nii"]


@pytest.mark.parametrize("shape", [(5, 4, 2), (3, 4, 5)])
def test_voxels_of_another_shape_are_not_written(shape: tuple[int, ...], tmp_path: Path) -> None:
    _, template = read_volume(file(tmp_path / "in.nii", raw(random_voxels("i2"))))
    with pytest.raises((OutputError, InputError)):
        write_volume(np.zeros(shape, np.uint8), template, tmp_path / "out.nii")


@pytest.mark.parametrize(("given", "wanted"), [((0, 0), (2, 2)), ((1, 0), (1, 2)), ((0, 4), (2, 4))])
def test_sct_rewrites_codes_of_zero(given: Any, wanted: Any, tmp_path: Path) -> None:
    content = raw(random_voxels("i2"), qform_code=given[0], sform_code=given[1])
    volume, template = read_volume(file(tmp_path / "in.nii", content))
    write_volume(random_voxels("u1"), sct_header(template, volume.grid.affine), tmp_path / "out.nii")
    header = nib.load(tmp_path / "out.nii").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == wanted
    # The header holds 24 bits.
    np.testing.assert_allclose(header.get_sform(), volume.grid.affine, rtol=2.0**-23)
    # The quaternion holds no shear: the two axes here are off a right angle by 3 degrees at most.
    np.testing.assert_allclose(header.get_qform(), volume.grid.affine, rtol=0, atol=0.06)


def test_sct_keeps_the_display_range(tmp_path: Path) -> None:
    volume, template = read_volume(file(tmp_path / "in.nii", _odd_header(nib.Nifti1Header, "<")))
    write_volume(random_voxels("u1"), sct_header(template, volume.grid.affine), tmp_path / "out.nii")
    header = nib.load(tmp_path / "out.nii").header
    assert (float(header["cal_min"]), float(header["cal_max"])) == (5, 900)
