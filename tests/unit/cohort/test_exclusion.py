"""What the user excludes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from fastseg.cohort.plan.exclusion import Exclusions
from fastseg.errors import InputError

_NAMES = (
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-01/anat/sub-01_acq-bad_T2w.nii.gz",
    "sub-02/ses-a/anat/sub-02_ses-a_T2w.nii.gz",
    "sub-02/ses-b/anat/sub-02_ses-b_T2w.nii.gz",
    "sub-011/anat/sub-011_T2w.nii.gz",
)


def _met(excluded: Exclusions) -> list[int]:
    return [index for index, name in enumerate(_NAMES) if excluded.reason(name)]


@pytest.mark.parametrize(
    ("word", "met"),
    [
        ("sub-01", [0, 1]),
        ("01", [0, 1]),
        ("sub-02/ses-b", [3]),
        ("02/b", [3]),
        ("sub-02/", [2, 3]),
        ("ses-a", []),
        ("*_acq-bad_*", [1]),
        ("*_T2w.nii.gz", [1, 2, 3, 4]),
        ("sub-01*", [0, 1, 4]),
        ("sub-02/*/*ses-[ab]_T2w", [2, 3]),
        ("sub-011_T2w.nii.gz", [4]),
        ("sub-011_T2w.nii", [4]),
        ("sub-011_T2w", [4]),
        ("sub-01/anat/sub-01_T1w.nii.gz", [0]),
        ("./sub-01/anat/sub-01_T1w.nii.gz", [0]),
        ("anat/sub-01_T1w.nii.gz", []),
    ],
)
def test_what_a_word_excludes(word: str, met: list[int]) -> None:
    excluded = Exclusions([word])
    assert _met(excluded) == met
    assert excluded.unmet() == ([] if met else [f"--exclude: no volume is excluded by {word!r}"])


def test_a_participant_is_known_by_the_file_name_alone() -> None:
    assert Exclusions(["sub-02/ses-a"]).reason("sub-02_ses-a_T2w.nii.gz")
    assert not Exclusions(["sub-02/ses-a"]).reason("sub-02_ses-b_T2w.nii.gz")


def test_a_folder_is_excluded_with_its_participant() -> None:
    assert Exclusions(["sub-02"]).reason("sub-02/")
    assert Exclusions(["sub-02"]).reason("sub-02/ses-a/")
    assert not Exclusions(["sub-02"]).reason("sub-01/")


def test_nothing_is_excluded_by_nothing() -> None:
    assert _met(Exclusions()) == []


def test_a_list_has_one_entry_a_line(tmp_path: Path) -> None:
    lines = b"\xef\xbb\xbf# failed\n\nsub-01  # moved\r\n*ses-b*\nsub-77\nlatin-\xe9.nii\n"
    (tmp_path / "bad.txt").write_bytes(lines)
    excluded = Exclusions([str(tmp_path / "bad.txt")])
    assert _met(excluded) == [0, 1, 3]
    assert excluded.reason(_NAMES[0]) == "excluded by 'sub-01' (bad.txt)"
    assert excluded.reason(os.fsdecode(b"latin-\xe9.nii"))
    assert excluded.unmet() == ["bad.txt: no volume is excluded by 'sub-77'"]


def test_the_name_of_a_volume_is_no_list_also_where_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sub-011_T2w.nii.gz").write_text("no list")
    assert _met(Exclusions(["sub-011_T2w.nii.gz"])) == [4]


@pytest.mark.parametrize(
    "text",
    [
        "FILES_SEG:\n- sub-01_T1w.nii.gz\n- sub-02_ses-a_T2w.nii.gz\n",
        "FILES_SEG: [sub-01_T1w.nii.gz]\nFILES_CSA:\n  - 'sub-02_ses-a_T2w.nii.gz'\nFILES_PMJ:\n",
        "- sub-01_T1w.nii.gz\n- sub-02/ses-a\n",
        "FILES_SEG: []\nFILES_GMSEG: null\nOTHER: ['sub-01_T1w.nii.gz', '*ses-a*']\n",
    ],
)
def test_qc_fail_of_sct(tmp_path: Path, text: str) -> None:
    (tmp_path / "qc_fail.yml").write_text(text)
    assert _met(Exclusions(yml=[tmp_path / "qc_fail.yml"])) == [0, 2]
    assert _met(Exclusions([str(tmp_path / "qc_fail.yml")])) == [0, 2]


def test_the_reason_tells_the_key_of_the_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "qc_fail.yml").write_text("FILES_SEG:\n- sub-01_T1w.nii.gz\n- gone.nii\n")
    excluded = Exclusions(yml=[tmp_path / "qc_fail.yml"])
    assert excluded.reason(_NAMES[0]) == "excluded by 'sub-01_T1w.nii.gz' (FILES_SEG of qc_fail.yml)"
    assert excluded.unmet() == ["FILES_SEG of qc_fail.yml: no volume is excluded by 'gone.nii'"]


def test_participants_in_yaml_keep_their_zeros(tmp_path: Path) -> None:
    (tmp_path / "bad.yml").write_text("- 01\n")
    assert _met(Exclusions(yml=[tmp_path / "bad.yml"])) == [0, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"FILES_SEG:\n- a.nii\n  - b: [\n", r"bad.yml line \d: is no YAML"),
        (b"FILES_SEG: a.nii\n", "bad.yml line 1: is no list of image file names"),
        (b"FILES_SEG:\n- a.nii\n- {b: c}\n", "bad.yml line 3: is no list"),
        (b"just text\n", "bad.yml line 1: is no list"),
        (b"FILES_SEG:\n- \n", "bad.yml line 2: is no list"),
        (b"\xff\xff\xff", "is no YAML text in UTF-8"),
        (b"[" * 5000, "is no YAML"),
    ],
)
def test_a_broken_yaml_file_is_told_with_its_line(tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "bad.yml").write_bytes(text)
    with pytest.raises(InputError, match=said) as caught:
        Exclusions(yml=[tmp_path / "bad.yml"])
    assert "\n" not in str(caught.value)


def test_a_missing_yaml_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'no.yml'}: cannot be read")):
        Exclusions(yml=[tmp_path / "no.yml"])


def test_an_empty_yaml_file_excludes_nothing(tmp_path: Path) -> None:
    (tmp_path / "qc_fail.yml").touch()
    assert _met(Exclusions(yml=[tmp_path / "qc_fail.yml"])) == []


def test_many_idle_entries_are_counted() -> None:
    excluded = Exclusions([f"x{n}" for n in range(5)])
    assert excluded.unmet() == ["--exclude: no volume is excluded by 'x0', 'x1', 'x2' and 2 more"]


# --- what the QC page marked


def _flags(folder: Path, marks: list[tuple[str, str]]) -> Path:
    path = folder / "qc_flags.json"
    path.write_text(
        json.dumps({"version": 1, "marks": [{"id": "0" * 16, "name": name, "qc": qc} for name, qc in marks]})
    )
    return path


def test_what_the_qc_page_marked_as_useless_is_excluded(tmp_path: Path) -> None:
    marks = [(_NAMES[0], "Fail"), (_NAMES[1], "Pass"), (_NAMES[2], "Artifact"), (_NAMES[3], "")]
    path = _flags(tmp_path, marks)
    for excluded in (Exclusions(yml=[path]), Exclusions([str(path)])):
        assert _met(excluded) == [0, 2]
        assert excluded.reason(_NAMES[0]) == f"excluded by {_NAMES[0]!r} (Fail in qc_flags.json)"
        assert excluded.reason(_NAMES[2]) == f"excluded by {_NAMES[2]!r} (Artifact in qc_flags.json)"
        assert excluded.unmet() == []


def test_marked_volumes_are_meant_by_exactly_their_names(tmp_path: Path) -> None:
    excluded = Exclusions(yml=[_flags(tmp_path, [("a/t2*.nii", "Fail"), ("sub-[02]/x.nii", "Fail")])])
    assert excluded.reason("a/t2*.nii")
    assert not excluded.reason("a/t2b.nii")
    assert not excluded.reason("b/t2*.nii")
    assert excluded.reason("sub-[02]/x.nii")
    assert not excluded.reason("sub-0/x.nii")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[" * 5000, "is no JSON"),
        ("[]", "is no qc_flags.json"),
        ('{"marks": 3}', "is no qc_flags.json"),
        ('{"marks": ["a.nii"]}', "is no qc_flags.json"),
    ],
)
def test_broken_marks_are_told(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "qc_flags.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        Exclusions(yml=[path])
    assert "\n" not in str(caught.value)


def test_missing_marks_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.json: cannot be read"):
        Exclusions(yml=[tmp_path / "no.json"])


_HOSTILE = (
    "brain 🧠.nii.gz",
    "a: b #c.nii",
    'quote".nii',
    "<script>.nii.gz",
    "q[1]*?.nii",
    "bytes-\udce9.nii",
)


@pytest.mark.parametrize("name", _HOSTILE)
def test_names_that_are_written_as_in_json_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "qc_fail.yml"
    path.write_text(f"FILES_SEG:\n- {json.dumps(name)}\n")
    excluded = Exclusions(yml=[path])
    assert excluded.reason(f"sub-01/{name}")
    assert not excluded.reason("other.nii")
