"""TensorRT on fake GPUs: the suite of all engines, and what is its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.engines.base import Engine
from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
from fastseg.errors import InferenceError
from fastseg.networks.network import Network, Role
from fastseg.networks.packs import find_pack
from tests.engines.conformance import Conformance
from tests.engines.fake_cuda import gpu
from tests.engines.onnx_networks import convolution
from tests.engines.tensorrt_on_fakes import Machine, images, phantoms_are_drawn_once

__all__ = ["phantoms_are_drawn_once"]


class _OnFakes(Conformance):
    # onnxruntime computes each image alone, whatever lies beside it. A GPU may choose another way to add up
    # for another number of images; how much that changes is measured by tools/gpu_check.
    batch_tolerance = 0.0

    graphs = True

    @pytest.fixture(autouse=True)
    def _machine(self, tmp_path: Path) -> Iterator[None]:
        self.machine = Machine.at(tmp_path, graphs=self.graphs)
        yield
        assert self.machine.is_clean()

    def make(self, network: Network, **options: Any) -> Engine:
        return self.machine.engine(network, **options)


class TestTensorRtWithGraphs(_OnFakes):
    def test_pieces_of_crops_are_launched_as_graphs(self, network: Network) -> None:
        with self.make(network) as engine:
            engine.infer(self.images(300))
            before = self.machine.fake.calls["execute"], self.machine.cuda.calls["launch"]
            engine.infer(self.images(130))
            assert self.machine.fake.calls["execute"] == before[0]
            assert self.machine.cuda.calls["launch"] == before[1] + 3  # 64, 64 and the padded rest

    def test_what_ran_before_is_not_seen_behind_a_piece(self, network: Network) -> None:
        with self.make(network) as engine:
            self.machine.fake.distort = lambda answer: answer + answer.sum()  # one that sees all images
            first = engine.infer(self.images(3))
            engine.infer(self.images(200, seed=1))
            np.testing.assert_array_equal(engine.infer(self.images(3)), first)

    def test_blocks_run_in_their_own_shape(self, tmp_path: Path) -> None:
        with self.make(convolution(tmp_path, spatial=(16, 16, 8))) as engine:
            engine.infer(self.images(3, 16, 16, 8))
        assert self.machine.cuda.calls["capture"] == 0

    def test_where_recording_fails_it_runs_without(self, network: Network) -> None:
        self.machine.cuda.fail("capture", times=99)
        batch = self.images(300)
        with self.make(network) as engine, OnnxRuntimeCpu(network) as reference:
            np.testing.assert_array_equal(engine.infer(batch), reference.infer(batch))
        assert self.machine.cuda.calls["launch"] == 0


class TestTensorRtWithoutGraphs(_OnFakes):
    graphs = False

    def test_pieces_run_in_their_own_shape(self, network: Network) -> None:
        with self.make(network) as engine:
            engine.infer(self.images(67))
        assert self.machine.cuda.calls["launch"] == self.machine.cuda.calls["capture"] == 0

    def test_the_name_is_for_records(self, network: Network) -> None:
        engine = self.make(network, precision="tf32")
        assert engine.name == "tensorrt tf32"
        with engine:
            assert engine.name == "tensorrt 10.16.1.11 tf32 on Fake H200"

    def test_crops_go_64_at_a_time_and_blocks_four(self, network: Network, tmp_path: Path) -> None:
        with self.make(network) as engine:
            assert engine.batch == 64
        with self.make(convolution(tmp_path, spatial=(16, 16, 8))) as engine:
            assert engine.batch == 4

    def test_one_piece_is_read_while_the_next_is_under_way(self, network: Network) -> None:
        order: list[str] = []
        cuda = self.machine.cuda
        count = cuda.count

        def listen(call: str) -> None:
            if call in ("upload", "synchronize"):
                order.append(call[0])
            count(call)

        with self.make(network) as engine:
            cuda.count = listen  # type: ignore[method-assign]
            engine.infer(self.images(4 * 64))
        assert "".join(order) == "uusususs"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine.at(tmp_path, gpu(), gpu(1, name="Fake L4", compute_capability=(8, 9)))
    yield machine
    assert machine.is_clean()


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.DETECT_BLOCKS])
def test_the_built_in_networks_answer_as_the_reference_does(role: Role, machine: Machine) -> None:
    network = find_pack("default").network(role, "t2")
    shapes = {Role.SEGMENT_3D: (3, 64, 64, 8), Role.DETECT_SLICES: (5, 80, 64)}
    batch = 50 + 20 * images(*shapes.get(role, (9, 64, 64)))
    with machine.engine(network) as engine, OnnxRuntimeCpu(network) as reference:
        np.testing.assert_array_equal(engine.infer(batch), reference.infer(batch))
        assert engine.plan.record["max_difference"] == 0
        assert engine.plan.record["flipped"] == 0


@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16", "int8"])
def test_a_reduced_precision_is_another_plan_with_its_own_numbers(precision: str, machine: Machine) -> None:
    network = find_pack("default").network(Role.SEGMENT_2D_LIGHT, "t2")
    with machine.engine(network) as exact, machine.engine(network, precision=precision) as engine:
        assert exact.plan.digest != engine.plan.digest
        record = engine.plan.record
        assert record["precision"] == precision
        assert (record["max_difference"] > 0) == (precision != "tf32")  # the fake has no TF32 arithmetic
        assert record["dice"] > 0.95


@pytest.mark.parametrize("graphs", [True, False])
def test_many_threads_share_the_slots(graphs: bool, tmp_path: Path) -> None:
    machine, network = Machine.at(tmp_path, graphs=graphs), convolution(tmp_path, spatial=(16, 16))
    batches = [images(count, seed=count) for count in (1, 64, 65, 150, 200, 7)]
    answers: dict[int, Any] = {}
    with machine.engine(network) as engine, OnnxRuntimeCpu(network) as reference:

        def ask(k: int) -> None:
            answers[k] = [engine.infer(batches[k]) for _ in range(10)]

        threads = [threading.Thread(target=ask, args=(k,)) for k in range(len(batches))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for k, batch in enumerate(batches):
            assert len(answers[k]) == 10
            for answer in answers[k]:
                np.testing.assert_array_equal(answer, reference.infer(batch))
    assert machine.is_clean()


def test_buffers_grow_with_the_slices_and_are_kept(machine: Machine) -> None:
    network = find_pack("default").network(Role.DETECT_SLICES, "t2")
    with machine.engine(network) as engine:
        engine.infer(images(3, 48, 48))
        engine.infer(images(8, 256, 256))
        made = machine.cuda.calls["allocate"]
        engine.infer(images(4, 96, 112))
        engine.infer(images(8, 256, 256))
        assert machine.cuda.calls["allocate"] == made


def test_slices_beyond_what_the_plan_is_for_are_refused_before_anything_is_touched(machine: Machine) -> None:
    network = find_pack("default").network(Role.DETECT_SLICES, "t2")
    with machine.engine(network) as engine:
        before = machine.cuda.calls.copy(), machine.fake.calls.copy()
        with pytest.raises(InferenceError, match=r"does not fit an engine for images of .*--device cpu"):
            engine.infer(images(1, 48, 1024))
        assert (machine.cuda.calls, machine.fake.calls) == before


def test_a_plan_is_built_once_and_then_taken_from_the_cache(machine: Machine, tmp_path: Path) -> None:
    network = convolution(tmp_path, spatial=(16, 16))
    with machine.engine(network) as engine:
        first = engine.plan
    with machine.engine(network) as engine:
        assert engine.plan == first
    assert machine.fake.calls["build"] == 1
    record = dict(first.record)
    assert record.pop("seconds") >= 0
    assert record.pop("bytes") == len(first.content)
    assert record.pop("created")
    assert record.pop("driver") in record.pop("drivers")
    assert record.pop("pixels") > 0
    assert record == {
        "network": network.name,
        "network_sha256": network.sha256,
        "device": "Fake H200",
        "precision": "fp32",
        "vendor": "TensorRT",
        "version": "10.16.1.11",
        "max_difference": 0.0,
        "flipped": 0,
        "dice": 1.0,
    }


def test_a_plan_that_was_accepted_is_not_run_again_before_it_is_used(
    machine: Machine, tmp_path: Path
) -> None:
    network = convolution(tmp_path, spatial=(16, 16))
    with machine.engine(network):
        pass
    before = machine.fake.calls["execute"]
    with machine.engine(network):
        assert machine.fake.calls["execute"] == before


def test_each_gpu_has_its_own_plan(machine: Machine, tmp_path: Path) -> None:
    network, batch = convolution(tmp_path, spatial=(16, 16)), images(3)
    with machine.engine(network) as one, machine.engine(network, number=1) as other:
        assert one.name != other.name
        assert one.plan.digest != other.plan.digest
        np.testing.assert_array_equal(one.infer(batch), other.infer(batch))


def test_a_closed_engine_has_no_plan(machine: Machine, tmp_path: Path) -> None:
    engine = machine.engine(convolution(tmp_path, spatial=(16, 16)))
    for _ in range(2):
        with pytest.raises(InferenceError, match="not open"):
            _ = engine.plan
        with engine:
            assert engine.plan.path is not None


def is_open(engine: Any) -> bool:
    with suppress(InferenceError):
        return engine.plan is not None
    return False


def test_closing_waits_for_who_is_still_being_answered(machine: Machine, tmp_path: Path) -> None:
    network, batch = convolution(tmp_path, spatial=(16, 16)), images(200)
    asked, go_on = threading.Event(), threading.Event()
    answers: list[Any] = []
    engine = machine.engine(network)
    engine.__enter__()
    wanted = engine.infer(batch)

    def slow(answer: Any) -> Any:
        asked.set()
        assert go_on.wait(60)
        return answer

    machine.fake.distort = slow
    asking = threading.Thread(target=lambda: answers.append(engine.infer(batch)))
    asking.start()
    assert asked.wait(60)
    closing = threading.Thread(target=lambda: engine.__exit__(None, None, None))
    closing.start()
    while is_open(engine):  # until that has begun
        assert closing.is_alive()
    closing.join(0.05)
    assert closing.is_alive()
    with pytest.raises(InferenceError, match="not open"):
        engine.infer(batch)
    go_on.set()
    for thread in (asking, closing):
        thread.join(60)
    np.testing.assert_array_equal(answers[0], wanted)
