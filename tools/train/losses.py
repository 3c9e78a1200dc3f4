"""What training makes small."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["heat_loss", "mask_dice", "mask_loss", "peak_error"]

# Pixels added to both sides of a Dice ratio: an empty target with an empty answer is right.
_SMOOTH = 20.0


def mask_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Twice the binary cross-entropy plus one minus the soft Dice; targets may be partial."""
    cross = functional.binary_cross_entropy_with_logits(logits, targets, weights)
    return 2 * cross + 1 - _soft_dice(torch.sigmoid(logits), targets).mean()


def heat_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Binary cross-entropy to a heat map; the blob counts for as much as the rest of the slice."""
    weights = weights * (1 + 20 * targets)
    return functional.binary_cross_entropy_with_logits(logits, targets, weights) * 5


def mask_dice(logits: Tensor, targets: Tensor) -> float:
    """Mean Dice of answers over 0.5 with targets over 0.5, for validation."""
    return float(_soft_dice((logits > 0).float(), (targets > 0.5).float()).mean())


def peak_error(logits: Tensor, targets: Tensor) -> float:
    """Share of slices whose answer is wrong: a peak over 8 mm off, or one where there is no cord, or none."""
    flat, truth = logits.flatten(1), targets.flatten(1)
    width = logits.shape[-1]
    peak, place = flat.max(1)
    true_peak, true_place = truth.max(1)
    seen, there = peak > 0, true_peak > 0.3
    far = torch.hypot(
        (place // width - true_place // width).float(), (place % width - true_place % width).float()
    )
    return float(((seen != there) | (there & (2 * far > 8))).float().mean())


def _soft_dice(answers: Tensor, targets: Tensor) -> Tensor:
    dims = tuple(range(1, answers.dim()))
    both = (answers * targets).sum(dims)
    return (2 * both + _SMOOTH) / (answers.sum(dims) + targets.sum(dims) + _SMOOTH)
