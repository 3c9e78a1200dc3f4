"""CUDA through pycuda, on the primary context: `pycuda.autoinit` would make one that vendors do not use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from numpy.typing import NDArray

from fastseg.engines.cuda.failures import failure
from fastseg.errors import InferenceError

__all__ = ["PyCuda"]

_Result = TypeVar("_Result")


class _Held:
    """The only reference to an object of pycuda."""

    __slots__ = ("it",)

    def __init__(self, it: Any) -> None:
        self.it = it


_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which pycuda has no name for


class PyCuda:
    """A `fastseg.engines.cuda.binding.Binding` of ``pycuda.driver``.

    pycuda's streams and events end themselves when nobody refers to them any more, and only if their context
    is current in the thread in which that happens. Hence each is held by one `_Held`, which drops it while
    the context is current, and tracebacks of errors are kept from referring to it.

    Parameters
    ----------
    number : of the GPU

    Raises
    ------
    ImportError
        It is not installed, or its libraries do not load.
    """

    graphs = False

    def __init__(self, number: int) -> None:
        import pycuda
        import pycuda.driver

        self._number, self._driver = number, pycuda.driver
        self.layer = f"pycuda {pycuda.VERSION_TEXT}"
        self._context: Any = None

    def _call(self, name: str, call: Callable[..., _Result], *arguments: Any, wanted: int = 0) -> _Result:
        """Make a call; pycuda's errors are "cuMemAlloc failed: out of memory", and bare ones of Boost."""
        try:
            return call(*arguments)
        except self._driver.Error as error:
            said, _, words = " ".join(str(error).split()).partition(" failed: ")
            refused = failure(said if words else name, words or said, self._number, wanted=wanted)
            cause: Exception = error.with_traceback(None)
        except Exception as error:
            refused = failure(name, " ".join(str(error).split()), self._number)
            cause = error.with_traceback(None)
        del call, arguments  # see the class
        raise refused from cause

    def retain(self) -> None:
        """See `Binding.retain`."""
        self._call("cuInit", self._driver.init)
        device = self._call("cuDeviceGet", self._driver.Device, self._number)
        self._context = self._call("cuDevicePrimaryCtxRetain", device.retain_primary_context)

    def release(self) -> None:
        """See `Binding.release`.

        pycuda releases a context only where it is current or in the thread that retained it, and leaves it on
        CUDA's stack of contexts of that thread. So it is released in a thread of its own.
        """
        context, self._context = self._context, None
        failed: list[InferenceError] = []
        thread = threading.Thread(target=self._detach, args=(context, failed), name="cuda release")
        thread.start()
        thread.join()
        if failed:
            raise failed[0]

    def _detach(self, context: Any, failed: list[InferenceError]) -> None:
        try:
            self._call("cuCtxPushCurrent", context.push)
            self._call("cuDevicePrimaryCtxRelease", context.detach)
        except InferenceError as error:
            failed.append(error)

    def push(self) -> None:
        """See `Binding.push`."""
        self._call("cuCtxPushCurrent", self._context.push)

    def pop(self) -> None:
        """See `Binding.pop`."""
        self._call("cuCtxPopCurrent", self._driver.Context.pop)

    def synchronize(self) -> None:
        """See `Binding.synchronize`."""
        self._call("cuCtxSynchronize", self._driver.Context.synchronize)

    def free_bytes(self) -> int:
        """See `Binding.free_bytes`."""
        return int(self._call("cuMemGetInfo", self._driver.mem_get_info)[0])

    def allocate(self, nbytes: int) -> Any:
        """See `Binding.allocate`."""
        return self._call("cuMemAlloc", self._driver.mem_alloc, nbytes, wanted=nbytes)

    def address(self, memory: Any) -> int:
        """See `Binding.address`."""
        return int(memory)

    def give_back(self, memory: Any) -> None:
        """See `Binding.give_back`."""
        self._call("cuMemFree", memory.free)

    def allocate_host(self, nbytes: int) -> tuple[Any, NDArray[Any]]:
        """See `Binding.allocate_host`."""
        array = self._call("cuMemHostAlloc", self._driver.pagelocked_empty, nbytes, "uint8", wanted=nbytes)
        return array.base, array

    def give_back_host(self, memory: Any) -> None:
        """See `Binding.give_back_host`."""
        self._call("cuMemFreeHost", memory.free)

    def make_stream(self) -> Any:
        """See `Binding.make_stream`."""
        return _Held(self._call("cuStreamCreate", self._driver.Stream, _NON_BLOCKING))

    def handle(self, stream: Any) -> int:
        """See `Binding.handle`."""
        return int(stream.it.handle)

    def wait(self, stream: Any) -> None:
        """See `Binding.wait`."""
        self._call("cuStreamSynchronize", stream.it.synchronize)

    def end_stream(self, stream: Any) -> None:
        """See `Binding.end_stream`."""
        stream.it = None

    def make_event(self) -> Any:
        """See `Binding.make_event`."""
        return _Held(self._call("cuEventCreate", self._driver.Event))

    def record(self, event: Any, stream: Any) -> None:
        """See `Binding.record`."""
        self._call("cuEventRecord", event.it.record, stream.it)

    def milliseconds(self, earlier: Any, later: Any) -> float:
        """See `Binding.milliseconds`."""
        for event in (earlier, later):
            self._call("cuEventSynchronize", event.it.synchronize)
        return float(self._call("cuEventElapsedTime", later.it.time_since, earlier.it))

    def end_event(self, event: Any) -> None:
        """See `Binding.end_event`."""
        event.it = None

    def upload(self, memory: Any, source: NDArray[Any], stream: Any) -> None:
        """See `Binding.upload`."""
        self._call("cuMemcpyHtoDAsync", self._driver.memcpy_htod_async, memory, source, stream.it)

    def download(self, target: NDArray[Any], memory: Any, stream: Any) -> None:
        """See `Binding.download`."""
        self._call("cuMemcpyDtoHAsync", self._driver.memcpy_dtoh_async, target, memory, stream.it)

    def begin_capture(self, stream: Any) -> None:
        """See `Binding.begin_capture`."""
        raise self._no_graphs()

    def end_capture(self, stream: Any) -> Any:
        """See `Binding.end_capture`."""
        raise self._no_graphs()

    def abandon_capture(self, stream: Any) -> None:
        """See `Binding.abandon_capture`: none was begun."""

    def launch(self, graph: Any, stream: Any) -> None:
        """See `Binding.launch`."""
        raise self._no_graphs()

    def end_graph(self, graph: Any) -> None:
        """See `Binding.end_graph`: there is none."""

    def _no_graphs(self) -> InferenceError:
        return InferenceError(
            f"{self.layer} has no CUDA graphs: look at `graphs` before, or pip uninstall pycuda"
        )
