"""The reference engine: onnxruntime on the CPU, one session for the life of the engine."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from fastseg.errors import EngineBuildError, EngineUnavailable, InferenceError
from fastseg.networks.network import Network

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["OnnxRuntimeCpu"]

# Pixels per call: 8 crops of 64 x 64. 4 to 16 of them run fastest; 64 at a time take twice as long, because
# the activations leave the cache (712 ms against 299 ms for 64 slices of a 0.37 GMAC network).
_MICRO_BATCH_PIXELS = 8 * 64 * 64


class OnnxRuntimeCpu:
    """Runs a network with onnxruntime on the CPU.

    Parameters
    ----------
    network : the network to load
    threads : threads inside one inference. Results do not depend on it.

    Raises
    ------
    EngineUnavailable
        onnxruntime is not installed or does not load.
    EngineBuildError
        onnxruntime refuses the file.
    """

    def __init__(self, network: Network, *, threads: int = 1) -> None:
        self._network = network
        self._threads = threads
        self._session: onnxruntime.InferenceSession | None = None
        self._input = self._output = ""
        self._fixed_batch = 0

    @property
    def name(self) -> str:
        """Engine, device and precision."""
        return "onnxruntime cpu fp32"

    def __enter__(self) -> Self:
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineUnavailable(
                f"onnxruntime does not load ({error}): pip install onnxruntime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # Idle workers must sleep: spinning ones eat the cores that prepare the next volume.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(
                str(self._network.path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises bare classes of its C++ side
            raise EngineBuildError(
                f"{self._network.path}: onnxruntime cannot load this network "
                f"({_first_line(error)}): check it with `fastseg models verify`"
            ) from error
        self._session = session
        self._input, self._output = session.get_inputs()[0].name, session.get_outputs()[0].name
        batch = session.get_inputs()[0].shape[0]
        self._fixed_batch = batch if isinstance(batch, int) else 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on a batch of any length; see `Engine.infer`."""
        if self._session is None:
            raise InferenceError(f"{self._network.name} is not open: use the engine in a with block")
        pixels = int(np.prod(batch.shape[2:]))
        step = self._fixed_batch or max(_MICRO_BATCH_PIXELS // max(pixels, 1), 1)
        parts = [self._run(batch[i : i + step]) for i in range(0, len(batch), step)]
        if not parts:
            return np.empty((0, 1, *batch.shape[2:]), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._session is not None
        count = len(part)
        if count < self._fixed_batch:
            part = np.concatenate([part, np.zeros((self._fixed_batch - count, *part.shape[1:]), np.float32)])
        if self._network.channels_last:
            part = np.moveaxis(part, 1, -1)
        try:
            (result,) = self._session.run([self._output], {self._input: np.ascontiguousarray(part)})
        except Exception as error:  # see __enter__
            raise InferenceError(
                f"{self._network.name}: onnxruntime failed ({_first_line(error)})"
            ) from error
        if self._network.channels_last:
            result = np.ascontiguousarray(np.moveaxis(result, -1, 1))
        return np.asarray(result[:count], np.float32)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
