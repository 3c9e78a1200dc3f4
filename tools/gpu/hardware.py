"""The GPU of this machine, through fastseg's own layers."""

from __future__ import annotations

import sys
from pathlib import Path

from fastseg.engines.cuda.open import BINDINGS, layer_problem, open_device
from fastseg.engines.cuda.probe import probe
from fastseg.engines.tensorrt.engine import open_gpu
from fastseg.engines.tensorrt.vendor import find_vendor
from tools.gpu.bench import Hardware

__all__ = ["real"]

_TESTS = Path(__file__).resolve().parents[2] / "tests" / "gpu"


def real() -> Hardware:
    """The hardware that is here, if any."""
    return Hardware(
        probe=probe,
        layer_problem=layer_problem,
        open_device=open_gpu,
        bindings=tuple(BINDINGS),
        open_binding=lambda number, name: open_device(number, layer=name),
        find_vendor=find_vendor,
        fastseg=(sys.executable, "-P", "-m", "fastseg"),
        tests=(str(_TESTS),),
    )
