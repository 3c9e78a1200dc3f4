"""Memory that engines take, on the device and on the host, and whether they give it back."""

from __future__ import annotations

from pathlib import Path

from fastseg.engines.cuda.base import Device
from fastseg.errors import FastsegError
from fastseg.networks.network import Network, Role
from tools.gpu.bench import Bench
from tools.gpu.networks import images, networks, precisions, tensorrt, usable

__all__ = ["check"]

# Opened, run and closed so often. What the first turn keeps belongs to libraries that load once; what later
# turns keep is lost.
_TURNS = 4
_LOST_BYTES = 32 << 20


def check(bench: Bench) -> None:
    """Open, run and close engines under the eyes of a device that stays open."""
    bench.vendor()
    precision = precisions(bench, bench.gpu())[0]
    with bench.device() as device:
        for network in networks():
            if usable(bench, network, precision) and bench.time_for(
                f"memory of {network.path.stem} in {precision}"
            ):
                try:
                    _measure(bench, network, precision, device)
                except FastsegError as error:
                    bench.failed(f"{network.path.stem} in {precision}: {error}")


def _measure(bench: Bench, network: Network, precision: str, device: Device) -> None:
    batch = images(network, min(16 if network.role is Role.SEGMENT_3D else 256, bench.settings.largest))
    before, running = _free(device), 0
    host, kept = _resident(), []
    for _ in range(_TURNS):
        with tensorrt(bench, network, precision) as engine:
            opened = _free(device)
            engine.infer(batch)
            running = _free(device)
        kept.append(before - _free(device))
    bench.row(
        network=network.path.stem,
        precision=precision,
        device_mb_open=_mb(before - opened),
        device_mb_after_a_batch=_mb(before - running),
        device_mb_kept_at_first=_mb(kept[0]),
        device_mb_kept_later=_mb(kept[-1] - kept[0]),
        host_mb_kept=_mb(_resident() - host),
    )
    if kept[-1] - kept[0] > _LOST_BYTES:
        bench.failed(
            f"{network.path.stem} in {precision}: {_mb(kept[-1] - kept[0])} MB of the GPU were lost in "
            f"{_TURNS - 1} turns of opening and closing (or another process took them meanwhile)"
        )


def _free(device: Device) -> int:
    with device.current():
        return device.free_bytes()


def _resident() -> int:
    """Memory of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _mb(count: int) -> float:
    return round(count / 1e6, 1)
