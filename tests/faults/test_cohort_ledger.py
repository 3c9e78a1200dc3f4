"""Ledgers that are damaged, results that others changed, and runs that would get into each other's way."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from fastseg.cohort.ledger import read_ledgers
from tests.faults.cohort_runs import (
    Run,
    assert_whole,
    fill,
    finish,
    ledger_lines,
    results,
    run,
    start,
    wait_for,
)

_WORDS = ["run", "volumes", "-o", "out"]
_N_VOLUMES = 4


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with volumes and what a run made of them."""
    folder = tmp_path_factory.mktemp("finished")
    fill(folder / "volumes", _N_VOLUMES)
    ended = run(*_WORDS, cwd=folder)
    assert ended.code == 0, ended
    return folder


@pytest.fixture
def here(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "here", copy_function=shutil.copy2)
    return tmp_path / "here"


def _ledger(here: Path) -> Path:
    return here / "out" / ".fastseg" / "ledger.jsonl"


def _cached_and_done(ended: Run) -> tuple[int, int]:
    assert ended.code == 0, ended
    return len(ended.lines("cached")), len(ended.lines("ok"))


# --- damaged ledgers


@pytest.mark.parametrize("n_bytes", [1, 700])
def test_a_last_line_that_is_cut_off_costs_that_volume_only(n_bytes: int, here: Path) -> None:
    before = results(here / "out")
    content = _ledger(here).read_bytes()
    last = content.rindex(b"\n", 0, -1) + 1
    _ledger(here).write_bytes(content[: last + n_bytes])
    ended = run(*_WORDS, cwd=here)
    # Its files are there, begun by that run, so that they need no --overwrite.
    assert _cached_and_done(ended) == (_N_VOLUMES - 1, 1)
    assert "warning: the ledger's last line was cut off" in ended.err
    assert results(here / "out") == before
    again = run(*_WORDS, cwd=here)
    assert _cached_and_done(again) == (_N_VOLUMES, 0)
    assert "warning" not in again.err


def test_a_last_line_without_its_end_of_line_still_counts(here: Path) -> None:
    _ledger(here).write_bytes(_ledger(here).read_bytes().removesuffix(b"\n"))
    ended = run(*_WORDS, cwd=here)
    assert _cached_and_done(ended) == (_N_VOLUMES, 0)
    assert "warning" not in ended.err
    assert _cached_and_done(run(*_WORDS, cwd=here)) == (_N_VOLUMES, 0)


_FOREIGN = (
    b"<<<<<<< HEAD",
    b"\xff\xfe\x00\x01",
    b'{"event": "party", "mask": "x"}',
    b"[1, 2]",
    b'{"event": "end", "mask": 3}',
    b"[" * 100_000,
)


def test_lines_of_others_are_passed_over_and_told_of(here: Path) -> None:
    first, *rest = _ledger(here).read_bytes().splitlines()
    _ledger(here).write_bytes(b"\n".join([first, *_FOREIGN[:3], *rest, b"", *_FOREIGN[3:], b""]))
    ended = run(*_WORDS, cwd=here)
    assert _cached_and_done(ended) == (_N_VOLUMES, 0)
    assert "warning: 6 lines of the ledger are not fastseg's: they are passed over" in ended.err


def _remove(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("lose", [_remove, _empty])
def test_without_a_ledger_results_are_nobodys_and_only_replaced_on_request(
    lose: Callable[[Path], None], here: Path
) -> None:
    before = results(here / "out")
    lose(_ledger(here))
    refused = run(*_WORDS, cwd=here)
    assert refused.code == 4, refused
    assert len(refused.lines("error")) == _N_VOLUMES
    assert refused.lines("error")[0].endswith(
        "v00_seg.nii.gz exists, and no ledger here knows it: add --overwrite, or choose another output folder"
    )
    assert results(here / "out") == before
    assert _cached_and_done(run(*_WORDS, "--overwrite", cwd=here)) == (0, _N_VOLUMES)
    assert results(here / "out") == before
    assert _cached_and_done(run(*_WORDS, cwd=here)) == (_N_VOLUMES, 0)


def test_a_folder_in_the_place_of_the_ledger_is_told_of_on_one_line(here: Path) -> None:
    _ledger(here).unlink()
    _ledger(here).mkdir()
    refused = run(*_WORDS, cwd=here)
    assert (refused.code, refused.out) == (4, ""), refused
    assert len(refused.err.splitlines()) == 1
    assert refused.err.startswith("fastseg: error: out/.fastseg/ledger.jsonl: ")


def test_a_file_in_the_place_of_the_ledgers_folder_is_told_of_on_one_line(tmp_path: Path) -> None:
    fill(tmp_path / "volumes", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".fastseg").write_text("mine")
    refused = run(*_WORDS, cwd=tmp_path)
    assert (refused.code, refused.out) == (4, ""), refused
    assert len(refused.err.splitlines()) == 1
    assert refused.err.startswith("fastseg: error: out/.fastseg")
    assert (tmp_path / "out" / ".fastseg").read_text() == "mine"


def test_a_file_in_the_place_of_the_logs_stops_the_run_with_one_line(tmp_path: Path) -> None:
    volumes = fill(tmp_path / "volumes", 2)
    (volumes / "broken.nii.gz").write_text("not a volume")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "logs").write_text("mine")
    stopped = run(*_WORDS, cwd=tmp_path)
    assert stopped.code in (3, 4), stopped
    (line,) = [line for line in stopped.err.splitlines() if line.startswith("fastseg: error: ")]
    assert line == "fastseg: error: out/logs: cannot be written (File exists); choose another output folder"
    (tmp_path / "out" / "logs").unlink()
    ended = run(*_WORDS, cwd=tmp_path)
    assert ended.code == 3, ended
    assert_whole(tmp_path / "out", ["broken.nii.gz", "v00.nii.gz", "v01.nii.gz"])


# --- results that others changed, options that changed


def test_a_result_that_the_user_changed_is_kept_without_overwrite(here: Path) -> None:
    mask = here / "out" / "v01_seg.nii.gz"
    made = mask.read_bytes()
    mask.write_bytes(b"drawn by hand")
    refused = run(*_WORDS, cwd=here)
    assert refused.code == 3, refused
    (line,) = refused.lines("error")
    assert line.endswith(
        "v01_seg.nii.gz was changed since fastseg wrote it: add --overwrite, or choose another output folder"
    )
    assert mask.read_bytes() == b"drawn by hand"
    assert _cached_and_done(run(*_WORDS, "--overwrite", cwd=here)) == (0, _N_VOLUMES)
    assert mask.read_bytes() == made


@pytest.mark.parametrize("lost", ["v01_seg.nii.gz", "v01_seg.json"])
def test_a_result_that_the_user_removed_is_made_again(lost: str, here: Path) -> None:
    before = results(here / "out")
    (here / "out" / lost).unlink()
    assert _cached_and_done(run(*_WORDS, cwd=here)) == (_N_VOLUMES - 1, 1)
    assert results(here / "out") == before


@pytest.mark.parametrize("options", [["-c", "t2"], ["--soft"], ["--kernel", "3d"]], ids=" ".join)
def test_other_options_do_all_volumes_again_and_the_first_ones_too(options: list[str], here: Path) -> None:
    before = results(here / "out")
    changed = run(*_WORDS, *options, cwd=here)
    assert changed.code in (0, 3), changed
    assert changed.lines("cached") == []
    assert changed.lines("error") == []
    back = run(*_WORDS, cwd=here)
    assert _cached_and_done(back) == (0, _N_VOLUMES)
    assert results(here / "out") == before


def test_results_of_a_kind_that_an_older_run_wrote_are_fastsegs_own(here: Path) -> None:
    assert _cached_and_done(run(*_WORDS, "--csa", cwd=here)) == (0, _N_VOLUMES)
    assert _cached_and_done(run(*_WORDS, "-c", "t2", cwd=here)) == (0, _N_VOLUMES)
    assert _cached_and_done(run(*_WORDS, "-c", "t2", "--csa", cwd=here)) == (0, _N_VOLUMES)
    assert _cached_and_done(run(*_WORDS, "-c", "t2", "--csa", cwd=here)) == (_N_VOLUMES, 0)


# --- two runs at once


def _refused(ended: Run) -> bool:
    complaint = "another run of fastseg works there: wait for it, or choose another output folder"
    return (ended.code, ended.out, ended.err) == (2, "", f"fastseg: error: out: {complaint}\n")


def test_a_second_run_on_a_folder_is_refused_while_the_first_one_lives(tmp_path: Path) -> None:
    fill(tmp_path / "volumes", _N_VOLUMES)
    with start(*_WORDS, cwd=tmp_path, fault="hangs_in_write:") as first:
        wait_for(lambda: ledger_lines(tmp_path / "out"), first)
        assert _refused(run(*_WORDS, cwd=tmp_path))
        assert _refused(run(*_WORDS, "--shard", "1/2", cwd=tmp_path))
        assert _refused(run(*_WORDS, "--overwrite", cwd=tmp_path))
    assert _cached_and_done(run(*_WORDS, cwd=tmp_path)) == (0, _N_VOLUMES)


def test_beside_a_shard_neither_a_whole_run_nor_its_twin_nor_another_division_starts(tmp_path: Path) -> None:
    fill(tmp_path / "volumes", _N_VOLUMES)
    fault = "hangs_in:_write_files,v00.nii.gz"
    with start(*_WORDS, "--shard", "1/2", cwd=tmp_path, fault=fault) as first:
        wait_for(lambda: [*(tmp_path / "out").glob(".fastseg-*")], first)
        assert _refused(run(*_WORDS, cwd=tmp_path))
        assert _refused(run(*_WORDS, "--shard", "1/2", cwd=tmp_path))
        assert _refused(run(*_WORDS, "--shard", "1/3", cwd=tmp_path))
        assert _cached_and_done(run(*_WORDS, "--shard", "2/2", cwd=tmp_path)) == (0, 2)
    ended = run(*_WORDS, cwd=tmp_path)
    assert "v00.nii.gz" in [line.split()[1] for line in ended.lines("ok")], ended
    # What the killed shard left is removed by whichever run comes next.
    assert "fastseg: removed 1 temporary folders of a run that was killed" in ended.err
    assert_whole(tmp_path / "out", [f"v{k:02}.nii.gz" for k in range(_N_VOLUMES)])


def test_three_shards_at_once_make_what_one_run_makes(here: Path) -> None:
    words = ["run", "volumes", "-o", "shards"]
    with ExitStack() as stack:
        running = [stack.enter_context(start(*words, "--shard", f"{k}/3", cwd=here)) for k in (1, 2, 3)]
        ended = [finish(process) for process in running]
    assert [(each.code, len(each.lines("ok"))) for each in ended] == [(0, 2), (0, 1), (0, 1)], ended
    assert results(here / "shards") == results(here / "out")
    history = read_ledgers(here / "shards")
    assert {line["name"] for line in history.ends.values()} == {f"v{k:02}.nii.gz" for k in range(_N_VOLUMES)}
    assert (history.torn, history.foreign, history.begun, len(history.runs)) == (0, 0, {}, 3)
    told = run("report", "shards", cwd=here)
    assert told.code == 0, told
    assert re.match(r"4 volumes: 4 ok\n", told.out)
    # The whole list later knows what the shards did, and the shards what the whole list did.
    assert _cached_and_done(run(*words, cwd=here)) == (_N_VOLUMES, 0)
    assert _cached_and_done(run(*words, "-c", "t2", cwd=here)) == (0, _N_VOLUMES)
    assert _cached_and_done(run(*words, "-c", "t2", "--shard", "1/3", cwd=here)) == (2, 0)
