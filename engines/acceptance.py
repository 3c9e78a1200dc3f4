"""Whether an engine gives the reference engine's answers: fixed inputs, a comparison, and what is tolerated.

An engine that was built (TensorRT), or that was built by another driver, runs on the fixed inputs before it
is used. They are drawn, not read: the phantom of `fastseg.phantom` as each network wants it, with cord in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.base import Engine
from fastseg.errors import EngineBuildError
from fastseg.networks.network import ANY_CONTRAST, CONTRASTS, Network, Role
from fastseg.phantom import make_phantom
from fastseg.volume import SCT_RPI

__all__ = [
    "TOLERANCES",
    "Difference",
    "Refused",
    "Tolerance",
    "calibration_inputs",
    "compare",
    "fixed_inputs",
    "measure",
    "require",
]

# 2D networks: crops in one batch; it fills a fixed batch of 64 once, and leaves a rest.
_CROPS = 67
# 3D networks of any depth: blocks of these depths, in a batch each.
_DEPTHS = ((16, 4), (21, 1))
# Slices in blocks of a fixed depth, at least; SCT's blocks have 48.
_BLOCK_SLICES = 64
# Side of a crop where the network takes any.
_ANY_SIDE = 64
# Whole-slice detectors: sides of the slices at 1 mm, and how many; multiples of 16.
_WHOLE = (((96, 112), 8), ((144, 128), 5))

_CALIBRATION_SEED = 1
# Necks of one seed: more than are drawn for it.
_NECKS = 1000

_CROP_ZOOMS, _WHOLE_ZOOMS = (0.5, 0.5, 2.5), (1.0, 1.0, 2.5)


@dataclass(frozen=True, slots=True)
class Difference:
    """How two engines' answers to the same inputs differ.

    Parameters
    ----------
    max_difference : largest of a pixel; inf where an answer is missing, not finite or of another shape. Of
        answers beyond -1..1, such as logits, relative to the largest.
    flipped : pixels on different sides of the threshold; of the network's thresholds, the one with most
    pixels : that were compared
    dice : of the two masks; of the network's thresholds, the lowest
    """

    max_difference: float
    flipped: int
    pixels: int
    dice: float

    @property
    def flipped_per_million(self) -> float:
        """Of a million pixels."""
        return 1e6 * self.flipped / self.pixels if self.pixels else 0.0


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a precision may lose on the fixed inputs.

    Parameters
    ----------
    max_difference, flipped_per_million : at most
    dice : at least
    """

    max_difference: float
    flipped_per_million: float
    dice: float

    def takes(self, difference: Difference) -> bool:
        """Whether a difference stays within; NaN never does."""
        return (
            difference.max_difference <= self.max_difference
            and difference.flipped_per_million <= self.flipped_per_million
            and difference.dice >= self.dice
        )


class Refused(EngineBuildError):
    """An engine whose answers are not the reference's.

    Parameters
    ----------
    difference : how far they are from them
    """

    def __init__(self, message: str, difference: Difference) -> None:
        super().__init__(message)
        self.difference = difference


# Measured on the fixed inputs, over the built-in networks, the stand-ins for SCT's and SCT's own detectors,
# with the rounding of matrix units (tools/evaluation/rounding.py) and, for int8, the file that TensorRT gets.
# Largest difference, flipped of a million, lowest Dice: fp32 (OpenVINO) 6e-6, 0, 1; tf32 0.13, 7.6, .9999;
# fp16 0.13, 7.6, .9999; bf16 0.61, 36, .9997; int8 0.99, 277, .988. SCT's detectors, whose logits are steep,
# have the largest differences; our networks stay under 2e-3 in fp16, 0.02 in bf16. One pixel of the
# detector's small heat map is 22 of a million, and Dice .997: hence the room there. An answer that is shifted
# by a pixel flips 10,000, so even int8's tolerance tells an engine that is wrong from one that rounds.
#: What engines may lose, by precision.
TOLERANCES: Mapping[str, Tolerance] = {
    # What is promised of engines in fp32; no pixel farther than that from the threshold can flip.
    "fp32": Tolerance(1e-4, 50, 0.995),
    "tf32": Tolerance(0.3, 50, 0.995),
    "fp16": Tolerance(0.3, 50, 0.995),
    "bf16": Tolerance(1.0, 200, 0.99),
    "int8": Tolerance(1.0, 1000, 0.97),
}


def fixed_inputs(network: Network, *, seed: int = 0) -> tuple[NDArray[np.float32], ...]:
    """Batches for a network, the same ones every time.

    Parameters
    ----------
    network : its role, sizes, contrasts, mean and std say what it wants to see
    seed : another neck and other noise, for what must not be chosen and judged on the same inputs

    Returns
    -------
    batches : each (N, 1, x, y) or (N, 1, x, y, z) float32, as `Engine.infer` takes them; read-only
    """
    contrasts = tuple(each for each in network.contrasts if each != ANY_CONTRAST) or CONTRASTS
    return _batches(network.role, network.spatial, contrasts, network.mean, network.std, seed)


# Several precisions of several networks are built one after the other; drawing takes half a second.
@lru_cache(maxsize=8)
def _batches(
    role: Role, spatial: tuple[int, ...], contrasts: tuple[str, ...], mean: float, std: float, seed: int
) -> tuple[NDArray[np.float32], ...]:
    first = _NECKS * seed
    if role is Role.DETECT_SLICES:
        # A network may want one size along an axis; 0 is any.
        sizes = [(tuple(a or b for a, b in zip(spatial, sides, strict=True)), n) for sides, n in _WHOLE]
        drawn = [
            _whole_slices(contrasts, sides, count, first + 10 * k) for k, (sides, count) in enumerate(sizes)
        ]
    elif role is not Role.SEGMENT_3D:
        drawn = [_crops(contrasts, _sides(spatial), _CROPS, first)]
    else:
        depth = spatial[2]
        wanted = ((depth, max(_BLOCK_SLICES // depth, 2)),) if depth else _DEPTHS
        drawn = [
            _blocks(contrasts, _sides(spatial), deep, count, first + 10 * k)
            for k, (deep, count) in enumerate(wanted)
        ]
    batches = []
    for values in drawn:
        standardised = (values.astype(np.float64) - mean) / std
        batches.append(np.ascontiguousarray(standardised[:, None], np.float32))
        batches[-1].flags.writeable = False  # shared by all who ask
    return tuple(batches)


def calibration_inputs(network: Network) -> tuple[NDArray[np.float32], ...]:
    """Batches that scales of int8 are chosen on: as `fixed_inputs`, of other necks."""
    return fixed_inputs(network, seed=_CALIBRATION_SEED)


def compare(
    network: Network, answers: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]]
) -> Difference:
    """Compare answers with the reference engine's.

    Parameters
    ----------
    network : its thresholds decide which pixels flipped
    answers, expected : for each batch
    """
    pixels = sum(each.size for each in expected)
    fits = [each.shape for each in answers] == [each.shape for each in expected]
    if not (fits and pixels and all(np.isfinite(each).all() for each in (*answers, *expected))):
        return Difference(float("inf"), pixels, pixels, 0.0)
    mine, theirs = (np.concatenate([each.ravel() for each in side]) for side in (answers, expected))
    scale = max(float(abs(theirs).max()), 1.0)
    flipped, dice = 0, 1.0
    for threshold in set(network.thresholds.values()):
        a, b = mine > np.float32(threshold), theirs > np.float32(threshold)
        total = int(a.sum()) + int(b.sum())
        flipped = max(flipped, int((a != b).sum()))
        dice = min(dice, 2 * int((a & b).sum()) / total if total else 1.0)
    return Difference(float(abs(mine.astype(np.float64) - theirs).max()) / scale, flipped, pixels, dice)


def measure(engine: Engine, network: Network, reference: Engine) -> Difference:
    """Run two open engines on the fixed inputs; the worse of two turns.

    Two, because an engine may go another way when it sees a shape again: CUDA graphs are recorded then, and
    it is their answers that a cohort gets.

    Raises
    ------
    InferenceError
        One of them failed.
    """
    batches = fixed_inputs(network)
    expected = [*map(reference.infer, batches)]
    turns = [compare(network, [*map(engine.infer, batches)], expected) for _ in range(2)]
    return max(turns, key=lambda each: (each.max_difference, each.flipped, -each.dice))


def require(difference: Difference, precision: str, what: str) -> None:
    """Refuse an engine whose answers differ by more than its precision explains.

    Parameters
    ----------
    difference : from `measure`
    precision : a name of `TOLERANCES`
    what : engine and network, for the message

    Raises
    ------
    Refused
        The difference is beyond the tolerance; the message has the numbers, too.
    """
    allowed = TOLERANCES[precision]
    if not allowed.takes(difference):
        raise Refused(
            f"{what}: its answers are not the reference's: they differ by {difference.max_difference:.2g} "
            f"({allowed.max_difference:.2g} is allowed in {precision}), {difference.flipped_per_million:.3g} "
            f"of a million pixels flip ({allowed.flipped_per_million:.3g}), Dice {difference.dice:.5f} "
            f"({allowed.dice:g}): take another --precision, or --device cpu",
            difference,
        )


def _sides(spatial: tuple[int, ...]) -> tuple[int, ...]:
    """Sides of a crop; of a network that takes any, fastseg's own."""
    return tuple(side or _ANY_SIDE for side in spatial[:2])


def _crops(contrasts: Sequence[str], sides: tuple[int, ...], count: int, seed: int) -> NDArray[np.float32]:
    """(count, x, y), one contrast after the other; each scaled to 0..255 as the crops of a volume are."""
    parts = []
    for k, contrast in enumerate(contrasts):
        n = -(-(count - k) // len(contrasts))
        if n > 0:
            parts.append(_scaled(_slices(contrast, sides, n, _CROP_ZOOMS, seed + k)))
    return np.concatenate(parts)


def _blocks(
    contrasts: Sequence[str], sides: tuple[int, ...], depth: int, count: int, seed: int
) -> NDArray[np.float32]:
    """(count, x, y, depth), a block of each contrast in turn."""
    drawn = (
        _scaled(_slices(contrasts[k % len(contrasts)], sides, depth, _CROP_ZOOMS, seed + k))
        for k in range(count)
    )
    return np.stack([slices.transpose(1, 2, 0) for slices in drawn])


def _whole_slices(
    contrasts: Sequence[str], sides: tuple[int, ...], count: int, seed: int
) -> NDArray[np.float32]:
    """(count, x, y) of 0..1.2, relative to the 99.7th percentile."""
    parts = []
    for k, contrast in enumerate(contrasts):
        n = -(-(count - k) // len(contrasts))
        if n > 0:
            slices = _slices(contrast, sides, n, _WHOLE_ZOOMS, seed + k)
            bright = np.float32(np.percentile(slices, 99.7))
            parts.append(np.clip(slices / bright, 0, np.float32(1.2)))
    return np.concatenate(parts)


def _slices(
    contrast: str, sides: tuple[int, ...], count: int, zooms: tuple[float, float, float], seed: int
) -> NDArray[np.float32]:
    """(count, x, y) of the phantom in SCT's axes; the middle of the neck is the middle of the slice."""
    image, _ = make_phantom(
        contrast, shape=(sides[0], sides[1]), n_slices=count, zooms=zooms, seed=seed, axcodes=SCT_RPI
    )
    return np.ascontiguousarray(image.voxels.transpose(2, 0, 1), np.float32)


def _scaled(slices: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = (np.float32(value) for value in np.percentile(slices, (2, 98)))
    return np.asarray((np.clip(slices, low, high) - low) / (high - low) * np.float32(255), np.float32)
