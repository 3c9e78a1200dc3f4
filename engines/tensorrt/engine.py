"""TensorRT on one GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.acceptance import Difference, measure
from fastseg.engines.base import Engine
from fastseg.engines.cuda import open as binding
from fastseg.engines.cuda import probe as driver
from fastseg.engines.cuda.base import Device
from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
from fastseg.engines.tensorrt import vendor as nvidia
from fastseg.engines.tensorrt.build import Recipe
from fastseg.engines.tensorrt.plans import Plan, PlanCache
from fastseg.engines.tensorrt.ready import Order, get_ready
from fastseg.engines.tensorrt.runner import Runner
from fastseg.engines.tensorrt.vendor import Vendor
from fastseg.errors import EngineUnavailable, InferenceError
from fastseg.networks.network import Network

__all__ = ["TensorRt", "open_gpu"]


def open_gpu(number: int) -> Device:
    """Make the device for a GPU, once the driver is known to be there and new enough.

    Without a driver, TensorRT may end the interpreter: so this comes before anything of it.

    Raises
    ------
    EngineUnavailable
        There is no driver, or no GPU, or the driver is too old for the TensorRT that is installed.
    """
    found = driver.probe()
    problem = found.problem
    if found.driver is not None and not problem:
        problem = driver.driver_problem(found.driver, driver.needed_cuda_major())
    if problem:
        raise EngineUnavailable(f"{problem}; or choose --device cpu")
    return binding.open_device(number)


class TensorRt:
    """Runs a network with TensorRT on one GPU.

    On entering, its plan comes from the cache or is built, which takes seconds to minutes, and is compared
    with the reference engine unless that was done before under the same driver. After that it is known as
    `plan`.

    Parameters
    ----------
    network : the network to load
    number : of the GPU, among those that CUDA_VISIBLE_DEVICES leaves
    precision : fp32, tf32, fp16, bf16 or int8
    cache : of plans; None: the user's
    vendor : None: whichever is installed
    open_device : None: `open_gpu`
    reference : makes the engine whose answers are right

    Raises
    ------
    EngineUnavailable
        No driver, no GPU, no binding of CUDA, or no TensorRT.
    EngineBuildError
        The network cannot be built, or its answers are not the reference engine's.
    OutOfDeviceMemory
        It does not fit the GPU.
    """

    def __init__(
        self,
        network: Network,
        *,
        number: int = 0,
        precision: str = "fp32",
        cache: PlanCache | None = None,
        vendor: Vendor | None = None,
        open_device: Callable[[int], Device] | None = None,
        reference: Callable[[Network], Engine] = OnnxRuntimeCpu,
    ) -> None:
        self._network, self._number, self._precision = network, number, precision
        self._cache, self._vendor, self._reference = cache, vendor, reference
        self._open_device = open_device or open_gpu
        self._name = f"tensorrt {precision}"
        self._plan: Plan | None = None
        self._runner: Runner | None = None
        self._users = 0  # calls of `infer` that are under way
        self._changed = threading.Condition()
        self._stack = ExitStack()

    @property
    def name(self) -> str:
        """Engine and precision; from when it is open on also the version and the GPU."""
        return self._name

    @property
    def concurrent(self) -> bool:
        """Threads share the slots."""
        return True

    @property
    def batch(self) -> int:
        """Images of a piece; 1 before it is open."""
        return self._runner.batch if self._runner is not None else 1

    @property
    def plan(self) -> Plan:
        """The plan that runs, with its record.

        Raises
        ------
        InferenceError
            The engine is not open.
        """
        if self._plan is None:
            raise self._closed()
        return self._plan

    def __enter__(self) -> Self:
        if self._runner is not None:
            raise InferenceError(f"{self._network.name} is open already: enter each engine once")
        with ExitStack() as stack:
            device = stack.enter_context(self._open_device(self._number))
            vendor = self._vendor if self._vendor is not None else nvidia.find_vendor()
            order = Order.of(self._network, Recipe(self._precision), vendor, device.facts)
            stack.callback(self._unload, device)

            def load(content: bytes) -> None:
                self._unload(device)
                self._runner = Runner(self._network, order.profile, content, vendor=vendor, device=device)

            with device.current():
                cache = self._cache if self._cache is not None else PlanCache()
                self._plan = get_ready(order, cache, load, self._measure)
            self._name = f"tensorrt {vendor.version} {self._precision} on {device.facts.name}"
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on a batch of any length; see `Engine.infer`."""
        with self._using() as runner:
            return runner.run(batch)

    def _measure(self) -> Difference:
        with self._reference(self._network) as reference:
            return measure(self, self._network, reference)

    @contextmanager
    def _using(self) -> Iterator[Runner]:
        with self._changed:
            runner = self._runner
            if runner is None:
                raise self._closed()
            self._users += 1
        try:
            yield runner
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def _unload(self, device: Device) -> None:
        """Take no more calls, wait for those that are under way, and free everything."""
        with self._changed:
            runner, self._runner, self._plan = self._runner, None, None
            self._changed.wait_for(lambda: not self._users)
        if runner is not None:
            with device.current():
                runner.close()

    def _closed(self) -> InferenceError:
        return InferenceError(f"{self._network.name} is not open: use the engine in a with block")
