"""Pools of samples on disk: drawn once, read by every training, in memory only as far as they are used."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from tools.train.synthesis.samples import Samples, draw_samples

__all__ = ["POOLS", "PoolKind", "ensure_pool", "read_pool", "split"]

PoolKind = Literal["whole", "crops", "blocks"]

#: Samples at full length, slices of each, and whether they are whole slices.
POOLS: dict[PoolKind, tuple[int, int, bool]] = {
    "whole": (24_000, 1, True),
    "crops": (30_000, 1, False),
    "blocks": (1_500, 16, False),
}


def ensure_pool(
    kind: PoolKind, folder: Path, seed: int, share: float, threads: int, say: Callable[[str], None] = print
) -> None:
    """Draw a pool into a folder, unless it is there.

    Parameters
    ----------
    kind : which pool
    folder : of all pools
    seed : of its samples
    share : of the full number of samples
    threads : cores to use
    """
    target = folder / kind
    if target.is_dir():
        return
    n, depth, whole = POOLS[kind]
    n = max(int(n * share), 64)
    started = time.perf_counter()
    samples = draw_samples(n, seed, depth=depth, whole=whole, threads=threads)
    half = folder / f".{kind}.{os.getpid()}"
    half.mkdir(parents=True, exist_ok=True)
    for name, array in samples._asdict().items():
        np.save(half / f"{name}.npy", array)
    half.rename(target)
    say(f"{n} samples of {kind}: {time.perf_counter() - started:.0f} s")


def read_pool(kind: PoolKind, folder: Path) -> Samples:
    """Open a pool; its arrays stay on disk until they are read."""
    return Samples(*(np.load(folder / kind / f"{name}.npy", mmap_mode="r") for name in Samples._fields))


def split(samples: Samples, held_back: int) -> tuple[Samples, Samples]:
    """The samples to train with, and the last ones, to validate with."""
    stop = len(samples.kinds) - held_back
    return Samples(*(a[:stop] for a in samples)), Samples(*(a[stop:] for a in samples))
