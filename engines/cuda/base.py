"""The device layer: the little that is needed of CUDA, whichever binding gives it.

Everything that is made on a device is freed with `free`, before the device is closed; freeing twice, or
using what was freed, is a bug of the caller. All calls but `Device.__enter__` and `Device.current` need the
device's context to be current in the calling thread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Device", "DeviceBuffer", "Event", "GpuFacts", "Graph", "HostBuffer", "Stream"]


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """What a GPU is.

    Parameters
    ----------
    number : among those that CUDA_VISIBLE_DEVICES leaves
    name : as NVIDIA calls it
    compute_capability : (major, minor)
    multiprocessors : their number
    memory_bytes : all of its memory
    driver : CUDA version that the driver supports, (major, minor)
    """

    number: int
    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int
    driver: tuple[int, int]


class DeviceBuffer(Protocol):
    """Memory on the device."""

    @property
    def address(self) -> int:
        """Where it begins."""

    @property
    def nbytes(self) -> int:
        """How large it is."""

    def free(self) -> None:
        """Give it back."""


class HostBuffer(Protocol):
    """Page-locked memory of the host, which copies may use while the CPU goes on."""

    @property
    def array(self) -> NDArray[Any]:
        """The memory; not to be touched after `free`."""

    def free(self) -> None:
        """Give it back."""


class Stream(Protocol):
    """Work on the device, one piece after another."""

    @property
    def handle(self) -> int:
        """What TensorRT is given."""

    def synchronize(self) -> None:
        """Wait until all of it is done; raises InferenceError if some of it failed."""

    def free(self) -> None:
        """Give it back."""


class Event(Protocol):
    """A point in a stream's work."""

    def record(self, stream: Stream) -> None:
        """Put the point behind all that the stream has to do by now."""

    def milliseconds_since(self, earlier: Self) -> float:
        """Time between two points that the device has passed; waits for them."""

    def free(self) -> None:
        """Give it back."""


class Graph(Protocol):
    """Work that was recorded once and is started with one call."""

    def launch(self, stream: Stream) -> None:
        """Do it again, with the same addresses."""

    def free(self) -> None:
        """Give it back."""


class Device(Protocol):
    """One GPU, opened: a context manager that holds its primary context.

    Raises
    ------
    EngineUnavailable
        On entering: there is no such GPU, or no binding of CUDA that works.
    OutOfDeviceMemory
        From `allocate` and `pinned`.
    InferenceError
        From everything else that the driver refuses.
    """

    @property
    def facts(self) -> GpuFacts:
        """What it is; known once it is open."""

    @property
    def layer(self) -> str:
        """Binding and its version, for records."""

    @property
    def graphs(self) -> bool:
        """Whether `capture` works."""

    def __enter__(self) -> Self:
        """Retain the primary context; it is current in no thread yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the primary context."""

    def current(self) -> AbstractContextManager[None]:
        """Make the context current in this thread; may be nested."""

    def free_bytes(self) -> int:
        """Memory that nobody uses."""

    def allocate(self, nbytes: int) -> DeviceBuffer:
        """Take memory on the device."""

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> HostBuffer:
        """Take page-locked memory on the host."""

    def stream(self) -> Stream:
        """Make a stream that does not wait for the default one."""

    def event(self) -> Event:
        """Make an event that measures time."""

    def upload(self, target: DeviceBuffer, source: NDArray[Any], stream: Stream) -> None:
        """Begin to copy to the device; `source` is C-contiguous, a part of a `HostBuffer`, from its start."""

    def download(self, target: NDArray[Any], source: DeviceBuffer, stream: Stream) -> None:
        """Begin to copy from the device; `target` as in `upload`. It is there after `Stream.synchronize`."""

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """Record what `work` gives a stream to do, without doing it."""
