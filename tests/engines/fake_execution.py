"""The half of the fake TensorRT that runs: engines and execution contexts."""

from __future__ import annotations

import hashlib
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fastseg.errors import OutOfDeviceMemory
from tests.engines.fake_cuda import FakeDevice, FakeStream, Misuse
from tests.engines.fake_numbers import FakeNumbers
from tests.engines.fake_types import NULL, DataType, ILogger, TensorIOMode, usable

if TYPE_CHECKING:
    from tests.engines.fake_tensorrt import FakeTensorRt

__all__ = ["ICudaEngine", "IExecutionContext", "Runtime"]


class _Guest:
    """Something that keeps memory in the device's context until Python lets go of it."""

    _world: FakeTensorRt
    _device: FakeDevice
    _kind: str
    _address = 0

    def __init__(self) -> None:
        raise TypeError(f"{type(self).__name__}: No constructor defined!")

    def _settle(self, kind: str, nbytes: int) -> None:
        self._kind, self._device = kind, self._world.cuda.current(kind)
        self._address = self._world.cuda.take(self._device.number, nbytes)
        self._device.guests[kind] += 1

    def __del__(self) -> None:
        if not self._address:
            return
        pushed = self._world.cuda.pushed
        if not pushed or pushed[-1].number != self._device.number:
            self._world.cuda.misuse.append(f"{self._kind} destroyed without its context")
        self._device.guests[self._kind] -= 1
        self._world.cuda.give(self._device.number, self._address)


class ICudaEngine(_Guest):
    """A plan that was loaded."""

    numbers: FakeNumbers
    logger: Any

    def _begin(self, numbers: FakeNumbers, profile: dict[str, list[list[int]]], logger: Any) -> None:
        self.numbers, self.logger = numbers, logger
        self.profile = {
            name: [tuple(each) for each in profile.get(name, [shape] * 3)]
            for name, shape, _ in numbers.ends[:1]
        }
        self._settle("TensorRT engine", 1024)

    @property
    def num_io_tensors(self) -> int:
        return len(self.numbers.ends)

    @property
    def num_optimization_profiles(self) -> int:
        return 1

    def get_tensor_name(self, index: int) -> str:
        return self.numbers.ends[index][0]

    def get_tensor_mode(self, name: str) -> Any:
        names = [end[0] for end in self.numbers.ends]
        modes = (TensorIOMode.INPUT, TensorIOMode.OUTPUT)
        return modes[names.index(name)] if name in names else TensorIOMode.NONE

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return {end[0]: end[1] for end in self.numbers.ends}[name]

    def get_tensor_dtype(self, name: str) -> Any:
        kinds = {end[0]: end[2] for end in self.numbers.ends}
        return DataType(kinds[name])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return self.profile[name]

    def create_execution_context(self) -> Any:
        problem = self._world.failing("create_execution_context")
        context = self._world.make("IExecutionContext")
        try:
            if not problem:
                context._begin(self)
        except OutOfDeviceMemory:
            problem = "Requested amount of GPU memory could not be allocated (out of memory)"
        if problem:
            self.logger.log(ILogger.Severity.ERROR, f"ICudaEngine::createExecutionContext: {problem}")
            return None
        return context


class IExecutionContext(_Guest):
    """What runs a plan, for one thread at a time."""

    def _begin(self, engine: ICudaEngine) -> None:
        self._busy = threading.Lock()
        self._engine = engine
        (self._input, shape, _), (self._output, _, _) = engine.numbers.ends
        self._shape = shape if -1 not in shape else ()
        self._addresses: dict[str, int] = {}
        self._warm: tuple[int, ...] = ()  # shape of the last execution that was not captured
        self._flying: list[tuple[FakeStream, Callable[[], None], int]] = []
        self._settle("execution context", self._world.context_bytes)

    @property
    def engine(self) -> ICudaEngine:
        return self._engine

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        self._world.cuda.current(what)
        if not self._busy.acquire(blocking=False):
            raise Misuse(f"{what}: an execution context is used by two threads at once")
        try:
            self._flying = [each for each in self._flying if each[1] in each[0].pending]
            if any(thread != threading.get_ident() for _, _, thread in self._flying):
                raise Misuse(f"{what}: another thread's work is still in flight in this execution context")
            yield
        finally:
            self._busy.release()

    def _refuse(self, message: str) -> bool:
        self._engine.logger.log(ILogger.Severity.ERROR, f"IExecutionContext::{message}")
        return False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        with self._alone("set_optimization_profile_async"):
            return int(profile_index) == 0 and int(stream_handle) in self._world.cuda.streams

    def set_input_shape(self, name: str, shape: Any) -> bool:
        with self._alone("set_input_shape"):
            problem = self._world.failing("set_input_shape")
            if problem or name != self._input:
                return self._refuse(f"setInputShape: {problem or f'no input is called {name}'}")
            wanted = tuple(int(n) for n in shape)
            least, _, most = self._engine.profile[name]
            fits = len(wanted) == len(least) and all(
                a <= n <= b for a, n, b in zip(least, wanted, most, strict=True)
            )
            if not fits:
                return self._refuse(f"setInputShape: {wanted} is not within the profile {least} to {most}")
            self._shape = wanted
            return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        with self._alone("get_tensor_shape"):
            if name == self._input:
                return self._shape or self._engine.get_tensor_shape(name)
            return (
                self._engine.numbers.shape(self._shape)
                if self._shape
                else self._engine.get_tensor_shape(name)
            )

    def infer_shapes(self) -> list[str]:
        with self._alone("infer_shapes"):
            return [] if self._shape and not self._world.failing("infer_shapes") else [self._input]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        with self._alone("set_tensor_address"):
            if not isinstance(memory, int):
                raise TypeError("set_tensor_address(): incompatible function arguments")
            problem = self._world.failing("set_tensor_address")
            if problem or name not in (self._input, self._output):
                return self._refuse(f"setTensorAddress: {problem or f'no tensor is called {name}'}")
            self._addresses[name] = memory
            return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def execute_async_v3(self, stream_handle: int) -> bool:
        with self._alone("execute_async_v3"):
            problem = self._world.failing("execute")
            stream = self._world.cuda.streams.get(stream_handle)
            if stream is None:
                raise Misuse("execute_async_v3: no such stream")
            shape, captured = self._shape, stream.capturing is not None
            if not shape:
                problem = problem or "Neither input shape nor its address was set"
            if set(self._addresses) != {self._input, self._output}:
                problem = problem or "addresses of all tensors have to be set"
            if captured and self._warm != shape:
                problem = problem or "captured before it was executed once in this shape"
            if problem:
                return self._refuse(f"enqueueV3: {problem}")
            if any(each[0] is not stream for each in self._flying):
                raise Misuse("execute_async_v3: the last execution is in flight on another stream")
            if not captured:
                self._warm = shape
            work = self._work(shape, captured)
            self._flying.append((stream, work, threading.get_ident()))
            stream.add(work)
            return True

    def _work(self, shape: tuple[int, ...], captured: bool) -> Callable[[], None]:
        given, taken = self._addresses[self._input], self._addresses[self._output]
        numbers, cuda, world = self._engine.numbers, self._world.cuda, self._world
        context = weakref.ref(self)

        def run() -> None:
            alive = context()
            if alive is None:
                raise Misuse("the execution context was destroyed before its work was waited for")
            if captured and alive._shape != shape:
                raise Misuse("a graph was launched after its execution context got another shape")
            source = cuda.block(given, 4 * int(np.prod(shape))).view(np.float32).reshape(shape)
            answer = np.ascontiguousarray(world.distort(numbers.run(source.copy())), np.float32)
            cuda.block(taken, answer.nbytes)[:] = answer.reshape(-1).view(np.uint8)

        return run


class Runtime:
    """Loads plans; without a driver the real one crashes."""

    _world: FakeTensorRt

    def __init__(self, logger: ILogger) -> None:
        self._logger = usable(logger)
        if not self._world.cuda.pushed or self._world.failing("Runtime"):
            raise TypeError(NULL)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        content = bytes(serialized_engine)
        body = content[36:]
        problem = self._world.failing("deserialize")
        if content[:4] != b"ftrt" or hashlib.sha256(body).digest() != content[4:36]:
            problem = problem or "Serialization assertion magicTagRead == kMAGIC_TAG failed."
        else:
            size = int.from_bytes(body[:4], "little")
            facts = json.loads(body[4 : 4 + size])
            known = self._world.gpu()
            if facts["version"] != known["version"]:
                problem = problem or (
                    "The engine plan file is not compatible with this version of TensorRT, expecting library "
                    f"version {known['version']} got {facts['version']}, please rebuild."
                )
            if any(facts[name] != known[name] for name in ("gpu", "capability")):
                problem = problem or (
                    f"The engine plan file is generated on an incompatible device, expecting {known['gpu']} "
                    f"got {facts['gpu']}, please rebuild."
                )
        if problem:
            self._logger.log(ILogger.Severity.ERROR, f"IRuntime::deserializeCudaEngine: {problem}")
            return None
        engine = self._world.make("ICudaEngine")
        engine._begin(FakeNumbers(body[4 + size :]), facts["profile"], self._logger)
        return engine
