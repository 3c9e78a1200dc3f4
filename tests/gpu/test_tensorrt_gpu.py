"""TensorRT on a real GPU, under the suite of every engine: run by tools/gpu_check, skipped elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.engines.base import Engine
from fastseg.engines.cuda.open import layer_problem
from fastseg.engines.cuda.probe import probe
from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
from fastseg.engines.tensorrt.engine import TensorRt
from fastseg.engines.tensorrt.plans import PlanCache
from fastseg.engines.tensorrt.vendor import find_vendor
from fastseg.errors import EngineUnavailable
from fastseg.networks.network import CONTRASTS, Network, Role
from fastseg.networks.packs import find_pack
from tests.engines.conformance import Conformance


@pytest.fixture(autouse=True, scope="module")
def _gpu() -> None:
    """Skip what there is no hardware for; the driver is asked before a vendor's code is imported."""
    if problem := probe().problem or layer_problem():
        pytest.skip(f"needs an NVIDIA GPU: {problem}")
    try:
        find_vendor()
    except EngineUnavailable as error:
        pytest.skip(f"needs TensorRT: {error}")


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> PlanCache:
    """One cache for all tests: a network is built once."""
    return PlanCache(tmp_path_factory.mktemp("plans"))


class TestTensorRtOnGpu(Conformance):
    # TensorRT takes other kernels for other batches, which add up in another order. The bounds are those of
    # sums of 54 products of order 1 in float32; what the built-in networks do is measured by tools/gpu_check.
    batch_tolerance = 1e-5
    tolerance = 1e-5

    @pytest.fixture(autouse=True)
    def _plans(self, plans: PlanCache) -> None:
        self.plans = plans

    def make(self, network: Network, *, precision: str = "fp32") -> Engine:
        return TensorRt(network, precision=precision, cache=self.plans)

    def test_the_name_says_what_runs_where(self, network: Network) -> None:
        with self.make(network) as engine:
            assert engine.name.startswith("tensorrt")
            assert "fp32" in engine.name
            assert probe().gpus[0].name in engine.name

    @pytest.mark.parametrize("role", [role for role in Role if role is not Role.DETECT_BLOCKS])
    def test_the_built_in_networks_agree_with_the_reference_in_fp32(self, role: Role) -> None:
        network = find_pack("default").network(role, CONTRASTS[0])
        spatial: Any = {Role.SEGMENT_3D: (64, 64, 24), Role.DETECT_SLICES: (144, 144)}.get(role, (64, 64))
        batch = 100 * self.images(2 if role is Role.SEGMENT_3D else 9, *spatial)
        with self.make(network) as engine, OnnxRuntimeCpu(network) as reference:
            # What is promised of engines in fp32.
            np.testing.assert_allclose(engine.infer(batch), reference.infer(batch), rtol=0, atol=1e-4)

    def test_a_plan_is_loaded_again_instead_of_built(self, network: Network, tmp_path: Path) -> None:
        cache = PlanCache(tmp_path / "cache")
        batch = self.images(3)
        answers, created = [], []
        for _ in range(2):
            engine = TensorRt(network, precision="fp32", cache=cache)
            with engine:
                answers.append(engine.infer(batch))
                created.append(engine.plan.record["created"])
        assert created[0] == created[1]
        np.testing.assert_array_equal(*answers)

    def test_two_threads_may_ask_one_engine(self, network: Network) -> None:
        from concurrent.futures import ThreadPoolExecutor

        batches = [self.images(70, seed=seed) for seed in range(8)]
        with self.make(network) as engine, ThreadPoolExecutor(4) as pool:
            one_by_one = [engine.infer(batch) for batch in batches]
            assert engine.concurrent
            for answer, expected in zip(pool.map(engine.infer, batches), one_by_one, strict=True):
                np.testing.assert_array_equal(answer, expected)
