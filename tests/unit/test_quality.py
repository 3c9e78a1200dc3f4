"""What a result says about itself: measures of made-up cords, and which of them are odd."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.centerline import Centerline
from fastseg.crops import CropWindows
from fastseg.quality import LIMITS, Limit, Quality, assess
from fastseg.resampling import working_grid
from fastseg.volume import Grid, Volume

_SIZE = 64
_ORIENTATIONS = [codes for ends in product("RL", "AP", "SI") for codes in permutations(ends)]


@dataclass(frozen=True)
class _Cord:
    """A round cord in voxels of 0.5 x 0.5 x 2 mm, so that native and working grid are one.

    Parameters
    ----------
    centres : (n, 2) x and y of the cord on each slice, in voxels
    radii : (n,) in voxels; 0: no cord
    line : (m, 3) centerline, in voxels
    shape : x, y
    sharpness : of the probabilities, per voxel
    """

    centres: Any
    radii: Any
    line: Any
    shape: tuple[int, int] = (100, 100)
    sharpness: float = 4.0

    @property
    def grid(self) -> Grid:
        return Grid((*self.shape, len(self.radii)), np.diag([-0.5, 0.5, 2.0, 1.0]))

    @property
    def probabilities(self) -> Any:
        """(z, x, y) float32 over the whole field of view."""
        x, y = np.indices(self.shape)[:, None]
        distance = np.hypot(x - self.centres[:, :1, None], y - self.centres[:, 1:, None])
        radii = self.radii[:, None, None]
        values = 1 / (1 + np.exp(np.clip(self.sharpness * (distance - radii), -50, 50)))
        return np.where(radii > 0, values, 0).astype(np.float32)

    def windows(self) -> CropWindows:
        return CropWindows.around(Centerline(self.grid, self.line), _SIZE)

    def cut(self, slices: Any) -> Any:
        return self.windows().extract(np.ascontiguousarray(slices, np.float32))

    def assess(self, mask: Any = None, *, codes: tuple[str, str, str] = ("L", "A", "S")) -> Quality:
        """As after a segmentation that gave the mask (z, x, y); by default what the windows hold."""
        crops, windows = self.cut(self.probabilities), self.windows()
        kept = (crops > 0.5).astype(np.float32)
        if mask is None:
            mask = np.zeros((len(self.radii), *self.shape), np.uint8)
            canvas, (x, y, z) = windows.paste(kept)
            n, nx, ny = canvas.shape
            mask[z : z + n, x : x + nx, y : y + ny] = canvas
        volume = Volume(mask.transpose(1, 2, 0), self.grid).reoriented(codes)
        return assess(volume, Centerline(self.grid, self.line), windows, crops, kept, 0.5)


def _straight(n: int = 20) -> _Cord:
    z = np.arange(n)
    centres = np.full((n, 2), 50.0)
    return _Cord(centres, np.full(n, 10.0), np.column_stack([centres, z]))


def _with_radii(changed: dict[int, float], n: int = 20) -> _Cord:
    cord = _straight(n)
    radii = cord.radii.copy()
    for z, radius in changed.items():
        radii[z] = radius
    return replace(cord, radii=radii)


# A good result -------------------------------------------------------------------------------------------


def test_a_round_cord_has_nothing_odd_and_the_measures_of_a_round_cord() -> None:
    quality = _straight().assess()
    assert quality.flags == quality.reasons == ()
    measures = quality.measures
    # 305 voxels lie closer than 10 voxels to one of them.
    assert {measures[f"{which}AreaMm2"] for which in ("Median", "Min", "Max")} == {0.25 * 305}
    assert measures["LengthMm"] == 40
    assert measures["Coverage"] == measures["ShareOfSlices"] == measures["Objects"] == 1
    assert not any(measures[name] for name in ("AreaJump", "CentreJumpMm", "MissingSlices", "HoleVoxels"))
    # 0.1 and 0.9 are 2 ln 9 / 4 = 1.1 voxels of 0.5 mm apart; the rim of a disc has fewer pixels than its
    # circumference has voxels, 56 for 63.
    assert measures["SoftMarginMm"] == pytest.approx(0.5 * 1.1 * 63 / 56, rel=0.15)


def test_every_limit_has_a_name_of_its_own_and_a_measure_that_exists() -> None:
    measures = _straight().assess().measures
    assert len({limit.flag for limit in LIMITS}) == len(LIMITS)
    assert {limit.measure for limit in LIMITS} <= set(measures)


@pytest.mark.parametrize("codes", _ORIENTATIONS, ids="".join)
def test_the_orientation_of_the_mask_changes_nothing(codes: tuple[str, str, str]) -> None:
    cord = _with_radii({4: 5, 9: 0})
    assert cord.assess(codes=codes) == cord.assess()


@settings(max_examples=40, deadline=None)
@given(
    radii=st.lists(st.sampled_from([0.0, 1.0, 6.0, 10.0, 14.0]), min_size=1, max_size=6).filter(any),
    steps=st.lists(st.integers(-12, 12), min_size=6, max_size=6),
    shape=st.sampled_from([(100, 100), (70, 30), (40, 90)]),
)
def test_measures_are_finite_and_always_the_same_whatever_the_cord(
    radii: list[float], steps: list[int], shape: tuple[int, int]
) -> None:
    n = len(radii)
    x = np.clip(shape[0] / 2 + np.cumsum(steps[:n]), 0, shape[0] - 1)
    centres = np.column_stack([x, np.full(n, shape[1] / 2)])
    line = np.column_stack([centres, np.arange(n)])
    quality = _Cord(centres, np.array(radii), line, shape).assess()
    assert list(quality.measures) == list(_straight().assess().measures)
    assert all(math.isfinite(value) for value in quality.measures.values())
    assert len(quality.reasons) == len(quality.flags)


def test_an_empty_mask_is_measured_and_flagged() -> None:
    cord = _straight()
    quality = cord.assess(np.zeros((20, *cord.shape), np.uint8))
    assert quality.measures["LengthMm"] == quality.measures["MedianAreaMm2"] == 0
    assert {"short", "low_coverage", "small_area"} <= set(quality.flags)


# What is odd ---------------------------------------------------------------------------------------------


def _reason(quality: Quality, flag: str) -> str:
    return quality.reasons[quality.flags.index(flag)]


def test_a_jump_of_the_area_is_flagged_where_it_is() -> None:
    quality = _with_radii(dict.fromkeys(range(7), 5.0)).assess()
    # Voxels that lie closer than 5 and 10 voxels to one of them; four digits are kept.
    assert quality.measures["AreaJump"] == pytest.approx(1 - 69 / 305, abs=1e-4)
    assert quality.flags == ("area_jump",)
    assert quality.reasons == ("the area changes by 77% from slice 6 to 7",)
    assert quality.slices == {"area_jump": (6, 7)}


def test_a_jump_of_the_centre_is_flagged_where_it_is() -> None:
    cord = _straight()
    centres = cord.centres.copy()
    centres[12:, 0] += 10
    quality = replace(cord, centres=centres).assess()
    assert quality.measures["CentreJumpMm"] == 5
    assert quality.measures["CentreJumpPerMm"] == 2.5
    assert _reason(quality, "centre_jump") == "the centre moves by 5.0 mm from slice 11 to 12"
    assert quality.slices["centre_jump"] == (11, 12)


def test_missing_slices_are_those_between_others() -> None:
    quality = _with_radii({0: 0, 8: 0, 9: 0, 19: 0}).assess()
    assert quality.measures["MissingSlices"] == 2
    assert _reason(quality, "missing_slices") == (
        "no cord on 2 slices between others, the first of them slice 8"
    )
    assert quality.slices["missing_slices"] == (8, 9)
    assert "several_objects" not in quality.slices
    assert quality.measures["Objects"] == 2
    assert "several_objects" in quality.flags


def test_coverage_counts_the_slices_of_the_centerline_alone() -> None:
    cord = _with_radii(dict.fromkeys(range(12, 20), 0.0))
    assert cord.assess().measures["Coverage"] == 12 / 20
    assert "low_coverage" in cord.assess().flags
    short_line = replace(cord, line=cord.line[:12])
    assert short_line.assess().measures["Coverage"] == 1
    assert short_line.assess().measures["ShareOfSlices"] == 12 / 20
    assert short_line.assess().flags == ()


def test_a_cord_on_one_slice_of_many_is_short_but_on_the_only_one_it_is_not() -> None:
    many = _straight(20)
    assert (
        "short"
        in replace(many, radii=np.where(np.arange(20) == 9, 10.0, 0), line=many.line[9:10]).assess().flags
    )
    assert _straight(1).assess().flags == ()


@pytest.mark.parametrize(("radius", "flag"), [(5.0, "small_area"), (13.0, "large_area")])
def test_a_cord_of_an_unlikely_size_is_flagged(radius: float, flag: str) -> None:
    assert replace(_straight(), radii=np.full(20, radius)).assess().flags == (flag,)


def test_an_uncertain_border_is_flagged() -> None:
    quality = replace(_straight(), sharpness=1.0).assess()
    assert quality.flags == ("unsure",)
    assert quality.measures["MeanProbability"] < 0.95


def test_uncertain_slices_without_a_mask_do_not_count() -> None:
    """A centerline that runs on beyond the cord says nothing about its border."""
    cord = _straight()
    crops = cord.cut(cord.probabilities)
    kept = (crops > 0.5).astype(np.float32)
    volume = Volume((cord.probabilities > 0.5).astype(np.uint8).transpose(1, 2, 0), cord.grid)
    line = Centerline(cord.grid, cord.line)

    def margin() -> float:
        return assess(volume, line, cord.windows(), crops, kept, 0.5).measures["SoftMarginMm"]

    kept[0] = 0
    sure = margin()
    crops[0] = 0.5
    assert margin() == sure


def test_contact_with_the_window_is_counted_where_the_field_of_view_goes_on() -> None:
    cord = _straight()
    beside = cord.line + np.array([24.0, 0, 0])
    quality = replace(cord, line=beside).assess()
    # The window is clamped to [36, 100): the cord from 40 to 60 lies inside.
    assert quality.measures["CropContactVoxels"] == 0
    wide = replace(cord, shape=(200, 100), line=beside)
    quality = wide.assess()
    # The window starts at 74 - 31 = 43, seven voxels from the middle, where the disc is 15 voxels high.
    assert quality.measures["CropContactVoxels"] == 20 * 15
    assert quality.measures["EdgeVoxels"] == 0
    assert _reason(quality, "touches_crop") == "the mask reaches the border of its window, first on slice 0"
    assert quality.slices["touches_crop"] == tuple(range(20))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("upper", [False, True])
def test_contact_with_each_edge_of_the_field_of_view_is_counted(axis: int, upper: bool) -> None:
    cord = _straight()
    centres, line = cord.centres.copy(), cord.line.copy()
    centres[5:, axis] = line[5:, axis] = 97 if upper else 2
    centres[:5, axis] = line[:5, axis] = 70 if upper else 30
    quality = replace(cord, centres=centres, line=line).assess()
    # Two voxels from its middle a disc of 10 voxels' radius is 19 voxels wide.
    assert quality.measures["EdgeVoxels"] == 15 * 19
    assert quality.measures["CropContactVoxels"] == 0
    assert "first on slice 5" in _reason(quality, "touches_edge")


def test_the_first_and_last_slice_are_no_edge() -> None:
    assert _straight(2).assess().measures["EdgeVoxels"] == 0


def test_holes_are_counted_where_they_are() -> None:
    cord = _straight()
    mask = (cord.probabilities > 0.5).astype(np.uint8)
    mask[13, 48:52, 50] = 0
    quality = cord.assess(mask)
    assert quality.measures["HoleVoxels"] == 4
    assert quality.reasons == ("the mask has holes of 4 voxels, first on slice 13",)
    assert quality.slices == {"holes": (13,)}


def test_a_soft_mask_is_measured_at_the_threshold() -> None:
    cord = _straight()
    crops = cord.cut(cord.probabilities)
    line = Centerline(cord.grid, cord.line)
    soft = Volume(cord.probabilities.transpose(1, 2, 0), cord.grid)
    for threshold in (0.2, 0.7):
        hard = Volume((soft.voxels > threshold).astype(np.uint8), cord.grid)
        kept = (crops > threshold).astype(np.float32)
        assert assess(soft, line, cord.windows(), crops, crops, threshold) == assess(
            hard, line, cord.windows(), crops, kept, threshold
        )


def test_voxels_that_are_not_square_are_measured_in_millimetres() -> None:
    native = Grid((50, 80, 4), np.diag([-1.0, 0.7, 5.0, 1.0]))
    working = working_grid(native)
    z = np.arange(4)
    line = Centerline(working, np.column_stack([np.full(4, 50.0), np.full(4, 56.0), z]))
    voxels = np.zeros(native.shape, np.uint8)
    voxels[22:30, 35:45] = 1
    voxels[..., 2] = np.roll(voxels[..., 2], 2, axis=1)
    crops = np.zeros((4, _SIZE, _SIZE), np.float32)
    quality = assess(Volume(voxels, native), line, CropWindows.around(line, _SIZE), crops, crops, 0.5)
    assert quality.measures["MedianAreaMm2"] == pytest.approx(80 * 0.7)
    assert quality.measures["CentreJumpMm"] == pytest.approx(1.4)
    assert quality.measures["CentreJumpPerMm"] == pytest.approx(1.4 / 5)
    assert quality.measures["LengthMm"] == 20


@pytest.mark.parametrize(
    ("below", "value", "odd"), [(True, 2.0, False), (True, 1.9, True), (False, 2.1, True)]
)
def test_a_value_at_the_limit_is_not_odd(below: bool, value: float, odd: bool) -> None:
    assert Limit("flag", "M", 2.0, "", below).broken({"M": value}) is odd
