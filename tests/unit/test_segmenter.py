"""One volume through all steps, on phantoms: options, results, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.engines import select
from fastseg.engines.compute import Compute
from fastseg.errors import CordNotFound, InputError, NetworkError, OptionError
from fastseg.locator import Locator
from fastseg.networks.network import CONTRASTS, Role
from fastseg.networks.packs import find_pack
from fastseg.networks.sct import import_sct
from fastseg.options import Options
from fastseg.phantom import make_phantom
from fastseg.quirks import SCT_QUIRKS
from fastseg.segmenter import Segmentation, Segmenter
from fastseg.volume import SCT_RPI, Grid, Volume
from tests.fake_engines import FakeEngine
from tests.unit.networks.stand_ins import own_pack, sct_folder

_IMAGE, _TRUTH = make_phantom("t2", n_slices=8)


def _segment(image: Volume = _IMAGE, given: Volume | None = None, **options: Any) -> Segmentation:
    settings: dict[str, Any] = {"contrast": "t2", "detector": "auto" if given is None else "file"}
    with Segmenter(Options(**settings | options)) as segmenter:
        return segmenter.segment(image, given)


def _threshold(contrast: str) -> float:
    """The built-in 2D network's own."""
    return find_pack("default").network(Role.SEGMENT_2D, contrast).thresholds[contrast]


def _dice(a: Any, b: Any) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def _only(mask: Volume, *levels: int) -> Volume:
    voxels = np.zeros_like(mask.voxels)
    voxels[:, :, list(levels)] = mask.voxels[:, :, list(levels)]
    return Volume(voxels, mask.grid)


# Results ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_the_cord_of_a_phantom_is_found_in_every_contrast(contrast: str) -> None:
    image, truth = make_phantom(contrast, n_slices=6)
    result = _segment(image, contrast=contrast)
    # The built-in networks reach 0.9 on these phantoms; a step that goes wrong falls below 0.5.
    assert _dice(result.mask.voxels > 0, truth.voxels > 0) > 0.8


def test_a_result_lies_on_the_images_grid_and_says_what_was_done() -> None:
    result = _segment()
    assert result.mask.grid is _IMAGE.grid or result.mask.grid.same_space(_IMAGE.grid, 1e-9)
    assert result.mask.voxels.dtype == np.uint8
    assert set(np.unique(result.mask.voxels)) == {0, 1}
    assert (result.detector, result.threshold) == ("cnn", _threshold("t2"))
    assert set(result.engines) == set(result.networks) == {"detect", "segment"}
    assert all(len(digest) == 64 for _, digest in result.networks.values())
    steps = ["prepare", "centerline", "crop", "predict", "clean", "back", "quality"]
    assert list(result.seconds) == steps
    assert result.centerline.z.tolist() == list(range(8))


@pytest.mark.parametrize("axcodes", [("L", "P", "S"), ("P", "I", "R"), ("S", "R", "A"), ("A", "L", "S")])
def test_result_does_not_depend_on_the_orientation(axcodes: tuple[str, str, str]) -> None:
    turned = _segment(_IMAGE.reoriented(axcodes)).mask
    assert turned.grid.axcodes == axcodes
    np.testing.assert_array_equal(
        turned.reoriented(SCT_RPI).voxels, _segment().mask.reoriented(SCT_RPI).voxels
    )


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint64, np.float32, np.float64])
def test_result_does_not_depend_on_the_type_of_the_voxels(dtype: Any) -> None:
    image = Volume(_IMAGE.voxels.astype(dtype), _IMAGE.grid)
    np.testing.assert_array_equal(_segment(image).mask.voxels, _segment().mask.voxels)


def test_one_segmenter_gives_every_volume_its_own_result() -> None:
    other, _ = make_phantom("t2", n_slices=5, seed=3)
    with Segmenter(Options(contrast="t2")) as segmenter:
        first = segmenter.segment(_IMAGE).mask.voxels
        segmenter.segment(other)
        np.testing.assert_array_equal(segmenter.segment(_IMAGE).mask.voxels, first)


def test_threads_do_not_change_the_result() -> None:
    with Segmenter(Options(contrast="t2"), compute=Compute(threads=2)) as segmenter:
        np.testing.assert_array_equal(segmenter.segment(_IMAGE).mask.voxels, _segment().mask.voxels)


@pytest.mark.parametrize("n_slices", [1, 2])
@pytest.mark.parametrize("quirks", [{}, {"quirks": SCT_QUIRKS}])
def test_one_and_two_slices_are_enough(n_slices: int, quirks: Any) -> None:
    image, truth = make_phantom("t2", n_slices=n_slices)
    for given in (None, truth):
        found = _segment(image, given, **quirks).mask.voxels
        assert found.any(axis=(0, 1)).all()


def test_a_soft_result_holds_the_binary_one() -> None:
    soft = _segment(soft=True)
    assert soft.mask.voxels.dtype == np.float32
    assert 0 <= soft.mask.voxels.min() < soft.mask.voxels.max() <= 1
    # One object a slice without holes is kept, of the same probabilities; resampling them commutes with the
    # threshold but for voxels at the border.
    assert _dice(soft.mask.voxels > 0.5, _segment().mask.voxels > 0) > 0.97


def test_a_lower_threshold_gives_more_cord() -> None:
    low, high = (_segment(threshold=threshold) for threshold in (0.1, 0.9))
    assert (low.threshold, high.threshold) == (0.1, 0.9)
    assert low.mask.voxels.sum() > high.mask.voxels.sum()


def test_nan_and_inf_outside_the_neck_do_no_harm() -> None:
    voxels = _IMAGE.voxels.astype(np.float32)
    voxels[:3, :3] = np.nan
    voxels[-3:, -3:] = np.inf
    voxels[:3, -3:] = -np.inf
    found = _segment(Volume(voxels, _IMAGE.grid)).mask.voxels
    # The detector's brightest percentile is another one by a few voxels of 32768.
    assert _dice(found > 0, _segment().mask.voxels > 0) > 0.99


def test_nan_does_no_harm_in_any_memory_order() -> None:
    native = _IMAGE.reoriented(SCT_RPI)
    stack = np.ascontiguousarray(native.voxels.transpose(2, 0, 1), np.float32)
    stack[0, 0, 0] = np.nan
    assert _segment(Volume(stack.transpose(1, 2, 0), native.grid)).mask.voxels.any()


def test_doubles_beyond_float32_count_as_infinite_without_a_warning() -> None:
    voxels = _IMAGE.voxels.astype(np.float64)
    voxels[0, 0, 0] = 1e300
    assert _segment(Volume(voxels, _IMAGE.grid)).mask.voxels.any()


# A given centerline ----------------------------------------------------------------------------------------


def test_only_slices_with_a_given_centerline_are_segmented() -> None:
    result = _segment(given=_only(_TRUTH, 2, 3, 4))
    assert result.detector == "file"
    assert set(result.networks) == {"segment"}
    assert np.flatnonzero(result.mask.voxels.any(axis=(0, 1))).tolist() == [2, 3, 4]


def test_the_detector_file_needs_a_centerline_and_the_others_want_none() -> None:
    with pytest.raises(OptionError, match="no centerline was given"):
        _segment(detector="file")
    with Segmenter(Options(contrast="t2", detector="cnn")) as segmenter:
        for do in (segmenter.segment, segmenter.locate):
            with pytest.raises(OptionError, match="the detector is 'cnn'"):
                do(_IMAGE, _TRUTH)


def test_locating_gives_the_centerline_of_the_result() -> None:
    with Segmenter(Options(contrast="t2")) as segmenter:
        line = segmenter.locate(_IMAGE)
        np.testing.assert_array_equal(line.points, segmenter.segment(_IMAGE).centerline.points)


def test_a_centerline_of_another_place_or_of_nothing_is_refused() -> None:
    far = Volume(_TRUTH.voxels, Grid(_TRUTH.grid.shape, _TRUTH.grid.affine + np.diag([0, 0, 0, 0.0]) + 900))
    with pytest.raises(InputError, match="does not overlap"):
        _segment(given=far)
    with pytest.raises(CordNotFound, match="centerline is empty"):
        _segment(given=Volume(np.zeros_like(_TRUTH.voxels), _TRUTH.grid))


def test_who_gave_a_centerline_beside_the_cord_is_not_told_to_give_one() -> None:
    beside = Volume(np.roll(_TRUTH.voxels, 20, axis=0), _TRUTH.grid)
    voxels = np.full_like(_IMAGE.voxels, 100)
    voxels[0, 0, 0] = 0
    with pytest.raises(CordNotFound, match="along the given centerline; see whether it lies on the cord"):
        _segment(Volume(voxels, _IMAGE.grid), beside)


# Quirks ----------------------------------------------------------------------------------------------------


def test_a_gap_in_the_centerline_is_filled_unless_quirks_are_kept() -> None:
    gap = _only(_TRUTH, 0, 1, 2, 4, 5, 6, 7)
    mended, kept = _segment(given=gap), _segment(given=gap, quirks=SCT_QUIRKS)
    assert mended.mask.voxels[:, :, 3].any()
    assert not kept.mask.voxels[:, :, 3].any()
    assert mended.notes == ("filled the gap in slices 3 to 3",)
    assert kept.notes == ("gap in slices 3 to 3 left as it is",)


def test_slices_without_centerline_change_the_others_only_when_quirks_are_kept() -> None:
    part = _only(_TRUTH, 6, 7)
    short, its_truth = _part(_IMAGE, 6), _part(_TRUTH, 6)
    np.testing.assert_array_equal(
        _segment(given=part).mask.voxels[:, :, 6:], _segment(short, its_truth).mask.voxels
    )
    kept = _segment(given=part, soft=True, quirks=SCT_QUIRKS).mask.voxels[:, :, 6:]
    assert (kept != _segment(short, its_truth, soft=True, quirks=SCT_QUIRKS).mask.voxels).any()


def _part(volume: Volume, first: int) -> Volume:
    affine = volume.grid.affine.copy()
    affine[:3, 3] = (affine @ [0, 0, first, 1])[:3]
    voxels = volume.voxels[:, :, first:]
    return Volume(voxels, Grid(voxels.shape, affine))  # type: ignore[arg-type]


def test_nan_inside_a_crop_empties_the_result_only_when_quirks_are_kept() -> None:
    voxels = _IMAGE.voxels.astype(np.float32)
    x, y, z = np.argwhere(_TRUTH.voxels)[0]
    voxels[x + 5, y, z] = np.nan
    image = Volume(voxels, _IMAGE.grid)
    assert _dice(_segment(image, _TRUTH).mask.voxels > 0, _TRUTH.voxels > 0) > 0.8
    with pytest.raises(CordNotFound):
        _segment(image, _TRUTH, quirks=SCT_QUIRKS)


def test_a_constant_volume_has_a_soft_result_only_when_quirks_are_kept() -> None:
    flat = Volume(np.zeros_like(_IMAGE.voxels), _IMAGE.grid)
    with pytest.raises(InputError, match="every voxel has the value 0"):
        _segment(flat, _TRUTH)
    kept = _segment(flat, _TRUTH, soft=True, quirks=SCT_QUIRKS)
    assert kept.mask.voxels.shape == flat.voxels.shape


def test_a_centerline_above_the_image_is_an_error_when_quirks_are_kept() -> None:
    short = Volume(_IMAGE.voxels[:, :, :4], Grid((64, 64, 4), _IMAGE.grid.affine))
    with pytest.raises((CordNotFound, InputError)):
        _segment(short, _only(_TRUTH, 6, 7), quirks=SCT_QUIRKS)


# Options and packs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrast": "t3"}, "contrast 't3': choose one of auto, t1, t2, t2s, dwi"),
        ({"contrast": "t2", "kernel": "4d"}, "kernel '4d': choose 2d, 2d-light or 3d"),
        ({"contrast": "t2", "detector": "viewer"}, "centerline 'viewer': choose auto, svm, cnn or file"),
        ({"contrast": "t2", "threshold": 1.01}, "threshold 1.01: must lie between 0 and 1"),
        ({"contrast": "t2", "threshold": -1.0}, "threshold -1: must lie between 0 and 1"),
        ({"contrast": "t2", "threshold": float("nan")}, "threshold nan"),
        ({"contrast": "t2", "detector": "svm", "brain": True}, "brain is for the cnn detector only"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Options(**options)


def test_a_closed_segmenter_says_so() -> None:
    segmenter = Segmenter(Options(contrast="t2"))
    for _ in range(2):  # before it is opened, and after it was closed
        for do in (segmenter.segment, segmenter.locate):
            with pytest.raises(OptionError, match="the Segmenter is closed: use it in a with block"):
                do(_IMAGE)
        with segmenter:
            assert segmenter.segment(_IMAGE).mask.voxels.any()


def test_a_pack_that_is_missing_or_lacks_a_network_is_an_error(tmp_path: Path) -> None:
    scarce = own_pack(tmp_path / "scarce", svm=False, roles=("detect_slices", "segment_2d"))
    with pytest.raises(NetworkError, match="no-such-pack"):
        Segmenter(Options(contrast="t2"), models="no-such-pack")
    for options, lacks in (
        ({"kernel": "3d"}, "segment_3d"),
        ({"kernel": "2d-light"}, "segment_2d_light"),
        ({"detector": "svm"}, "SVM"),
        ({"detector": "svm", "contrast": "auto"}, "SVM for any contrast"),
    ):
        segmenter = Segmenter(Options(**{"contrast": "t2"} | options), models=scarce)  # type: ignore[arg-type]
        with pytest.raises(NetworkError, match=f"has no {lacks}"), segmenter:
            pass


@pytest.fixture
def svm_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTSEG_PACKS", str(tmp_path / "packs"))
    return import_sct(sct_folder(tmp_path / "sct"), "stand-ins").pack.folder


def test_the_svm_is_the_default_where_the_pack_has_one(svm_pack: Path) -> None:
    with Segmenter(Options(contrast="t2"), models=svm_pack) as segmenter:
        assert segmenter.detector == "svm"
        assert len(segmenter.locate(_IMAGE).points) == 8


@pytest.mark.parametrize("detector", ["svm", "cnn", "file"])
@pytest.mark.parametrize("kernel", ["2d", "3d"])
def test_every_pair_of_detector_and_kernel_runs(detector: Any, kernel: Any, svm_pack: Path) -> None:
    """Stand-ins answer 0.5 to black and 1 to everything else: the mask is large, but it is one."""
    options = Options(contrast="t2", detector=detector, kernel=kernel)
    with Segmenter(options, models=svm_pack) as segmenter:
        result = segmenter.segment(_IMAGE, _TRUTH if detector == "file" else None)
    assert result.mask.voxels.any()
    assert result.detector == detector


def test_a_closed_segmenter_with_an_svm_says_so_too(svm_pack: Path) -> None:
    segmenter = Segmenter(Options(contrast="t2", detector="svm"), models=svm_pack)
    with pytest.raises(OptionError, match="the Segmenter is closed"):
        segmenter.locate(_IMAGE)


# Any contrast, other kernels -------------------------------------------------------------------------------


def test_no_contrast_is_needed_with_the_built_in_pack() -> None:
    with Segmenter(Options()) as segmenter:
        result = segmenter.segment(_IMAGE)
    same = _segment(threshold=_threshold("auto"))
    np.testing.assert_array_equal(result.mask.voxels, same.mask.voxels)
    assert (result.detector, result.threshold, result.notes) == ("cnn", _threshold("auto"), ())


def test_a_given_contrast_selects_its_threshold(tmp_path: Path) -> None:
    pack = own_pack(tmp_path / "own", contrasts=("t2", "dwi", "auto"))
    for contrast, threshold in (("t2", 0.6), ("dwi", 0.61), ("auto", 0.62)):
        with Segmenter(Options(contrast=contrast), models=pack) as segmenter:
            assert segmenter.threshold == threshold


def test_a_contrast_that_was_not_given_cannot_be_wrong() -> None:
    image, _ = make_phantom("t2", n_slices=6)
    assert "brighter than the cord" in _segment(image, contrast="t1").notes[0]
    assert _segment(image, contrast="auto").notes == ()


@pytest.mark.parametrize("options", [{}, {"kernel": "3d"}, {"detector": "cnn"}, {"detector": "svm"}])
def test_a_pack_that_needs_a_contrast_says_how_to_give_it(svm_pack: Path, options: Any) -> None:
    with pytest.raises(
        NetworkError, match=r"'stand-ins' needs to know the contrast .* -c, one of t1"
    ) as caught:
        Segmenter(Options(**options), models=svm_pack).__enter__()
    assert "\n" not in str(caught.value)


def test_a_network_for_any_contrast_is_no_use_without_a_detector_for_it(tmp_path: Path) -> None:
    folder = own_pack(tmp_path / "own", svm=False)
    text = (folder / "pack.toml").read_text()
    first, rest = text.split("[[network]]", 2)[1:]  # the detector, and all others
    detector = first.replace('"t2", "auto"', '"t2"')
    head = text.split("[[network]]")[0]
    (folder / "pack.toml").write_text(f"{head}[[network]]{detector}[[network]]{rest}")
    with pytest.raises(NetworkError, match="needs to know the contrast for its detect_slices network"):
        Segmenter(Options(), models=folder).__enter__()


@pytest.mark.parametrize("kernel", ["2d", "2d-light", "3d"])
@pytest.mark.parametrize("quirks", [{}, {"quirks": SCT_QUIRKS}])
def test_every_kernel_runs_its_own_network(kernel: Any, quirks: Any, tmp_path: Path) -> None:
    roles = {"2d": "segment_2d", "2d-light": "segment_2d_light", "3d": "segment_3d"}
    options = Options(kernel=kernel, **quirks)
    with Segmenter(options, models=own_pack(tmp_path / "own")) as segmenter:
        result = segmenter.segment(_IMAGE)
    assert result.networks["segment"][0] == f"own/{roles[kernel]}"
    assert result.mask.voxels.any()


@pytest.mark.parametrize("kernel", ["2d", "2d-light"])
def test_every_2d_network_is_asked_about_an_empty_slice_when_quirks_are_kept(
    kernel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(lambda batch: batch / 255)
    monkeypatch.setattr(select, "make_engine", lambda *_, **__: engine)
    options = Options(kernel=kernel, detector="file", threshold=0.1, quirks=SCT_QUIRKS)
    with Segmenter(options, models=own_pack(tmp_path / "own")) as segmenter:
        segmenter.segment(_IMAGE, _TRUTH)
    assert [len(batch) for batch in engine.batches] == [8 + 1]


@pytest.mark.parametrize(
    ("detector", "said"),
    [
        ("auto", "its SVM: give it with -c, one of t1, t2, t2s, dwi"),
        ("svm", "its SVM"),
        ("cnn", "its detect_blocks"),
    ],
)
def test_a_locator_whose_pack_needs_a_contrast_says_so_too(svm_pack: Path, detector: Any, said: str) -> None:
    with pytest.raises(NetworkError, match=f"needs to know the contrast for {said}"):
        Locator(Options(detector=detector), models=svm_pack).__enter__()
