"""Which engine is chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastseg.engines.base import Engine
from fastseg.engines.select import BACKENDS, open_engine
from fastseg.errors import EngineUnavailable
from tests.engines.onnx_networks import convolution
from tests.fake_engines import network


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_every_name_gives_an_engine_that_runs(backend: str, tmp_path: Path) -> None:
    engine = open_engine(convolution(tmp_path, spatial=(8, 8)), backend, threads=2)
    assert isinstance(engine, Engine)
    with engine:
        assert engine.infer(np.zeros((2, 1, 8, 8), np.float32)).shape == (2, 1, 8, 8)


def test_the_default_is_auto(tmp_path: Path) -> None:
    file = convolution(tmp_path)
    assert open_engine(file).name == open_engine(file, "auto").name


@pytest.mark.parametrize("backend", ["tensorflow", "", "AUTO"])
def test_another_name_is_refused_with_the_names_there_are(backend: str) -> None:
    with pytest.raises(EngineUnavailable, match="choose auto or one of onnxruntime"):
        open_engine(network(), backend)


def test_choosing_loads_nothing() -> None:
    open_engine(network())
