"""What a result says about itself: measures, flags, and whether the image looks like the contrast given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastseg.centerline import Centerline
from fastseg.crops import CropWindows
from fastseg.kernels import components
from fastseg.networks.network import ANY_CONTRAST
from fastseg.volume import SCT_RPI, Grid, Volume

__all__ = ["LIMITS", "Limit", "Quality", "assess", "contrast_note", "name_note", "ring_contrast"]

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


# --- measures and flags


@dataclass(frozen=True, slots=True)
class Quality:
    """What a mask and the probabilities behind it say about the mask.

    Parameters
    ----------
    measures : finite numbers by name, always the same names in the same order; docs/quality.md explains them
    flags : short names of what is odd, in the order of `LIMITS`
    reasons : one sentence for each flag. Slices are those of SCT_RPI: 0 is the lowest.
    slices : ascending, of the flags that are of some slices only
    """

    measures: Mapping[str, float]
    flags: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    slices: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limit:
    """From where on a measure is odd.

    Parameters
    ----------
    flag : its name
    measure : that it looks at
    value : odd is what lies beyond
    reason : sentence with {value} and {where} to fill in
    below : whether odd is what lies below
    """

    flag: str
    measure: str
    value: float
    reason: str
    below: bool = False

    def broken(self, measures: Mapping[str, float]) -> bool:
        """Whether the measure is beyond the limit."""
        value = measures[self.measure]
        return value < self.value if self.below else value > self.value


#: Measured with tools/quality_thresholds on real volumes; docs/quality.md has its tables and says what to do.
LIMITS = (
    Limit("short", "ShareOfSlices", 0.1, "cord on only {value:.0%} of the slices of the volume", below=True),
    Limit(
        "low_coverage",
        "Coverage",
        0.85,
        "cord on only {value:.0%} of the slices that the centerline runs through",
        below=True,
    ),
    Limit("missing_slices", "MissingSlices", 0, "no cord on {value:.0f} slices between others{where}"),
    Limit("small_area", "MedianAreaMm2", 30, "the cord has only {value:.0f} mm2", below=True),
    Limit("large_area", "MedianAreaMm2", 120, "the cord has {value:.0f} mm2"),
    Limit("area_jump", "AreaJump", 0.5, "the area changes by {value:.0%}{where}"),
    Limit("centre_jump", "CentreJumpMm", 4, "the centre moves by {value:.1f} mm{where}"),
    Limit("unsure", "SoftMarginMm", 0.8, "the border of the cord is uncertain, {value:.1f} mm wide"),
    Limit("touches_crop", "CropContactVoxels", 0, "the mask reaches the border of its window{where}"),
    Limit("touches_edge", "EdgeVoxels", 0, "the mask reaches the edge of the field of view{where}"),
    Limit("holes", "HoleVoxels", 3, "the mask has holes of {value:.0f} voxels{where}"),
    Limit("several_objects", "Objects", 1, "the mask is in {value:.0f} pieces"),
)

# Probabilities between these are neither cord nor background.
_UNSURE = (0.1, 0.9)


def assess(
    mask: Volume,
    centerline: Centerline,
    windows: CropWindows,
    probabilities: NDArray[np.float32],
    kept: NDArray[np.float32],
    threshold: float,
) -> Quality:
    """Measure a result of one volume, and flag what is odd about it.

    Parameters
    ----------
    mask : on the native grid, any orientation; 0/1, or soft, which is measured at the threshold. What lies
        outside the windows is not looked at
    centerline : that the windows lie around
    windows : that were cut out
    probabilities : (n, x, y) float32     in the windows, as the network gave them
    kept : (n, x, y) float32              in the windows, after cleaning; the probabilities for a soft mask
    threshold : above which a voxel is cord

    Notes
    -----
    Areas are those of the axial voxel plane. Nothing but the mask's surroundings is read.
    """
    soft = np.issubdtype(mask.voxels.dtype, np.floating)
    level = threshold if soft else 0.5
    native = mask.reoriented(SCT_RPI)
    cord, corner = _boxed(native, windows, level)
    found = _Found()
    _measure_slices(found, cord, corner, native.grid, centerline)
    _measure_windows(found, windows, probabilities, kept > level)
    _measure_edges(found, native, cord, corner)
    _measure_objects(found, cord, corner[2])
    measures = {name: round(float(value), 4) for name, value in found.measures.items()}
    broken = [limit for limit in LIMITS if limit.broken(measures)]
    return Quality(
        measures,
        tuple(limit.flag for limit in broken),
        tuple(
            limit.reason.format(value=measures[limit.measure], where=found.where.get(limit.measure, ""))
            for limit in broken
        ),
        {limit.flag: found.slices[limit.measure] for limit in broken if limit.measure in found.slices},
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """Measures by name, and where on the volume they were taken where that is some slices only."""

    measures: dict[str, float] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)  # in words
    slices: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def note(self, measure: str, slices: Iterable[int], text: str) -> None:
        """Say where a measure was taken: ``text`` with the first slice filled in."""
        self.slices[measure] = tuple(int(each) for each in slices)
        self.where[measure] = text.format(self.slices[measure][0])


def _boxed(
    native: Volume, windows: CropWindows, level: float
) -> tuple[NDArray[np.bool_], tuple[int, int, int]]:
    """The part of a mask that the windows reach, as slices (z, x, y), and its first voxel x, y, z."""
    steps = np.array(windows.grid.shape[:2]) / native.grid.shape[:2]
    low = np.floor(windows.starts.min(axis=0) / steps).astype(int) - 1
    high = np.ceil((windows.starts.max(axis=0) + windows.size) / steps).astype(int) + 1
    (x0, y0), (x1, y1) = np.maximum(low, 0), np.minimum(high, native.grid.shape[:2])
    z0, z1 = int(windows.z[0]), int(windows.z[-1]) + 1
    part = native.voxels[x0:x1, y0:y1, z0:z1].transpose(2, 0, 1)
    return np.ascontiguousarray(part > level), (int(x0), int(y0), z0)


def _measure_slices(
    found: _Found, cord: NDArray[np.bool_], corner: tuple[int, int, int], grid: Grid, line: Centerline
) -> None:
    """Areas, centres, gaps, coverage."""
    px, py, pz = grid.zooms
    along_x, along_y = cord.sum(axis=2), cord.sum(axis=1)
    counts = along_x.sum(axis=1)
    there = np.flatnonzero(counts)
    area, z = counts[there] * (px * py), there + corner[2]
    inside = len(line.z)
    common = np.isin(line.z, z).sum()
    missing = np.setdiff1d(np.arange(z[0], z[-1]), z) if len(z) else z
    found.measures.update(
        LengthMm=len(z) * pz,
        ShareOfSlices=len(z) / grid.shape[2],
        Coverage=common / inside if inside else 0.0,
        MissingSlices=len(missing),
        MedianAreaMm2=np.median(area) if len(z) else 0.0,
        MinAreaMm2=area.min() if len(z) else 0.0,
        MaxAreaMm2=area.max(initial=0.0),
        AreaJump=0.0,
        CentreJumpMm=0.0,
        CentreJumpPerMm=0.0,
    )
    if len(missing):
        found.note("MissingSlices", missing, ", the first of them slice {}")
    if len(z) < 2:
        return
    centre = np.column_stack(
        [
            px * (along_x[there] @ np.arange(cord.shape[1])) / counts[there],
            py * (along_y[there] @ np.arange(cord.shape[2])) / counts[there],
        ]
    )
    jump = np.abs(np.diff(area)) / np.maximum(area[1:], area[:-1])
    step = np.hypot(*np.diff(centre, axis=0).T)
    for name, values in (
        ("AreaJump", jump),
        ("CentreJumpMm", step),
        ("CentreJumpPerMm", step / (np.diff(z) * pz)),
    ):
        at = int(values.argmax())
        found.measures[name] = values[at]
        found.note(name, z[at : at + 2], f" from slice {{}} to {z[at + 1]}")


def _measure_windows(
    found: _Found, windows: CropWindows, probabilities: NDArray[np.float32], cord: NDArray[np.bool_]
) -> None:
    """How unsure the network is, and contact with the border of the windows."""
    there = cord.any(axis=(1, 2))
    size = np.count_nonzero(cord)
    inner = (
        cord[:, 1:-1, 1:-1] & cord[:, :-2, 1:-1] & cord[:, 2:, 1:-1] & cord[:, 1:-1, :-2] & cord[:, 1:-1, 2:]
    )
    rim = size - np.count_nonzero(inner)
    low, high = _UNSURE
    unsure = np.count_nonzero(((probabilities > low) & (probabilities < high))[there])
    zoom = float(np.mean(windows.grid.zooms[:2]))
    first = windows.starts > 0
    last = windows.starts + windows.size < windows.grid.shape[:2]
    contact = (
        cord[:, 0].sum(axis=1) * first[:, 0]
        + cord[:, -1].sum(axis=1) * last[:, 0]
        + cord[:, :, 0].sum(axis=1) * first[:, 1]
        + cord[:, :, -1].sum(axis=1) * last[:, 1]
    )
    found.measures.update(
        SoftMarginMm=zoom * unsure / rim if rim else 0.0,
        MeanProbability=probabilities[cord].mean(dtype=np.float64) if size else 0.0,
        CropContactVoxels=contact.sum(),
    )
    if contact.any():
        found.note("CropContactVoxels", windows.z[np.flatnonzero(contact)], ", first on slice {}")


def _measure_edges(
    found: _Found, native: Volume, cord: NDArray[np.bool_], corner: tuple[int, int, int]
) -> None:
    """Contact with the edge of the field of view, in plane: a cord ends at the others as a rule."""
    (nx, ny, _), (x0, y0, z0) = native.grid.shape, corner
    contact = np.zeros(len(cord), np.int64)
    if x0 == 0:
        contact += cord[:, 0].sum(axis=1)
    if y0 == 0:
        contact += cord[:, :, 0].sum(axis=1)
    if x0 + cord.shape[1] == nx:
        contact += cord[:, -1].sum(axis=1)
    if y0 + cord.shape[2] == ny:
        contact += cord[:, :, -1].sum(axis=1)
    found.measures["EdgeVoxels"] = contact.sum()
    if contact.any():
        found.note("EdgeVoxels", z0 + np.flatnonzero(contact), ", first on slice {}")


def _measure_objects(found: _Found, cord: NDArray[np.bool_], first_slice: int) -> None:
    """Holes within slices, and objects of the volume (6-connected)."""
    filled = components.keep_cord_slices(cord.astype(np.float32), np.float32(0.5)).view(np.bool_)
    holes = (filled & ~cord).sum(axis=(1, 2))
    labels = np.empty(cord.shape, np.int32)
    found.measures["HoleVoxels"] = holes.sum()
    found.measures["Objects"] = components.label_objects(cord.view(np.uint8), labels)
    if holes.any():
        found.note("HoleVoxels", first_slice + np.flatnonzero(holes), ", first on slice {}")
