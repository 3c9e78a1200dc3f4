"""The reference engine."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fastseg.engines.base import Engine
from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
from fastseg.errors import EngineUnavailable
from fastseg.networks.network import CONTRASTS, Network, Role
from fastseg.networks.packs import find_pack
from tests.engines.conformance import Conformance


class TestOnnxRuntimeCpu(Conformance):
    def make(self, network: Network, *, threads: int = 1) -> Engine:
        return OnnxRuntimeCpu(network, threads=threads)

    def test_the_name_is_for_records(self, network: Network) -> None:
        assert self.make(network).name == "onnxruntime cpu fp32"

    @pytest.mark.parametrize("count", [1, 9])
    @pytest.mark.parametrize("threads", [2, 3])
    def test_threads_do_not_change_the_answer(self, threads: int, count: int, network: Network) -> None:
        batch = self.images(count)
        with self.make(network) as one, self.make(network, threads=threads) as many:
            np.testing.assert_array_equal(many.infer(batch), one.infer(batch))

    @pytest.mark.parametrize("role", [role for role in Role if role is not Role.DETECT_BLOCKS])
    @pytest.mark.parametrize("threads", [2, 4])
    def test_the_built_in_networks_do_not_depend_on_threads_and_neighbours(
        self, threads: int, role: Role
    ) -> None:
        network = find_pack("default").network(role, CONTRASTS[0])
        spatial = (64, 64, 16) if role is Role.SEGMENT_3D else (64, 64)
        batch = 100 * self.images(3 if role is Role.SEGMENT_3D else 11, *spatial)
        with self.make(network) as one, self.make(network, threads=threads) as many:
            together = one.infer(batch)
            np.testing.assert_array_equal(many.infer(batch), together)
            for count in (1, 2):
                np.testing.assert_array_equal(many.infer(batch[:count]), together[:count])

    def test_small_networks_are_asked_about_several_images_at_once(self, network: Network) -> None:
        assert self.make(network).batch == 8

    def test_without_onnxruntime_the_engine_is_unavailable(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(EngineUnavailable, match="pip install onnxruntime"), self.make(network):
            pass

    def test_a_relative_path_is_taken(
        self, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        here = Network(
            **{name: getattr(network, name) for name in Network.__slots__} | {"path": Path(network.path.name)}
        )
        with self.make(here) as engine:
            assert engine.infer(self.images(1)).shape == (1, 1, 64, 64)
