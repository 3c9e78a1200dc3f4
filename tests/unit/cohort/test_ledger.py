from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.cohort.job import Status
from fastseg.cohort.ledger import FOLDER, Ledger, Shard, read_ledgers
from fastseg.cohort.report import summary_rows, summary_text
from fastseg.cohort.resume import Resume
from fastseg.errors import OptionError, OutputError
from tests.unit.cohort.fake_segmenters import job_of


def path_of(out: Path, shard: str = "") -> Path:
    return out / FOLDER / f"ledger{shard}.jsonl"


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path_of(out).read_bytes().splitlines()]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.run(version="1", command=["run", "a"])
        ledger.begin("a_seg.nii", "a.nii")
        ledger.begin("b_seg.nii", "b.nii")
        ledger.end("a_seg.nii", name="a.nii", status="ok")
    history = read_ledgers(tmp_path)
    assert history.ends["a_seg.nii"]["status"] == "ok"
    assert history.begun == {"b_seg.nii": 1}
    assert history.runs[0]["command"] == ["run", "a"]
    assert (history.foreign, history.torn) == (0, 0)


def test_the_last_end_of_a_volume_counts(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.end("a_seg.nii", status="error")
        ledger.end("a_seg.nii", status="ok")
    assert read_ledgers(tmp_path).ends["a_seg.nii"]["status"] == "ok"


def test_a_volume_that_failed_keeps_the_digests_of_what_it_has_from_earlier(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.end("a_seg.nii", outputs={"mask": "1", "sidecar": "2"})
        ledger.end("a_seg.nii", outputs={"mask": "3"})
        ledger.end("a_seg.nii", status="no_cord", outputs={})
    assert read_ledgers(tmp_path).ends["a_seg.nii"]["older"] == {"mask": "3", "sidecar": "2"}


def test_beginnings_without_an_end_are_counted(tmp_path: Path) -> None:
    for _ in range(3):
        with Ledger(tmp_path) as ledger:
            ledger.begin("a_seg.nii", "a.nii")
    assert read_ledgers(tmp_path).begun == {"a_seg.nii": 3}
    with Ledger(tmp_path) as ledger:
        ledger.end("a_seg.nii", status="error")
    assert read_ledgers(tmp_path).begun == {}


def test_beginnings_and_ends_are_on_the_disk_when_they_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = list[int]()
    fsync = os.fsync

    def heard(descriptor: int) -> None:
        fsync(descriptor)
        sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", heard)
    with Ledger(tmp_path) as ledger:
        ledger.begin("a_seg.nii", "a.nii")
        assert sizes == [path_of(tmp_path).stat().st_size]
        ledger.end("a_seg.nii", status="ok")
        assert sizes[1:] == [path_of(tmp_path).stat().st_size]


def test_a_line_that_was_cut_off_becomes_a_line_of_its_own(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.run()
        ledger.end("a_seg.nii", status="ok")
        ledger.end("b_seg.nii", status="ok")
    path = path_of(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    history = read_ledgers(tmp_path)
    assert set(history.ends) == {"a_seg.nii"}
    assert (history.torn, history.foreign) == (1, 0)
    with Ledger(tmp_path) as ledger:
        ledger.run()
        ledger.end("c_seg.nii", status="ok")
    history = read_ledgers(tmp_path)
    assert set(history.ends) == {"a_seg.nii", "c_seg.nii"}
    assert (history.torn, history.foreign) == (0, 0)  # it was told of by the run that came next


def test_lines_that_something_else_wrote_are_passed_over_and_counted(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.end("a_seg.nii", status="ok")
    others = ["hello", "3", "null", "[]", "{}", '{"event": "lunch"}', '{"event": "end"}', "[" * 100_000]
    others += [
        '{"event": "begin", "mask": null}',
        '{"event": "end", "mask": 3}',
        '{"event": "end", "mask": "a_seg.nii", "outputs": 3}',
        '{"event": "end", "mask": "a_seg.nii", "flags": [1]}',
        '{"event": "end", "mask": "a_seg.nii", "inputs": {"input": "a"}}',
    ]
    with path_of(tmp_path).open("a") as stream:
        stream.writelines(f"{line}\n" for line in [*others, "", "  "])
    history = read_ledgers(tmp_path)
    assert set(history.ends) == {"a_seg.nii"}
    assert history.foreign == len(others)


def test_names_of_any_bytes_can_be_written(tmp_path: Path) -> None:
    name = os.fsdecode(b"sub \xff\n\xc3\xa4\x01_seg.nii")
    with Ledger(tmp_path) as ledger:
        ledger.end(name, name=name, status="ok")
    assert path_of(tmp_path).read_bytes().count(b"\n") == 1
    assert list(read_ledgers(tmp_path).ends) == [name]


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:

        def write(k: int) -> None:
            for i in range(50):
                ledger.begin(f"{k}-{i}", "x" * 500)

        threads = [threading.Thread(target=write, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(lines_of(tmp_path)) == 200
    assert len(read_ledgers(tmp_path).begun) == 200


def test_ledgers_of_shards_are_read_as_one_in_the_order_of_time(tmp_path: Path) -> None:
    for shard, status in ((Shard(2, 2), "error"), (Shard(1, 2), "ok")):
        with Ledger(tmp_path, shard) as ledger:
            ledger.end("a_seg.nii", status=status)
            ledger.end(f"{shard.index}_seg.nii", status=status)
    with Ledger(tmp_path) as ledger:
        ledger.begin("1_seg.nii", "1.nii")
    history = read_ledgers(tmp_path)
    assert {mask: line["status"] for mask, line in history.ends.items()} == {
        "a_seg.nii": "ok",
        "1_seg.nii": "ok",
        "2_seg.nii": "error",
    }
    assert history.begun == {"1_seg.nii": 1}


def test_a_clock_that_was_set_back_does_not_turn_a_ledger_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(["2030-01-01", "2029-01-01", "2028-01-01"])
    monkeypatch.setattr("fastseg.cohort.ledger._now", lambda: next(times))
    with Ledger(tmp_path) as ledger:
        ledger.end("a_seg.nii", status="error")
        ledger.begin("a_seg.nii", "a.nii")
        ledger.end("a_seg.nii", status="ok")
    history = read_ledgers(tmp_path)
    assert history.ends["a_seg.nii"]["status"] == "ok"
    assert history.begun == {}


def test_a_folder_without_ledgers_has_no_history(tmp_path: Path) -> None:
    history = read_ledgers(tmp_path / "none")
    assert (dict(history.ends), history.begun, history.runs) == ({}, {}, [])


def test_a_ledger_that_cannot_be_read_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    path_of(tmp_path).mkdir(parents=True)
    with pytest.raises(OutputError, match=r"ledger\.jsonl: cannot be read .*; mend its permissions"):
        read_ledgers(tmp_path)
    with pytest.raises(OutputError, match="cannot be written"), Ledger(tmp_path):
        pass


def test_a_closed_ledger_writes_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        pass
    with pytest.raises(OutputError, match="is closed"):
        ledger.end("a_seg.nii")


# --- locks


def test_a_second_run_on_one_folder_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path), pytest.raises(OptionError, match="another run of fastseg works there"):
        Ledger(tmp_path).__enter__()
    with Ledger(tmp_path):  # the lock went with the run
        pass


def test_shards_of_one_number_work_side_by_side_and_each_only_once(tmp_path: Path) -> None:
    with Ledger(tmp_path, Shard(1, 3)), Ledger(tmp_path, Shard(3, 3)):
        with pytest.raises(OptionError, match="another run"), Ledger(tmp_path, Shard(3, 3)):
            pass
        with pytest.raises(OptionError, match="another run"), Ledger(tmp_path):
            pass
        with pytest.raises(OptionError, match="another run"), Ledger(tmp_path, Shard(2, 4)):
            pass
        with Ledger(tmp_path, Shard(2, 3)):
            pass
    with Ledger(tmp_path), pytest.raises(OptionError, match="another run"), Ledger(tmp_path, Shard(1, 3)):
        pass


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from fastseg.cohort.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1])).__enter__(); print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(OptionError, match="another run"), Ledger(tmp_path):
            pass
        other.kill()
        other.wait()
    with Ledger(tmp_path):
        pass


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/5", ""])
def test_a_shard_that_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(OptionError, match=r"give i/n with i from 1 to n, as 3/10"):
        Shard.parse(text)


def test_every_volume_is_in_exactly_one_shard() -> None:
    for count in (1, 2, 7):
        shards = [Shard.parse(f"{index}/{count}") for index in range(1, count + 1)]
        assert all(sum(shard.holds(number) for shard in shards) == 1 for number in range(50))


# --- whatever is in the file

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=8), each, max_size=3),
    max_leaves=8,
)
_FIELDS = ["name", "at", "key", "status", "message", "notes", "flags", "measures", "seconds", "inputs"]
_FIELDS += ["outputs", "older", "contrast", "log"]
_MASKS = st.just("a_seg.nii") | _VALUES
_LINES = st.fixed_dictionaries(
    {"event": st.sampled_from(["run", "begin", "end", "lunch"])},
    optional={"mask": _MASKS, **dict.fromkeys(_FIELDS, _VALUES)},
).map(lambda line: json.dumps(line).encode() + b"\n")


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(st.binary(max_size=40) | _LINES | st.just(b"\n"), max_size=8),
    cut=st.integers(0, 60),
)
def test_whatever_is_in_a_ledger_it_can_be_read_and_its_whole_lines_count(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], cut: int
) -> None:
    out = tmp_path_factory.mktemp("out")
    with Ledger(out) as ledger:
        ledger.end("whole_seg.nii", name="whole.nii", status="ok", outputs={"mask": "1"})
    before = path_of(out).read_bytes()
    after = b"".join(pieces)
    path_of(out).write_bytes(before + after[: max(len(after) - cut, 0)])
    with Ledger(out) as ledger:
        ledger.end("last_seg.nii", name="last.nii", status="ok")
    history = read_ledgers(out)
    whole: Mapping[str, Any] = history.ends["whole_seg.nii"]
    assert (whole["status"], whole["outputs"]) == ("ok", {"mask": "1"})
    assert history.ends["last_seg.nii"]["status"] == "ok"
    # Those who use the history live with it too.
    assert len(list(summary_rows(history))) == len(history.ends)
    assert summary_text(history).count("\n") == 1 + len(history.ends)
    decision = Resume(history, out, ("mask",)).decide(job_of(out / "a.nii", out), "key")
    assert decision.outcome is None or isinstance(decision.outcome.status, Status)
