"""Crops through a network, alone or in blocks."""

from __future__ import annotations

import numpy as np
import pytest

from fastseg.networks.network import Role
from fastseg.prediction import predict_blocks, predict_slices
from tests.fake_engines import FakeEngine, network

_CROPS = np.random.default_rng(47).uniform(1, 255, (6, 4, 4)).astype(np.float32)
_BLOCKS = network(Role.SEGMENT_3D, spatial=(4, 4, 5))


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
