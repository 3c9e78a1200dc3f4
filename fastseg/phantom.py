"""An analytic neck, for demos and tests. It is a phantom: no accuracy may be claimed from it.

The neck is a function of a point in space and of a seed; images of it are drawn on any grid. Sizes of cord
and canal are those of a healthy adult's cervical spine (cord about 13 x 8 mm, Frostell et al. 2016,
doi:10.3389/fneur.2016.00238), everything else is made to look like a neck and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fastseg.errors import OptionError
from fastseg.volume import Grid, Volume

__all__ = ["make_phantom"]

_Image = NDArray[np.float32]
_Labels = NDArray[np.int8]

#: Height in mm of one vertebral body with its disc.
_LEVEL = 17.0
_DISC = 4.5
#: Signal in the image per unit of the table below.
_SCALE = 800.0
#: Standard deviation of the noise in each channel of the receiver, same unit.
_NOISE = 0.02
#: Parts of a voxel along each axis, for partial volume; odd, so that no voxel is exactly half cord.
_FINE = 3
_WAVES = 12


class _Tissue(IntEnum):
    AIR = 0
    MUSCLE = 1
    FAT = 2
    MARROW = 3
    CORTEX = 4
    DISC = 5
    EPIDURAL = 6
    CSF = 7
    WHITE = 8
    GREY = 9
    DURA = 10
    ROOT = 11
    VESSEL = 12


# Signal of each tissue. T2: bright CSF, dark flow; T1: dark CSF, white above grey matter; T2*: bright CSF and
# flow, grey above white matter; mean diffusion-weighted image: the cord alone.
_SIGNAL = {
    #        air muscle fat  marrow cortex disc epidural CSF white grey  dura  root vessel
    "t1": (0.00, 0.50, 0.90, 0.60, 0.08, 0.42, 0.75, 0.26, 0.76, 0.68, 0.22, 0.60, 0.12),
    "t2": (0.00, 0.13, 0.55, 0.28, 0.04, 0.32, 0.45, 0.95, 0.38, 0.43, 0.12, 0.40, 0.04),
    "t2s": (0.0, 0.40, 0.42, 0.14, 0.04, 0.34, 0.32, 0.88, 0.50, 0.60, 0.18, 0.52, 1.00),
    "dwi": (0.0, 0.10, 0.07, 0.06, 0.03, 0.07, 0.06, 0.08, 0.88, 0.84, 0.05, 0.30, 0.03),
}
# How much of the texture each tissue carries, relative to its signal.
_TEXTURE = np.array([0, 0.22, 0.12, 0.12, 0, 0.08, 0.1, 0.05, 0.02, 0.02, 0, 0, 0], np.float32)
_IS_CORD = np.array([each in (_Tissue.WHITE, _Tissue.GREY) for each in _Tissue], np.float32)


def make_phantom(
    contrast: str = "t2",
    *,
    shape: tuple[int, int] = (64, 64),
    n_slices: int = 40,
    zooms: tuple[float, float, float] = (1.0, 1.0, 2.5),
    seed: int = 0,
    axcodes: tuple[str, str, str] = ("R", "A", "S"),
) -> tuple[Volume, Volume]:
    """Draw an image of an analytic neck, and the mask of its spinal cord.

    For demos and tests only: what a method scores here says nothing about its accuracy in people.

    Parameters
    ----------
    contrast : t1, t2, t2s or dwi
    shape : voxels from side to side, and from back to front
    n_slices : axial slices
    zooms : mm, from side to side, back to front, and between slices
    seed : another neck, and other noise; equal arguments give equal voxels
    axcodes : nibabel's codes of the axes of the result

    Returns
    -------
    image : int16
    mask : uint8 0/1, voxels that are at least half cord

    Raises
    ------
    OptionError
        The contrast is not known, or there is nothing to draw.

    Examples
    --------
    >>> image, mask = make_phantom("t2", n_slices=6)
    >>> image.voxels.shape, str(image.voxels.dtype), image.grid.axcodes
    ((64, 64, 6), 'int16', ('R', 'A', 'S'))
    >>> area = mask.voxels.sum(axis=(0, 1))
    >>> bool((area > 60).all() and (area < 100).all())
    True
    """
    if contrast not in _SIGNAL:
        raise OptionError(f"contrast {contrast!r}: choose one of {', '.join(_SIGNAL)}")
    nx, ny = shape
    if min(nx, ny) < 2 or n_slices < 1 or not min(zooms) > 0:
        raise OptionError("a phantom needs at least 2 x 2 voxels, one slice, and voxel sizes above 0")
    random = np.random.default_rng(seed)
    neck = _Neck.draw(random)
    signal = np.array(_SIGNAL[contrast], np.float32)
    x, y, z = (_positions(n, zoom) for n, zoom in zip((nx, ny, n_slices), zooms, strict=True))
    middle_x, middle_y, middle_z = (each[_FINE // 2 :: _FINE] for each in (x, y, z))
    soft_tissue = _soft_tissue(x, y)
    image, cord = (np.zeros((n_slices, nx, ny), np.float32) for _ in range(2))
    for index, height in enumerate(z):
        tissue = soft_tissue.copy()
        neck.paint(tissue, x, y, float(height))
        rough = _mean(signal * _TEXTURE, tissue) * neck.texture(middle_x, middle_y, float(height))
        image[index // _FINE] += (_mean(signal, tissue) + rough) / _FINE
        cord[index // _FINE] += _mean(_IS_CORD, tissue) / _FINE
    image *= _coil(middle_x[:, None], middle_y, middle_z[:, None, None])
    noisy = np.abs(image + _NOISE * (_noise(random, image.shape) + 1j * _noise(random, image.shape)))
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = -np.array(zooms) * (np.array([nx, ny, n_slices]) - 1) / 2
    grid = Grid((nx, ny, n_slices), affine)
    voxels = np.rint(noisy * _SCALE).astype(np.int16).transpose(1, 2, 0)
    mask = (cord >= 0.5).astype(np.uint8).transpose(1, 2, 0)
    return Volume(voxels, grid).reoriented(axcodes), Volume(mask, grid).reoriented(axcodes)


def _positions(n: int, zoom: float) -> _Image:
    """Centres in mm of the parts of n voxels, 0 in the middle."""
    return (((np.arange(n * _FINE) + 0.5) / _FINE - n / 2) * zoom).astype(np.float32)


def _mean(table: _Image, tissue: _Labels) -> _Image:
    """Mean of a property of tissues over each voxel's cross-section."""
    values = table[tissue]
    rows = sum((values[i::_FINE] for i in range(1, _FINE)), values[::_FINE])
    return np.asarray(sum((rows[:, i::_FINE] for i in range(1, _FINE)), rows[:, ::_FINE]) / _FINE**2)


def _coil(x: _Image, y: _Image, z: _Image) -> _Image:
    """Sensitivity of a coil behind the neck: brighter there, weaker at the ends."""
    return np.asarray(1.08 - 0.22 * y / 70 - 0.06 * x / 70 - 0.12 * (z / 90) ** 2, np.float32).clip(0.3)


def _noise(random: np.random.Generator, shape: tuple[int, ...]) -> _Image:
    return random.standard_normal(shape, np.float32)


def _soft_tissue(x: _Image, y: _Image) -> _Labels:
    """Skin, fat, muscles, vessels and airway: the same at every height."""
    u, v = x[:, None], y[None, :]
    side = np.abs(u)
    tissue = np.full((len(x), len(y)), _Tissue.MUSCLE, np.int8)
    # Fat between the muscles of the back, and between them and the skin.
    septa = np.abs(np.sin(0.16 * np.hypot(u, v + 12) + 0.5 * np.sin(0.1 * v))) < 0.06
    tissue[septa & (v < -8)] = _Tissue.FAT
    tissue[(side < 0.9) & (v < -12)] = _Tissue.FAT
    tissue[(side > 20) & (np.abs(v - 12 - 0.15 * side) < 2.0)] = _Tissue.FAT
    tissue[_ellipse(side - 23, v - 17, 3.6, 3.2)] = _Tissue.VESSEL  # carotid artery
    tissue[_ellipse(side - 27, v - 14, 4.2, 3.0)] = _Tissue.FAT
    tissue[_ellipse(u, v - 36, 9.5, 8.0)] = _Tissue.CORTEX  # cartilage around the airway
    tissue[_ellipse(u, v - 36, 7.8, 6.5)] = _Tissue.AIR
    tissue[~_ellipse(u, v - 5, 56, 50.5)] = _Tissue.FAT
    tissue[~_ellipse(u, v - 5, 62, 56)] = _Tissue.AIR
    return tissue


@dataclass(frozen=True, slots=True)
class _Neck:
    """What differs from one neck to the next; positions in mm, y from back to front, z upwards."""

    size: float
    flatness: float
    lordosis: float
    scoliosis: float
    phase: float
    twist: float
    waves: NDArray[np.float64]

    @classmethod
    def draw(cls, random: np.random.Generator) -> _Neck:
        # The texture is a sum of waves: direction and length of each in mm, and its phase.
        direction = random.standard_normal((_WAVES, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = random.uniform(4, 14, (_WAVES, 1))
        return cls(
            size=random.uniform(0.96, 1.06),
            flatness=random.uniform(0.97, 1.03),
            lordosis=random.uniform(3.0, 5.0),
            scoliosis=random.uniform(-1.5, 1.5),
            phase=random.uniform(0, _LEVEL),
            twist=random.uniform(-0.06, 0.06),
            waves=np.column_stack([2 * np.pi * direction / length, random.uniform(0, 2 * np.pi, _WAVES)]),
        )

    def texture(self, x: _Image, y: _Image, z: float) -> _Image:
        """Smooth, mean 0, about -1..1: what tissue looks like that is not uniform."""
        kx, ky, kz, phase = self.waves.T
        along_x = np.outer(x, kx)
        along_y = np.outer(ky, y) + (kz * z + phase)[:, None]
        # cos(a + b) = cos a cos b - sin a sin b, summed over the waves
        left = np.hstack([np.cos(along_x), -np.sin(along_x)]).astype(np.float32)
        right = np.vstack([np.cos(along_y), np.sin(along_y)]).astype(np.float32)
        # Not matmul: its threads cost more than they save here.
        total: _Image = np.einsum("ik,kj->ij", left, right)
        return total * np.float32(np.sqrt(1 / _WAVES))

    def paint(self, tissue: _Labels, x: _Image, y: _Image, z: float) -> None:
        """Paint spine and cord over the soft tissue of a slice."""
        # Cervical lordosis: the middle of the neck is convex to the front.
        x = x - np.float32(self.scoliosis * np.sin(z / 40))
        y = y - np.float32(self.lordosis * (np.cos(2 * np.pi * z / 240) - 0.5))
        place = (z + self.phase) % _LEVEL  # above the middle of the disc below
        in_disc = min(place, _LEVEL - place) < _DISC / 2
        # Cervical enlargement at the middle of the neck.
        enlarged = np.exp(-((z / 30) ** 2))
        a = float(self.size * (5.5 + 0.9 * enlarged))
        b = float(self.size * self.flatness * (3.75 + 0.25 * enlarged))
        canal_a, canal_b = a + 3.0, b + 2.6 - (0.7 if in_disc else 0.0)

        part, u, v = self._around(tissue, x, y, (13, canal_b, canal_b + 19))
        _paint_vertebra(part, np.abs(u), v, place, canal_b + 1.0)
        part, u, v = self._around(tissue, x, y, (22, -8, 11))
        _paint_joints(part, np.abs(u), v, in_disc)
        part, u, v = self._around(tissue, x, y, (15, -canal_b - 25, 5))
        _paint_arch(part, np.abs(u), v, _LEVEL * 0.3 < place < _LEVEL * 0.75, canal_a, canal_b)
        part, u, v = self._around(tissue, x, y, (13, -12, 12))
        part[_ellipse(u, v + 0.3, canal_a + 1.4, canal_b + 1.3)] = _Tissue.EPIDURAL
        part[_ellipse(u, v, canal_a + 0.5, canal_b + 0.5)] = _Tissue.DURA
        part[_ellipse(u, v, canal_a, canal_b)] = _Tissue.CSF
        _paint_cord(part, np.abs(u), v, a, b)

    def _around(
        self, tissue: _Labels, x: _Image, y: _Image, box: tuple[float, float, float]
    ) -> tuple[_Labels, _Image, _Image]:
        """Part of a slice within `box` (half width, back, front) of the cord, turned by the twist."""
        i = slice(*np.searchsorted(x, (-box[0], box[0])))
        j = slice(*np.searchsorted(y, box[1:]))
        u, v = x[i, None], y[None, j]
        return tissue[i, j], u + self.twist * v, v - self.twist * u


def _paint_vertebra(tissue: _Labels, side: _Image, v: _Image, place: float, front: float) -> None:
    to_disc = min(place, _LEVEL - place) - _DISC / 2
    in_disc = to_disc < 0
    width, depth = (11.5, 8.2) if in_disc else (10.5, 7.6)
    # A box with round corners.
    reach = ((side / width) ** 2) ** 2 + (((v - front - depth) / depth) ** 2) ** 2
    tissue[reach < 1] = _Tissue.CORTEX
    inner = _Tissue.CORTEX if abs(to_disc) < 0.5 else _Tissue.DISC if in_disc else _Tissue.MARROW
    tissue[reach < (0.9 if in_disc else 0.75)] = inner


def _paint_joints(tissue: _Labels, side: _Image, v: _Image, in_disc: bool) -> None:
    tissue[_ellipse(side - 15.5, v + 1.5, 5.5, 5.5)] = _Tissue.CORTEX
    if not in_disc:
        tissue[_ellipse(side - 15.5, v + 1.5, 4.6, 4.6)] = _Tissue.MARROW
    tissue[_ellipse(side - 13.0, v - 7.0, 2.4, 2.4)] = _Tissue.FAT
    tissue[_ellipse(side - 13.0, v - 7.0, 1.7, 1.7)] = _Tissue.VESSEL  # vertebral artery


def _paint_arch(tissue: _Labels, side: _Image, v: _Image, bone: bool, canal_a: float, canal_b: float) -> None:
    behind = v < canal_b * 0.4
    thick = _ellipse(side, v, canal_a + 5.0, canal_b + 5.5) & behind
    tissue[thick] = _Tissue.CORTEX  # bone, or the yellow ligament, which is as dark
    if bone:
        middle = ~_ellipse(side, v, canal_a + 2.0, canal_b + 2.2)
        tissue[_ellipse(side, v, canal_a + 4.2, canal_b + 4.6) & middle & behind] = _Tissue.MARROW
        tissue[(side < 3.0) & (v < -canal_b - 3) & (v > -canal_b - 24)] = _Tissue.CORTEX
        tissue[(side < 2.1) & (v < -canal_b - 3.8) & (v > -canal_b - 23)] = _Tissue.MARROW
    else:
        tissue[thick & (side < 1.5)] = _Tissue.EPIDURAL


def _paint_cord(tissue: _Labels, out: _Image, v: _Image, a: float, b: float) -> None:
    for beside, back in ((1.16, -0.62), (1.2, 0.45)):
        tissue[_ellipse(out - beside * a, v - back * b, 0.9, 0.45)] = _Tissue.ROOT
    side, depth = out / a, v / b
    # A superellipse, flatter in front.
    inside = side**2.25 + np.abs(depth * (1 + 0.06 * np.sign(depth))) ** 2.25 < 1
    horn_front = _ellipse(side - 0.3, depth - 0.26, 0.17, 0.26)
    along = np.clip((0.1 - depth) / 0.75, 0, 1)
    horn_back = (np.abs(side - 0.2 - 0.22 * along) < 0.105 - 0.04 * along) & (np.abs(depth + 0.25) < 0.42)
    middle = (side < 0.3) & (np.abs(depth - 0.05) < 0.09)
    tissue[inside] = _Tissue.WHITE
    tissue[inside & (horn_front | horn_back | middle)] = _Tissue.GREY
    tissue[inside & (side < 0.035) & (depth > 0.6)] = _Tissue.CSF  # anterior median fissure


def _ellipse(u: _Image, v: _Image, a: float, b: float) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (u * u) / (a * a) + (v * v) / (b * b) < 1
    return inside
