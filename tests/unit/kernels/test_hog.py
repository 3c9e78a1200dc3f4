"""The score map: the dense kernel against whole descriptors, one window at a time."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastseg.kernels.hog import STRIP, score_pixels
from tests.reference import slow_optic

# Sums of 576 products of at most 0.2 |weight| in float32, and angles good to 1e-7 of a turn.
TOLERANCE = 1e-5
FEW = 2 if numba.config.DISABLE_JIT else 15
RNG = np.random.default_rng(20)
COEFFICIENTS = RNG.normal(0, 0.05, 577).astype(np.float32)


def scores_of(image, coefficients=COEFFICIENTS):
    scores = np.full(image.shape, np.nan, np.float32)
    score_pixels(np.ascontiguousarray(image), coefficients, scores)
    return scores


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5), (5, 3), (17, 16), (2, STRIP - 20)])
def test_scores_equal_those_of_whole_descriptors(shape):
    image = RNG.integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_allclose(
        scores_of(image), slow_optic.score_pixels(image, COEFFICIENTS), rtol=0, atol=TOLERANCE
    )


@settings(max_examples=FEW, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_scores_equal_those_of_whole_descriptors_for_any_image(image):
    np.testing.assert_allclose(
        scores_of(image), slow_optic.score_pixels(image, COEFFICIENTS), rtol=0, atol=TOLERANCE
    )


def test_score_of_a_flat_image_is_the_bias():
    assert (scores_of(np.full((4, 5), 77, np.uint8)) == COEFFICIENTS[-1]).all()


def test_score_depends_on_the_window_alone():
    n = 2 if numba.config.DISABLE_JIT else 10
    image = RNG.integers(0, 256, (40 + n, 40 + n), dtype=np.uint8)
    whole, part = scores_of(image), scores_of(image[2:, 3:])
    # Away from the border, whose reflection is another one in the part.
    np.testing.assert_allclose(whole[20:-17, 20:-17], part[18:-17, 17:-17], rtol=0, atol=TOLERANCE)


def test_bright_on_dark_and_dark_on_bright_differ():
    image = np.zeros((5, 6), np.uint8)
    image[2:, :] = 200
    assert abs(scores_of(image) - scores_of(200 - image)).max() > 0.01


def test_scores_agree_with_opencv():
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2, "HOGDescriptor"):
        pytest.skip("this OpenCV has no HOGDescriptor")
    hog = cv2.HOGDescriptor((32, 32), (8, 8), (8, 8), (4, 4), 9, 1, 2.0, 0, 0.2, True, 64, True)
    hog.setSVMDetector(COEFFICIENTS)
    image = RNG.integers(0, 256, (5, 12), dtype=np.uint8)
    _, scores = hog.detect(
        np.ascontiguousarray(image.T), hitThreshold=-1e9, winStride=(1, 1), padding=(16, 16)
    )
    # OpenCV has one more window along each axis, and approximates angles to 1e-3 of a bin.
    scores = scores.reshape(13, 6)[:-1, :-1].T
    np.testing.assert_allclose(scores_of(image), scores, rtol=0, atol=5e-4)
