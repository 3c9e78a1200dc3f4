"""fastseg: fast, exact spinal cord segmentation of MR volumes.

From a file to a mask that overlays it::

    import fastseg

    volume, template = fastseg.read_volume("t2.nii.gz")
    result = fastseg.segment(volume, "t2")
    fastseg.write_volume(result.mask.voxels, template, "t2_seg.nii.gz")

Many volumes, with networks that are loaded once:

>>> import fastseg
>>> from fastseg.phantom import make_phantom
>>> images = [make_phantom("t2", n_slices=6, seed=seed)[0] for seed in (1, 2)]
>>> with fastseg.Segmenter(fastseg.Options(contrast="t2")) as segmenter:
...     masks = [segmenter.segment(image).mask for image in images]
>>> [mask.grid.same_space(image.grid) for mask, image in zip(masks, images)]
[True, True]

Every error that fastseg raises on purpose is a `FastsegError`. Names are imported when they are used:
``import fastseg`` itself loads neither numpy nor a vendor's library.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastseg.errors import (
    CordNotFound,
    EngineBuildError,
    EngineError,
    EngineUnavailable,
    FastsegError,
    InferenceError,
    InputError,
    NetworkError,
    OptionError,
    OutOfDeviceMemory,
    OutputError,
)

if TYPE_CHECKING:
    from fastseg.api import segment
    from fastseg.engines.compute import Compute
    from fastseg.nifti import read_volume, write_volume
    from fastseg.options import Options
    from fastseg.segmenter import Segmentation, Segmenter
    from fastseg.volume import Grid, Volume

__all__ = [
    "Compute",
    "CordNotFound",
    "EngineBuildError",
    "EngineError",
    "EngineUnavailable",
    "FastsegError",
    "Grid",
    "InferenceError",
    "InputError",
    "NetworkError",
    "OptionError",
    "Options",
    "OutOfDeviceMemory",
    "OutputError",
    "Segmentation",
    "Segmenter",
    "Volume",
    "__version__",
    "read_volume",
    "segment",
    "write_volume",
]

__version__ = "0.1.0"

# onnxruntime 1.32 gives the machine an identity in the user's cache folder, and keeps what it would tell its
# maker there. It reads this when it is imported; nobody's scanner or server is to be told of.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = {
    "Compute": "engines.compute",
    "Grid": "volume",
    "Options": "options",
    "Segmentation": "segmenter",
    "Segmenter": "segmenter",
    "Volume": "volume",
    "read_volume": "nifti",
    "segment": "api",
    "write_volume": "nifti",
}

if not TYPE_CHECKING:

    def __getattr__(name):
        """Import a public name when it is asked for the first time."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        if _MODULES[name] == "segmenter":
            import logging

            from fastseg.compilation import load_kernels

            load_kernels(logging.getLogger(__name__).warning)
        value = getattr(importlib.import_module(f"fastseg.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
