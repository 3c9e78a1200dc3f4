"""Slices without a cord: phantoms that have none, and real volumes with a cord-free third.

What a detector reports on them is a false alarm. The makers are seeded; what is not real about their slices
is said with each of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fastseg.errors import InputError
from fastseg.phantom import make_phantom
from fastseg.volume import SCT_RPI, Grid, Volume
from tools.evaluation.metrics import covered
from tools.evaluation.volumes import Case, Phantoms, Slab

__all__ = ["BODIES", "ENDS", "FILLS", "CordFree", "cord_free_cases", "make_phantom_body", "with_slab"]

_Image = NDArray[np.float64]

#: How far from the cord's outermost voxel tissue is taken, in mm: beside it beyond the canal, the joints and
#: what mirrored would look like a canal again; in front of it from the vertebral body on.
_BESIDE, _BEFORE = 20.0, 12.0
#: A part of the field that is narrower shows nothing of an anatomy, in mm.
_NARROWEST = 20.0
#: Side of the patches among which the darkest is taken for air, in mm.
_PATCH = 12.0
#: Strength of the noise where there is nothing else, as a part of the volume's 99th percentile.
_NOISE = 0.1

_SHAPE, _SLICES, _ZOOMS = (96, 96), 20, (1.0, 1.0, 2.5)
#: Signal of air, muscle, fat, cortical bone and marrow; roughly those of fastseg.phantom.
_SIGNAL = {
    "t1": (0.0, 0.50, 0.90, 0.08, 0.60),
    "t2": (0.0, 0.13, 0.55, 0.04, 0.28),
    "t2s": (0.0, 0.40, 0.42, 0.04, 0.14),
    "dwi": (0.0, 0.10, 0.07, 0.03, 0.06),
}
_UNIT = 800.0


@dataclass(frozen=True)
class CordFree:
    """A volume with slices that hold no cord.

    Parameters
    ----------
    name : unique
    contrast : to run it as
    make : draws the image, and says which slices (z,) of SCT_RPI are free; their rest holds a cord or nothing
    source : the case that lent its other slices; None: a phantom, all of whose slices are free
    """

    name: str
    contrast: str
    make: Callable[[], tuple[Volume, NDArray[np.bool_]]]
    source: Case | None = None


def cord_free_cases(
    phantoms: Phantoms | None,
    slabs: Sequence[Slab],
    cases: Mapping[str, Case],
    load: Callable[[Case], tuple[Volume, Volume]],
) -> list[CordFree]:
    """All volumes with cord-free slices that the list asks for; none is made yet.

    Parameters
    ----------
    cases : by name
    load : reads a case: image and reference

    Raises
    ------
    InputError
        A body, fill or end is not known.
    """
    found = []
    for body in phantoms.bodies if phantoms else ():
        for contrast in phantoms.contrasts if phantoms else ():
            found.append(_phantom(body, contrast, phantoms.seed if phantoms else 0))
    for slab in slabs:
        for name in slab.volumes:
            found += [_patched(cases[name], fill, end, load) for fill in slab.fills for end in slab.ends]
    return found


def _phantom(body: str, contrast: str, seed: int) -> CordFree:
    if body not in BODIES or contrast not in _SIGNAL:
        raise InputError(
            f"volumes.toml: no phantom {body!r} in {contrast!r}: choose one of {', '.join(BODIES)}"
        )

    def make() -> tuple[Volume, NDArray[np.bool_]]:
        volume = make_phantom_body(body, contrast, seed=seed)
        return volume, np.ones(volume.reoriented(SCT_RPI).grid.shape[2], np.bool_)

    return CordFree(f"phantom-{body}-{contrast}", contrast, make)


def _patched(case: Case, fill: str, end: str, load: Callable[[Case], tuple[Volume, Volume]]) -> CordFree:
    if fill not in FILLS or end not in ENDS:
        raise InputError(
            f"volumes.toml: no slab {fill!r} at the {end!r} end: choose one of {', '.join(FILLS)} and one of "
            f"{', '.join(ENDS)}"
        )

    def make() -> tuple[Volume, NDArray[np.bool_]]:
        return with_slab(*load(case), fill=fill, end=end, seed=zlib.crc32(case.name.encode()))

    return CordFree(f"{case.name}+{fill}-{end}", case.contrast, make, case)


# --- phantoms


def make_phantom_body(body: str, contrast: str, *, seed: int = 0) -> Volume:
    """Draw a phantom in which there is no cord.

    neck
        fastseg's phantom; everything within 24 mm of its cord (cord, canal, most of the vertebra) is painted
        over with what looks like muscle.
    limb
        A thigh: muscle, a rim of fat, and a bone, whose marrow in its dark cortex is a round decoy.
    noise
        Rician noise and nothing else.
    air
        Zeros, which fastseg refuses: no cord is reported.

    Parameters
    ----------
    body : as above
    contrast : t1, t2, t2s or dwi
    seed : other shapes and other noise
    """
    return BODIES[body](contrast, np.random.default_rng([seed, zlib.crc32(f"{body} {contrast}".encode())]))


def _neck(contrast: str, random: np.random.Generator) -> Volume:
    image, mask = make_phantom(
        contrast, shape=_SHAPE, n_slices=_SLICES, zooms=_ZOOMS, seed=int(random.integers(1 << 30))
    )
    voxels = image.voxels.astype(np.float64)
    x, y = np.indices(_SHAPE)
    fade = np.empty(voxels.shape)
    for z in range(_SLICES):
        centre = np.argwhere(mask.voxels[..., z]).mean(axis=0)
        fade[..., z] = np.clip((24 - np.hypot(x - centre[0], y - centre[1])) / 4, 0, 1)
    muscle = _SIGNAL[contrast][1] * _UNIT * (1 + 0.2 * _texture(random, voxels.shape))
    painted = _noisy(random, muscle, 0.02 * _UNIT)
    return Volume(np.rint(fade * painted + (1 - fade) * voxels).astype(np.int16), image.grid)


def _limb(contrast: str, random: np.random.Generator) -> Volume:
    shape = (*_SHAPE, _SLICES)
    x, y, z = (axis - (n - 1) / 2 for axis, n in zip(np.indices(shape), shape, strict=True))
    along = z / _SLICES
    bone = np.hypot(x - 4 - 6 * along, y - 6 + 5 * along)
    radius = random.uniform(10, 13)
    tissue = np.zeros(shape, np.int64)
    around = np.hypot(x / 42, y / 38)
    tissue[around < 1] = 2
    tissue[around < 0.88] = 1
    tissue[bone < radius] = 3
    tissue[bone < 0.6 * radius] = 4
    signal = np.array(_SIGNAL[contrast])[tissue] * _UNIT
    smooth = ndimage.gaussian_filter(signal, (0.6, 0.6, 0))
    return _volume(_noisy(random, smooth * (1 + 0.15 * _texture(random, shape)), 0.02 * _UNIT))


def _noise_only(contrast: str, random: np.random.Generator) -> Volume:
    return _volume(_noisy(random, np.zeros((*_SHAPE, _SLICES)), _NOISE * _UNIT))


def _air_only(contrast: str, random: np.random.Generator) -> Volume:
    return _volume(np.zeros((*_SHAPE, _SLICES)))


#: Phantoms without a cord, by name.
BODIES: dict[str, Callable[[str, np.random.Generator], Volume]] = {
    "neck": _neck,
    "limb": _limb,
    "noise": _noise_only,
    "air": _air_only,
}


def _volume(voxels: _Image) -> Volume:
    return Volume(np.rint(voxels).astype(np.int16), Grid((*_SHAPE, _SLICES), np.diag([*_ZOOMS, 1.0])))


def _texture(random: np.random.Generator, shape: tuple[int, ...]) -> _Image:
    """Smooth, mean 0, standard deviation 1; structures of a few millimetres."""
    rough = ndimage.gaussian_filter(random.standard_normal(shape), (2.5, 2.5, 1.0))
    return np.asarray(rough / rough.std())


def _noisy(random: np.random.Generator, signal: _Image, sigma: float) -> _Image:
    """Magnitude of a signal with Gaussian noise in both channels of the receiver."""
    channels = sigma * random.standard_normal((2, *signal.shape))
    return np.asarray(np.hypot(signal + channels[0], channels[1]))


# --- cord-free thirds of real volumes


def with_slab(
    image: Volume, reference: Volume, *, fill: str, end: str, seed: int = 0
) -> tuple[Volume, NDArray[np.bool_]]:
    """Replace the upper or lower third of a volume's slices by slices in which there is no cord.

    lateral
        Each slice's own part beside the spine: the wider side, from 20 mm beside the outermost cord voxel of
        the slab to the edge, mirrored again and again across the field. Real muscle, fat and air with the
        scan's own noise; the seams, and the symmetry about them, are not real.
    front
        The same with the part in front of the canal, from 12 mm before the foremost cord voxel, mirrored
        backwards: vertebrae, throat and air. For sagittal scans, which are too narrow for the other.
    noise
        Rician noise, as strong as a tenth of the volume's 99th percentile: slices beyond the coil, scaled up.
    air
        Voxels of the scan's own background, drawn at random from the 12 x 12 mm patch that is darkest over
        all slices: its noise without its correlation. Zeros where the scanner has masked the background.

    Parameters
    ----------
    image : any orientation
    reference : bool on the same grid, with at least one voxel
    fill : lateral, front, noise or air
    end : upper or lower
    seed : of the random fills

    Returns
    -------
    image : in the same orientation and dtype
    free : (z,) bool, slices of SCT_RPI without a cord

    Raises
    ------
    InputError
        The part beside or in front of the spine is narrower than 20 mm.
    """
    native, mask = image.reoriented(SCT_RPI), np.asarray(reference.reoriented(SCT_RPI).voxels)
    voxels = np.array(native.voxels)
    n_slices = voxels.shape[2]
    deep = max(n_slices // 3, 1)
    free = np.zeros(n_slices, np.bool_)
    free[ENDS[end](n_slices, deep)] = True
    random = np.random.default_rng(seed)
    new = FILLS[fill](voxels, mask, free, native.grid.zooms, random)
    voxels[..., free] = np.rint(new) if np.issubdtype(voxels.dtype, np.integer) else new
    return Volume(voxels, native.grid).reoriented(image.grid.axcodes), free


def _lateral(
    voxels: NDArray[np.generic],
    mask: NDArray[np.bool_],
    free: NDArray[np.bool_],
    zooms: tuple[float, float, float],
    random: np.random.Generator,
) -> NDArray[np.generic]:
    """Mirror the part beside the spine across the slab."""
    low, high = _extent(mask, free, 0)
    margin = int(np.ceil(_BESIDE / zooms[0]))
    left, right = low - margin, voxels.shape[0] - 1 - high - margin
    _check_wide(max(left, right) * zooms[0], "beside")
    slab, rest = voxels[..., free], voxels.shape[0] - max(left, right)
    if left >= right:
        return np.pad(slab[:left], ((0, rest), (0, 0), (0, 0)), mode="symmetric")
    return np.pad(slab[-right:], ((rest, 0), (0, 0), (0, 0)), mode="symmetric")


def _front(
    voxels: NDArray[np.generic],
    mask: NDArray[np.bool_],
    free: NDArray[np.bool_],
    zooms: tuple[float, float, float],
    random: np.random.Generator,
) -> NDArray[np.generic]:
    """Mirror the part in front of the spine across the slab."""
    start = _extent(mask, free, 1)[1] + 1 + int(np.ceil(_BEFORE / zooms[1]))
    _check_wide((voxels.shape[1] - start) * zooms[1], "in front of")
    return np.pad(voxels[:, start:, free], ((0, 0), (start, 0), (0, 0)), mode="symmetric")


def _extent(mask: NDArray[np.bool_], free: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """First and last voxel of the cord in the slab, along an axis in plane.

    Where the reference misses slices of the slab, the cord may lie anywhere that it does elsewhere.
    """
    known = covered(mask)[free].all()
    where = np.flatnonzero(mask[..., free if known else slice(None)].any(axis=(1 - axis, 2)))
    return int(where[0]), int(where[-1])


def _check_wide(width_mm: float, where: str) -> None:
    if width_mm < _NARROWEST:
        raise InputError(
            f"only {max(width_mm, 0):.0f} mm lie {where} the spine: take another fill in the list"
        )


def _noise_slab(
    voxels: NDArray[np.generic],
    mask: NDArray[np.bool_],
    free: NDArray[np.bool_],
    zooms: tuple[float, float, float],
    random: np.random.Generator,
) -> NDArray[np.generic]:
    sigma = _NOISE * float(np.percentile(np.asarray(voxels, np.float64), 99))
    return _noisy(random, np.zeros((*voxels.shape[:2], int(free.sum()))), sigma)


def _air_slab(
    voxels: NDArray[np.generic],
    mask: NDArray[np.bool_],
    free: NDArray[np.bool_],
    zooms: tuple[float, float, float],
    random: np.random.Generator,
) -> NDArray[np.generic]:
    size = [max(min(int(_PATCH / zoom), n), 1) for zoom, n in zip(zooms, voxels.shape[:2], strict=False)]
    mean = np.asarray(voxels, np.float64).mean(axis=2)
    windows = np.lib.stride_tricks.sliding_window_view(mean, size).mean(axis=(2, 3))
    x, y = np.unravel_index(int(windows.argmin()), windows.shape)
    air = voxels[x : x + size[0], y : y + size[1]].ravel()
    return random.choice(air, (*voxels.shape[:2], int(free.sum())))


_Fill = Callable[
    [
        NDArray[np.generic],
        NDArray[np.bool_],
        NDArray[np.bool_],
        tuple[float, float, float],
        np.random.Generator,
    ],
    NDArray[np.generic],
]
#: What cord-free slices are made of, by name.
FILLS: dict[str, _Fill] = {"lateral": _lateral, "front": _front, "noise": _noise_slab, "air": _air_slab}
#: Which slices, from foot to head, by name.
ENDS: dict[str, Callable[[int, int], slice]] = {
    "upper": lambda n, deep: slice(n - deep, n),
    "lower": lambda n, deep: slice(0, deep),
}
