"""What every engine is: something that runs one network on batches."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Engine"]


@runtime_checkable
class Engine(Protocol):
    """Runs one network.

    A context manager: nothing is loaded and no device is touched before ``__enter__``. `infer` is pure: the
    same batch gives the same answer whatever ran before, an image the same answer whatever lies beside it in
    the batch, and the caller owns the result. An engine may be used from one thread at a time, unless it is
    `concurrent`.
    """

    @property
    def name(self) -> str:
        """What ran, for records: engine, device and precision."""

    @property
    def concurrent(self) -> bool:
        """Whether `infer` runs in several threads at once."""

    @property
    def batch(self) -> int:
        """Images from which on a larger batch is no faster; known once the engine is open."""

    def __enter__(self) -> Self:
        """Load the network."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free whatever was loaded."""

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network.

        Parameters
        ----------
        batch : (N, C, x, y) or (N, C, x, y, z) float32
            normalised as the network wants it; N may be 0

        Returns
        -------
        result : same axes, float32
            probabilities, logits or heat, as the network gives them

        Raises
        ------
        InferenceError
            The engine failed, or the batch does not fit the network.
        """
