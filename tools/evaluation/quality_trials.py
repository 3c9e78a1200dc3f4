"""Results to judge quality flags by: volumes as they are, and the same made so that they go wrong."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fastseg.networks.network import CONTRASTS
from fastseg.options import Detector, Options
from fastseg.volume import SCT_RPI, Grid, Volume
from tools.evaluation.cord_free import CordFree
from tools.evaluation.metrics import covered
from tools.evaluation.runs import Load
from tools.evaluation.volumes import Case

__all__ = ["Trial", "Trouble", "trials"]


@dataclass(frozen=True)
class Trouble:
    """A volume that is to be segmented.

    Parameters
    ----------
    image : any orientation
    reference : bool, on its grid; None where no slice holds a cord
    free : (z,) bool, slices of SCT_RPI that hold no cord for sure
    given : centerline to segment along; None: fastseg looks for it
    """

    image: Volume
    reference: Volume | None
    free: NDArray[np.bool_]
    given: Volume | None = None


@dataclass(frozen=True)
class Trial:
    """One way to get a result, good or bad.

    Parameters
    ----------
    volume : name of the volume
    change : what is otherwise than usual; empty for nothing
    damaged : whether that is the image or the given centerline, not the options alone
    options : to segment it with
    make : makes the volume
    """

    volume: str
    change: str
    damaged: bool
    options: Options
    make: Callable[[], Trouble]


def trials(cases: Sequence[Case], free: Sequence[CordFree], load: Load) -> Iterator[Trial]:
    """All ways to get a result from some volumes; nothing is made yet.

    Parameters
    ----------
    cases : real volumes
    free : volumes with slices without a cord
    load : reads a case
    """
    for case in cases:
        own = Options(contrast=case.contrast)
        ways = {
            "": own,
            "contrast auto": Options(),
            "light network": replace(own, kernel="2d-light"),
            "3D network": replace(own, kernel="3d"),
            "svm centerline": replace(own, detector="svm"),
            **{f"contrast {wrong}": Options(wrong) for wrong in CONTRASTS if wrong != case.contrast},
        }
        for name, options in ways.items():
            yield Trial(case.name, name, False, options, partial(_made, case, load, _as_it_is))
        for name, change in _DAMAGES.items():
            detector: Detector = "file" if name.startswith("centerline") else "auto"
            options = replace(own, detector=detector)
            yield Trial(case.name, name, True, options, partial(_made, case, load, change))
    for each in free:
        volume, _, part = each.name.partition("+")
        what = f"no cord in the {part}" if part else "no cord"
        yield Trial(volume, what, True, Options(each.contrast), partial(_cord_free, each, load))


def _made(case: Case, load: Load, change: _Change) -> Trouble:
    return change(*load(case), np.random.default_rng(zlib.crc32(case.name.encode())))


def _cord_free(case: CordFree, load: Load) -> Trouble:
    image, free = case.make()
    return Trouble(image, load(case.source)[1] if case.source else None, free)


_Change = Callable[[Volume, Volume, np.random.Generator], Trouble]


def _as_it_is(image: Volume, reference: Volume, _: np.random.Generator) -> Trouble:
    return Trouble(image, reference, _none_free(image))


def _none_free(image: Volume) -> NDArray[np.bool_]:
    return np.zeros(image.reoriented(SCT_RPI).grid.shape[2], np.bool_)


def _noise(strength: float) -> _Change:
    """Rician noise; strength is its standard deviation as a part of the 99th percentile."""

    def change(image: Volume, reference: Volume, random: np.random.Generator) -> Trouble:
        voxels = np.asarray(image.voxels, np.float64)
        channels = random.standard_normal((2, *voxels.shape)) * strength * np.percentile(voxels, 99)
        noisy = np.hypot(voxels + channels[0], channels[1]).astype(np.float32)
        return Trouble(Volume(noisy, image.grid), reference, _none_free(image))

    return change


def _blur(sigma_mm: float) -> _Change:
    """Gaussian blur in plane."""

    def change(image: Volume, reference: Volume, _: np.random.Generator) -> Trouble:
        native = image.reoriented(SCT_RPI)
        sigma = (sigma_mm / native.grid.zooms[0], sigma_mm / native.grid.zooms[1], 0)
        smooth = ndimage.gaussian_filter(np.asarray(native.voxels, np.float32), sigma)
        turned = Volume(smooth, native.grid).reoriented(image.grid.axcodes)
        return Trouble(turned, reference, _none_free(image))

    return change


def _lost_slices(part: float) -> _Change:
    """The middle part of the reference's slices is zero, and what the mask has there is not judged."""

    def change(image: Volume, reference: Volume, _: np.random.Generator) -> Trouble:
        native, mask = image.reoriented(SCT_RPI), reference.reoriented(SCT_RPI)
        z = np.flatnonzero(covered(np.asarray(mask.voxels)))
        first = int(len(z) * (1 - part) / 2)
        lost = z[first : first + max(int(len(z) * part), 1)]
        voxels, known = np.array(native.voxels), np.array(mask.voxels)
        voxels[..., lost] = known[..., lost] = 0
        codes = image.grid.axcodes
        turned = Volume(voxels, native.grid).reoriented(codes)
        return Trouble(turned, Volume(known, native.grid).reoriented(codes), _none_free(image))

    return change


def _moved(amplitude_mm: float) -> _Change:
    """Every slice lies elsewhere, as after motion between slices; the reference moves along."""

    def change(image: Volume, reference: Volume, random: np.random.Generator) -> Trouble:
        native, mask = image.reoriented(SCT_RPI), reference.reoriented(SCT_RPI)
        voxels, moved = np.array(native.voxels), np.array(mask.voxels)
        for z in range(voxels.shape[2]):
            step = np.rint(random.normal(0, amplitude_mm, 2) / native.grid.zooms[:2]).astype(int)
            voxels[..., z] = np.roll(voxels[..., z], step, (0, 1))
            moved[..., z] = np.roll(moved[..., z], step, (0, 1))
        codes = image.grid.axcodes
        turned = Volume(voxels, native.grid).reoriented(codes)
        return Trouble(turned, Volume(moved, native.grid).reoriented(codes), _none_free(image))

    return change


def _cut_in_plane(offset_mm: float) -> _Change:
    """The field of view ends so far from the middle of the cord, on the left."""

    def change(image: Volume, reference: Volume, _: np.random.Generator) -> Trouble:
        native, mask = image.reoriented(SCT_RPI), reference.reoriented(SCT_RPI)
        middle = np.flatnonzero(mask.voxels.any(axis=(1, 2))).mean()
        stop = int(middle + offset_mm / native.grid.zooms[0])
        grid = Grid((stop, *native.grid.shape[1:]), native.grid.affine)
        cut = [Volume(each.voxels[:stop], grid).reoriented(image.grid.axcodes) for each in (native, mask)]
        return Trouble(cut[0], cut[1], _none_free(image))

    return change


def _few_slices(n: int) -> _Change:
    """Only so many slices in the middle of the reference."""

    def change(image: Volume, reference: Volume, _: np.random.Generator) -> Trouble:
        native, mask = image.reoriented(SCT_RPI), reference.reoriented(SCT_RPI)
        z = np.flatnonzero(covered(np.asarray(mask.voxels)))
        low = int(z[max(len(z) - n, 0) // 2])
        high = min(low + n, native.grid.shape[2])
        affine = native.grid.affine.copy()
        affine[:3, 3] += affine[:3, 2] * low
        grid = Grid((*native.grid.shape[:2], high - low), affine)
        cut = [Volume(each.voxels[..., low:high], grid) for each in (native, mask)]
        codes = image.grid.axcodes
        return Trouble(cut[0].reoriented(codes), cut[1].reoriented(codes), np.zeros(high - low, np.bool_))

    return change


def _beside(offset_mm: float) -> _Change:
    """A given centerline beside the cord, on the side where the field of view is wider."""

    def change(image: Volume, reference: Volume, _: np.random.Generator) -> Trouble:
        native = image.reoriented(SCT_RPI).grid
        mask = np.asarray(reference.reoriented(SCT_RPI).voxels)
        line = np.zeros(mask.shape, np.uint8)
        for z in np.flatnonzero(covered(mask)):
            x, y = np.argwhere(mask[..., z]).mean(axis=0)
            side = 1 if x < native.shape[0] / 2 else -1
            x = np.clip(round(x + side * offset_mm / native.zooms[0]), 0, native.shape[0] - 1)
            line[int(x), round(y), z] = 1
        given = Volume(line, native).reoriented(image.grid.axcodes)
        return Trouble(image, reference, _none_free(image), given)

    return change


_DAMAGES: dict[str, _Change] = {
    **{f"noise {strength:g}": _noise(strength) for strength in (0.05, 0.15, 0.3, 0.6)},
    **{f"blur {sigma:g} mm": _blur(sigma) for sigma in (1, 2, 4)},
    **{f"{part:.0%} of the slices lost": _lost_slices(part) for part in (0.1, 0.3)},
    **{f"slices moved {sigma:g} mm": _moved(sigma) for sigma in (1, 4)},
    **{f"cut {offset:g} mm beside": _cut_in_plane(offset) for offset in (0, 3, 12)},
    **{f"{n} slices": _few_slices(n) for n in (1, 3)},
    **{f"centerline {offset:g} mm beside": _beside(offset) for offset in (5, 10, 14, 18, 24)},
}
