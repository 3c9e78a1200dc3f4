"""GPUs of numpy memory: the device protocol of `fastseg.engines.cuda.base`, with all that can go wrong.

What a stream is given to do is done when the stream is synchronised, and not before: an answer that is
read too early is garbage, and so is one to an input that is overwritten too early. A wrong use raises
`Misuse`, which nothing in fastseg catches; where it cannot be raised (in a destructor) it is kept, and raised
when the device is closed, as are leaks.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastseg.engines.cuda.base import GpuFacts
from fastseg.errors import EngineUnavailable, InferenceError, OutOfDeviceMemory
from tests.engines.fake_cuda_things import (
    GARBAGE,
    FakeBuffer,
    FakeEvent,
    FakeGraph,
    FakeHostBuffer,
    FakeStream,
    Freeable,
    Misuse,
)

__all__ = ["FakeCuda", "FakeDevice", "FakeStream", "Misuse", "gpu"]

_Thing = TypeVar("_Thing", bound=Freeable)


def gpu(number: int = 0, **facts: Any) -> GpuFacts:
    """Facts of a GPU."""
    known: dict[str, Any] = {
        "number": number,
        "name": "Fake H200",
        "compute_capability": (9, 0),
        "multiprocessors": 132,
        "memory_bytes": 1 << 30,
        "driver": (13, 0),
    }
    return GpuFacts(**known | facts)


class FakeCuda:
    """A machine's GPUs.

    Parameters
    ----------
    gpus : what they are; one by default
    graphs : whether the binding has CUDA graphs
    """

    def __init__(self, *gpus: GpuFacts, graphs: bool = True) -> None:
        self.gpus = gpus or (gpu(),)
        self.graphs = graphs
        self.layer = "fake 1.0"
        self.calls: Counter[str] = Counter()  # how often each call was made
        self.used = [0] * len(self.gpus)  # bytes taken on each
        self.misuse: list[str] = []  # what destructors did wrong
        self.streams: dict[int, FakeStream] = {}
        self.memory: dict[int, NDArray[np.uint8]] = {}  # by address
        self._lock = threading.RLock()
        self._addresses = itertools.count(0x7F0000000000, 1 << 34)
        self._handles = itertools.count(0x5000)
        self._local = threading.local()
        self._faults: dict[str, list[tuple[int, int, Exception]]] = {}

    def open_device(self, number: int) -> FakeDevice:
        """What `fastseg.engines.cuda.open.open_device` does."""
        return FakeDevice(self, number)

    def fail(self, call: str, error: Exception | None = None, *, after: int = 0, times: int = 1) -> None:
        """Let a call fail: `after` more of them succeed, then as many as `times` raise the error."""
        known = error or InferenceError(f"cuda: {call} failed (CUDA_ERROR_UNKNOWN)")
        first = self.calls[call] + after + 1
        self._faults.setdefault(call, []).append((first, first + times, known))

    def heal(self) -> None:
        """Let nothing fail any more."""
        self._faults.clear()

    def count(self, call: str) -> None:
        """Count a call, or let it fail."""
        with self._lock:
            self.calls[call] += 1
            number = self.calls[call]
            for first, stop, error in self._faults.get(call, ()):
                if first <= number < stop:
                    raise error

    @property
    def pushed(self) -> list[FakeDevice]:
        """Devices whose context this thread has made current, the innermost last."""
        if not hasattr(self._local, "pushed"):
            self._local.pushed = []
        pushed: list[FakeDevice] = self._local.pushed
        return pushed

    def current(self, what: str) -> FakeDevice:
        """The device whose context is current; a call without one is refused."""
        if not self.pushed:
            raise Misuse(f"{what} without a current context in {threading.current_thread().name}")
        return self.pushed[-1]

    def block(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """Memory of the device from an address on."""
        memory = self.memory.get(address)
        if memory is None:
            raise Misuse(f"address {address:#x} is nobody's memory, or was freed")
        if nbytes > len(memory):
            raise Misuse(f"{nbytes} bytes asked of the {len(memory)} at {address:#x}")
        return memory[:nbytes]

    def take(self, number: int, nbytes: int) -> int:
        """Take memory of a GPU."""
        with self._lock:
            if self.used[number] + nbytes > self.gpus[number].memory_bytes:
                free = self.gpus[number].memory_bytes - self.used[number]
                raise OutOfDeviceMemory(
                    f"GPU {number}: no {nbytes} bytes left of {self.gpus[number].memory_bytes} ({free} are "
                    "free): end what else uses it"
                )
            address = next(self._addresses)
            self.used[number] += nbytes
            self.memory[address] = np.full(nbytes, GARBAGE, np.uint8)
            return address

    def give(self, number: int, address: int) -> None:
        """Give memory of a GPU back."""
        with self._lock:
            self.used[number] -= len(self.memory.pop(address))

    def handle(self, stream: FakeStream) -> int:
        """Name a stream."""
        with self._lock:
            number = next(self._handles)
            self.streams[number] = stream
            return number


class FakeDevice:
    """One GPU; see `fastseg.engines.cuda.base.Device`."""

    def __init__(self, cuda: FakeCuda, number: int) -> None:
        self.cuda, self.number = cuda, number
        self._open = False
        self._made: list[Freeable] = []
        self.guests: Counter[str] = Counter()  # what a vendor keeps in its context

    @property
    def facts(self) -> GpuFacts:
        if not self._open:
            raise Misuse("facts of a device that is not open")
        return self.cuda.gpus[self.number]

    @property
    def layer(self) -> str:
        return self.cuda.layer

    @property
    def graphs(self) -> bool:
        return self.cuda.graphs

    def __enter__(self) -> Self:
        if self._open:
            raise Misuse("device opened twice")
        if not 0 <= self.number < len(self.cuda.gpus):
            raise EngineUnavailable(
                f"GPU {self.number}: this machine has {len(self.cuda.gpus)}: name another"
            )
        self.cuda.count("open")
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._open:
            raise Misuse("device closed twice")
        leaks = Counter(repr(each) for each in self._made) + self.guests
        self._open = False
        misuse, self.cuda.misuse = self.cuda.misuse, []
        if self in self.cuda.pushed:
            misuse.append("the context is still current in the thread that closes it")
        if leaks:
            misuse.append("leaked: " + ", ".join(f"{count} {each}" for each, count in leaks.items()))
        if misuse:
            raise Misuse("; ".join(misuse))

    def check(self, what: str) -> None:
        """Refuse a call of a device that is closed, or not current."""
        if not self._open:
            raise Misuse(f"{what} on a device that is not open")
        if self.cuda.current(what).number != self.number:
            raise Misuse(f"{what} of GPU {self.number} in the context of another")

    def forget(self, thing: Freeable) -> None:
        """Take something off the list of what is to be freed."""
        self._made.remove(thing)

    def keep(self, thing: _Thing) -> _Thing:
        """Note that something is to be freed before the device is closed."""
        self._made.append(thing)
        return thing

    @contextmanager
    def current(self) -> Iterator[None]:
        if not self._open:
            raise Misuse("current() of a device that is not open")
        self.cuda.pushed.append(self)
        try:
            yield
        finally:
            self.cuda.pushed.pop()

    def free_bytes(self) -> int:
        self.check("free_bytes")
        return self.cuda.gpus[self.number].memory_bytes - self.cuda.used[self.number]

    def allocate(self, nbytes: int) -> FakeBuffer:
        self._not_capturing("allocate")
        self.cuda.count("allocate")
        if nbytes < 1:
            raise InferenceError("cuMemAlloc: CUDA_ERROR_INVALID_VALUE: 0 bytes")
        return self.keep(FakeBuffer(self, nbytes))

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> FakeHostBuffer:
        self._not_capturing("pinned")
        self.cuda.count("pinned")
        return self.keep(FakeHostBuffer(self, shape, dtype))

    def stream(self) -> FakeStream:
        self.cuda.count("stream")
        return self.keep(FakeStream(self))

    def event(self) -> FakeEvent:
        self.cuda.count("event")
        return self.keep(FakeEvent(self))

    def upload(self, target: FakeBuffer, source: NDArray[Any], stream: FakeStream) -> None:
        self._copy("upload", target, source, stream)

    def download(self, target: NDArray[Any], source: FakeBuffer, stream: FakeStream) -> None:
        self._copy("download", source, target, stream)

    def capture(self, stream: FakeStream, work: Callable[[], None]) -> FakeGraph:
        self.check("capture")
        if not self.graphs:
            raise Misuse("capture where there are no graphs")
        self.cuda.count("capture")
        stream.alive()
        if stream.capturing is not None:
            raise Misuse("capture within a capture")
        stream.capturing, stream.capturer = [], threading.get_ident()
        try:
            work()
            recorded = stream.capturing
        finally:
            stream.capturing = None
        return self.keep(FakeGraph(self, recorded))

    def _copy(self, call: str, buffer: FakeBuffer, array: NDArray[Any], stream: FakeStream) -> None:
        self.check(call)
        self.cuda.count(call)
        if not array.flags.c_contiguous:
            raise Misuse(f"{call} of an array that is not contiguous")
        address, nbytes = buffer.address, array.nbytes
        owners = [
            each
            for each in tuple(self._made)  # other threads make and free things meanwhile
            if isinstance(each, FakeHostBuffer) and each.start == array.ctypes.data
        ]
        if not owners:
            raise Misuse(f"{call} of memory that is not pinned")
        (owner,) = owners
        if nbytes > buffer.nbytes:
            raise Misuse(f"{call} of {nbytes} bytes, where the device has {buffer.nbytes}")

        def run() -> None:
            owner.alive()
            device, host = self.cuda.block(address, nbytes), array.reshape(-1).view(np.uint8)
            if call == "upload":
                device[:] = host
            else:
                host[:] = device

        stream.add(run)

    def _not_capturing(self, call: str) -> None:
        self.check(call)
        streams = [each for each in tuple(self._made) if isinstance(each, FakeStream)]
        if any(each.capturing is not None and each.capturer == threading.get_ident() for each in streams):
            raise Misuse(f"{call} while a stream's work is captured")
