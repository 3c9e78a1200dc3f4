"""A loaded plan that answers batches of any length, for several threads at once."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from queue import Empty, SimpleQueue
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.cuda.base import Device
from fastseg.engines.tensorrt.loading import Loaded
from fastseg.engines.tensorrt.profiles import Profile
from fastseg.engines.tensorrt.slots import Slot
from fastseg.engines.tensorrt.vendor import Vendor
from fastseg.errors import InferenceError, OutOfDeviceMemory
from fastseg.networks.network import Network

__all__ = ["Runner"]

_logger = logging.getLogger(__name__)

# While one piece is computed, another one is uploaded or read.
_SLOTS = 2


class _Flight(NamedTuple):
    slot: Slot
    first: int  # image of the batch with which the piece begins


class Runner:
    """Cuts batches into pieces, which go through two slots in turn.

    A thread that has a slot never waits for another one: it finishes what it has first. So any number of
    threads share the slots, and none waits for ever.

    Crops of a fixed size are padded to full pieces where the device has graphs: then one graph serves them
    all. Everything else runs in its own shape: blocks, because an empty one costs as much as a full one;
    whole slices, because each volume has another size.

    Parameters
    ----------
    network : what is run
    profile : what the plan was built for
    content : the plan
    vendor : whose it is
    device : where, its context current; also in `close`

    Raises
    ------
    EngineBuildError, OutOfDeviceMemory, EngineUnavailable
        See `Loaded`.
    """

    def __init__(
        self, network: Network, profile: Profile, content: bytes, *, vendor: Vendor, device: Device
    ) -> None:
        self._network, self._device = network, device
        ends = profile.least, profile.best, profile.most
        self._least, best, self._most = (_channels_first(network, shape) for shape in ends)
        fixed = self._least[1:] == self._most[1:]
        always = self._least[0] == self._most[0]
        self._padded = device.graphs and fixed and (len(best) == 4 or always)
        self._best = best
        # Values of a piece: what the plan is fastest at. Less after the memory was full.
        self._budget = math.prod(best)
        self._lock = threading.Lock()
        self._idle: SimpleQueue[Slot] = SimpleQueue()
        self._slots: list[Slot] = []
        self._loaded = Loaded(content, vendor)
        try:
            self._open_slots(vendor)
        except BaseException:
            self.close()
            raise

    def _open_slots(self, vendor: Vendor) -> None:
        for _ in range(_SLOTS):
            try:
                self._slots.append(
                    Slot(self._device, self._loaded, vendor, channels_last=self._network.channels_last)
                )
            except OutOfDeviceMemory as error:
                if not self._slots:
                    raise
                _logger.warning("%s: copies and computing take turns (%s)", self._network.name, error)
                break
        for slot in self._slots:
            self._idle.put(slot)

    def close(self) -> None:
        """Give everything back; no call of `run` may be under way."""
        while self._slots:
            self._slots.pop().close()
        while not self._idle.empty():
            self._idle.get()
        self._loaded.close()

    @property
    def batch(self) -> int:
        """Images of a piece."""
        return self._images(self._best[1:])

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answer a batch; see `Engine.infer`.

        Raises
        ------
        InferenceError
            The batch does not fit the network or what the plan was built for, or the engine failed.
        OutOfDeviceMemory
            Not even the smallest piece fits the memory that is left.
        """
        self._check(batch.shape)
        if not len(batch):
            return np.empty((0, 1, *batch.shape[2:]), np.float32)
        with self._device.current():
            while True:
                images = self._images(batch.shape[1:])
                try:
                    return self._answer(batch, images)
                except OutOfDeviceMemory as error:
                    if images <= self._least[0]:
                        raise OutOfDeviceMemory(
                            f"{self._network.name}, in the smallest batch that it takes: {error}"
                        ) from error
                    self._halve(images, batch.shape[1:], error)
                except InferenceError as error:
                    raise InferenceError(f"{self._network.name}: {error}") from error

    def _check(self, shape: tuple[int, ...]) -> None:
        least, most = self._least[1:], self._most[1:]
        fits = len(shape) == len(self._least) and all(
            low <= n <= high for low, n, high in zip(least, shape[1:], most, strict=True)
        )
        if not fits:
            sizes = f"{least}" if least == most else f"{least} to {most}"
            raise InferenceError(
                f"{self._network.name}: a batch of {shape} does not fit an engine for images of {sizes}: "
                "choose --device cpu for this volume"
            )

    def _images(self, image: tuple[int, ...]) -> int:
        """Images of this shape in a piece."""
        return min(max(self._budget // math.prod(image), self._least[0]), self._most[0])

    def _answer(self, batch: NDArray[np.float32], images: int) -> NDArray[np.float32]:
        answers: list[NDArray[np.float32]] = []
        flights: deque[_Flight] = deque()
        try:
            for first in range(0, len(batch), images):
                slot = self._take(flights, answers, len(batch))
                flights.append(_Flight(slot, first))
                piece = batch[first : first + images]
                padded = images if self._padded else max(len(piece), self._least[0])
                slot.begin(piece, padded, graph=self._padded)
            while flights:
                self._idle.put(_land(flights, answers, len(batch)))
        finally:
            while flights:  # after an error
                slot = flights.popleft().slot
                slot.abandon()
                self._idle.put(slot)
        return answers[0]

    def _take(self, flights: deque[_Flight], answers: list[NDArray[np.float32]], count: int) -> Slot:
        if not flights:
            return self._idle.get()
        try:
            return self._idle.get_nowait()
        except Empty:
            return _land(flights, answers, count)

    def _halve(self, images: int, image: tuple[int, ...], error: OutOfDeviceMemory) -> None:
        """Make pieces of half as many images, and give back what idle slots hold."""
        with self._lock:
            self._budget = min(self._budget, max(images // 2, 1) * math.prod(image))
        _logger.warning("%s: batches of %d from now on (%s)", self._network.name, max(images // 2, 1), error)
        idle = []
        while True:
            try:
                idle.append(self._idle.get_nowait())
            except Empty:
                break
        for slot in idle:
            slot.shrink()
            self._idle.put(slot)


def _land(flights: deque[_Flight], answers: list[NDArray[np.float32]], count: int) -> Slot:
    """Wait for the piece that began first, copy its answer, and give its slot."""
    slot, first = flights[0]
    answer = slot.finish()
    if not answers:
        answers.append(np.empty((count, *answer.shape[1:]), np.float32))
    answers[0][first : first + len(answer)] = answer
    flights.popleft()
    return slot


def _channels_first(network: Network, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], shape[-1], *shape[1:-1]) if network.channels_last else shape
