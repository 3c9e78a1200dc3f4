"""Which detector finds the centerline: the pack's first, and the other where that sees no cord."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg import locator
from fastseg.engines import select
from fastseg.errors import CordNotFound, OptionError
from fastseg.locator import Locator
from fastseg.options import Detector, Options
from fastseg.phantom import make_phantom
from fastseg.segmenter import Segmenter
from fastseg.volume import SCT_RPI
from tests.fake_engines import FakeEngine
from tests.unit.networks.stand_ins import own_pack

_IMAGE, _TRUTH = make_phantom("t2", n_slices=8)


def _no_cord(*_: object) -> Any:
    raise CordNotFound("HOG and SVM saw nothing")


def test_where_the_network_sees_no_cord_the_svm_finds_it_and_a_note_says_so(tmp_path: Path) -> None:
    pack = own_pack(tmp_path / "own", blind=True, centerline="cnn")
    with Segmenter(Options(), models=pack) as segmenter:
        assert segmenter.detector == "cnn"
        result = segmenter.segment(_IMAGE)
    assert result.detector == "svm"
    assert result.notes[0] == "the network saw no cord; the centerline is that of HOG + SVM: look at it"
    assert set(result.networks) == set(result.engines) == {"segment"}
    with Segmenter(Options(detector="svm"), models=pack) as segmenter:
        asked_for = segmenter.segment(_IMAGE)
    np.testing.assert_array_equal(result.centerline.points, asked_for.centerline.points)
    assert asked_for.notes == result.notes[1:]


@pytest.mark.parametrize(("slices", "confirmed"), [(3, False), (4, True)])
def test_a_centerline_of_the_second_detector_needs_cord_on_half_of_its_slices(
    slices: int, confirmed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HOG + SVM draws a curve through whatever it is given; the phantom has 8 slices."""

    def answer(batch: Any) -> Any:
        out = np.zeros_like(batch)
        if len(batch) == 8 and batch.shape[2:] == (64, 64):  # crops, not the detector's slices
            out[:slices, :, 24:40, 24:40] = 1
        return out

    monkeypatch.setattr(select, "make_engine", lambda *_, **__: FakeEngine(answer))
    pack = own_pack(tmp_path / "own", centerline="cnn")
    monkeypatch.setattr(locator, "locate_by_slices", _no_cord)
    with Segmenter(Options(), models=pack) as segmenter:
        if confirmed:
            assert segmenter.segment(_IMAGE).detector == "svm"
        else:
            with pytest.raises(CordNotFound, match="HOG and SVM saw nothing"):
                segmenter.segment(_IMAGE)


def test_where_the_first_detector_finds_the_cord_the_other_is_not_even_read(tmp_path: Path) -> None:
    pack = own_pack(tmp_path / "own", centerline="cnn")
    (pack / "auto_svm.npy").write_bytes(b"damaged")
    with Segmenter(Options(), models=pack) as segmenter:
        result = segmenter.segment(_IMAGE)
    assert (result.detector, result.notes) == ("cnn", ())
    assert result.networks["detect"][0] == "own/detect_slices"


def test_a_detector_that_is_asked_for_does_not_fall_back(tmp_path: Path) -> None:
    pack = own_pack(tmp_path / "own", blind=True)
    with Segmenter(Options(detector="cnn"), models=pack) as segmenter:
        for do in (segmenter.segment, segmenter.locate):
            with pytest.raises(CordNotFound, match="sees no spinal cord on any slice"):
                do(_IMAGE)


def test_without_another_detector_there_is_nothing_to_fall_back_on(tmp_path: Path) -> None:
    pack = own_pack(tmp_path / "own", blind=True, svm=False, centerline="svm")
    with (
        Segmenter(Options(), models=pack) as segmenter,
        pytest.raises(CordNotFound, match="sees no spinal cord on any slice"),
    ):
        segmenter.segment(_IMAGE)


def test_every_volume_is_first_given_to_the_first_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finds = iter([_no_cord, locator.locate_by_svm, _no_cord])
    monkeypatch.setattr(locator, "locate_by_svm", lambda *given: next(finds)(*given))
    with Segmenter(Options(), models=own_pack(tmp_path / "own", centerline="svm")) as segmenter:
        results = [segmenter.segment(_IMAGE) for _ in range(3)]
    assert [result.detector for result in results] == ["cnn", "svm", "cnn"]
    assert [sorted(result.networks) for result in results] == [
        ["detect", "segment"],
        ["segment"],
        ["detect", "segment"],
    ]
    assert results[0].notes[0] == (
        "HOG + SVM found no cord; the centerline is that of the network: look at it"
    )
    assert results[1].notes == results[0].notes[1:]


@pytest.mark.parametrize(
    ("first", "said"), [("svm", "HOG and SVM saw nothing"), ("cnn", "sees no spinal cord")]
)
def test_where_both_fail_the_first_ones_error_is_told(
    first: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locator, "locate_by_svm", _no_cord)
    pack = own_pack(tmp_path / "own", blind=True, centerline=first)
    with Segmenter(Options(), models=pack) as segmenter:
        for do in (segmenter.segment, segmenter.locate):
            with pytest.raises(CordNotFound, match=said):
                do(_IMAGE)


def test_the_svm_after_the_network_works_on_the_volume_as_it_is_when_it_only_locates(tmp_path: Path) -> None:
    pack = own_pack(tmp_path / "own", blind=True, centerline="cnn")
    lines = []
    detectors: tuple[Detector, ...] = ("auto", "svm")
    for detector in detectors:
        with Locator(Options(detector=detector), models=pack) as opened:
            lines.append(opened.locate(_IMAGE))
            found = opened.find(_IMAGE)
        assert found.detector == "svm"
        assert bool(found.notes) == (detector == "auto")
    assert lines[0].grid.same_space(_IMAGE.reoriented(SCT_RPI).grid)
    np.testing.assert_array_equal(lines[0].points, lines[1].points)


def test_a_given_centerline_is_not_overruled_by_a_detector(tmp_path: Path) -> None:
    with Segmenter(Options(), models=own_pack(tmp_path / "own")) as segmenter:
        for do in (segmenter.segment, segmenter.locate):
            with pytest.raises(OptionError, match="a centerline was given, but the detector is"):
                do(_IMAGE, _TRUTH)
