"""Fixed inputs are always the same ones, and an engine that is wrong is told from one that rounds."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastseg.engines.acceptance import (
    TOLERANCES,
    Difference,
    calibration_inputs,
    compare,
    fixed_inputs,
    measure,
    require,
)
from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
from fastseg.errors import EngineBuildError
from fastseg.networks.network import PRECISIONS, Network, Role
from fastseg.networks.packs import find_pack
from tests.fake_engines import FakeEngine, network

_BUILT_IN = find_pack("default").networks


def _noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(shape, np.float32)


# Inputs ----------------------------------------------------------------------------------------------------

_EVERY = ("t1", "t2", "t2s", "dwi", "auto")


@pytest.mark.parametrize(
    ("role", "spatial", "shapes"),
    [
        (Role.SEGMENT_2D, (64, 64), [(67, 1, 64, 64)]),
        (Role.SEGMENT_2D_LIGHT, (64, 64), [(67, 1, 64, 64)]),
        (Role.DETECT_BLOCKS, (0, 0), [(67, 1, 64, 64)]),
        (Role.DETECT_BLOCKS, (80, 80), [(67, 1, 80, 80)]),
        (Role.SEGMENT_3D, (64, 64, 0), [(4, 1, 64, 64, 16), (1, 1, 64, 64, 21)]),
        (Role.SEGMENT_3D, (96, 96, 48), [(2, 1, 96, 96, 48)]),
        (Role.DETECT_SLICES, (0, 0), [(8, 1, 96, 112), (5, 1, 144, 128)]),
        (Role.DETECT_SLICES, (160, 0), [(8, 1, 160, 112), (5, 1, 160, 128)]),
    ],
)
def test_every_role_gets_batches_as_its_engine_takes_them(
    role: Role, spatial: tuple[int, ...], shapes: list[tuple[int, ...]]
) -> None:
    batches = fixed_inputs(network(role, spatial=spatial, contrasts=_EVERY))
    assert [batch.shape for batch in batches] == shapes
    highest = 1.2 if role is Role.DETECT_SLICES else 255
    for batch in batches:
        assert batch.dtype == np.float32
        assert batch.flags.c_contiguous
        assert not batch.flags.writeable
        assert batch.min() >= 0
        assert 0.9 * highest < batch.max() <= np.float32(highest)


@pytest.mark.parametrize("contrasts", [("t2",), ("auto",), ("t1", "dwi", "auto")])
def test_a_network_of_few_contrasts_gets_as_many_inputs(contrasts: tuple[str, ...]) -> None:
    (batch,) = fixed_inputs(network(contrasts=contrasts))
    assert len(batch) == 67


def test_mean_and_std_of_the_network_are_applied() -> None:
    (plain,) = fixed_inputs(network())
    (standardised,) = fixed_inputs(network(mean=65.9, std=59.8))
    np.testing.assert_allclose(standardised, (plain - 65.9) / 59.8, atol=1e-6)


def test_inputs_are_the_same_every_time_and_those_of_calibration_are_others() -> None:
    (first,), (again,), (other,) = (
        fixed_inputs(network()),
        fixed_inputs(network()),
        calibration_inputs(network()),
    )
    np.testing.assert_array_equal(first, again)
    assert other.shape == first.shape
    assert (abs(other - first).reshape(len(first), -1).max(axis=1) > 20).all()


def test_inputs_are_the_same_on_every_machine() -> None:
    """Means of 16 x 16 pixels of a T1, a T2 and a DWI crop, as they were when tolerances were measured."""
    (crops,) = fixed_inputs(network(contrasts=_EVERY))
    coarse = crops[[3, 20, 60], 0].reshape(3, 4, 16, 4, 16).mean(axis=(2, 4))
    # Sines of another library move a voxel by 1 of 800, before the scale of 0..255; a mean by much less.
    np.testing.assert_allclose(coarse.reshape(3, -1)[:, ::3], _COARSE, atol=0.5)


_COARSE = [
    [149.9, 129.4, 149.8, 104.7, 164.0, 117.0],
    [28.1, 41.8, 147.3, 95.3, 30.6, 40.8],
    [23.4, 20.6, 130.1, 62.2, 24.5, 15.5],
]


@pytest.mark.parametrize("each", _BUILT_IN, ids=lambda network: network.path.stem)
def test_the_built_in_networks_see_a_cord_on_every_input(each: Network) -> None:
    with OnnxRuntimeCpu(each) as engine:
        for batch in fixed_inputs(each):
            answer = engine.infer(batch)
            assert (answer.reshape(len(answer), -1).max(axis=1) > max(each.thresholds.values())).all()


# Comparison ------------------------------------------------------------------------------------------------


def test_equal_answers_do_not_differ() -> None:
    answers = [_noise(3, 1, 8, 8), _noise(1, 1, 4, 4, 5)]
    assert compare(network(), answers, answers) == Difference(0.0, 0, 272, 1.0)


def test_the_threshold_with_most_flips_counts() -> None:
    expected = np.array([[0.1, 0.3, 0.6, 0.9]], np.float32)
    answer = np.array([[0.3, 0.1, 0.65, 0.9]], np.float32)
    of_two = network(contrasts=("t1", "t2"), thresholds={"t1": 0.2, "t2": 0.5})
    found = compare(of_two, [answer], [expected])
    assert (found.flipped, found.pixels, found.flipped_per_million) == (2, 4, 500_000.0)
    assert found.dice == pytest.approx(4 / 6)
    assert found.max_difference == pytest.approx(0.2)
    assert compare(network(), [answer], [expected]).flipped == 0


def test_answers_beyond_one_are_compared_by_their_largest() -> None:
    logits = np.array([[-50.0, 20.0]], np.float32)
    assert compare(network(), [logits + 1], [logits]).max_difference == pytest.approx(0.02)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("whose", ["engine", "reference"])
@pytest.mark.parametrize("precision", TOLERANCES)
def test_an_answer_that_is_not_finite_never_passes(bad: float, whose: str, precision: str) -> None:
    good = _noise(3, 1, 8, 8)
    broken = good.copy()
    broken[1, 0, 2, 2] = bad
    answers = ([broken], [good]) if whose == "engine" else ([good], [broken])
    for pair in (answers, ([broken], [broken])):
        with pytest.raises(EngineBuildError, match="differ by inf"):
            require(compare(network(), *pair), precision, "engine")


@pytest.mark.parametrize("precision", TOLERANCES)
def test_an_answer_of_another_shape_never_passes(precision: str) -> None:
    expected = [_noise(3, 1, 8, 8)]
    for answers in (
        [],
        [expected[0][:2]],
        [expected[0][:, :, :4]],
        [expected[0][:, 0]],
        [*expected, *expected],
    ):
        found = compare(network(), answers, expected)
        assert not TOLERANCES[precision].takes(found)
    assert not TOLERANCES[precision].takes(compare(network(), [], []))


def test_every_precision_has_its_tolerance_and_none_is_stricter_than_a_better_one() -> None:
    assert tuple(TOLERANCES) == ("fp32", *PRECISIONS)
    allowed = list(TOLERANCES.values())
    for better, worse in pairwise(allowed):
        assert better.max_difference <= worse.max_difference
        assert better.flipped_per_million <= worse.flipped_per_million
        assert better.dice >= worse.dice


def test_an_engine_that_rounds_passes_and_the_message_of_one_that_does_not_has_the_numbers() -> None:
    expected = _noise(100, 1, 64, 64)
    rounded = compare(network(), [expected.astype(np.float16).astype(np.float32)], [expected])
    require(Difference(rounded.max_difference, 1, rounded.pixels, 0.9999), "fp16", "engine")
    with pytest.raises(EngineBuildError) as caught:
        require(Difference(0.000123, 40, 400_000, 0.99321), "fp32", "tensorrt fp32 of default/segmenter_2d")
    assert str(caught.value) == (
        "tensorrt fp32 of default/segmenter_2d: its answers are not the reference's: they differ by 0.00012 "
        "(0.0001 is allowed in fp32), 100 of a million pixels flip (50), Dice 0.99321 (0.995): take another "
        "--precision, or --device cpu"
    )


# Whole -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "passes"),
    [
        (lambda answer: answer, True),
        (lambda answer: np.roll(answer, 1, axis=2), False),
        (lambda answer: answer.swapaxes(2, 3), False),
        (lambda answer: answer[::-1], False),
        (np.zeros_like, False),
        (lambda answer: np.clip(answer + np.float32(0.3), 0, 1), False),
    ],
    ids=["as it is", "shifted by a pixel", "turned", "another order", "nothing", "too high"],
)
def test_wrong_engines_are_refused_in_every_precision(damage: Any, passes: bool) -> None:
    light = find_pack("default").network(Role.SEGMENT_2D_LIGHT, "t2")
    with OnnxRuntimeCpu(light) as reference:
        found = measure(FakeEngine(lambda batch: damage(reference.infer(batch))), light, reference)
    assert [tolerance.takes(found) for tolerance in TOLERANCES.values()] == [passes] * len(TOLERANCES)


def test_an_engine_that_answers_wrongly_the_second_time_is_found_out() -> None:
    """As one whose recorded work is not what was recorded."""
    light = find_pack("default").network(Role.SEGMENT_2D_LIGHT, "t2")
    with OnnxRuntimeCpu(light) as reference:
        turns = iter(range(1000))

        def answer(batch: Any) -> Any:
            right = reference.infer(batch)
            return right if next(turns) == 0 else right[::-1]

        assert len(fixed_inputs(light)) == 1
        assert measure(FakeEngine(answer), light, reference).dice < 0.99
        assert measure(FakeEngine(reference.infer), light, reference) == Difference(0.0, 0, 67 * 64 * 64, 1.0)
