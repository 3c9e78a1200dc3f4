"""How much memory there is, how much a volume takes, and giving back what is no longer used."""

from __future__ import annotations

import ctypes
import math
import os
from contextlib import suppress
from pathlib import Path

from fastseg.errors import OptionError
from fastseg.nifti_header import Frame, VolumeFacts, memory_bytes
from fastseg.options import Options
from fastseg.volume import SCT_RPI

__all__ = ["budget_bytes", "needed_bytes", "programs_bytes", "rss_bytes", "tame_allocator"]

# What a volume adds to the process at its peak, measured on 64 x 64 x 64 to 320 x 320 x 200 voxels: 12 bytes
# a voxel of int16 and 15 of float32, whatever the detector; the mean of several volumes 20 while it is made;
# OptiC up to 6.6 bytes more per voxel of 0.5 mm; and 20 MB for the inner layers of a network.
_FIXED = 24_000_000
_PER_VOXEL = 11.5
_PER_MEAN_VOXEL = 21.0
_PER_WORKING_VOXEL = 7.0
_WORKING_MM = 0.5

# What the process holds beside volumes when all networks, kernels and modules are loaded, measured: 258 MB,
# of which 82 come with the first volumes.
_PROGRAMS = 260_000_000

# Part of the memory that is taken without being asked to: others have to live too.
_SHARE = 0.8

# mallopt's names in malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def budget_bytes(gigabytes: float | None = None) -> int:
    """Memory that a run may take.

    Parameters
    ----------
    gigabytes : as the user said, in 10^9 bytes; None: four fifths of what is free on this machine, or in its
        container

    Raises
    ------
    OptionError
        It is less than the programs alone take.
    """
    if gigabytes is None:
        return int(_SHARE * min(memory_bytes(), _available() + rss_bytes()))
    if not gigabytes >= 0.5:
        raise OptionError(
            f"--mem-gb {gigabytes:g}: fastseg and its networks alone take 0.3 GB; give 0.5 or more"
        )
    return int(gigabytes * 1e9)


def _available() -> int:
    with suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text()
        return int(text.split("MemAvailable:")[1].split()[0]) * 1024
    return memory_bytes()


def needed_bytes(
    facts: VolumeFacts, options: Options, *, frame: Frame | None = None, rescue: bool = False
) -> int:
    """Memory that a volume takes at its peak, beyond that of the programs and networks.

    Parameters
    ----------
    facts : of its file
    options : to segment it with
    frame : of a 4D file, which of its volumes
    rescue : whether other detectors are tried too
    """
    voxels = math.prod(facts.grid.shape)
    per_voxel = max(facts.dtype.itemsize, 2) + _PER_VOXEL - 2
    if frame == "mean" and facts.frames > 1:
        per_voxel = max(per_voxel, _PER_MEAN_VOXEL)
    needed = _FIXED + voxels * per_voxel
    if options.detector in ("auto", "svm") or (rescue and options.detector == "cnn"):  # may come to OptiC
        x_mm, y_mm, _ = facts.grid.reoriented(SCT_RPI).zooms
        needed += voxels * _PER_WORKING_VOXEL * (x_mm / _WORKING_MM) * (y_mm / _WORKING_MM)
    return int(needed)


def rss_bytes() -> int:
    """Memory of this process now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):  # no Linux: its peak stands in
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def programs_bytes() -> int:
    """Memory of this process beside volumes: what it holds now, or will hold when all is loaded."""
    return max(rss_bytes(), _PROGRAMS)


def tame_allocator() -> None:
    """Let freed volumes go back to the system.

    glibc raises the size from which on memory is given back with every large array, up to 32 MB, and keeps a
    heap for each thread: after a thousand volumes a process would hold what its largest ones took, several
    times. With fixed sizes, arrays of 8 MB and more are the system's again when they are freed. Smaller
    limits cost page faults: 1 MB, 8 % of all CPU time.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 23)
        mallopt(_M_TRIM_THRESHOLD, 1 << 26)
        mallopt(_M_ARENA_MAX, 2)
