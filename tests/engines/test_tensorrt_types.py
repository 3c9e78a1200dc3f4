"""What fastseg uses of TensorRT, and what the fake has of it, held against NVIDIA's own bindings."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastseg.engines.tensorrt.vendor import Api
from tests.engines.fake_cuda import FakeCuda
from tests.engines.fake_tensorrt import FakeTensorRt

real: Any = pytest.importorskip(
    "tensorrt_rtx_bindings", reason="the bindings of TensorRT-RTX are not installed (extra [gpu-ci])"
)

FAKE = FakeTensorRt(FakeCuda()).module
CLASSES = [name for name, kind in vars(FAKE).items() if inspect.isclass(kind)]
STUBS = Path(__file__).parents[2] / "tools" / "lib" / "stubs.py"

# Each line says which of mypy's errors it has to give.
MISUSES = """\
from __future__ import annotations

from typing import TYPE_CHECKING

from fastseg.engines.tensorrt.vendor import Api, Vendor

if TYPE_CHECKING:
    import tensorrt


def build(trt: Api, vendor: Vendor) -> bytes:
    trt.BuilderFlag.INT4_AND_A_HALF  # attr-defined
    trt.Builder()  # call-arg
    builder = trt.Builder(vendor.log)  # arg-type
    nothing = builder.create_network("strongly typed")  # arg-type
    trt.OnnxParser(nothing, vendor.log.logger)  # arg-type
    network = builder.create_network(1)
    assert network is not None
    if trt.OnnxParser(network, vendor.log.logger).parse("network.onnx"):  # arg-type
        network.errors  # attr-defined
    config = builder.create_builder_config()
    assert config is not None
    config.max_workspace_size = 1 << 30  # attr-defined
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)  # call-arg
    return bytes(builder.build_serialized_network(network, config))  # arg-type


def run(context: tensorrt.IExecutionContext, engine: tensorrt.ICudaEngine) -> int:
    engine.num_bindings  # attr-defined
    context.execute_async_v2([0], 0)  # attr-defined
    context.set_tensor_address("in", "address")  # arg-type
    context.set_input_shape("in", 64)  # call-overload
    engine.create_execution_context().infer_shapes()  # union-attr
    return context.execute_async_v3(0)


def read(vendor: Vendor) -> str:
    return vendor.log.logger.explain()  # attr-defined
"""


def arguments(function: Any) -> set[str]:
    """Names of a method's arguments: of Python's signature, or of what pybind11 writes into its docstring."""
    try:
        return set(inspect.signature(function).parameters) - {"self"}
    except ValueError:
        signatures = re.findall(r"^.*\(self: .*-> .*$", function.__doc__, re.MULTILINE)
        return set(re.findall(r"(\w+): ", " ".join(signatures))) - {"self"}


def test_all_that_fastseg_uses_of_the_module_is_there() -> None:
    assert [name for name in Api.__annotations__ if not hasattr(real, name)] == []
    assert [name for name in Api.__annotations__ if not hasattr(FAKE, name)] == []


@pytest.mark.parametrize("name", CLASSES)
def test_the_fake_has_no_name_that_the_real_one_has_not(name: str) -> None:
    fake, theirs = getattr(FAKE, name), getattr(real, name)
    members = [member for member in dir(fake) if not member.startswith("_")]
    assert [member for member in members if not hasattr(theirs, member)] == []
    assert members or name in ("IHostMemory", "ITensor")  # which have theirs when they are made


@pytest.mark.parametrize("name", CLASSES)
def test_the_fakes_methods_take_what_the_real_ones_do(name: str) -> None:
    fake, theirs = getattr(FAKE, name), getattr(real, name)
    methods = {
        member: (arguments(value), arguments(getattr(theirs, member)))
        for member, value in inspect.getmembers(fake, inspect.isfunction)
        if not member.startswith("_")
    }
    unnamed = re.compile(r"arg\d")  # pybind11's name for those that have none
    assert {
        member: (mine, known)
        for member, (mine, known) in methods.items()
        if not mine <= known and not any(map(unnamed.fullmatch, known))
    } == {}


def test_mypy_finds_misuses_of_the_real_bindings_and_none_in_fastseg(tmp_path: Path) -> None:
    misuses = tmp_path / "misuses.py"
    misuses.write_text(MISUSES)
    done = subprocess.run(
        [sys.executable, STUBS, "--check", misuses], capture_output=True, text=True, check=False
    )
    errors = re.findall(r"^(.*\.py):(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE)
    expected = re.findall(r"# ([\w-]+)$", MISUSES, re.MULTILINE)
    lines = [k for k, line in enumerate(MISUSES.splitlines(), 1) if re.search(r"# [\w-]+$", line)]
    assert len(lines) == 16
    # Names: mypy's cache remembers the folder of an earlier run.
    assert {(Path(file).name, int(line), code) for file, line, code in errors} == {
        ("misuses.py", line, code) for line, code in zip(lines, expected, strict=True)
    }, done.stdout + done.stderr
