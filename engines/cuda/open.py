"""The one place where a binding of CUDA is chosen: pycuda where it works, cuda-bindings otherwise."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from fastseg.engines.cuda.base import Device
from fastseg.engines.cuda.binding import Binding
from fastseg.engines.cuda.cuda_python import CudaPython
from fastseg.engines.cuda.device import OpenDevice
from fastseg.engines.cuda.pycuda_device import PyCuda
from fastseg.errors import EngineUnavailable

__all__ = ["BINDINGS", "bind", "layer_problem", "open_device"]

#: Bindings by the name of their package, the first choice first.
BINDINGS: dict[str, Callable[[int], Binding]] = {"pycuda": PyCuda, "cuda-bindings": CudaPython}

_MODULES = {"pycuda": ("pycuda",), "cuda-bindings": ("cuda", "cuda.bindings")}
_INSTALL = "pip install cuda-bindings, or pycuda where there is a CUDA toolkit"


def open_device(number: int, *, layer: str = "auto") -> Device:
    """Make the device for a GPU; nothing is loaded and nothing touches the GPU before it is entered.

    Parameters
    ----------
    number : among those that CUDA_VISIBLE_DEVICES leaves
    layer : auto, or a name of `BINDINGS`, which is then taken or nothing

    Raises
    ------
    EngineUnavailable
        On entering: no driver, no such GPU, or no binding that loads.
    """
    return OpenDevice(number, lambda gpu: bind(gpu, layer))


def bind(number: int, layer: str = "auto") -> Binding:
    """Load a binding for a GPU; see `open_device`."""
    reasons = []
    for name, kind in BINDINGS.items():
        if layer in ("auto", name):
            try:
                return kind(number)
            except ImportError as error:
                reasons.append(f"{name}: {' '.join(str(error).split())}")
    raise EngineUnavailable(f"no binding of CUDA loads ({'; '.join(reasons)}): {_INSTALL}")


def layer_problem() -> str:
    """Say that no binding of CUDA is installed; empty where one is. Loads none of them."""
    for modules in _MODULES.values():
        if all(find_spec(each) is not None for each in modules):
            return ""
    return f"no binding of CUDA is installed: {_INSTALL}"
