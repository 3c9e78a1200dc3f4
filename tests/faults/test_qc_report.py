"""Many writers of one report, and what kills, full disks and lost permissions leave of it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fastseg.errors import OutputError
from fastseg.qc.report import Report, id_of, script_json

_N_WRITERS, _EACH = 8, 40
_N_KILLS = 8

# A process that adds volumes, and may die at a point. Pictures and notes are of one letter, so that a part of
# one and a mixture of two are told from a whole one. It is light: no picture is drawn.
_WRITER = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from fastseg.qc import journal, report

folder, first, count, point = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
report._FIRST_SECONDS = 0.0 if point == "waits" else 0.05

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def half_a_line(file, content, write=os.write):
    write(file, content[: len(content) // 2])
    die()

def half_a_file(path, content, *, temporary, place, write=report.write_file):
    if path.suffix == ".js":
        temporary.write_bytes(content[: len(content) // 2])
        die()
    write(path, content, temporary=temporary, place=place)

points = {
    "line": (os, "write", half_a_line),
    "detail": (report, "write_file", half_a_file),
    "index": (report.Report, "_write_index", die),
    "merge": (journal, "merge", die),
}
with report.Report(folder) as made:
    print("ready", flush=True)
    for number in range(first, first + count):
        if number == first + count // 2:
            if point in points:
                setattr(*points[point])
            if point == "waits":
                sys.stdin.readline()
        letter = chr(97 + (os.getpid() if point == "same" else number) % 26)
        mask = Path(f"/out/v{0 if point == 'same' else number}_seg.nii.gz")
        row = {
            "id": report.id_of(mask), "name": f"v{number:04}.nii.gz", "dataset": "d", "subject": "s",
            "contrast": "t2", "status": "ok", "flags": [], "severity": 0.0, "message": "", "slices": 3,
            "length_mm": 9.0, "area_mm2": 70.0, "seconds": 1.0, "engine": "e", "manual": False,
            "mask": letter, "pictures": True, "at": f"2025-01-01T00:00:{number:08}",
        }
        picture = letter.encode() * 30_000
        sheet = SimpleNamespace(image=picture, outline=picture, thumbnail=picture, layout={"size": [1, 1]})
        made.add(row, {"notes": [letter * 50_000], "paths": {}}, sheet)
"""


def _start(folder: Path, first: int, count: int = _EACH, point: str = "") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, folder, str(first), str(count), point],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def _ended(process: subprocess.Popen[str]) -> int:
    _, err = process.communicate(timeout=300)
    assert err == ""
    return process.returncode


def _index(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "index.js").read_text("ascii")
    volumes: list[dict[str, Any]] = json.loads(text.removeprefix("fastsegIndex(").removesuffix(");\n"))[
        "volumes"
    ]
    return volumes


def _assert_whole(folder: Path, key: str) -> None:
    """Each file of a volume is whole."""
    place = folder / "volumes" / key[:2]
    detail = Report(folder).detail(key)
    assert detail is not None
    assert detail["notes"][0] == detail["notes"][0][0] * 50_000
    for tail in (".jpg", ".png", "_thumb.jpg"):
        content = (place / (key + tail)).read_bytes()
        assert content == content[:1] * 30_000


def _names(first: int, count: int = _EACH) -> list[str]:
    return [f"v{number:04}.nii.gz" for number in range(first, first + count)]


def test_eight_processes_write_to_one_report_that_can_be_read_all_the_time(tmp_path: Path) -> None:
    folder = tmp_path / "qc"
    writers = [_start(folder, 100 * number, point="waits") for number in range(_N_WRITERS)]
    looked, randomly = 0, random.Random(8)
    while any(writer.poll() is None for writer in writers):
        if (folder / "index.js").exists():
            if not looked:
                for writer in writers:  # from the middle on, all write at once
                    assert writer.stdin is not None
                    writer.stdin.write("\n")
                    writer.stdin.flush()
            looked += 1
            rows = _index(folder)
            for row in randomly.sample(rows, min(len(rows), 10)):
                _assert_whole(folder, row["id"])
    assert [_ended(writer) for writer in writers] == [0] * _N_WRITERS
    assert looked > 0
    wanted = [name for number in range(_N_WRITERS) for name in _names(100 * number)]
    assert [row["name"] for row in _index(folder)] == wanted
    assert list((folder / "journal" / ".parts").iterdir()) == []
    assert len(list((folder / "_json").iterdir())) == _N_WRITERS * _EACH


def test_a_kill_at_any_moment_costs_nobody_elses_rows(tmp_path: Path) -> None:
    folder = tmp_path / "qc"
    randomly = random.Random(6)
    staying = _start(folder, 5000, 300)
    for number in range(_N_KILLS):
        killed = _start(folder, 100 * number)
        time.sleep(randomly.uniform(0, 0.3))
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    assert _ended(staying) == 0
    rows = {row["name"]: row for row in _index(folder)}
    assert set(_names(5000, 300)) <= set(rows)
    for row in rows.values():
        _assert_whole(folder, row["id"])


@pytest.mark.parametrize("point", ["line", "detail", "index", "merge"])
def test_who_dies_at_this_point_leaves_a_report_that_goes_on(tmp_path: Path, point: str) -> None:
    folder = tmp_path / "qc"
    assert _ended(_start(folder, 0, 10)) == 0
    assert _ended(_start(folder, 100, 10, point)) == -signal.SIGKILL
    assert set(_names(0, 10)) <= {row["name"] for row in _index(folder)}
    with Report(folder):
        pass
    rows = _index(folder)
    written = _names(100, 10 if point in ("index", "merge") else 5)
    assert set(_names(0, 10) + written[:5]) <= {row["name"] for row in rows}
    assert {row["name"] for row in rows} <= set(_names(0, 10) + written)
    for row in rows:
        _assert_whole(folder, row["id"])
    # The same again, undisturbed.
    assert _ended(_start(folder, 100, 10)) == 0
    assert [row["name"] for row in _index(folder)] == _names(0, 10) + _names(100, 10)


def test_two_processes_that_write_the_same_volume_leave_one_of_both(tmp_path: Path) -> None:
    folder = tmp_path / "qc"
    writers = [_start(folder, first, 60, "same") for first in (0, 100)]
    key = id_of(Path("/out/v0_seg.nii.gz"))
    while not (folder / "volumes" / key[:2] / f"{key}.js").exists():
        assert all(writer.poll() in (None, 0) for writer in writers)
    while any(writer.poll() is None for writer in writers):
        _assert_whole(folder, key)
    assert [_ended(writer) for writer in writers] == [0, 0]
    assert [row["name"] for row in _index(folder)] == ["v0159.nii.gz"]


# --- disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system for a few volumes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not _mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)):
        pytest.skip("this user may not mount a small file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


def _mount(*words: str) -> bool:
    try:
        return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _add(report: Report, number: int, n_bytes: int = 1000) -> None:
    mask = Path(f"/out/v{number}_seg.nii.gz")
    row = {
        **dict.fromkeys(("dataset", "subject", "contrast", "message", "engine", "mask"), ""),
        **dict.fromkeys(("slices", "length_mm", "area_mm2")),
        "id": id_of(mask),
        "name": f"v{number:04}.nii.gz",
        "status": "ok",
        "flags": [],
        "severity": 0.0,
        "seconds": 1.0,
        "manual": False,
        "pictures": False,
        "at": f"2025-01-01T00:00:{number:08}",
    }
    report.add(row, {"notes": ["x" * n_bytes], "paths": {}}, None)


def test_a_full_disk_costs_the_volumes_that_have_no_room(small_disk: Path) -> None:
    folder = small_disk / "qc"
    ballast = small_disk / "ballast"
    with Report(folder) as report:
        _add(report, 0)
        report.publish()
        with ballast.open("wb", buffering=0) as stream, suppress(OSError):
            while True:
                stream.write(b"x" * 4096)
        for use in (lambda: _add(report, 1), report.publish):
            with pytest.raises(OutputError, match=r"No space left.*free space there") as caught:
                use()
            assert "\n" not in str(caught.value)
        assert [row["name"] for row in _index(folder)] == _names(0, 1)
        ballast.unlink()
        for number in (1, 2):
            _add(report, number)
    assert [row["name"] for row in _index(folder)] == _names(0, 3)
    assert list((folder / "journal" / ".parts").iterdir()) == []


def test_a_disk_that_becomes_read_only_is_told(small_disk: Path) -> None:
    folder = small_disk / "qc"
    with Report(folder) as report:
        _add(report, 0)
    if not _mount("-o", "remount,ro", str(small_disk)):
        pytest.skip("this user may not make a file system read-only")
    for use in (lambda: _add(Report(folder), 1), Report(folder).__enter__, Report(folder).publish):
        with pytest.raises(OutputError, match=r"Read-only.*choose another folder for the report") as caught:
            use()
        assert "\n" not in str(caught.value)
    assert [row["name"] for row in Report(folder).rows()] == _names(0, 1)


@pytest.mark.slow
def test_a_hundred_thousand_rows_make_an_index(tmp_path: Path) -> None:
    folder = tmp_path / "qc"
    with Report(folder) as report:
        _add(report, 0)
        row = report.rows()[0]
        with (folder / "journal" / "elsewhere-1-00000000.jsonl").open("w") as stream:
            for number in range(1, 100_000):
                stream.write(script_json(row | {"id": f"{number:016x}", "severity": number % 7}) + "\n")
    rows = _index(folder)
    assert len(rows) == 100_000
    assert [row["severity"] for row in (rows[0], rows[-1])] == [6, 0]
