"""tools/make_cohort: volumes that are alike, and never the same."""

from __future__ import annotations

import hashlib
import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.cohort.plan.bids import index_bids
from fastseg.nifti import read_volume
from fastseg.volume import Grid, Volume
from tests.phantom_files import files_below, save_phantom
from tools.cohort.__main__ import main
from tools.cohort.making import make_cohort, vary
from tools.cohort.sources import sequence

_CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand in for ../shared/data: all volumes, small ones."""
    folder = tmp_path_factory.mktemp("data")
    for number, path in enumerate({source.path for source in islice(sequence("mix"), 60)} - {""}):
        save_phantom(folder / path, n_slices=5 + number, shape=(24, 32), seed=number)
    return folder


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.nii.gz"))
    }


def _make(folder: Path, data: Path | None, volumes: int = 12, **how: Any) -> dict[str, str]:
    list(make_cohort(folder, how.pop("kind", "small"), volumes, data=data, **how))
    return _digests(folder)


def test_equal_arguments_give_equal_files_and_no_two_volumes_are_equal(tmp_path: Path, data: Path) -> None:
    once = _make(tmp_path / "a", data)
    assert once == _make(tmp_path / "b", data)
    assert len(set(once.values())) == 12


def test_another_seed_gives_other_volumes(tmp_path: Path, data: Path) -> None:
    digests = [_make(tmp_path / str(seed), data, seed=seed) for seed in (0, 1)]
    assert set(digests[0].values()).isdisjoint(digests[1].values())


def test_a_large_cohort_begins_with_the_small_one(tmp_path: Path, data: Path) -> None:
    few, many = _make(tmp_path / "few", data, 3), _make(tmp_path / "many", data, 7)
    assert few.items() <= many.items()


def test_sizes_are_mixed_as_the_help_page_says() -> None:
    voxels = [int(np.prod(source.shape)) for source in islice(sequence("mix"), 20)]
    assert sum(n <= 250_000 for n in voxels) == 11
    assert sum(n == 320 * 320 * 60 for n in voxels) == 1
    assert max(int(np.prod(source.shape)) for source in islice(sequence("small"), 20)) <= 250_000


def test_what_a_volume_is_made_of_is_told(tmp_path: Path, data: Path) -> None:
    made = list(make_cohort(tmp_path / "a", "mix", 4, data=data))
    for each in made:
        assert (data / each.origin).is_file()
        assert read_volume(tmp_path / "a" / each.path)[0].grid.same_space(each.grid)


def test_phantoms_stand_in_where_there_are_no_real_volumes(tmp_path: Path, data: Path) -> None:
    assert [made.origin for made in make_cohort(tmp_path / "a", "small", 2)] == ["phantom"] * 2
    assert [made.origin for made in make_cohort(tmp_path / "b", "phantoms", 1, data=data)] == ["phantom"]
    assert _digests(tmp_path / "b").items() <= _digests(tmp_path / "a").items()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_change_is_small_and_stays_in_its_place(dtype: Any) -> None:
    random = np.random.default_rng(5)
    voxels = random.integers(0, 256, (40, 50, 64)).astype(dtype)
    before = Volume(voxels, Grid(voxels.shape, np.array([*np.diag([0.5, 2, 3, 1])])))
    for _ in range(5):
        after = vary(before, random)
        assert after.voxels.dtype == dtype
        back = after.reoriented(before.grid.axcodes)
        start = np.linalg.solve(before.grid.affine, back.grid.affine[:, 3])[:3].round().astype(int)
        place = tuple(slice(a, a + n) for a, n in zip(start, back.voxels.shape, strict=True))
        same_place = before.voxels[place]
        assert same_place.shape == back.voxels.shape
        assert all(n - 6 <= kept <= n for n, kept in zip(voxels.shape, back.voxels.shape, strict=True))
        difference = back.voxels.astype(float) - same_place
        # Noise of 2.5 grey values: of 128,000 such numbers none is beyond 6 deviations; rounding adds 1.
        assert 0 < np.abs(difference).max() < 17
        assert np.allclose(back.grid.affine[:3, :3], before.grid.affine[:3, :3])


def test_a_data_set_is_one_that_fastseg_finds(tmp_path: Path, data: Path) -> None:
    made = list(make_cohort(tmp_path / "set", "small", 6, data=data, bids=True))
    index = index_bids(tmp_path / "set")
    found = [volume.name for volumes in index.volumes.values() for volume in volumes]
    assert sorted(found) == [str(each.path) for each in made]
    assert {suffix for suffix, volumes in index.volumes.items() if volumes} == {"T1w", "T2w", "T2starw"}
    description = json.loads((tmp_path / "set/dataset_description.json").read_text())
    assert description["DatasetType"] == "raw"


def test_the_command_tells_a_row_a_volume(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path / "new"), "--kind", "small", "--volumes", "3", "--data", str(data)]
    assert main(arguments) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["volume", "made_of", "shape", "mm", "axes"]
    assert [row[0] for row in rows[1:]] == files_below(tmp_path / "new")
    assert len(rows) == 4


def test_nothing_is_written_into_the_checkout_or_among_other_files(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("mine")
    for out in (_CHECKOUT / "tests/new", tmp_path):
        with pytest.raises(SystemExit) as refused:
            main(["--out", str(out), "--volumes", "1", "--kind", "small", "--data", str(data)])
        assert refused.value.code == 2
        assert "choose another --out" in capsys.readouterr().err
    assert not (_CHECKOUT / "tests/new").exists()
    assert files_below(tmp_path) == ["mine"]


def test_a_volume_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = next(sequence("small")).path
    (tmp_path / "data" / first).parent.mkdir(parents=True)
    (tmp_path / "data" / first).write_bytes(b"no volume")
    arguments = ["--out", str(tmp_path / "new"), "--kind", "small", "--data", str(tmp_path / "data")]
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("tools/make_cohort: error: ")
    assert len(err.splitlines()) == 1
