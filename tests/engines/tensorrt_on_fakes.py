"""What tests of TensorRT without a GPU share."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.engines import acceptance
from fastseg.engines.cuda.base import GpuFacts
from fastseg.engines.tensorrt.engine import TensorRt
from fastseg.engines.tensorrt.plans import PlanCache
from fastseg.engines.tensorrt.vendor import vendor_of
from fastseg.networks.network import Network
from fastseg.phantom import make_phantom
from tests.engines.fake_cuda import FakeCuda
from tests.engines.fake_tensorrt import FakeTensorRt

__all__ = ["Machine", "images", "open_and_ask", "phantoms_are_drawn_once"]

_drawn_once = functools.cache(make_phantom)


@pytest.fixture(autouse=True)
def phantoms_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The acceptance's inputs are the same in all tests; drawing them takes longer than all the rest."""
    monkeypatch.setattr(acceptance, "make_phantom", _drawn_once)


@dataclass
class Machine:
    """A machine with fake GPUs, a fake TensorRT, and a cache of plans."""

    cuda: FakeCuda
    fake: FakeTensorRt
    cache: PlanCache

    @classmethod
    def at(cls, folder: Path, *gpus: GpuFacts, graphs: bool = True) -> Machine:
        """A new one, whose plans lie in a folder."""
        cuda = FakeCuda(*gpus, graphs=graphs)
        return cls(cuda, FakeTensorRt(cuda), PlanCache(folder / "plans"))

    def engine(self, network: Network, **options: Any) -> TensorRt:
        """An engine on this machine, not yet entered."""
        known: dict[str, Any] = {
            "cache": self.cache,
            "vendor": vendor_of(self.fake.module),
            "open_device": self.cuda.open_device,
        }
        return TensorRt(network, **known | options)

    def is_clean(self) -> bool:
        """Whether everything was given back."""
        return not (any(self.cuda.used) or self.cuda.misuse or self.cuda.memory or self.cuda.streams)


def images(count: int, *spatial: int, seed: int = 0) -> Any:
    """Noise: (count, 1, x, y[, z]) float32."""
    shape = (count, 1, *(spatial or (16, 16)))
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def open_and_ask(folder: Path, network: Network) -> tuple[int, Any]:
    """In a process of its own: how often it built a plan, and what it answers."""
    machine = Machine.at(folder)
    with machine.engine(network) as engine:
        return machine.fake.calls["build"], engine.infer(images(3))
