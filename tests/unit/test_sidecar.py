"""The JSON beside a mask."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg import __version__, read_volume
from fastseg.networks.packs import find_pack, pack_digest
from fastseg.options import Options
from fastseg.segmenter import Segmenter
from fastseg.sidecar import mask_statistics, sidecar, write_json
from fastseg.volume import Grid, Volume
from tests.phantom_files import save_phantom


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = save_phantom(tmp_path_factory.mktemp("deep") / "t2.nii.gz")
    volume, template = read_volume(path)
    options, pack = Options(contrast="t2", threshold=0.4), find_pack("default")
    with Segmenter(options) as segmenter:
        result = segmenter.segment(volume)
    return path, sidecar(result, template, options=options, pack=pack)


def test_it_says_what_bids_asks_for(record: tuple[Path, dict[str, Any]]) -> None:
    _, values = record
    assert {key: value for key, value in values.items() if key != "Fastseg"} == {
        "GeneratedBy": [{"Name": "fastseg", "Version": __version__}],
        "Sources": ["t2.nii.gz"],
        "SpatialReference": "orig",
        "Type": "ROI",
        "Manual": False,
    }


def test_it_says_what_was_done_and_with_what(record: tuple[Path, dict[str, Any]]) -> None:
    path, values = record
    block = values["Fastseg"]
    pack = find_pack("default")
    assert list(block) == [
        "Status",
        "Flags",
        "Notes",
        "Contrast",
        "Centerline",
        "Kernel",
        "Threshold",
        "Soft",
        "Frame",
        "Engines",
        "Networks",
        "Pack",
        "InputSha256",
        "Statistics",
        "Quality",
        "Seconds",
    ]
    assert (block["Status"], block["Contrast"], block["Kernel"], block["Threshold"]) == (
        "ok",
        "t2",
        "2d",
        0.4,
    )
    assert block["InputSha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert block["Pack"] == {"Name": "default", "Digest": pack_digest(pack)}
    assert block["Engines"]["segment"].startswith("onnxruntime cpu")
    assert block["Networks"]["segment"]["Sha256"] in {network.sha256 for network in pack.networks}
    assert {"centerline", "predict"} <= set(block["Seconds"])
    assert block["Statistics"]["SlicesCovered"] == 6


def test_nothing_of_the_machine_is_in_it(record: tuple[Path, dict[str, Any]]) -> None:
    path, values = record
    assert "/" not in json.dumps(values).replace("default/", "")
    assert str(path.parent) not in json.dumps(values)


def test_statistics_follow_the_cords_axis_in_any_orientation() -> None:
    affine = np.array([[0, 0, -0.5, 0], [2.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 0, 1.0]])  # A, S, L
    voxels = np.zeros((5, 3, 8), np.uint8)
    voxels[1:3, :2, 2:5] = 1  # 6 voxels of 2 x 0.5 mm on two slices of 4 mm
    expected = {"SlicesCovered": 2, "VolumeMm3": 48.0, "MeanAreaMm2": 6.0}
    volume = Volume(voxels, Grid((5, 3, 8), affine))
    assert mask_statistics(volume) == expected
    soft = Volume((voxels * 0.5).astype(np.float32), volume.grid)
    assert mask_statistics(soft)["VolumeMm3"] == 24.0


def test_an_empty_mask_has_no_area() -> None:
    empty = Volume(np.zeros((3, 3, 3), np.uint8), Grid((3, 3, 3), np.eye(4)))
    assert mask_statistics(empty) == {"SlicesCovered": 0, "VolumeMm3": 0.0, "MeanAreaMm2": 0.0}


def test_equal_records_give_equal_bytes_and_odd_names_stay_valid(tmp_path: Path) -> None:
    record = {"b": 1, "a": "médulla \udce9"}  # the second: a file name that is not UTF-8
    for name in ("one.json", "two.json"):
        write_json(record, tmp_path / name)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert list(json.loads((tmp_path / "one.json").read_text(encoding="utf-8")).items()) == list(
        record.items()
    )
