"""The one place where an engine is chosen for a network."""

from __future__ import annotations

from fastseg.engines.base import Engine
from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
from fastseg.errors import EngineUnavailable
from fastseg.networks.network import Network

__all__ = ["BACKENDS", "open_engine"]

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
