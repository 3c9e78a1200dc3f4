"""Both bindings of CUDA behind one device: who owns what, and what the driver refuses."""

from __future__ import annotations

import gc
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastseg.engines.cuda import device as device_module
from fastseg.engines.cuda.base import Device, GpuFacts
from fastseg.engines.cuda.open import bind, layer_problem, open_device
from fastseg.engines.cuda.probe import Probe
from fastseg.engines.cuda.selftest import selftest
from fastseg.errors import EngineError, EngineUnavailable, InferenceError, OutOfDeviceMemory
from tests.engines.fake_cuda_modules import FakeDriver, cuda_modules
from tests.engines.fake_pycuda import pycuda_modules

GPU = GpuFacts(0, "Fake H200", (9, 0), 132, 1 << 24, (13, 0))
MODULES = {"pycuda": pycuda_modules, "cuda-bindings": cuda_modules}


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    for name in ("pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.bindings.driver"):
        monkeypatch.setitem(sys.modules, name, None)  # not installed
    monkeypatch.setattr(device_module, "probe", lambda: Probe((GPU,), (13, 0), ""))
    return FakeDriver(GPU.memory_bytes)


@pytest.fixture(params=MODULES)
def layer(request: pytest.FixtureRequest, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, module in MODULES[request.param](driver).items():
        monkeypatch.setitem(sys.modules, name, module)
    return str(request.param)


@pytest.fixture
def device(layer: str, driver: FakeDriver) -> Iterator[Device]:
    with open_device(0) as opened:
        yield opened
    assert not driver.live
    assert not driver.retained
    assert not driver.depth()


def one_line(error: pytest.ExceptionInfo[EngineError]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


def test_nothing_touches_the_gpu_before_the_device_is_entered(layer: str, driver: FakeDriver) -> None:
    open_device(0)
    assert not driver.calls


def test_the_device_names_the_gpu_and_its_binding(device: Device, layer: str) -> None:
    assert device.facts == GPU
    assert re.fullmatch(rf"{layer} \d+\.[\d.]+", device.layer)


def test_the_selftest_passes(device: Device, layer: str) -> None:
    result = selftest(device, nbytes=1 << 18)
    outcomes = {each["name"]: each["outcome"] for each in result["checks"]}
    assert result["passed"], result
    absent = [name for name, outcome in outcomes.items() if outcome == "absent"]
    assert len(absent) == (2 if layer == "pycuda" else 0), outcomes
    assert result["upload_gb_per_s"] > 0
    assert result["download_gb_per_s"] > 0


@pytest.mark.parametrize("call", ["cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuStreamCreate", "cuMemGetInfo"])
def test_the_selftest_goes_on_after_a_failure_and_tells_it(
    device: Device, driver: FakeDriver, call: str
) -> None:
    driver.fail[call] = "CUDA_ERROR_ILLEGAL_ADDRESS"
    result = selftest(device, nbytes=1 << 12)
    assert not result["passed"]
    failed = [each["detail"] for each in result["checks"] if each["outcome"] == "failed"]
    assert all(call in each for each in failed), failed
    driver.fail.clear()


def test_the_selftest_sees_bytes_that_come_back_changed(device: Device, driver: FakeDriver) -> None:
    driver.cuMemcpyDtoHAsync = lambda *_: None  # type: ignore[method-assign]
    result = selftest(device, nbytes=1 << 12)
    assert any("came back changed" in each["detail"] for each in result["checks"])


def test_the_selftest_sees_memory_that_is_lost(device: Device, driver: FakeDriver) -> None:
    lost: list[int] = []

    def info() -> tuple[int, int]:
        lost.append(1 << 12)
        return driver.memory_bytes - sum(lost), driver.memory_bytes

    driver.cuMemGetInfo = info  # type: ignore[method-assign]
    details = {each["name"]: each for each in selftest(device, nbytes=1 << 12)["checks"]}
    assert details["memory comes back"]["outcome"] == "failed"
    assert "are missing" in details["memory comes back"]["detail"]


def test_an_answer_is_there_after_the_stream_was_waited_for_and_not_before(device: Device) -> None:
    with device.current():
        stream, memory, pinned = device.stream(), device.allocate(4), device.pinned((4,), np.uint8)
        pinned.array[:] = 7
        device.upload(memory, pinned.array, stream)
        stream.synchronize()
        pinned.array[:] = 0
        device.download(pinned.array, memory, stream)
        assert pinned.array.tolist() == [0] * 4
        stream.synchronize()
        assert pinned.array.tolist() == [7] * 4
        for each in (pinned, memory, stream):
            each.free()


def test_addresses_and_handles_are_numbers_that_tensorrt_takes(device: Device) -> None:
    with device.current():
        memory, stream = device.allocate(8), device.stream()
        assert type(memory.address) is int
        assert type(stream.handle) is int
        assert memory.nbytes == 8
        memory.free()
        stream.free()


def test_what_was_forgotten_is_freed_and_told(layer: str, driver: FakeDriver) -> None:
    device = open_device(0)
    device.__enter__()
    with device.current():
        device.allocate(4), device.allocate(5), device.pinned((3,)), device.stream(), device.event()
    assert sum(driver.kinds().values()) == 5
    with pytest.warns(ResourceWarning, match="2 device buffer, 1 pinned buffer, 1 stream, 1 event") as told:
        device.__exit__(None, None, None)
    assert "\n" not in str(told[0].message)
    assert not driver.live
    assert not driver.retained


def test_what_an_error_left_behind_is_freed_without_a_word(layer: str, driver: FakeDriver) -> None:
    def fail() -> None:
        with open_device(0) as device, device.current():
            device.allocate(4)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not driver.live
    assert not driver.retained
    assert not driver.depth()


def test_freeing_twice_and_using_what_was_freed_is_refused(device: Device) -> None:
    with device.current():
        things = device.allocate(4), device.pinned((4,)), device.stream(), device.event()
        for each in things:
            each.free()
            with pytest.raises(InferenceError, match="freed twice"):
                each.free()
        memory, pinned, stream, event = things
        uses: list[Callable[[], object]] = [
            lambda: memory.address,
            lambda: pinned.array,
            lambda: stream.handle,
            stream.synchronize,
            lambda: event.record(stream),
            lambda: device.upload(memory, np.zeros(1, np.float32), stream),
        ]
        for use in uses:
            with pytest.raises(InferenceError, match="after it was freed"):
                use()


def test_a_closed_device_refuses_everything(layer: str) -> None:
    device = open_device(0)
    for _ in range(2):
        for use in (
            device.free_bytes,
            lambda: device.facts,
            lambda: device.layer,
            device.current().__enter__,
        ):
            with pytest.raises(InferenceError, match="not open"):
                use()
        with device:
            pass


def test_a_device_can_be_opened_again_but_not_twice_at_once(layer: str, driver: FakeDriver) -> None:
    device = open_device(0)
    for _ in range(2):
        with device, pytest.raises(InferenceError, match="open already"):
            device.__enter__()
    assert not driver.retained


def test_calls_need_the_context_in_their_thread(device: Device) -> None:
    with pytest.raises(InferenceError, match="not current in thread MainThread"):
        device.allocate(4)
    with device.current(), ThreadPoolExecutor(1, "worker") as pool:
        future = pool.submit(device.stream)
    with pytest.raises(InferenceError, match="not current in thread worker_0"):
        future.result()


def test_contexts_nest_and_are_taken_off_in_every_thread(device: Device, driver: FakeDriver) -> None:
    depths = []

    def work(_: int) -> None:
        with device.current(), device.current():
            device.allocate(8).free()
        with pytest.raises(KeyError), device.current():
            raise KeyError
        depths.append(driver.depth())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(32)))
    assert depths == [0] * 32


def test_things_made_in_one_thread_are_freed_in_another(device: Device, driver: FakeDriver) -> None:
    made = []

    def make() -> None:
        with device.current():
            made.extend([device.allocate(4), device.stream(), device.event(), device.pinned((4,))])

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    with device.current():
        for each in made:
            each.free()
    assert not driver.live


def test_a_device_is_closed_by_another_thread_than_opened_it(layer: str, driver: FakeDriver) -> None:
    device = open_device(0).__enter__()
    thread = threading.Thread(target=device.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert not driver.retained


def test_two_devices_on_one_gpu_share_its_context_and_nothing_else(layer: str, driver: FakeDriver) -> None:
    with open_device(0) as first, first.current(), open_device(0) as second, second.current():
        assert driver.retained == 2
        memory, stream = first.allocate(4), second.stream()
        with pytest.raises(InferenceError, match="is not a stream of this device"):
            first.upload(memory, np.zeros(1, np.float32), stream)
        stream.free()
        with first.current():
            memory.free()
    assert not driver.retained
    assert not driver.depth()


def test_running_out_of_memory_says_how_much_was_asked_and_the_gpu_goes_on(device: Device) -> None:
    with device.current():
        for take in (lambda: device.allocate(1 << 25), lambda: device.pinned((1 << 31,), np.uint8)):
            with pytest.raises(
                OutOfDeviceMemory, match=r"GPU 0: cuMem\w+ for \d+\.0 MiB .*OUT_OF_MEMORY"
            ) as error:
                take()
            assert "nvidia-smi" in one_line(error)
        device.allocate(16).free()


def test_copies_that_do_not_fit_are_refused(device: Device) -> None:
    with device.current():
        memory, stream, pinned = device.allocate(4), device.stream(), device.pinned((4, 4), np.uint8)
        with pytest.raises(InferenceError, match="16 bytes do not fit the 4 on"):
            device.upload(memory, pinned.array, stream)
        with pytest.raises(InferenceError, match="strides"):
            device.download(pinned.array[:, 0], memory, stream)
        with pytest.raises(InferenceError, match="at least 1"):
            device.allocate(0)
        for each in (memory, stream, pinned):
            each.free()


def use_everything(device: Device) -> None:
    with device.current():
        device.free_bytes()
        stream, memory, pinned = device.stream(), device.allocate(4), device.pinned((1,))
        first, second = device.event(), device.event()
        first.record(stream)
        device.upload(memory, pinned.array, stream)
        device.download(pinned.array, memory, stream)
        second.record(stream)
        second.milliseconds_since(first)
        stream.synchronize()
        if device.graphs:
            graph = device.capture(stream, lambda: device.upload(memory, pinned.array, stream))
            graph.launch(stream)
            stream.synchronize()
            graph.free()
        for each in (stream, memory, pinned, first, second):
            each.free()


CALLS = sorted(name for name in vars(FakeDriver) if name.startswith("cu"))
GRAPH_CALLS = {name for name in CALLS if "Graph" in name or "Capture" in name}
# They fail in a clean-up, where the error that came before says more.
QUIET = {
    "cuDevicePrimaryCtxRelease",
    "cuCtxSynchronize",
    "cuEventDestroy",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuMemFree",
    "cuMemFreeHost",
    "cuStreamDestroy",
}


@pytest.mark.parametrize("call", CALLS)
def test_every_call_that_the_driver_refuses_becomes_one_line_of_ours(
    layer: str, driver: FakeDriver, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    driver.fail[call] = "CUDA_ERROR_ILLEGAL_ADDRESS"
    device = open_device(0)
    if call in ("cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain"):
        with pytest.raises(
            EngineUnavailable, match=f"{call} failed with CUDA_ERROR_ILLEGAL_ADDRESS"
        ) as error:
            device.__enter__()
        one_line(error)
        assert not driver.retained
        return
    if call in QUIET or (layer == "pycuda" and call in GRAPH_CALLS):
        with caplog.at_level(logging.WARNING), device:
            use_everything(device)
        assert driver.calls[call] or call in GRAPH_CALLS | {"cuCtxSynchronize"}
        if layer != "pycuda" and call not in ("cuCtxSynchronize", "cuGraphDestroy"):
            assert f"{call} failed with CUDA_ERROR_ILLEGAL_ADDRESS" in caplog.text
        return
    with (
        pytest.raises(
            InferenceError, match=rf"GPU 0: {call}.* failed with CUDA_ERROR_ILLEGAL_ADDRESS"
        ) as error,
        device,
    ):
        use_everything(device)
    assert "start it again" in one_line(error)
    if call not in ("cuCtxPopCurrent", "cuCtxPushCurrent"):
        assert not driver.retained
        assert not driver.depth()


def test_an_error_that_fastseg_does_not_know_keeps_its_name(device: Device, driver: FakeDriver) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError('Function "cuStreamCreate"\nnot found')

    driver.cuStreamCreate = broken  # type: ignore[method-assign, assignment]
    with device.current(), pytest.raises(InferenceError, match='cuStreamCreate" not found') as error:
        device.stream()
    one_line(error)


def test_a_graph_repeats_its_work_with_what_lies_in_its_memory_then(
    driver: FakeDriver, device: Device
) -> None:
    if not device.graphs:
        with device.current():
            stream = device.stream()
            with pytest.raises(InferenceError, match="no CUDA graphs"):
                device.capture(stream, lambda: None)
            stream.free()
        return
    with device.current():
        stream, memory, pinned = device.stream(), device.allocate(1), device.pinned((2,), np.uint8)

        def work() -> None:
            device.upload(memory, pinned.array[:1], stream)
            device.download(pinned.array[1:], memory, stream)

        graph = device.capture(stream, work)
        assert driver.kinds()["graph"] == 0  # the executable does not need it
        for number in (3, 4):
            pinned.array[:] = number, 0
            graph.launch(stream)
            stream.synchronize()
            assert pinned.array.tolist() == [number, number]
        for each in (graph, stream, memory, pinned):
            each.free()


def test_pinned_memory_may_be_empty(device: Device) -> None:
    with device.current():
        pinned = device.pinned((0, 1, 64, 64))
        assert pinned.array.shape == (0, 1, 64, 64)
        pinned.free()


def test_pycuda_comes_first_and_its_objects_end_without_the_garbage_collector(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for make in MODULES.values():
        for name, module in make(driver).items():
            monkeypatch.setitem(sys.modules, name, module)
    gc.disable()
    try:
        with open_device(0) as device, device.current():
            assert device.layer.startswith("pycuda ")
            stream = device.stream()
            stream.free()
            assert not driver.live
    finally:
        gc.enable()
    with open_device(0, layer="cuda-bindings") as device:
        assert device.layer.startswith("cuda-bindings ")


def test_no_binding_is_told_with_what_to_install(driver: FakeDriver) -> None:
    with pytest.raises(
        EngineUnavailable, match=r"pycuda: .*; cuda-bindings: .*pip install cuda-bindings"
    ) as error:
        bind(0)
    one_line(error)
    assert not driver.calls


def test_an_installed_binding_is_found_without_loading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert layer_problem() == ""
    monkeypatch.setattr("fastseg.engines.cuda.open.find_spec", lambda name: None)
    assert layer_problem().startswith("no binding of CUDA is installed: pip install")


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(layer: str, driver: FakeDriver) -> None:
    with pytest.raises(EngineUnavailable, match=r"GPU 3 is not there: .* cuda:0 \(Fake H200\)") as error:
        open_device(3).__enter__()
    one_line(error)
    assert not driver.calls


def test_without_a_driver_the_probe_says_why(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "probe", lambda: Probe((), None, "no NVIDIA driver: ..."))
    with pytest.raises(EngineUnavailable, match="no NVIDIA driver"):
        open_device(0).__enter__()
