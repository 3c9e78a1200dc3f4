"""BIDS data sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastseg import __version__
from fastseg.cohort.plan.bids import dataset_description, index_bids
from fastseg.errors import InputError, OptionError
from tests.unit.cohort.trees import locked, touch


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    root = tmp_path / "bids"
    touch(
        root, "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T2w.nii.gz", "sub-01/anat/sub-01_T2w.json"
    )
    touch(root, "sub-01/dwi/sub-01_dwi.nii.gz", "sub-01/anat/sub-01_PDw.nii.gz")
    touch(root, "sub-02/ses-a/anat/sub-02_ses-a_T2w.nii", "sub-02/ses-b/anat/sub-02_ses-b_T2star.nii.gz")
    touch(
        root, "derivatives/labels/sub-01/anat/sub-01_T2w.nii.gz", "sourcedata/sub-01/anat/sub-01_T2w.nii.gz"
    )
    touch(root, ".git/sub-01/anat/sub-01_T2w.nii.gz", "sub-01/.hidden/sub-01_T2w.nii.gz", "sub-03.txt")
    touch(root, "sub-01/anat/sub-01_label-SC_desc-T2w_mask.nii.gz", "code/sub-9_T2w.nii.gz")
    (root / "dataset_description.json").write_text('{"Name": "Cords", "BIDSVersion": "1.8.0"}')
    return root


def _found(root: Path, **chosen: tuple[str, ...]) -> dict[str, list[str]]:
    index = index_bids(root, **chosen)
    return {suffix: [each.name for each in found] for suffix, found in index.volumes.items() if found}


def test_anatomical_volumes_of_participants_are_taken(data_set: Path) -> None:
    assert _found(data_set) == {
        "T1w": ["sub-01/anat/sub-01_T1w.nii.gz"],
        "T2w": ["sub-01/anat/sub-01_T2w.nii.gz", "sub-02/ses-a/anat/sub-02_ses-a_T2w.nii"],
        "T2star": ["sub-02/ses-b/anat/sub-02_ses-b_T2star.nii.gz"],
    }
    assert index_bids(data_set).remarks == []


def test_suffixes_are_those_that_are_asked_for(data_set: Path) -> None:
    assert _found(data_set, suffixes=("dwi", "PDw")) == {
        "dwi": ["sub-01/dwi/sub-01_dwi.nii.gz"],
        "PDw": ["sub-01/anat/sub-01_PDw.nii.gz"],
    }


@pytest.mark.parametrize("label", ["02", "sub-02"])
def test_participants_with_or_without_sub(data_set: Path, label: str) -> None:
    assert list(_found(data_set, participants=(label,))) == ["T2w", "T2star"]


@pytest.mark.parametrize("label", ["b", "ses-b"])
def test_sessions_with_or_without_ses(data_set: Path, label: str) -> None:
    assert _found(data_set, sessions=(label,)) == {"T2star": ["sub-02/ses-b/anat/sub-02_ses-b_T2star.nii.gz"]}


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"participants": ("02", "07")}, "participant sub-07: none is in .*; there are sub-01, sub-02"),
        ({"sessions": ("c",)}, "session ses-c: none is in .*; there are ses-a, ses-b"),
        ({"participants": ("01",), "sessions": ("a",)}, "session ses-a: none is in the participants"),
        ({"suffixes": ("T2w", "UNIT1")}, "suffix UNIT1: none is in what was chosen"),
    ],
)
def test_a_label_that_is_nowhere_is_an_error_that_names_it(
    data_set: Path, chosen: dict[str, tuple[str, ...]], said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        index_bids(data_set, **chosen)


def test_what_is_no_folder_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no BIDS data set can be read there"):
        index_bids(tmp_path / "none")


def test_a_folder_without_participants_is_remarked(tmp_path: Path) -> None:
    assert index_bids(tmp_path).remarks == [f"{tmp_path}: has no folder sub-*; is it a BIDS data set?"]


def test_a_missing_description_is_a_remark(data_set: Path) -> None:
    (data_set / "dataset_description.json").unlink()
    assert index_bids(data_set).remarks == [
        f"{data_set}: has no dataset_description.json, which BIDS asks for"
    ]


def test_volumes_named_after_another_participant_are_left_out_and_told(data_set: Path) -> None:
    touch(data_set, "sub-01/anat/sub-011_T2w.nii.gz", "sub-01/anat/T2w.nii.gz")
    index = index_bids(data_set)
    assert index.remarks == [
        "2 volumes are not named after their participant and were left out: sub-01/anat/T2w.nii.gz, ..."
    ]
    assert len(index.volumes["T2w"]) == 2


def test_unreadable_folders_are_told_at_every_level(data_set: Path) -> None:
    for name in ("sub-02", "sub-02/ses-a", "sub-02/ses-a/anat"):
        with locked(data_set / name):
            index = index_bids(data_set)
        assert [refused.name for refused in index.unreadable] == [name]
        assert len(index.volumes["T2w"]) == 1


def test_links_are_volumes_of_their_own_as_datalad_has_them(tmp_path: Path) -> None:
    touch(tmp_path, "annex/content.nii.gz")
    for name in ("sub-1/anat/sub-1_T2w.nii.gz", "sub-2/anat/sub-2_T2w.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).symlink_to("../../annex/content.nii.gz")
    found = index_bids(tmp_path).volumes["T2w"]
    assert {each.real for each in found} == {str(tmp_path.resolve() / "annex/content.nii.gz")}
    assert len(found) == 2


def test_links_that_lead_in_circles_are_not_walked(data_set: Path) -> None:
    (data_set / "sub-99").symlink_to("sub-99")
    (data_set / "sub-01" / "loop").symlink_to("..")
    assert len(_found(data_set)["T2w"]) == 2


def test_the_description_of_the_results(data_set: Path) -> None:
    assert dataset_description(data_set, data_set / "derivatives" / "fastseg") == {
        "Name": "fastseg of Cords",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "fastseg", "Version": __version__}],
        "SourceDatasets": [{"URL": "../.."}],
    }


def test_the_description_names_the_source_by_doi_and_a_valid_url(tmp_path: Path) -> None:
    source = touch(tmp_path / "my cords", "README")
    (source / "dataset_description.json").write_text(json.dumps({"DatasetDOI": "doi:10.18112/x"}))
    described = dataset_description(source, tmp_path / "out")
    assert described["Name"] == "fastseg"
    assert described["SourceDatasets"] == [{"URL": "../my%20cords", "DOI": "doi:10.18112/x"}]


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe", b'{"Name": 7}', b"[" * 100_000])
def test_a_broken_description_of_the_source_does_not_matter(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dataset_description.json").write_bytes(content)
    assert dataset_description(tmp_path, tmp_path / "out")["Name"] == "fastseg"


def test_a_real_data_set_is_indexed(shared: Path) -> None:
    found = _found(shared / "data")
    assert "sub-gm9604/anat/sub-gm9604_T2star.nii.gz" in found["T2star"]
