"""What `OpenDevice` needs of a binding of CUDA: the calls, and nothing of who owns what."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

__all__ = ["Binding"]


class Binding(Protocol):
    """A binding of CUDA on one GPU. What it makes are its own things, which only it understands.

    The driver's refusals come out as InferenceError or OutOfDeviceMemory of `failures.failure`; giving
    something back is refused in the same way, but may also go unnoticed (pycuda writes it to stderr).
    """

    @property
    def layer(self) -> str:
        """Its name and version."""

    @property
    def graphs(self) -> bool:
        """Whether it has CUDA graphs."""

    def retain(self) -> None:
        """Retain the primary context, which is current in no thread for that."""

    def release(self) -> None:
        """Release the primary context, from any thread."""

    def push(self) -> None:
        """Make the context current in this thread."""

    def pop(self) -> None:
        """Make current what was before the last push."""

    def synchronize(self) -> None:
        """Wait for everything that the context has to do."""

    def free_bytes(self) -> int:
        """Memory that nobody uses."""

    def allocate(self, nbytes: int) -> Any:
        """Take memory on the device."""

    def address(self, memory: Any) -> int:
        """Where it begins."""

    def give_back(self, memory: Any) -> None:
        """Give memory on the device back."""

    def allocate_host(self, nbytes: int) -> tuple[Any, NDArray[Any]]:
        """Take page-locked memory, and see it as (nbytes,) uint8."""

    def give_back_host(self, memory: Any) -> None:
        """Give page-locked memory back."""

    def make_stream(self) -> Any:
        """Make a stream that does not wait for the default one."""

    def handle(self, stream: Any) -> int:
        """CUDA's handle of a stream."""

    def wait(self, stream: Any) -> None:
        """Wait until a stream has done all that it was given, without the GIL where the binding can."""

    def end_stream(self, stream: Any) -> None:
        """Give a stream back."""

    def make_event(self) -> Any:
        """Make an event that measures time."""

    def record(self, event: Any, stream: Any) -> None:
        """Put an event behind all that the stream has to do by now."""

    def milliseconds(self, earlier: Any, later: Any) -> float:
        """Time between two events; waits for both."""

    def end_event(self, event: Any) -> None:
        """Give an event back."""

    def upload(self, memory: Any, source: NDArray[Any], stream: Any) -> None:
        """Begin to copy a contiguous array to the device."""

    def download(self, target: NDArray[Any], memory: Any, stream: Any) -> None:
        """Begin to copy from the device to a contiguous array."""

    def begin_capture(self, stream: Any) -> None:
        """Record what this thread gives the stream to do from now on."""

    def end_capture(self, stream: Any) -> Any:
        """Make a graph of what was recorded."""

    def abandon_capture(self, stream: Any) -> None:
        """Forget what was recorded; refused by nobody."""

    def launch(self, graph: Any, stream: Any) -> None:
        """Do a graph's work."""

    def end_graph(self, graph: Any) -> None:
        """Give a graph back."""
