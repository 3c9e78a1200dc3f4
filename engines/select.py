"""The one place where an engine is chosen for a network."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.base import Engine
from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
from fastseg.errors import EngineUnavailable
from fastseg.networks.network import Network

__all__ = ["BACKENDS", "Engines", "open_engine"]

#: Engines by name, fastest first; ``auto`` takes the first one that this machine can run.
BACKENDS = ("onnxruntime",)


def open_engine(network: Network, backend: str = "auto", *, threads: int = 1) -> Engine:
    """Make the engine for a network; it loads when it is entered.

    Parameters
    ----------
    network : the network to run
    backend : a name of `BACKENDS`, or ``auto``. An engine asked for by name never falls back to another.
    threads : threads inside one inference, for engines on the CPU

    Raises
    ------
    EngineUnavailable
        No engine of that name.
    """
    if backend not in ("auto", *BACKENDS):
        raise EngineUnavailable(
            f"no engine is called {backend!r}: choose auto or one of {', '.join(BACKENDS)}"
        )
    return OnnxRuntimeCpu(network, threads=threads)


class Engines:
    """Open engines, one for each network, shared by all who need them.

    A context manager that closes what it opened. May be used from several threads, also where an engine may
    not: such an engine answers them in turn.

    Parameters
    ----------
    backend : a name of `BACKENDS`, or ``auto``
    threads : threads inside one inference, for engines on the CPU
    """

    def __init__(self, backend: str = "auto", *, threads: int = 1) -> None:
        self._backend, self._threads = backend, threads
        self._stack = ExitStack()
        self._open: dict[tuple[str, str], Engine] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.clear()
        self._stack.close()

    def open(self, network: Network) -> Engine:
        """Give the engine of a network, loaded.

        Raises
        ------
        EngineError
            The engine cannot be opened.
        """
        key = str(network.path), network.sha256
        with self._lock:
            if key not in self._open:
                engine = open_engine(network, self._backend, threads=self._threads)
                self._stack.enter_context(engine)
                self._open[key] = engine if engine.concurrent else _InTurn(engine)
            return self._open[key]


class _InTurn:
    """An open engine that one thread at a time may use, behind a lock: others wait."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._lock = engine, threading.Lock()
        self.name, self.batch, self.concurrent = engine.name, engine.batch, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the engine to whoever opened it."""

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._lock:
            return self._engine.infer(batch)
