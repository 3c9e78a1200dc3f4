"""Input number N of a seed: a small sound volume, and what was done to its bytes.

The same seed and number give the same bytes, on any machine with the same zlib.
"""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import nibabel as nib
import numpy as np

__all__ = ["DAMAGES", "Input", "make_input"]

_DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
_ORDERS: tuple[Literal["<", ">"], ...] = ("<", "<", ">")
_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
#: Content of the largest gzip bomb, and of the largest promise that is kept.
_BOMB_BYTES = 48_000_000

_Random = random.Random


@dataclass(frozen=True, slots=True)
class Input:
    """One input of the fuzz.

    Parameters
    ----------
    number : of the input
    content : bytes of the file
    frame : that is asked for
    story : what was done to it, one word a step
    sound : whether it has to be read, because nothing was done to it
    """

    number: int
    content: bytes
    frame: object
    story: tuple[str, ...]
    sound: bool


def make_input(seed: int, number: int) -> Input:
    """Make an input from nothing but its seed and number."""
    rng = random.Random(f"{seed}/{number}")
    plain, n_frames = _volume(rng)
    story = ["plain"]
    damages = rng.choices((0, 1, 2, 3), (2, 60, 28, 10))[0]
    for _ in range(damages):
        name = rng.choice(tuple(DAMAGES))
        plain = DAMAGES[name](plain, rng)
        story.append(name)
    content = plain
    if rng.random() < 0.6:
        packing = rng.choice(tuple(_PACKINGS)) if damages else "gzip"
        content = _PACKINGS[packing](plain, rng)
        story[0] = packing
        if damages and rng.random() < 0.3:
            name = rng.choice(tuple(_STREAM_DAMAGES))
            content = _STREAM_DAMAGES[name](content, rng)
            story.append(f"stream_{name}")
    frame, fits = _frame(rng, n_frames)
    return Input(number, content, frame, tuple(story), sound=not damages and fits)


def _volume(rng: _Random) -> tuple[bytes, int]:
    """A sound file, uncompressed, and the number of its volumes."""
    kind, order = _HEADERS[rng.choice((348, 348, 540))], rng.choice(_ORDERS)
    n_axes = rng.choices((2, 3, 4, 5), (1, 8, 3, 1))[0]
    shape = [rng.randint(2, 24), rng.randint(2, 24), rng.randint(1, 12), rng.randint(1, 3), 1][:n_axes]
    dtype = np.dtype(rng.choice(_DTYPES)).newbyteorder(order)
    header = kind(endianness=order)
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    zooms = [rng.uniform(0.3, 2.0), rng.uniform(0.3, 2.0), rng.uniform(0.5, 6.0)]
    affine = np.diag([rng.choice((-1, 1)) * zooms[0], zooms[1], zooms[2], 1.0])
    affine[:3, 3] = [rng.uniform(-200, 200) for _ in range(3)]
    header.set_sform(affine, rng.choice((0, 1, 2)))
    header.set_qform(affine, rng.choice((0, 1)))
    header["pixdim"][1:4] = zooms
    offset = header.single_vox_offset + rng.choice((0, 0, 0, 16, 496))
    header["vox_offset"], header["magic"] = offset, header.single_magic
    header["scl_slope"], header["scl_inter"] = rng.choice(((1, 0), (float("nan"), 0), (0.5, -3), (0, 0)))
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    voxels = rng.randbytes(n_bytes) if rng.random() < 0.5 else bytes(n_bytes)
    block = header.binaryblock
    return block + bytes(offset - len(block)) + voxels, shape[3] if n_axes > 3 else 1


def _frame(rng: _Random, n_frames: int) -> tuple[object, bool]:
    """What is asked for, and whether a file of so many volumes has it."""
    if rng.random() < 0.9:
        frame: object = rng.choice((None, "mean", 0)) if n_frames == 1 else rng.choice(("mean", n_frames - 1))
        return frame, True
    odd = (
        -1,
        n_frames,
        10**12,
        -(10**30),
        10**30,
        True,
        1.5,
        float("nan"),
        "median",
        b"mean",
        (),
        np.int64(0),
    )
    return rng.choice(odd), False


# Damage to the uncompressed bytes ---------------------------------------------------------------------------


def _flip_header(content: bytes, rng: _Random) -> bytes:
    return _flip(content, rng, min(len(content), 352))


def _flip_anywhere(content: bytes, rng: _Random) -> bytes:
    return _flip(content, rng, len(content))


def _flip(content: bytes, rng: _Random, end: int) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8) if end else 0):
        changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set_field(content: bytes, rng: _Random) -> bytes:
    """One number of the header becomes an extreme of its type."""
    length = 540 if content[:4] in (struct.pack("<i", 540), struct.pack(">i", 540)) else 348
    order = "<" if content[:4] == struct.pack("<i", length) else ">"
    fields = _HEADERS[length].template_dtype.fields
    assert fields is not None
    kind, start, *_ = fields[rng.choice(tuple(fields))]
    kind, count = (kind.subdtype[0], int(np.prod(kind.shape))) if kind.subdtype else (kind, 1)
    start += rng.randrange(count) * kind.itemsize
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        ends = (limits.min, limits.max)
        value = rng.choice((0, 1, 2, 3, 4, -1, *ends, rng.randint(*ends)))
        new = np.array(max(value, limits.min)).astype(kind.newbyteorder(order)).tobytes()
    elif kind.kind == "f":
        odd = (
            float("nan"),
            float("inf"),
            float("-inf"),
            float(np.finfo(kind).max),
            float(np.finfo(kind).tiny),
        )
        value_ = rng.choice((0.0, -0.0, 1.0, -1.0, 5e-324, 1e10, -1e10, 351.5, rng.uniform(-400, 400), *odd))
        new = np.array(value_).astype(kind.newbyteorder(order)).tobytes()
    else:
        new = rng.randbytes(kind.itemsize)
    return content[:start] + new + content[start + len(new) :]


def _lie_about_shape(content: bytes, rng: _Random) -> bytes:
    """Axes that promise a little more or less than there is, or anything at all."""
    dims = [rng.choice((1, 2, 3, 7, 24, 255, 4096, 32767)) for _ in range(7)]
    dims = [rng.choice((rng.randint(1, 4), rng.randint(1, 7))), *dims]
    start, form = (16, "q") if content[:4] in (struct.pack("<i", 540), struct.pack(">i", 540)) else (40, "h")
    order = "<" if content[:4] in (struct.pack("<i", 348), struct.pack("<i", 540)) else ">"
    packed = struct.pack(f"{order}8{form}", *dims)
    keep = rng.choice((1, 2, 4, 8)) * (len(packed) // 8)
    packed = packed[:keep] if rng.random() < 0.5 else packed
    return content[:start] + packed + content[start + len(packed) :]


def _cut(content: bytes, rng: _Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _cut_short(content: bytes, rng: _Random) -> bytes:
    return content[: -rng.randint(1, 16)]


def _splice(content: bytes, rng: _Random) -> bytes:
    """Bytes go, come, or are put in a second time."""
    place, size = rng.randrange(len(content) + 1), rng.randint(1, 64)
    middle = rng.choice((b"", rng.randbytes(size), content[place : place + size] * 2))
    return content[:place] + middle + content[place + rng.choice((0, size)) :]


def _append(content: bytes, rng: _Random) -> bytes:
    return content + rng.choice((bytes(512), rng.randbytes(rng.randint(1, 600)), b"\x1f\x8b", content))


def _noise(content: bytes, rng: _Random) -> bytes:
    return content[: rng.choice((0, 4, 40, 348, 352))] + rng.randbytes(rng.randint(0, 2000))


#: What can be done to a volume before it is compressed.
DAMAGES: dict[str, Callable[[bytes, _Random], bytes]] = {
    "flip_header": _flip_header,
    "flip_anywhere": _flip_anywhere,
    "set_field": _set_field,
    "set_field_again": _set_field,
    "lie_about_shape": _lie_about_shape,
    "cut": _cut,
    "cut_short": _cut_short,
    "splice": _splice,
    "append": _append,
    "noise": _noise,
}

# Ways to compress, sound and mean ---------------------------------------------------------------------------


def _gzip(content: bytes, rng: _Random) -> bytes:
    return gzip.compress(content, rng.choice((0, 1, 6)), mtime=0)


def _members(content: bytes, rng: _Random) -> bytes:
    size = rng.randint(1, 4000)
    return b"".join(_gzip(content[n : n + size], rng) for n in range(0, min(len(content), 100 * size), size))


def _empty_members(content: bytes, rng: _Random) -> bytes:
    empty = _gzip(b"", rng) * rng.choice((1, 100, 1000))
    return rng.choice((empty + _gzip(content, rng), _gzip(content, rng) + empty))


def _bomb(content: bytes, rng: _Random) -> bytes:
    """Zeros follow, up to a thousand times the size of the file."""
    most = rng.choice((10**5, 10**6, 10**6, 10**6, _BOMB_BYTES))
    return gzip.compress(content + bytes(rng.randint(1, most)), 1, mtime=0)


def _kept_promise(content: bytes, rng: _Random) -> bytes:
    """A header that promises much, and gets much of it: zeros pack 1000:1."""
    size = rng.choice((10**5, 10**6, 4 * 10**6, 10**7))
    side = max(int((size / rng.choice((1, 2, 8))) ** (1 / 3)), 2)
    if len(content) < 352 or content[:4] != struct.pack("<i", 348):
        return _gzip(content, rng)
    header = content[:40] + struct.pack("<4h", 3, side, side, side) + content[48:352]
    return gzip.compress(header + bytes(size), 1, mtime=0)


def _twice(content: bytes, rng: _Random) -> bytes:
    return _gzip(_gzip(content, rng), rng)


def _odd_gzip_header(content: bytes, rng: _Random) -> bytes:
    """Name, comment, extra field and checksum of the header, there or only announced.

    64 kB at most: fastseg hands so much of it to igzip at once, which takes no more pieces of all of them.
    """
    flags = rng.randrange(256)
    parts = [b"\x1f\x8b\x08" + bytes([flags]) + rng.randbytes(6)]
    if flags & 4 and rng.random() < 0.8:
        extra = rng.randbytes(rng.choice((0, 5, 60000)))
        parts.append(struct.pack("<H", len(extra)) + extra)
    for flag in (8, 16):
        if flags & flag and rng.random() < 0.8:
            parts.append(b"n" * rng.choice((0, 5, 2000)) + b"\0")
    if flags & 2 and rng.random() < 0.8:
        parts.append(struct.pack("<H", zlib.crc32(b"".join(parts)) & 0xFFFF))
    squeezer = zlib.compressobj(1, zlib.DEFLATED, -15)
    parts += [squeezer.compress(content), squeezer.flush()]
    parts.append(struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF))
    return b"".join(parts)


_PACKINGS: dict[str, Callable[[bytes, _Random], bytes]] = {
    "gzip": _gzip,
    "gzip_again": _gzip,
    "members": _members,
    "empty_members": _empty_members,
    "bomb": _bomb,
    "kept_promise": _kept_promise,
    "twice": _twice,
    "odd_gzip_header": _odd_gzip_header,
}
_STREAM_DAMAGES: dict[str, Callable[[bytes, _Random], bytes]] = {
    "flip": _flip_anywhere,
    "flip_head": lambda content, rng: _flip(content, rng, min(len(content), 20)),
    "flip_tail": lambda content, rng: content[:-8] + _flip(content[-8:], rng, len(content[-8:])),
    "cut": _cut,
    "cut_short": _cut_short,
    "splice": _splice,
    "append": _append,
}
