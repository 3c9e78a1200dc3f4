"""One slice of an anatomy as a map of tissues, and the part of each pixel that the cord's mask takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tools.train.synthesis import anatomy as regions
from tools.train.synthesis import tissues
from tools.train.synthesis.anatomy import Anatomy, Cord, Spine, Surroundings
from tools.train.synthesis.compiling import compiled, inlined
from tools.train.synthesis.shapes import N_ANGLES, inside_ellipse, radius_at

__all__ = ["centre_at", "paint"]


@compiled
def centre_at(anatomy: Anatomy, z: float) -> tuple[float, float]:
    """Where the cord is at a height z, relative to where it is at 0; mm."""
    turn = 2 * np.pi * z / anatomy.wavelength
    wave = np.sin(turn) - turn  # starts flat: the slope is the slope's business
    return (
        anatomy.slope_x * z + anatomy.bend_x * wave * 0.2,
        anatomy.slope_y * z + anatomy.bend_y * wave * 0.2,
    )


@inlined
def _cord_tissue(cord: Cord, x: float, y: float, scale: float, z: float) -> int:
    """Tissue at a point inside the cord. The horns' form follows no atlas: an arc from back to front."""
    canal = cord.central_canal
    if x * x + y * y < canal * canal:
        return tissues.CANAL
    lesion = cord.lesion
    if lesion[2] > 0 and lesion[4] <= z <= lesion[5]:
        if inside_ellipse(x - lesion[0], y - lesion[1], lesion[2], lesion[3]):
            return tissues.LESION
        if inside_ellipse(x - lesion[6], y - lesion[7], lesion[8], lesion[9]):
            return tissues.LESION
    if cord.horn_width > 0:
        u, v = abs(x) / (cord.half_width * scale + 0.01), y / (cord.half_height * scale + 0.01)
        if -0.8 < v < 0.55:
            middle = 0.30 + 0.18 * ((v + 0.05) * 1.2) ** 2
            width = cord.horn_width * (0.6 + 0.55 * max(0.0, v + 0.25))
            if v < -0.55:
                width *= (v + 0.8) / 0.25
            if v > 0.4:
                width *= (0.55 - v) / 0.15
            if abs(u - middle) < width:
                return tissues.GREY
        if u < 0.35 and abs(v + 0.02) < cord.commissure:
            return tissues.GREY
        if abs(x) < 0.22 and v > 0.65:
            return tissues.FISSURE
    return tissues.WHITE


@inlined
def _share(
    cord: Cord, angle: float, edge: float, scale: float, inside: float, margin: float, pixel: float
) -> float:
    """Part of a pixel that is in the mask, `inside` mm from the cord's edge along the radius."""
    if inside > 3 * (margin + pixel):
        return 1.0
    if inside < margin - pixel:
        return 0.0
    # Distances along the radius are longer than across the boundary where that is oblique.
    turn = (radius_at(cord.outline, angle + 0.05) - radius_at(cord.outline, angle - 0.05)) * scale
    inside /= np.sqrt(1 + (turn / 0.1 / edge) ** 2)
    return min(max((inside - margin) / pixel + 0.5, 0.0), 1.0)


@inlined
def _sac_tissue(cord: Cord, x: float, y: float, depth: float) -> int:
    """Tissue at a point between cord and dura, `depth` mm inside the sac."""
    for q in range(len(cord.roots)):
        radius = cord.roots[q, 2]
        if (x - cord.roots[q, 0]) ** 2 + (y - cord.roots[q, 1]) ** 2 < radius * radius:
            return tissues.ROOT
    return tissues.DURA if depth < cord.dura else tissues.CSF


@inlined
def _bone(spine: Spine, cord: Cord, x: float, y: float, rr: float, angle: float, sac: float, z: float) -> int:
    """Vertebra, disc, laminae, processes and facets; -1 elsewhere."""
    phase = (z + spine.phase) / spine.period
    phase -= np.floor(phase)
    front = cord.sac_y + cord.sac[N_ANGLES // 4]
    middle = front + spine.front_gap + spine.half_height
    inside = (abs(x) / spine.half_width) ** 3 + (abs(y - middle) / spine.half_height) ** 2.5
    if inside < 1 and y > front + spine.front_gap * 0.5 - 1:
        if inside > 1 - spine.rim / spine.half_height * 2.5:
            return tissues.CORTEX
        return tissues.DISC if phase * spine.period < spine.disc_height else tissues.MARROW
    gap = radius_at(spine.gap, angle)
    if rr < sac + gap:
        return tissues.EPIDURAL
    back = cord.sac_y - cord.sac[3 * N_ANGLES // 4] - gap
    if phase < spine.ring:
        thick = spine.lamina * (1 + 0.35 * np.cos(2 * angle))
        slit = spine.lamina_slit > 0 and abs(abs(x) - rr * 0.85) < rr * spine.lamina_slit
        if rr < sac + gap + thick and not slit:
            rim = rr < sac + gap + spine.rim or rr > sac + gap + thick - spine.rim
            return tissues.CORTEX if rim else tissues.POSTERIOR_MARROW
        if abs(x) < spine.spinous_half_width and back - spine.spinous_length < y < back:
            rim = abs(x) > spine.spinous_half_width - spine.rim
            return tissues.CORTEX if rim else tissues.POSTERIOR_MARROW
    distance = np.hypot(abs(x) - spine.facet_x, y - cord.sac_y + 2)
    if distance < spine.facet_radius:
        rim = distance > spine.facet_radius - spine.rim
        return tissues.CORTEX if rim else tissues.POSTERIOR_MARROW
    if np.hypot(abs(x) - spine.artery_x, y - cord.sac_y - 4) < spine.artery_radius:
        return tissues.VESSEL
    return -1


@inlined
def _body(around: Surroundings, x: float, y: float, f1: float, f2: float, f3: float) -> int:
    """Skin to muscle, with airway, lungs and whatever lies about."""
    if not inside_ellipse(x, y - around.front, around.half_width, around.half_height):
        return tissues.AIR
    tissue = tissues.MUSCLE
    if not inside_ellipse(
        x, y - around.front, around.half_width - around.fat, around.half_height - around.fat
    ):
        return tissues.FAT
    if abs(f1) < around.septa:
        tissue = tissues.FAT
    elif f2 > 0.7:
        tissue = tissues.OTHER_MUSCLE
    if y > around.airway_y - around.airway_b and f3 > 0.9:
        tissue = tissues.SOFT_A
    if inside_ellipse(x, y - around.airway_y, around.airway_a, around.airway_b):
        return tissues.AIR
    if around.lung_a > 0 and inside_ellipse(
        abs(x) - around.lung_x, y - around.lung_y, around.lung_a, around.lung_b
    ):
        return tissues.AIR if f3 < 1.2 else tissues.VESSEL
    return tissue


@compiled
def _texture(f1: float, f2: float, f3: float) -> int:
    if f1 + f2 > 1.2:
        return tissues.VESSEL
    if f2 + f3 < -1.4:
        return tissues.CORTEX
    if f1 > f2 and f1 > f3:
        return tissues.MUSCLE
    return tissues.MARROW if f2 > f3 else tissues.EPIDURAL


@inlined
def _head(around: Surroundings, x: float, y: float, f1: float, f2: float, f3: float) -> int:
    """Scalp, skull and brain; the brain's folds are texture, its ventricles and cisterns CSF."""
    a, b = around.half_width * 0.5 + 30, around.half_height * 0.5 + 45
    y = y - around.front * 0.5
    if not inside_ellipse(x, y, a, b):
        return tissues.AIR
    skin, bone = a - around.fat * 0.5, a - around.fat * 0.5 - 6
    if not inside_ellipse(x, y, skin, b - around.fat * 0.5):
        return tissues.FAT
    if not inside_ellipse(x, y, bone, b - around.fat * 0.5 - 6):
        return tissues.CORTEX if f3 < 0.8 else tissues.MARROW
    if not inside_ellipse(x, y, bone - 3, b - around.fat * 0.5 - 9) or abs(f1) < 0.1 + around.septa * 0.5:
        return tissues.CSF
    if y > around.airway_y + 10 and f3 > 0.6:  # sinuses
        return tissues.AIR
    if f2 > 1.3:  # ventricles
        return tissues.CSF
    return tissues.BRAIN_GREY if abs(f1) < 0.45 else tissues.BRAIN_WHITE


@compiled
def paint(
    anatomy: Anatomy,
    z: float,
    pixel: float,
    centre: tuple[float, float],
    margin: float,
    warp: NDArray[np.float32],
    fields: NDArray[np.float32],
    tissue: NDArray[np.int8],
    mask: NDArray[np.float32],
) -> None:
    """Paint one slice.

    Parameters
    ----------
    anatomy : what to paint
    z : mm along the cord
    pixel : mm, side of a pixel
    centre : mm, where the cord's centre at z = 0 lies, from the slice's middle
    margin : mm by which the mask stays inside the cord's boundary
    warp : (2, n, n) float32   mm by which a pixel's place is moved along x and y
    fields : (3, n, n) float32   smooth random fields, for muscles and the like
    tissue : (n, n) int8       filled
    mask : (n, n) float32      filled: 1 in the mask, 0 outside, between at its edge
    """
    n = tissue.shape[0]
    cord, spine, around = anatomy.cord, anatomy.spine, anatomy.around
    shift_x, shift_y = centre_at(anatomy, z)
    cos, sin = np.cos(cord.tilt), np.sin(cord.tilt)
    scale = min(max(1 + anatomy.taper * z, 0.75), 1.25)
    sac_scale = min(max(1 + anatomy.widening * z, 0.8), 1.25)
    has_sac = anatomy.region <= regions.CAUDA
    reach = cord.outline.max() * scale + 1.0
    metal = spine.metal
    has_metal = metal[2] > 0 and metal[4] <= z <= metal[5]
    for i in range(n):
        for j in range(n):
            mask[i, j] = 0.0
            f1, f2, f3 = fields[0, i, j], fields[1, i, j], fields[2, i, j]
            left = (i - n / 2 + 0.5) * pixel + warp[0, i, j] - centre[0] - shift_x
            front = (j - n / 2 + 0.5) * pixel + warp[1, i, j] - centre[1] - shift_y
            if anatomy.region == regions.NOTHING:
                tissue[i, j] = tissues.AIR
                continue
            x, y = cos * left + sin * front, -sin * left + cos * front
            if anatomy.region == regions.HEAD:
                tissue[i, j] = _head(around, x, y, f1, f2, f3)
                continue
            what = -1
            if has_sac:
                sx, sy = x - cord.sac_x, y - cord.sac_y
                rr = np.sqrt(sx * sx + sy * sy)
                angle = np.arctan2(sy, sx)
                sac = radius_at(cord.sac, angle) * sac_scale
                r = np.sqrt(x * x + y * y)
                if cord.present and r < reach:
                    theta = np.arctan2(y, x)
                    edge = radius_at(cord.outline, theta) * scale
                    if r < edge:
                        what = _cord_tissue(cord, x, y, scale, z)
                    mask[i, j] = _share(cord, theta, edge, scale, edge - r, margin, pixel)
                if what < 0 and rr < sac:
                    what = _sac_tissue(cord, x, y, sac - rr)
                if what < 0 and around.random:
                    what = tissues.DURA if rr < sac + cord.dura else _texture(f1, f2, f3)
                if what < 0:
                    what = _bone(spine, cord, x, y, rr, angle, sac, z)
                    if what == tissues.EPIDURAL and f3 < -1.0:
                        what = tissues.SOFT_B
            elif around.random:
                what = _texture(f1, f2, f3)
            if what < 0:
                what = _body(around, x, y, f1, f2, f3)
                if what != tissues.AIR:
                    for q in range(len(around.bones)):
                        bone = around.bones[q]
                        if inside_ellipse(x - bone[0], y - bone[1], bone[2] + bone[4], bone[3] + bone[4]):
                            marrow = inside_ellipse(x - bone[0], y - bone[1], bone[2], bone[3])
                            what = tissues.MARROW if marrow else tissues.CORTEX
                    for q in range(len(around.blobs)):
                        if inside_ellipse(
                            x - around.blobs[q, 0],
                            y - around.blobs[q, 1],
                            around.blobs[q, 2],
                            around.blobs[q, 3],
                        ):
                            what = int(around.blobs[q, 4])
            if has_metal and inside_ellipse(x - metal[0], y - metal[1], metal[2], metal[3]):
                what = tissues.METAL
            tissue[i, j] = what
