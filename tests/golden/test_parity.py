"""SCT's own results, voxel for voxel; and where the default mode differs from them, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastseg.quirks import MENDED, SCT_QUIRKS
from tests.golden import parity

pytestmark = pytest.mark.golden

_GOLDENS = list(parity.goldens()) if parity.PARITY.is_dir() else []

# SCT fails on these valid inputs with IndexError; ours give a mask.
_WORK_HERE = {
    "odd_4d_nt1",  # (x, y, z, 1): the library takes it as 3D, the compatibility command refuses it
    "odd_ctl_fewer_slices",
    "odd_single_slice_xy",
    "odd_single_slice_xy1",
    "odd_single_slice_xy_ctl3d",
}

# Where the default mode may differ: case -> quirk that was mended. README.md beside this file explains them.
_MENDED = {
    "tutlumbar": "1, 2, 16: gaps are filled, both ends are tested, objects below removed",
    "zctx_tutlumbar": "16: an object below the cord is removed",
    "odd_ctl_gap3": "1: gaps are filled",
    "odd_ctl_bottom_blob": "1: gaps are filled",
    "odd_two_cords": "1, 9: gaps are filled and objects removed, also in soft masks",
    "odd_two_cords_moving_window": "1: gaps are filled",
    "odd_two_objects": "1: gaps are filled",
    "odd_two_objects_moving_window": "1: gaps are filled",
    "odd_ctl_partial": "11: percentiles over covered slices",
    "odd_ctl_gap15": "11: percentiles over covered slices",
    "odd_ctl_top_blob": "11: percentiles over covered slices",
    "odd_ctl_last_two": "11: percentiles over covered slices",
    "odd_ctl_one_slice": "11: percentiles over covered slices",
    "zctx_odd_ctl_partial": "11: percentiles over covered slices",
    "odd_constant": "15: nothing to segment",
    "odd_zero_image": "15: nothing to segment",
}


@pytest.mark.skipif(not _GOLDENS, reason="no ../shared/parity beside the checkout")
def test_the_goldens_are_all_there() -> None:
    assert sum(golden.completed for golden in _GOLDENS) == 192


@pytest.mark.parametrize("golden", _GOLDENS, ids=lambda golden: golden.name)
def test_compatibility_mode_gives_the_voxels_and_header_of_sct(golden: parity.Golden, tmp_path: Path) -> None:
    ours = parity.compare(golden, SCT_QUIRKS, tmp_path)
    if golden.completed:
        assert ours.agrees(golden), ours
    elif golden.case in _WORK_HERE:
        assert ours.voxels > 0, ours
    else:
        assert ours.error.startswith(("CordNotFound: ", "NetworkError: ")), ours


@pytest.mark.parametrize("golden", _GOLDENS, ids=lambda golden: golden.name)
def test_default_mode_differs_only_where_a_quirk_was_mended(golden: parity.Golden, tmp_path: Path) -> None:
    ours = parity.compare(golden, MENDED, tmp_path)
    if not golden.completed:
        assert ours.error or ours.voxels > 0
    elif golden.case not in _MENDED:
        assert ours.agrees(golden), ours
