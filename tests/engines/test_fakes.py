"""The fakes of CUDA and TensorRT notice what the real ones punish."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastseg.engines.cuda.base import Device
from fastseg.engines.tensorrt.build import Recipe, build_engine
from fastseg.engines.tensorrt.profiles import Profile
from fastseg.engines.tensorrt.vendor import vendor_of
from fastseg.errors import InferenceError, OutOfDeviceMemory
from tests.engines.fake_cuda import FakeCuda, FakeDevice, Misuse, gpu
from tests.engines.fake_numbers import FakeNumbers
from tests.engines.fake_tensorrt import FakeTensorRt
from tests.engines.onnx_networks import convolution, expected


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda(gpu(memory_bytes=1 << 20))


@pytest.fixture
def device(cuda: FakeCuda) -> Iterator[FakeDevice]:
    with cuda.open_device(0) as device, device.current():
        yield device
        for each in reversed(device._made):
            each.free()


def misuse(what: str) -> Any:
    return pytest.raises(Misuse, match=what)


def test_copies_are_done_when_the_stream_is_synchronised(device: FakeDevice) -> None:
    host, stream, memory = device.pinned((4,)), device.stream(), device.allocate(16)
    host.array[:] = 1
    device.upload(memory, host.array, stream)
    host.array[:] = 2  # too early
    stream.synchronize()
    host.array[:] = 3
    device.download(host.array, memory, stream)
    assert (host.array == 3).all()
    stream.synchronize()
    assert (host.array == 2).all()


def test_a_part_of_pinned_memory_may_be_copied_from_its_start_only(device: FakeDevice) -> None:
    host, stream, memory = device.pinned((4, 2)), device.stream(), device.allocate(16)
    device.upload(memory, host.array[:2], stream)
    stream.synchronize()
    with misuse("not pinned"):
        device.upload(memory, host.array[1:2], stream)
    with misuse("not pinned"):
        device.upload(memory, np.zeros(2, np.float32), stream)
    with misuse("not contiguous"):
        device.upload(memory, host.array[:, 0], stream)
    with misuse("32 bytes, where the device has 16"):
        device.upload(memory, host.array, stream)


def test_everything_is_freed_once_and_not_used_afterwards(device: FakeDevice) -> None:
    things = [
        device.pinned((2,)),
        device.stream(),
        device.allocate(8),
        device.event(),
        device.capture(device.stream(), lambda: None),
    ]
    for thing in things:
        thing.free()
        with misuse("freed twice"):
            thing.free()
    for use in (
        lambda: things[0].array,
        lambda: things[1].synchronize(),
        lambda: things[2].address,
        lambda: things[4].launch(device.stream()),
    ):
        with misuse("after it was freed"):
            use()


def test_memory_is_not_freed_under_a_copy(device: FakeDevice) -> None:
    host, stream, memory = device.pinned((2,)), device.stream(), device.allocate(8)
    device.upload(memory, host.array, stream)
    with misuse("not waited for"):
        stream.free()
    memory.free()
    with misuse("nobody's memory"):
        stream.synchronize()


def test_leaks_are_reported_when_the_device_is_closed(cuda: FakeCuda) -> None:
    with misuse("leaked: 2 device buffer, 1 stream"), cuda.open_device(0) as device, device.current():
        _ = device.allocate(4), device.allocate(4), device.stream()


def test_a_context_has_to_be_current_in_the_thread_that_calls(cuda: FakeCuda) -> None:
    with cuda.open_device(0) as device, ThreadPoolExecutor(1) as pool:
        with misuse("without a current context"):
            device.allocate(4)
        with device.current():
            with device.current():
                pass
            device.allocate(4).free()
            with misuse("without a current context"):
                pool.submit(device.allocate, 4).result(60)
    with misuse("not open"), device.current():
        pass


def test_the_context_of_another_gpu_does_not_do() -> None:
    cuda = FakeCuda(gpu(), gpu(1))
    with cuda.open_device(0) as one, cuda.open_device(1) as other, one.current():
        with misuse("in the context of another"):
            other.allocate(4)
        with other.current():
            other.allocate(4).free()


def test_memory_ends(device: FakeDevice) -> None:
    memory = device.allocate(1 << 19)
    assert device.free_bytes() == 1 << 19
    with pytest.raises(OutOfDeviceMemory):
        device.allocate((1 << 19) + 1)
    memory.free()
    assert device.free_bytes() == 1 << 20


def test_a_call_fails_when_it_was_told_to(cuda: FakeCuda, device: FakeDevice) -> None:
    cuda.fail("allocate", after=1, times=2)
    device.allocate(4)
    for _ in range(2):
        with pytest.raises(InferenceError, match="cuda: allocate failed"):
            device.allocate(4)
    device.allocate(4)


def test_a_graph_does_its_work_again_and_none_while_it_is_recorded(device: FakeDevice) -> None:
    host, stream, memory = device.pinned((2,)), device.stream(), device.allocate(8)

    def copy() -> None:
        device.upload(memory, host.array[:1], stream)
        device.download(host.array, memory, stream)

    host.array[:] = 5
    graph = device.capture(stream, copy)
    stream.synchronize()
    assert (host.array == 5).all()
    for value in (1, 2):
        host.array[:] = value
        graph.launch(stream)
        stream.synchronize()
        assert host.array[0] == value
        assert host.array[1] != value  # it came from the device, where nothing was written
    with misuse("allocate while a stream's work is captured"):
        device.capture(stream, lambda: device.allocate(4))
    with misuse("synchronize while"):
        device.capture(stream, stream.synchronize)


def test_events_measure_time(device: FakeDevice) -> None:
    stream, first, last = device.stream(), device.event(), device.event()
    with misuse("not recorded"):
        last.milliseconds_since(first)
    first.record(stream)
    last.record(stream)
    assert last.milliseconds_since(first) >= 0


def test_it_is_a_device(device: Device) -> None:
    for name in ("facts", "layer", "graphs", *(name for name in vars(Device) if name[0] != "_")):
        assert hasattr(device, name)


@pytest.fixture
def fake(cuda: FakeCuda) -> FakeTensorRt:
    return FakeTensorRt(cuda)


@pytest.fixture
def network(tmp_path: Any) -> Any:
    return convolution(tmp_path, spatial=(8, 8)).path


def context_of(fake: FakeTensorRt, network: Any) -> Any:
    """An execution context; no fixture, because those live longer than the device."""
    vendor = vendor_of(fake.module)
    profile = Profile("in", (1, 1, 8, 8), (4, 1, 8, 8), (6, 1, 8, 8))
    built = build_engine(network.read_bytes(), profile, Recipe("fp32"), trt=fake.module)
    runtime = fake.module.Runtime(vendor.log.logger)
    return runtime.deserialize_cuda_engine(built.plan).create_execution_context()


def test_constructors_that_get_a_null_pointer_are_type_errors(fake: FakeTensorRt) -> None:
    log = vendor_of(fake.module).log.logger
    for kind in ("Builder", "Runtime"):
        with pytest.raises(TypeError, match="nullptr"):  # no GPU
            getattr(fake.module, kind)(log)
        with pytest.raises(TypeError, match="incompatible"):
            getattr(fake.module, kind)(None)
    for kind in ("INetworkDefinition", "IBuilderConfig", "ICudaEngine", "IExecutionContext"):
        with pytest.raises(TypeError, match="No constructor"):
            getattr(fake.module, kind)()


def test_dimensions_are_unknown_until_the_shape_is_set(
    fake: FakeTensorRt, device: FakeDevice, network: Any
) -> None:
    context = context_of(fake, network)
    assert context.get_tensor_shape("out") == (-1, 1, 8, 8)
    assert context.infer_shapes() == ["in"]
    assert context.set_input_shape("in", (3, 1, 8, 8))
    assert context.get_tensor_shape("out") == (3, 1, 8, 8)
    assert context.infer_shapes() == []
    for wrong in ((7, 1, 8, 8), (0, 1, 8, 8), (3, 1, 8), (3, 1, 8, 9)):
        assert not context.set_input_shape("in", wrong)
    assert not context.set_input_shape("inn", (3, 1, 8, 8))


def test_nothing_runs_without_all_addresses_and_answers_come_late(
    fake: FakeTensorRt, device: FakeDevice, network: Any
) -> None:
    context, shape = context_of(fake, network), (2, 1, 8, 8)
    stream, host = device.stream(), device.pinned(shape)
    memory = device.allocate(host.array.nbytes), device.allocate(host.array.nbytes)
    host.array[:] = 1
    wanted = expected(network, host.array.copy())
    device.upload(memory[0], host.array, stream)
    assert not context.execute_async_v3(stream.handle)
    assert context.set_input_shape("in", shape)
    assert context.set_tensor_address("in", memory[0].address)
    assert not context.execute_async_v3(stream.handle)
    assert context.set_tensor_address("out", memory[1].address)
    assert not context.set_tensor_address("aut", memory[1].address)
    assert context.execute_async_v3(stream.handle)
    device.download(host.array, memory[1], stream)
    assert (host.array == 1).all()
    stream.synchronize()
    np.testing.assert_allclose(host.array, wanted, rtol=0, atol=1e-6)  # onnxruntime against numpy


def test_a_context_is_for_one_thread(fake: FakeTensorRt, device: FakeDevice, network: Any) -> None:
    context = context_of(fake, network)
    stream, memory = device.stream(), device.allocate(4 * 64)
    assert context.set_input_shape("in", (1, 1, 8, 8))
    for name in ("in", "out"):
        assert context.set_tensor_address(name, memory.address)
    assert context.execute_async_v3(stream.handle)
    caught: list[str] = []

    def intrude() -> None:
        with device.current():
            try:
                context.set_input_shape("in", (1, 1, 8, 8))
            except Misuse as error:
                caught.append(str(error))

    for _ in range(2):
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join(60)
        stream.synchronize()
    assert len(caught) == 1
    assert "another thread" in caught[0]


def test_a_graph_needs_a_run_before_and_the_same_shape_after(
    fake: FakeTensorRt, device: FakeDevice, network: Any
) -> None:
    context = context_of(fake, network)
    stream, memory = device.stream(), device.allocate(4 * 128)
    assert context.set_input_shape("in", (1, 1, 8, 8))
    for name in ("in", "out"):
        assert context.set_tensor_address(name, memory.address)

    def run() -> None:
        done.append(context.execute_async_v3(stream.handle))

    done: list[bool] = []
    device.capture(stream, run)
    run()
    graph = device.capture(stream, run)
    assert done == [False, True, True]
    graph.launch(stream)
    stream.synchronize()
    assert context.set_input_shape("in", (2, 1, 8, 8))
    graph.launch(stream)
    with misuse("got another shape"):
        stream.synchronize()


def test_contexts_have_to_be_gone_before_the_device_is(
    cuda: FakeCuda, fake: FakeTensorRt, network: Any
) -> None:
    vendor, kept = vendor_of(fake.module), []
    profile = Profile("in", (1, 1, 8, 8), (4, 1, 8, 8), (6, 1, 8, 8))
    with misuse("leaked: 1 TensorRT engine"), cuda.open_device(0) as device, device.current():
        built = build_engine(network.read_bytes(), profile, Recipe("fp32"), trt=fake.module)
        kept.append(fake.module.Runtime(vendor.log.logger).deserialize_cuda_engine(built.plan))
    kept.clear()
    with misuse("destroyed without its context"), cuda.open_device(0):
        pass


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        (None, "no optimization profile has been defined"),
        ([("inn", 1, 2, 3)], "no optimization profile for input in"),
        ([("in", 1, 2, 3, 9)], "contradicts the shape"),
    ],
)
def test_a_wrong_profile_is_found_when_it_is_built(
    profile: Any, reason: str, fake: FakeTensorRt, device: FakeDevice, network: Any
) -> None:
    trt, log = fake.module, vendor_of(fake.module).log
    builder = trt.Builder(log.logger)
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, log.logger)
    assert not parser.parse(b"garbage")
    assert parser.num_errors == 1
    assert parser.parse(b"")  # as the real one
    assert parser.parse(network.read_bytes())
    config = builder.create_builder_config()
    for name, *batches, side in [(*each, 8)[:5] for each in profile or ()]:
        shapes = builder.create_optimization_profile()
        shapes.set_shape(name, *((n, 1, 8, side) for n in batches))
        assert config.add_optimization_profile(shapes) == 0
    assert builder.build_serialized_network(definition, config) is None
    assert reason in log.explain()


def test_bfloat16_is_rounded_after_every_operation() -> None:
    one = helper.make_tensor("one", TensorProto.BFLOAT16, (1,), [1.0])
    nodes = [
        helper.make_node("Cast", ["in"], ["short"], to=TensorProto.BFLOAT16),
        helper.make_node("Add", ["short", "one"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["out"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n",)) for name in ("in", "out")]
    graph = helper.make_graph(nodes, "sum", ends[:1], ends[1:], [one])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    values = np.array([0.5, 2**-7, 2**-9, 100.3], np.float32)
    # 8 bits of mantissa: 1 + 2**-7 is a number, 1 + 2**-9 is none; 100.3 becomes 100.5, and 101.5 stays.
    wanted = [1.5, 1 + 2**-7, 1.0, 101.5]
    np.testing.assert_array_equal(FakeNumbers(model.SerializeToString()).run(values), wanted)
    assert numpy_helper.to_array(one).astype(np.float32)[0] == 1
