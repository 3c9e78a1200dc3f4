"""Open engines that are shared: each network is loaded once, and threads take turns where they must."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.engines import select
from fastseg.engines.select import Engines
from fastseg.errors import EngineBuildError
from tests.engines.onnx_networks import convolution
from tests.fake_engines import FakeEngine, network


class _OneThreadOnly(FakeEngine):
    """Fails where a second thread comes in."""

    concurrent = False  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self._busy = threading.Lock()
        self.open = False

    def __enter__(self) -> Any:
        self.open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False

    def infer(self, batch: Any) -> Any:
        assert self._busy.acquire(blocking=False), "two threads at once"
        time.sleep(0.002)
        self._busy.release()
        return batch


def test_a_network_is_loaded_once_and_closed_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[_OneThreadOnly] = []

    def make_engine(*_: object, **__: object) -> _OneThreadOnly:
        made.append(_OneThreadOnly())
        return made[-1]

    monkeypatch.setattr(select, "make_engine", make_engine)
    with Engines() as engines:
        first = engines.open(network(sha256="a"))
        assert engines.open(network(sha256="a")) is first
        assert engines.open(network(sha256="b")) is not first
        assert [each.open for each in made] == [True, True]
    assert [each.open for each in made] == [False, False]


def test_threads_take_turns_where_the_engine_is_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "make_engine", lambda *_, **__: _OneThreadOnly())
    batch, failures = np.ones((1, 1, 2, 2), np.float32), []
    with Engines() as engines:
        engine = engines.open(network())
        assert not engine.concurrent

        def ask() -> None:
            try:
                for _ in range(5):
                    engine.infer(batch)
            except AssertionError as error:
                failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_the_cpu_engine_is_asked_by_several_threads_at_once(tmp_path: Path) -> None:
    file = convolution(tmp_path, spatial=(16, 16))
    batches = [
        np.random.default_rng(seed).normal(size=(5, 1, 16, 16)).astype(np.float32) for seed in range(8)
    ]
    answers: dict[int, Any] = {}
    with Engines() as engines:
        engine = engines.open(file)
        alone = [engine.infer(batch) for batch in batches]

        def ask(k: int) -> None:
            answers[k] = [engine.infer(batches[k]) for _ in range(20)]

        threads = [threading.Thread(target=ask, args=(k,)) for k in range(len(batches))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for k, wanted in enumerate(alone):
        for answer in answers[k]:
            np.testing.assert_array_equal(answer, wanted)


def test_a_network_that_cannot_be_loaded_is_tried_again_by_the_next_who_asks(tmp_path: Path) -> None:
    file = convolution(tmp_path, spatial=(16, 16))
    content = file.path.read_bytes()
    file.path.write_bytes(b"no network")
    with Engines() as engines:
        with pytest.raises(EngineBuildError):
            engines.open(file)
        file.path.write_bytes(content)
        assert engines.open(file).infer(np.ones((1, 1, 16, 16), np.float32)).shape == (1, 1, 16, 16)
