"""Batches: what they hold, and that an interrupted training sees the same ones."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tools.train.batches import Batches, block_batches, crop_batches, whole_batches
from tools.train.synthesis.samples import Samples, draw_samples


@cache
def _samples(kind: str) -> Samples:
    if kind == "blocks":
        return draw_samples(6, 1, depth=5)
    return draw_samples(24, 1, whole=kind == "whole")


def _batches(kind: str, size: int = 4, seed: int = 7) -> Batches:
    make = {"crops": crop_batches, "blocks": block_batches, "whole": whole_batches}[kind]
    return make(_samples(kind), size, seed)


@pytest.mark.parametrize("kind", ["crops", "blocks", "whole"])
def test_a_batch_depends_on_seed_and_number_only(kind: str) -> None:
    first = _batches(kind)
    first(0)
    for a, b in zip(first(5), _batches(kind)(5), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first(5).inputs, _batches(kind, seed=8)(5).inputs)


def test_every_sample_is_seen_once_before_any_is_seen_twice() -> None:
    bright = Samples(*(a.copy() for a in _samples("crops")))
    bright.images[:] = 0
    for q in range(24):  # a sample is known by how much of it is cord
        bright.masks[q] = q * 10
    batch = crop_batches(bright, 4, 3)
    seen = [round(float(target.max()) * 25) for k in range(6) for target in batch(k).targets]
    assert sorted(seen) == list(range(24))


def test_crops_are_scaled_as_the_networks_input_is() -> None:
    batch = _batches("crops")(0)
    assert batch.inputs.shape == batch.targets.shape == batch.weights.shape == (4, 1, 64, 64)
    assert batch.inputs.min() >= 0
    assert batch.inputs.max() <= 255
    assert batch.targets.max() <= 1
    assert (batch.weights == 1).all()


def test_blocks_have_few_slices_as_often_as_many() -> None:
    batch = _batches("blocks", size=2)
    depths = [batch(k).inputs.shape[-1] for k in range(150)]
    assert set(depths) <= set(range(1, 6))
    assert {1, 5} <= set(depths)
    assert batch(0).targets.shape == batch(0).inputs.shape


def test_heat_is_half_as_fine_and_peaks_at_the_cord() -> None:
    samples = _samples("whole")
    batch = _batches("whole", size=24)(0)
    assert batch.targets.shape == (24, 1, 72, 72)
    peaks = batch.targets.max((1, 2, 3))
    # The nearest pixel of 2 mm is at most 1.42 mm away, and the blob has a standard deviation of 3 mm.
    assert peaks[peaks > 0].min() > np.exp(-0.5 * (1.42 / 3) ** 2)
    assert (peaks > 0).sum() <= np.isfinite(samples.centres[:, 0, 0]).sum()
    assert (peaks > 0).sum() >= 8


def test_a_cord_at_the_edge_of_the_view_has_no_weight() -> None:
    number = next(k for k in range(60) if (_batches("whole", size=24)(k).weights == 0).any())
    batch = _batches("whole", size=24)(number)
    for target, weight in zip(batch.targets[:, 0], batch.weights[:, 0], strict=True):
        assert not (target[weight == 0] > 0).any()


def test_partial_fields_of_view_lie_in_the_middle_of_zeros() -> None:
    batch = _batches("whole", size=24)(1)
    small = [image[0] for image in batch.inputs if not image[0, :4].any() and image.any()]
    assert small
    for image in small:
        there = np.flatnonzero(image.any(1))
        assert abs((there[0] + there[-1]) / 2 - 71.5) <= 12  # dark edges of a slice are zero as well
