"""Marks that leave the report's page and come back: YAML lists and qc_flags.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import FilePayload, Page, expect

from fastseg.cohort.plan.exclusion import Exclusions
from tests.browser import reports

# Names that no YAML list has plain, and two volumes whose files have the same name.
_ODD = (
    'sub-1/an"at: #1_T2w.nii.gz',
    "sub-2/<script>hacked=1<\\script>.nii.gz",
    "sub-3/שלום_脊髄_🧠.nii.gz",
    "sub-4/a'b c .nii.gz",
    "sub-5/line\nbreak\x85\u2028\x7f.nii.gz",
    "sub-6/same.nii.gz",
    "sub-7/same.nii.gz",
    "sub-8/bytes\udcff.nii.gz",
)

_HEAR = """button => {
  button.dataset.heard = "";
  const hear = () => { if (button.textContent !== "Copy") button.dataset.heard += ` ${button.textContent}`; };
  new MutationObserver(hear).observe(button, { childList: true });
}"""


def _saved(page: Page, name: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Save {name}").click()
    assert download.value.suggested_filename == name
    return download.value.path().read_text(encoding="utf-8")


def _give(page: Page, name: str, text: str) -> str:
    page.evaluate("document.getElementById('message').textContent = ''")  # what was said of the last one
    payload: FilePayload = {"name": name, "mimeType": "text/plain", "buffer": text.encode()}
    page.set_input_files("#import", payload)
    expect(page.locator("#message")).to_contain_text(name)
    return page.locator("#message").inner_text()


def _marked(page: Page) -> str:
    return page.locator("#counted").inner_text()


def test_exports_are_read_by_yaml_and_by_the_next_run(page: Page, tmp_path: Path) -> None:
    rows = [reports.row(number, name=name) for number, name in enumerate(_ODD)]
    page.goto(reports.write(tmp_path / "qc", rows))
    page.locator("[data-key=name] button").click()
    page.keyboard.press("Home")
    for index in range(len(_ODD)):
        for _ in range(1 if index == 1 else 3 if index == 5 else 2):
            page.keyboard.press("f")
        page.keyboard.press("j")
    page.click("#exchange")
    short = {name: name.partition("/")[2] if "same" not in name else name for name in _ODD}
    wanted = {"qc_pass.yml": {_ODD[1]}, "qc_artifact.yml": {_ODD[5]}}
    wanted["qc_fail.yml"] = set(_ODD) - {_ODD[1], _ODD[5]}
    for name, names in wanted.items():
        text = _saved(page, name)
        assert set(yaml.safe_load(text)["FILES_SEG"]) == {short[each] for each in names}
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        excluded = Exclusions(yml=[path])
        assert {each for each in _ODD if excluded.reason(each)} == names
        assert excluded.unmet() == []
    flags = json.loads(_saved(page, "qc_flags.json"))
    assert (flags["version"], flags["report"]) == (1, reports.UUID)
    assert {mark["name"]: mark["qc"] for mark in flags["marks"]}[_ODD[6]] == "Fail"
    assert {"id", "name", "qc", "rank", "mask", "at"} == set(flags["marks"][0])


def test_lists_without_marks_are_empty_lists(page: Page, tmp_path: Path) -> None:
    page.goto(reports.write(tmp_path, [reports.row(0)]))
    page.keyboard.press("f")
    for _ in range(3):
        page.keyboard.press("f")
    page.click("#exchange")
    assert yaml.safe_load(_saved(page, "qc_fail.yml")) == {"FILES_SEG": []}
    # The mark that was taken back has to win over an older one elsewhere.
    assert json.loads(_saved(page, "qc_flags.json"))["marks"][0]["qc"] == ""


def test_marks_of_an_earlier_result_stay_out_of_lists_and_in_the_flags(page: Page, tmp_path: Path) -> None:
    row = reports.row(0)
    old = {"id": row["id"], "name": row["name"], "qc": "Fail", "rank": None, "mask": "1" * 12}
    page.goto(reports.write(tmp_path, [row], marks=[old | {"at": "2025-01-01T00:00:00Z"}]))
    page.click("#exchange")
    assert "1 of an earlier result is left out" in page.locator("#left-out").inner_text()
    assert yaml.safe_load(_saved(page, "qc_fail.yml")) == {"FILES_SEG": []}
    flags = _saved(page, "qc_flags.json")
    (mark,) = json.loads(flags)["marks"]
    assert (mark["mask"], mark["earlier"]) == ("1" * 12, True)
    (tmp_path / "qc_flags.json").write_text(flags, encoding="utf-8")
    assert Exclusions(yml=[tmp_path / "qc_flags.json"]).reason(row["name"]) == ""


def test_what_was_exported_is_imported_elsewhere(page: Page, tmp_path: Path) -> None:
    rows = [reports.row(number, name=name) for number, name in enumerate(_ODD)]
    page.goto(reports.write(tmp_path / "one", rows))
    page.locator("[data-key=name] button").click()
    page.keyboard.press("Home")
    for key in ("f", "f", "5", "j", "j", "f", "j", "j", "j", "j", "f", "f"):
        page.keyboard.press(key)
    page.click("#exchange")
    texts = {name: _saved(page, name) for name in ("qc_pass.yml", "qc_fail.yml", "qc_flags.json")}
    # The same volumes in another place have other ids.
    moved = [each | {"id": f"{0xABC + number:016x}"} for number, each in enumerate(rows)]
    address = reports.write(tmp_path / "two", moved)
    page.goto(address)
    page.evaluate("localStorage.clear()")
    page.goto(address)
    page.reload()
    assert _marked(page) == "0 of 8 marked"
    assert "1 volume is Pass" in _give(page, "qc_pass.yml", texts["qc_pass.yml"])
    assert "2 volumes are Fail" in _give(page, "qc_fail (1).yml", texts["qc_fail.yml"])
    assert _marked(page) == "3 of 8 marked"
    page.evaluate("localStorage.clear()")
    page.reload()
    assert "3 of 3 marks taken" in _give(page, "qc_flags.json", texts["qc_flags.json"])
    assert "0 of 3 marks taken" in _give(page, "qc_flags.json", texts["qc_flags.json"])
    assert _marked(page) == "3 of 8 marked"
    page.select_option("[name=mark]", "rank5")
    assert page.locator(".row").count() == 1


def test_lists_of_other_hands_are_read_too(page: Page, tmp_path: Path) -> None:
    page.goto(reports.write(tmp_path, [reports.row(number) for number in range(8)]))
    text = (
        "# seen by AB\nFILES_SEG:\n  - sub-0000_T1w.nii.gz  # motion\n  - 'sub-0001_T2w.nii.gz'\n"
        "- ./sub-0002/anat/sub-0002_T1w\n- sub-9999_T2w.nii.gz\nFILES_GMSEG:\n- sub-0004_T1w.nii.gz\n"
    )
    said = _give(page, "my_qc_FAIL.yaml", text)
    assert "3 volumes are Fail, 1 under other keys than FILES_SEG passed over" in said
    assert "1 not in this report, or not unique in it (sub-9999_T2w.nii.gz)" in said
    assert _marked(page) == "3 of 8 marked"
    assert "2 volumes are Pass" in _give(
        page, "qc_pass.yml", "FILES_SEG: [sub-0004_T1w.nii.gz, 'sub-0005_T2w']"
    )


def test_files_that_hold_no_marks_are_refused_in_a_line(page: Page, tmp_path: Path) -> None:
    page.goto(reports.write(tmp_path, [reports.row(0)]))
    assert "has to say pass, fail or artifact" in _give(page, "list.yml", "FILES_SEG:\n- a.nii\n")
    assert "qc_fail.yml line 2: this is no list" in _give(page, "qc_fail.yml", "FILES_SEG:\n{a: b}\n")
    assert "is no JSON" in _give(page, "flags.json", "{")
    assert "holds no marks" in _give(page, "other.json", "[]")
    foreign: list[Any] = [None, 3, {"id": "0" * 16, "qc": "<b>"}, {"id": "0" * 16, "rank": 12}]
    assert "0 of 0 marks taken, 4 are no marks" in _give(page, "odd.json", json.dumps({"marks": foreign}))
    assert _marked(page) == "0 of 1 marked"


def test_a_dropped_file_is_read(page: Page, tmp_path: Path) -> None:
    page.goto(reports.write(tmp_path, [reports.row(0)]))
    transfer = page.evaluate_handle(
        "() => { const held = new DataTransfer();"
        " held.items.add(new File(['FILES_SEG:\\n- sub-0000_T1w.nii.gz\\n'], 'qc_artifact.yml'));"
        " return held; }"
    )
    page.dispatch_event("main", "dragover", {"dataTransfer": transfer})
    assert "dropping" in (page.locator("body").get_attribute("class") or "")
    page.dispatch_event("main", "drop", {"dataTransfer": transfer})
    expect(page.locator("#counted")).to_have_text("1 of 1 marked")
    assert page.locator(".marker [aria-pressed=true]").inner_text() == "Artifact"


def test_lists_and_commands_are_copied(page: Page, tmp_path: Path) -> None:
    page.goto(reports.write(tmp_path, [reports.row(0)]))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.keyboard.press("f")
    button = page.locator(".command .copy").first
    button.evaluate(_HEAR)  # it takes its word back after a while
    button.click()
    expect(button).to_have_attribute("data-heard", " Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "fsleyes '/data/t2.nii.gz' -cm red"
    page.click("#exchange")
    page.get_by_role("button", name="Copy qc_pass.yml").click()
    expect(page.get_by_role("button", name="Copy qc_pass.yml")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "FILES_SEG:\n- sub-0000_T1w.nii.gz\n"
