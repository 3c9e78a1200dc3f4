"""Crops through a network, alone or in blocks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fastseg.networks.network import Role
from fastseg.prediction import predict_blocks, predict_slices
from tests.fake_engines import FakeEngine, network

_CROPS = np.random.default_rng(47).uniform(1, 255, (6, 4, 4)).astype(np.float32)
_BLOCKS = network(Role.SEGMENT_3D, spatial=(4, 4, 5))
_ANY_DEPTH = network(Role.SEGMENT_3D, spatial=(2, 2, 0), mean=3.0, std=2.0)


def test_slices_go_in_with_a_channel_and_standardised() -> None:
    engine = FakeEngine(lambda batch: batch * 2)
    out = predict_slices(_CROPS, network(mean=60.0, std=50.0), engine)
    # Two roundings of values below 4.
    np.testing.assert_allclose(engine.batches[0], (_CROPS[:, None] - 60) / 50, rtol=0, atol=8 * 2.0**-24)
    np.testing.assert_array_equal(out, engine.batches[0][:, 0] * 2)


@pytest.mark.parametrize("blocks", [False, True])
def test_nan_of_a_network_is_no_cord(blocks: bool) -> None:
    engine = FakeEngine(lambda batch: np.where(batch > 100, np.nan, batch))
    if blocks:
        out = predict_blocks(_CROPS, np.arange(6), 6, _BLOCKS, engine)
    else:
        out = predict_slices(_CROPS, network(), engine)
    np.testing.assert_array_equal(out, np.where(_CROPS > 100, 0, _CROPS))


def test_no_crops_give_no_probabilities() -> None:
    assert predict_slices(_CROPS[:0], network(), FakeEngine()).shape == (0, 4, 4)


def test_the_crops_are_left_alone() -> None:
    before = _CROPS.copy()
    predict_slices(_CROPS, network(), FakeEngine(lambda batch: batch * np.nan))
    predict_blocks(_CROPS, np.arange(6), 6, _BLOCKS, FakeEngine())
    np.testing.assert_array_equal(_CROPS, before)


def test_blocks_begin_at_slice_zero_and_do_not_overlap() -> None:
    engine = FakeEngine()
    z = np.array([1, 3, 4, 5, 6, 11])
    out = predict_blocks(_CROPS, z, 12, _BLOCKS, engine)
    np.testing.assert_array_equal(out, _CROPS)
    assert [batch.shape for batch in engine.batches] == [(1, 1, 4, 4, 5)] * 3
    np.testing.assert_array_equal(engine.batches[0][0, 0, :, :, 3], _CROPS[1])
    np.testing.assert_array_equal(engine.batches[2][0, 0, :, :, 1], _CROPS[5])


def test_every_answer_goes_to_its_own_slice() -> None:
    engine = FakeEngine(lambda batch: batch + np.arange(5, dtype=np.float32))
    z = np.array([1, 3, 4, 5, 6, 11])
    out = predict_blocks(_CROPS, z, 12, _BLOCKS, engine)
    np.testing.assert_array_equal(out, _CROPS + (z % 5)[:, None, None].astype(np.float32))


def test_uncovered_slices_hold_what_zero_became_and_padding_holds_zero() -> None:
    engine = FakeEngine()
    predict_blocks(
        _CROPS[:2],
        np.array([0, 6]),
        8,
        network(Role.SEGMENT_3D, spatial=(4, 4, 5), mean=10.0, std=2.0),
        engine,
        empty=30.0,
    )
    assert (engine.batches[0][..., 1:] == 10).all()  # (30 - 10) / 2
    assert (engine.batches[1][..., [0, 2]] == 10).all()
    assert (engine.batches[1][..., 3:] == -5).all()  # (0 - 10) / 2


def test_blocks_without_a_crop_or_of_zeros_are_not_run() -> None:
    engine = FakeEngine(lambda batch: batch + 1)
    crops = np.stack([_CROPS[0], np.zeros((4, 4), np.float32)])
    out = predict_blocks(crops, np.array([2, 12]), 20, _BLOCKS, engine)
    assert len(engine.batches) == 1
    np.testing.assert_array_equal(out[0], crops[0] + 1)
    assert not out[1].any()


# Networks of any depth -------------------------------------------------------------------------------------


def _numbered(z: NDArray[np.int64]) -> NDArray[np.float32]:
    """Crops that say which slice they are."""
    return np.broadcast_to(z[:, None, None], (len(z), 2, 2)).astype(np.float32)


@pytest.mark.parametrize("n", [1, 2, 5, 48])
def test_up_to_48_slices_are_one_block_of_just_that_depth(n: int) -> None:
    z = np.arange(n) + 100
    engine = FakeEngine(lambda batch: batch * 2 + 3)
    out = predict_blocks(_numbered(z), z, 400, _ANY_DEPTH, engine)
    (block,) = engine.batches
    assert block.shape == (1, 1, 2, 2, n)
    np.testing.assert_array_equal(block[0, 0, 0, 0], (z - 3) / 2)
    np.testing.assert_array_equal(out, _numbered(z))


def test_slices_are_shared_evenly_among_blocks() -> None:
    engine = FakeEngine()
    predict_blocks(_numbered(np.arange(60)), np.arange(60), 60, _ANY_DEPTH, engine)
    assert [batch.shape[4] for batch in engine.batches] == [36, 36]  # and not 48 and what is left


@pytest.mark.parametrize("n", [49, 60, 84, 85, 86, 120, 121, 193, 500])
def test_every_answer_has_its_context_from_as_few_blocks_as_do(n: int) -> None:
    z = np.arange(n) + 7
    blocks: list[NDArray[np.float32]] = []

    def number(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        blocks.append(batch[0, 0, 0, 0] * 2 + 3)
        return np.full_like(batch, len(blocks) - 1)

    out = predict_blocks(_numbered(z), z, n + 20, _ANY_DEPTH, FakeEngine(number))
    assert len({len(block) for block in blocks}) == 1
    assert len(blocks[0]) <= 48
    assert len(blocks) == -(-(n - 12) // 36)  # 48 slices less 6 on either side; none at the two ends
    for slice_, block in zip(z, out[:, 0, 0].astype(int), strict=True):
        assert blocks[block][0] <= max(slice_ - 6, z[0])
        assert blocks[block][-1] >= min(slice_ + 6, z[-1])


@pytest.mark.parametrize("n", [40, 49, 100, 237])
def test_the_tiling_does_not_show_when_a_network_looks_no_further_than_the_context(n: int) -> None:
    random = np.random.default_rng(n)
    weights = random.normal(0, 1, 13).astype(np.float32)
    z = np.flatnonzero(random.random(n) < 0.8)  # with gaps
    crops = random.uniform(0, 255, (len(z), 2, 2)).astype(np.float32)

    def look_around(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        padded = np.pad(batch, [*[(0, 0)] * 4, (6, 6)])
        return sum(w * padded[..., i : i + batch.shape[4]] for i, w in enumerate(weights))  # type: ignore[return-value]

    whole = np.full((1, 1, 2, 2, int(np.ptp(z)) + 1), (20 - 3) / 2, np.float32)
    whole[0, 0, :, :, z - z[0]] = (crops - 3) / 2
    wanted = look_around(whole)[0, 0][:, :, z - z[0]].transpose(2, 0, 1)
    out = predict_blocks(crops, z, n, _ANY_DEPTH, FakeEngine(look_around), empty=20.0)
    np.testing.assert_array_equal(out, wanted)


def test_a_gap_in_a_block_of_any_depth_holds_what_zero_became() -> None:
    engine = FakeEngine()
    z = np.array([3, 4, 9])
    predict_blocks(_numbered(z), z, 20, _ANY_DEPTH, engine, empty=13.0)
    assert ((engine.batches[0][0, 0, 0, 0] * 2 + 3) == [3, 4, 13, 13, 13, 13, 9]).all()


def test_a_gap_as_long_as_a_block_is_not_run_and_zeros_are() -> None:
    engine = FakeEngine(lambda batch: batch + 1)
    z = np.array([0, 1, 150, 151])
    crops = np.zeros((4, 2, 2), np.float32)
    out = predict_blocks(crops, z, 200, _ANY_DEPTH, engine)
    assert len(engine.batches) == 2
    assert (out == -0.5).all()  # (0 - 3) / 2 + 1


def test_no_crops_give_no_blocks() -> None:
    engine = FakeEngine()
    none = np.zeros((0, 2, 2), np.float32)
    assert predict_blocks(none, np.zeros(0, np.int64), 9, _ANY_DEPTH, engine).shape == (0, 2, 2)
    assert engine.batches == []
