"""fastseg check: reports for people and programs, exit codes that are true, and nothing changed."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from fastseg.cli import check
from tests.faults.corrupt_files import corrupt_kinds
from tests.phantom_files import fastseg, files_below, save, save_phantom


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Two sound volumes, one that is no volume, and a copy of one."""
    folder = tmp_path / "cohort"
    save_phantom(folder / "sub-01" / "a.nii.gz")
    save_phantom(folder / "sub-02" / "b.nii.gz", seed=1)
    save_phantom(folder / "sub-03" / "copy.nii.gz")
    corrupt_kinds()["text.nii.gz"](folder)
    return folder


def _check(*words: object) -> tuple[int, str, str]:
    return fastseg("check", *words, "--no-estimate")


def test_sound_volumes_exit_with_0(tmp_path: Path) -> None:
    code, out, err = _check(save_phantom(tmp_path / "a.nii.gz"))
    assert (code, err) == (0, "")
    assert "1 volume checked" in out
    assert "0 with errors, 0 with warnings, 1 without" in out
    assert "headers of all; voxels and checksums of 1\n" in out


def test_warnings_exit_with_0(tmp_path: Path) -> None:
    code, out, _ = _check(save_phantom(tmp_path / "a.nii.gz", n_slices=2))
    assert code == 0
    assert "warning  few_slices " in out


def test_errors_in_some_exit_with_3(cohort: Path) -> None:
    code, out, err = _check(cohort)
    assert (code, err) == (3, "")
    assert "4 volumes checked" in out
    assert "1 with errors, 2 with warnings, 1 without" in out
    assert "error    text.nii.gz: not a NIfTI volume; " in out
    assert "warning  sub-03/copy.nii.gz: has the voxels of sub-01/a.nii.gz; " in out
    assert out.index("error    text") < out.index("warning  sub-01")


def test_errors_in_all_exit_with_4(tmp_path: Path) -> None:
    for name in ("text.nii.gz", "cut_in_voxels.nii"):
        corrupt_kinds()[name](tmp_path)
    assert _check(tmp_path)[0] == 4
    assert _check(tmp_path / "missing.nii.gz")[0] == 4


def test_no_volume_at_all_exits_with_5(tmp_path: Path) -> None:
    code, out, err = _check(tmp_path)
    assert (code, out) == (5, "")
    assert "no .nii or .nii.gz volume in" in err


def test_no_room_for_the_results_exits_with_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastseg.cohort.preflight.disk_bytes", lambda _: 10**18)
    code, out, _ = _check(save_phantom(tmp_path / "a.nii.gz"), "-o", tmp_path / "out")
    assert code == 3
    assert "the results take up to 1000000.0 TB; make room" in out
    assert files_below(tmp_path) == ["a.nii.gz"]


def test_a_tsv_has_a_row_for_each_finding_and_each_sound_volume(cohort: Path) -> None:
    code, out, _ = _check(cohort, "--format", "tsv")
    assert code == 3
    rows = list(csv.DictReader(out.splitlines(), delimiter="\t"))
    assert sorted((row["file"], row["severity"], row["finding"]) for row in rows) == [
        ("sub-01/a.nii.gz", "warning", "duplicate"),
        ("sub-02/b.nii.gz", "ok", "n/a"),
        ("sub-03/copy.nii.gz", "warning", "duplicate"),
        ("text.nii.gz", "error", "not_nifti"),
    ]
    sound = next(row for row in rows if row["file"] == "sub-02/b.nii.gz")
    assert (sound["shape"], sound["zooms_mm"], sound["read"]) == ("64x64x6", "1x1x2.5", "yes")
    assert all(value is not None for row in rows for value in row.values())


def test_json_tells_everything(cohort: Path) -> None:
    record = json.loads(_check(cohort, "--format", "json")[1])
    assert record["Counts"] == {"ok": 1, "warning": 2, "error": 1}
    volumes = {volume["Input"]: volume for volume in record["Volumes"]}
    assert volumes["text.nii.gz"]["Findings"][0]["Finding"] == "not_nifti"
    assert volumes["sub-02/b.nii.gz"]["Shape"] == [64, 64, 6]
    assert record["RunSeconds"] is None


@pytest.mark.parametrize(
    ("name", "options", "start"),
    [
        ("report.tsv", (), "file\tseverity"),
        ("report.json", (), "{"),
        ("report.txt", (), "4 volumes"),
        ("report.txt", ("--format", "json"), "{"),
    ],
)
def test_a_report_goes_to_a_file_and_the_table_to_people(
    cohort: Path, tmp_path: Path, name: str, options: tuple[str, ...], start: str
) -> None:
    code, out, _ = _check(cohort, "--out", tmp_path / name, *options)
    assert code == 3
    assert (tmp_path / name).read_text().startswith(start)
    assert out.startswith("4 volumes checked")


def test_a_report_without_a_folder_is_refused_before_anything_is_read(cohort: Path) -> None:
    code, out, err = _check(cohort, "--out", cohort / "none" / "report.tsv")
    assert (code, out) == (2, "")
    assert "its folder does not exist" in err


def test_the_table_shows_a_few_of_each_kind(tmp_path: Path) -> None:
    for n in range(8):
        (tmp_path / f"bad{n}.nii").write_bytes(b"no volume")
    save_phantom(tmp_path / "few.nii.gz", n_slices=1)
    _, out, _ = _check(tmp_path)
    assert out.count("not a NIfTI volume") == 5
    assert "warning  few.nii.gz: 1 axial slice " in out
    assert "... and 3 more: --format tsv lists them all" in out


@pytest.mark.parametrize("form", ["table", "tsv", "json"])
def test_odd_names_are_shown_on_one_line(tmp_path: Path, form: str) -> None:
    for name in (b"new\nline.nii", b"tab\t.nii", b"not utf-8 \xff.nii", "ümläut.nii".encode()):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"no volume")
    code, out, _ = _check(tmp_path, "--format", form)
    assert code == 4
    out.encode()  # any program can read it
    lines = [line for line in out.splitlines() if "not a NIfTI" in line]
    assert len(lines) == 4
    assert "new\\nline.nii" in out
    assert "not utf-8 \\" in out


def test_a_4d_file_is_sound_with_the_option(tmp_path: Path) -> None:
    voxels = np.random.default_rng(1).integers(0, 99, (40, 40, 4, 3)).astype(np.int16)
    path = save(tmp_path / "a.nii.gz", voxels, np.eye(4) * 2)
    assert _check(path)[0] == 4
    assert _check(path, "--4d", "mean")[0] == 0


def test_a_bids_data_set_gets_its_contrasts_from_suffixes(tmp_path: Path) -> None:
    for name in ("sub-01_T1w", "sub-01_PDw", "sub-01_T2w"):
        save_phantom(tmp_path / "in" / "sub-01" / "anat" / f"{name}.nii.gz", seed=len(name))
    suffixes = [word for name in ("T1w", "PDw") for word in ("--suffix", name)]
    code, out, _ = _check(tmp_path / "in", tmp_path / "out", "participant", *suffixes)
    assert code == 0
    assert "T1w: 1 volume, contrast t1" in out
    assert "2 volumes checked" in out
    assert "its suffix PDw tells no contrast" in out
    assert not (tmp_path / "out").exists()


def test_excluded_volumes_are_not_looked_at(cohort: Path) -> None:
    code, out, _ = _check(cohort, "--exclude", "text.nii.gz")
    assert code == 0
    assert "; 1 excluded" in out


def test_outputs_that_clash_are_found_before(tmp_path: Path) -> None:
    paths = [save_phantom(tmp_path / folder / "a.nii.gz") for folder in ("x", "y")]
    code, _, err = _check(*paths, "-o", tmp_path / "out")
    assert code == 2
    assert "both write" in err


def test_stdin_cannot_be_checked() -> None:
    code, _, err = _check("-")
    assert code == 2
    assert "cannot be checked before" in err


def test_nothing_is_written_where_the_volumes_lie(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_below(cohort)
    monkeypatch.chdir(cohort)
    assert _check(".", "--deep")[0] == 3
    assert files_below(cohort) == before


def test_the_time_of_a_run_is_told_with_where_it_comes_from(tmp_path: Path) -> None:
    code, out, _ = fastseg("check", save_phantom(tmp_path / "a.nii.gz"), "--jobs", 1)
    assert code == 0
    assert "a run takes about a second on 1 cores, reckoned from phantoms segmented here just now" in out


def test_a_pack_that_is_missing_spoils_the_estimate_only(tmp_path: Path) -> None:
    code, out, _ = fastseg("check", save_phantom(tmp_path / "a.nii.gz"), "--models", "no-such-pack")
    assert code == 0
    assert "how long a run takes could not be measured: " in out


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "a second"), (42, "42 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_durations_are_told_for_people(seconds: float, text: str) -> None:
    assert check._duration(seconds) == text
