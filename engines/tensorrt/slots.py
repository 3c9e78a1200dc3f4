"""One of several places where a plan runs: its execution context, stream, buffers, and graph."""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.cuda.base import Device, DeviceBuffer, Graph, HostBuffer
from fastseg.engines.tensorrt.loading import Loaded, failure
from fastseg.engines.tensorrt.vendor import Vendor
from fastseg.errors import InferenceError

if TYPE_CHECKING:
    import tensorrt

__all__ = ["Slot"]

_logger = logging.getLogger(__name__)

_REMEDY = "try again, or choose --device cpu"
# Buffers grow in such steps (float32 values), so that volumes of slightly different sizes share them.
_GRAIN = 1 << 19


class Slot:
    """Runs one piece of a batch at a time, for one thread at a time.

    `begin` puts a piece on its way to the GPU and back, `finish` waits for it: between the two, the CPU may
    get the next piece ready in another slot. All slots share the plan's one profile, which TensorRT allows
    from version 10 on. Everything needs the device's context to be current.

    Parameters
    ----------
    device : where
    loaded : the plan
    vendor : whose it is
    channels_last : whether the file wants channels last; pieces and answers have them first

    Raises
    ------
    OutOfDeviceMemory
        There is no room for another one.
    EngineBuildError
        The plan cannot be run.
    """

    def __init__(self, device: Device, loaded: Loaded, vendor: Vendor, *, channels_last: bool) -> None:
        self._device, self._vendor, self._channels_last = device, vendor, channels_last
        self._input, self._output = loaded.input, loaded.output
        self._taken: tuple[int, ...] = ()  # shapes that the context is set to
        self._given: tuple[int, ...] = ()
        self._count = 0  # images of the piece that is under way
        self._room: _Room | None = None
        self._graph: Graph | None = None
        self._graphs = device.graphs
        self._ran = False  # in this shape, with these buffers, without a graph
        self._context: tensorrt.IExecutionContext | None = None
        self._stream = device.stream()
        try:
            self._context = loaded.context()
        except BaseException:
            self._stream.free()
            raise

    def begin(self, piece: NDArray[np.float32], images: int, *, graph: bool) -> None:
        """Start a piece.

        Parameters
        ----------
        piece : (n, C, x, y[, z]) float32
        images : that are run, at least n; those behind the piece are zeros
        graph : whether many pieces of this very shape will come, so that it is worth recording

        Raises
        ------
        OutOfDeviceMemory
            There is no room for so many images.
        InferenceError
            The engine failed. After any error the slot has to be abandoned.
        """
        if self._channels_last:
            piece = np.moveaxis(piece, 1, -1)
        self._set_shape((images, *piece.shape[1:]))
        room = self._make_room()
        self._count = len(piece)
        host = room.sent(self._taken)
        host[: self._count] = piece
        host[self._count :] = 0  # so that the same piece is the same work, whatever ran before
        if graph and self._graphs and self._ran:
            self._launch(room)
        else:
            # The first execution in a shape does more than what may be recorded.
            self._enqueue(room)
            self._ran = True

    def finish(self) -> NDArray[np.float32]:
        """Wait for the answer: a view of the slot's own memory, without the answers to images of zeros."""
        self._stream.synchronize()
        answer = self._make_room().received(self._given)[: self._count]
        return np.moveaxis(answer, -1, 1) if self._channels_last else answer

    def abandon(self) -> None:
        """Wait for whatever is under way, and forget it."""
        with suppress(InferenceError):  # it has failed already, or fails with what is forgotten
            self._stream.synchronize()

    def shrink(self) -> None:
        """Give the buffers back; the next piece gets new ones."""
        self._forget_run()
        if self._room is not None:
            self._room.free()
            self._room = None

    def close(self) -> None:
        """Give everything back."""
        self.shrink()
        self._context = None
        self._stream.free()

    @property
    def _live(self) -> tensorrt.IExecutionContext:
        """The context; not to be kept in a variable, which a traceback would keep alive."""
        if self._context is None:
            raise InferenceError("the engine was closed: open it again")
        return self._context

    def _set_shape(self, taken: tuple[int, ...]) -> None:
        if taken == self._taken:
            return
        self._forget_run()
        self._taken = ()
        what = f"the engine does not run a batch of {taken}"
        try:
            if not self._live.set_input_shape(self._input, taken):
                raise failure(self._vendor, what, InferenceError, "choose --device cpu")
            missing = self._live.infer_shapes()
            given = tuple(self._live.get_tensor_shape(self._output))
        except RuntimeError as error:  # of shape inference
            raise failure(self._vendor, what, InferenceError, "choose --device cpu") from error
        if missing or min(given, default=-1) < 0 or given[0] != taken[0]:
            raise failure(self._vendor, f"{what}: it gives {given}", InferenceError, "choose --device cpu")
        self._taken, self._given = taken, given

    def _make_room(self) -> _Room:
        taken, given = math.prod(self._taken), math.prod(self._given)
        if self._room is None or not self._room.holds(taken, given):
            self.shrink()
            room = self._room = _Room(self._device, taken, given)
            for name, address in zip((self._input, self._output), room.addresses, strict=True):
                if not self._live.set_tensor_address(name, address):
                    self.shrink()
                    raise failure(
                        self._vendor, f"the engine refuses memory for {name}", InferenceError, _REMEDY
                    )
        return self._room

    def _enqueue(self, room: _Room) -> None:
        sent, received = room.sent(self._taken), room.received(self._given)
        self._device.upload(room.device[0], sent, self._stream)
        if not self._live.execute_async_v3(self._stream.handle):
            raise failure(self._vendor, "the engine did not run", InferenceError, _REMEDY)
        self._device.download(received, room.device[1], self._stream)

    def _launch(self, room: _Room) -> None:
        if self._graph is None:
            try:
                self._graph = self._device.capture(self._stream, lambda: self._enqueue(room))
            except InferenceError as error:
                _logger.info("no CUDA graph (%s): results are the same, launches take longer", error)
                self._graphs = False
                self._enqueue(room)
                return
        self._graph.launch(self._stream)

    def _forget_run(self) -> None:
        self._ran = False
        if self._graph is not None:
            self._graph.free()
            self._graph = None


class _Room:
    """Memory for a piece and its answer, on the device and page-locked on the host.

    Parameters
    ----------
    device : where
    taken, given : values of the piece and of the answer
    """

    def __init__(self, device: Device, taken: int, given: int) -> None:
        self._sizes = tuple(-(-n // _GRAIN) * _GRAIN for n in (taken, given))
        with ExitStack() as stack:
            made: list[tuple[DeviceBuffer, HostBuffer]] = []
            for values in self._sizes:
                buffer = device.allocate(4 * values)
                stack.callback(buffer.free)
                host = device.pinned((values,))
                stack.callback(host.free)
                made.append((buffer, host))
            self.device = tuple(buffer for buffer, _ in made)
            self._host = tuple(host for _, host in made)
            self._stack = stack.pop_all()

    @property
    def addresses(self) -> tuple[int, ...]:
        """On the device, of the piece and of the answer."""
        return tuple(int(buffer.address) for buffer in self.device)

    def holds(self, taken: int, given: int) -> bool:
        """Whether a piece and an answer of so many values fit."""
        return taken <= self._sizes[0] and given <= self._sizes[1]

    def sent(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Where a piece goes on the host."""
        return self._part(0, shape)

    def received(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Where an answer comes on the host."""
        return self._part(1, shape)

    def free(self) -> None:
        """Give it back."""
        self._stack.close()

    def _part(self, end: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self._host[end].array
        return values[: math.prod(shape)].reshape(shape)
