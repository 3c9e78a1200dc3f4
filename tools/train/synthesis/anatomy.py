"""Sizes and shapes of the spine's surroundings: what is drawn for one sample, and how it changes along z.

Ranges are those of the literature on cord and canal morphometry (Frostell et al. 2016; Sherman et al. 1990)
widened by about a third, because a network that has seen too much fails less than one that has seen too
little. Lengths in mm, positions relative to the cord's centre.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tools.train.synthesis import tissues
from tools.train.synthesis.compiling import compiled
from tools.train.synthesis.shapes import N_ANGLES, between, chance, dent, superellipse, wobble

__all__ = [
    "ADRIFT",
    "CAUDA",
    "HEAD",
    "LIMB",
    "LUMBAR",
    "NECK",
    "NOTHING",
    "THORAX",
    "Anatomy",
    "Cord",
    "Spine",
    "Surroundings",
    "draw_anatomy",
]

# Regions. The last five hold no cord, or not in view.
NECK, THORAX, LUMBAR, CAUDA, HEAD, LIMB, ADRIFT, NOTHING = range(8)

_MAX_BLOBS, _MAX_ROOTS = 8, 26


class Cord(NamedTuple):
    """The cord and its sac; `present` is 0 where there is a sac without a cord, or no sac."""

    present: bool
    outline: NDArray[np.float64]  # (64,) mm
    tilt: float  # rad, around z
    half_width: float
    half_height: float
    horn_width: float  # of the grey matter's horns, as a share of the cord; 0: no grey matter is seen
    commissure: float
    central_canal: float
    lesion: NDArray[np.float64]  # x, y, semi-axes, first and last z; x, y, semi-axes of its other half
    sac: NDArray[np.float64]  # (64,) mm
    sac_x: float
    sac_y: float
    dura: float
    roots: NDArray[np.float64]  # (n, 3): x, y, radius


class Spine(NamedTuple):
    """Vertebra and disc around the sac."""

    half_width: float
    half_height: float
    front_gap: float  # between sac and vertebral body
    rim: float  # of cortical bone
    period: float  # of a vertebra with its disc, along z
    disc_height: float
    phase: float
    ring: float  # share of the period over which laminae close the canal
    lamina: float
    lamina_slit: float
    spinous_half_width: float
    spinous_length: float
    facet_x: float
    facet_radius: float
    artery_x: float
    artery_radius: float
    gap: NDArray[np.float64]  # (64,) epidural space
    metal: NDArray[np.float64]  # x, y, semi-axes, first and last z; a semi-axis of 0: none


class Surroundings(NamedTuple):
    """The body around the spine."""

    half_width: float
    half_height: float
    front: float  # of the body's centre before the cord
    fat: float  # below the skin
    septa: float  # how much fat runs between the muscles
    airway_y: float
    airway_a: float
    airway_b: float
    lung_x: float
    lung_y: float
    lung_a: float  # 0: none
    lung_b: float
    bones: NDArray[np.float64]  # (n, 5): x, y, semi-axes, thickness of the cortex; of limbs
    blobs: NDArray[np.float64]  # (n, 5): x, y, semi-axes, tissue
    random: bool  # everything outside the sac is texture


class Anatomy(NamedTuple):
    """One sample's anatomy, and its change per mm of z."""

    region: int
    cord: Cord
    spine: Spine
    around: Surroundings
    slope_x: float
    slope_y: float
    bend_x: float  # mm, of a wave along z
    bend_y: float
    wavelength: float
    taper: float  # relative change of the cord's size
    widening: float  # relative change of the sac's size


@compiled
def _cord_size(region: int) -> tuple[float, float, bool]:
    """Semi-axes, and whether it is the medulla."""
    kind = np.random.random()
    if region == LUMBAR:
        if kind < 0.45:  # conus
            return between(1.5, 4.2), between(1.5, 3.6), False
        return between(3.6, 5.6), between(2.8, 4.6), False
    if region == THORAX:
        return between(3.4, 5.4), between(2.6, 4.1), False
    if kind < 0.72:
        return between(4.8, 7.5), between(2.9, 4.7), False
    if kind < 0.88:
        return between(3.8, 5.4), between(2.8, 4.2), False
    return between(5.0, 8.0), between(4.5, 6.6), True


@compiled
def _draw_roots(cord: NDArray[np.float64], sac: NDArray[np.float64], region: int) -> NDArray[np.float64]:
    roots = np.zeros((_MAX_ROOTS, 3))
    n = 0
    if region == CAUDA:
        n = np.random.randint(8, _MAX_ROOTS)
        behind = between(-0.6, 0.3)  # lying on the back, the roots sink
        for q in range(n):
            angle, part = between(0.0, 2 * np.pi), np.sqrt(np.random.random()) * 0.9
            reach = sac[int(angle / 2 / np.pi * N_ANGLES) % N_ANGLES] * part
            roots[q, 0] = reach * np.cos(angle)
            roots[q, 1] = reach * np.sin(angle) + behind * sac[0] * (1 - part)
            roots[q, 2] = between(0.35, 1.1)
    elif chance(0.5 if region != LUMBAR else 0.8):
        n = np.random.randint(1, 9)
        if chance(0.12) or (region == LUMBAR and chance(0.5)):
            n = _MAX_ROOTS - 2
        for q in range(n):
            angle = between(0.0, 2 * np.pi)
            reach = cord[int(angle / 2 / np.pi * N_ANGLES) % N_ANGLES] + between(0.2, 3.5)
            roots[q, 0], roots[q, 1] = reach * np.cos(angle), reach * np.sin(angle)
            roots[q, 2] = between(0.25, 0.8)
    return roots[:n]


@compiled
def _draw_lesion(a: float, b: float) -> NDArray[np.float64]:
    lesion = np.zeros(10)
    if chance(0.28):
        large = chance(0.4)
        lesion[0], lesion[1] = between(-0.7, 0.7) * a, between(-0.7, 0.7) * b
        lesion[2] = between(0.4, 1.0) * a if large else between(0.4, 2.2)
        lesion[3] = between(0.4, 1.0) * b if large else between(0.4, 2.2)
        lesion[4] = between(-15.0, 3.0)
        lesion[5] = lesion[4] + between(4.0, 40.0)
        # Few are ellipses: a second one beside the first makes other shapes.
        lesion[6] = lesion[0] + np.random.randn() * lesion[2] * 0.7
        lesion[7] = lesion[1] + np.random.randn() * lesion[3] * 0.7
        lesion[8], lesion[9] = between(0.3, 1.0) * lesion[2], between(0.3, 1.0) * lesion[3]
    return lesion


@compiled
def _draw_cord(region: int) -> Cord:
    a, b, medulla = _cord_size(region)
    if region == CAUDA:
        a, b = between(4.0, 6.0), between(3.0, 5.0)
    outline = superellipse(a, b, between(1.8, 2.7))
    flattening = between(-0.25, 0.15)
    for i in range(N_ANGLES):
        s = np.sin(i * 2 * np.pi / N_ANGLES)
        if s > 0:
            outline[i] *= 1 + flattening * s * s * 0.5
    wide, high = a + between(0.8, 6.5), b + between(0.6, 5.0)
    if medulla:
        wide, high = a + between(2.0, 11.0), b + between(1.5, 9.0)
    elif region == CAUDA:
        wide, high = between(6.0, 11.0), between(5.0, 9.0)
    elif chance(0.13):  # stenosis: almost no CSF, the cord pressed flat
        wide, high = a + between(0.3, 3.0), b + between(0.0, 0.5)
    sac = superellipse(wide, high, between(1.8, 2.6))
    triangle = between(-0.05, 0.3)
    for i in range(N_ANGLES):
        sac[i] *= 1 + 0.3 * triangle * np.sin(i * 2 * np.pi / N_ANGLES)
    if chance(0.1):  # compression by a disc or a ligament
        side = np.pi / 2 if chance(0.75) else -np.pi / 2
        side += np.random.randn() * 0.4
        width, depth = between(0.3, 0.9), between(0.1, 0.45)
        dent(outline, side, width, depth)
        dent(sac, side, width, depth)
    cord_wobble, sac_wobble = wobble(0.03, 6), wobble(0.05, 7)
    for i in range(N_ANGLES):
        outline[i] *= 1 + cord_wobble[i]
        sac[i] *= 1 + sac_wobble[i]
    present = region <= LUMBAR
    grey = chance(0.75)
    return Cord(
        present,
        outline,
        between(-0.6, 0.6) if chance(0.05) else np.random.randn() * 0.12,
        0.5 * (outline[0] + outline[N_ANGLES // 2]),
        0.5 * (outline[N_ANGLES // 4] + outline[3 * N_ANGLES // 4]),
        between(0.08, 0.22) if grey else 0.0,
        between(0.06, 0.2),
        between(0.2, 0.8) if chance(0.15) else (between(0.8, 1.8) if chance(0.02) else 0.0),
        _draw_lesion(a, b),
        sac,
        between(-0.15, 0.15) * (wide - a),
        between(-0.6, 0.6) * (high - b),
        between(0.0, 0.7) if chance(0.6) else 0.0,
        _draw_roots(outline, sac, region),
    )


@compiled
def _draw_spine(cord: Cord, region: int) -> Spine:
    large = 1.0 if region == NECK else (1.15 if region == THORAX else 1.4)
    gap = 1 + wobble(0.5, 5)
    scale = between(0.3, 4.0)
    for i in range(N_ANGLES):
        behind = between(0.8, 1.0) * 1.2 if np.sin(i * 2 * np.pi / N_ANGLES) < -0.7 else 0.0
        gap[i] = scale * max(0.1, gap[i] + behind)
    metal = np.zeros(6)
    if chance(0.05):
        angle, reach = between(0.0, 2 * np.pi), between(4.0, 20.0)
        metal[0], metal[1] = reach * np.cos(angle), reach * np.sin(angle)
        metal[2], metal[3] = between(2.0, 9.0), between(2.0, 9.0)
        metal[4] = between(-12.0, 4.0)
        metal[5] = metal[4] + between(3.0, 30.0)
    return Spine(
        between(8.0, 16.0) * large,
        between(6.0, 12.0) * large,
        scale * 0.4,
        between(0.3, 1.6),
        between(13.0, 22.0) * large,
        between(3.0, 8.0) * large,
        between(0.0, 40.0),
        between(0.3, 1.0),
        between(2.0, 8.0),
        between(0.0, 0.25) if chance(0.6) else 0.0,
        between(1.2, 4.0),
        between(5.0, 35.0),
        between(10.0, 18.0) * large,
        between(3.0, 8.0) * large,
        between(11.0, 19.0),
        between(1.0, 3.2),
        gap,
        metal,
    )


@compiled
def _draw_blobs(region: int, reach: float) -> NDArray[np.float64]:
    """Vessels, nodes, glands, bowel; a bright or dark ring now and then, as a decoy of the sac."""
    n = np.random.randint(0, _MAX_BLOBS)
    kinds = np.array(
        [tissues.FAT, tissues.MARROW, tissues.EPIDURAL, tissues.VESSEL, tissues.SOFT_A, tissues.SOFT_A,
         tissues.AIR, tissues.SOFT_B, tissues.CORTEX, tissues.OTHER_MUSCLE, tissues.CSF]
    )  # fmt: skip
    blobs = np.zeros((n, 5))
    large = 8.0 if region == NECK else 22.0
    for q in range(n):
        angle, distance = between(0.0, 2 * np.pi), between(14.0, reach)
        size = large if distance > 35 else 8.0
        blobs[q, 0], blobs[q, 1] = distance * np.cos(angle), distance * np.sin(angle)
        blobs[q, 2], blobs[q, 3] = between(1.0, size), between(1.0, size)
        blobs[q, 4] = kinds[np.random.randint(len(kinds))]
    return blobs


@compiled
def _draw_bones(half_width: float, half_height: float, front: float) -> NDArray[np.float64]:
    """Tubes of cortex around marrow: the rings that look most like a spinal canal, and are none."""
    bones = np.zeros((np.random.randint(0, 4), 5))
    for q in range(len(bones)):
        bones[q, 0] = between(-0.5, 0.5) * half_width
        bones[q, 1] = front + between(-0.5, 0.5) * half_height
        size = between(0.1, 0.35) * min(half_width, half_height)
        bones[q, 2], bones[q, 3] = size * between(0.7, 1.3), size * between(0.7, 1.3)
        bones[q, 4] = between(0.8, 5.0)
    return bones


@compiled
def _draw_surroundings(cord: Cord, spine: Spine, region: int, reach: float, random: bool) -> Surroundings:
    spine_front = cord.sac_y + cord.sac[N_ANGLES // 4] + 2 * spine.half_height
    if region == LIMB:
        half_width, half_height = between(22.0, 90.0), between(22.0, 90.0)
        front, lung_a = between(-30.0, 30.0), 0.0
    elif region == NECK or (region == CAUDA and chance(0.1)):
        half_width, half_height, front = between(45.0, 95.0), between(42.0, 85.0), between(-12.0, 32.0)
        lung_a = 0.0
    else:
        half_width, half_height, front = between(110.0, 200.0), between(70.0, 130.0), between(10.0, 70.0)
        lung_a = between(25.0, 60.0) if region == THORAX and chance(0.8) else 0.0
    return Surroundings(
        half_width,
        half_height,
        front,
        between(1.0, 12.0) if region in (NECK, LIMB) else between(3.0, 30.0),
        between(0.0, 0.12),
        spine_front + between(5.0, 18.0),
        between(4.0, 12.0) if region <= THORAX else 0.1,
        between(3.0, 12.0) if region <= THORAX else 0.1,
        between(30.0, 80.0) + lung_a * 0.6,
        between(-10.0, 60.0),
        lung_a,
        between(35.0, 80.0),
        _draw_bones(half_width, half_height, front) if region == LIMB else np.zeros((0, 5)),
        _draw_blobs(region, reach),
        random,
    )


@compiled
def draw_anatomy(region: int, reach: float, random: bool) -> Anatomy:
    """Draw one anatomy.

    Parameters
    ----------
    region : one of this module's constants
    reach : mm from the cord, over which things are drawn
    random : whether all outside the sac is texture
    """
    cord = _draw_cord(region)
    spine = _draw_spine(cord, region)
    around = _draw_surroundings(cord, spine, region, reach, random)
    steep = 2.5 if chance(0.15) else 1.0
    return Anatomy(
        region,
        cord,
        spine,
        around,
        np.random.randn() * 0.05 * steep,
        np.random.randn() * 0.09 * steep,
        np.random.randn() * 1.5,
        np.random.randn() * 4.0,
        between(80.0, 260.0),
        np.random.randn() * 0.002,
        np.random.randn() * 0.004,
    )
