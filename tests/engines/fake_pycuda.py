"""pycuda 2026.1 on a `FakeDriver`: objects that end themselves, and errors of words instead of codes."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.engines.fake_cuda_modules import CODES, FakeDriver, Refused


def pycuda_modules(driver: FakeDriver) -> dict[str, ModuleType]:
    """Make the modules of pycuda."""

    class Error(Exception):
        """Of all that CUDA refuses."""

    class MemoryError_(Error):
        """No memory."""

    class LogicError(Error):
        """A wrong call."""

    def call(name: str, *arguments: Any) -> Any:
        try:
            result = driver.call(name, *arguments)
        except Refused as refused:
            words = CODES[str(refused)][1]
        else:
            return result[0] if len(result) == 1 else result
        # Not in the handler: frames of Python, which pycuda's C++ does not have, would keep objects alive.
        kind = MemoryError_ if words == "out of memory" else LogicError
        raise kind(f"{name} failed: {words}")

    stacks = threading.local()

    def stack() -> list[Any]:
        if not hasattr(stacks, "contexts"):
            stacks.contexts = []
        return stacks.contexts  # type: ignore[no-any-return]

    class Context:
        """The primary context: it can be detached where it is current, or by the thread that made it."""

        def __init__(self) -> None:
            call("cuDevicePrimaryCtxRetain", 0)
            self.valid, self.thread = True, threading.get_ident()

        def push(self) -> None:
            if stack():
                call("cuCtxPopCurrent")
            call("cuCtxPushCurrent", 0xC0)
            stack().append(self)

        @staticmethod
        def pop() -> None:
            if not stack():
                raise LogicError("context::pop failed: invalid device context - cannot pop")
            call("cuCtxPopCurrent")
            stack().pop()
            if stack():
                call("cuCtxPushCurrent", 0xC0)

        def detach(self) -> None:
            assert self.valid, "detached twice"
            if stack() and stack()[-1] is self:
                call("cuDevicePrimaryCtxRelease", 0)
                stack().pop()  # but CUDA's own stack still has it
            elif self.thread == threading.get_ident():
                call("cuCtxPushCurrent", 0xC0)
                call("cuDevicePrimaryCtxRelease", 0)
            self.valid = False  # in another thread nothing is released at all

        @staticmethod
        def synchronize() -> None:
            call("cuCtxSynchronize")

    class Dependent:
        """Something that ends itself, where its context is current."""

        kill = ""

        def __init__(self, handle: int) -> None:
            if not stack():
                raise LogicError("explicit_context_dependent failed: invalid device context - none is active")
            self._handle, self._context, self._valid = handle, stack()[-1], True

        def _finish(self) -> None:
            if self._valid and self._context.valid:
                assert stack()[-1:] == [self._context], f"{self.kill} where the context is not current"
                try:
                    call(self.kill, self._handle)
                except Error as error:  # as pycuda does
                    print(f"PyCUDA WARNING: a clean-up operation failed (dead context maybe?)\n{error}")
            self._valid = False

        def __del__(self) -> None:
            if getattr(self, "_valid", False):
                self._finish()

    class Freed(Dependent):
        """What has a method for it."""

        def free(self) -> None:
            if not self._valid:
                raise LogicError("device_allocation::free failed: invalid resource handle")
            self._finish()

    class DeviceAllocation(Freed):
        kill = "cuMemFree"

        def __int__(self) -> int:
            return self._handle

    class PagelockedHostAllocation(Freed):
        kill = "cuMemFreeHost"

        def __init__(self, handle: int, nbytes: int) -> None:
            super().__init__(handle)
            self.__array_interface__ = {
                "shape": (nbytes,),
                "typestr": "|u1",
                "data": (handle, False),
                "version": 3,
            }

    class Stream(Dependent):
        kill = "cuStreamDestroy"

        def __init__(self, flags: int = 0) -> None:
            super().__init__(call("cuStreamCreate", flags))
            self.handle = self._handle

        def synchronize(self) -> None:
            call("cuStreamSynchronize", self.handle)

    class Event(Dependent):
        kill = "cuEventDestroy"

        def __init__(self, flags: int = 0) -> None:
            super().__init__(call("cuEventCreate", flags))

        def record(self, stream: Stream) -> Event:
            call("cuEventRecord", self._handle, stream.handle)
            return self

        def synchronize(self) -> Event:
            call("cuEventSynchronize", self._handle)
            return self

        def time_since(self, earlier: Event) -> float:
            return float(call("cuEventElapsedTime", earlier._handle, self._handle))

    class Device:
        def __init__(self, number: int) -> None:
            call("cuDeviceGet", number)

        def retain_primary_context(self) -> Context:
            return Context()

    def pagelocked_empty(shape: int, dtype: str) -> NDArray[Any]:
        assert np.dtype(dtype) == np.uint8
        return np.asarray(PagelockedHostAllocation(call("cuMemHostAlloc", shape, 0), shape))

    def htod(target: DeviceAllocation, source: NDArray[Any], stream: Stream) -> None:
        call("cuMemcpyHtoDAsync", int(target), source.ctypes.data, source.nbytes, stream.handle)

    def dtoh(target: NDArray[Any], source: DeviceAllocation, stream: Stream) -> None:
        call("cuMemcpyDtoHAsync", target.ctypes.data, int(source), target.nbytes, stream.handle)

    top, module = ModuleType("pycuda"), ModuleType("pycuda.driver")
    top.__path__ = []
    vars(module).update(
        Error=Error,
        MemoryError=MemoryError_,
        LogicError=LogicError,
        Context=Context,
        Device=Device,
        DeviceAllocation=DeviceAllocation,
        PagelockedHostAllocation=PagelockedHostAllocation,
        Stream=Stream,
        Event=Event,
        init=lambda flags=0: call("cuInit", flags),
        mem_get_info=lambda: call("cuMemGetInfo"),
        mem_alloc=lambda nbytes: DeviceAllocation(call("cuMemAlloc", nbytes)),
        pagelocked_empty=pagelocked_empty,
        memcpy_htod_async=htod,
        memcpy_dtoh_async=dtoh,
    )
    vars(top).update(driver=module, VERSION_TEXT="2026.1")
    return {"pycuda": top, "pycuda.driver": module}
