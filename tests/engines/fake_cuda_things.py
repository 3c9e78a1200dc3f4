"""What is made on a fake GPU: memory, streams, events, graphs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    from tests.engines.fake_cuda import FakeDevice

__all__ = [
    "GARBAGE",
    "FakeBuffer",
    "FakeEvent",
    "FakeGraph",
    "FakeHostBuffer",
    "FakeStream",
    "Freeable",
    "Misuse",
]

#: What memory holds before anything is written into it, and after it was freed.
GARBAGE = 0xCD


class Misuse(AssertionError):
    """The device layer was used as CUDA forbids it."""


class Freeable:
    """Something that is freed exactly once, by a thread that has the context."""

    def __init__(self, device: FakeDevice, kind: str) -> None:
        device.check(kind)
        self._device, self._kind, self._freed = device, kind, False

    def alive(self) -> None:
        if self._freed:
            raise Misuse(f"{self._kind} used after it was freed")

    def free(self) -> None:
        if self._freed:
            raise Misuse(f"{self._kind} freed twice")
        self._device.check(f"free of a {self._kind}")
        self._release()
        self._device.forget(self)
        self._freed = True

    def _release(self) -> None:
        """What freeing does besides."""

    def __repr__(self) -> str:
        return self._kind


class FakeBuffer(Freeable):
    """Memory on the device."""

    def __init__(self, device: FakeDevice, nbytes: int) -> None:
        super().__init__(device, "device buffer")
        self._address, self._nbytes = device.cuda.take(device.number, nbytes), nbytes

    @property
    def address(self) -> int:
        self.alive()
        return self._address

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def _release(self) -> None:
        self._device.cuda.give(self._device.number, self._address)


class FakeHostBuffer(Freeable):
    """Page-locked memory."""

    def __init__(self, device: FakeDevice, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        super().__init__(device, "pinned buffer")
        self._array = np.empty(shape, dtype)
        self._bytes()[:] = GARBAGE

    @property
    def array(self) -> NDArray[Any]:
        self.alive()
        return self._array

    @property
    def start(self) -> int:
        return int(self._array.ctypes.data)

    def _bytes(self) -> NDArray[np.uint8]:
        return self._array.reshape(-1).view(np.uint8)

    def _release(self) -> None:
        self._bytes()[:] = GARBAGE


class FakeStream(Freeable):
    """Work that is done when it is waited for."""

    def __init__(self, device: FakeDevice) -> None:
        super().__init__(device, "stream")
        self._work: list[Callable[[], None]] = []
        self._handle = device.cuda.handle(self)
        self.capturing: list[Callable[[], None]] | None = None
        self.capturer = 0  # thread that captures

    @property
    def handle(self) -> int:
        self.alive()
        return self._handle

    @property
    def pending(self) -> tuple[Callable[[], None], ...]:
        """Work that was not waited for."""
        return tuple(self._work)

    def add(self, work: Callable[[], None]) -> None:
        """Put work behind what there is."""
        self.alive()
        (self._work if self.capturing is None else self.capturing).append(work)

    def synchronize(self) -> None:
        self.alive()
        self._device.check("synchronize")
        if self.capturing is not None:
            raise Misuse("synchronize while the stream's work is captured")
        work, self._work = self._work, []
        self._device.cuda.count("synchronize")
        for each in work:
            each()

    def _release(self) -> None:
        if self._work:
            raise Misuse(f"stream freed with {len(self._work)} pieces of work that were not waited for")
        del self._device.cuda.streams[self._handle]


class FakeEvent(Freeable):
    """A point in a stream's work."""

    def __init__(self, device: FakeDevice) -> None:
        super().__init__(device, "event")
        self._stream: FakeStream | None = None
        self._time = 0.0

    def record(self, stream: FakeStream) -> None:
        self.alive()
        self._device.check("record")

        def pass_by() -> None:
            self._time = time.perf_counter()

        self._stream = stream
        stream.add(pass_by)

    def milliseconds_since(self, earlier: FakeEvent) -> float:
        self.alive()
        earlier.alive()
        for event in (earlier, self):
            if event._stream is None:
                raise Misuse("an event was not recorded")
            event._stream.synchronize()
        return (self._time - earlier._time) * 1e3


class FakeGraph(Freeable):
    """Work that was recorded."""

    def __init__(self, device: FakeDevice, work: list[Callable[[], None]]) -> None:
        super().__init__(device, "graph")
        self._work = work

    def launch(self, stream: FakeStream) -> None:
        self.alive()
        self._device.check("launch")
        self._device.cuda.count("launch")
        for each in self._work:
            stream.add(each)

    def _release(self) -> None:
        self._work.clear()
