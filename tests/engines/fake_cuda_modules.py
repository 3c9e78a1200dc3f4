"""A CUDA driver of numpy memory, and cuda-bindings on it; `fake_pycuda` is pycuda on it.

The driver is strict: calls need a context that is current in their thread and still retained, and what a
stream is given is done when somebody waits for it. `test_cuda_real_bindings.py` runs the real bindings on a
driver in C.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

CODES = {
    "CUDA_SUCCESS": (0, "no error"),
    "CUDA_ERROR_INVALID_VALUE": (1, "invalid argument"),
    "CUDA_ERROR_OUT_OF_MEMORY": (2, "out of memory"),
    "CUDA_ERROR_INVALID_CONTEXT": (201, "invalid device context"),
    "CUDA_ERROR_INVALID_HANDLE": (400, "invalid resource handle"),
    "CUDA_ERROR_ILLEGAL_ADDRESS": (700, "an illegal memory access was encountered"),
    "CUDA_ERROR_CONTEXT_IS_DESTROYED": (709, "context is destroyed"),
    "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED": (900, "operation not permitted when stream is capturing"),
}


class Refused(Exception):
    """The driver's answer, where it is not success."""


class FakeDriver:
    """libcuda with one GPU; its methods are CUDA's calls.

    Parameters
    ----------
    memory_bytes : of the GPU
    """

    def __init__(self, memory_bytes: int = 1 << 24) -> None:
        self.memory_bytes = memory_bytes
        self.retained = 0
        self.most_retained = 0
        self.fail: dict[str, str] = {}  # call: name of the error
        self.calls: Counter[str] = Counter()
        self.live: dict[int, tuple[str, Any]] = {}  # handle: what it is
        self._gone: list[Any] = []  # memory that was freed, so that a use of it reads garbage
        self._handles = itertools.count(0x1000)
        self._lock = threading.RLock()
        self._here = threading.local()

    def depth(self) -> int:
        """Contexts on the stack of this thread."""
        return int(getattr(self._here, "depth", 0))

    def kinds(self) -> Counter[str]:
        """What is alive, by kind."""
        return Counter(kind for kind, _ in self.live.values())

    def call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """Make a call; raises Refused."""
        with self._lock:
            self.calls[name] += 1
            if name in self.fail:
                raise Refused(self.fail[name])
            if name not in ("cuInit", "cuDeviceGet") and not name.startswith(("cuDevicePrimary", "cuCtxPu")):
                if not self.depth():
                    raise Refused("CUDA_ERROR_INVALID_CONTEXT")
                if not self.retained and name != "cuCtxPopCurrent":
                    raise Refused("CUDA_ERROR_CONTEXT_IS_DESTROYED")
            result = getattr(self, name)(*arguments)
        return result if isinstance(result, tuple) else () if result is None else (result,)

    def _make(self, kind: str, thing: Any = None, handle: int = 0) -> int:
        handle = handle or next(self._handles)
        self.live[handle] = kind, thing
        return handle

    def _get(self, kind: str, handle: Any) -> Any:
        found, thing = self.live.get(int(handle), ("", None))
        if found != kind:
            raise Refused("CUDA_ERROR_INVALID_HANDLE")
        return thing

    def _end(self, kind: str, handle: Any) -> Any:
        thing = self._get(kind, handle)
        del self.live[int(handle)]
        return thing

    def cuInit(self, flags: int) -> None:
        assert flags == 0

    def cuDeviceGet(self, number: int) -> int:
        assert number == 0
        return number

    def cuDevicePrimaryCtxRetain(self, device: int) -> int:
        self.retained += 1
        self.most_retained = max(self.retained, self.most_retained)
        return 0xC0

    def cuDevicePrimaryCtxRelease(self, device: int) -> None:
        assert self.retained
        self.retained -= 1

    def cuCtxPushCurrent(self, context: int) -> None:
        assert context == 0xC0
        self._here.depth = self.depth() + 1

    def cuCtxPopCurrent(self) -> int:
        self._here.depth = self.depth() - 1
        return 0xC0

    def cuCtxSynchronize(self) -> None:
        for kind, stream in list(self.live.values()):
            if kind == "stream":
                self._run(stream)

    def cuMemGetInfo(self) -> tuple[int, int]:
        taken = sum(len(each) for kind, each in self.live.values() if kind == "memory")
        return self.memory_bytes - taken, self.memory_bytes

    def cuMemAlloc(self, nbytes: int) -> int:
        return self._memory("memory", nbytes, self.cuMemGetInfo()[0])

    def cuMemHostAlloc(self, nbytes: int, flags: int) -> int:
        return self._memory("host", nbytes, 1 << 30)

    def _memory(self, kind: str, nbytes: int, free: int) -> int:
        if nbytes < 1:
            raise Refused("CUDA_ERROR_INVALID_VALUE")
        if nbytes > free:
            raise Refused("CUDA_ERROR_OUT_OF_MEMORY")
        if any(each == "stream" and thing["capturing"] is not None for each, thing in self.live.values()):
            raise Refused("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        memory = np.full(nbytes, 0xCD, np.uint8)
        return self._make(kind, memory, memory.ctypes.data)

    def cuMemFree(self, address: Any) -> None:
        self._gone.append(self._end("memory", address))

    def cuMemFreeHost(self, address: Any) -> None:
        self._gone.append(self._end("host", address))

    def cuStreamCreate(self, flags: int) -> int:
        assert flags == 1, "a stream that waits for the default one"
        return self._make("stream", {"work": [], "capturing": None})

    def cuStreamSynchronize(self, stream: Any) -> None:
        self._run(self._get("stream", stream))

    def cuStreamDestroy(self, stream: Any) -> None:
        self._end("stream", stream)

    def _run(self, stream: dict[str, Any]) -> None:
        if stream["capturing"] is not None:
            raise Refused("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        work, stream["work"] = stream["work"], []
        for each in work:
            each()

    def _add(self, stream: Any, work: Callable[[], None]) -> None:
        thing = self._get("stream", stream)
        (thing["work"] if thing["capturing"] is None else thing["capturing"]).append(work)

    def cuEventCreate(self, flags: int) -> int:
        assert flags == 0, "an event that does not measure time"
        return self._make("event", {"time": None, "stream": None})

    def cuEventRecord(self, event: Any, stream: Any) -> None:
        thing = self._get("event", event)
        thing["stream"] = self._get("stream", stream)
        self._add(stream, lambda: thing.update(time=time.perf_counter()))

    def cuEventSynchronize(self, event: Any) -> None:
        thing = self._get("event", event)
        if thing["stream"] is not None:
            self._run(thing["stream"])

    def cuEventElapsedTime(self, earlier: Any, later: Any) -> float:
        times = [self._get("event", each)["time"] for each in (earlier, later)]
        if None in times:
            raise Refused("CUDA_ERROR_INVALID_HANDLE")
        return (times[1] - times[0]) * 1e3

    def cuEventDestroy(self, event: Any) -> None:
        self._end("event", event)

    def cuMemcpyHtoDAsync(self, target: Any, source: int, nbytes: int, stream: Any) -> None:
        assert nbytes <= len(self._get("memory", target))
        self._add(stream, lambda: ctypes.memmove(int(target), source, nbytes) and None)

    def cuMemcpyDtoHAsync(self, target: int, source: Any, nbytes: int, stream: Any) -> None:
        assert nbytes <= len(self._get("memory", source))
        self._add(stream, lambda: ctypes.memmove(target, int(source), nbytes) and None)

    def cuStreamBeginCapture(self, stream: Any, mode: Any) -> None:
        assert mode == 1, "other threads would be disturbed"
        self._get("stream", stream)["capturing"] = []

    def cuStreamEndCapture(self, stream: Any) -> int:
        thing = self._get("stream", stream)
        work, thing["capturing"] = thing["capturing"], None
        return self._make("graph", work)

    def cuGraphInstantiate(self, graph: Any, flags: int) -> int:
        return self._make("executable", self._get("graph", graph))

    def cuGraphDestroy(self, graph: Any) -> None:
        self._end("graph", graph)

    def cuGraphLaunch(self, graph: Any, stream: Any) -> None:
        for each in self._get("executable", graph):
            self._add(stream, each)

    def cuGraphExecDestroy(self, graph: Any) -> None:
        self._end("executable", graph)


class CUresult(enum.IntEnum):
    """Of cuda-bindings, as far as the driver above answers."""

    locals().update({name: code for name, (code, _) in CODES.items()})


def cuda_modules(driver: FakeDriver) -> dict[str, ModuleType]:
    """Make the modules of cuda-bindings: functions that give a code and the results."""
    top, bindings, module = (ModuleType(name) for name in ("cuda", "cuda.bindings", "cuda.bindings.driver"))
    fake: Any = module
    fake.CUresult = CUresult
    fake.CUstream_flags = enum.IntEnum(
        "CUstream_flags", {"CU_STREAM_DEFAULT": 0, "CU_STREAM_NON_BLOCKING": 1}
    )
    fake.CUevent_flags = enum.IntEnum("CUevent_flags", {"CU_EVENT_DEFAULT": 0, "CU_EVENT_DISABLE_TIMING": 2})
    modes = {"GLOBAL": 0, "THREAD_LOCAL": 1, "RELAXED": 2}
    names = {f"CU_STREAM_CAPTURE_MODE_{name}": value for name, value in modes.items()}
    fake.CUstreamCaptureMode = enum.IntEnum("CUstreamCaptureMode", names)

    def function(name: str) -> Callable[..., tuple[Any, ...]]:
        def call(*arguments: Any) -> tuple[Any, ...]:
            try:
                return (CUresult.CUDA_SUCCESS, *driver.call(name, *arguments))
            except Refused as refused:
                return (CUresult[str(refused)], None)

        return call

    for name in dir(FakeDriver):
        if name.startswith("cu"):
            setattr(module, name, function(name))
    fake_top: Any = top
    fake_bindings: Any = bindings
    fake_top.bindings, fake_bindings.driver, fake_bindings.__version__ = bindings, module, "13.5.0"
    top.__path__ = bindings.__path__ = []
    return {"cuda": top, "cuda.bindings": bindings, "cuda.bindings.driver": module}
