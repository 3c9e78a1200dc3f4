"""What neighbours in a batch, or another run, change in an answer: on a GPU it is measured, not promised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastseg.errors import FastsegError
from fastseg.networks.network import Network, Role
from tools.gpu.bench import Bench
from tools.gpu.networks import images, networks, precisions, tensorrt, usable

__all__ = ["check"]

# More than one full batch of 64 crops, or of 4 blocks, so that the tail differs too.
_IMAGES = {Role.SEGMENT_3D: 5}
_OTHERWISE = 67


def check(bench: Bench) -> None:
    """Run images together, one by one, and together again."""
    bench.vendor()
    for precision in precisions(bench, bench.gpu()):
        for network in networks():
            if not usable(bench, network, precision) or not bench.time_for(
                f"{network.path.stem} in {precision}, together and one by one"
            ):
                continue
            try:
                _measure(bench, network, precision)
            except FastsegError as error:
                bench.failed(f"{network.path.stem} in {precision}: {error}")


def _measure(bench: Bench, network: Network, precision: str) -> None:
    count = _IMAGES.get(network.role, _OTHERWISE)
    batch = images(network, min(count, bench.settings.largest + 1))
    with tensorrt(bench, network, precision) as engine:
        together = engine.infer(batch)
        again = engine.infer(batch)
        alone = np.concatenate([engine.infer(batch[i : i + 1]) for i in range(len(batch))])
    changed = (together != alone).reshape(len(batch), -1).any(1)
    bench.row(
        network=network.path.stem,
        precision=precision,
        images=len(batch),
        changed_by_neighbours=int(changed.sum()),
        max_difference=_largest(together, alone),
        flipped=_flipped(network, together, alone),
        max_difference_of_a_second_run=_largest(together, again),
    )


def _largest(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(f"{np.abs(one - other).max():.3g}")


def _flipped(network: Network, one: NDArray[np.float32], other: NDArray[np.float32]) -> int:
    """Pixels that change sides, at the threshold where most do."""
    return max(int(((one > t) != (other > t)).sum()) for t in set(network.thresholds.values()))
