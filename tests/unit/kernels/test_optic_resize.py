"""Grey values and grids of OptiC, against their twins and against OpenCV where it is installed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastseg.kernels import optic_resize
from tests.reference import slow_optic

RNG = np.random.default_rng(30)
ZOOMS = [0.35, 0.5, 0.6875, 0.8413, 0.9, 1.0, 1.3, 2.0]
SHAPES = [(1, 1), (1, 9), (9, 1), (3, 5), (14, 9), (9, 14)]


def resized_image(image, zoom_x, zoom_y):
    size = (
        optic_resize.size_at_1_mm(image.shape[0], zoom_x),
        optic_resize.size_at_1_mm(image.shape[1], zoom_y),
    )
    out = np.empty(size, np.uint8)
    optic_resize.resize_image(image, zoom_x, zoom_y, out)
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("zoom", ZOOMS)
def test_resized_image_equals_its_twin(shape, zoom):
    image = RNG.integers(0, 256, shape, dtype=np.uint8)
    for zoom_x, zoom_y in ((zoom, zoom), (zoom, 0.5), (1.0, zoom)):
        wanted = slow_optic.resize_image(image, zoom_x, zoom_y)
        np.testing.assert_array_equal(resized_image(image, zoom_x, zoom_y), wanted)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("zoom", ZOOMS)
def test_resized_image_equals_opencvs(shape, zoom):
    cv2 = pytest.importorskip("cv2")
    if min(round(size * zoom) for size in shape) == 0:
        pytest.skip("OpenCV refuses to make an empty image")
    image = RNG.integers(0, 256, shape, dtype=np.uint8)
    wanted = cv2.resize(image.T.copy(), None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR).T
    if zoom != 1 and wanted.shape == shape:
        pytest.skip("OpenCV copies an image whose size stays, its forerunners do not say")
    np.testing.assert_array_equal(resized_image(image, zoom, zoom), wanted)


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (5, 3), (9, 14)])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 3), (11, 8)])
def test_resized_scores_equal_their_twin(shape, size):
    scores = RNG.normal(size=shape).astype(np.float32)
    out = np.empty(size, np.float32)
    optic_resize.resize_scores(scores, out)
    # Interpolation of numbers of about 3 in float32.
    np.testing.assert_allclose(out, slow_optic.resize_scores(scores, size), rtol=0, atol=1e-6)


def test_size_at_1_mm_is_rounded_with_ties_to_even():
    assert [optic_resize.size_at_1_mm(n, 0.5) for n in (1, 2, 3, 49, 51)] == [1, 1, 2, 24, 26]


@settings(deadline=None)
@given(arrays(np.uint16, (3, 4)))
def test_uint8_is_scaled_by_the_slices_own_maximum(slice_):
    image = np.empty(slice_.shape, np.uint8)
    optic_resize.to_uint8(slice_, image)
    np.testing.assert_array_equal(image, slow_optic.to_uint8(slice_))


@settings(deadline=None)
@given(st.sampled_from([1, 2, 254, 510, 65535]))
def test_uint8_rounds_halves_to_even(highest):
    slice_ = np.arange(highest + 1, dtype=np.uint16)[:, None][-600:]
    image = np.empty(slice_.shape, np.uint8)
    optic_resize.to_uint8(slice_, image)
    np.testing.assert_array_equal(image, slow_optic.to_uint8(slice_))
