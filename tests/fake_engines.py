"""Engines of a few lines, and networks without a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastseg.networks.network import Network, Role


class FakeEngine:
    """Answers with a function of the batch, and remembers what it was asked."""

    def __init__(self, answer: Callable[[NDArray[np.float32]], Any] = lambda batch: batch) -> None:
        self.answer = answer
        self.batches: list[NDArray[np.float32]] = []

    @property
    def name(self) -> str:
        return "fake"

    @property
    def concurrent(self) -> bool:
        return True

    @property
    def batch(self) -> int:
        return 8

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.batches.append(batch.copy())
        return np.array(self.answer(batch), np.float32)


def network(role: Role = Role.SEGMENT_2D, **facts: Any) -> Network:
    known: dict[str, Any] = {
        "path": Path("none.onnx"),
        "sha256": "",
        "role": role,
        "contrasts": ("t2",),
        "spatial": (64, 64),
        "channels_last": False,
        "mean": 0.0,
        "std": 1.0,
        "thresholds": {"t2": 0.5},
        "pack": "fakes",
    }
    return Network(**known | facts)
