"""Whether the device layer does on this GPU what it promises, and how fast it copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.cuda.base import Device, DeviceBuffer, HostBuffer, Stream
from fastseg.errors import EngineError, OutOfDeviceMemory

__all__ = ["selftest"]

_THREADS = 8
_ROUNDS = 4  # of copies in each thread
_REPEATS = 10  # of copies that are timed


class _Wrong(Exception):
    """The layer did something else than it promises."""


def selftest(device: Device, *, nbytes: int = 64 << 20) -> dict[str, Any]:
    """Exercise the device layer.

    Parameters
    ----------
    device : open, and not current in this thread
    nbytes : size of the largest copies

    Returns
    -------
    result : for JSON
        ``layer``, ``gpu``; ``checks``: for each its ``name``, ``outcome`` (passed, failed, absent),
        ``detail`` and ``seconds``; ``passed``: whether none failed; ``upload_gb_per_s`` and
        ``download_gb_per_s`` between page-locked memory and the GPU, by events, None where that failed
    """
    size = nbytes // 4 * 4
    speeds: dict[str, float] = {}
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("copies there and back on two streams", lambda: _two_streams(device, size)),
        ("sizes and types", lambda: _sizes(device)),
        ("events measure time", lambda: _speeds(device, size, speeds)),
        ("a graph repeats its work", lambda: _graph(device)),
        ("a failed recording leaves the stream usable", lambda: _failed_recording(device)),
        (f"{_THREADS} threads", lambda: _threads(device, size // _THREADS)),
        ("out of memory, and on", lambda: _out_of_memory(device)),
        ("memory comes back", lambda: _memory_returns(device, size)),
    )
    results = [_run(name, check) for name, check in checks]
    return {
        "layer": device.layer,
        "gpu": device.facts.name,
        "checks": results,
        "passed": all(each["outcome"] != "failed" for each in results),
        "upload_gb_per_s": speeds.get("upload"),
        "download_gb_per_s": speeds.get("download"),
    }


def _run(name: str, check: Callable[[], str]) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        detail = check()
        outcome = "absent" if detail.startswith("absent") else "passed"
    except (EngineError, _Wrong) as error:
        outcome, detail = "failed", str(error)
    seconds = time.perf_counter() - start
    return {"name": name, "outcome": outcome, "detail": detail, "seconds": round(seconds, 4)}


class _Bench:
    """A stream, memory on the device, and page-locked memory on both sides of it; freed on leaving."""

    def __init__(self, device: Device, nbytes: int) -> None:
        self._device, self._nbytes = device, nbytes

    def __enter__(self) -> _Bench:
        with ExitStack() as stack:
            stack.enter_context(self._device.current())
            self.stream: Stream = self._device.stream()
            stack.callback(self.stream.free)
            self.memory: DeviceBuffer = self._device.allocate(self._nbytes)
            stack.callback(self.memory.free)
            self.source: HostBuffer = self._device.pinned((self._nbytes,), np.uint8)
            stack.callback(self.source.free)
            self.target: HostBuffer = self._device.pinned((self._nbytes,), np.uint8)
            stack.callback(self.target.free)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def copy(self) -> None:
        """Begin to copy there and back."""
        self._device.upload(self.memory, self.source.array, self.stream)
        self._device.download(self.target.array, self.memory, self.stream)

    def fill(self, seed: int) -> None:
        """Put new numbers into the source, and others into the target."""
        self.source.array[:] = _pattern(self._nbytes, seed)
        self.target.array[:] = ~self.source.array

    def check(self, what: str) -> None:
        """Compare what came back."""
        wrong = int(np.count_nonzero(self.source.array != self.target.array))
        if wrong:
            raise _Wrong(f"{what}: {wrong} of {self._nbytes} bytes came back changed")


def _pattern(nbytes: int, seed: int) -> NDArray[np.uint8]:
    rest = np.resize(np.random.default_rng(seed).integers(0, 256, 65521, np.uint8), nbytes)
    return np.asarray(rest, np.uint8)


def _two_streams(device: Device, nbytes: int) -> str:
    with _Bench(device, nbytes) as first, _Bench(device, nbytes) as second:
        first.fill(1)
        second.fill(2)
        for each in (first, second):
            each.copy()
        for each in (second, first):
            each.stream.synchronize()
        first.check("first stream")
        second.check("second stream")
    return f"{nbytes} bytes each"


def _sizes(device: Device) -> str:
    shapes: tuple[tuple[int, ...], ...] = ((1,), (3, 5, 7), (64, 1, 64, 64), (0, 4))
    types = (np.uint8, np.float16, np.float32, np.int64)
    for shape in shapes:
        for kind in types:
            with ExitStack() as stack:
                stack.enter_context(device.current())
                stream = device.stream()
                stack.callback(stream.free)
                source, target = (device.pinned(shape, kind) for _ in range(2))
                stack.callback(source.free)
                stack.callback(target.free)
                if source.array.shape != shape or source.array.dtype != kind:
                    raise _Wrong(f"pinned memory of {shape} {np.dtype(kind)} has {source.array.shape}")
                memory = device.allocate(max(source.array.nbytes, 1))
                stack.callback(memory.free)
                if not source.array.nbytes:
                    continue
                source.array.reshape(-1).view(np.uint8)[:] = _pattern(source.array.nbytes, 3)
                target.array[...] = 0
                device.upload(memory, source.array, stream)
                device.download(target.array, memory, stream)
                stream.synchronize()
                if source.array.tobytes() != target.array.tobytes():
                    raise _Wrong(f"{shape} {np.dtype(kind)} came back changed")
    return f"{len(shapes) * len(types)} arrays"


def _speeds(device: Device, nbytes: int, speeds: dict[str, float]) -> str:
    with _Bench(device, nbytes) as bench, ExitStack() as stack:
        bench.fill(4)
        begin, end = device.event(), device.event()
        stack.callback(begin.free)
        stack.callback(end.free)
        copies: dict[str, Callable[[], None]] = {
            "upload": lambda: device.upload(bench.memory, bench.source.array, bench.stream),
            "download": lambda: device.download(bench.target.array, bench.memory, bench.stream),
        }
        for name, copy in copies.items():
            copy()
            begin.record(bench.stream)
            for _ in range(_REPEATS):
                copy()
            end.record(bench.stream)
            took = end.milliseconds_since(begin)
            if not took > 0:
                raise _Wrong(f"{_REPEATS} times {name} took {took} ms")
            speeds[name] = round(_REPEATS * nbytes / took / 1e6, 2)
        bench.stream.synchronize()
        bench.check("timed copies")
    return f"{speeds['upload']} GB/s there, {speeds['download']} GB/s back"


def _graph(device: Device) -> str:
    if not device.graphs:
        return f"absent: {device.layer} has no CUDA graphs"
    with _Bench(device, 1 << 20) as bench:
        bench.fill(5)
        graph = device.capture(bench.stream, bench.copy)
        try:
            bench.stream.synchronize()
            if np.array_equal(bench.source.array, bench.target.array):
                raise _Wrong("what was recorded was done as well")
            for seed in (6, 7, 8):
                bench.fill(seed)
                graph.launch(bench.stream)
                bench.stream.synchronize()
                bench.check(f"launch {seed - 5}")
        finally:
            graph.free()
    return "3 launches"


def _failed_recording(device: Device) -> str:
    if not device.graphs:
        return f"absent: {device.layer} has no CUDA graphs"
    with _Bench(device, 1 << 20) as bench:

        def work() -> None:
            bench.copy()
            raise _Wrong("on purpose")

        try:
            device.capture(bench.stream, work)
        except _Wrong:
            bench.fill(9)
            bench.copy()
            bench.stream.synchronize()
            bench.check("after a failed recording")
            return "the stream copies again"
    raise _Wrong("an error in the recorded work was swallowed")


def _threads(device: Device, nbytes: int) -> str:
    def work(seed: int) -> None:
        with _Bench(device, max(nbytes, 1)) as bench, device.current():
            for number in range(_ROUNDS):
                bench.fill(100 * seed + number)
                bench.copy()
                bench.stream.synchronize()
                bench.check(f"thread {seed}")

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(work, range(_THREADS)))
    return f"{_ROUNDS} rounds in each, {nbytes} bytes each"


def _out_of_memory(device: Device) -> str:
    asked = device.facts.memory_bytes + (1 << 30)
    try:
        with device.current():
            device.allocate(asked).free()
    except OutOfDeviceMemory:
        with _Bench(device, 1 << 20) as bench:
            bench.fill(10)
            bench.copy()
            bench.stream.synchronize()
            bench.check("after running out of memory")
        return f"{asked} bytes were refused"
    raise _Wrong(f"{asked} bytes were given, more than the GPU has")


def _memory_returns(device: Device, nbytes: int) -> str:
    def free() -> int:
        with device.current():
            return device.free_bytes()

    with _Bench(device, nbytes) as bench:  # the driver keeps a little for what is done for the first time
        bench.copy()
        bench.stream.synchronize()
    before = free()
    for _ in range(_ROUNDS):
        with _Bench(device, nbytes) as bench:
            taken = before - free()
            bench.copy()
            bench.stream.synchronize()
    after = free()
    if taken < nbytes:
        raise _Wrong(f"{nbytes} bytes were taken, and free memory went down by {taken}")
    if before - after >= nbytes:  # less may be somebody else's; one lost buffer is as much as this
        raise _Wrong(f"{before - after} bytes are missing after everything was freed")
    return f"{before} bytes free before, {after} after"
