"""Every broken file is one line with its status; every odd but sound one gives a mask that overlays it."""

from __future__ import annotations

import gzip
import json
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from fastseg.errors import InputError
from fastseg.nifti import read_volume
from fastseg.phantom import make_phantom
from tests.phantom_files import fastseg, files_below, save

_AFFINE = np.diag([1.0, 1.0, 2.5, 1.0])
# Fields of the NIfTI-1 header, by their first byte.
_DIM, _DATATYPE, _PIXDIM, _QFORM, _SFORM, _SROW, _MAGIC = 40, 70, 76, 252, 254, 280, 344
# What an overlay depends on: pixdim, units, description, codes with quaternion and srow.
_KEPT = (slice(_PIXDIM, 108), slice(123, 124), slice(148, 228), slice(_QFORM, 328))


@pytest.fixture(scope="module")
def phantom() -> NDArray[Any]:
    return make_phantom("t2", n_slices=6)[0].voxels


def _nifti(voxels: Any, affine: Any = _AFFINE, kind: Any = nib.Nifti1Image) -> bytearray:
    image = kind(voxels, affine, dtype=voxels.dtype)
    image.header["descrip"] = b"a phantom"
    image.header.set_xyzt_units("mm", "sec")
    return bytearray(image.to_bytes())


def _patched(voxels: Any, *patches: tuple[int, bytes]) -> bytes:
    content = _nifti(voxels)
    for start, new in patches:
        content[start : start + len(new)] = new
    return bytes(content)


def _dim(*sizes: int) -> tuple[int, bytes]:
    return _DIM, struct.pack(f"<{len(sizes)}h", *sizes)


def _float(start: int, *values: float) -> tuple[int, bytes]:
    return start, struct.pack(f"<{len(values)}f", *values)


def _by_qform(*patch: Any) -> tuple[tuple[int, bytes], ...]:
    return ((_QFORM, struct.pack("<2h", 1, 0)), *patch)


def _flipped_checksum(content: bytes) -> bytes:
    squeezed = bytearray(gzip.compress(content))
    squeezed[-8] ^= 0xFF
    return bytes(squeezed)


_TERABYTES = _dim(3, 30000, 30000, 30000)

# File name -> (its content, what the message has to say).
_BAD: dict[str, tuple[Callable[[NDArray[Any]], bytes], str]] = {
    "four_d.nii": (lambda v: bytes(_nifti(np.stack([v, v], axis=3))), "choose one frame with --4d N"),
    "five_d.nii": (lambda v: bytes(_nifti(np.zeros((4, 4, 4, 2, 3), np.int16))), "5 dimensions"),
    "empty.nii": (lambda v: b"", "the file is empty"),
    "empty_gz.nii.gz": (lambda v: b"", "the file is empty"),
    "constant.nii": (lambda v: bytes(_nifti(np.full_like(v, 7))), "nothing to segment"),
    "zeros.nii": (lambda v: bytes(_nifti(np.zeros_like(v))), "nothing to segment"),
    "all_nan.nii": (lambda v: bytes(_nifti(np.full(v.shape, np.nan, np.float32))), ""),
    "truncated.nii": (lambda v: bytes(_nifti(v)[:-1000]), "truncated"),
    "truncated_gz.nii.gz": (lambda v: gzip.compress(_nifti(v))[:-1000], "truncated"),
    "short_inside.nii.gz": (lambda v: gzip.compress(_nifti(v)[:-1000]), "truncated"),
    "only_header.nii": (lambda v: bytes(_nifti(v)[:348]), "truncated"),
    "half_header.nii": (lambda v: bytes(_nifti(v)[:200]), "inside its header"),
    "bad_crc.nii.gz": (lambda v: _flipped_checksum(_nifti(v)), "corrupt"),
    "bad_stream.nii.gz": (lambda v: gzip.compress(_nifti(v))[:500] + bytes(2000), "copy or convert"),
    "text.nii.gz": (lambda v: b"This is a text file about a spinal cord.", "not a NIfTI volume"),
    "short_text.nii": (lambda v: b"no", "not a NIfTI volume"),
    "zipped_text.nii.gz": (lambda v: gzip.compress(b"This is a text file."), "not a NIfTI volume"),
    "zero_zoom.nii": (lambda v: _patched(v, _float(_PIXDIM + 4, 0.0)), "must be positive"),
    "negative_zoom.nii": (lambda v: _patched(v, _float(_PIXDIM + 4, -1.0)), "must be positive"),
    "nan_zoom.nii": (lambda v: _patched(v, _float(_PIXDIM + 8, np.nan)), "must be positive"),
    "giant_zoom.nii": (lambda v: _patched(v, _float(_PIXDIM + 4, 1e6)), "voxel sizes"),
    "singular.nii": (lambda v: _patched(v, _float(_SROW, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 2.5, 0)), "singular"),
    "zero_affine.nii": (lambda v: _patched(v, _float(_SROW, *[0.0] * 12)), "singular"),
    "nan_affine.nii": (lambda v: _patched(v, _float(_SROW, np.nan)), "not finite"),
    "bad_quaternion.nii": (lambda v: _patched(v, *_by_qform(_float(256, 3.0, 3.0, 3.0))), "mend"),
    "terabytes.nii": (lambda v: _patched(v, _TERABYTES), "promises"),
    "terabytes_gz.nii.gz": (lambda v: gzip.compress(_patched(v, _TERABYTES)), "promises"),
    "dim_zero.nii": (lambda v: _patched(v, _dim(3, 64, 0, 6)), "empty"),
    "dim_negative.nii": (lambda v: _patched(v, _dim(3, 64, -64, 6)), "empty"),
    "no_dims.nii": (lambda v: _patched(v, _dim(0)), "0 dimensions"),
    "many_dims.nii": (lambda v: _patched(v, _dim(77)), "dimensions"),
    "complex.nii": (lambda v: bytes(_nifti(v.astype(np.complex64))), "complex"),
    "rgb.nii": (
        lambda v: bytes(_nifti(np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")]))),
        "not numbers",
    ),
    "unknown_type.nii": (lambda v: _patched(v, (_DATATYPE, struct.pack("<h", 999))), "data type"),
    "quadruple.nii": (lambda v: _patched(v, (_DATATYPE, struct.pack("<h", 1536))), "not numbers"),
    "half_a_pair.hdr": (lambda v: _patched(v, (_MAGIC, b"ni1\0"))[:348], ".hdr/.img pair"),
    "half_a_pair.img": (lambda v: v.tobytes(), "not a NIfTI volume"),
    "one_voxel.nii": (lambda v: bytes(_nifti(v[:1, :1, :1])), "not an image"),
    "one_column.nii": (lambda v: bytes(_nifti(v[:1])), "not an image"),
    "far_offset.nii": (lambda v: _patched(v, _float(108, 1e30)), "byte"),
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, phantom: NDArray[Any]) -> dict[str, Any]:
    """One run over all bad files, a missing one and a folder with a volume's name."""
    folder = tmp_path_factory.mktemp("bad")
    for name, (content, _) in _BAD.items():
        (folder / name).write_bytes(content(phantom))
    (folder / "folder.nii.gz").mkdir()
    names = [*_BAD, "folder.nii.gz", "missing.nii.gz"]
    before = files_below(folder)
    report = folder.parent / f"{folder.name}.json"
    tracemalloc.start()
    try:
        code, out, err = fastseg(
            "run", *(folder / name for name in names), "-c", "t2", "-o", folder / "out", "--report", report
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    volumes = json.loads(report.read_text())["Volumes"]
    return {
        "code": code,
        "out": out,
        "err": err.splitlines(),
        "peak": peak,
        "left": sorted(set(files_below(folder)) - set(before)),
        "outcomes": {Path(volume["Input"]).name: volume for volume in volumes},
        "n": len(names),
    }


def test_bad_inputs_leave_records_only_and_exit_with_4(bad: dict[str, Any]) -> None:
    assert (bad["code"], bad["out"]) == (4, "")
    logs = [name for name in bad["left"] if name.startswith("out/logs/")]
    assert len(logs) == bad["n"]
    others = {
        "out",
        "out/.fastseg",
        "out/.fastseg/ledger.jsonl",
        "out/.fastseg/lock",
        "out/logs",
        "out/summary.tsv",
    }
    assert set(bad["left"]) - set(logs) == others


def test_each_bad_input_is_one_line_without_a_traceback(bad: dict[str, Any]) -> None:
    told = [line for line in bad["err"] if not line.startswith("fastseg: ")]  # without the summary
    assert len(told) == bad["n"]
    assert all(line.startswith("bad_input ") for line in told)
    assert not [line for line in bad["err"] if "Traceback" in line or "Error" in line]


@pytest.mark.parametrize("name", [*_BAD, "folder.nii.gz", "missing.nii.gz"])
def test_a_bad_input_is_told_as_such(bad: dict[str, Any], name: str) -> None:
    said = {"folder.nii.gz": "is a folder", "missing.nii.gz": "no such file"}
    outcome = bad["outcomes"][name]
    assert outcome["Status"] == "bad_input"
    assert (said.get(name) or _BAD[name][1]) in outcome["Message"]


def test_bad_inputs_take_no_memory(bad: dict[str, Any]) -> None:
    # The phantom has 50 kB; what remains is the reader's chunk of 4 MB and the modules' own.
    assert bad["peak"] < 100e6


@pytest.mark.parametrize("name", ["terabytes.nii", "terabytes_gz.nii.gz"])
def test_a_promise_of_terabytes_takes_no_memory(tmp_path: Path, phantom: NDArray[Any], name: str) -> None:
    path = tmp_path / name
    path.write_bytes(_BAD[name][0](phantom))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="TB"):
            read_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 1e6  # nothing but the header was read
    finally:
        tracemalloc.stop()


def test_a_well_packed_promise_takes_memory_only_for_what_arrives(tmp_path: Path) -> None:
    """A file that could hold what it promises, because zeros pack 1000:1, but ends early."""
    path = tmp_path / "early.nii.gz"
    header = _patched(np.zeros((2, 2, 2), np.int16), _dim(3, 2000, 2000, 100))[:352]  # 800 MB
    path.write_bytes(gzip.compress(header + bytes(20_000_000)) + bytes(800_000))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="copy or convert it again"):
            read_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 60e6  # 20 MB arrived, in a buffer that grows
    finally:
        tracemalloc.stop()


def test_a_file_in_the_place_of_the_output_folder(tmp_path: Path, phantom: NDArray[Any]) -> None:
    save(tmp_path / "a.nii", phantom, _AFFINE)
    (tmp_path / "out").write_text("in the way")
    before = files_below(tmp_path)
    code, out, err = fastseg("run", tmp_path / "a.nii", "-c", "t2", "-o", tmp_path / "out")
    assert (code, out) == (4, "")
    assert "is a file where a folder is needed; choose another" in err
    assert err.count("\n") == 1
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["four_d.nii", "text.nii.gz", "zero_zoom.nii", "constant.nii", "bad_crc.nii.gz"]
)
@pytest.mark.parametrize("command", ["centerline", "deepseg-sc"])
def test_the_other_commands_tell_bad_inputs_too(
    tmp_path: Path, phantom: NDArray[Any], command: str, name: str
) -> None:
    path, out = tmp_path / name, tmp_path / "out"
    path.write_bytes(_BAD[name][0](phantom))
    if command == "centerline":
        arguments, expected = [path, "-o", out], 4
    else:  # SCT knows 1 only; a constant image is no cord there
        arguments, expected = ["-i", path, "-ofolder", out, "-centerline", "cnn"], 1
    code, printed, err = fastseg(command, *arguments, "-c", "t2")
    assert (code, printed) == (expected, "")
    assert err.count("\n") == 1
    assert err.startswith("fastseg: error: ")
    assert files_below(tmp_path) == [name]


_DTYPES = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


def _good_files(voxels: NDArray[Any]) -> Iterator[tuple[str, bytes]]:
    small = (voxels // 16).astype(np.uint8)
    for dtype in _DTYPES:
        kind = np.dtype(dtype)
        values = small // 2 if kind == np.int8 else small if kind.itemsize == 1 else voxels
        yield f"dtype_{dtype}.nii.gz", gzip.compress(_nifti(values.astype(kind)))
    plain = _nifti(voxels)
    yield "plain.nii", bytes(plain)
    yield "plain_named_gz.nii.gz", bytes(plain)
    yield "gz_named_plain.nii", gzip.compress(plain)
    yield "UPPER.NII.GZ", gzip.compress(plain)
    yield "members.nii.gz", b"".join(gzip.compress(plain[n : n + 9999]) for n in range(0, len(plain), 9999))
    yield "garbage_after.nii.gz", gzip.compress(plain) + bytes(512)
    yield "nifti2.nii", bytes(_nifti(voxels, kind=nib.Nifti2Image))
    swapped = nib.Nifti1Image.from_bytes(bytes(plain)).header.as_byteswapped(">")
    yield "big_endian.nii", nib.Nifti1Image(voxels, None, swapped).to_bytes()
    yield "scaled.nii", _patched(voxels, _float(112, 0.25, -10.0))
    yield "one_frame.nii", bytes(_nifti(voxels[..., None]))
    yield "one_slice.nii", bytes(_nifti(voxels[:, :, 2:3]))
    yield "flat.nii", bytes(_nifti(voxels[:, :, 2]))
    yield "no_codes.nii", _patched(voxels, (_QFORM, bytes(4)))
    yield "qform_only.nii", _patched(voxels, *_by_qform())
    yield "both_forms.nii", _patched(voxels, (_QFORM, struct.pack("<2h", 3, 4)))
    far = voxels.astype(np.float32)
    far[0], far[-1, 0] = np.nan, np.inf
    yield "nan_background.nii", bytes(_nifti(far))
    yield "negative.nii", bytes(_nifti(voxels - np.int16(1000)))
    turned = nib.affines.from_matvec(
        nib.eulerangles.euler2mat(0.1, 0.15, 0.05) @ _AFFINE[:3, :3], [5.0, -30.0, 12.0]
    )
    yield "oblique.nii", bytes(_nifti(voxels, turned))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, phantom: NDArray[Any]) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("good")
    for name, content in _good_files(phantom):
        (folder / name).write_bytes(content)
    code, out, err = fastseg("run", folder, "-c", "t2", "-o", folder / "out", "--no-sidecar")
    return {"folder": folder, "code": code, "out": out, "err": err}


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def _mask_of(path: Path) -> Path:
    stem, _, _ = path.name.partition(".")
    return path.parent / "out" / f"{stem}_seg.nii.gz"


def test_sound_inputs_all_succeed(good: dict[str, Any]) -> None:
    failures = [
        line for line in good["err"].splitlines() if line.split()[0] not in ("ok", "warning:", "fastseg:")
    ]
    assert (good["code"], failures) == (0, [])
    assert len(good["out"].splitlines()) == sum(path.is_file() for path in good["folder"].iterdir())


_GOOD = [name for name, _ in _good_files(np.ones((8, 8, 6), np.int16))]


@pytest.mark.parametrize("name", _GOOD)
def test_the_mask_overlays_its_input_byte_for_byte(good: dict[str, Any], name: str) -> None:
    path = good["folder"] / name
    image, mask = nib.Nifti1Image, nib.Nifti1Image
    if name == "nifti2.nii":
        image = mask = nib.Nifti2Image
    before, after = _content(path)[:540], _content(_mask_of(path))[:540]
    if name != "nifti2.nii":
        assert [before[part] for part in _KEPT] == [after[part] for part in _KEPT]
        assert before[_DIM : _DIM + 16] == after[_DIM : _DIM + 16]
    found = mask.from_bytes(_content(_mask_of(path)))
    given = image.from_bytes(_content(path))
    assert found.shape == given.shape
    assert (found.affine == given.affine).all()
    assert found.header["descrip"] == given.header["descrip"]
    assert found.header.get_data_dtype() == np.uint8
    assert set(np.unique(np.asarray(found.dataobj))) == {0, 1}


@pytest.mark.parametrize("name", _GOOD)
def test_the_mask_of_the_same_voxels_is_the_same(good: dict[str, Any], name: str) -> None:
    def mask(which: str) -> NDArray[Any]:
        kind = nib.Nifti2Image if which == "nifti2.nii" else nib.Nifti1Image
        return np.asarray(kind.from_bytes(_content(_mask_of(good["folder"] / which))).dataobj)

    found, expected = mask(name).reshape(64, 64, -1), mask("plain.nii")
    if name in ("one_slice.nii", "flat.nii"):
        expected = expected[:, :, 2:3]
    shared = 2 * (found & expected).sum() / (found.sum() + expected.sum())
    if name in ("dtype_u1.nii.gz", "dtype_i1.nii.gz", "scaled.nii", "negative.nii", "nan_background.nii"):
        assert shared > 0.95  # other values, the same picture
    elif name in ("oblique.nii", "one_slice.nii", "flat.nii", "no_codes.nii"):
        assert shared > 0.8  # other geometry or neighbours, the same picture
    else:
        assert shared == 1
