"""What is made on a device: each thing belongs to the device that made it, and is freed once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, Self

from numpy.typing import NDArray

from fastseg.engines.cuda import base
from fastseg.engines.cuda.binding import Binding
from fastseg.errors import InferenceError

__all__ = ["DeviceBuffer", "Event", "Graph", "HostBuffer", "Made", "Owner", "Stream"]


class Owner(Protocol):
    """What things need of their device."""

    def binding(self) -> Binding:
        """Give the binding, where the device is open."""

    def ready(self) -> Binding:
        """Give the binding, where the context is current in this thread."""

    def thing_of(self, made: object, kind: type[Made]) -> Any:
        """Give what the binding made for something, which has to be of this device and of that kind."""

    def forget(self, made: Made, give_back: Callable[[Binding], None]) -> None:
        """Give something back, once."""


class Made(ABC):
    """Something that was made on a device, until it is freed."""

    kind = "thing"

    def __init__(self, device: Owner, thing: Any) -> None:
        self.device = device
        self._thing = thing

    @property
    def thing(self) -> Any:
        """What the binding made."""
        if self._thing is None:
            raise InferenceError(f"a {self.kind} was used after it was freed")
        return self._thing

    def ready(self) -> Binding:
        """Give the binding, where the context is current."""
        return self.device.ready()

    def free(self) -> None:
        """Give it back."""
        self.device.forget(self, self._give_back)

    def _give_back(self, binding: Binding) -> None:
        thing, self._thing = self._thing, None
        self._end(binding, thing)

    @abstractmethod
    def _end(self, binding: Binding, thing: Any) -> None:
        """Have the binding free what it made."""


class DeviceBuffer(Made):
    """Memory on the device."""

    kind = "device buffer"

    def __init__(self, device: Owner, thing: Any, nbytes: int) -> None:
        super().__init__(device, thing)
        self._nbytes = nbytes

    @property
    def address(self) -> int:
        """Where it begins."""
        return self.device.binding().address(self.thing)

    @property
    def nbytes(self) -> int:
        """How large it is."""
        return self._nbytes

    def _end(self, binding: Binding, thing: Any) -> None:
        binding.give_back(thing)


class HostBuffer(Made):
    """Page-locked memory of the host."""

    kind = "pinned buffer"

    def __init__(self, device: Owner, thing: Any, array: NDArray[Any]) -> None:
        super().__init__(device, thing)
        self._array: NDArray[Any] | None = array

    @property
    def array(self) -> NDArray[Any]:
        """The memory. Views of it that outlive `free` look at memory that is gone."""
        if self._array is None:
            raise InferenceError(f"a {self.kind} was used after it was freed")
        return self._array

    def _end(self, binding: Binding, thing: Any) -> None:
        self._array = None
        binding.give_back_host(thing)


class Stream(Made):
    """Work on the device, one piece after another."""

    kind = "stream"

    @property
    def handle(self) -> int:
        """What TensorRT is given."""
        return self.device.binding().handle(self.thing)

    def synchronize(self) -> None:
        """Wait until all of it is done."""
        self.ready().wait(self.thing)

    def _end(self, binding: Binding, thing: Any) -> None:
        binding.end_stream(thing)


class Event(Made):
    """A point in a stream's work."""

    kind = "event"

    def record(self, stream: base.Stream) -> None:
        """Put the point behind all that the stream has to do by now."""
        self.ready().record(self.thing, self.device.thing_of(stream, Stream))

    def milliseconds_since(self, earlier: Self) -> float:
        """Time between two points that the device has passed; waits for them."""
        return self.ready().milliseconds(earlier.thing, self.thing)

    def _end(self, binding: Binding, thing: Any) -> None:
        binding.end_event(thing)


class Graph(Made):
    """Work that was recorded once."""

    kind = "graph"

    def launch(self, stream: base.Stream) -> None:
        """Do it again, with the same addresses."""
        self.ready().launch(self.thing, self.device.thing_of(stream, Stream))

    def _end(self, binding: Binding, thing: Any) -> None:
        binding.end_graph(thing)
