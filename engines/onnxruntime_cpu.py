"""The reference engine: onnxruntime on the CPU, one session for the life of the engine.

Each call of onnxruntime runs on one thread. Its own threads share out a single image, and four of them add
up some sums in another order than two: the same image then has other last bits. Here threads share out the
images of a batch, so that results depend neither on their number nor on an image's neighbours.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
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
    threads : threads that share out the images of a batch. Results do not depend on it.

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
        self._pool: ThreadPoolExecutor | None = None
        self._input = self._output = ""
        self._fixed_batch = 0

    @property
    def name(self) -> str:
        """Engine, device and precision."""
        return "onnxruntime cpu fp32"

    @property
    def concurrent(self) -> bool:
        """A session may be run by several threads at once."""
        return True

    @property
    def batch(self) -> int:
        """Images of one call of onnxruntime."""
        pixels = math.prod(self._network.spatial) or _MICRO_BATCH_PIXELS  # 0: of any size
        return self._fixed_batch or max(_MICRO_BATCH_PIXELS // pixels, 1)

    def __enter__(self) -> Self:
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineUnavailable(
                f"onnxruntime does not load ({error}): pip install onnxruntime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
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
        if self._threads > 1:
            self._pool = ThreadPoolExecutor(self._threads, "inference")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._session = self._pool = None

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on a batch of any length; see `Engine.infer`."""
        if self._session is None:
            raise InferenceError(f"{self._network.name} is not open: use the engine in a with block")
        pixels = int(np.prod(batch.shape[2:]))
        step = self._fixed_batch or max(_MICRO_BATCH_PIXELS // max(pixels, 1), 1)
        pieces = [batch[i : i + step] for i in range(0, len(batch), step)]
        parts = list((map if self._pool is None else self._pool.map)(self._run, pieces))
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
