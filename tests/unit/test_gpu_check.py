"""tools/gpu_check as a command: what is missing is said, and no crash, hang or shortage of time stops it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fastseg.engines.cuda.probe import probe
from tools.gpu.__main__ import main
from tools.gpu.sections import SECTIONS


class _Check:
    """Runs the command with a fake machine; gives exit code and report."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, hardware: str, *words: str) -> tuple[int, dict[str, Any]]:
        code = main(["--hardware", f"tests.gpu.fake_hardware:{hardware}", "--out", str(self.folder), *words])
        (file,) = self.folder.glob("*.json")
        return code, json.loads(file.read_text())

    @property
    def markdown(self) -> str:
        (file,) = self.folder.glob("*.md")
        return file.read_text()


@pytest.fixture
def check(tmp_path: Path) -> _Check:
    return _Check(tmp_path / "out")


def _section(report: dict[str, Any], name: str) -> Any:
    return next(section for section in report["sections"] if section["section"] == name)


def test_without_a_driver_every_section_says_so_and_the_exit_code_is_3(check: _Check) -> None:
    code, report = check("nothing")
    assert code == report["exit_code"] == 3
    assert report["verdict"] == "nothing could be checked: no NVIDIA driver: install one"
    assert [section["section"] for section in report["sections"]] == [each.name for each in SECTIONS]
    for section in report["sections"][1:]:
        assert section["state"] == "skipped"
        assert section["reasons"] == ["no NVIDIA driver: install one"]
    assert _section(report, "found")["state"] == "ok"
    titles = ", ".join(each.title.split(":")[0] for each in SECTIONS)
    assert f"- {titles}: no NVIDIA driver: install one" in check.markdown


def test_a_report_without_a_gpu_goes_to_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    results = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "gpu"
    before = sorted(results.glob("*"))
    assert main(["--hardware", "tests.gpu.fake_hardware:nothing", "--only", "device"]) == 3
    captured = capsys.readouterr()
    assert captured.out.startswith("# No GPU, ")
    assert "nothing could be checked: no NVIDIA driver" in captured.err
    assert sorted(results.glob("*")) == before


@pytest.mark.skipif(bool(probe().gpus), reason="this machine has a GPU")
def test_this_machine_without_a_gpu_is_checked_to_the_end(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--out", str(tmp_path), "--only", "build", "--only", "conformance"]) == 3
    (file,) = tmp_path.glob("no-gpu-*.json")
    report = json.loads(file.read_text())
    assert _section(report, "build")["reasons"] == [probe().problem]
    assert _section(report, "conformance")["reasons"] == [probe().problem]


def test_a_gpu_without_tensorrt_gets_its_device_layer_checked(check: _Check) -> None:
    code, report = check("only_the_device_layer", "--only", "device", "--only", "build")
    assert code == 0
    device = _section(report, "device")
    assert device["state"] == "ok"
    assert {"binding": "cuda-bindings", "what": "version", "value": "fake 1.0"} in device["rows"]
    assert device["left_out"] == ["pycuda: No module named 'pycuda'"]
    build = _section(report, "build")
    assert build["state"] == "skipped"
    assert build["reasons"] == ["TensorRT is not installed: pip install 'fastseg[gpu]'"]
    assert report["verdict"].endswith("not, or not wholly, checked: Engines, Device memory layer")


def test_a_gpu_that_python_does_not_reach_is_named_with_the_remedy(check: _Check) -> None:
    code, report = check("no_binding", "--only", "device")
    assert code == 3
    assert "pip install cuda-bindings" in _section(report, "device")["reasons"][0]


def test_files_are_named_by_gpu_and_date(check: _Check) -> None:
    _, report = check("whole", "--only", "found")
    (file,) = check.folder.glob("*.md")
    assert file.stem == f"fake-h200-{report['date']}"
    assert report["gpu"] == "Fake H200"


def test_a_gpu_that_is_not_there_is_refused_with_the_numbers_there_are(check: _Check) -> None:
    code, report = check("whole", "--only", "device", "--gpu", "3")
    assert code == 3
    assert _section(report, "device")["reasons"] == ["there is no GPU 3: --gpu takes 0 to 0"]


def test_a_section_that_crashes_costs_only_itself(check: _Check) -> None:
    code, report = check("crashing", "--only", "build", "--only", "device")
    assert code == 1
    for name in ("found", "build"):
        section = _section(report, name)
        assert section["state"] == "crashed"
        assert "the process ended with SIGABRT" in section["reasons"][0]
    # What was told before the crash is there, and what it was at.
    assert "while looking for TensorRT" in _section(report, "found")["reasons"][0]
    assert any(row["what"] == "GPU 0" for row in _section(report, "found")["rows"])
    assert _section(report, "device")["state"] == "ok"


def test_a_section_that_hangs_is_killed_with_what_it_started(
    check: _Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "pid"
    monkeypatch.setenv("FASTSEG_TEST_MARK", str(mark))
    waited: list[float] = []

    class Process(subprocess.Popen[bytes]):
        """Time flies once the section hangs, however long it took to get there."""

        def wait(self, timeout: float | None = None) -> int:
            if timeout is None or waited or "device" not in self.args:
                return super().wait(timeout)
            waited.append(timeout)
            while not mark.exists() and self.poll() is None:
                time.sleep(0.02)
            raise subprocess.TimeoutExpired(self.args, timeout)

    monkeypatch.setattr(subprocess, "Popen", Process)
    code, report = check("hanging", "--only", "device", "--seconds", "3000")
    assert 0 < waited[0] <= 3000
    assert code == 1
    section = _section(report, "device")
    assert section["state"] == "killed"
    assert section["reasons"][0].startswith("killed after ")
    assert section["reasons"][0].endswith(" while opening the GPU with pycuda")
    group = int(mark.read_text())
    for _ in range(1000):  # the kernel may take a moment to bury them
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, 9)
        pytest.fail("what the section had started still runs")


def test_sections_are_skipped_by_name_when_the_time_is_spent(check: _Check) -> None:
    code, report = check("whole", "--seconds", "1")
    assert code == 3
    assert {section["state"] for section in report["sections"]} == {"skipped"}
    for section in report["sections"]:
        assert section["reasons"] == ["the time is spent (1 s): --seconds gives more"]


def test_an_error_of_a_section_is_one_line_with_its_type(check: _Check) -> None:
    code, report = check("not_a_machine", "--only", "device")
    assert code == 1
    section = _section(report, "device")
    assert section["state"] == "failed"
    assert section["reasons"] == [
        "AttributeError: module 'tests.gpu.fake_hardware' has no attribute 'not_a_machine'"
    ]


def test_the_command_in_the_report_names_no_folder(check: _Check) -> None:
    _, report = check("nothing", "--only", "device", "--data", str(check.folder.parent))
    assert report["command"] == "tools/gpu_check --hardware DIR --out DIR --only device --data DIR"
    assert str(check.folder.parent) not in json.dumps(report)


@pytest.mark.parametrize(
    "words", [["--seconds", "0"], ["--volumes", "0"], ["--gpu", "-1"], ["--data", "nowhere"], ["--only", "x"]]
)
def test_wrong_options_are_usage_errors(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
