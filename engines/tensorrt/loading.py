"""A plan, loaded: NVIDIA's runtime and engine, and what the two ends of the network are called.

Their objects live in the device's context and must be gone before it is released. So nothing but what
closes them refers to them: a local variable would live on in the traceback of an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from fastseg.engines.tensorrt.vendor import Vendor
from fastseg.errors import EngineBuildError, EngineError, EngineUnavailable, OutOfDeviceMemory

if TYPE_CHECKING:
    import tensorrt

__all__ = ["Loaded", "failure"]

_Error = TypeVar("_Error", bound=EngineError)

# "out of memory" of CUDA, "OutOfMemory" of TensorRT
_NO_MEMORY = re.compile(r"out ?of ?memory", re.IGNORECASE)


def failure(vendor: Vendor, what: str, kind: type[_Error], remedy: str) -> _Error | OutOfDeviceMemory:
    """Make the error of something that failed without raising, explained by the vendor's log.

    Parameters
    ----------
    what : that failed, and where
    kind : of error, unless the GPU's memory was full
    remedy : what to do, unless the GPU's memory was full
    """
    reason = vendor.log.explain()
    if _NO_MEMORY.search(reason):
        return OutOfDeviceMemory(
            f"{what} ({vendor.name}: {reason}): end what else uses the GPU (`nvidia-smi` lists it), or take "
            "another GPU"
        )
    return kind(f"{what} ({vendor.name}: {reason}): {remedy}")


class Loaded:
    """A plan that TensorRT has loaded. Everything needs the device's context to be current.

    Parameters
    ----------
    content : the plan
    vendor : whose it is

    Raises
    ------
    EngineBuildError
        It does not load: it is damaged, or of another GPU or version, or not of a network with one float32
        array in and one out.
    EngineUnavailable
        TensorRT does not start.
    OutOfDeviceMemory
        It does not fit the GPU.
    """

    def __init__(self, content: bytes, vendor: Vendor) -> None:
        self._vendor = vendor
        self._runtime: tensorrt.Runtime | None = None
        self._engine: tensorrt.ICudaEngine | None = None
        try:
            self._load(content)
        except BaseException:
            self.close()
            raise

    def _load(self, content: bytes) -> None:
        vendor = self._vendor
        try:
            self._runtime = vendor.module.Runtime(vendor.log.logger)
        except TypeError as error:  # what a null pointer becomes
            remedy = "does `nvidia-smi` work? See also `fastseg doctor`"
            raise failure(vendor, f"{vendor.name} does not start", EngineUnavailable, remedy) from error
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise failure(vendor, "the plan does not load", EngineBuildError, "it has to be built again")
        names = [self._engine.get_tensor_name(k) for k in range(self._engine.num_io_tensors)]
        modes = vendor.module.TensorIOMode
        sides = [
            [name for name in names if self._engine.get_tensor_mode(name) == mode]
            for mode in (modes.INPUT, modes.OUTPUT)
        ]
        kinds = {self._engine.get_tensor_dtype(name) for name in names}
        if [len(side) for side in sides] != [1, 1] or kinds != {vendor.module.DataType.FLOAT}:
            raise EngineBuildError("the plan does not take one float32 array and give one: build it again")
        self.input, self.output = sides[0][0], sides[1][0]

    def context(self) -> tensorrt.IExecutionContext:
        """Make something that runs it.

        Raises
        ------
        OutOfDeviceMemory
            Its activations do not fit the GPU.
        EngineBuildError
            It cannot be run.
        """
        if self._engine is None:
            raise EngineBuildError("the plan was closed: open the engine again")
        context = self._engine.create_execution_context()
        if context is None:
            raise failure(
                self._vendor, "the plan cannot be run", EngineBuildError, "it has to be built again"
            )
        return context

    def close(self) -> None:
        """Let go of it, the engine first."""
        self._engine = None
        self._runtime = None
