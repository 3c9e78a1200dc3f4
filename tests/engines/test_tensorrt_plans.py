"""The cache of built engines: what is found, what is refused, what goes first, where it lies."""

import errno
import json
import logging
import os
import stat
import time
from pathlib import Path

import pytest

from fastseg.engines.cuda.base import GpuFacts
from fastseg.engines.tensorrt import cache_files, plans
from fastseg.engines.tensorrt.plans import PlanCache, PlanKey, plan_key
from fastseg.errors import OptionError

KEY = PlanKey({"network": "a network"})
CONTENT, RECORD = b"native code" * 100, {"precision": "fp16", "max_difference": 0.001}
H100 = GpuFacts(0, "NVIDIA H100", (9, 0), 132, 80_000_000_000, (13, 0))
FACTS = {
    "content": b"onnx",
    "precision": "fp16",
    "vendor": "tensorrt",
    "version": "10.16.1.11",
    "gpu": H100,
    "shapes": {"in": ((1, 1, 64, 64), (64, 1, 64, 64), (256, 1, 64, 64))},
    "optimisation_level": 3,
    "workspace_bytes": 1 << 30,
    "hardware_compatibility": "none",
    "version_compatible": False,
}


@pytest.fixture
def cache(tmp_path):
    return PlanCache(tmp_path / "engines")


def key(number):
    return PlanKey({"number": number})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def store_at(cache, number, age, size=1000):
    """Store a plan that was used so many seconds ago."""
    plan = cache.store(key(number), bytes(size), {})
    os.utime(plan.path.with_suffix(".json"), (time.time() - age,) * 2)
    os.utime(plan.path, (time.time() - age,) * 2)
    return plan


def test_a_plan_that_was_stored_is_found_by_its_key_alone(cache):
    assert cache.fetch(KEY) is None
    stored = cache.store(KEY, CONTENT, RECORD)
    found = PlanCache(cache.folder).fetch(PlanKey(dict(KEY.facts)))
    assert found == stored
    assert (found.content, found.record, found.digest) == (CONTENT, RECORD, KEY.digest)
    assert cache.fetch(key(1)) is None


def test_folder_and_files_are_the_users_alone(cache):
    path = cache.store(KEY, CONTENT, RECORD).path
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in cache.folder.iterdir()} == {0o600}
    assert names(cache.folder) == sorted([path.name, f"{KEY.digest}.json"])


OTHER_FACTS = {
    "content": b"another network",
    "precision": "tf32",
    "vendor": "tensorrt_rtx",
    "version": "10.16.1.12",
    "gpu": GpuFacts(0, "NVIDIA H200", (9, 0), 132, 80_000_000_000, (13, 0)),
    "shapes": {"in": ((1, 1, 64, 64), (64, 1, 64, 64), (128, 1, 64, 64))},
    "optimisation_level": 4,
    "workspace_bytes": 1 << 29,
    "hardware_compatibility": "ampere+",
    "version_compatible": True,
}


@pytest.mark.parametrize("name", sorted(OTHER_FACTS))
def test_everything_a_plan_depends_on_is_in_its_key(name):
    assert plan_key(**FACTS).digest == plan_key(**FACTS).digest
    assert plan_key(**FACTS | {name: OTHER_FACTS[name]}).digest != plan_key(**FACTS).digest


@pytest.mark.parametrize(
    ("gpu", "same"),
    [
        (GpuFacts(0, "NVIDIA H100", (9, 1), 132, 80_000_000_000, (13, 0)), False),
        (GpuFacts(0, "NVIDIA H100", (9, 0), 114, 80_000_000_000, (13, 0)), False),
        (GpuFacts(3, "NVIDIA H100", (9, 0), 132, 80_000_000_000, (13, 1)), True),
    ],
)
def test_one_plan_serves_gpus_of_a_kind_under_any_driver(gpu, same):
    assert (plan_key(**FACTS | {"gpu": gpu}).digest == plan_key(**FACTS).digest) is same


def truncated(plan, record):
    plan.write_bytes(CONTENT[:-1])


def longer(plan, record):
    plan.write_bytes(CONTENT + b"!")


def changed(plan, record):
    plan.write_bytes(b"N" + CONTENT[1:])


def empty(plan, record):
    plan.write_bytes(b"")


def gone(plan, record):
    plan.unlink()


def without_record(plan, record):
    record.unlink()


def record_no_json(plan, record):
    record.write_text(record.read_text()[:-20])


def record_nested_for_ever(plan, record):
    record.write_text("[" * 100_000)


def record_a_list(plan, record):
    record.write_text("[]")


def record_of_another_version(plan, record):
    record.write_text(json.dumps(json.loads(record.read_text()) | {"schema": 99}))


def record_incomplete(plan, record):
    record.write_text(json.dumps({"schema": 1, "sha256": 3}))


def record_of_another_plan(plan, record):
    record.write_text(json.dumps(json.loads(record.read_text()) | {"key": {"network": "another"}}))


def record_huge(plan, record):
    record.write_text(" " * (2 << 20))


DAMAGES = {
    truncated: "not what was written",
    longer: "cannot be trusted: it holds 1101 bytes, where 1100 were expected",
    changed: "not what was written",
    empty: "not what was written",
    gone: "the plan is missing",
    without_record: "its record is missing",
    record_no_json: "its record is no JSON",
    record_nested_for_ever: "its record is no JSON",
    record_a_list: "another version of fastseg",
    record_of_another_version: "another version of fastseg",
    record_incomplete: "incomplete",
    record_of_another_plan: "another plan's",
    record_huge: "its record cannot be trusted: it holds",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_a_damaged_plan_is_told_of_removed_and_can_be_stored_again(cache, damage, caplog):
    path = cache.store(KEY, CONTENT, RECORD).path
    damage(path, path.with_suffix(".json"))
    assert cache.fetch(KEY) is None
    (warning,) = caplog.messages
    assert DAMAGES[damage] in warning
    assert warning.startswith(str(path))
    assert "\n" not in warning
    assert names(cache.folder) == []
    cache.store(KEY, CONTENT, RECORD)
    assert cache.fetch(KEY).content == CONTENT


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_lists_show_what_is_damaged_as_far_as_that_shows(cache, damage):
    path = cache.store(KEY, CONTENT, RECORD).path
    damage(path, path.with_suffix(".json"))
    (entry,) = cache.entries()
    assert bool(entry.problem) is (damage is not changed)  # the same size: only reading it tells
    assert (entry.digest, entry.path) == (KEY.digest, path)


def linked(path):
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def writable_by_a_group(path):
    path.chmod(0o660)


def a_pipe(path):
    path.unlink()
    os.mkfifo(path, 0o600)


def another_users(path):
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(path, 12345, -1)


@pytest.mark.parametrize("suffix", [".plan", ".json"])
@pytest.mark.parametrize("how", [linked, writable_by_a_group, a_pipe, another_users])
def test_what_others_could_have_put_there_is_not_loaded(cache, how, suffix, caplog):
    how(cache.store(KEY, CONTENT, RECORD).path.with_suffix(suffix))
    assert cache.fetch(KEY) is None
    assert "cannot be trusted" in caplog.text


@pytest.mark.parametrize("how", ["writable", "another user's", "a file"])
def test_a_folder_of_others_is_neither_read_nor_written_and_told_of_once(tmp_path, how, caplog):
    folder = tmp_path / "engines"
    PlanCache(folder).store(KEY, CONTENT, RECORD)
    if how == "writable":
        folder.chmod(0o777)
    elif how == "a file":
        folder.rename(tmp_path / "away")
        folder.write_text("")
    else:
        another_users(folder)
    for cache in (PlanCache(folder), PlanCache(folder)):
        with cache.building(KEY):
            assert cache.fetch(KEY) is None
            plan = cache.store(KEY, CONTENT, RECORD)
        assert (plan.path, plan.content, plan.record) == (None, CONTENT, RECORD)
        cache.keep_timing_cache("a", b"b")
        assert (cache.timing_cache("a"), cache.entries(), cache.prune(everything=True)) == (b"", [], [])
    (warning,) = caplog.messages
    assert warning == cache.problem
    assert "FASTSEG_ENGINES" in warning
    if how == "writable":
        folder.chmod(0o700)
        assert PlanCache(folder).fetch(KEY).content == CONTENT


def test_the_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "large disk").mkdir(mode=0o700)
    (tmp_path / "engines").symlink_to(tmp_path / "large disk")
    cache = PlanCache(tmp_path / "engines")
    cache.store(KEY, CONTENT, RECORD)
    assert cache.fetch(KEY).content == CONTENT


def test_the_folder_is_that_of_the_variable_else_in_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("FASTSEG_ENGINES")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert PlanCache().folder == tmp_path / ".cache" / "fastseg" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert PlanCache().folder == tmp_path / ".cache" / "fastseg" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert PlanCache().folder == tmp_path / "xdg" / "fastseg" / "engines"
    monkeypatch.setenv("FASTSEG_ENGINES", "~/mine")
    assert PlanCache().folder == tmp_path / "mine"


def test_without_a_home_engines_are_built_in_memory(monkeypatch, caplog):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(plans, "_warned", set())
    monkeypatch.delenv("FASTSEG_ENGINES")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    cache = PlanCache()
    assert cache.folder is None
    assert cache.fetch(KEY) is None
    assert cache.store(KEY, CONTENT, RECORD).path is None
    assert "FASTSEG_ENGINES" in caplog.text


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    cache = PlanCache(tmp_path, limit_bytes=4500)
    for number, age in enumerate((300, 200, 100)):
        store_at(cache, number, age)
    assert cache.fetch(key(0)) is not None  # used again
    cache.store(key(3), bytes(1000), {})
    assert [cache.fetch(key(number)) is not None for number in range(4)] == [True, False, True, True]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4500


def test_a_plan_larger_than_the_limit_is_kept_alone(tmp_path):
    cache = PlanCache(tmp_path, limit_bytes=0)
    store_at(cache, 0, 10)
    store_at(cache, 1, 0)
    assert [each.digest for each in cache.entries()] == [key(1).digest]


def test_a_plan_that_another_is_at_work_on_stays(tmp_path):
    cache = PlanCache(tmp_path, limit_bytes=0)
    store_at(cache, 0, 10)
    with PlanCache(tmp_path).building(key(0)):
        cache.store(key(1), b"1", {})
        assert cache.prune(everything=True) != []
        assert [each.digest for each in cache.entries()] == [key(0).digest]


def test_the_limit_is_that_of_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTSEG_ENGINES_GB", "1e-6")
    cache = PlanCache(tmp_path)
    store_at(cache, 0, 10)
    store_at(cache, 1, 0)
    assert len(cache.entries()) == 1
    for text in ("much", "-1", "inf", "nan"):
        monkeypatch.setenv("FASTSEG_ENGINES_GB", text)
        with pytest.raises(OptionError, match="FASTSEG_ENGINES_GB"):
            PlanCache(tmp_path)


def test_entries_come_with_their_keys_and_records_last_used_first(cache):
    store_at(cache, 0, 100)
    store_at(cache, 1, 300)
    cache.store(KEY, CONTENT, RECORD)
    entries = cache.entries()
    assert [each.key.digest for each in entries] == [KEY.digest, key(0).digest, key(1).digest]
    assert (entries[0].record, entries[0].problem) == (RECORD, "")
    assert abs(entries[1].used - (time.time() - 100)) < 60
    assert entries[0].size == sum(path.stat().st_size for path in cache.folder.glob(f"{KEY.digest}.*"))


def test_notes_are_added_to_the_record_for_everybody(cache):
    plan = cache.store(KEY, CONTENT, RECORD)
    other = PlanCache(cache.folder)
    other.note(other.fetch(KEY), dice=0.9999)
    noted = cache.note(plan, drivers=["580"])
    assert noted.record == RECORD | {"dice": 0.9999, "drivers": ["580"]}
    assert cache.fetch(KEY) == noted
    in_memory = PlanCache(Path("/proc/no folder")).store(KEY, CONTENT, RECORD)
    assert cache.note(in_memory, driver="580").record == RECORD | {"driver": "580"}


def test_notes_and_removal_leave_a_plan_alone_that_replaced_it(cache):
    first = cache.store(KEY, CONTENT, RECORD)
    second = cache.store(KEY, b"another", {})
    cache.note(first, driver="580")
    cache.discard(first)
    assert cache.fetch(KEY) == second
    cache.discard(second)
    assert cache.fetch(KEY) is None
    assert names(cache.folder) == []
    assert cache.note(second, driver="580").record == {"driver": "580"}  # and makes no record without a plan
    assert names(cache.folder) == []


def test_prune_removes_what_is_asked_for_and_what_is_of_no_use(cache, tmp_path):
    day = 86_400
    store_at(cache, 0, 1)
    store_at(cache, 1, 3 * day)
    damaged = store_at(cache, 2, 1).path
    damaged.with_suffix(".json").unlink()
    cache.keep_timing_cache("vendor", b"times")
    (cache.folder / f".{KEY.digest}.plan.123-ab.tmp").write_bytes(b"half")
    (cache.folder / f"{KEY.digest}.lock").write_bytes(b"")
    (cache.folder / "notes.txt").write_text("somebody's")
    assert [each.digest for each in cache.prune()] == [key(2).digest]
    assert len(names(cache.folder)) == 6  # two plans with their records, times, notes
    assert [each.digest for each in cache.prune(older_than_days=2)] == [key(1).digest]
    store_at(cache, 3, 100)
    assert [each.digest for each in cache.prune(limit_bytes=2000)] == [key(3).digest]
    assert [each.digest for each in cache.prune(everything=True)] == [key(0).digest]
    assert names(cache.folder) == ["notes.txt"]
    assert PlanCache(tmp_path / "nowhere").prune(everything=True) == []
    assert not (tmp_path / "nowhere").exists()


def test_timing_caches_are_kept_by_name_and_only_whole_ones(cache):
    assert cache.timing_cache("tensorrt 10.3 on NVIDIA H100") == b""
    cache.keep_timing_cache("tensorrt 10.3 on NVIDIA H100", b"times" * 9)
    cache.keep_timing_cache("tensorrt 10.3 on NVIDIA H200", b"others")
    cache.keep_timing_cache("tensorrt 10.3 on NVIDIA H200", b"")
    assert cache.timing_cache("tensorrt 10.3 on NVIDIA H100") == b"times" * 9
    assert cache.timing_cache("tensorrt 10.3 on NVIDIA H200") == b"others"
    (path,) = cache.folder.glob("*H100*")
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.timing_cache("tensorrt 10.3 on NVIDIA H100") == b""
    assert not path.exists()


def test_a_timing_cache_that_grew_too_large_is_begun_anew(cache, monkeypatch):
    monkeypatch.setattr("fastseg.engines.tensorrt.plans._MOST_TIMING", 100)
    cache.keep_timing_cache("a", bytes(100))
    assert cache.timing_cache("a") == bytes(100)
    cache.keep_timing_cache("a", bytes(101))
    assert cache.timing_cache("a") == b""


def test_timing_caches_count_and_go_as_plans_do(tmp_path):
    cache = PlanCache(tmp_path, limit_bytes=2500)
    cache.keep_timing_cache("a", bytes(1000))
    os.utime(next(tmp_path.glob("timing-*.cache")), (0, 0))
    cache.store(KEY, bytes(1500), {})
    assert cache.timing_cache("a") == b""
    assert cache.fetch(KEY) is not None


@pytest.mark.parametrize("full_after", [0, 1, 500, 1100, 1150])
def test_a_full_disk_leaves_nothing_and_the_plan_in_memory(cache, monkeypatch, full_after, caplog):
    really, left = os.write, full_after

    def write(handle, content):
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = really(handle, content[:left])
        left -= written
        return written

    monkeypatch.setattr(os, "write", write)
    plan = cache.store(KEY, CONTENT, RECORD)
    assert (plan.path, plan.content) == (None, CONTENT)
    assert names(cache.folder) == []
    assert cache.fetch(KEY) is None
    (warning,) = caplog.messages
    assert "No space left on device" in warning
    assert "FASTSEG_ENGINES" in warning


def test_a_file_system_without_locks_is_no_hindrance(cache, monkeypatch, caplog):
    def flock(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(cache_files.fcntl, "flock", flock)
    caplog.set_level(logging.WARNING)
    with cache.building(KEY):
        cache.store(KEY, CONTENT, RECORD)
    fresh, old = (cache.folder / f".{KEY.digest}.plan.{number}-ab.tmp" for number in (1, 2))
    for path in (fresh, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert cache.fetch(KEY).content == CONTENT
    cache.prune()
    assert fresh.exists()  # its writer may live
    assert not old.exists()
    assert caplog.messages == []
