"""NVIDIA's module, whichever of its kinds is installed, and the log in which it says why something failed.

The module is imported when an engine is opened, never before. `Api` names everything that fastseg uses of it.
TensorRT 10 and 11 and TensorRT-RTX have all of it; type checkers read its signatures from stubs where those
were made (tools/lib/stubs.py).
"""

from __future__ import annotations

import importlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from fastseg.errors import EngineUnavailable

if TYPE_CHECKING:
    import tensorrt

__all__ = ["Api", "Log", "Vendor", "find_vendor", "vendor_of"]

# In the order in which they are tried; what users call them. The bindings of TensorRT-RTX alone are what
# continuous integration installs.
_NAMES = {
    "tensorrt": "TensorRT",
    "tensorrt_rtx": "TensorRT-RTX",
    "tensorrt_rtx_bindings": "TensorRT-RTX",
}

_INSTALL = "pip install 'fastseg[gpu]'"
_OLDEST = 10

# Messages that are kept until somebody asks, and how many characters of an explanation are shown.
_KEPT, _SHOWN = 8, 400


class Api(Protocol):
    """What fastseg uses of the vendor's module."""

    __version__: str
    Builder: type[tensorrt.Builder]
    BuilderFlag: type[tensorrt.BuilderFlag]
    DataType: type[tensorrt.DataType]
    HardwareCompatibilityLevel: type[tensorrt.HardwareCompatibilityLevel]
    ILogger: type[tensorrt.ILogger]
    MemoryPoolType: type[tensorrt.MemoryPoolType]
    NetworkDefinitionCreationFlag: type[tensorrt.NetworkDefinitionCreationFlag]
    OnnxParser: type[tensorrt.OnnxParser]
    Runtime: type[tensorrt.Runtime]
    TensorIOMode: type[tensorrt.TensorIOMode]


class Log:
    """The log of one vendor's module, for the whole process: TensorRT keeps the first that it is given.

    Parameters
    ----------
    module : whose log it is
    """

    def __init__(self, module: Api) -> None:
        self._messages: deque[str] = deque(maxlen=_KEPT)
        self.logger = _logger(module, self._messages.append)

    def explain(self) -> str:
        """Give the last errors on one line, the first cause first, and forget them.

        Threads share the log: what another one does at the same moment may be among them. Where there are
        none, it says so.
        """
        messages = []
        while self._messages:
            messages.append(self._messages.popleft())
        text = "; ".join(dict.fromkeys(" ".join(message.split()) for message in messages))
        return (text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...") or "no reason given"


@dataclass(frozen=True, slots=True)
class Vendor:
    """NVIDIA's module and what is known of it.

    Parameters
    ----------
    module : the imported module
    name : TensorRT or TensorRT-RTX
    version : complete; plans are tied to it
    log : what its builders, parsers and runtimes are given, as `Log.logger`
    """

    module: Api
    name: str
    version: str
    log: Log

    @property
    def just_in_time(self) -> bool:
        """Whether plans are compiled for their GPU when they are loaded: nothing is timed in building."""
        return self.name == "TensorRT-RTX"


_known: dict[int, Vendor] = {}
_lock = threading.Lock()


def find_vendor() -> Vendor:
    """Import TensorRT, or else TensorRT-RTX. No GPU is touched.

    Raises
    ------
    EngineUnavailable
        Neither is installed, or it does not load, or it is too old.
    """
    problems = {}
    for name in _NAMES:
        try:
            # Vendors raise what they like where a library is missing.
            module = cast("Api", importlib.import_module(name))
        except ModuleNotFoundError as error:
            if error.name != name:
                problems[name] = f"{name} does not load ({error})"
        except Exception as error:
            problems[name] = f"{name} does not load ({_one_line(error)})"
        else:
            vendor = vendor_of(module)
            if vendor.just_in_time or int(vendor.version.partition(".")[0]) >= _OLDEST:
                return vendor
            problems[name] = f"TensorRT {vendor.version} is too old, {_OLDEST}.0 is needed"
    problem = "; ".join(problems.values()) or "neither TensorRT nor TensorRT-RTX is installed"
    raise EngineUnavailable(f"{problem}: {_INSTALL}, or choose --device cpu")


def vendor_of(module: Api) -> Vendor:
    """Describe a module of the vendor that was imported already; its log is made once."""
    with _lock:
        known = _known.get(id(module))
        if known is None or known.module is not module:
            own_name = getattr(module, "__name__", "").partition(".")[0]
            name = _NAMES.get(own_name, "TensorRT")
            known = _known[id(module)] = Vendor(module, name, module.__version__, Log(module))
        return known


def _logger(module: Api, keep: Callable[[str], None]) -> tensorrt.ILogger:
    """Make the object that the vendor calls, from any thread: it keeps errors and drops the rest."""
    grave = {module.ILogger.Severity.INTERNAL_ERROR, module.ILogger.Severity.ERROR}

    class _Logger(module.ILogger):  # type: ignore[misc, name-defined]  # known when it runs
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: tensorrt.ILogger.Severity, message: str) -> None:
            # Every call into TensorRT-RTX outside a build says this.
            if severity in grave and "Thread context has not been set" not in message:
                keep(message)

    return _Logger()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_SHOWN] or type(error).__name__
