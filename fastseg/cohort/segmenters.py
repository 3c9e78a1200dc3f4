"""Segmenters for all the options of a run, on the same open networks."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from fastseg.engines.compute import AUTO, Compute
from fastseg.engines.select import Engines
from fastseg.options import Options
from fastseg.segmenter import Segmenter

__all__ = ["Segmenters"]


class Segmenters:
    """Opens a Segmenter for each set of options when it is first asked for; networks are loaded once.

    A context manager. May be used from several threads.

    Parameters
    ----------
    models, compute : see `fastseg.Segmenter`
    """

    def __init__(self, *, models: str | Path = "default", compute: Compute = AUTO) -> None:
        self._models = models
        self._engines = Engines(compute)
        self._stack = ExitStack()
        self._opened: dict[Options, Segmenter] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._engines)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.clear()
        self._stack.close()

    def of(self, options: Options) -> Segmenter:
        """Give the open Segmenter for options.

        Raises
        ------
        NetworkError, EngineError
            As `fastseg.Segmenter` raises them.
        """
        with self._lock:
            if options not in self._opened:
                segmenter = Segmenter(options, models=self._models, engines=self._engines)
                self._opened[options] = self._stack.enter_context(segmenter)
            return self._opened[options]
