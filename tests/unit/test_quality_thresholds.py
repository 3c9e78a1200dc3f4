"""tools/quality_thresholds: what it does to volumes, and how it judges what comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.nifti import new_template, write_volume
from fastseg.options import Options
from fastseg.phantom import make_phantom
from fastseg.quality import LIMITS
from fastseg.volume import SCT_RPI, Volume
from tools.evaluation.cord_free import cord_free_cases
from tools.evaluation.quality_thresholds import Judged, judge, main, markdown, read_results
from tools.evaluation.quality_trials import Trial, Trouble, trials
from tools.evaluation.volumes import Case, Phantoms, Slab

_CASE = Case("neck", "i", "m", "t2", "somebody", "phantom")


def _load(_: Case) -> tuple[Volume, Volume]:
    image, mask = make_phantom("t2", n_slices=9, shape=(96, 96))
    return image, Volume(mask.voxels > 0, mask.grid)


def _trials() -> dict[str, Trial]:
    free = cord_free_cases(
        Phantoms(("noise",), ("t2",)), [Slab(("neck",), ("noise",), ("upper",))], {"neck": _CASE}, _load
    )
    return {trial.change: trial for trial in trials([_CASE], free, _load)}


def _made(change: str) -> Trouble:
    return _trials()[change].make()


def _slices(volume: Volume | None) -> Any:
    assert volume is not None
    return np.asarray(volume.reoriented(SCT_RPI).voxels)


@pytest.mark.parametrize("change", _trials())
def test_every_change_gives_volumes_that_fit_together_and_always_the_same(change: str) -> None:
    trouble, again = _made(change), _made(change)
    assert np.array_equal(trouble.image.voxels, again.image.voxels)
    assert len(trouble.free) == _slices(trouble.image).shape[2]
    for other in (trouble.reference, trouble.given):
        assert other is None or other.grid.same_space(trouble.image.grid)
    if trouble.reference is not None:
        assert trouble.reference.voxels.dtype == bool
        assert trouble.reference.voxels.any()


def test_options_change_without_damage_and_the_rest_is_damage() -> None:
    image = _load(_CASE)[0]
    for trial in _trials().values():
        same = trial.volume == "neck" and np.array_equal(trial.make().image.voxels, image.voxels)
        assert trial.damaged == (not same or "beside" in trial.change)
    assert _trials()["contrast t1"].options == Options(contrast="t1")
    assert "contrast t2" not in _trials()


def test_lost_slices_are_zero_and_not_judged() -> None:
    trouble = _made("30% of the slices lost")
    empty = ~_slices(trouble.image).any(axis=(0, 1))
    assert np.flatnonzero(empty).tolist() == [3, 4]
    assert np.array_equal(_slices(trouble.reference).any(axis=(0, 1)), ~empty)


def test_moved_slices_take_their_reference_along() -> None:
    image, mask = _load(_CASE)
    trouble = _made("slices moved 4 mm")
    assert not np.array_equal(_slices(trouble.image), _slices(image))
    was, is_now = (
        _slices(each[0])[_slices(each[1])] for each in ((image, mask), (trouble.image, trouble.reference))
    )
    assert np.array_equal(np.sort(was), np.sort(is_now))


def test_a_cut_field_of_view_keeps_what_is_left_in_its_place() -> None:
    image, mask = _load(_CASE)
    trouble = _made("cut 0 mm beside")
    kept = trouble.image.reoriented(SCT_RPI).grid.shape[0]
    assert np.array_equal(_slices(trouble.image), _slices(image)[:kept])
    half = _slices(trouble.reference).sum() / _slices(mask).sum()
    assert half == pytest.approx(0.5, abs=0.15)


def test_few_slices_stay_where_they_were_in_space() -> None:
    image, _ = _load(_CASE)
    trouble = _made("3 slices")
    native, whole = trouble.image.reoriented(SCT_RPI), image.reoriented(SCT_RPI)
    assert np.array_equal(native.voxels, whole.voxels[..., 3:6])
    assert native.grid.affine @ [0, 0, 0, 1] == pytest.approx(whole.grid.affine @ [0, 0, 3, 1])


def test_a_centerline_beside_the_cord_is_as_far_away_as_it_says() -> None:
    _, mask = _load(_CASE)
    line = np.argwhere(_slices(_made("centerline 14 mm beside").given))
    assert len(line) == 9
    for x, y, z in line:
        centre = np.argwhere(_slices(mask)[..., z]).mean(axis=0)
        # Voxels of 1 mm.
        assert abs(abs(x - centre[0]) - 14) <= 0.51
        assert abs(y - centre[1]) <= 0.51


def test_slices_without_a_cord_count_as_such() -> None:
    trouble = _made("no cord in the noise-upper")
    assert np.flatnonzero(trouble.free).tolist() == [6, 7, 8]
    phantom = _made("no cord")
    assert phantom.reference is None
    assert phantom.free.all()


def test_results_are_judged_by_the_slices_that_are_known() -> None:
    plain, free, noise = judge(_trials()[name] for name in ("", "no cord in the noise-upper", "no cord"))
    assert (plain.group, plain.flags) == ("good", ())
    assert plain.dice > 0.9
    assert free.dice > 0.8
    assert (noise.group, noise.flags, noise.measures) == ("refused", (), {})
    assert noise.failure.startswith("CordNotFound: ")


def _judged(dice: float, *, change: str = "", damaged: bool = False, **measures: float) -> Judged:
    """A result with measures in the middle of nowhere but for those that are given."""
    usual = {limit.measure: limit.value for limit in LIMITS}
    found = usual | {"MedianAreaMm2": 80.0} | measures
    flags = tuple(limit.flag for limit in LIMITS if limit.broken(found))
    return Judged("neck", change, damaged, dice, found, flags)


def test_tables_say_what_is_caught_and_what_is_missed() -> None:
    results = [
        _judged(0.95),
        _judged(0.92, AreaJump=0.9),
        _judged(0.85, damaged=True, change="blur"),
        _judged(0.30, damaged=True, change="blur", AreaJump=0.9),
        _judged(0.79, damaged=True, change="noise"),
        Judged("neck", "noise", True, failure="CordNotFound: none"),
    ]
    text = markdown(results)
    assert "| as it is | 1 of 2 | 0 of 0 | 0 of 0 | 0 |" in text
    assert "| damaged | 0 of 0 | 0 of 1 | 1 of 2 | 1 |" in text
    assert "| blur | 0.30 to 0.85 | 0 of 0 | 0 of 1 | 1 of 1 | 0 |" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| area_jump")]
    assert row == "| area_jump | AreaJump > 0.5 | 0.5 0.54 0.86 0.9 | 0.5 0.54 0.86 0.9 | 1 | 0 | 1 | 1 |"
    assert text.endswith("| neck | noise | 0.790 |  |\n")


def test_written_results_are_read_with_the_flags_of_today(tmp_path: Path) -> None:
    fine, odd = _judged(0.95), _judged(0.3, AreaJump=0.9)
    refused = Judged("neck", "noise", True, failure="CordNotFound: none")
    lines = [vars(fine) | {"flags": ["holes"]}, vars(odd) | {"flags": []}, vars(refused)]
    (tmp_path / "r.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second, third = read_results(tmp_path / "r.json")
    assert (first, second) == (fine, odd)
    assert third.group == "refused"


@pytest.mark.parametrize("content", ["no json\n", "[]\n", '{"volume": "a"}\n'])
def test_results_of_something_else_are_refused(tmp_path: Path, content: str, capsys: Any) -> None:
    (tmp_path / "r.json").write_text(content)
    assert main(["--results", str(tmp_path / "r.json")]) == 2
    assert "write them again with --json" in capsys.readouterr().err


def test_the_command_judges_the_volumes_of_a_list(tmp_path: Path, capsys: Any) -> None:
    image, mask = _load(_CASE)
    for name, volume in (("image.nii", image), ("mask.nii", Volume(mask.voxels.astype(np.uint8), mask.grid))):
        write_volume(volume.voxels, new_template(volume.grid), tmp_path / name)
    (tmp_path / "list.toml").write_text(
        """
        [limits]
        area_bias_percent = 1
        mean_area_bias_percent = 1
        centerline_p95_mm = 1
        centerline_max_mm = 1
        cord_free_percent = 1

        [[volume]]
        name = "neck"
        image = "image.nii"
        mask = "mask.nii"
        contrast = "t2"
        person = "nobody"
        reference = "phantom"
        """
    )
    given = ["--data", str(tmp_path), "--list-file", str(tmp_path / "list.toml")]
    assert main([*given, "--change", "as it is", "--json", str(tmp_path / "r.json")]) == 0
    printed = capsys.readouterr()
    assert "| as it is | 0 of 1 | 0 of 0 | 0 of 0 | 0 |" in printed.out
    (result,) = read_results(tmp_path / "r.json")
    assert result.group == "good"
    assert main([*given, "--change", "nothing"]) == 2
    assert main(["--data", str(tmp_path / "none")]) == 2
