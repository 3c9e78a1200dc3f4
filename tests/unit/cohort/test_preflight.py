"""Each kind of trouble is found, named, and told apart from what only deserves a look."""

from __future__ import annotations

import gzip
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastseg.cohort import preflight
from fastseg.cohort.forecast import Speed, measure_speed
from fastseg.cohort.job import Job
from fastseg.cohort.preflight import (
    Candidate,
    Checked,
    Severity,
    check,
    disk_bytes,
    disk_finding,
    with_duplicates,
)
from fastseg.nifti import VolumeFacts, probe_volume
from fastseg.options import Options
from fastseg.outputs import outputs_of
from fastseg.volume import Grid
from tests.faults.corrupt_files import corrupt_kinds
from tests.nifti_bytes import file, raw
from tests.phantom_files import save, save_phantom

_AFFINE = np.diag([1.0, 1.0, 2.5, 1.0])


def _candidate(path: Path, contrast: str = "auto", frame: Any = None, **options: Any) -> Candidate:
    return Candidate(path.name, path, Options(contrast=contrast, **options), frame)


def _look(path: Path, contrast: str = "auto", frame: Any = None, **how: Any) -> Checked:
    (checked,) = check([_candidate(path, contrast, frame)], **how)
    return checked


def _kinds(checked: Checked) -> list[tuple[str, str]]:
    return [(finding.kind, str(finding.severity)) for finding in checked.findings]


def _noise(shape: tuple[int, ...] = (40, 40, 6), dtype: Any = np.int16, seed: int = 1) -> Any:
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(dtype)


@pytest.fixture
def small_files_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "READ_BYTES", 1000)


def test_a_sound_volume_has_no_findings(tmp_path: Path) -> None:
    checked = _look(save_phantom(tmp_path / "a.nii.gz"))
    assert (checked.findings, checked.severity, checked.read) == ((), None, True)
    assert checked.facts is not None
    assert checked.facts.shape == (64, 64, 6)


@pytest.mark.parametrize("name", corrupt_kinds())
def test_every_corrupt_file_is_an_error_with_a_remedy(name: str, tmp_path: Path) -> None:
    checked = _look(corrupt_kinds()[name](tmp_path))
    assert checked.severity is Severity.ERROR
    (finding,) = [each for each in checked.findings if each.severity is Severity.ERROR]
    assert "; " in finding.message
    assert str(tmp_path) not in finding.message
    assert "\n" not in finding.message


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dangling_link.nii.gz", "missing"),
        ("folder_with_a_volume_name.nii.gz", "not_a_file"),
        ("pipe.nii.gz", "not_a_file"),
        ("empty.nii", "truncated"),
        ("cut_in_header.nii", "truncated"),
        ("cut_in_gzip.nii.gz", "truncated"),
        ("promises_terabytes.nii", "truncated"),
        ("wrong_checksum.nii.gz", "corrupt"),
        ("gzip_bomb.nii.gz", "corrupt"),
        ("text.nii.gz", "not_nifti"),
        ("half_a_pair.nii", "not_nifti"),
        ("four_dimensions.nii.gz", "four_d"),
        ("zero_voxel_size.nii", "bad_header"),
        ("complex.nii", "bad_header"),
    ],
)
def test_errors_are_told_apart(name: str, kind: str, tmp_path: Path) -> None:
    assert (kind, "error") in _kinds(_look(corrupt_kinds()[name](tmp_path)))


def test_a_frame_makes_a_4d_file_sound_if_it_is_there(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", _noise((40, 40, 6, 3)), _AFFINE)
    assert _kinds(_look(path, frame=None)) == [("four_d", "error")]
    assert _kinds(_look(path, frame=2)) == _kinds(_look(path, frame="mean")) == []
    assert _kinds(_look(path, frame=3)) == [("no_such_frame", "error")]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_constant_volume_is_an_error(dtype: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", np.full((40, 40, 6), 7, dtype), _AFFINE)
    assert _kinds(_look(path)) == [("constant", "error")]


def test_voxels_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    voxels = _noise(dtype=np.float32)
    voxels[0, 0, 0], voxels[1, 0, 0] = np.nan, -np.inf
    checked = _look(save(tmp_path / "a.nii.gz", voxels, _AFFINE))
    assert _kinds(checked) == [("not_finite", "warning")]
    assert "2 of 9600 voxels" in checked.findings[0].message
    voxels[:] = np.nan
    assert _kinds(_look(save(tmp_path / "b.nii.gz", voxels, _AFFINE))) == [("not_finite", "error")]
    voxels[::2] = 5
    kinds = _kinds(_look(save(tmp_path / "c.nii.gz", voxels, _AFFINE)))
    assert kinds == [("not_finite", "warning"), ("constant", "error")]


def test_forms_that_disagree_are_told_with_their_distance(tmp_path: Path) -> None:
    image = nib.Nifti1Image(_noise(), _AFFINE)
    image.set_qform(np.diag([1.0, 1, 2.5, 1]), 1)
    moved = _AFFINE.copy()
    moved[1, 3] = 4
    image.set_sform(moved, 1)
    image.to_filename(tmp_path / "a.nii.gz")
    checked = _look(tmp_path / "a.nii.gz")
    assert _kinds(checked) == [("forms_disagree", "warning")]
    assert "up to 4 mm" in checked.findings[0].message


def test_a_header_without_orientation_is_told(tmp_path: Path) -> None:
    path = file(tmp_path / "a.nii.gz", raw(_noise(), sform_code=0, qform_code=0))
    assert ("no_orientation", "warning") in _kinds(_look(path))


def test_voxel_sizes_that_disagree_with_the_affine_are_told(tmp_path: Path) -> None:
    path = file(tmp_path / "a.nii.gz", raw(_noise(), pixdim=[1, 0.8, 0.9, 5.0, 0, 0, 0, 0]))
    assert ("voxel_sizes_disagree", "warning") in _kinds(_look(path))


@pytest.mark.parametrize(
    ("shape", "zooms", "kinds"),
    [
        ((40, 40, 6), (1.5, 1.5, 2.5), []),
        ((20, 40, 6), (3.3, 0.8, 0.8), []),  # sagittal
        ((30, 30, 6), (1.7, 1.7, 2.5), ["coarse_in_plane"]),
        ((40, 40, 6), (1.0, 1.0, 20.0), []),
        ((40, 40, 6), (1.0, 1.0, 21.0), ["coarse_slices"]),
        ((40, 40, 3), (0.5, 0.5, 5.0), []),
        ((40, 38, 3), (0.5, 0.5, 5.0), ["small_field_of_view"]),
        ((40, 40, 2), (1.0, 1.0, 5.0), ["few_slices"]),
        ((40, 40, 1), (1.0, 1.0, 30.0), ["few_slices"]),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_odd_geometry_is_told_whatever_the_orientation(
    shape: Any, zooms: Any, kinds: list[str], turned: bool, tmp_path: Path
) -> None:
    voxels, affine = _noise(shape), np.diag([*zooms, 1.0])
    if turned and shape[2] > 1:  # slices first
        voxels, affine = voxels.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]]
    path = save(tmp_path / "a.nii.gz", voxels, affine)
    assert _kinds(_look(path)) == [(kind, "warning") for kind in kinds]


@pytest.mark.parametrize(
    ("name", "contrast", "kinds"),
    [
        ("sub-01_T2w.nii.gz", "auto", []),
        ("sub-01_T2w.nii.gz", "t2", []),
        ("sub-01_T2w.nii.gz", "t1", ["contrast_differs"]),
        ("sub-01_PDw.nii.gz", "auto", ["contrast_unknown"]),
        ("sub-01_PDw.nii.gz", "t2", []),
        ("whatever_PDw.nii.gz", "auto", []),
        ("sub-01.nii.gz", "auto", []),
    ],
)
def test_contrasts_that_are_unknown_or_odd_are_told(
    name: str, contrast: str, kinds: list[str], tmp_path: Path
) -> None:
    path = save_phantom(tmp_path / name)
    assert _kinds(_look(path, contrast)) == [(kind, "warning") for kind in kinds]


def test_a_volume_that_needs_more_than_the_memory_is_an_error_and_is_not_read(tmp_path: Path) -> None:
    checked = _look(save_phantom(tmp_path / "a.nii.gz"), budget=10_000_000)
    assert _kinds(checked) == [("too_large", "error")]
    assert not checked.read


@pytest.mark.usefixtures("small_files_are_large")
def test_large_files_are_read_only_when_asked_to(tmp_path: Path) -> None:
    voxels = _noise(dtype=np.float32)
    voxels[3, 3, 3] = np.nan
    path = save(tmp_path / "a.nii.gz", voxels, _AFFINE)
    quick, deep = _look(path), _look(path, deep=True)
    assert (quick.read, _kinds(quick)) == (False, [])
    assert (deep.read, _kinds(deep)) == (True, [("not_finite", "warning")])


@pytest.mark.usefixtures("small_files_are_large")
def test_a_large_file_whose_end_was_cut_off_is_found_without_being_asked_to(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", _noise(), _AFFINE)
    path.write_bytes(path.read_bytes()[:-5000])
    assert _kinds(_look(path)) == [("truncated", "error")]


def _twin_voxels(folder: Path) -> list[Path]:
    first = save(folder / "a.nii.gz", _noise(), _AFFINE)
    # Another header, another compression: the same voxels.
    plain = save(folder / "b.nii", _noise(), np.diag([0.9, 1.1, 3.5, 1.0]))
    return [first, plain, save(folder / "c.nii.gz", _noise(seed=2), _AFFINE)]


def test_volumes_of_the_same_voxels_are_named_together(tmp_path: Path) -> None:
    paths = _twin_voxels(tmp_path)
    paths.append(Path(shutil.copy(paths[0], tmp_path / "d.nii.gz")))
    found = with_duplicates(list(check([_candidate(path) for path in paths])))
    assert [_kinds(each) for each in found] == [[("duplicate", "warning")]] * 2 + [[]] + [
        [("duplicate", "warning")]
    ]
    assert found[0].findings[0].message.startswith("has the voxels of b.nii and 1 more; ")
    assert found[3].findings[0].message.startswith("has the voxels of a.nii.gz and 1 more; ")


@pytest.mark.usefixtures("small_files_are_large")
def test_copies_of_large_files_are_found_from_a_sample(tmp_path: Path) -> None:
    paths = _twin_voxels(tmp_path)
    paths.append(Path(shutil.copy(paths[0], tmp_path / "d.nii.gz")))
    found = with_duplicates(list(check([_candidate(path) for path in paths])))
    assert not any(each.read for each in found)
    assert [len(each.findings) for each in found] == [1, 0, 0, 1]


def test_constant_volumes_are_no_duplicates(tmp_path: Path) -> None:
    paths = [save(tmp_path / name, np.zeros((40, 40, 6), np.int16), _AFFINE) for name in ("a.nii", "b.nii")]
    found = with_duplicates(list(check([_candidate(path) for path in paths])))
    assert [_kinds(each) for each in found] == [[("constant", "error")]] * 2


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_whatever_the_threads(threads: int, tmp_path: Path) -> None:
    kinds = corrupt_kinds()
    names = [name for name in kinds if name != "gzip_bomb.nii.gz"]
    paths = [kinds[name](tmp_path) for name in names]
    paths.insert(7, save_phantom(tmp_path / "sound.nii.gz"))
    found = list(check([_candidate(path) for path in paths], threads=threads))
    assert [each.candidate.source for each in found] == paths
    assert [each.candidate.name for each in found if not each.findings] == ["sound.nii.gz"]


def test_a_check_that_is_given_up_stops(tmp_path: Path) -> None:
    path, begun = save_phantom(tmp_path / "a.nii.gz"), 0

    def candidates() -> Any:
        nonlocal begun
        for _ in range(1000):
            begun += 1
            yield _candidate(path)

    running = check(candidates(), threads=2)
    next(running)
    running.close()
    assert begun < 100


def test_a_check_changes_nothing(tmp_path: Path) -> None:
    for make in (lambda path: save_phantom(path / "a.nii.gz"), *_few(corrupt_kinds())):
        make(tmp_path)
    before = {path: (path.lstat(), path.read_bytes()) for path in tmp_path.iterdir()}
    list(check([_candidate(path) for path in before], deep=True, threads=2))
    after = {path: (path.lstat(), path.read_bytes()) for path in tmp_path.iterdir()}
    assert {path: content for path, (_, content) in after.items()} == {
        path: content for path, (_, content) in before.items()
    }
    assert [status.st_mtime_ns for status, _ in after.values()] == [
        status.st_mtime_ns for status, _ in before.values()
    ]


def _few(kinds: dict[str, Callable[[Path], Path]]) -> list[Callable[[Path], Path]]:
    return [kinds[name] for name in ("cut_in_gzip.nii.gz", "noise.nii.gz", "complex.nii")]


def test_a_job_is_a_candidate(tmp_path: Path) -> None:
    options = Options(contrast="t2")
    job = Job("sub-01/t2", tmp_path / "a.nii", outputs_of(tmp_path / "out.nii.gz"), options, frame="mean")
    assert Candidate.of(job) == Candidate("sub-01/t2", tmp_path / "a.nii", options, "mean")


def test_results_fit_on_the_disk_or_not(tmp_path: Path) -> None:
    found = list(check([_candidate(save_phantom(tmp_path / "a.nii.gz"))]))
    needed = disk_bytes(found)
    assert 0 < needed < 1_000_000
    assert disk_bytes([*found, _look(tmp_path / "missing.nii")]) == needed
    folder = tmp_path / "not" / "yet" / "there"
    assert disk_finding(folder, needed) is None
    full = disk_finding(folder, shutil.disk_usage(tmp_path).free * 2)
    assert full is not None
    assert (full.kind, full.severity) == ("disk_full", Severity.ERROR)
    assert not (tmp_path / "not").exists()


def test_masks_take_no_more_room_than_is_foreseen(tmp_path: Path) -> None:
    """A mask of noise round a cord compresses worse than any real one."""
    from fastseg.phantom import make_phantom

    _, mask = make_phantom("t2", shape=(64, 64), n_slices=20)
    compressed = len(gzip.compress(mask.voxels.tobytes(order="F"), 1))
    (found,) = check([_candidate(save_phantom(tmp_path / "a.nii.gz", n_slices=20))])
    assert compressed < disk_bytes([found])


def _facts(path: Path, shape: tuple[int, int, int]) -> VolumeFacts:
    known = probe_volume(path)
    return VolumeFacts(
        **{name: getattr(known, name) for name in VolumeFacts.__slots__ if name != "grid"},
        grid=Grid(shape, _AFFINE),
    )


def test_the_forecast_adds_up(tmp_path: Path) -> None:
    speed = Speed(per_volume=1.0, per_slice=0.5, per_mm2=0.001)
    facts = _facts(save_phantom(tmp_path / "a.nii.gz"), (10, 20, 12))
    # 12 slices of 200 mm2, 2.5 mm apart; the detector looks at one every 3 mm: at 10.
    assert speed.cpu_seconds(facts) == pytest.approx(1 + 6 + 2)
    assert speed.seconds([facts] * 8, cores=4) == pytest.approx(18)
    assert speed.seconds([facts], cores=4) == pytest.approx(9)
    assert speed.seconds([], cores=4) == 0


def test_the_speed_of_this_machine_is_measured() -> None:
    speed = measure_speed(Options())
    assert 0 < speed.per_slice < 1
    assert all(math.isfinite(each) and each >= 0 for each in (speed.per_volume, speed.per_mm2))
