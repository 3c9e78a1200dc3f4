"""OpenVINO on the CPU: an optional engine, faster than the reference on many.

What it needs to be told, each of which cost somebody time (OpenVINO 2026.4):

* its precision, always: on CPUs with bf16 it takes that without a word, and where bf16 is asked for and the
  CPU has none, it takes fp32 without a word;
* not to look for telemetry: ``import openvino`` reports itself to Google Analytics and writes into ~/intel,
  unless the package openvino_telemetry cannot be imported (`import_openvino`);
* one thread a stream, as many streams as CPUs, and not to pin them: requests of several threads then run side
  by side, and two processes do not share a core;
* ``start_async`` and ``wait``: a synchronous ``infer`` loses what goes wrong, and its answer is empty;
* no batch that does not fit: one that fails inside the network makes the next ones fail too, or ends the
  process. Shapes are therefore inferred beforehand, once each;
* the first request of a process alone: OpenVINO makes a table of numpy's types then, under a lock of C++,
  and lets go of the GIL meanwhile. A second thread takes the GIL and waits for the lock, whose owner waits
  for the GIL, for ever: seen in a run of one volume on a busy machine.

Threads share out the images of a batch as in `fastseg.engines.onnxruntime_cpu`. OpenVINO promises nothing
about neighbours in a batch; measured on AVX2, with our networks and the stand-ins for SCT's, no bit depends
on them, nor on threads (tests/engines/test_openvino_cpu.py, tests/golden/test_engines.py).
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.machine import usable_cpus
from fastseg.errors import EngineBuildError, EngineUnavailable, InferenceError
from fastseg.networks.network import Network

if TYPE_CHECKING:
    import openvino

__all__ = ["OpenVinoCpu", "bf16_runs", "import_openvino"]

# Pixels per request: 4 crops of 64 x 64. One at a time takes a third longer, more than 4 gain nothing.
_MICRO_BATCH_PIXELS = 4 * 64 * 64

#: Precision -> OpenVINO's name for it, in hints and in what a compiled network says.
_HINTS = {"fp32": ("f32", "float32"), "bf16": ("bf16", "bfloat16")}

_TELEMETRY = "openvino_telemetry"

_first_request = threading.Lock()
_answered = threading.Event()


class OpenVinoCpu:
    """Runs a network with OpenVINO on the CPU.

    Parameters
    ----------
    network : the network to load
    threads : threads that share out the images of a batch
    precision : fp32 or bf16

    Raises
    ------
    EngineUnavailable
        OpenVINO is not installed or does not load, or the CPU does not have the precision.
    EngineBuildError
        OpenVINO refuses the file.

    Notes
    -----
    Its threads do not survive a fork: open it in the process that uses it.
    """

    def __init__(self, network: Network, *, threads: int = 1, precision: str = "fp32") -> None:
        self._network = network
        self._threads = threads
        self._precision = precision
        self._loaded: _Loaded | None = None
        self._pool: ThreadPoolExecutor | None = None

    @property
    def name(self) -> str:
        """Engine, device and precision."""
        return f"openvino cpu {self._precision}"

    @property
    def concurrent(self) -> bool:
        """Requests of several threads run side by side, each on its own stream."""
        return True

    @property
    def batch(self) -> int:
        """Images of one request."""
        pixels = math.prod(self._network.spatial) or _MICRO_BATCH_PIXELS  # 0: of any size
        fixed = self._loaded.fixed_batch if self._loaded is not None else 0
        return fixed or max(_MICRO_BATCH_PIXELS // pixels, 1)

    def __enter__(self) -> Self:
        self._loaded = _Loaded(self._network, self._precision, max(self._threads, usable_cpus()))
        if self._threads > 1:
            self._pool = ThreadPoolExecutor(self._threads, "inference")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._loaded = self._pool = None

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on a batch of any length; see `Engine.infer`."""
        loaded = self._loaded
        if loaded is None:
            raise InferenceError(f"{self._network.name} is not open: use the engine in a with block")
        parts = list((map if self._pool is None else self._pool.map)(loaded.run, self._pieces(batch)))
        if not parts:
            return np.empty((0, 1, *batch.shape[2:]), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _pieces(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Micro-batches, and what is left one by one: every new length would cost OpenVINO 20 ms once."""
        assert self._loaded is not None
        pixels = max(math.prod(batch.shape[2:]), 1)
        step = self._loaded.fixed_batch or max(_MICRO_BATCH_PIXELS // pixels, 1)
        whole = len(batch) if self._loaded.fixed_batch else len(batch) // step * step
        pieces = [batch[i : i + step] for i in range(0, whole, step)]
        return pieces + [batch[i : i + 1] for i in range(whole, len(batch))]


class _Loaded:
    """A compiled network, its requests, and the shapes that it is known to take."""

    def __init__(self, network: Network, precision: str, streams: int) -> None:
        ov = import_openvino()
        core = ov.Core()
        hint, said = _HINTS[precision]
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,  # one each
            "ENABLE_CPU_PINNING": False,
        }
        try:
            model = core.read_model(str(network.path))
            self._compiled = core.compile_model(model, "CPU", settings)
        except Exception as error:  # OpenVINO raises RuntimeError for whatever its C++ side throws
            raise EngineBuildError(
                f"{network.path}: OpenVINO cannot load this network ({_reason(error)}): "
                "check it with `fastseg models verify`"
            ) from error
        runs = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if runs not in (hint, said):
            raise EngineUnavailable(
                f"{network.name}: this CPU has no {precision}, OpenVINO would run {runs}: "
                "take --precision fp32, or another machine"
            )
        self._network, self._model = network, model
        self._requests: list[openvino.InferRequest] = []
        self._shapes: set[tuple[int, ...]] = set()
        self._lock = threading.Lock()
        self._process = os.getpid()
        length = self._compiled.input(0).partial_shape[0]
        self.fixed_batch = length.get_length() if length.is_static else 0

    def run(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        """Ask about one piece of a batch."""
        if os.getpid() != self._process:
            raise InferenceError(
                f"{self._network.name}: OpenVINO was opened before a fork: open the engine in the new process"
            )
        count = len(part)
        if count < self.fixed_batch:
            part = np.concatenate([part, np.zeros((self.fixed_batch - count, *part.shape[1:]), np.float32)])
        if self._network.channels_last:
            part = np.moveaxis(part, 1, -1)
        self._check(part.shape)
        if not _answered.is_set():
            with _first_request:
                if not _answered.is_set():
                    answer = self._ask(part, count)
                    _answered.set()
                    return answer
        return self._ask(part, count)

    def _ask(self, part: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        """Run a request; gives the answers to the first images."""
        last = self._network.channels_last
        # list.pop and list.append are atomic: a request is in one thread's hands at a time.
        request = self._requests.pop() if self._requests else self._compiled.create_infer_request()
        try:
            request.start_async([np.ascontiguousarray(part)])
            request.wait()
            result = request.get_output_tensor(0).data[:count]
            answer = np.array(np.moveaxis(result, -1, 1) if last else result, np.float32, order="C")
        except Exception as error:  # see __init__
            raise InferenceError(f"{self._network.name}: OpenVINO failed ({_reason(error)})") from error
        self._requests.append(request)
        return answer

    def _check(self, shape: tuple[int, ...]) -> None:
        """Refuse a shape that the network does not take, before OpenVINO runs into it."""
        with self._lock:
            if shape in self._shapes:
                return
            try:
                if min(shape) < 1 or not self._compiled.input(0).partial_shape.compatible(
                    import_openvino().PartialShape(list(shape))
                ):
                    raise ValueError("it does not fit the input")
                self._model.reshape(list(shape))
            except Exception as error:
                wanted = self._compiled.input(0).partial_shape
                raise InferenceError(
                    f"{self._network.name}: a batch of shape {shape} where it takes {wanted} "
                    f"({_reason(error)}): give it what the network wants"
                ) from error
            self._shapes.add(shape)


def bf16_runs() -> bool:
    """Whether this machine has OpenVINO, and its CPU computes in bf16."""
    try:
        capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except EngineUnavailable:
        return False
    return "BF16" in capabilities


def import_openvino() -> ModuleType:
    """Import OpenVINO, without the report of it that it would send.

    Raises
    ------
    EngineUnavailable
        It is not installed or does not load.

    Notes
    -----
    A module that is None in `sys.modules` cannot be imported; OpenVINO does without telemetry then. Where the
    caller has imported either before, that is left as it is.
    """
    if "openvino" in sys.modules or _TELEMETRY in sys.modules:
        return _module()
    modules: dict[str, ModuleType | None] = cast(Any, sys.modules)
    modules[_TELEMETRY] = None
    try:
        return _module()
    finally:
        modules.pop(_TELEMETRY, None)


def _module() -> ModuleType:
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise EngineUnavailable(
            f"openvino does not load ({error}): pip install 'fastseg[cpu-fast]'"
        ) from error


def _reason(error: Exception) -> str:
    """The last line that says something: those before it name files of OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
