"""Calibration and SVM descriptors: what needs no torch."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest

from fastseg.kernels.hog import score_pixels
from tools.evaluation.calibration import Score
from tools.train.calibrate import averaged
from tools.train.svm import _descriptors, _hardest


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
    ["tools.train.synthesis.samples", "tools.evaluation.calibration"],
)
def test_examples_in_docstrings_hold(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
