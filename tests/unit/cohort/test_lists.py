"""Lists of volumes with options of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fastseg.cohort.plan.lists import Row, parse_line, read_list
from fastseg.errors import InputError, OptionError
from fastseg.options import Options
from tests.unit.cohort.trees import touch


def _rows(
    folder: Path, text: str | bytes, name: str = "list.tsv", options: Options | None = None
) -> list[Row]:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_list(folder / name, options or Options()).rows


def test_a_list_says_what_the_command_line_does_not(tmp_path: Path) -> None:
    touch(tmp_path, "drawn.nii")
    first, second = _rows(
        tmp_path,
        "contrast\tinput\tkernel\tthreshold\tframe\toutput\tcenterline\n"
        "T1\ta.nii\t3d\t0.25\t2\tx/y.nii.gz\tdrawn.nii\n"
        "n/a\tb.nii\t\t\tmean\t\tcnn\n",
        options=Options(contrast="t2", soft=True),
    )
    assert first.options == Options(contrast="t1", kernel="3d", threshold=0.25, detector="file")
    assert (first.frame, first.output, first.centerline) == (2, "x/y.nii.gz", str(tmp_path / "drawn.nii"))
    assert second.options == Options(contrast="t2", soft=True, detector="cnn")
    assert (second.frame, second.output, second.centerline) == ("mean", "", "")
    assert first.where == f"{tmp_path / 'list.tsv'} line 2"


@pytest.mark.parametrize(
    ("cells", "soft", "threshold"),
    [("true\t", True, None), ("no\t", False, 0.5), ("\t-1", True, None), ("\t0.7", False, 0.7)],
)
def test_soft_and_threshold(tmp_path: Path, cells: str, soft: bool, threshold: float | None) -> None:
    (row,) = _rows(tmp_path, f"input\tsoft\tthreshold\na.nii\t{cells}\n", options=Options(threshold=0.5))
    assert (row.options.soft, row.options.threshold) == (soft, threshold)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", 'file,contrast\n"a, ""b"".nii",t2\n'),
        ("list.csv", 'PATH;contrast\n"a, ""b"".nii";t2\n'),
        ("list.CSV", '\ufeffpath,contrast\r\n"a, ""b"".nii",t2\r\n\r\n'),
    ],
    ids=["commas", "semicolons", "of a spreadsheet"],
)
def test_csv_files(tmp_path: Path, name: str, text: str) -> None:
    (row,) = _rows(tmp_path, text, name)
    assert (Path(row.source).name, row.options.contrast) == ('a, "b".nii', "t2")


def test_names_may_hold_spaces_newlines_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    rows = _rows(tmp_path, b'input\n a b.nii \n"new\nline.nii"\nlatin-\xe9.nii\n')
    names = [" a b.nii ", "new\nline.nii", os.fsdecode(b"latin-\xe9.nii")]
    assert [row.source for row in rows] == [str(tmp_path / name) for name in names]
    assert [row.where.rpartition(" ")[2] for row in rows] == ["2", "3", "5"]


def test_paths_are_relative_to_the_list_and_then_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "lists/both.nii", "both.nii", "here.nii")
    monkeypatch.chdir(tmp_path)
    rows = _rows(tmp_path / "lists", "input\nboth.nii\nhere.nii\nnowhere.nii\n/absolute.nii\n")
    expected = [
        tmp_path / "lists/both.nii",
        Path("here.nii"),
        tmp_path / "lists/nowhere.nii",
        "/absolute.nii",
    ]
    assert [row.source for row in rows] == [str(path) for path in expected]


def test_unknown_columns_are_remarked_once(tmp_path: Path) -> None:
    (tmp_path / "list.tsv").write_text("age\tinput\tsex\n7\ta.nii\tF\n8\tb.nii\tM\n")
    table = read_list(tmp_path / "list.tsv", Options())
    assert table.remarks == [f"{tmp_path / 'list.tsv'}: columns that are not used: 'age', 'sex'"]
    assert len(table.rows) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.nii\tt3", "line 3: contrast 't3'"),
        ("a.nii\t\t4d", "line 3: kernel '4d'"),
        ("a.nii\t\t\tmuch", "line 3: threshold 'much'"),
        ("a.nii\t\t\t1.5", "line 3: threshold 1.5: must lie between 0 and 1"),
        ("a.nii\t\t\tnan", "line 3: threshold nan"),
        ("a.nii\t\t\t\tmaybe", "line 3: soft 'maybe'"),
        ("a.nii\t\t\t0.5\ttrue", "line 3: threshold and soft exclude each other"),
        ("a.nii\t\t\t\t\tfirst", "line 3: frame 'first'"),
        ("a.nii\t\t\t\t\t-1", "line 3: frame '-1'"),
        ("a.nii\t\t\t\t\t\t../x.nii", "line 3: output '../x.nii' must lie in the output folder"),
        ("a.nii\t\t\t\t\t\t/x.nii", "line 3: output '/x.nii' must lie in the output folder"),
        ("a.nii\t\t\t\t\t\tx.png", "line 3: output 'x.png' is no name of a volume"),
        ("a.nii\t\t\t\t\t\t\tgone.nii", "line 3: centerline 'gone.nii' is neither"),
        ("\tt2", "line 3: names no input"),
        ("a\0.nii", "line 3: holds a NUL"),
        ("a.nii\t\t\t\t\t\t\t\tmore", "line 3: 9 cells for 8 columns"),
        ('"a.nii', "line 3: cannot be read"),
    ],
)
def test_a_bad_cell_is_told_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    head = "input\tcontrast\tkernel\tthreshold\tsoft\tframe\toutput\tcenterline\n"
    with pytest.raises((OptionError, InputError)) as caught:
        _rows(tmp_path, f"{head}good.nii\n{line}\n")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: no column input"),
        ("a.nii\nb.nii\n", "line 1: no column input"),
        ("input\tpath\na\tb\n", "line 1: two columns say input"),
    ],
)
def test_what_is_no_list_is_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        _rows(tmp_path, text)


def test_a_missing_list_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_list(tmp_path / "none.tsv", Options())


def test_equal_rows_share_their_options(tmp_path: Path) -> None:
    first, second = _rows(tmp_path, "input\tcontrast\na.nii\tt2\nb.nii\tt2\n")
    assert first.options is second.options


def test_a_line_is_a_path(tmp_path: Path) -> None:
    row = parse_line(b"data/latin-\xe9 .nii\r\n", "line 1", Options(contrast="t1"), "mean")
    assert row == Row("line 1", os.fsdecode(b"data/latin-\xe9 .nii"), Options(contrast="t1"), "mean")


def test_a_line_is_a_json_object() -> None:
    values = {"path": "new\nline \udce9.nii", "contrast": "t2", "threshold": 0.5, "frame": 0, "kernel": None}
    row = parse_line(json.dumps(values), "line 1", Options(soft=True))
    assert row == Row("line 1", "new\nline \udce9.nii", Options(contrast="t2", threshold=0.5), 0)


@pytest.mark.parametrize("line", ["", "\n", b"  \r\n"])
def test_an_empty_line_is_nothing(line: str | bytes) -> None:
    assert parse_line(line, "line 1", Options()) is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{broken", "no JSON object"),
        ('{"input": "a.nii"} {}', "no JSON object"),
        ("{}", "names no input"),
        ('{"input": ["a.nii"]}', "input is neither text nor a number"),
        ('{"input": "a.nii", "colour": "red"}', "unknown key 'colour'"),
        ('{"input": "a.nii", "file": "b.nii"}', "two keys say input"),
        ('{"input": "a.nii", "soft": true, "threshold": 0.5}', "exclude each other"),
        ('{"input": "a\\u0000.nii"}', "holds a NUL"),
        ('{"input": ' + "[" * 100_000, "no JSON object"),
    ],
)
def test_a_line_that_is_neither_is_told(line: str, said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        parse_line(line, "line 7", Options())
    assert str(caught.value).startswith("line 7: ")
