"""Names of results in data sets."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from fastseg.cohort.plan.naming import Scheme, name_outputs
from fastseg.errors import OptionError
from fastseg.outputs import Kind, is_result_name

_KINDS: tuple[Kind, ...] = ("mask", "sidecar", "centerline", "overlay", "csa")


@pytest.mark.parametrize(
    ("scheme", "soft", "names"),
    [
        (
            "sct",
            False,
            ("T2w_seg.nii.gz", "T2w_seg.json", "T2w_centerline.nii.gz", "T2w_overlay.png", "T2w_csa.tsv"),
        ),
        (
            "neuropoly",
            True,
            (
                "T2w_label-SC_softseg.nii.gz",
                "T2w_label-SC_softseg.json",
                "T2w_label-SC_centerline.nii.gz",
                "T2w_label-SC_overlay.png",
                "T2w_label-SC_csa.tsv",
            ),
        ),
        (
            "bids",
            True,
            (
                "label-SC_desc-T2w_probseg.nii.gz",
                "label-SC_desc-T2w_probseg.json",
                "label-centerline_desc-T2w_mask.nii.gz",
                "label-SC_desc-T2w_overlay.png",
                "label-SC_desc-T2w_csa.tsv",
            ),
        ),
    ],
)
def test_names_of_all_kinds(scheme: Scheme, soft: bool, names: tuple[str, ...]) -> None:
    outputs = name_outputs(scheme, Path("out"), "sub-1_acq-a_run-2_T2w", soft=soft)
    assert outputs.names(_KINDS) == [f"sub-1_acq-a_run-2_{name}" for name in names]
    assert outputs.of_kinds(_KINDS) == [Path("out") / name for name in outputs.names(_KINDS)]
    assert [getattr(outputs, kind) for kind in _KINDS] == outputs.of_kinds(_KINDS)


@pytest.mark.parametrize(
    ("scheme", "mask", "soft"),
    [
        ("sct", "seg", "softseg"),
        ("neuropoly", "label-SC_seg", "label-SC_softseg"),
        ("bids", "label-SC_desc-T2w_mask", "label-SC_desc-T2w_probseg"),
    ],
)
def test_masks_and_soft_results_may_lie_side_by_side(scheme: Scheme, mask: str, soft: str) -> None:
    for is_soft, name in ((False, mask), (True, soft)):
        outputs = name_outputs(scheme, Path(), "sub-1_T2w", soft=is_soft)
        assert outputs.mask.name.endswith(f"_{name}.nii.gz")
        assert outputs.sidecar.name.endswith(f"_{name}.json")


def test_strict_names_of_two_contrasts_differ() -> None:
    stems = ("sub-1_T1w", "sub-1_T2w", "sub-1_desc-preproc_T2w", "sub-1_label-a_T2w")
    assert len({name_outputs("bids", Path(), stem).mask for stem in stems}) == len(stems)


@pytest.mark.parametrize("stem", ["t2", "sub-1", "sub-1_", "T2w_sub-1", "sub-1_odd_T2w"])
def test_strict_names_are_made_of_bids_names_only(stem: str) -> None:
    with pytest.raises(OptionError, match="no BIDS name"):
        name_outputs("bids", Path(), stem)


@pytest.mark.parametrize("scheme", ["sct", "neuropoly", "bids"])
def test_no_result_is_taken_for_an_input(scheme: Scheme) -> None:
    for soft in (False, True):
        outputs = name_outputs(scheme, Path(), "sub-1_T2w", soft=soft)
        assert is_result_name(outputs.mask)
        assert is_result_name(outputs.centerline)


def test_outputs_travel_to_other_processes() -> None:
    outputs = name_outputs("bids", Path("out"), "sub-1_T2w")
    assert pickle.loads(pickle.dumps(outputs)) == outputs
