"""onnxruntime's own CUDA provider on the same images: a yardstick only, fastseg does not use it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastseg.networks.network import Network
from tools.gpu.bench import Bench, NotHere
from tools.gpu.networks import batches_of, images, networks, timed

__all__ = ["check"]

_PROVIDER = "CUDAExecutionProvider"
_BATCHES = (1, 16, 256)


def check(bench: Bench) -> None:
    """Measure its throughput, with TF32 and without."""
    gpu = bench.gpu()
    import onnxruntime

    if _PROVIDER not in onnxruntime.get_available_providers():
        raise NotHere(
            f"onnxruntime {onnxruntime.__version__} has no CUDA provider: it would take onnxruntime-gpu in "
            "its place, in an environment of its own (never both)"
        )
    if hasattr(onnxruntime, "preload_dlls"):  # finds NVIDIA's libraries in wheels
        onnxruntime.preload_dlls()
    for network in networks():
        for tf32 in (False, True):
            how = "tf32" if tf32 else "fp32"
            if bench.time_for(f"{network.path.stem} in {how} by onnxruntime"):
                _measure(bench, network, how, _session(onnxruntime, network, gpu.number, tf32))


def _session(onnxruntime: Any, network: Network, number: int, tf32: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    provider = (_PROVIDER, {"device_id": str(number), "use_tf32": str(int(tf32))})
    session = onnxruntime.InferenceSession(str(network.path), options, providers=[provider])
    if session.get_providers()[0] != _PROVIDER:  # it falls back to the CPU silently
        raise NotHere("onnxruntime's CUDA provider does not load: cuDNN or CUDA libraries are missing")
    return session


def _measure(bench: Bench, network: Network, how: str, session: Any) -> None:
    name = session.get_inputs()[0].name
    for count in batches_of(bench, network, _BATCHES):
        if not bench.time_for(f"{network.path.stem} in {how} by onnxruntime, {count} at a time"):
            continue
        batch = images(network, count)
        if network.channels_last:
            batch = np.ascontiguousarray(np.moveaxis(batch, 1, -1))
        times = timed(lambda: session.run(None, {name: batch}), seconds=0.3)  # noqa: B023
        bench.row(
            network=network.path.stem,
            engine=f"onnxruntime cuda {how}",
            batch=count,
            images_per_second=round(count / times.median, 1),
            ms=round(times.median * 1e3, 3),
            ms_least=round(times.least * 1e3, 3),
            turns=times.count,
        )
