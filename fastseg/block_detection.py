"""SCT's detection network, which sees blocks of 80 x 80 pixels: where in a volume the cord is.

Two ways to choose the blocks: `scan_blocks` covers every slice, `track_blocks` follows the cord upwards as
sct_deepseg_sc does, with its quirks. Indices are those of the 0.5 mm grid; slice 0 is the lowest.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fastseg.engines.base import Engine
from fastseg.errors import CordNotFound
from fastseg.intensity import rescale_percentiles, standardise
from fastseg.networks.network import Network

__all__ = ["BlockHeat", "Visit", "scan_blocks", "track_blocks"]

_log = logging.getLogger(__name__)

#: Pixels that neighbouring blocks of `scan_blocks` share at least: 16 mm, more than a cord is wide, so that
#: every cord lies whole inside one block.
_OVERLAP = 32

#: Blocks per call of the engine: 6.5 MB of input.
_BATCH = 256

#: With brain = 1 the search ends after more misses in a row than this.
_MAX_MISSES = 10

_REMEDY = "try the svm detector or another contrast, or give a centerline (--centerline viewer or file)"


_Centre = tuple[int, int] | None


@dataclass(frozen=True, slots=True, eq=False)
class BlockHeat:
    """Where the cord is, as the network saw it.

    Parameters
    ----------
    heat : (z, x, y) float32
        distance to the nearest pixel that is not cord, in pixels, each slice alone; 0 outside the cord
    probabilities : (z, x, y) float32     0 where below 0.5
    found : (z,) bool                     slices with cord; at least one
    """

    heat: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    found: NDArray[np.bool_]

    @property
    def last(self) -> int:
        """Highest slice with cord."""
        return int(np.flatnonzero(self.found)[-1])

    @property
    def z_max(self) -> int | None:
        """SCT's z_max: `last`, or None where that is the top slice of the volume.

        SCT cuts the slices from z_max on away, z_max included: the last slice with cord is lost (quirk 5).
        """
        return None if self.found[-1] else self.last


@dataclass(frozen=True, slots=True)
class Visit:
    """One look of `track_blocks` at a slice.

    Parameters
    ----------
    z : the slice
    blocks : first x and y of each block, in the order of the search
    scan : whether the whole slice was searched, or one block around the previous centre
    centre : x and y of the cord, None where there is none
    """

    z: int
    blocks: tuple[tuple[int, int], ...]
    scan: bool
    centre: tuple[int, int] | None


def scan_blocks(
    slices: NDArray[np.float32], network: Network, engine: Engine, *, batch: int = _BATCH
) -> BlockHeat:
    """Look for the cord everywhere: every slice is covered by blocks that overlap.

    Blocks do not leave the field of view; one that is smaller than a block lies at its start and is filled
    up with the darkest value. Where blocks overlap, the highest probability counts. Slices do not influence
    each other, except through the intensity percentiles.

    Parameters
    ----------
    slices : (z, x, y) float32    the whole volume at 0.5 mm in plane
    network : role DETECT_BLOCKS
    batch : blocks per call of the engine; the result does not depend on it

    Raises
    ------
    CordNotFound
        No slice has a pixel above 0.5.
    """
    size_x, size_y = network.spatial
    nz, nx, ny = slices.shape
    scaled, _ = rescale_percentiles(slices)
    probabilities = np.zeros(slices.shape, np.float32)
    places = list(itertools.product(range(nz), _starts(nx, size_x), _starts(ny, size_y)))
    for first in range(0, len(places), batch):
        part = places[first : first + batch]
        blocks = np.zeros((len(part), 1, size_x, size_y), np.float32)
        for block, (z, x, y) in zip(blocks, part, strict=True):
            seen = scaled[z, x : x + size_x, y : y + size_y]
            block[0, : seen.shape[0], : seen.shape[1]] = seen
        answers = engine.infer(standardise(blocks, network.mean, network.std))
        for answer, (z, x, y) in zip(answers, part, strict=True):
            place = probabilities[z, x : x + size_x, y : y + size_y]
            # fmax: a NaN of the network is no cord
            np.fmax(place, answer[0, : place.shape[0], : place.shape[1]], out=place)
    return _block_heat(probabilities, f"the detector found no cord in {nz} slices")


def track_blocks(
    slices: NDArray[np.float32],
    network: Network,
    engine: Engine,
    *,
    brain: bool,
    on_visit: Callable[[Visit], None] | None = None,
) -> BlockHeat:
    """Look for the cord as sct_deepseg_sc does, block for block: from the bottom up, following it.

    On the slice above one with cord, only the block around the previous centre is looked at; without cord
    there, and without a previous centre, all blocks of a grid over the slice.

    Parameters
    ----------
    slices : (z, x, y) float32    the whole volume at 0.5 mm in plane
    network : role DETECT_BLOCKS
    brain : whether brain may lie above the cord: the search then ends after more than 10 slices in a row
        without cord, also below the cord (quirk 6)
    on_visit : told every visit, in order

    Raises
    ------
    CordNotFound
        No slice has a pixel above 0.5, or the search ended before one had.
    """
    search = _Search(slices, network, engine, on_visit)
    probabilities = np.zeros(slices.shape, np.float32)
    centre: _Centre = None
    misses = 0
    for z in range(len(slices)):
        probabilities[z], centre = search.look(z, centre)
        misses = 0 if centre else misses + 1
        if brain and misses > _MAX_MISSES:
            _log.debug("the search ended at slice %d, after %d slices without cord", z, misses)
            break
    message = f"the detector found no cord in {z + 1} of {len(slices)} slices"
    if z + 1 < len(slices):
        message += ", where brain = 1 ended its search (brain = 0 searches them all)"
    return _block_heat(probabilities, message)


class _Search:
    """The slices as SCT's search sees and changes them, and the order in which it scans."""

    def __init__(
        self,
        slices: NDArray[np.float32],
        network: Network,
        engine: Engine,
        on_visit: Callable[[Visit], None] | None,
    ) -> None:
        self._network = network
        self._engine = engine
        self._on_visit = on_visit
        self._shape = slices.shape[1:]
        self._size = (network.spatial[0], network.spatial[1])
        self._scaled, _ = rescale_percentiles(_whole_blocks(slices, self._size))
        across, along = (range(0, n, s) for n, s in zip(self._scaled.shape[1:], self._size, strict=True))
        self._grid = [(x, y) for y in along for x in across]

    def look(self, z: int, previous: _Centre) -> tuple[NDArray[np.float32], _Centre]:
        """Probability of cord on a slice (x, y), and the cord's centre."""
        if previous is not None:
            block, seen = self._track(z, previous)
            centre = self._tell(Visit(z, (block,), scan=False, centre=_centre_of_mass(seen > 0.5)))
            if centre is not None:
                return seen, centre
        blocks, seen = self._scan(z)
        centre = _centre_of_mass(_largest(seen > 0.5))
        return seen, self._tell(Visit(z, blocks, scan=True, centre=centre))

    def _track(self, z: int, centre: tuple[int, int]) -> tuple[tuple[int, int], NDArray[np.float32]]:
        # [c - 39, c + 41), kept inside the padded slice: clamped at the upper edge first, then the lower
        x, y = (
            max(min(c - (s // 2 - 1), n - s), 0)
            for c, s, n in zip(centre, self._size, self._scaled.shape[1:], strict=True)
        )
        (answer,) = self._ask(z, ((x, y),))
        # Quirk 4: the answer of a block that reaches into the padding is moved back until it fits.
        left, front = (max(min(c, n - s), 0) for c, s, n in zip((x, y), self._size, self._shape, strict=True))
        seen = np.zeros(self._shape, np.float32)
        _write(answer, seen, left, front)
        return (x, y), seen

    def _scan(self, z: int) -> tuple[tuple[tuple[int, int], ...], NDArray[np.float32]]:
        blocks = tuple(self._grid)
        seen = np.zeros(self._shape, np.float32)
        sums = [
            _write(answer, seen, x, y).sum()
            for (x, y), answer in zip(blocks, self._ask(z, blocks), strict=True)
        ]
        # The next scan begins with the block that holds most cord; only the order of visits depends on it.
        self._grid.insert(0, self._grid.pop(int(np.argmax(sums))))
        return blocks, seen

    def _ask(self, z: int, blocks: tuple[tuple[int, int], ...]) -> NDArray[np.float32]:
        size_x, size_y = self._size
        mean, std = np.float32(self._network.mean), np.float32(self._network.std)
        for x, y in blocks:
            # Quirk 3: in place, on a view. Where tracking failed, the scan finds these pixels standardised
            # already, and standardises them again.
            view = self._scaled[z, x : x + size_x, y : y + size_y]
            view -= mean
            view /= std
        stack = np.stack([self._scaled[z, x : x + size_x, y : y + size_y] for x, y in blocks])
        return self._engine.infer(stack[:, None])[:, 0]

    def _tell(self, visit: Visit) -> _Centre:
        if self._on_visit is not None:
            self._on_visit(visit)
        return visit.centre


def _starts(n: int, size: int) -> list[int]:
    """First pixels of as few blocks as cover n pixels with the overlap, evenly spaced."""
    if n <= size:
        return [0]
    count = -(-(n - _OVERLAP) // (size - _OVERLAP))
    return [int(start) for start in np.rint(np.linspace(0, n - size, count))]


def _whole_blocks(slices: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """The slices with whole blocks along x and y, as SCT has them.

    Zeros are added along x, pixels are cut off along y, where only a field of view smaller than a block is
    filled up; the percentiles are those of the result.
    """
    nz, nx, ny = slices.shape
    shape = -(-nx // size[0]) * size[0], max(ny // size[1], 1) * size[1]
    padded = np.zeros((nz, *shape), np.float32)
    kept = min(ny, shape[1])
    padded[:, :nx, :kept] = slices[:, :, :kept]
    return padded


def _write(answer: NDArray[np.float32], seen: NDArray[np.float32], x: int, y: int) -> NDArray[np.float32]:
    """Write a block onto a slice, where the slice reaches; give that part of the slice."""
    place = seen[x : x + answer.shape[0], y : y + answer.shape[1]]
    place[...] = answer[: place.shape[0], : place.shape[1]]
    return place


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 4-connected object, the first on ties."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    largest: NDArray[np.bool_] = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return largest


def _centre_of_mass(mask: NDArray[np.bool_]) -> _Centre:
    x, y = np.nonzero(mask)
    return (int(x.mean()), int(y.mean())) if len(x) else None


def _block_heat(probabilities: NDArray[np.float32], nothing: str) -> BlockHeat:
    kept = np.where(probabilities >= 0.5, probabilities, np.float32(0))
    found = np.asarray(kept.any(axis=(1, 2)))
    if not found.any():
        raise CordNotFound(f"{nothing}; {_REMEDY}")
    heat = np.zeros_like(kept)
    for z in np.flatnonzero(found):
        _distance(kept[z] > 0, heat[z])
    return BlockHeat(heat, kept, found)


def _distance(mask: NDArray[np.bool_], out: NDArray[np.float32]) -> None:
    """Distance of each pixel of the mask to the nearest one outside it, written into out.

    The mask's box and a margin of one pixel suffice: the nearest pixel outside the mask, moved to the box, is
    still outside the mask and not farther. At the border of the slice there is no margin, as for the whole.
    """
    box = tuple(
        slice(max(int(hit[0]) - 1, 0), int(hit[-1]) + 2)
        for hit in (np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0)))
    )
    out[box] = ndimage.distance_transform_edt(mask[box])
