"""What GPUs there are, found through libcuda alone."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest

from fastseg.engines.cuda import probe as module
from fastseg.engines.cuda.failures import failure, known_code
from fastseg.engines.cuda.probe import Probe, driver_problem, needed_cuda_major, probe, survey
from fastseg.errors import InferenceError, OutOfDeviceMemory

ATTRIBUTES = {75: 9, 76: 0, 16: 132}


class FakeLibrary:
    """libcuda as ctypes shows it: results are written where `byref` points.

    Parameters
    ----------
    gpus : how many
    codes : of calls that are refused, by call
    """

    def __init__(self, gpus: int = 1, **codes: int) -> None:
        self.gpus, self.codes = gpus, codes

    def __getattr__(self, call: str) -> Any:
        if not call.startswith("cu") or call in self.__dict__.get("absent", ()):
            raise AttributeError(f"undefined symbol: {call}")

        def answer(*arguments: Any) -> int:
            code = self.codes.get(call, 0)
            if not code:
                self._write(call, arguments)
            return code

        return answer

    def _write(self, call: str, arguments: tuple[Any, ...]) -> None:
        if call == "cuDeviceGetName":
            arguments[0].value = b"NVIDIA H200"
            return
        values: dict[str, Callable[[], int]] = {
            "cuDriverGetVersion": lambda: 13020,
            "cuDeviceGetCount": lambda: self.gpus,
            "cuDeviceGet": lambda: arguments[1],
            "cuDeviceGetAttribute": lambda: ATTRIBUTES[arguments[1]],
            "cuDeviceTotalMem_v2": lambda: 150 << 30,
        }
        if call in values:
            arguments[0]._obj.value = values[call]()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_found", {})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_gpus_are_found_with_what_they_are() -> None:
    found = survey(lambda: FakeLibrary(gpus=2))
    assert found.problem == ""
    assert found.driver == (13, 2)
    assert [each.number for each in found.gpus] == [0, 1]
    gpu = found.gpus[1]
    assert (gpu.name, gpu.compute_capability, gpu.multiprocessors) == ("NVIDIA H200", (9, 0), 132)
    assert gpu.memory_bytes == 150 << 30
    assert gpu.driver == (13, 2)


def test_no_driver_is_told_with_the_remedy() -> None:
    def load() -> Any:
        return ctypes.CDLL("libcuda_that_is_not_there.so.1")

    found = survey(load)
    assert found.gpus == ()
    assert found.driver is None
    assert found.problem.startswith("no NVIDIA driver: libcuda.so.1 is not there: install it;")
    assert "--gpus all" in found.problem
    assert "\n" not in found.problem


def test_a_driver_that_does_not_load_is_told_with_the_linkers_words() -> None:
    def load() -> Any:
        raise OSError("libcuda.so.1: wrong ELF class:\nELFCLASS32")

    problem = survey(load).problem
    assert problem.startswith("no NVIDIA driver: libcuda.so.1 does not load (libcuda.so.1: wrong ELF class: ")


@pytest.mark.parametrize(
    ("code", "name", "remedy"),
    [
        (3, "CUDA_ERROR_NOT_INITIALIZED", "spawn"),
        (34, "CUDA_ERROR_STUB_LIBRARY", "LD_LIBRARY_PATH"),
        (100, "CUDA_ERROR_NO_DEVICE", "--gpus all"),
        (802, "CUDA_ERROR_SYSTEM_NOT_READY", "fabric"),
        (803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "reboot"),
        (804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", "compat"),
        (999, "CUDA_ERROR_UNKNOWN", "nvidia-modprobe"),
        (4711, "unknown to fastseg", "nvidia-smi"),
    ],
)
def test_a_driver_that_does_not_start_is_explained_by_its_code(code: int, name: str, remedy: str) -> None:
    found = survey(lambda: FakeLibrary(cuInit=code))
    assert found.gpus == ()
    assert found.driver is None
    assert f"cuInit gave {code}" in found.problem
    assert name in found.problem
    assert remedy in found.problem
    assert "\n" not in found.problem


@pytest.mark.parametrize("call", ["cuDriverGetVersion", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName"])
def test_any_call_that_is_refused_is_a_problem_and_not_an_error(call: str) -> None:
    found = survey(lambda: FakeLibrary(**{call: 999}))
    assert found.gpus == ()
    assert f"{call} gave 999, CUDA_ERROR_UNKNOWN" in found.problem


def test_no_gpu_is_a_problem_although_the_driver_works() -> None:
    found = survey(lambda: FakeLibrary(gpus=0))
    assert found.driver == (13, 2)
    assert "CUDA_ERROR_NO_DEVICE" in found.problem


@pytest.mark.parametrize("visible", ["", "7", "GPU-deadbeef"])
def test_a_variable_that_hides_all_gpus_is_named(visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for library in (FakeLibrary(gpus=0), FakeLibrary(cuInit=100)):
        problem = survey(lambda library=library: library).problem  # type: ignore[misc]
        assert f"CUDA_VISIBLE_DEVICES={visible!r} leaves none" in problem
        assert "unset it" in problem


def test_a_gpu_that_is_broken_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    class OneBroken(FakeLibrary):
        def _write(self, call: str, arguments: tuple[Any, ...]) -> None:
            super()._write(call, arguments)
            self.codes["cuDeviceGetName"] = 214 if call == "cuDeviceGet" and arguments[1] == 0 else 0

    found = survey(lambda: OneBroken(gpus=3))
    assert [each.number for each in found.gpus] == [1, 2]
    assert found.problem == ""
    assert "GPU 0 is left out" in caplog.text


def test_a_library_that_is_no_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeLibrary()
    library.absent = {"cuDriverGetVersion"}
    found = survey(lambda: library)
    assert "is no CUDA driver (undefined symbol: cuDriverGetVersion)" in found.problem


def test_a_process_is_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []

    def load() -> FakeLibrary:
        loaded.append(1)
        return FakeLibrary()

    monkeypatch.setattr(module, "_load", load)
    assert probe() is probe()
    assert loaded == [1]


def _problem_of_a_fork() -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, probe().problem.encode())
        finally:
            os._exit(0)
    os.close(writing)  # so that the end is seen where the child wrote nothing
    os.waitpid(child, 0)
    answer = os.read(reading, 4096)
    os.close(reading)
    return answer.decode()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of 3.12, where other tests left threads
def test_a_child_that_was_forked_after_cuda_started_is_told_to_be_spawned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_load", FakeLibrary)
    assert probe().problem == ""
    assert "spawn" in _problem_of_a_fork()


def test_this_machine_is_probed_without_an_error() -> None:
    found = probe()
    assert bool(found.gpus) == (found.problem == "")


def test_a_driver_is_old_enough_or_told_what_to_do() -> None:
    assert driver_problem((13, 0), 13) == ""
    assert driver_problem((13, 2), 12) == ""
    assert driver_problem((12, 4), None) == ""
    problem = driver_problem((12, 4), 13)
    assert "supports CUDA 12.4" in problem
    assert "needs CUDA 13" in problem
    assert "driver >= 580" in problem
    assert "tensorrt-cu12" in problem
    assert "driver >= 525" in driver_problem((11, 8), 12)
    assert "cu11" not in driver_problem((11, 8), 12)
    assert "update the driver" in driver_problem((13, 0), 14)


@pytest.mark.parametrize(
    ("names", "major"),
    [
        ([], None),
        (["numpy", "tensorrt"], None),
        (["tensorrt-cu12"], 12),
        (["tensorrt_cu13_libs", "tensorrt_cu13_bindings", "tensorrt_cu13"], 13),
        (["tensorrt_rtx_cu13_bindings"], 13),
        (["tensorrt_rtx_cu13", "tensorrt-cu12-bindings"], 12),
    ],
)
def test_wheels_tell_which_cuda_they_need(
    names: list[str], major: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fake(Distribution):
        def __init__(self, name: str) -> None:
            self._name = name

        def read_text(self, filename: str) -> str | None:
            return f"Metadata-Version: 2.1\nName: {self._name}\n" if filename == "METADATA" else None

        def locate_file(self, path: Any) -> Any:
            raise AssertionError("only names are asked for")

    monkeypatch.setattr(module.importlib.metadata, "distributions", lambda: map(Fake, names))
    assert needed_cuda_major() == major


def test_names_and_codes_of_errors_are_those_of_the_real_driver() -> None:
    driver = pytest.importorskip("cuda.bindings.driver")
    known = [each for code in range(1000) if (each := known_code(code)) is not None]
    assert len(known) > 20
    for each in known:
        assert getattr(driver.CUresult, each.name).value == each.code
    attributes = driver.CUdevice_attribute
    assert attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR.value == module._MAJOR
    assert attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR.value == module._MINOR
    assert attributes.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT.value == module._MULTIPROCESSORS


def test_a_failure_is_named_by_name_and_by_words_alike() -> None:
    by_name = failure("cuMemAlloc", "CUDA_ERROR_OUT_OF_MEMORY", 1, wanted=3 << 20)
    by_words = failure("cuMemAlloc", "out of memory", 1, wanted=3 << 20)
    assert isinstance(by_name, OutOfDeviceMemory)
    assert str(by_name) == str(by_words)
    assert str(by_name).startswith("GPU 1: cuMemAlloc for 3.0 MiB failed with CUDA_ERROR_OUT_OF_MEMORY (")
    unknown = failure("cuLaunch", "something new", 0)
    assert type(unknown) is InferenceError
    assert "something new" in str(unknown)


def _with_driver(folder: Path, **environment: str) -> Probe:
    """Probe in a process that finds the driver in C where the real one would be."""
    script = (
        "import dataclasses, json; from fastseg.engines.cuda.probe import probe;"
        "print(json.dumps(dataclasses.asdict(probe())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"LD_LIBRARY_PATH": str(folder)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    known = json.loads(done.stdout)
    return Probe(tuple(known["gpus"]), known["driver"], known["problem"])


def test_a_library_of_c_is_read_as_ctypes_reads_it(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler, for a driver in C")
    source, library = Path(__file__).parent / "fake_libcuda.c", tmp_path / "libcuda.so.1"
    options = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library), str(source)]
    subprocess.run([compiler, *options, "-lpthread", "-ldl"], check=True)
    found = _with_driver(tmp_path, FAKE_CUDA_VERSION="12040")
    assert found.driver == [12, 4]
    first, second = (dict(each) for each in found.gpus)  # type: ignore[call-overload]
    assert (first["name"], first["compute_capability"]) == ("Fake H200 0", [9, 0])
    assert (second["name"], second["compute_capability"]) == ("Fake H200 1", [9, 1])
    assert (second["multiprocessors"], second["memory_bytes"]) == (132, (1 << 30) + 1)
    hidden = _with_driver(tmp_path, FAKE_CUDA_GPUS="0", CUDA_VISIBLE_DEVICES="")
    assert "CUDA_VISIBLE_DEVICES='' leaves none" in hidden.problem
    assert (
        "803, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"
        in _with_driver(tmp_path, FAKE_CUDA_FAIL="cuInit:803").problem
    )
