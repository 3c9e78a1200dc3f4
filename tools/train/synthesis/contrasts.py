"""How bright each tissue is in T2-, T1-, T2*- and diffusion-weighted images, and in images of no known kind.

Ranges are relative to the brightest tissue. They are wide, and follow what is seen in clinical and research
protocols, not one scanner's physics. A quarter of the images have intensities of no known contrast, which
keeps the networks from trusting any single one (Billot et al. 2023).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tools.train.synthesis import tissues
from tools.train.synthesis.compiling import compiled
from tools.train.synthesis.shapes import between, chance

__all__ = ["DWI", "KINDS", "MARGINS", "MT", "RANDOM", "T1", "T2", "T2S", "draw_contrast", "draw_kind"]

T2, T1, T2S, DWI, MT, RANDOM = range(6)
KINDS = ("t2", "t1", "t2s", "dwi", "mt", "random")

#: mm by which masks stay inside the boundary, by kind: people draw inside the half-maximum contour, and how
#: far depends on the contrast.
MARGINS = np.array([0.15, 0.30, 0.11, 0.01, 0.30, 0.15])

_SHARES = np.array([0.25, 0.18, 0.17, 0.15, 0.07, 0.18])


@compiled
def draw_kind() -> int:
    """Draw a kind of contrast."""
    place, kind = np.random.random(), 0
    while kind < len(_SHARES) - 1 and place >= _SHARES[kind]:
        place -= _SHARES[kind]
        kind += 1
    return kind


@compiled
def _t2(m: NDArray[np.float64]) -> None:
    cord = between(0.15, 0.55)
    m[tissues.CSF] = between(max(0.55, cord + 0.2), 1.0)
    if chance(0.15):  # dark CSF: flow, or a fast protocol
        m[tissues.CSF] = cord + between(0.08, 0.3)
    m[tissues.WHITE], m[tissues.GREY] = cord, cord + between(-0.03, 0.12)
    m[tissues.MUSCLE], m[tissues.OTHER_MUSCLE] = between(0.02, 0.3), between(0.02, 0.35)
    m[tissues.FAT], m[tissues.EPIDURAL] = between(0.05, 0.9), between(0.1, 0.9)
    m[tissues.MARROW], m[tissues.POSTERIOR_MARROW] = between(0.03, 0.5), between(0.03, 0.5)
    m[tissues.CORTEX], m[tissues.DISC] = between(0.0, 0.12), between(0.03, 0.8)
    m[tissues.VESSEL] = between(0.0, 0.9) if chance(0.5) else between(0.0, 0.1)
    m[tissues.SOFT_A], m[tissues.SOFT_B] = between(0.05, 0.7), between(0.0, 0.2)
    m[tissues.ROOT], m[tissues.DURA] = cord * between(0.7, 1.1), between(0.0, 0.25)
    m[tissues.LESION] = cord + between(0.1, 0.6) if chance(0.7) else between(0.7, 1.6)
    m[tissues.BRAIN_GREY], m[tissues.BRAIN_WHITE] = cord * between(1.0, 1.4), cord * between(0.8, 1.05)


@compiled
def _t1(m: NDArray[np.float64]) -> None:
    cord = between(0.5, 0.95)
    m[tissues.CSF] = cord * between(0.1, 0.68)
    m[tissues.WHITE], m[tissues.GREY] = cord, cord * between(0.82, 1.0)
    m[tissues.MUSCLE], m[tissues.OTHER_MUSCLE] = cord * between(0.4, 1.05), between(0.3, 0.7)
    m[tissues.FAT], m[tissues.EPIDURAL] = between(0.3, 1.1), between(0.3, 1.1)
    m[tissues.MARROW], m[tissues.POSTERIOR_MARROW] = between(0.2, 1.0), between(0.2, 1.0)
    m[tissues.CORTEX], m[tissues.DISC] = between(0.0, 0.2), cord * between(0.3, 0.9)
    m[tissues.VESSEL], m[tissues.SOFT_A] = between(0.0, 1.0), between(0.1, 1.0)
    m[tissues.SOFT_B] = between(0.0, 0.2)
    m[tissues.ROOT], m[tissues.DURA] = cord * between(0.6, 1.0), cord * between(0.2, 0.6)
    m[tissues.LESION] = cord * between(0.55, 1.1)
    m[tissues.BRAIN_GREY], m[tissues.BRAIN_WHITE] = cord * between(0.7, 0.95), cord * between(0.9, 1.15)


@compiled
def _t2s(m: NDArray[np.float64]) -> None:
    cord = between(0.35, 0.75)
    m[tissues.CSF] = between(cord * 0.9, 1.0)
    m[tissues.WHITE], m[tissues.GREY] = cord, cord * between(0.98, 1.35)
    m[tissues.MUSCLE], m[tissues.OTHER_MUSCLE] = between(0.2, 0.75), between(0.2, 0.8)
    m[tissues.FAT], m[tissues.EPIDURAL] = between(0.2, 1.0), between(0.1, 0.8)
    m[tissues.MARROW], m[tissues.POSTERIOR_MARROW] = between(0.03, 0.35), between(0.03, 0.4)
    m[tissues.CORTEX], m[tissues.DISC] = between(0.0, 0.15), between(0.1, 0.6)
    m[tissues.VESSEL], m[tissues.SOFT_A] = between(0.5, 1.3), between(0.3, 1.2)
    m[tissues.SOFT_B] = between(0.0, 0.3)
    m[tissues.ROOT], m[tissues.DURA] = cord * between(0.9, 1.2), between(0.0, 0.5)
    m[tissues.LESION] = cord * between(1.0, 1.5)
    m[tissues.BRAIN_GREY], m[tissues.BRAIN_WHITE] = cord * between(0.9, 1.2), cord * between(0.8, 1.1)
    if abs(m[tissues.CSF] - cord) < 0.08:
        m[tissues.CSF] = cord + 0.08


@compiled
def _mt(m: NDArray[np.float64]) -> None:
    """Gradient echo with or without a magnetisation transfer pulse: grey matter is hardly seen."""
    _t2s(m)
    cord = between(0.3, 0.6)
    m[tissues.WHITE], m[tissues.GREY] = cord, cord * between(0.95, 1.08)
    m[tissues.CSF] = cord * between(1.3, 2.4)
    m[tissues.MUSCLE], m[tissues.OTHER_MUSCLE] = between(0.2, 0.6), between(0.2, 0.6)
    m[tissues.ROOT], m[tissues.LESION] = cord * between(0.9, 1.1), cord * between(1.0, 1.4)


@compiled
def _dwi(m: NDArray[np.float64]) -> None:
    cord, rest = between(0.7, 1.0), between(0.0, 0.25)
    for tissue in range(tissues.N_TISSUES):
        m[tissue] = rest * between(0.3, 1.3)
    m[tissues.CSF], m[tissues.WHITE] = between(0.0, 0.2), cord
    m[tissues.GREY], m[tissues.FISSURE] = cord * between(0.55, 1.1), cord * between(0.7, 1.0)
    m[tissues.CORTEX], m[tissues.ROOT] = between(0.0, 0.05), cord * between(0.2, 0.9)
    m[tissues.LESION], m[tissues.CANAL] = cord * between(0.6, 1.2), cord * between(0.5, 1.0)
    m[tissues.BRAIN_GREY], m[tissues.BRAIN_WHITE] = cord * between(0.6, 1.1), cord * between(0.6, 1.1)
    if chance(0.3):
        m[tissues.FAT] = between(0.3, 0.9)  # not suppressed


@compiled
def _random(m: NDArray[np.float64]) -> None:
    while abs(m[tissues.CSF] - m[tissues.WHITE]) < 0.12:
        m[tissues.CSF], m[tissues.WHITE] = between(0.0, 1.0), between(0.0, 1.0)
    m[tissues.GREY] = m[tissues.WHITE] + between(-0.15, 0.15) * (1.0 if chance(0.7) else 0.3)
    if chance(0.6):
        m[tissues.AIR] = 0.0
    if chance(0.5):
        m[tissues.POSTERIOR_MARROW] = m[tissues.MARROW]
    if chance(0.5):
        m[tissues.OTHER_MUSCLE] = m[tissues.MUSCLE] + between(-0.1, 0.1)


@compiled
def draw_contrast(kind: int) -> NDArray[np.float64]:
    """Draw the mean intensity of every tissue for a kind of contrast; 0 to about 1.3."""
    m = np.random.random(tissues.N_TISSUES)
    m[tissues.AIR] = 0.0 if kind != RANDOM else m[tissues.AIR]
    share = between(0.0, 0.6)
    if kind == T2:
        _t2(m)
    elif kind == T1:
        _t1(m)
    elif kind == T2S:
        _t2s(m)
    elif kind == DWI:
        _dwi(m)
    elif kind == MT:
        _mt(m)
    else:
        _random(m)
    if chance(0.25):
        m[tissues.LESION] = between(0.0, 1.4)
    if kind != DWI:
        m[tissues.FISSURE] = m[tissues.WHITE] * (1 - share) + m[tissues.CSF] * share
        part = between(0.0, 0.9)
        m[tissues.CANAL] = m[tissues.WHITE] * (1 - part) + m[tissues.CSF] * part
    m[tissues.METAL] = 0.0
    return np.maximum(m, 0.0)
