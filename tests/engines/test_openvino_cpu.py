"""OpenVINO: the conformance suite, and what it has to be told."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fastseg.engines import machine
from fastseg.engines.base import Engine
from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
from fastseg.engines.openvino_cpu import OpenVinoCpu, bf16_runs, import_openvino
from fastseg.errors import EngineUnavailable, InferenceError
from fastseg.networks.network import CONTRASTS, Network, Role
from fastseg.networks.packs import find_pack
from tests.engines.conformance import Conformance

try:
    import_openvino()
except EngineUnavailable as reason:
    pytest.skip(str(reason), allow_module_level=True)


class TestOpenVinoCpu(Conformance):
    def make(self, network: Network, *, threads: int = 1) -> Engine:
        return OpenVinoCpu(network, threads=threads)

    def test_the_name_is_for_records(self, network: Network) -> None:
        assert self.make(network).name == "openvino cpu fp32"

    @pytest.mark.parametrize("role", [role for role in Role if role is not Role.DETECT_BLOCKS])
    @pytest.mark.parametrize("threads", [2, 3])
    def test_the_built_in_networks_do_not_depend_on_threads_and_neighbours(
        self, threads: int, role: Role
    ) -> None:
        """Not promised by OpenVINO: measured, here and on whatever else runs this."""
        network = find_pack("default").network(role, CONTRASTS[0])
        spatial = (64, 64, 16) if role is Role.SEGMENT_3D else (64, 64)
        batch = 100 * self.images(3 if role is Role.SEGMENT_3D else 11, *spatial)
        with self.make(network) as one, self.make(network, threads=threads) as many:
            together = one.infer(batch)
            np.testing.assert_array_equal(many.infer(batch), together)
            for count in (1, 2, 3):
                np.testing.assert_array_equal(many.infer(batch[:count]), together[:count])

    def test_threads_of_the_caller_get_their_own_answers(self, network: Network) -> None:
        batches = [self.images(5, seed=seed) for seed in range(24)]
        with self.make(network) as engine:
            one_by_one = [engine.infer(batch) for batch in batches]
            with ThreadPoolExecutor(4) as pool:
                at_once = list(pool.map(engine.infer, batches))
        for answer, wanted in zip(at_once, one_by_one, strict=True):
            np.testing.assert_array_equal(answer, wanted)

    def test_the_first_request_of_a_process_is_alone(self, network: Network) -> None:
        """Two at once wait for each other for ever: without that, this script does not end."""
        script = """
import threading, time
import numpy as np
from fastseg.engines import openvino_cpu
from fastseg.networks.packs import find_pack
from fastseg.networks.network import Role

said = []
class Slow:
    def __init__(self, request):
        self.request = request
    def __getattr__(self, name):
        return getattr(self.request, name)
    def start_async(self, inputs):
        said.append("begin")
        time.sleep(0.2)
        self.request.start_async(inputs)
    def wait(self):
        self.request.wait()
        said.append("end")

class Compiled:
    def __init__(self, compiled):
        self.compiled = compiled
    def __getattr__(self, name):
        return getattr(self.compiled, name)
    def create_infer_request(self):
        return Slow(self.compiled.create_infer_request())

network = find_pack("default").network(Role.SEGMENT_2D_LIGHT, "t2")
with openvino_cpu.OpenVinoCpu(network) as engine:
    engine._loaded._compiled = Compiled(engine._loaded._compiled)
    image = np.zeros((1, 1, 64, 64), np.float32)
    threads = [threading.Thread(target=engine.infer, args=(image,)) for _ in range(4)]
    for step in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            step(thread)
print(*said)
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        said = done.stdout.split()
        assert said[:2] == ["begin", "end"]
        assert sorted(said[2:]) == ["begin"] * 3 + ["end"] * 3

    @pytest.mark.parametrize("sides", [(50, 50), (64, 50), (40, 64)])
    def test_sizes_that_fail_inside_the_network_are_refused_and_leave_it_whole(
        self, sides: tuple[int, int]
    ) -> None:
        """The detector halves its image four times: other sides fail in its middle, where OpenVINO breaks."""
        network = find_pack("default").network(Role.DETECT_SLICES, "t2")
        with self.make(network) as engine:
            batch = abs(self.images(2, 64, 80))
            before = engine.infer(batch)
            with pytest.raises(InferenceError, match="give it what the network wants"):
                engine.infer(self.images(1, *sides))
            np.testing.assert_array_equal(engine.infer(batch), before)

    def test_small_networks_are_asked_about_several_images_at_once(self, network: Network) -> None:
        assert self.make(network).batch == 4

    def test_without_openvino_the_engine_is_unavailable(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(EngineUnavailable, match=r"pip install 'fastseg\[cpu-fast\]'"), self.make(network):
            pass

    def test_after_a_fork_it_says_so_instead_of_waiting_for_ever(self) -> None:
        done = subprocess.run([sys.executable, "-c", _FORK], capture_output=True, text=True, timeout=300)
        assert "open the engine in the new process" in done.stdout, done.stderr


_FORK = """
import os, sys
import numpy as np
from fastseg.engines.openvino_cpu import OpenVinoCpu
from fastseg.errors import InferenceError
from fastseg.networks.network import Role
from fastseg.networks.packs import find_pack
crops = np.zeros((1, 1, 64, 64), np.float32)
with OpenVinoCpu(find_pack("default").network(Role.SEGMENT_2D_LIGHT, "t2")) as engine:
    engine.infer(crops)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    else:
        try:
            engine.infer(crops)
        except InferenceError as error:
            print(error, flush=True)
        os._exit(0)
"""


@pytest.mark.skipif(bf16_runs(), reason="this CPU has bf16")
def test_bf16_is_refused_where_the_cpu_has_none() -> None:
    network = find_pack("default").network(Role.SEGMENT_2D_LIGHT, "t2")
    with (
        pytest.raises(EngineUnavailable, match=r"no bf16.*--precision fp32"),
        OpenVinoCpu(network, precision="bf16"),
    ):
        pass


@pytest.mark.skipif(not bf16_runs(), reason="this CPU has no bf16")
def test_bf16_is_near_fp32_and_another_thing() -> None:
    network = find_pack("default").network(Role.SEGMENT_2D_LIGHT, "t2")
    batch = np.random.default_rng(0).uniform(0, 255, (4, 1, 64, 64)).astype(np.float32)
    with OpenVinoCpu(network, precision="bf16") as engine, OnnxRuntimeCpu(network) as reference:
        assert engine.name == "openvino cpu bf16"
        difference = abs(engine.infer(batch) - reference.infer(batch)).max()
    # bf16 keeps 8 bits; noise is no crop, and far from anything trained on.
    assert 0 < difference < 0.2


def test_importing_openvino_reports_to_nobody() -> None:
    """By itself it sends an event at import, through a package that is hidden from it."""
    script = (
        "import sys\n"
        "from fastseg.engines.openvino_cpu import import_openvino\n"
        "assert import_openvino().Core().available_devices\n"
        "print([name for name in sys.modules if 'openvino_telemetry' in name])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bf16_does_not_run_without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not bf16_runs()


@pytest.mark.parametrize(
    ("flags", "name"),
    [("fma avx2 f16c", "avx2"), ("avx2 avx512f", "avx512"), ("amx_tile avx2 avx512f amx_bf16", "amx")],
)
def test_the_capability_is_the_widest_arithmetic_of_the_cpu(
    flags: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name\t: avx9000\nflags\t\t: fpu {flags}\n")
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    assert machine.capability.__wrapped__() == name


def test_elsewhere_the_capability_is_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CPUINFO", Path("none"))
    monkeypatch.setattr("platform.machine", lambda: "ARM64")
    assert machine.capability.__wrapped__() == "arm64"
