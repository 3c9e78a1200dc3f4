"""tools/evaluate from its arguments to its files, on phantoms."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fastseg.errors import CordNotFound, InputError
from fastseg.phantom import make_phantom
from fastseg.volume import SCT_RPI, Grid, Volume
from tests.phantom_files import save
from tools.evaluation.__main__ import main
from tools.evaluation.cord_free import CordFree
from tools.evaluation.overlays import WorstSlices
from tools.evaluation.runs import CENTERLINES, KERNELS, Run, evaluate, evaluate_cord_free
from tools.evaluation.volumes import Case

_LIST = """\
[limits]
area_bias_percent = 16
mean_area_bias_percent = 5
centerline_p95_mm = 2.5
centerline_max_mm = 6
cord_free_percent = 5

[phantoms]
bodies = ["air"]
contrasts = ["t1"]

[[slab]]
volumes = ["neck"]
fills = ["air"]
ends = ["upper"]
"""
_ORANGE, _BLUE = (255, 140, 30), (70, 210, 255)


def _entry(name, *, person, at_least=0.5, mask="mask.nii.gz", contrast="t2"):
    return f"""
[[volume]]
name = "{name}"
image = "image.nii.gz"
mask = "{mask}"
contrast = "{contrast}"
person = "{person}"
reference = "phantom"
at_least = {at_least}
"""


@pytest.fixture
def evaluate_phantom(tmp_path):
    """Run the command on a folder with one phantom; gives its exit code."""
    image, mask = make_phantom("t2", n_slices=6)
    save(tmp_path / "image.nii.gz", image.voxels, image.grid.affine)
    save(tmp_path / "mask.nii.gz", mask.voxels, mask.grid.affine)

    def run(*arguments, entries=None):
        text = _LIST + "".join(entries or [_entry("neck", person="ann")])
        (tmp_path / "volumes.toml").write_text(text)
        files = ["--data", str(tmp_path), "--list-file", str(tmp_path / "volumes.toml")]
        return main([*files, *arguments])

    return run


def _case(name="neck"):
    return Case(name, "image", "mask", "t2", name, "phantom")


def _phantom(case=None):
    image, mask = make_phantom("t2", n_slices=6)
    return image, Volume(mask.voxels > 0, mask.grid)


# --- the command


def test_report_pictures_and_numbers_are_written(evaluate_phantom, tmp_path, capsys):
    files = [tmp_path / "out.md", tmp_path / "out.json", tmp_path / "pictures"]
    options = [
        "--markdown",
        str(files[0]),
        "--json",
        str(files[1]),
        "--overlays",
        str(files[2]),
        "--worst",
        "2",
    ]
    assert evaluate_phantom(*options, "--check") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "neck" in captured.err
    assert "| neck | t2 | 0.9" in files[0].read_text()
    (run,) = json.loads(files[1].read_text())["runs"]
    assert run["volumes"][0]["accuracy"]["slices"] == 6
    assert [each["name"] for each in run["cord_free"]["volumes"]] == ["phantom-air-t1", "neck+air-upper"]
    assert len(list(files[2].glob("0[12]-neck-2d-00?.png"))) == 2
    assert (files[2] / "worst.png").is_file()


def test_report_goes_to_stdout_where_no_file_is_named(evaluate_phantom, capsys):
    assert evaluate_phantom("--quiet", "--no-cord-free") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("# Evaluation")
    assert "Slices without a cord" not in captured.out
    assert captured.err == ""


def test_check_fails_where_a_volume_misses_its_dice(evaluate_phantom, capsys):
    entries = [_entry("neck", person="ann", at_least=0.9999)]
    assert evaluate_phantom("--no-cord-free", entries=entries) == 0
    assert evaluate_phantom("--no-cord-free", "--check", entries=entries) == 1
    assert "missed: neck (2d, auto centerline): Dice 0.9" in capsys.readouterr().err


def test_volume_that_cannot_be_read_is_a_row_with_the_reason(evaluate_phantom, capsys):
    entries = [_entry("neck", person="ann"), _entry("gone", person="bob", mask="gone.nii.gz")]
    assert evaluate_phantom("--no-cord-free", "--check", entries=entries) == 1
    out = capsys.readouterr().out
    assert "| neck | t2 | 0.9" in out
    assert "| gone | t2 | **failed** |" in out
    assert "- gone: InputError:" in out


def test_reference_centerline_is_the_centre_of_the_mask(evaluate_phantom, tmp_path):
    file = tmp_path / "out.json"
    assert evaluate_phantom("--centerline", "reference", "--json", str(file)) == 0
    (run,) = json.loads(file.read_text())["runs"]
    # fastseg takes it on a grid of 0.5 mm, after linear resampling.
    assert run["volumes"][0]["line"]["max_mm"] < 0.3
    assert run["volumes"][0]["detector"] == "file"
    assert run["cord_free"]["volumes"] == []


def test_all_centerlines_are_those_that_the_pack_has(evaluate_phantom, tmp_path):
    file = tmp_path / "out.json"
    assert evaluate_phantom("--centerline", "all", "--no-cord-free", "--json", str(file)) == 0
    report = json.loads(file.read_text())
    ran = {run["run"]["centerline"] for run in report["runs"]}
    assert {"auto", "cnn", "reference"} <= ran
    left_out = set(CENTERLINES) - ran
    assert len(report["notes"]) == len(left_out)
    assert all(f"{name} centerline" in " ".join(report["notes"]) for name in left_out)


def test_sweep_is_run_at_each_threshold(evaluate_phantom, tmp_path):
    file = tmp_path / "out.json"
    assert evaluate_phantom("--no-cord-free", "--thresholds", "0.9,0.1", "--json", str(file)) == 0
    swept = json.loads(file.read_text())["runs"][0]["thresholds"]
    assert {key: each[0]["threshold"] for key, each in swept.items()} == {"0.1": 0.1, "0.9": 0.9}
    areas = [swept[key][0]["accuracy"]["area_bias_percent"] for key in ("0.1", "0.9")]
    assert areas[0] > areas[1]


def test_leave_one_out_takes_the_threshold_of_the_other_person(evaluate_phantom, tmp_path):
    file = tmp_path / "out.json"
    entries = [_entry("neck", person="ann"), _entry("twin", person="bob")]
    options = ["--no-cord-free", "--leave-one-out", "--thresholds", "0.02,0.4", "--json", str(file)]
    assert evaluate_phantom(*options, entries=entries) == 0
    choices = json.loads(file.read_text())["runs"][0]["leave_one_out"]
    assert [(each["volume"], each["people"]) for each in choices] == [("neck", 1), ("twin", 1)]
    assert {each["threshold"] for each in choices} <= {0.02, 0.4}


def test_contrast_can_be_given_for_all_volumes(evaluate_phantom, tmp_path):
    file = tmp_path / "out.json"
    assert evaluate_phantom("--no-cord-free", "--contrast", "t2s", "--json", str(file)) == 0
    run = json.loads(file.read_text())["runs"][0]
    assert run["run"]["contrast"] == "t2s"
    assert run["volumes"][0]["contrast"] == "t2"


def test_list_names_volumes_and_stops(evaluate_phantom, capsys):
    assert evaluate_phantom("--list") == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["neck", "phantom-air-t1", "neck+air-upper"]
    assert evaluate_phantom("--list", "--volume", "neck+*") == 0
    assert capsys.readouterr().out.split()[0] == "neck+air-upper"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere: no such folder: name the folder with the volumes (--data DIR)"),
        (["--volume", "cat"], "no volume is called 'cat': tools/evaluate --list shows their names"),
        (["--models", "nowhere/pack"], "nowhere"),
        (["--contrast", "ct"], "'ct'"),
        (["--threshold", "2"], "between 0 and 1"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(evaluate_phantom, capsys, arguments, message):
    assert evaluate_phantom(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tools/evaluate: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.parametrize(
    "arguments", [["--thresholds", "0.1,x"], ["--thresholds", "1.5"], ["--worst", "0"], ["--kernel", "4d"]]
)
def test_wrong_options_are_refused_with_exit_code_2(evaluate_phantom, capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        evaluate_phantom(*arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_choices_are_those_that_the_options_allow():
    assert {"2d", "3d"} <= set(KERNELS)
    assert {"svm", "cnn", "reference"} <= set(CENTERLINES)
    assert "file" not in CENTERLINES
    for kernel in KERNELS:
        for centerline in CENTERLINES:
            assert Run(kernel=kernel, centerline=centerline).options("t2").kernel == kernel


# --- runs


def test_volume_in_which_no_cord_is_found_is_a_result(monkeypatch):
    monkeypatch.setattr("fastseg.segmenter.Segmenter.segment", _raise(CordNotFound("no cord: look")))
    (found,) = evaluate([_case()], Run(), _phantom)
    assert found.failure == "CordNotFound: no cord: look"
    assert found.dice == 0
    assert found.accuracy is None


def _raise(error):
    def segment(*_):
        raise error

    return segment


def test_error_that_is_not_ours_is_not_hidden(monkeypatch):
    monkeypatch.setattr("fastseg.segmenter.Segmenter.segment", _raise(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        list(evaluate([_case()], Run(), _phantom))


def _masked(monkeypatch, voxels):
    """Let every segmentation give this mask."""

    class Fake:
        mask = Volume(voxels, Grid(voxels.shape, np.eye(4)))

    monkeypatch.setattr("fastseg.segmenter.Segmenter.segment", lambda *_: Fake)


def _free_case(source):
    def make():
        return Volume(np.zeros((4, 4, 6)), Grid((4, 4, 6), np.eye(4))), np.arange(6) >= 4

    return CordFree("slab", "t2", make, source)


def test_alarms_are_counted_on_cord_free_slices_only(monkeypatch):
    voxels = np.zeros((4, 4, 6), np.uint8)
    voxels[1, 1, :5] = 1
    _masked(monkeypatch, voxels)
    reference = np.zeros((4, 4, 6), bool)
    reference[1, 1, 1:] = True
    reference[1, 1, 1] = False
    reference[3, 3, 1] = True
    given = Volume(reference, Grid((4, 4, 6), np.eye(4)))
    (found,) = evaluate_cord_free([_free_case(_case())], Run(), lambda case: (given, given))
    assert (found.slices, found.reported) == (2, 1)
    # Of slices 1, 2 and 3 the mask misses the cord on the first.
    assert found.found_percent == pytest.approx(200 / 3)
    assert not found.phantom


@pytest.mark.parametrize(
    ("source", "error", "slices"),
    [
        (None, CordNotFound("no cord"), 2),
        (None, InputError("constant"), 2),
        (_case(), CordNotFound("no cord"), 0),
        (_case(), InputError("constant"), 0),
    ],
)
def test_silence_is_right_for_a_phantom_and_no_merit_elsewhere(monkeypatch, source, error, slices):
    monkeypatch.setattr("fastseg.segmenter.Segmenter.segment", _raise(error))
    (found,) = evaluate_cord_free([_free_case(source)], Run(), _phantom)
    assert (found.slices, found.reported) == (slices, 0)
    assert found.failure == f"{type(error).__name__}: {error}"


# --- pictures


def _shown(tmp_path, worst):
    paths = worst.write(tmp_path / "pictures")
    return [path.name for path in paths], [np.asarray(Image.open(path).convert("RGB"), int) for path in paths]


def _panel(picture):
    """The image with the outlines, without caption and legend."""
    return picture[50 : 50 + 288, 14 + 288 + 6 : 14 + 2 * 288 + 6]


def _has(picture, colour):
    return bool((np.abs(picture - colour).sum(axis=2) < 40).any())


def test_worst_slices_come_first_and_are_numbered_as_in_the_file(tmp_path):
    image, reference = (each.reoriented(("R", "A", "I")) for each in _phantom())
    ours = np.array(reference.voxels, np.uint8)
    ours[:30, :, 1] = 0
    ours[..., 4] = 0
    worst = WorstSlices(2)
    worst(_case(), Run(), image, reference, Volume(ours, image.grid))
    names, pictures = _shown(tmp_path, worst)
    assert names == ["01-neck-2d-004.png", "02-neck-2d-001.png", "worst.png"]
    assert _has(_panel(pictures[0]), _BLUE)
    assert not _has(_panel(pictures[0]), _ORANGE)  # nothing of ours is there
    assert _has(_panel(pictures[1]), _ORANGE)
    assert pictures[2].shape[1] == 2 * pictures[0].shape[1]


def test_pictures_do_not_depend_on_the_orientation_of_the_file(tmp_path):
    image, reference = _phantom()
    ours = np.roll(np.array(reference.voxels, np.uint8), 2, axis=0)
    found = []
    for axcodes in (SCT_RPI, ("P", "S", "R")):
        worst = WorstSlices(1)
        mask = Volume(ours, image.grid)
        worst(_case(), Run(), *(each.reoriented(axcodes) for each in (image, reference, mask)))
        found.append(_shown(tmp_path, worst)[1][0])
    assert np.array_equal(*found)


def test_outlines_that_agree_are_white(tmp_path):
    image, reference = _phantom()
    worst = WorstSlices(1)
    worst(_case(), Run(), image, reference, Volume(np.array(reference.voxels, np.uint8), image.grid))
    (picture, _) = _shown(tmp_path, worst)[1]
    panel = _panel(picture)
    assert not _has(panel, _BLUE)
    assert not _has(panel, _ORANGE)
    assert (panel == 250).all(axis=2).sum() > 100


def test_one_volume_does_not_fill_all_pictures_where_that_is_limited(tmp_path):
    image, reference = _phantom()
    good = np.array(reference.voxels, np.uint8)
    worst = WorstSlices(3, per_volume=2)
    worst(_case("bad"), Run(), image, reference, Volume(np.roll(good, 3, axis=0), image.grid))
    worst(_case("good"), Run(), image, reference, Volume(good, image.grid))
    names, _ = _shown(tmp_path, worst)
    assert [name.split("-")[1] for name in names[:-1]] == ["bad", "bad", "good"]
