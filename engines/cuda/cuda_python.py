"""CUDA through NVIDIA's own binding, cuda-bindings."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.cuda.failures import failure
from fastseg.errors import EngineError

__all__ = ["CudaPython"]


class CudaPython:
    """A `fastseg.engines.cuda.binding.Binding` of ``cuda.bindings.driver``. Things are CUDA's handles.

    Parameters
    ----------
    number : of the GPU

    Raises
    ------
    ImportError
        It is not installed.
    """

    graphs = True

    def __init__(self, number: int) -> None:
        import cuda.bindings
        from cuda.bindings import driver

        self._number, self._driver = number, driver
        self.layer = f"cuda-bindings {cuda.bindings.__version__}"
        self._device: Any = None
        self._context: Any = None

    def _call(self, name: str, *arguments: Any, wanted: int = 0) -> Any:
        try:
            status, *results = getattr(self._driver, name)(*arguments)
        except (
            Exception
        ) as error:  # the driver does not have the call, or gave a code the binding has no name for
            raise failure(name, " ".join(str(error).split()), self._number) from error
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise failure(name, status.name, self._number, wanted=wanted)
        return results[0] if len(results) == 1 else results

    def retain(self) -> None:
        """See `Binding.retain`."""
        self._call("cuInit", 0)
        self._device = self._call("cuDeviceGet", self._number)
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)

    def release(self) -> None:
        """See `Binding.release`."""
        self._context = None
        self._call("cuDevicePrimaryCtxRelease", self._device)

    def push(self) -> None:
        """See `Binding.push`."""
        self._call("cuCtxPushCurrent", self._context)

    def pop(self) -> None:
        """See `Binding.pop`."""
        self._call("cuCtxPopCurrent")

    def synchronize(self) -> None:
        """See `Binding.synchronize`."""
        self._call("cuCtxSynchronize")

    def free_bytes(self) -> int:
        """See `Binding.free_bytes`."""
        return int(self._call("cuMemGetInfo")[0])

    def allocate(self, nbytes: int) -> Any:
        """See `Binding.allocate`."""
        return self._call("cuMemAlloc", nbytes, wanted=nbytes)

    def address(self, memory: Any) -> int:
        """See `Binding.address`."""
        return int(memory)

    def give_back(self, memory: Any) -> None:
        """See `Binding.give_back`."""
        self._call("cuMemFree", memory)

    def allocate_host(self, nbytes: int) -> tuple[Any, NDArray[Any]]:
        """See `Binding.allocate_host`."""
        address = int(self._call("cuMemHostAlloc", nbytes, 0, wanted=nbytes))
        return address, np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))

    def give_back_host(self, memory: Any) -> None:
        """See `Binding.give_back_host`."""
        self._call("cuMemFreeHost", memory)

    def make_stream(self) -> Any:
        """See `Binding.make_stream`."""
        return self._call("cuStreamCreate", self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value)

    def handle(self, stream: Any) -> int:
        """See `Binding.handle`."""
        return int(stream)

    def wait(self, stream: Any) -> None:
        """See `Binding.wait`."""
        self._call("cuStreamSynchronize", stream)

    def end_stream(self, stream: Any) -> None:
        """See `Binding.end_stream`."""
        self._call("cuStreamDestroy", stream)

    def make_event(self) -> Any:
        """See `Binding.make_event`."""
        return self._call("cuEventCreate", self._driver.CUevent_flags.CU_EVENT_DEFAULT.value)

    def record(self, event: Any, stream: Any) -> None:
        """See `Binding.record`."""
        self._call("cuEventRecord", event, stream)

    def milliseconds(self, earlier: Any, later: Any) -> float:
        """See `Binding.milliseconds`."""
        for event in (earlier, later):
            self._call("cuEventSynchronize", event)
        return float(self._call("cuEventElapsedTime", earlier, later))

    def end_event(self, event: Any) -> None:
        """See `Binding.end_event`."""
        self._call("cuEventDestroy", event)

    def upload(self, memory: Any, source: NDArray[Any], stream: Any) -> None:
        """See `Binding.upload`."""
        self._call("cuMemcpyHtoDAsync", memory, source.ctypes.data, source.nbytes, stream)

    def download(self, target: NDArray[Any], memory: Any, stream: Any) -> None:
        """See `Binding.download`."""
        self._call("cuMemcpyDtoHAsync", target.ctypes.data, memory, target.nbytes, stream)

    def begin_capture(self, stream: Any) -> None:
        """See `Binding.begin_capture`. Calls of other threads, which take memory, do not disturb it."""
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Any) -> Any:
        """See `Binding.end_capture`."""
        graph = self._call("cuStreamEndCapture", stream)
        try:
            return self._call("cuGraphInstantiate", graph, 0)
        finally:  # what was made of it does not need it any more
            with contextlib.suppress(EngineError):
                self._call("cuGraphDestroy", graph)

    def abandon_capture(self, stream: Any) -> None:
        """See `Binding.abandon_capture`."""
        with contextlib.suppress(EngineError):
            self._call("cuGraphDestroy", self._call("cuStreamEndCapture", stream))

    def launch(self, graph: Any, stream: Any) -> None:
        """See `Binding.launch`."""
        self._call("cuGraphLaunch", graph, stream)

    def end_graph(self, graph: Any) -> None:
        """See `Binding.end_graph`."""
        self._call("cuGraphExecDestroy", graph)
