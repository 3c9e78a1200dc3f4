"""Inputs that are damaged, that change, that vanish, and whose names are strange."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.faults.cohort_runs import (
    assert_whole,
    fill,
    finish,
    ledger_lines,
    obey_permissions,
    phantom,
    results,
    run,
    start,
    statuses,
    wait_for,
)
from tests.faults.corrupt_files import corrupt_kinds

_LAST = "v23.nii.gz"


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    return fill(tmp_path / "volumes", 24)


def test_30_good_volumes_among_every_kind_of_corrupt_one_are_all_done(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", 30)
    bad = []
    for k, (name, make) in enumerate(corrupt_kinds().items()):
        bad.append(f"{k:02}_{name}")  # empty.nii and empty.nii.gz would have one mask
        make(folder).rename(folder / bad[-1])
    assert len(bad) >= 30
    names = sorted(path.name for path in folder.iterdir())
    ended = run("run", *(f"in/{name}" for name in names), "-o", "out", cwd=tmp_path)
    assert ended.code == 3, ended
    assert len(ended.out.splitlines()) == len(ended.lines("ok")) == 30
    told = ended.lines("bad_input")
    assert len(told) == len(bad)
    assert len(ended.err.splitlines()) < 30 + len(bad) + 20  # and causes, each once
    for name in bad:
        (line,) = [line for line in told if line.split()[1] in (name, f"in/{name}")]
        assert "; " in line.partition(" s  ")[2]  # what to do
        log = tmp_path / "out" / "logs" / f"{name.partition('.nii')[0]}_seg.log"
        assert "status     bad_input" in log.read_text()
    found = statuses(tmp_path / "out")
    assert [*found.values()].count("bad_input") == len(bad)
    assert_whole(tmp_path / "out", found)


def test_a_volume_that_vanishes_before_its_turn_is_one_line_and_done_when_it_is_back(
    volumes: Path, tmp_path: Path
) -> None:
    words = ["run", "volumes", "-o", "out", "--jobs", "1"]
    go_on = tmp_path / "go on"
    with start(*words, cwd=tmp_path, fault=f"waits_to_write:{go_on}") as process:
        wait_for(lambda: statuses(tmp_path / "out"), process)
        (volumes / _LAST).rename(tmp_path / _LAST)
        go_on.touch()
        ended = finish(process)
    assert ended.code == 3, ended
    (line,) = ended.lines("bad_input")
    assert line.split()[1] == _LAST
    assert len(ended.lines("ok")) == 23
    (tmp_path / _LAST).rename(volumes / _LAST)
    assert run(*words, cwd=tmp_path).lines("ok")[0].split()[1] == _LAST


def test_of_a_volume_that_changes_before_its_turn_the_new_content_counts(
    volumes: Path, tmp_path: Path
) -> None:
    words = ["run", "volumes", "-o", "out", "--jobs", "1"]
    go_on = tmp_path / "go on"
    with start(*words, cwd=tmp_path, fault=f"waits_to_write:{go_on}") as process:
        wait_for(lambda: statuses(tmp_path / "out"), process)
        (volumes / _LAST).write_bytes(phantom(99))
        go_on.touch()
        ended = finish(process)
    assert ended.code == 0, ended
    (line,) = [
        line for line in ledger_lines(tmp_path / "out") if line.get("name") == _LAST and "status" in line
    ]
    assert line["inputs"]["input"]["sha256"] == hashlib.sha256(phantom(99)).hexdigest()
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / _LAST).write_bytes(phantom(99))
    assert run("run", "alone", "-o", "out2", cwd=tmp_path).code == 0
    mask = _LAST.replace(".nii", "_seg.nii")
    assert (tmp_path / "out" / mask).read_bytes() == (tmp_path / "out2" / mask).read_bytes()
    again = run(*words, cwd=tmp_path)
    assert len(again.lines("cached")) == 24, again


def test_a_volume_that_changes_while_it_is_read_is_refused_and_done_by_the_next_run(
    tmp_path: Path,
) -> None:
    fill(tmp_path / "volumes", 3)
    words = ["run", "volumes", "-o", "out"]
    ended = run(*words, cwd=tmp_path, fault="writes_to_input_while_it_is_read:v01.nii.gz")
    assert ended.code == 3, ended
    (line,) = ended.lines("bad_input")
    assert line.endswith("changed while it was read; run it again when it is complete")
    assert "v01_seg.nii.gz" not in results(tmp_path / "out")
    again = run(*words, cwd=tmp_path)
    assert again.code == 0, again
    assert [len(again.lines(status)) for status in ("ok", "cached")] == [1, 2]


def test_a_volume_that_vanishes_while_it_is_read_is_one_line(tmp_path: Path) -> None:
    fill(tmp_path / "volumes", 3)
    ended = run(
        "run", "volumes", "-o", "out", cwd=tmp_path, fault="removes_input_while_it_is_read:v01.nii.gz"
    )
    assert ended.code == 3, ended
    (line,) = ended.lines("bad_input")
    assert "went away while it was read" in line
    assert len(ended.lines("ok")) == 2


def test_only_volumes_that_changed_between_runs_are_done_again(tmp_path: Path) -> None:
    volumes = fill(tmp_path / "volumes", 4)
    words = ["run", "volumes", "-o", "out"]
    assert run(*words, cwd=tmp_path).code == 0
    before = results(tmp_path / "out")
    (volumes / "v01.nii.gz").write_bytes(phantom(50))
    os.utime(volumes / "v02.nii.gz")  # another time, the same content
    ended = run(*words, cwd=tmp_path)
    assert ended.code == 0, ended
    assert [line.split()[1] for line in ended.lines("ok")] == ["v01.nii.gz"]
    assert len(ended.lines("cached")) == 3
    changed = {name for name, content in results(tmp_path / "out").items() if content != before[name]}
    assert changed == {"v01_seg.nii.gz", "v01_seg.json"}


def test_a_volume_that_was_bad_for_one_run_is_done_when_it_is_good_again(tmp_path: Path) -> None:
    """Its files of the first run are fastseg's own, whatever the second one said."""
    volumes = fill(tmp_path / "volumes", 3)
    words = ["run", "volumes", "-o", "out"]
    assert run(*words, cwd=tmp_path).code == 0
    (volumes / "v01.nii.gz").write_bytes(b"not a volume")
    bad = run(*words, cwd=tmp_path)
    assert bad.code == 3, bad
    assert run(*words, cwd=tmp_path).lines("bad_input")[0].endswith("--retry-failed tries again)")
    (volumes / "v01.nii.gz").write_bytes(phantom(50))
    ended = run(*words, cwd=tmp_path)
    assert ended.code == 0, ended
    assert [len(ended.lines(status)) for status in ("ok", "cached")] == [1, 2]


def test_a_folder_that_cannot_be_read_is_one_line_and_no_success(tmp_path: Path) -> None:
    fill(tmp_path / "volumes", 2)
    hidden = fill(tmp_path / "volumes" / "sub-01", 2)
    hidden.chmod(0)
    try:
        words = ["run", "volumes", "-o", "out"]
        ended = run(*words, cwd=tmp_path, before=obey_permissions)
        assert ended.code == 3, ended
        (line,) = ended.lines("error")
        assert "sub-01  0.00 s  the folder cannot be read (Permission denied): mend its permissions" in line
        assert len(ended.lines("ok")) == 2
    finally:
        hidden.chmod(0o755)
    ended = run(*words, cwd=tmp_path, before=obey_permissions)
    assert (ended.code, len(ended.lines("ok")), len(ended.lines("cached"))) == (0, 2, 2), ended


def test_a_volume_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    volumes = fill(tmp_path / "volumes", 3)
    (volumes / "v01.nii.gz").chmod(0)
    ended = run("run", "volumes", "-o", "out", cwd=tmp_path, before=obey_permissions)
    assert ended.code == 3, ended
    (line,) = ended.lines("bad_input")
    assert "v01.nii.gz" in line
    assert len(ended.lines("ok")) == 2


_NAMES = (
    b"with space.nii.gz",
    b" .nii.gz",
    "Rückenmark_脊髄.nii.gz".encode(),
    b"two\nlines.nii.gz",
    b"return\rescape\x1b[2Jtab\t.nii.gz",
    b"latin-1-\xe9.nii.gz",
    b"-dash.nii.gz",
    b"--soft.nii.gz",
    b"'quotes\"$(x)`y`.nii.gz",
    b"back\\slash*[?]{stem}.nii.gz",
    b"n" * 200 + b".nii.gz",
)


def test_strange_names_are_kept_told_on_one_line_each_and_known_again(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "fol\nder\udcff é")
    os.mkdir(folder)  # noqa: PTH102  of bytes
    for k, name in enumerate(_NAMES):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(phantom(k % 4))
    words = ["run", os.fsdecode(folder), "-o", "out put"]
    ended = run(*words, cwd=tmp_path)
    assert ended.code == 0, ended
    wanted = sorted(name.replace(b".nii", b"_seg.nii") for name in _NAMES)
    found = sorted(os.fsencode(path.name) for path in (tmp_path / "out put").glob("*_seg.nii.gz"))
    assert found == wanted
    of_volumes = [line for line in ended.err.splitlines() if not line.startswith("fastseg")]
    assert len(ended.lines("ok")) == len(of_volumes) == len(_NAMES)
    assert len(ended.err.splitlines()) == len(of_volumes) + 4  # two networks' engines, and how it ended
    assert not {"\r", "\x1b", "\t"} & set(ended.err)
    table = (tmp_path / "out put" / "summary.tsv").read_bytes().splitlines()
    assert len(table) == 1 + len(_NAMES)
    assert len({row.count(b"\t") for row in table}) == 1
    before = results(tmp_path / "out put")
    again = run(*words, cwd=tmp_path)
    assert len(again.lines("cached")) == len(_NAMES), again
    assert results(tmp_path / "out put") == before


def test_names_that_begin_with_a_dash_may_follow_two_dashes(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    (tmp_path / "v00.nii.gz").rename(tmp_path / "-dash.nii.gz")
    (tmp_path / "--soft.nii.gz").write_bytes(phantom(1))
    ended = run("run", "-o", "out", "--", "-dash.nii.gz", "--soft.nii.gz", cwd=tmp_path)
    assert ended.code == 0, ended
    assert ended.out.splitlines() == ["out/-dash_seg.nii.gz", "out/--soft_seg.nii.gz"] or sorted(
        ended.out.splitlines()
    ) == ["out/--soft_seg.nii.gz", "out/-dash_seg.nii.gz"]


def test_links_that_lead_in_circles_give_every_volume_once(tmp_path: Path) -> None:
    volumes = fill(tmp_path / "volumes", 2)
    deep = fill(volumes / "deep", 1)
    (deep / "up").symlink_to("..")
    (deep / "itself").symlink_to("itself")
    (volumes / "there").symlink_to("back")
    (volumes / "back").symlink_to("there")
    (volumes / "deep too").symlink_to("deep")
    (volumes / "itself.nii.gz").symlink_to("itself.nii.gz")
    (volumes / "same.nii.gz").symlink_to("v00.nii.gz")
    ended = run("run", "volumes", "-o", "out", cwd=tmp_path)
    masks = sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*_seg.nii.gz")
    )
    assert masks == ["deep/v00_seg.nii.gz", "v00_seg.nii.gz", "v01_seg.nii.gz"], ended
    assert [line.split()[1] for line in ended.lines("bad_input")] == ["itself.nii.gz"]
    assert ended.code == 3
