"""The real bindings of CUDA on a driver in C (fake_libcuda.c): their names, types, lifetimes and threads.

In processes of their own, because a driver stays loaded. pycuda is tried where it is installed: it is built
against a CUDA toolkit (docs/installation.md), which few have.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fastseg.engines.cuda.open import BINDINGS
from tests.engines.fake_cuda_modules import FakeDriver, cuda_modules

SOURCE = Path(__file__).parent / "fake_libcuda.c"

# argv: the library, the binding. pycuda links to calls that the driver in C does not have; none is made.
BEGIN = """
import ctypes, json, os, sys, threading, time
library = ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)
if sys.argv[2] == "pycuda":
    sys.setdlopenflags(os.RTLD_LAZY)
from fastseg.engines.cuda.open import open_device
from fastseg.engines.cuda.selftest import selftest
from fastseg.errors import EngineError

def state():
    numbers = (ctypes.c_int * 8)()
    library.fake_cuda_state(numbers)
    return list(numbers)

answer = {}
"""
END = """
answer["state"] = state()
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler, for a driver in C")
    path = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    command = [compiler, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(path), str(SOURCE)]
    subprocess.run([*command, "-lpthread", "-ldl"], check=True)
    return path


@pytest.fixture(params=[name for name in BINDINGS if find_spec(name.partition("-")[0])])
def layer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(library: Path, layer: str, script: str, given: str = "", **environment: str) -> dict[str, Any]:
    """Run a script with the driver in C; it puts what it finds into `answer`."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGIN + script + END, str(library), layer],
        env=os.environ | environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_selftest_passes_and_leaves_nothing_behind(library: Path, layer: str) -> None:
    script = """
with open_device(1, layer=sys.argv[2]) as device:
    answer.update(selftest(device, nbytes=1 << 18))
"""
    answer = run(library, layer, script)
    assert answer["passed"], answer
    assert answer["layer"].startswith(layer)
    assert answer["gpu"] == "Fake H200 1"
    assert answer["state"] == [0] * 8


def test_what_was_forgotten_is_freed_and_no_context_stays_current(library: Path, layer: str) -> None:
    script = """
class Expected(Exception):
    pass

for _ in range(3):
    try:
        with open_device(0, layer=sys.argv[2]) as device, device.current():
            things = device.allocate(4), device.pinned((4,)), device.stream(), device.event()
            answer["made"] = state()
            raise Expected
    except Expected:
        pass
"""
    answer = run(library, layer, script)
    assert answer["made"] == [1, 1, 1, 1, 0, 0, 1, 1]
    assert answer["state"] == [0] * 8


def test_a_device_is_closed_by_a_thread_that_did_not_open_it(library: Path, layer: str) -> None:
    script = """
device = open_device(0, layer=sys.argv[2]).__enter__()
with device.current():
    stream = device.stream()
def close():
    device.__exit__(KeyError, KeyError(), None)
    answer["there"] = state()
thread = threading.Thread(target=close)
thread.start()
thread.join()
"""
    answer = run(library, layer, script)
    assert answer["there"] == [0] * 8
    assert answer["state"] == [0] * 8


ERRORS = {
    "cuMemAlloc:2": "CUDA_ERROR_OUT_OF_MEMORY",
    "cuMemHostAlloc:2": "CUDA_ERROR_OUT_OF_MEMORY",
    "cuMemcpyHtoDAsync:1": "CUDA_ERROR_INVALID_VALUE",
    "cuMemcpyDtoHAsync:400": "CUDA_ERROR_INVALID_HANDLE",
    "cuStreamCreate:201": "CUDA_ERROR_INVALID_CONTEXT",
    "cuStreamSynchronize:700": "CUDA_ERROR_ILLEGAL_ADDRESS",
    "cuEventElapsedTime:999": "CUDA_ERROR_UNKNOWN",
    "cuDevicePrimaryCtxRetain:2": "CUDA_ERROR_OUT_OF_MEMORY",
}


def test_errors_have_their_call_and_their_name(library: Path, layer: str) -> None:
    script = """
for fault in sys.stdin.read().split():
    os.environ["FAKE_CUDA_FAIL"] = fault
    try:
        with open_device(0, layer=sys.argv[2]) as device, device.current():
            stream, memory, pinned = device.stream(), device.allocate(4), device.pinned((1,))
            first, second = device.event(), device.event()
            for event in (first, second):
                event.record(stream)
                device.upload(memory, pinned.array, stream)
                device.download(pinned.array, memory, stream)
            stream.synchronize()
            second.milliseconds_since(first)
    except EngineError as error:
        answer[fault] = type(error).__name__, str(error)
"""
    answer = run(library, layer, script, given=" ".join(ERRORS))
    assert answer.pop("state") == [0] * 8
    assert answer.keys() == ERRORS.keys()
    for fault, (kind, text) in answer.items():
        call, _, code = fault.partition(":")
        memory = "EngineUnavailable" if "Retain" in call else "OutOfDeviceMemory"
        assert kind == (memory if code == "2" else "InferenceError")
        assert text.startswith(f"GPU 0: {call}")
        assert f"failed with {ERRORS[fault]} (" in text


def test_other_threads_run_while_one_waits_for_the_gpu(library: Path, layer: str) -> None:
    script = """
with open_device(0, layer=sys.argv[2]) as device, device.current():
    stream = device.stream()
    def wait():
        with device.current():
            stream.synchronize()
    thread = threading.Thread(target=wait)
    thread.start()
    answer["ticks"] = 0
    while thread.is_alive():
        time.sleep(0.01)
        answer["ticks"] += 1
        if answer["ticks"] == 10:
            os.environ["FAKE_CUDA_WAIT_MS"] = "0"
    thread.join()
    stream.free()
"""
    answer = run(library, layer, script, FAKE_CUDA_WAIT_MS="20000")
    assert answer["ticks"] >= 10  # 1 or 2 where the binding holds the GIL


def test_a_driver_without_a_call_is_told_in_one_line(library: Path) -> None:
    pytest.importorskip("cuda.bindings")  # pycuda does not load where a call is missing
    script = """
from fastseg.engines.cuda.cuda_python import CudaPython
try:
    CudaPython(0)._call("cuDeviceGetUuid", 0)
except EngineError as error:
    answer["text"] = str(error)
"""
    answer = run(library, "cuda-bindings", script)
    assert "cuDeviceGetUuid" in answer["text"]
    assert "\n" not in answer["text"]


def test_names_of_the_fake_are_those_of_the_real_cuda_bindings() -> None:
    real = pytest.importorskip("cuda.bindings.driver")
    fake = cuda_modules(FakeDriver())["cuda.bindings.driver"]
    calls = [name for name in vars(fake) if name.startswith("cu") and name.islower() is False]
    assert {name for name in calls if not hasattr(real, name)} == set()
    assert len(calls) > 20
    for kind in ("CUresult", "CUstream_flags", "CUevent_flags", "CUstreamCaptureMode"):
        for member in getattr(fake, kind):
            assert getattr(getattr(real, kind), member.name).value == member.value, member
