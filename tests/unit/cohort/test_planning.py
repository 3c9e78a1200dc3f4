"""From the words of a command line to jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastseg.cohort.plan.naming import Scheme
from fastseg.cohort.plan.planning import Plan, Selection, Wanted, plan
from fastseg.errors import FastsegError, InputError, OptionError, OutputError
from fastseg.options import Options
from tests.unit.cohort.trees import locked, touch

_WANTED = Wanted(Options(), kinds=("mask", "sidecar"))
_BIDS = (
    "sub-1/anat/sub-1_T1w.nii.gz",
    "sub-1/anat/sub-1_T2w.nii.gz",
    "sub-2/ses-a/anat/sub-2_ses-a_T2w.nii.gz",
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def bids(here: Path) -> Path:
    touch(here / "bids", *_BIDS, "dataset_description.json")
    return here / "bids"


def _names(planned: Plan) -> list[str]:
    return [job.name for job in planned.jobs]


def _masks(planned: Plan) -> list[str]:
    return [job.outputs.mask.as_posix() for job in planned.jobs]


def test_one_file(here: Path) -> None:
    planned = plan(["in/t2.nii"], None, _WANTED)
    (job,) = planned.jobs
    assert (planned.form, planned.root, planned.out) == ("file", here / "in", Path())
    assert (job.name, job.source, job.outputs.mask) == ("t2.nii", Path("in/t2.nii"), Path("t2_seg.nii.gz"))


def test_one_file_to_one_file() -> None:
    planned = plan(["in/t2.nii"], Path("out/mask.nii"), _WANTED)
    assert (planned.out, _masks(planned)) == (Path("out"), ["out/mask.nii"])
    assert planned.jobs[0].outputs.sidecar == Path("out/mask.json")


def test_files_go_into_the_output_folder_and_are_named_from_what_holds_all(here: Path) -> None:
    planned = plan(["in/x/a.nii", here / "in/y/z/b.nii"], Path("out"), _WANTED)
    assert (planned.form, planned.root) == ("files", here / "in")
    assert _names(planned) == ["x/a.nii", "y/z/b.nii"]
    assert _masks(planned) == ["out/a_seg.nii.gz", "out/b_seg.nii.gz"]


def test_volumes_keep_their_place_below_the_folder(here: Path) -> None:
    touch(here, "in/x/t2.nii", "in/y/t2.nii", "in/t2.nii")
    planned = plan(["in"], Path("out"), _WANTED)
    assert (planned.form, planned.root) == ("files", here / "in")
    assert _names(planned) == ["t2.nii", "x/t2.nii", "y/t2.nii"]
    assert _masks(planned) == ["out/t2_seg.nii.gz", "out/x/t2_seg.nii.gz", "out/y/t2_seg.nii.gz"]


def test_patterns_that_the_shell_left_alone(here: Path) -> None:
    touch(here, "in/s-1/anat/a.nii", "in/s-2/anat/a.nii", "in/s-2/dwi/a.nii")
    planned = plan(["in/**/anat/*.nii"], Path("out"), _WANTED)
    assert (planned.root, _names(planned)) == (here / "in", ["s-1/anat/a.nii", "s-2/anat/a.nii"])
    assert _masks(planned)[0] == "out/s-1/anat/a_seg.nii.gz"
    with pytest.raises(InputError, match=r"in/\*_T1w.nii: matches no"):
        plan(["in/*_T1w.nii"], None, _WANTED)


def test_a_volume_that_is_named_twice_is_taken_once(here: Path) -> None:
    touch(here, "in/a.nii", "in/deep/b.nii")
    (here / "link.nii").symlink_to("in/a.nii")
    planned = plan(["in/a.nii", "in", "in/deep", "link.nii", "in/../in/a.nii"], Path("out"), _WANTED)
    assert [str(job.source) for job in planned.jobs] == ["in/a.nii", "in/deep/b.nii"]
    assert len(set(_names(planned))) == 2


def test_folders_without_volumes_and_links_to_other_volumes_are_remarked(here: Path) -> None:
    touch(here, "in/a.nii", "empty/notes.txt")
    (here / "in" / "b.nii").symlink_to("a.nii")
    planned = plan(["in", "empty"], Path("out"), _WANTED)
    assert planned.remarks == (
        "in: 1 volume left out, being links to others: b.nii",
        "empty: holds no .nii or .nii.gz volume",
    )


def test_nothing_found_is_a_plan_without_jobs(here: Path) -> None:
    touch(here, "empty/notes.txt", "empty.tsv")
    assert plan(["empty"], None, _WANTED).jobs == []
    (here / "empty.tsv").write_text("input\n")
    assert plan(["empty.tsv"], None, _WANTED) == Plan([], here, Path(), "list")


def test_a_folder_called_like_a_volume_is_a_job_that_will_be_told(here: Path) -> None:
    (here / "a.nii.gz").mkdir()
    assert _names(plan(["a.nii.gz"], Path("out"), _WANTED)) == ["a.nii.gz"]


def test_an_unreadable_folder_is_a_failure_and_its_exclusion_is_none(here: Path) -> None:
    touch(here, "in/sub-1/a.nii", "in/sub-2/b.nii")
    with locked(here / "in/sub-1"):
        (failure,) = plan(["in"], None, _WANTED).failures
        excluded = plan(["in"], None, _WANTED, Selection(excluded=("sub-1",)))
        (of_two,) = plan(["in/sub-1", "in/sub-2"], None, _WANTED).failures
    assert (failure.name, failure.status, of_two.name) == ("sub-1", "error", "sub-1")
    assert (excluded.failures, excluded.remarks) == ((), ())
    with locked(here / "in"):
        assert [each.name for each in plan(["in"], None, _WANTED).failures] == ["in"]


def test_a_list(here: Path) -> None:
    touch(here, "data/drawn.nii")
    (here / "data" / "list.tsv").write_text(
        "input\tcontrast\tcenterline\tframe\toutput\tage\n"
        "x/a.nii\tt1\tdrawn.nii\t\t\t7\nx/b.nii\t\tsvm\t3\tdone/b.nii\t8\n"
    )
    wanted = Wanted(Options(contrast="t2"), contrast_given=True, frame="mean")
    planned = plan(["data/list.tsv"], Path("out"), wanted)
    first, second = planned.jobs
    assert (planned.form, planned.root, _names(planned)) == ("list", here / "data", ["x/a.nii", "x/b.nii"])
    assert _masks(planned) == ["out/x/a_seg.nii.gz", "out/done/b.nii"]
    assert (first.options, first.centerline) == (
        Options(contrast="t1", detector="file"),
        Path("data/drawn.nii"),
    )
    assert (second.options, second.centerline) == (Options(contrast="t2", detector="svm"), None)
    assert (first.frame, second.frame) == ("mean", 3)
    assert planned.remarks == ("data/list.tsv: columns that are not used: 'age'",)


def test_a_list_of_volumes_elsewhere_names_them_from_what_holds_all(here: Path) -> None:
    touch(here, "one/a.nii", "two/a.nii", "lists/list.csv")
    (here / "lists/list.csv").write_text("input\n../one/a.nii\n../two/a.nii\n")
    planned = plan(["lists/list.csv"], Path("out"), _WANTED)
    assert (planned.root, _names(planned)) == (here, ["one/a.nii", "two/a.nii"])
    assert _masks(planned) == ["out/one/a_seg.nii.gz", "out/two/a_seg.nii.gz"]


def test_a_volume_that_stands_in_two_lines_is_an_error_with_both(here: Path) -> None:
    (here / "list.tsv").write_text("input\tcontrast\na.nii\tt1\n\nb.nii\t\n./a.nii\tt2\n")
    with pytest.raises(OptionError, match=r"list.tsv line 5: .*a.nii stands in list.tsv line 2 already"):
        plan(["list.tsv"], None, _WANTED)


def test_a_bids_data_set(bids: Path) -> None:
    planned = plan(["bids", "out", "participant"], None, _WANTED)
    assert (planned.form, planned.root, planned.out) == ("bids", bids, Path("out"))
    assert _names(planned) == list(_BIDS)
    assert _masks(planned)[0] == "out/sub-1/anat/sub-1_T1w_label-SC_seg.nii.gz"
    assert [job.options.contrast for job in planned.jobs] == ["t1", "t2", "t2"]
    assert planned.remarks == ("T1w: 1 volume, contrast t1", "T2w: 2 volumes, contrast t2")


def test_a_contrast_that_was_given_goes_before_the_suffix(bids: Path) -> None:
    planned = plan(["bids", "out", "participant"], None, Wanted(Options(contrast="t2s"), contrast_given=True))
    assert {job.options.contrast for job in planned.jobs} == {"t2s"}
    assert planned.remarks[0] == "T1w: 1 volume, contrast t2s"


def test_the_selection_of_a_data_set(bids: Path) -> None:
    words = ["bids", "out", "participant"]
    chosen = Selection(participants=("2",), sessions=("a",), suffixes=("T2w",))
    assert _names(plan(words, None, _WANTED, chosen)) == [_BIDS[2]]
    with pytest.raises(OptionError, match="participant sub-9: none is in bids"):
        plan(words, None, _WANTED, Selection(participants=("9",)))


@pytest.mark.parametrize(
    ("naming", "soft", "mask"),
    [
        (None, True, "out/sub-1/anat/sub-1_T1w_label-SC_softseg.nii.gz"),
        ("sct", False, "out/sub-1/anat/sub-1_T1w_seg.nii.gz"),
        ("sct", True, "out/sub-1/anat/sub-1_T1w_softseg.nii.gz"),
        ("bids", False, "out/sub-1/anat/sub-1_label-SC_desc-T1w_mask.nii.gz"),
        ("bids", True, "out/sub-1/anat/sub-1_label-SC_desc-T1w_probseg.nii.gz"),
    ],
)
def test_names_of_results_in_data_sets(bids: Path, naming: str | None, soft: bool, mask: str) -> None:
    wanted = Wanted(Options(soft=soft), naming=naming)  # type: ignore[arg-type]
    assert _masks(plan(["bids", "out", "participant"], None, wanted))[0] == mask


def test_soft_results_outside_data_sets_are_named_as_in_sct_unless_a_scheme_is_chosen(bids: Path) -> None:
    assert _masks(plan(["a.nii"], None, Wanted(Options(soft=True)))) == ["a_seg.nii.gz"]
    wanted = Wanted(Options(soft=True), naming="neuropoly")
    assert _masks(plan(["a.nii"], None, wanted)) == ["a_label-SC_softseg.nii.gz"]


def test_participant_is_a_word_of_data_sets_only_as_the_last_of_three(bids: Path) -> None:
    assert [str(job.source) for job in plan(["a.nii", "participant"], None, _WANTED).jobs][1] == "participant"
    four = plan(["a.nii", "b.nii", "c.nii", "participant"], None, _WANTED)
    assert (four.form, len(four.jobs)) == ("files", 4)
    three = plan(["a.nii", "b.nii", "./participant"], None, _WANTED)
    assert (three.form, len(three.jobs)) == ("files", 3)


@pytest.mark.parametrize(
    ("words", "out", "said"),
    [
        ([], None, "no input"),
        (["-", "a.nii"], None, "- reads the volumes from stdin"),
        (["bids", "out", "participant"], "x", "leave -o away"),
        (["bids", "bids/../bids", "participant"], None, "is the data set itself"),
        (["none", "out", "participant"], None, "none: no BIDS data set can be read there"),
        (["a.nii", "b.nii"], "mask.nii", "-o mask.nii is one file, but there are 2 inputs"),
        (["x/a.nii", "y/a.nii.gz"], None, "x/a.nii and y/a.nii.gz would both write a_seg.nii.gz"),
        (["a_seg.nii.gz", "a.nii"], None, "a_seg.nii.gz is an input and would be overwritten"),
        (["none.tsv"], None, "none.tsv: the list cannot be read"),
    ],
)
def test_what_does_not_go_together_is_told_in_one_line(
    bids: Path, words: list[str], out: str | None, said: str
) -> None:
    with pytest.raises(FastsegError) as caught:
        plan(words, None if out is None else Path(out), _WANTED)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["participants", "sessions", "suffixes"])
def test_labels_are_for_data_sets_only(field: str) -> None:
    with pytest.raises(OptionError, match="in BIDS data sets only"):
        plan(["a.nii"], None, _WANTED, Selection(**{field: ("x",)}))  # type: ignore[arg-type]


def test_excluded_volumes_are_jobs_with_a_reason_that_claim_no_outputs(here: Path) -> None:
    words = ["x/sub-1_T2w.nii", "y/sub-1_T2w.nii"]
    (here / "qc_fail.yml").write_text("FILES_SEG:\n- x/sub-1_T2w.nii\n")
    with pytest.raises(OptionError, match="would both write"):
        plan(words, None, _WANTED)
    planned = plan(words, None, _WANTED, Selection(excluded=("sub-7",), excluded_yml=("qc_fail.yml",)))
    assert [job.skip for job in planned.jobs] == [
        "excluded by 'x/sub-1_T2w.nii' (FILES_SEG of qc_fail.yml)",
        "",
    ]
    assert planned.remarks == ("--exclude: no volume is excluded by 'sub-7'",)


def test_a_given_centerline(here: Path) -> None:
    (job,) = plan(["a.nii"], None, Wanted(Options(), file_centerline="line.nii")).jobs
    assert (job.centerline, job.options.detector) == (Path("line.nii"), "file")
    with pytest.raises(OptionError, match=r"for one input, not for 2: put {stem}"):
        plan(["a.nii", "b.nii"], None, Wanted(Options(), file_centerline="line.nii"))
    with pytest.raises(OptionError, match=r"a.nii: no file is named for the centerline"):
        plan(["a.nii"], None, Wanted(Options(detector="file")))


def test_centerlines_by_pattern(here: Path) -> None:
    touch(here, "in/sub/t2.nii", "in/t1.nii")
    wanted = Wanted(Options(), file_centerline="drawn/{below}/{stem}_line.nii")
    lines = [job.centerline for job in plan(["in"], Path("out"), wanted).jobs]
    assert lines == [Path("drawn/sub/t2_line.nii"), Path("drawn/t1_line.nii")]
    wanted = Wanted(Options(), file_centerline="{folder}/line.nii")
    lines = [job.centerline for job in plan(["in"], Path("out"), wanted).jobs]
    assert lines == [Path("in/sub/line.nii"), Path("in/line.nii")]


def test_points_beside_the_mask_are_the_centerline(bids: Path) -> None:
    touch(bids.parent / "out", "sub-1/anat/sub-1_T2w_label-SC_points.json", "sub-1/anat/other_points.json")
    wanted = Wanted(Options(detector="svm"), kinds=("mask",))
    planned = plan([bids, "out", "participant"], None, wanted)
    drawn = Path("out/sub-1/anat/sub-1_T2w_label-SC_points.json")
    assert [job.centerline for job in planned.jobs] == [None, drawn, None]
    assert [job.options.detector for job in planned.jobs] == ["svm", "file", "svm"]
    assert f"1 volume has points drawn by hand, taken as centerline: {drawn}" in planned.remarks


def test_points_of_many_volumes_are_told_in_one_line(here: Path) -> None:
    touch(here, "in/a.nii", "in/b.nii", "in/c.nii", "out/a_points.json", "out/b_points.json")
    planned = plan(["in"], Path("out"), _WANTED, Selection(excluded=("c.nii",)))
    assert planned.remarks == (
        "2 volumes have points drawn by hand, taken as centerline: out/a_points.json, ...",
    )


@pytest.mark.parametrize(
    ("naming", "name"),
    [
        ("sct", "sub-1_T2w_points.json"),
        ("neuropoly", "sub-1_T2w_label-SC_points.json"),
        ("bids", "sub-1_label-centerline_desc-T2w_points.json"),
    ],
)
@pytest.mark.parametrize("soft", [False, True])
def test_points_have_a_name_in_each_scheme(here: Path, naming: Scheme, name: str, soft: bool) -> None:
    touch(here, "in/sub-1_T2w.nii", f"out/{name}")
    (job,) = plan(["in"], Path("out"), Wanted(Options(soft=soft), naming=naming)).jobs
    assert (job.centerline, job.options.detector) == (Path("out") / name, "file")


def test_what_the_user_says_goes_before_points_beside_the_mask(here: Path) -> None:
    touch(here, "a.nii", "b.nii", "c.nii", "line.nii", *(f"{name}_points.json" for name in "abc"))
    (job,) = plan(["a.nii"], None, Wanted(Options(), file_centerline="line.nii")).jobs
    assert job.centerline == Path("line.nii")
    (here / "list.csv").write_text("input,centerline\na.nii,line.nii\nb.nii,svm\nc.nii,\n")
    jobs = plan(["list.csv"], None, _WANTED).jobs
    assert [job.centerline for job in jobs] == [Path("line.nii"), None, Path("c_points.json")]


def test_points_are_what_centerline_file_asks_for(here: Path) -> None:
    touch(here, "a.nii", "a_points.json")
    wanted = Wanted(Options(detector="file"))
    assert plan(["a.nii"], None, wanted).jobs[0].centerline == Path("a_points.json")
    with pytest.raises(OptionError, match="no file is named for the centerline"):
        plan(["b.nii"], None, wanted)


def test_no_output_is_a_centerline(here: Path) -> None:
    wanted = Wanted(Options(), file_centerline="a_seg.nii.gz")
    with pytest.raises(OptionError, match=r"a_seg\.nii\.gz is an input"):
        plan(["a.nii"], None, wanted)


def test_an_output_folder_that_cannot_be_is_told(here: Path) -> None:
    touch(here, "file", "in/x/a.nii")
    with pytest.raises(OutputError, match="is a file where a folder is needed"):
        plan(["in"], Path("file"), _WANTED)
    touch(here, "out/x")
    with pytest.raises(OutputError, match="is a file where a folder is needed"):
        plan(["in"], Path("out"), _WANTED)


def test_planning_makes_nothing(bids: Path, here: Path) -> None:
    plan(["bids", "out/deep", "participant"], None, _WANTED)
    assert [path.name for path in here.iterdir()] == ["bids"]


def test_names_may_hold_anything(here: Path) -> None:
    names = ["a b/größe.nii", "new\nline/x.nii", os.fsdecode(b"latin-\xe9/y.nii")]
    touch(here / "in", *names)
    planned = plan(["in"], Path("out"), _WANTED)
    assert sorted(_names(planned)) == sorted(names)
    assert Path(os.fsdecode(b"out/latin-\xe9/y_seg.nii.gz")) in [job.outputs.mask for job in planned.jobs]


def test_files_are_not_looked_at_one_by_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def calls_for(count: int) -> int:
        touch(here / f"in{count}", *(f"{number}.nii" for number in range(count)))
        calls = []
        with monkeypatch.context() as patch:
            for name in ("stat", "lstat", "readlink", "access", "scandir"):
                call = getattr(os, name)
                patch.setattr(os, name, lambda *a, call=call, **k: calls.append(a) or call(*a, **k))
            plan([f"in{count}"], Path("out"), _WANTED)
        return len(calls)

    assert 0 < calls_for(500) == calls_for(5)


def test_planning_loads_nothing_heavy() -> None:
    code = (
        "import sys; import fastseg.cohort.plan.planning, fastseg.cohort.plan.stdin\n"
        "print(sorted({'numpy', 'numba', 'nibabel', 'yaml', 'onnxruntime', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
