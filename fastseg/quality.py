"""What a result says about itself: does the image look like the contrast that was given?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastseg.kernels import components
from fastseg.networks.network import ANY_CONTRAST

__all__ = ["contrast_note", "name_note", "ring_contrast"]

# BIDS suffixes that tell a contrast.
_SUFFIXES = {"T1w": "t1", "T2w": "t2", "T2star": "t2s", "T2starw": "t2s", "dwi": "dwi"}

# Slices that are looked at; more tell no more.
_SLICES = 12
# In pixels of 0.5 mm: the cord without its border, and a ring of CSF around it without its border.
_INSIDE, _RING = 2, (2, 6)
# Ring minus cord, as a part of the intensity range, of 19 real volumes: T2 0.27 to 0.66, T2* and MT 0.02 to
# 0.66, T1 -0.56, DWI -0.80. A T1-weighted volume of an MT series, with bright CSF, has 0.11.
_DARK_RING, _BRIGHT_RING = -0.25, 0.15


def ring_contrast(crops: NDArray[np.float32], mask: NDArray[np.float32]) -> float:
    """How much brighter the surroundings of the cord are than the cord.

    Parameters
    ----------
    crops : (n, x, y) float32     values 0..255, 0.5 mm
    mask : (n, x, y) float32      cord where above 0.5

    Returns
    -------
    contrast : median over slices of ring minus cord, -1 to 1; NaN where the cord is nowhere wide enough
    """
    covered = np.flatnonzero((mask > 0.5).any(axis=(1, 2)))
    chosen = covered[:: max(len(covered) // _SLICES, 1)]
    cord = np.ascontiguousarray(mask[chosen] > 0.5)
    distance = np.empty(cord.shape, np.int32)
    components.border_distance(cord.view(np.uint8), distance)
    differences = []
    for crop, steps in zip(crops[chosen], distance, strict=True):
        inside, ring = crop[steps < -_INSIDE], crop[(steps > _RING[0]) & (steps <= _RING[1])]
        if inside.size and ring.size:
            differences.append(float(np.median(ring) - np.median(inside)) / 255)
    return float(np.median(differences)) if differences else float("nan")


def contrast_note(contrast: str, ring: float) -> str:
    """What to tell the user where the image does not look like the contrast; empty where it does.

    Parameters
    ----------
    contrast : t1, t2, t2s or dwi, as given
    ring : from `ring_contrast`

    Examples
    --------
    >>> contrast_note("t2", 0.4)
    ''
    >>> contrast_note("t1", 0.4)
    'the surroundings of the cord are brighter than the cord, as in T2 or T2*: is contrast t1 right?'
    """
    if contrast in ("t1", "dwi") and ring > _BRIGHT_RING:
        return (
            "the surroundings of the cord are brighter than the cord, as in T2 or T2*: "
            f"is contrast {contrast} right?"
        )
    if contrast in ("t2", "t2s") and ring < _DARK_RING:
        return (
            "the surroundings of the cord are darker than the cord, as in T1 or diffusion: "
            f"is contrast {contrast} right?"
        )
    return ""


def name_note(name: str, contrast: str) -> str:
    """What to tell the user where a BIDS file name says another contrast than the given one, if one is.

    Examples
    --------
    >>> name_note("sub-01_T1w.nii.gz", "t2")
    'the name says T1w, the contrast given is t2: is that right?'
    >>> name_note("sub-01_T2w.nii.gz", "t2"), name_note("t2.nii.gz", "t1"), name_note("a_T1w.nii", "auto")
    ('', '', '')
    """
    suffix = name.split(".")[0].rpartition("_")[2]
    if contrast != ANY_CONTRAST and suffix in _SUFFIXES and _SUFFIXES[suffix] != contrast:
        return f"the name says {suffix}, the contrast given is {contrast}: is that right?"
    return ""
