"""The reader refuses every kind of corrupt file on one line that says what to do, and in little memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastseg.errors import InputError
from fastseg.nifti import probe_volume, read_volume
from tests.faults.corrupt_files import corrupt_kinds

_KINDS = corrupt_kinds()


@pytest.fixture(scope="module", params=_KINDS)
def corrupt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = _KINDS[request.param](tmp_path_factory.mktemp("corrupt"))
    yield path
    if path.is_file():
        path.unlink()


def test_there_are_many_kinds() -> None:
    assert len(_KINDS) >= 50


def test_the_file_has_the_name_of_its_kind(corrupt: Path) -> None:
    assert corrupt.name in _KINDS
    assert corrupt.is_symlink() or corrupt.exists()


def test_a_corrupt_file_is_refused_on_one_line_that_says_what_to_do(corrupt: Path) -> None:
    began = time.perf_counter()
    with pytest.raises(InputError) as caught:
        read_volume(corrupt)
    # The slowest, a gzip bomb, takes a tenth of that; a pipe would take for ever.
    assert time.perf_counter() - began < 5
    place, _, said = str(caught.value).partition(": ")
    what, _, remedy = said.rpartition("; ")
    assert place == str(corrupt)
    assert what
    assert remedy
    assert "\n" not in said


def test_a_corrupt_file_takes_little_memory(corrupt: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            read_volume(corrupt)
        # The volume has 12 kB; the reader takes 4 MB at a time, and holds three such pieces at most.
        assert tracemalloc.get_traced_memory()[1] < 16e6
    finally:
        tracemalloc.stop()


def test_a_probe_raises_what_the_reader_raises_or_nothing(corrupt: Path) -> None:
    with pytest.raises(InputError) as read:
        read_volume(corrupt)
    probed = str(read.value)
    assert _probed(corrupt) in (probed, (32, 32, 6), (32, 32, 7))


def _probed(path: Path) -> tuple[int, ...] | str:
    try:
        return probe_volume(path).shape
    except InputError as error:
        return str(error)
