"""One GPU, opened: who owns what, whichever binding of CUDA makes the calls.

What is made is held here until it is freed, or else until the device is closed, which says what was
forgotten. Giving back what the driver refuses to take is logged and not raised: the refusal repeats an error
that has been raised already, and an error in a clean-up would hide it.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastseg.engines.cuda import base
from fastseg.engines.cuda.base import GpuFacts
from fastseg.engines.cuda.binding import Binding
from fastseg.engines.cuda.probe import probe
from fastseg.engines.cuda.things import DeviceBuffer, Event, Graph, HostBuffer, Made, Stream
from fastseg.errors import EngineError, EngineUnavailable, InferenceError

__all__ = ["OpenDevice"]

_log = logging.getLogger(__name__)

_SomeMade = TypeVar("_SomeMade", bound=Made)


class OpenDevice:
    """A `fastseg.engines.cuda.base.Device` on any binding.

    Several of them may be open on one GPU, also in several threads: they share its primary context, and what
    is freed in one is not felt in another.

    Parameters
    ----------
    number : of the GPU, among those that CUDA_VISIBLE_DEVICES leaves
    bind : makes the binding, when the device is entered

    Raises
    ------
    EngineUnavailable
        On entering; see `Device`.
    """

    def __init__(self, number: int, bind: Callable[[int], Binding]) -> None:
        self._number, self._bind = number, bind
        self._binding: Binding | None = None
        self._facts: GpuFacts | None = None
        self._made: dict[int, Made] = {}
        self._lock = threading.Lock()
        self._users = 0  # contexts that are current, in all threads
        self._here = threading.local()

    @property
    def facts(self) -> GpuFacts:
        """What it is."""
        if self._facts is None:
            raise self._closed()
        return self._facts

    @property
    def layer(self) -> str:
        """Binding and its version."""
        return self.binding().layer

    @property
    def graphs(self) -> bool:
        """Whether `capture` works."""
        return self.binding().graphs

    def __enter__(self) -> Self:
        if self._binding is not None:
            raise InferenceError(f"GPU {self._number} is open already: enter each device once")
        found = probe()
        if not found.gpus:
            raise EngineUnavailable(found.problem)
        facts = next((each for each in found.gpus if each.number == self._number), None)
        if facts is None:
            raise EngineUnavailable(
                f"GPU {self._number} is not there: this machine has "
                f"{', '.join(f'cuda:{each.number} ({each.name})' for each in found.gpus)}"
            )
        binding = self._bind(self._number)
        try:
            binding.retain()
        except InferenceError as error:
            raise EngineUnavailable(str(error)) from error
        self._binding, self._facts = binding, facts
        self._here, self._users = threading.local(), 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        binding = self.binding()
        forgotten = self._forgotten()
        if self._made:
            with suppress(EngineError), self.current():
                with suppress(EngineError):  # copies may still run into what is freed here
                    binding.synchronize()
                for each in reversed(list(self._made.values())):
                    each.free()
        self._made.clear()
        self._binding = self._facts = None
        try:
            binding.release()
        except InferenceError as refused:
            _log.warning("the primary context was not released: %s", refused)
        if forgotten and error is None:  # after an error it is no wonder
            warnings.warn(forgotten, ResourceWarning, stacklevel=2)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread; may be nested."""
        binding = self.binding()
        binding.push()
        self._enter_thread(+1)
        try:
            yield
        except BaseException:
            with suppress(EngineError):  # the error that is on its way says more
                binding.pop()
            raise
        else:
            binding.pop()
        finally:
            self._enter_thread(-1)

    def free_bytes(self) -> int:
        """Memory that nobody uses."""
        return self.ready().free_bytes()

    def allocate(self, nbytes: int) -> DeviceBuffer:
        """Take memory on the device."""
        binding = self.ready()
        if nbytes < 1:
            raise InferenceError(f"GPU {self._number}: {nbytes} bytes of memory were asked for: at least 1")
        return self._keep(DeviceBuffer(self, binding.allocate(nbytes), nbytes))

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> HostBuffer:
        """Take page-locked memory on the host."""
        binding = self.ready()
        kind = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        memory, raw = binding.allocate_host(max(nbytes, 1))
        return self._keep(HostBuffer(self, memory, raw[:nbytes].view(kind).reshape(shape)))

    def stream(self) -> Stream:
        """Make a stream that does not wait for the default one."""
        return self._keep(Stream(self, self.ready().make_stream()))

    def event(self) -> Event:
        """Make an event that measures time."""
        return self._keep(Event(self, self.ready().make_event()))

    def upload(self, target: base.DeviceBuffer, source: NDArray[Any], stream: base.Stream) -> None:
        """Begin to copy to the device."""
        binding, memory = self.ready(), self._memory(target, source)
        binding.upload(memory, source, self.thing_of(stream, Stream))

    def download(self, target: NDArray[Any], source: base.DeviceBuffer, stream: base.Stream) -> None:
        """Begin to copy from the device."""
        binding, memory = self.ready(), self._memory(source, target)
        binding.download(target, memory, self.thing_of(stream, Stream))

    def capture(self, stream: base.Stream, work: Callable[[], None]) -> Graph:
        """Record what `work` gives a stream to do, without doing it."""
        binding, thing = self.ready(), self.thing_of(stream, Stream)
        binding.begin_capture(thing)
        try:
            work()
        except BaseException:
            binding.abandon_capture(thing)
            raise
        return self._keep(Graph(self, binding.end_capture(thing)))

    def binding(self) -> Binding:
        """See `Owner.binding`."""
        if self._binding is None:
            raise self._closed()
        return self._binding

    def ready(self) -> Binding:
        """See `Owner.ready`."""
        binding = self.binding()
        if not getattr(self._here, "depth", 0):
            raise InferenceError(
                f"GPU {self._number} is not current in thread {threading.current_thread().name}: this is a "
                "bug of fastseg, report it with this line"
            )
        return binding

    def _closed(self) -> InferenceError:
        return InferenceError(f"GPU {self._number} is not open: use the device in a with block")

    def _enter_thread(self, by: int) -> None:
        self._here.depth = getattr(self._here, "depth", 0) + by
        with self._lock:
            self._users += by

    def _forgotten(self) -> str:
        parts = [
            f"{count} {name}" for name, count in Counter(each.kind for each in self._made.values()).items()
        ]
        if self._users:
            parts.append(f"{self._users} blocks of code that still use it")
        return f"GPU {self._number} was closed with {', '.join(parts)} not freed" if parts else ""

    def _keep(self, made: _SomeMade) -> _SomeMade:
        with self._lock:
            self._made[id(made)] = made
        return made

    def forget(self, made: Made, give_back: Callable[[Binding], None]) -> None:
        """See `Owner.forget`."""
        binding = self.ready()
        with self._lock:
            known = self._made.pop(id(made), None)
        if known is None:
            raise InferenceError(f"GPU {self._number}: a {made.kind} was freed twice")
        try:
            give_back(binding)
        except InferenceError as error:
            _log.warning("a %s was not given back: %s", made.kind, error)

    def _memory(self, buffer: base.DeviceBuffer, array: NDArray[Any]) -> Any:
        memory = self.thing_of(buffer, DeviceBuffer)
        if not array.flags.c_contiguous:
            raise InferenceError(f"GPU {self._number}: an array of strides {array.strides} cannot be copied")
        if array.nbytes > buffer.nbytes:
            raise InferenceError(
                f"GPU {self._number}: {array.nbytes} bytes do not fit the {buffer.nbytes} on the device"
            )
        return memory

    def thing_of(self, made: object, kind: type[Made]) -> Any:
        """See `Owner.thing_of`."""
        if not isinstance(made, kind) or made.device is not self:
            raise InferenceError(f"GPU {self._number}: {made!r} is not a {kind.kind} of this device")
        return made.thing
