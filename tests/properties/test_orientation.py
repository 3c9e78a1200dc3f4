"""The result does not depend on how the volume lies in its file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastseg.options import Options
from fastseg.phantom import make_phantom
from fastseg.segmenter import Segmentation, Segmenter
from fastseg.volume import SCT_RPI, Volume

_ORIENTATIONS = [
    codes for axes in itertools.permutations(("RL", "AP", "SI")) for codes in itertools.product(*axes)
]


@pytest.fixture(scope="module")
def image() -> Volume:
    return make_phantom("t2", n_slices=5, axcodes=SCT_RPI)[0]


@pytest.fixture(scope="module")
def segmenter() -> Iterator[Segmenter]:
    with Segmenter(Options(contrast="t2")) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(image: Volume, segmenter: Segmenter) -> Segmentation:
    return segmenter.segment(image)


def test_there_are_48_orientations() -> None:
    assert len(set(_ORIENTATIONS)) == 48


@given(codes=st.sampled_from(_ORIENTATIONS))
@settings(max_examples=24, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_mask_does_not_depend_on_the_orientation(
    codes: tuple[str, str, str], image: Volume, segmenter: Segmenter, expected: Segmentation
) -> None:
    turned = image.reoriented(codes)
    result = segmenter.segment(turned)
    assert result.mask.grid.axcodes == codes
    assert result.mask.grid.same_space(turned.grid)
    assert (result.mask.reoriented(SCT_RPI).voxels == expected.mask.voxels).all()
    assert (result.centerline.points == expected.centerline.points).all()
    assert expected.mask.voxels.any()
