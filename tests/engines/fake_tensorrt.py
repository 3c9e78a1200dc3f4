"""TensorRT without a GPU: the part of its Python API that fastseg uses, over `fake_cuda` and onnxruntime.

`FakeTensorRt(cuda).module` stands for the module ``tensorrt``: its classes have the real ones' names, methods
and ways to fail. Constructors that get a null pointer raise TypeError, methods that fail return None or False
and say why to the logger, dimensions are -1 until an input's shape is set, a context is for one thread, and
answers appear when the stream is synchronised. A plan holds the ONNX file; onnxruntime gives the numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.engines.fake_builder import (
    Builder,
    IBuilderConfig,
    INetworkDefinition,
    IOptimizationProfile,
    ITimingCache,
    OnnxParser,
    ParserError,
)
from tests.engines.fake_cuda import FakeCuda
from tests.engines.fake_execution import ICudaEngine, IExecutionContext, Runtime
from tests.engines.fake_types import ENUMS, IHostMemory, ILogger, ITensor

__all__ = ["FakeTensorRt"]

_CLASSES = (
    ILogger,
    IHostMemory,
    ITensor,
    INetworkDefinition,
    ParserError,
    OnnxParser,
    IOptimizationProfile,
    ITimingCache,
    IBuilderConfig,
    Builder,
    Runtime,
    ICudaEngine,
    IExecutionContext,
)


class FakeTensorRt:
    """A TensorRT that is installed.

    Parameters
    ----------
    cuda : the machine's GPUs
    version : its own
    """

    def __init__(self, cuda: FakeCuda, version: str = "10.16.1.11") -> None:
        self.cuda, self.version = cuda, version
        self.calls: Counter[str] = Counter()  # how often each call was made that can fail
        self.context_bytes = 4096  # of the device, for each execution context
        self.distort: Callable[[NDArray[np.float32]], NDArray[np.float32]] = lambda answer: answer
        self._faults: dict[str, list[tuple[int, int, str]]] = {}
        self.module = ModuleType("tensorrt")
        self.module.__dict__.update({"__version__": version} | {each.__name__: each for each in ENUMS})
        for kind in _CLASSES:
            self.module.__dict__[kind.__name__] = type(kind.__name__, (kind,), {"_world": self})

    def fail(self, call: str, message: str = "Internal Error", *, after: int = 0, times: int = 1) -> None:
        """Let a call fail as it does, with a message for the log: `after` more succeed, then `times` fail.

        The calls: Builder, Runtime, create_network, create_builder_config, create_optimization_profile,
        parse, set_timing_cache, build, deserialize, create_execution_context, set_input_shape,
        set_tensor_address, infer_shapes, execute.
        """
        first = self.calls[call] + after + 1
        self._faults.setdefault(call, []).append((first, first + times, message))

    def failing(self, call: str) -> str:
        """Count a call; give the message with which it shall fail, or nothing."""
        self.calls[call] += 1
        number = self.calls[call]
        return next((m for first, stop, m in self._faults.get(call, ()) if first <= number < stop), "")

    def make(self, name: str) -> Any:
        """An object of a class that has no constructor."""
        kind = self.module.__dict__[name]
        return kind.__new__(kind)

    def gpu(self) -> dict[str, object]:
        """What plans are for: this version and the GPU whose context is current."""
        facts = self.cuda.current("TensorRT").facts
        return {"version": self.version, "gpu": facts.name, "capability": list(facts.compute_capability)}
