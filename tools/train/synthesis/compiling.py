"""How the generator is compiled: fast, and cached under a digest of all its sources.

numba's own cache looks at one file a function, and would not see a change of what that function calls.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import njit

__all__ = ["compiled", "inlined"]

_HERE = Path(__file__).resolve().parent
_SOURCES = sorted((*_HERE.glob("*.py"), _HERE.parent / "batches.py"))
_DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()[:16]
_CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastseg-train" / "numba" / _DIGEST
)

# No NaN is ever tested for; a pixel's value may differ in its last bit between machines.
_OPTIONS = {"nogil": True, "fastmath": True, "error_model": "numpy", "cache": True}


def _with_own_cache(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_CACHE)
    try:
        return njit(**_OPTIONS, **options)(function)
    finally:
        numba.config.CACHE_DIR = before


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of the generator."""
    return _with_own_cache(function)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function into its callers: an anatomy is too long a list of arguments to hand over."""
    return _with_own_cache(function, inline="always")
