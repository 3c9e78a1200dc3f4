"""What the report says about a volume."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.cohort.job import Status
from fastseg.qc.entry import areas_of, detail_of, header_of, row_of, severity
from fastseg.quality import LIMITS
from fastseg.volume import SCT_RPI, Grid, Volume

_LIMITS = {limit.flag: limit for limit in LIMITS}


def _row(**facts: Any) -> dict[str, Any]:
    known = {"name": "sub-01/anat/sub-01_T2w.nii.gz", "dataset": "set", "contrast": "t2", "status": "ok"}
    return row_of(mask=Path("/out/sub-01_T2w_seg.nii.gz"), **{**known, **facts})


# --- how bad it is


def test_every_status_has_its_place() -> None:
    assert {status: severity(status, (), {}) for status in Status} == {
        Status.OK: 0,
        Status.OK_FLAGGED: 0,
        Status.SKIPPED: 0,
        Status.CACHED: 0,
        Status.NO_CORD: 100,
        Status.OUT_OF_MEMORY: 101,
        Status.BAD_INPUT: 102,
        Status.ERROR: 103,
    }


@pytest.mark.parametrize("flag", _LIMITS)
def test_it_grows_with_what_is_beyond_the_limit_and_never_by_a_whole_flag(flag: str) -> None:
    limit = _LIMITS[flag]
    steps = (0.9, 0.5, 0.1, 0.0) if limit.below else (1.1, 2.0, 50.0, 1e9)
    values = [(limit.value or 1.0) * step for step in steps]
    found = [severity("ok_flagged", [flag], {limit.measure: value}) for value in values]
    assert found == sorted(found)
    assert len(set(found)) == 4
    assert found[0] > 1
    assert found[-1] < 2


def test_another_flag_counts_more_than_any_measure() -> None:
    worst = severity("ok_flagged", ["large_area"], {"MedianAreaMm2": 1e30})
    assert worst < severity("ok_flagged", ["large_area", "unsure"], {})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_measure_that_is_no_number_does_not_count(value: float) -> None:
    assert severity("ok_flagged", ["large_area"], {"MedianAreaMm2": value}) == 1


def test_an_unknown_flag_counts_as_one() -> None:
    assert severity("ok_flagged", ["of_tomorrow"], {}) == 1


# --- the row


def test_a_row_has_what_the_table_shows() -> None:
    row = _row(
        status=Status.OK_FLAGGED,
        flags=("short",),
        measures={"MedianAreaMm2": np.float64(71.234), "LengthMm": 80, "ShareOfSlices": 0.05},
        slices=np.int64(40),
        seconds={"read": 0.25, "predict": 0.5},
        engines={"detect": "onnxruntime", "segment": "onnxruntime"},
        mask_sha256="0123456789abcdef" * 4,
        pictures=True,
        at="2025-01-01T00:00:00+00:00",
    )
    del row["id"]
    assert json.loads(json.dumps(row, allow_nan=False)) == {
        "name": "sub-01/anat/sub-01_T2w.nii.gz",
        "dataset": "set",
        "subject": "sub-01",
        "contrast": "t2",
        "status": "ok_flagged",
        "flags": ["short"],
        "severity": 1.5,
        "message": "",
        "slices": 40,
        "length_mm": 80.0,
        "area_mm2": 71.2,
        "seconds": 0.75,
        "engine": "onnxruntime",
        "manual": False,
        "mask": "0123456789ab",
        "pictures": True,
        "at": "2025-01-01T00:00:00+00:00",
    }


def test_numbers_that_are_not_known_are_null() -> None:
    row = _row(status="no_cord", measures={"MedianAreaMm2": math.nan})
    assert (row["slices"], row["length_mm"], row["area_mm2"], row["seconds"]) == (None, None, None, 0)
    assert row["at"].startswith("20")
    assert row["at"].endswith("+00:00")


def test_a_corrected_mask_is_as_it_should_be() -> None:
    row = _row(status="ok_flagged", flags=["short"], manual=True)
    assert (row["severity"], row["manual"]) == (0, True)


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("sub-01/anat/sub-01_T2w.nii.gz", "sub-01"),
        ("sub-02_ses-a_T2w.nii.gz", "sub-02"),
        ("set/sub-x1/t2.nii", "sub-x1"),
        ("patients/anna/t2.nii.gz", "anna"),
        ("t2.nii.gz", "t2"),
        ("mysub-01.nii", "mysub-01"),
    ],
)
def test_the_subject_is_told_by_the_name(name: str, subject: str) -> None:
    assert _row(name=name)["subject"] == subject
    assert _row(name=name, subject="given")["subject"] == "given"


# --- the details


def test_details_are_plain_json() -> None:
    detail = detail_of(
        image=Path("image.nii"),
        mask=Path("/out/a_seg.nii"),
        manual=Path("/out/a_desc-manual_seg.nii"),
        commands={"FSLeyes": "fsleyes"},
        areas=[[3, np.float32(70.5)]],
        pitch_mm=np.float32(2.5),
        flag_slices={"holes": (np.int64(3), 4)},
        reasons={"holes": "the mask has holes"},
        notes=("odd",),
        measures={"AreaJump": np.float64(0.25), "Objects": math.inf},
        header={"Contrast": "t2"},
    )
    assert json.loads(json.dumps(detail, allow_nan=False)) == {
        "sheet": None,
        "areas": [[3, 70.5]],
        "pitch_mm": 2.5,
        "flag_slices": {"holes": [3, 4]},
        "reasons": {"holes": "the mask has holes"},
        "notes": ["odd"],
        "measures": {"AreaJump": 0.25, "Objects": None},
        "header": {"Contrast": "t2"},
        "paths": {
            "image": str(Path("image.nii").absolute()),
            "mask": "/out/a_seg.nii",
            "manual": "/out/a_desc-manual_seg.nii",
        },
        "commands": {"FSLeyes": "fsleyes"},
    }


def test_the_header_says_what_the_sidecar_says_in_words() -> None:
    record = {
        "GeneratedBy": [{"Name": "fastseg", "Version": "0.1.0"}],
        "Sources": ["a.nii"],
        "Fastseg": {
            "Status": "ok",
            "Flags": ["short"],
            "Notes": ["odd"],
            "Contrast": "t2",
            "Centerline": "cnn",
            "Threshold": 0.7,
            "Soft": False,
            "Frame": None,
            "Engines": {"detect": "openvino fp32", "segment": "onnxruntime"},
            "Networks": {"segment": {"Name": "t2_2d", "Sha256": "0123456789abcdef"}},
            "Pack": {"Name": "default", "Digest": "sha256:fedcba9876543210"},
            "InputSha256": "77",
            "Statistics": {"SlicesCovered": 40, "VolumeMm3": 123.456},
            "Quality": {"AreaJump": 0.1},
            "Attempts": [{"Name": "as asked"}, {"What": "svm", "Flags": ["short", "holes"]}],
            "Seconds": {"read": 0.25, "predict": 0.5},
        },
    }
    assert header_of(record) == {
        "Version": "fastseg 0.1.0",
        "Contrast": "t2",
        "Detector": "cnn",
        "Threshold": "0.7",
        "Soft": "no",
        "Engines": {"Detection": "openvino fp32", "Segmentation": "onnxruntime"},
        "Networks": {"Segmentation": "t2_2d (0123456789ab)"},
        "Pack": "default (fedcba987654)",
        "Input sha256": "77",
        "Statistics": {"Slices covered": "40", "Volume mm3": "123.5"},
        "Attempts": {"1": "as asked", "2": "svm, short, holes"},
        "Seconds": {"read": "0.25", "predict": "0.5", "total": "0.75"},
    }


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"GeneratedBy": [], "Fastseg": {}},
        {"GeneratedBy": "x", "Fastseg": {"Seconds": "long", "Pack": []}},
    ],
)
def test_a_foreign_sidecar_makes_no_trouble(record: dict[str, Any]) -> None:
    json.dumps(header_of(record))


# --- areas


def _tube() -> Volume:
    """Areas of 4, 6, 0, 9 voxels on slices 2 to 5, off centre, on a grid of 0.5 x 0.8 x 3 mm in SCT_RPI."""
    voxels = np.zeros((12, 10, 8), np.uint8)
    for z, (nx, ny) in {2: (2, 2), 3: (3, 2), 5: (3, 3)}.items():
        voxels[1 : 1 + nx, 6 : 6 + ny, z] = 1
    return Volume(voxels, Grid(voxels.shape, np.diag([-0.5, 0.8, 3.0, 1.0])))


_CODES = [
    tuple(pair[way] for pair, way in zip(axes, ways, strict=True))
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for ways in itertools.product((0, 1), repeat=3)
]


@pytest.mark.parametrize("codes", _CODES, ids="".join)
@pytest.mark.parametrize("order", ["C", "F"])
def test_areas_do_not_depend_on_orientation_or_memory(codes: tuple[str, str, str], order: Any) -> None:
    turned = _tube().reoriented(codes)
    assert turned.grid.axcodes == codes
    stored = Volume(np.array(turned.voxels, order=order), turned.grid)
    assert areas_of(stored) == [[2, 1.6], [3, 2.4], [5, 3.6]]


def test_soft_masks_are_measured_at_the_threshold() -> None:
    tube = _tube()
    soft = Volume(tube.voxels * np.float32(0.4), tube.grid)
    assert areas_of(soft) == []
    assert areas_of(soft, 0.3) == areas_of(tube)


def test_nan_is_no_cord() -> None:
    tube = _tube()
    voxels = tube.voxels.astype(np.float32)
    voxels[-1] = np.nan
    voxels[..., 7] = np.nan
    assert areas_of(Volume(voxels, tube.grid)) == areas_of(tube)


def test_cord_on_the_rim_and_everywhere_is_measured() -> None:
    full = Volume(np.ones((2, 3, 4), np.bool_), Grid((2, 3, 4), np.eye(4)))
    assert areas_of(full) == [[z, 6.0] for z in range(4)]
    assert areas_of(full.reoriented(SCT_RPI)) == areas_of(full)
