"""The comparison with an SCT installation, with a program of ours in SCT's place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.phantom import make_phantom
from tests.phantom_files import save, save_phantom
from tests.unit.networks.stand_ins import sct_folder

_CHECKOUT = Path(__file__).resolve().parents[2]
# Calls every voxel cord, and fails as SCT does for the contrast dwi.
_FAKE_SCT = """#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        -c) contrast=$2 ;;
        -ofolder) folder=$2 ;;
        -o) name=$2 ;;
    esac
    shift
done
if [ "$contrast" = dwi ]; then echo Traceback; echo "KeyError: 'dwi'"; exit 1; fi
cp "$FAKE_SCT_MASK" "$folder/$name"
"""


@pytest.fixture
def sct(tmp_path: Path) -> Path:
    """Stand in for an SCT installation."""
    program = tmp_path / "sct/bin/sct_deepseg_sc"
    program.parent.mkdir(parents=True)
    program.write_text(_FAKE_SCT)
    program.chmod(0o755)
    sct_folder(tmp_path / "sct/data")
    return tmp_path / "sct"


def _compare(*arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    without = {name: value for name, value in os.environ.items() if name != "SCT_DIR"}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.sct", *map(str, arguments)],
        cwd=_CHECKOUT,
        env={**without, **{name: str(value) for name, value in environment.items()}},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_without_an_installation_it_says_so_and_ends_well(tmp_path: Path) -> None:
    done = _compare(PATH=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "no sct_deepseg_sc in SCT_DIR or on the PATH: there is nothing to compare with\n"


def test_a_folder_without_the_program_is_no_installation(tmp_path: Path) -> None:
    (tmp_path / "bin/sct_deepseg_sc").mkdir(parents=True)
    assert _compare(SCT_DIR=tmp_path, PATH=tmp_path).stdout.startswith("no sct_deepseg_sc")


def test_an_installation_without_networks_is_refused_with_a_hint(sct: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    (sct / "bin").rename(moved)
    done = _compare(PATH=f"{moved}:{os.environ['PATH']}")
    assert done.returncode != 0
    assert done.stderr == "no folder with SCT's networks: set SCT_DIR to the installation\n"


def test_all_three_are_timed_and_their_masks_compared(sct: Path, tmp_path: Path) -> None:
    image, _ = make_phantom("t2", n_slices=6)
    volume = save_phantom(tmp_path / "t2.nii.gz")
    everything = save(tmp_path / "all.nii.gz", np.ones(image.voxels.shape, np.uint8), image.grid.affine)
    out = tmp_path / "lines.jsonl"

    done = _compare(
        f"{volume}:t2", f"{volume}:dwi", "--turns", 1, "--warm-only", "--out", out,
        SCT_DIR=sct, FAKE_SCT_MASK=everything,
    )  # fmt: skip

    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    machine, *lines = _lines(out.read_text())
    assert {"machine", "date", "python"} <= set(machine)
    contenders = ["sct_deepseg_sc", "fastseg deepseg-sc", "fastseg run"]
    assert [line["contender"] for line in lines] == 2 * contenders
    theirs, same, ours, *without_sct = lines
    assert (theirs["dice"], theirs["differing_voxels"], theirs["sct_cpu_over_this"]) == (1.0, 0, 1.0)
    for line in (same, ours):
        assert line["state"] == "warm"
        assert line["case"] == "t2.nii.gz, t2, svm"
        assert 0 < line["cpu_seconds_median"] < 60
        assert line["rss_mb_peak"] > theirs["rss_mb_peak"]
        voxels, differing = image.voxels.size, line["differing_voxels"]
        assert 0 < differing < voxels
        # Every voxel is cord for SCT: what differs is what fastseg leaves out.
        assert line["dice"] == pytest.approx(2 * (voxels - differing) / (2 * voxels - differing), abs=1e-5)
    assert (without_sct[0]["failed"], without_sct[0]["message"]) == (1, "KeyError: 'dwi'")
    for line in without_sct[1:]:
        assert "sct_cpu_over_this" not in line
        assert line["dice"] is None
        assert line["cpu_seconds_median"] > 0
