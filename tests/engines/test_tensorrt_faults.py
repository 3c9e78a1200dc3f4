"""What goes wrong with TensorRT: each fault has its message, of one line, and leaves nothing behind."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.engines.acceptance import Refused
from fastseg.engines.cuda import probe as driver
from fastseg.engines.cuda.probe import Probe
from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
from fastseg.engines.tensorrt import ready
from fastseg.engines.tensorrt.engine import TensorRt
from fastseg.engines.tensorrt.plans import PlanCache, PlanKey
from fastseg.errors import (
    EngineBuildError,
    EngineError,
    EngineUnavailable,
    InferenceError,
    OutOfDeviceMemory,
)
from fastseg.networks.network import Network
from tests.engines.fake_cuda import gpu
from tests.engines.onnx_networks import convolution
from tests.engines.tensorrt_on_fakes import Machine, images, open_and_ask, phantoms_are_drawn_once

__all__ = ["phantoms_are_drawn_once"]


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return convolution(tmp_path, spatial=(16, 16))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine.at(tmp_path)
    yield machine
    assert machine.is_clean()


def refused(engine: TensorRt, kind: type[EngineError], *parts: str) -> str:
    """The message with which an engine does not open."""
    with pytest.raises(EngineError) as caught, engine:
        pass
    return one_line(caught.value, kind, *parts)


def one_line(error: EngineError, kind: type[EngineError], *parts: str) -> str:
    text = str(error)
    assert type(error) is kind
    assert "\n" not in text
    for part in parts:
        assert part in text
    return text


def opens(engine: TensorRt, network: Network) -> None:
    """It opens, and answers as the reference does."""
    batch = images(70)
    with engine, OnnxRuntimeCpu(network) as reference:
        np.testing.assert_array_equal(engine.infer(batch), reference.infer(batch))


def test_no_driver(machine: Machine, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Probe((), None, "no NVIDIA driver: libcuda.so.1 does not load: install NVIDIA's driver")
    monkeypatch.setattr(driver, "probe", lambda: found)
    engine = machine.engine(network, open_device=None)
    refused(engine, EngineUnavailable, "no NVIDIA driver", "install", "--device cpu")
    assert not machine.fake.calls  # without a driver the real one may end the interpreter


def test_a_driver_that_is_too_old(
    machine: Machine, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = gpu(driver=(12, 4))
    monkeypatch.setattr(driver, "probe", lambda: Probe((old,), old.driver, ""))
    monkeypatch.setattr(driver, "needed_cuda_major", lambda: 13)
    engine = machine.engine(network, open_device=None)
    refused(engine, EngineUnavailable, "CUDA 12.4", "driver >= 580", "--device cpu")
    assert not machine.fake.calls


def test_no_tensorrt(machine: Machine, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    refused(machine.engine(network, vendor=None), EngineUnavailable, "pip install 'fastseg[gpu]'")


def test_no_such_gpu(machine: Machine, network: Network) -> None:
    refused(machine.engine(network, number=3), EngineUnavailable, "GPU 3")


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("Builder", EngineBuildError),
        ("create_network", EngineBuildError),
        ("create_builder_config", EngineBuildError),
        ("create_optimization_profile", EngineBuildError),
        ("parse", EngineBuildError),
        ("build", EngineBuildError),
        ("Runtime", EngineUnavailable),
        ("deserialize", EngineBuildError),
        ("create_execution_context", EngineBuildError),
        ("set_input_shape", InferenceError),
        ("infer_shapes", InferenceError),
        ("set_tensor_address", InferenceError),
        ("execute", InferenceError),
    ],
)
def test_whatever_tensorrt_refuses_is_said_and_the_next_try_works(
    call: str, kind: type[EngineError], machine: Machine, network: Network
) -> None:
    machine.fake.fail(call, "the reason\n is this", times=1)
    text = refused(machine.engine(network), kind, "TensorRT")
    null = call[0].isupper() or (call.startswith("create_") and call != "create_execution_context")
    assert "the reason is this" in text or null or call == "infer_shapes"
    assert machine.cache.entries() == []
    opens(machine.engine(network), network)


def test_parser_errors_are_all_said(machine: Machine, network: Network) -> None:
    machine.fake.fail("parse", "no kernel for operator Swirl")
    refused(machine.engine(network), EngineBuildError, str(network.path), "no kernel for operator Swirl")


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "call", ["open", "stream", "allocate", "pinned", "upload", "download", "synchronize", "launch"]
)
def test_whatever_the_gpu_refuses_leaves_nothing_behind(
    call: str, after: int, graphs: bool, network: Network, tmp_path: Path
) -> None:
    machine = Machine.at(tmp_path, graphs=graphs)
    machine.cuda.fail(call, after=after)
    try:
        with machine.engine(network) as engine:
            for _ in range(3):
                engine.infer(images(200))
    except EngineError as error:
        one_line(error, InferenceError, f"cuda: {call} failed")
    else:  # there were not so many, or it was only a graph that could not be recorded
        assert machine.cuda.calls[call] <= after or graphs
    assert machine.is_clean()
    machine.cuda.heal()
    opens(machine.engine(network), network)


def test_an_execution_that_fails_costs_that_batch_only(machine: Machine, network: Network) -> None:
    with machine.engine(network) as engine:
        wanted = engine.infer(images(200))
        for call in ("execute", "set_input_shape"):
            machine.fake.fail(call, "a kernel is missing", times=2)
        failed = 0
        for _ in range(4):
            try:
                answer = engine.infer(images(200))
            except InferenceError as error:
                failed += 1
                one_line(error, InferenceError, network.name, "a kernel is missing", "--device cpu")
            else:
                np.testing.assert_array_equal(answer, wanted)
        assert failed < 4
        np.testing.assert_array_equal(engine.infer(images(200)), wanted)


def _room(machine: Machine, nbytes: int) -> None:
    """Leave so much memory on the GPU."""
    used = machine.cuda.used[0]
    machine.cuda.gpus = (replace(machine.cuda.gpus[0], memory_bytes=used + nbytes),)


@pytest.mark.parametrize("graphs", [True, False])
def test_a_full_memory_halves_the_batch(graphs: bool, tmp_path: Path) -> None:
    network = convolution(tmp_path, spatial=(96, 96))
    machine, batch = Machine.at(tmp_path, graphs=graphs), images(150, 96, 96)
    with machine.engine(network), OnnxRuntimeCpu(network) as reference:
        wanted = reference.infer(batch)
    with machine.engine(network) as engine:
        assert engine.batch == 64
        # 64 crops want 2.3 MiB, which become 4; 32 want half. There are two slots of two buffers each.
        _room(machine, 9 << 20)
        np.testing.assert_array_equal(engine.infer(batch), wanted)
        assert engine.batch == 32
        np.testing.assert_array_equal(engine.infer(batch), wanted)
    assert machine.is_clean()


@pytest.mark.parametrize("where", ["allocate", "pinned"])
def test_a_memory_that_stays_full_fails_that_volume_and_not_the_engine(
    where: str, machine: Machine, network: Network
) -> None:
    batch = images(150)
    full = OutOfDeviceMemory("GPU 0: no memory left: end what else uses it")
    with machine.engine(network) as engine, OnnxRuntimeCpu(network) as reference:
        wanted = engine.infer(batch)
        machine.cuda.fail("launch", full)  # the batch is halved, and buffers are made anew
        machine.cuda.fail(where, full, times=6)  # at 32, 16, 8, 4, 2 and 1
        with pytest.raises(OutOfDeviceMemory) as caught:
            engine.infer(batch)
        one_line(caught.value, OutOfDeviceMemory, network.name, "no memory left", "end what else uses it")
        assert engine.batch == 1
        np.testing.assert_array_equal(engine.infer(batch), wanted)
        np.testing.assert_array_equal(engine.infer(batch), reference.infer(batch))


def test_an_execution_that_runs_out_of_memory_halves_the_batch_too(
    machine: Machine, network: Network
) -> None:
    machine.fake.fail("execute", "Error Code 2: OutOfMemory (Requested size was 123 bytes.)")
    with machine.engine(network) as engine:
        assert engine.batch == 32


def test_a_file_of_a_fixed_batch_cannot_be_halved(machine: Machine, tmp_path: Path) -> None:
    network = convolution(tmp_path, spatial=(16, 16), batch=4)
    with machine.engine(network) as engine:
        machine.cuda.fail("launch", OutOfDeviceMemory("full"))
        with pytest.raises(OutOfDeviceMemory, match="in the smallest batch that it takes"):
            engine.infer(images(9))
        assert engine.infer(images(9)).shape == (9, 1, 16, 16)


def test_without_memory_for_a_second_context_one_does(machine: Machine, network: Network) -> None:
    machine.fake.fail("create_execution_context", "out of memory", after=1)
    opens(machine.engine(network), network)
    assert machine.fake.calls["create_execution_context"] == 2


def test_without_memory_for_any_context_it_does_not_open(machine: Machine, network: Network) -> None:
    machine.fake.context_bytes = 2 << 30
    refused(machine.engine(network), OutOfDeviceMemory, "out of memory", "nvidia-smi")
    assert machine.cache.entries() == []


def test_a_plan_that_does_not_load_is_built_again_once(
    machine: Machine, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    opens(machine.engine(network), network)
    machine.fake.fail("deserialize", "magicTagRead == kMAGIC_TAG failed", times=1)
    opens(machine.engine(network), network)
    assert machine.fake.calls["build"] == 2
    assert "magicTagRead == kMAGIC_TAG failed" in caplog.text
    machine.fake.fail("deserialize", "magicTagRead == kMAGIC_TAG failed", times=9)
    refused(machine.engine(network), EngineBuildError, str(network.path), "kMAGIC_TAG")
    assert machine.fake.calls["build"] == 3


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_a_corrupt_plan_is_built_again(damage: str, machine: Machine, network: Network) -> None:
    with machine.engine(network) as engine:
        path = engine.plan.path
    assert path is not None
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:100], "changed": content[:-1] + b"?", "empty": b""}[damage])
    opens(machine.engine(network), network)
    assert machine.fake.calls["build"] == 2
    assert path.read_bytes() == content


@pytest.mark.parametrize("other", ["GPU", "version"])
def test_a_plan_of_another_gpu_or_version_is_built_again(
    other: str, machine: Machine, network: Network, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    elsewhere = Machine.at(tmp_path / "other", gpu(name="Fake A100", compute_capability=(8, 0)))
    if other == "version":
        elsewhere = Machine.at(tmp_path / "other")
        elsewhere.fake.version = "10.1.0"
    with elsewhere.engine(network) as engine:
        foreign = engine.plan.content
    with machine.engine(network) as engine:
        own = engine.plan
    (entry,) = machine.cache.entries()
    machine.cache.store(PlanKey(entry.key.facts), foreign, own.record)
    opens(machine.engine(network), network)
    with machine.engine(network) as engine:
        assert engine.plan.content == own.content
    assert machine.fake.calls["build"] == 2


def test_a_cache_that_cannot_be_written_costs_time_only(
    machine: Machine, network: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = PlanCache(tmp_path / "file" / "plans")
    for _ in range(2):
        with machine.engine(network, cache=cache) as engine:
            assert engine.plan.path is None
            assert engine.infer(images(3)).shape == (3, 1, 16, 16)
    assert machine.fake.calls["build"] == 2
    assert caplog.text.count("engines") >= 1


def test_of_two_that_want_one_plan_one_builds_and_the_other_waits(machine: Machine, network: Network) -> None:
    engines = [machine.engine(network) for _ in range(3)]
    answers: list[Any] = []
    begin = threading.Barrier(len(engines))

    def ask(engine: TensorRt) -> None:
        begin.wait(300)
        with engine:
            answers.append(engine.infer(images(70)))

    threads = [threading.Thread(target=ask, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert machine.fake.calls["build"] == 1
    assert len(answers) == 3
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


def test_of_two_processes_that_want_one_plan_one_builds(network: Network, tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        done = [pool.submit(open_and_ask, tmp_path, network) for _ in range(2)]
        (one, first), (other, second) = (each.result(300) for each in done)
    assert one + other == 1
    np.testing.assert_array_equal(first, second)


def test_an_engine_with_other_answers_is_refused_with_the_numbers(machine: Machine, network: Network) -> None:
    machine.fake.distort = lambda answer: 1 - answer
    refused(machine.engine(network), Refused, str(network.path), "Dice", "--device cpu")
    assert machine.cache.entries() == []
    machine.fake.distort = lambda answer: np.full_like(answer, np.nan)
    refused(machine.engine(network), Refused, "differ by inf")
    machine.fake.distort = lambda answer: answer
    opens(machine.engine(network), network)


def test_a_plan_is_checked_again_under_another_driver(machine: Machine, network: Network) -> None:
    with machine.engine(network) as engine:
        (first,) = engine.plan.record["drivers"]
    machine.cuda.gpus = (replace(machine.cuda.gpus[0], driver=(13, 1)),)
    before = machine.fake.calls["execute"]
    with machine.engine(network) as engine:
        assert machine.fake.calls["execute"] > before
        assert engine.plan.record["drivers"] == [first, engine.plan.record["driver"]]
        assert "CUDA 13.1" in engine.plan.record["driver"]
    before = machine.fake.calls["execute"]
    with machine.engine(network):
        assert machine.fake.calls["execute"] == before
    assert machine.fake.calls["build"] == 1


def test_a_plan_that_fails_under_another_driver_is_thrown_away(machine: Machine, network: Network) -> None:
    with machine.engine(network):
        pass
    machine.cuda.gpus = (replace(machine.cuda.gpus[0], driver=(13, 1)),)
    machine.fake.distort = lambda answer: 1 - answer
    refused(machine.engine(network), Refused, "Dice")
    assert machine.cache.entries() == []


def test_a_network_without_a_file_is_named(machine: Machine, network: Network) -> None:
    network.path.unlink()
    refused(machine.engine(network), EngineBuildError, str(network.path), "No such file")


@pytest.mark.parametrize(
    ("kernel_module", "name"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat\nGCC version: gcc 12.3.0",
            "535.104.05, CUDA 13.0",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release",
            "580.65.06, CUDA 13.0",
        ),
        ("nothing known", "CUDA 13.0"),
        (None, "CUDA 13.0"),
    ],
)
def test_drivers_are_known_by_their_release(
    kernel_module: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "version"
    if kernel_module is not None:
        path.write_text(kernel_module)
    monkeypatch.setattr(ready, "_KERNEL_MODULE", path)
    assert ready.driver_of(gpu()) == name


def test_an_engine_is_not_entered_twice(machine: Machine, network: Network) -> None:
    with machine.engine(network) as engine:
        with pytest.raises(InferenceError, match="is open already"), engine:
            pass
        assert engine.infer(images(3)).shape == (3, 1, 16, 16)
