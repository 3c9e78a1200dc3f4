"""What is trained, on how many samples, for how long, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from fastseg.networks.network import Role
from tools.train.batches import Batches, block_batches, crop_batches, whole_batches
from tools.train.loop import Loss, Score
from tools.train.losses import heat_loss, mask_dice, mask_loss, peak_error
from tools.train.networks import Detector, Segmenter2d, Segmenter3d, count_macs
from tools.train.pools import PoolKind
from tools.train.synthesis.samples import Samples

__all__ = ["RECIPES", "Recipe"]

_SEGMENTER, _LIGHT = (36, 72, 150), (19, 38, 72)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One network of the pack.

    Parameters
    ----------
    name : of the network's file
    role : in the pack
    pool : the samples that it sees
    build : makes the untrained network
    batches : of samples, of a size, with a seed
    size : of a batch
    steps : batches, at full length
    rate : highest learning rate
    loss, score : of logits
    inputs, outputs : names in the ONNX file
    shape : of one input, without batch; sizes of free axes are examples
    free : names of the free axes, "" for fixed ones
    starts_from : recipe whose weights it begins with
    """

    name: str
    role: Role
    pool: PoolKind
    build: Callable[[], nn.Module]
    batches: Callable[[Samples, int, int], Batches]
    size: int
    steps: int
    rate: float
    loss: Loss
    score: Score
    inputs: str
    outputs: str
    shape: tuple[int, ...]
    free: tuple[str, ...]
    starts_from: str = ""

    @property
    def spatial(self) -> tuple[int, ...]:
        """Input size for pack.toml: 0 where it is free."""
        return tuple(0 if name else size for size, name in zip(self.shape[1:], self.free[1:], strict=True))

    def macs(self) -> float:
        """Multiply-adds of one item: a crop, a slice of a block, a whole slice of 144 x 144."""
        depth = self.shape[3] if len(self.shape) == 4 else 1
        return count_macs(self.build(), self.shape) / depth


_DETECTOR = Recipe(
    name="detector",
    role=Role.DETECT_SLICES,
    pool="whole",
    build=Detector,
    batches=whole_batches,
    size=32,
    steps=2000,
    rate=2e-3,
    loss=heat_loss,
    score=peak_error,
    inputs="slices",
    outputs="heat",
    shape=(1, 144, 144),
    free=("", "x", "y"),
)

_SEGMENTER_2D = Recipe(
    name="segmenter_2d",
    role=Role.SEGMENT_2D,
    pool="crops",
    build=lambda: Segmenter2d(_SEGMENTER, coarse_start=True),
    batches=crop_batches,
    size=32,
    steps=1600,
    rate=2e-3,
    loss=mask_loss,
    score=mask_dice,
    inputs="crops",
    outputs="probabilities",
    shape=(1, 64, 64),
    free=("", "", ""),
)

_SEGMENTER_2D_LIGHT = replace(
    _SEGMENTER_2D,
    name="segmenter_2d_light",
    role=Role.SEGMENT_2D_LIGHT,
    build=lambda: Segmenter2d(_LIGHT, coarse_start=True),
    steps=2600,
)

_SEGMENTER_3D = replace(
    _SEGMENTER_2D,
    name="segmenter_3d",
    role=Role.SEGMENT_3D,
    pool="blocks",
    build=lambda: Segmenter3d(_SEGMENTER, coarse_start=True),
    batches=block_batches,
    size=4,
    steps=600,
    rate=5e-4,
    inputs="blocks",
    shape=(1, 64, 64, 48),
    free=("", "", "", "z"),
    starts_from="segmenter_2d",
)

#: By name.
RECIPES = {recipe.name: recipe for recipe in (_DETECTOR, _SEGMENTER_2D, _SEGMENTER_2D_LIGHT, _SEGMENTER_3D)}
