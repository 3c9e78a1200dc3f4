"""Questions of several volumes, put together into batches for their engines.

An engine's answer to an image does not depend on what lies beside it in a batch, so neither does a volume's
result on which other volumes were there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.base import Engine

__all__ = ["Batch", "Batcher"]

_Asker = TypeVar("_Asker", bound=Hashable)
_Images = NDArray[np.float32]


@dataclass(slots=True, eq=False)
class _Question(Generic[_Asker]):
    """What a volume asks, and what it has been told so far."""

    asker: _Asker
    lengths: list[int]
    answers: list[_Images | None]
    missing: int


@dataclass(slots=True)
class _Part(Generic[_Asker]):
    """Images of one batch of a question, of which the first `taken` are already under way."""

    question: _Question[_Asker]
    number: int
    images: _Images
    since: float
    taken: int = 0


@dataclass(frozen=True, slots=True)
class _Piece(Generic[_Asker]):
    question: _Question[_Asker]
    number: int
    first: int
    images: _Images


@dataclass(frozen=True, slots=True)
class Batch(Generic[_Asker]):
    """Images that are run together.

    Parameters
    ----------
    engine : that runs them
    pieces : whose images they are
    """

    engine: Engine
    pieces: tuple[_Piece[_Asker], ...]

    @property
    def askers(self) -> list[_Asker]:
        """The volumes, each once."""
        return list(dict.fromkeys(piece.question.asker for piece in self.pieces))

    @property
    def shares(self) -> dict[_Asker, float]:
        """What part of the images is whose."""
        counts: dict[_Asker, int] = dict.fromkeys(self.askers, 0)
        for piece in self.pieces:
            counts[piece.question.asker] += len(piece.images)
        return {asker: count / sum(counts.values()) for asker, count in counts.items()}

    def infer(self) -> _Images:
        """Run the engine."""
        if len(self.pieces) == 1:
            return self.engine.infer(self.pieces[0].images)
        return self.engine.infer(np.concatenate([piece.images for piece in self.pieces]))


class Batcher(Generic[_Asker]):
    """Collects questions and hands out batches. Not for several threads at once: its owner has a lock.

    Parameters
    ----------
    flush_seconds : the longest that an image waits for a batch to fill
    factor : batches are this many times as large as the engine needs to be fast
    """

    def __init__(self, flush_seconds: float, factor: int = 2) -> None:
        self._flush_seconds, self._factor = flush_seconds, factor
        self._waiting: dict[tuple[object, ...], deque[_Part[_Asker]]] = {}
        self._engines: dict[tuple[object, ...], Engine] = {}
        self._open: dict[_Asker, _Question[_Asker]] = {}
        self._busy: set[int] = set()

    def __len__(self) -> int:
        """Images that wait."""
        return sum(len(part.images) - part.taken for queue in self._waiting.values() for part in queue)

    def ask(
        self, asker: _Asker, engine: Engine, batches: tuple[_Images, ...], *, alone: bool = False
    ) -> None:
        """Take a question in, in place of one that the volume may have asked before.

        Parameters
        ----------
        asker : whose it is
        engine : that is asked
        batches : as the network wants them; at least one, none of them empty
        alone : whether it must not be put together with others'; its images are run one by one then, which
            takes the least memory
        """
        self.withdraw(asker)
        lengths = [len(images) for images in batches]
        question = _Question(asker, lengths, [None] * len(batches), sum(lengths))
        self._open[asker] = question
        for number, images in enumerate(batches):
            key = (id(engine), images.shape[1:], asker if alone else None)
            self._engines[key] = engine
            part = _Part(question, number, images, time.monotonic())
            self._waiting.setdefault(key, deque()).append(part)

    def take(self, *, idle: bool = False) -> Batch[_Asker] | None:
        """Give a batch that is full, or whose first image has waited long enough, or, when idle, any."""
        now = time.monotonic()
        for key, queue in self._waiting.items():
            engine = self._engines[key]
            if id(engine) in self._busy:
                continue
            count = sum(len(part.images) - part.taken for part in queue)
            due = now - queue[0].since >= self._flush_seconds
            if count >= engine.batch or due or idle or key[2] is not None:
                return self._cut(key, queue, engine)
        return None

    def wait_seconds(self) -> float | None:
        """Time until a batch is due whether it is full or not; None when nothing waits."""
        firsts = [q[0].since for key, q in self._waiting.items() if id(self._engines[key]) not in self._busy]
        return max(min(firsts) + self._flush_seconds - time.monotonic(), 0.0) if firsts else None

    def _cut(self, key: tuple[object, ...], queue: deque[_Part[_Asker]], engine: Engine) -> Batch[_Asker]:
        room, pieces = 1 if key[2] is not None else engine.batch * self._factor, []
        while queue and room:
            part = queue[0]
            images = part.images[part.taken : part.taken + room]
            pieces.append(_Piece(part.question, part.number, part.taken, images))
            room -= len(images)
            part.taken += len(images)
            if part.taken == len(part.images):
                queue.popleft()
        if not queue:
            del self._waiting[key], self._engines[key]
        if not engine.concurrent:
            self._busy.add(id(engine))
        return Batch(engine, tuple(pieces))

    def answer(self, batch: Batch[_Asker], answers: _Images) -> list[tuple[_Asker, list[_Images]]]:
        """Take answers in; gives the volumes that now have all of theirs."""
        self._busy.discard(id(batch.engine))
        complete, start = [], 0
        for piece in batch.pieces:
            own = answers[start : start + len(piece.images)]
            start += len(own)
            question = piece.question
            if not self._is_open(question):  # it was withdrawn, or asked anew
                continue
            whole = question.answers[piece.number]
            if whole is None:
                whole = np.empty((question.lengths[piece.number], *own.shape[1:]), np.float32)
                question.answers[piece.number] = whole
            whole[piece.first : piece.first + len(own)] = own
            question.missing -= len(own)
            if not question.missing:
                del self._open[question.asker]
                complete.append((question.asker, [each for each in question.answers if each is not None]))
        return complete

    def failed(self, batch: Batch[_Asker]) -> list[_Asker]:
        """Note that a batch came to nothing: its engine is free again.

        Returns
        -------
        askers : volumes that still waited for answers of this batch; their questions are withdrawn
        """
        self._busy.discard(id(batch.engine))
        waited = {piece.question.asker for piece in batch.pieces if self._is_open(piece.question)}
        askers = [asker for asker in batch.askers if asker in waited]
        for asker in askers:
            self.withdraw(asker)
        return askers

    def _is_open(self, question: _Question[_Asker]) -> bool:
        return self._open.get(question.asker) is question

    def withdraw(self, asker: _Asker) -> None:
        """Forget a volume's question, if it has one; answers that are still under way go nowhere."""
        question = self._open.pop(asker, None)
        if question is None:
            return
        for key in list(self._waiting):
            kept = deque(part for part in self._waiting[key] if part.question is not question)
            if kept:
                self._waiting[key] = kept
            else:
                del self._waiting[key], self._engines[key]
