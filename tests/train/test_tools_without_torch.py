"""Calibration, precision and SVM descriptors: what needs no torch."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastseg.kernels.hog import score_pixels
from tools.evaluation.calibration import Score
from tools.train.calibrate import averaged
from tools.train.precision import compare, rounded, to_int8
from tools.train.svm import _descriptors, _hardest


def _convolution(weights: np.ndarray) -> onnx.ModelProto:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    sides = [None, 1, 8, 8]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, sides)],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _run(model: onnx.ModelProto, batch: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": batch})[0])


def _batch(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, 1, 8, 8)).astype(np.float32)


def test_weights_and_activations_are_rounded_to_half_precision() -> None:
    weights = np.zeros((1, 1, 3, 3))
    weights[0, 0, 1, 1] = 1 + 2.0**-13  # is 1 in fp16
    batch = _batch()
    model = rounded(_convolution(weights), "fp16")
    onnx.checker.check_model(model)
    np.testing.assert_array_equal(_run(model, batch), batch.astype(np.float16).astype(np.float32))


def test_bfloat16_keeps_eight_bits() -> None:
    weights = np.zeros((1, 1, 3, 3))
    weights[0, 0, 1, 1] = 1
    batch = np.full((1, 1, 8, 8), 1 + 2.0**-9, np.float32)
    assert (_run(rounded(_convolution(weights), "bf16"), batch) == 1).all()
    assert (_run(rounded(_convolution(weights), "fp16"), batch) == batch).all()


def test_eight_bits_are_near_but_not_exact() -> None:
    weights = np.random.default_rng(1).normal(size=(1, 1, 3, 3))
    model = to_int8(_convolution(weights), [_batch(k) for k in range(8)])
    exact, found = _run(_convolution(weights), _batch(9)), _run(model, _batch(9))
    # 9 products, each factor wrong by up to 1/254 of its range of about 3.
    assert 0 < abs(found - exact).max() < 9 * 3 * 2 * 3 / 254
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def test_equal_answers_have_lost_nothing() -> None:
    found = compare([_batch()], [_batch()], [0.5])
    assert (found.max_difference, found.flipped_per_million, found.dice) == (0.0, 0.0, 1.0)


def test_contrasts_weigh_the_same_where_none_is_given() -> None:
    one = [Score(0.3, 0.9, 0.8, 4.0), Score(0.5, 0.8, 0.7, 2.0)]
    other = [Score(0.3, 0.7, 0.6, -2.0), Score(0.5, 0.9, 0.9, -8.0)]
    found = averaged({"t1": one, "t2": other})
    assert [score.threshold for score in found] == [0.3, 0.5]
    assert [score.dice for score in found] == pytest.approx([0.8, 0.85])
    assert [score.worst for score in found] == [0.6, 0.7]
    assert [score.area_bias_percent for score in found] == pytest.approx([1.0, -3.0])


def test_descriptors_times_coefficients_are_the_detectors_scores() -> None:
    """Training sees what `fastseg centerline` will see, also at the border."""
    pytest.importorskip("cv2", reason="OpenCV makes the descriptors")
    random = np.random.default_rng(3)
    image = random.integers(0, 256, (40, 52)).astype(np.uint8)
    coefficients = random.normal(size=577).astype(np.float32)
    scores = np.empty(image.shape, np.float32)
    score_pixels(image, coefficients, scores)
    places = np.array([[20, 30], [0, 0], [39, 51], [7, 45]])
    found = _descriptors(image, places) @ coefficients[:-1] + coefficients[-1]
    # OpenCV's angles are approximate: 3e-4 a unit of weight in `fastseg.optic`, and these weights are large.
    np.testing.assert_allclose(found, scores[tuple(places.T)], atol=0.02)


def test_hard_negatives_are_far_from_the_cord_and_from_each_other() -> None:
    image = np.random.default_rng(4).integers(0, 256, (60, 60)).astype(np.uint8)
    coefficients = np.random.default_rng(5).normal(size=577).astype(np.float32)
    coefficients[-1] = 100  # all are surer than the margin
    centre = np.array([30, 30], np.float32)
    found = _hardest(image, centre, coefficients)
    assert len(found) == 4
    assert np.hypot(*(found - centre).T).min() >= 9
    apart = np.hypot(*(found[:, None] - found[None]).transpose(2, 0, 1))
    assert apart[~np.eye(4, dtype=bool)].min() >= 6


@pytest.mark.parametrize(
    "name",
    ["tools.train.precision", "tools.train.synthesis.samples", "tools.evaluation.calibration"],
)
def test_examples_in_docstrings_hold(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
