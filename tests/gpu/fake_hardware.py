"""Machines for the tests of tools/gpu_check: with a GPU, with half of one, and with ones that fall over."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fastseg.engines.cuda.probe import Probe
from fastseg.engines.tensorrt.vendor import Vendor, vendor_of
from fastseg.errors import EngineUnavailable, InferenceError
from tests.engines.fake_cuda import FakeBuffer, FakeCuda, FakeDevice, FakeStream, gpu
from tests.engines.fake_tensorrt import FakeTensorRt
from tools.gpu.bench import Hardware

_HERE = Path(__file__).resolve().parent
#: Tests for the section that runs tests.
VERDICTS = str(_HERE / "verdicts.py")


def _hardware(cuda: FakeCuda | None, **changed: Any) -> Hardware:
    problem = "" if cuda else "no NVIDIA driver: install one"
    tensorrt = FakeTensorRt(cuda or FakeCuda())
    parts: dict[str, Any] = {
        "probe": lambda: Probe(cuda.gpus if cuda else (), (13, 0) if cuda else None, problem),
        "layer_problem": lambda: "",
        "open_device": (cuda or FakeCuda()).open_device,
        "bindings": ("pycuda", "cuda-bindings"),
        "open_binding": _binding(cuda or FakeCuda()),
        "find_vendor": lambda: vendor_of(tensorrt.module),
        "fastseg": fastseg_with("same"),
        "tests": (VERDICTS,),
    }
    return Hardware(**parts | changed)


def fastseg_with(threshold: str) -> tuple[str, ...]:
    """A fastseg that takes another threshold where it is asked for a GPU."""
    return (sys.executable, "-P", str(_HERE / "fake_fastseg.py"), threshold)


class Strict(FakeDevice):
    """Refuses what does not fit, as the real layer does, where the fake one says that fastseg has a bug."""

    def upload(self, target: FakeBuffer, source: NDArray[Any], stream: FakeStream) -> None:
        if source.nbytes > target.nbytes:
            raise InferenceError(f"{source.nbytes} bytes do not fit into {target.nbytes}")
        super().upload(target, source, stream)


def _binding(cuda: FakeCuda) -> Callable[[int, str], FakeDevice]:
    """One binding of two is installed."""

    def open_binding(number: int, name: str) -> FakeDevice:
        if name == "pycuda":
            raise EngineUnavailable("pycuda: No module named 'pycuda'")
        return Strict(cuda, number)

    return open_binding


def _cuda(**facts: Any) -> FakeCuda:
    return FakeCuda(gpu(memory_bytes=1 << 28, **facts))


def whole(**changed: Any) -> Hardware:
    """A GPU with all that belongs to it."""
    return _hardware(_cuda(), **changed)


def pair() -> Hardware:
    """Two GPUs."""
    return _hardware(FakeCuda(*(gpu(number, memory_bytes=1 << 28) for number in (0, 1))))


def old() -> Hardware:
    """A GPU of Turing's age, whose binding has no graphs."""
    cuda = FakeCuda(gpu(name="Tesla T4", compute_capability=(7, 5)), graphs=False)
    return _hardware(cuda)


def nothing(**changed: Any) -> Hardware:
    """No driver."""
    return _hardware(None, **changed)


def only_the_device_layer() -> Hardware:
    """A GPU, but no TensorRT."""

    def find_vendor() -> Vendor:
        raise EngineUnavailable("TensorRT is not installed: pip install 'fastseg[gpu]'")

    return _hardware(_cuda(), find_vendor=find_vendor)


def no_binding() -> Hardware:
    """A GPU that nothing in Python reaches."""
    return _hardware(
        _cuda(), layer_problem=lambda: "neither pycuda nor cuda-bindings: pip install cuda-bindings"
    )


def crashing() -> Hardware:
    """A driver that ends the process, in the middle of the second finding."""
    cuda = _cuda()

    def find_vendor() -> Vendor:
        os.abort()

    return _hardware(cuda, find_vendor=find_vendor)


def hanging() -> Hardware:
    """A device that never opens, and a program that it has started."""

    def open_binding(number: int, name: str) -> FakeDevice:
        if os.fork() == 0:
            time.sleep(600)
        mark = Path(os.environ["FASTSEG_TEST_MARK"])
        mark.with_suffix(".part").write_text(str(os.getpid()))
        mark.with_suffix(".part").rename(mark)
        time.sleep(600)
        raise AssertionError

    return _hardware(_cuda(), open_binding=open_binding)


def wrong() -> Hardware:
    """A TensorRT whose numbers are wrong."""
    cuda = _cuda()
    tensorrt = FakeTensorRt(cuda)
    tensorrt.distort = lambda answer: answer + 0.25
    return _hardware(cuda, open_device=cuda.open_device, find_vendor=lambda: vendor_of(tensorrt.module))
