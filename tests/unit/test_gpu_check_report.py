"""The report of tools/gpu_check, from outcomes to tables."""

from __future__ import annotations

import json

import pytest

from tools.gpu.report import as_json, as_markdown, file_stem, verdict
from tools.gpu.running import Outcome
from tools.gpu.sections import SECTIONS

_FACTS = {"gpu": "NVIDIA H200", "date": "2026-01-31", "host": "Linux", "command": "tools/gpu_check"}
_FOUND, _DEVICE, _BUILD = SECTIONS[:3]


def test_tables_have_a_column_for_every_key_and_say_what_is_not_known() -> None:
    rows = [
        {"network": "a|b", "ms": 0.12345, "share_of_floor": None, "batch": 12345},
        {"network": "c", "ms": 4.0, "share_of_floor": 0.25, "batch": 1, "note": "new\nline"},
    ]
    text = as_markdown(_FACTS, [Outcome(_BUILD, rows=rows)])
    assert "| network | ms | share of floor | batch | note |" in text
    assert "|---|--:|--:|--:|---|" in text
    assert "| a\\|b | 0.1235 | not known | 12,345 |  |" in text
    assert "| c | 4 | 0.25 | 1 | new line |" in text


def test_what_was_not_checked_is_told_once_with_all_sections_that_it_concerns() -> None:
    outcomes = [
        Outcome(_FOUND, left_out=["no driver"]),
        Outcome(_DEVICE, "skipped", reasons=["no driver"]),
        Outcome(_BUILD, "skipped", reasons=["no driver"], left_out=["bf16", "bf16"]),
    ]
    last = as_markdown(_FACTS, outcomes).partition("## Not checked\n\n")[2].splitlines()
    assert last == ["- What is here, Device memory layer, Engines: no driver", "- Engines: bf16"]


def test_json_says_the_same_as_the_verdict() -> None:
    outcomes = [Outcome(_FOUND), Outcome(_DEVICE, "crashed", 1.234, ["SIGSEGV"], [{"what": 1}])]
    report = json.loads(json.dumps(as_json(_FACTS, outcomes)))
    assert report["gpu"] == "NVIDIA H200"
    assert report["exit_code"] == 1
    assert report["verdict"] == "Device memory layer: see there"
    assert report["sections"][1] == {
        "section": "device",
        "title": "Device memory layer",
        "state": "crashed",
        "seconds": 1.2,
        "reasons": ["SIGSEGV"],
        "left_out": [],
        "rows": [{"what": 1}],
    }


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([Outcome(_FOUND), Outcome(_DEVICE)], 0),
        ([Outcome(_FOUND), Outcome(_DEVICE), Outcome(_BUILD, "skipped", reasons=["no TensorRT"])], 0),
        ([Outcome(_FOUND), Outcome(_DEVICE, "failed", reasons=["wrong"])], 1),
        ([Outcome(_FOUND, "killed", reasons=["killed"]), Outcome(_DEVICE)], 1),
        ([Outcome(_FOUND), Outcome(_DEVICE, "skipped", reasons=["no driver"])], 3),
        ([Outcome(_FOUND)], 3),
    ],
)
def test_exit_codes_tell_wrong_from_missing(outcomes: list[Outcome], code: int) -> None:
    assert verdict(outcomes)[0] == code


def test_everything_is_said_to_be_checked_only_if_it_was() -> None:
    assert verdict([Outcome(_FOUND), Outcome(_DEVICE)])[1].startswith("everything was checked")
    assert "Device memory layer" in verdict([Outcome(_DEVICE, left_out=["pycuda"])])[1]


def test_files_are_named_by_gpu_and_date() -> None:
    assert file_stem("NVIDIA H100 80GB HBM3", "2026-01-31") == "nvidia-h100-80gb-hbm3-2026-01-31"
    assert file_stem("", "2026-01-31") == "no-gpu-2026-01-31"
