"""The one place where engines are chosen for networks.

What was asked for by name runs, or opening it fails with the remedy. ``auto`` goes from the fastest to the
slowest, past what is not there or not known to be as good as the reference, and says once what it took and
why.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.base import Engine
from fastseg.engines.compute import AUTO, BACKENDS, Compute
from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
from fastseg.errors import EngineError, EngineUnavailable
from fastseg.networks.network import EngineRecord, Network, Precision

__all__ = ["KERNEL_DRIVER", "Choice", "Engines", "choices", "make_engine", "open_engine", "problem_of"]

_logger = logging.getLogger("fastseg.engines")

# On a GPU, fastest first: tensor cores take 8 bits twice as fast as 16, and these twice as fast as TF32.
_GPU_ORDER = ("int8", "fp16", "bf16", "tf32", "fp32")
# Below this, another engine on the CPU is not worth other last bits.
_WORTHWHILE = 1.1
#: Present where NVIDIA's kernel driver is loaded, whether or not programs can use it.
KERNEL_DRIVER = Path("/proc/driver/nvidia/version")

_told: set[str] = set()


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine that may run a network.

    Parameters
    ----------
    engine, precision : names as in `fastseg.engines.compute`
    gpu : number of the GPU, for engines that run on one
    reason : why it was chosen
    """

    engine: str
    precision: str
    gpu: int = 0
    reason: str = ""


def choices(network: Network, compute: Compute = AUTO) -> tuple[Choice, ...]:
    """List the engines that may run a network, the best first.

    Parameters
    ----------
    network : the network; what its pack says of precisions and engines decides over ``auto``
    compute : what was asked for

    Raises
    ------
    EngineUnavailable
        What was asked for by name cannot run here.
    """
    wanted = [each for each in BACKENDS.values() if compute.allows(each)]
    problems = {each.name: problem_of(each.name, compute) for each in wanted}
    runnable = [each.name for each in wanted if not problems[each.name]]
    if not runnable:
        first, problem = next(iter(problems.items()))
        otherwise = ", or choose --device cpu" if BACKENDS[first].device == "cuda" else ""
        raise EngineUnavailable(f"{problem}{otherwise}")
    found: list[Choice] = []
    if "tensorrt" in runnable:
        found += _on_gpu(network, compute)
    if "openvino" in runnable:
        found += _with_openvino(network, compute)
    if "onnxruntime" in runnable:
        why = problems.get("tensorrt", "")
        if not KERNEL_DRIVER.exists():  # most machines: that there is no GPU is enough
            why = why.partition(":")[0]
        reason = f"no GPU engine: {why}" if why else "the reference"
        found.append(Choice("onnxruntime", "fp32", reason=reason))
    if not found:
        # Only where openvino runs, but not in the precision that was asked for.
        raise EngineUnavailable(next(filter(None, problems.values()), f"nothing runs {network.name}"))
    return tuple(found)


def problem_of(engine: str, compute: Compute = AUTO) -> str:
    """Say why an engine cannot run here; empty if it can, as far as that is known before it is opened.

    Parameters
    ----------
    engine : a name of `BACKENDS`
    compute : of it, the GPU
    """
    backend = BACKENDS[engine]
    missing = "" if any(map(_installed, backend.modules)) else f"{engine} is not installed: {backend.install}"
    # Where there is a driver, the GPU is not woken only to say that TensorRT is missing.
    if backend.device == "cpu" or (missing and KERNEL_DRIVER.exists()):
        return missing
    from fastseg.engines.cuda.open import layer_problem
    from fastseg.engines.cuda.probe import driver_problem, needed_cuda_major, probe

    gpus = probe()
    if gpus.problem or missing:
        return gpus.problem or missing
    here = [each.number for each in gpus.gpus]  # not all up to the last: a broken one is left out
    if compute.first_gpu not in here:
        there = f"GPUs {', '.join(map(str, here))}" if len(here) > 1 else f"GPU {here[0]} only"
        return f"there is no GPU {compute.first_gpu}: this machine shows {there} (CUDA_VISIBLE_DEVICES?)"
    assert gpus.driver is not None
    return driver_problem(gpus.driver, needed_cuda_major()) or layer_problem()


def open_engine(network: Network, compute: Compute = AUTO) -> Engine:
    """Make the best engine for a network; it loads when it is entered.

    Raises
    ------
    EngineUnavailable
        What was asked for by name cannot run here.
    """
    return make_engine(network, choices(network, compute)[0], compute)


class Engines:
    """Open engines, one for each network, shared by all who need them.

    A context manager that closes what it opened. May be used from several threads, also where an engine may
    not: such an engine answers them in turn.

    Parameters
    ----------
    compute : what they shall run on
    """

    def __init__(self, compute: Compute = AUTO) -> None:
        self._compute = compute
        self._stack = ExitStack()
        self._open: dict[tuple[str, str], Engine] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.clear()
        self._stack.close()

    def open(self, network: Network) -> Engine:
        """Give the engine of a network, loaded.

        Raises
        ------
        EngineError
            The engine cannot be opened.
        """
        key = str(network.path), network.sha256
        with self._lock:
            if key not in self._open:
                engine = self._first_that_opens(network)
                self._open[key] = engine if engine.concurrent else _InTurn(engine)
            return self._open[key]

    def _first_that_opens(self, network: Network) -> Engine:
        """Open the best engine; where the choice was free, the next best if that fails."""
        candidates = choices(network, self._compute)
        for number, choice in enumerate(candidates):
            engine = make_engine(network, choice, self._compute)
            try:
                self._stack.enter_context(engine)
            except EngineError as error:
                if number == len(candidates) - 1:
                    raise
                following = candidates[number + 1]
                _tell(
                    logging.WARNING,
                    f"{choice.engine} {choice.precision} does not run {network.name} ({error}); "
                    f"{following.engine} {following.precision} runs it instead",
                )
                continue
            self._tell_chosen(network, choice, engine)
            return engine
        raise AssertionError  # there is always a last one

    def _tell_chosen(self, network: Network, choice: Choice, engine: Engine) -> None:
        if "auto" not in (self._compute.engine, self._compute.device, self._compute.precision):
            return
        unused = choice.engine != "tensorrt" and self._compute.kind != "cpu" and KERNEL_DRIVER.exists()
        level = logging.WARNING if unused and self._compute.engine == "auto" else logging.INFO
        _tell(level, f"{network.name} runs on {engine.name} ({choice.reason})")


def _on_gpu(network: Network, compute: Compute) -> Iterator[Choice]:
    gpu = compute.first_gpu
    if compute.precision != "auto":
        yield Choice("tensorrt", compute.precision, gpu, "asked for")
        return
    for precision in _GPU_ORDER:
        loss = network.precision.get(precision)
        if precision == "fp32":
            yield Choice("tensorrt", precision, gpu, "the exact precision on a GPU")
        elif loss is not None and _is_accepted(loss, network):
            reason = f"its pack accepts {precision}: Dice {loss.dice:.5f} to fp32"
            yield Choice("tensorrt", precision, gpu, reason)


def _with_openvino(network: Network, compute: Compute) -> Iterator[Choice]:
    """By name as asked; by itself only what was measured on such a CPU, was good, and was faster."""
    if compute.engine == "openvino" and compute.precision != "auto":
        yield Choice("openvino", compute.precision, reason="asked for")
        return
    from fastseg.engines.machine import capability

    records = {each.name: each for each in network.engines if each.capability == capability()}
    good = []
    for precision in BACKENDS["openvino"].precisions:
        record = records.get(f"openvino {precision}")
        if record is None or compute.precision not in ("auto", precision):
            continue
        if _is_accepted(record, network) and record.speed >= _WORTHWHILE:
            reason = f"{record.speed:.1f} times as fast as the reference on such a CPU, by its pack"
            good.append((record.speed, Choice("openvino", precision, reason=reason)))
    yield from (choice for _, choice in sorted(good, key=lambda each: -each[0]))
    if compute.engine == "openvino" or compute.precision == "bf16":
        precision = "fp32" if compute.precision == "auto" else compute.precision
        if all(choice.precision != precision for _, choice in good):
            yield Choice("openvino", precision, reason="asked for")


def _is_accepted(loss: Precision | EngineRecord, network: Network) -> bool:
    """Whether a measured loss is one that the network's pack tolerates; a pack that says nothing, none."""
    accepted = network.acceptance
    return (
        accepted is not None
        and loss.flipped_per_million <= accepted.flipped_per_million
        and loss.dice >= accepted.dice
    )


def make_engine(network: Network, choice: Choice, compute: Compute) -> Engine:
    """Make an engine that was chosen; it loads when it is entered."""
    if choice.engine == "tensorrt":
        from fastseg.engines.tensorrt.engine import TensorRt

        return TensorRt(network, number=choice.gpu, precision=choice.precision)
    if choice.engine == "openvino":
        from fastseg.engines.openvino_cpu import OpenVinoCpu

        return OpenVinoCpu(network, threads=compute.threads, precision=choice.precision)
    return OnnxRuntimeCpu(network, threads=compute.threads)


def _installed(module: str) -> bool:
    with suppress(ImportError, ValueError):  # a name that was put out of action is None in sys.modules
        return importlib.util.find_spec(module) is not None
    return False


def _tell(level: int, text: str) -> None:
    """Say something once in the life of the process."""
    if text not in _told:
        _told.add(text)
        _logger.log(level, text)


class _InTurn:
    """An open engine that one thread at a time may use, behind a lock: others wait."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._lock = engine, threading.Lock()
        self.name, self.batch, self.concurrent = engine.name, engine.batch, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the engine to whoever opened it."""

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._lock:
            return self._engine.infer(batch)
