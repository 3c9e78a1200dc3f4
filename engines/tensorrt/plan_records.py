"""A plan, and the record beside it.

A plan is named by a digest of all that it depends on. Its record holds the digest of its content: a plan
without its record, or with another's, is not loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastseg.engines.cuda.base import GpuFacts
from fastseg.engines.tensorrt import cache_files as files
from fastseg.engines.tensorrt.cache_files import Untrusted

__all__ = [
    "Entry",
    "Plan",
    "PlanKey",
    "Sidecar",
    "plan_key",
    "plan_path",
    "read_entry",
    "read_plan",
    "sidecar_path",
]

# Of keys and records; another number makes new plans of all.
_SCHEMA = 1
_MOST_RECORD = 1 << 20


@dataclass(frozen=True, slots=True)
class PlanKey:
    """All that a plan depends on; see `plan_key`.

    Parameters
    ----------
    facts : what JSON can say, by name

    Examples
    --------
    >>> PlanKey({"a": 1, "b": (2, 3)}).digest == PlanKey({"b": [2, 3], "a": 1}).digest
    True
    """

    facts: Mapping[str, object]

    @property
    def digest(self) -> str:
        """SHA-256 of the facts, whatever their order, and of the version of these files."""
        facts = {**self.facts, "schema": _SCHEMA}
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def plan_key(
    content: bytes,
    *,
    precision: str,
    vendor: str,
    version: str,
    gpu: GpuFacts,
    shapes: Mapping[str, object],
    optimisation_level: int,
    workspace_bytes: int,
    hardware_compatibility: str,
    version_compatible: bool,
) -> PlanKey:
    """Name all that a plan depends on. The driver is not among it: a plan may outlive one.

    Parameters
    ----------
    content : ONNX, the precision written into it
    precision : with tf32, TensorRT is allowed to use it
    vendor, version : module that builds, and its full version
    gpu : what it is built for
    shapes : least, best and most of every input, by its name
    optimisation_level, workspace_bytes, hardware_compatibility, version_compatible : of the builder
    """
    return PlanKey(
        {
            "network": hashlib.sha256(content).hexdigest(),
            "precision": precision,
            "tf32": precision == "tf32",
            "vendor": vendor,
            "version": version,
            "system": platform.system(),
            "machine": platform.machine(),
            "gpu": gpu.name,
            "compute_capability": list(gpu.compute_capability),
            "multiprocessors": gpu.multiprocessors,
            "shapes": dict(shapes),
            "optimisation_level": optimisation_level,
            "workspace_bytes": workspace_bytes,
            "hardware_compatibility": hardware_compatibility,
            "version_compatible": version_compatible,
        }
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """A built engine.

    Parameters
    ----------
    digest : of its `PlanKey`
    record : what is known of it: how it was built, what it loses, what it was accepted under
    path : of its file; None where it could not be kept
    content : what TensorRT reads
    """

    digest: str
    record: Mapping[str, Any]
    path: Path | None
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the cache has under one name, without the plan itself.

    Parameters
    ----------
    digest : of its key
    path : of the plan
    size : bytes of plan and record
    used : when it was last fetched or written, seconds since 1970
    key : what it depends on; empty where there is no sound record
    record : see `Plan`
    problem : why it will not be loaded, as far as the record tells
    """

    digest: str
    path: Path
    size: int
    used: float
    key: PlanKey
    record: Mapping[str, Any]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The record of a plan, as it lies beside it.

    Parameters
    ----------
    sha256, size : of the plan's content
    facts : of its key
    record : see `Plan`
    """

    sha256: str
    size: int
    facts: Mapping[str, object]
    record: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Sidecar | str:
        """The record in a file, or what is wrong with it."""
        try:
            content = json.loads(files.read_private(path, _MOST_RECORD))
        except Untrusted as error:
            return f"its record cannot be trusted: {error}"
        except FileNotFoundError:
            return "its record is missing"
        except OSError as error:
            return f"its record cannot be read ({error.strerror or error})"
        except (ValueError, RecursionError):
            return "its record is no JSON"
        if not isinstance(content, dict) or content.get("schema") != _SCHEMA:
            return "its record is of another version of fastseg"
        digest, size, facts, record = (content.get(name) for name in ("sha256", "bytes", "key", "record"))
        if (
            not isinstance(digest, str)
            or not isinstance(size, int)
            or size < 1
            or not isinstance(facts, dict)
            or not isinstance(record, dict)
        ):
            return "its record is incomplete"
        if PlanKey(facts).digest != path.stem:
            return "its record is another plan's"
        return cls(digest, size, facts, record)

    def text(self) -> bytes:
        """What lies in its file."""
        facts = {"schema": _SCHEMA, "sha256": self.sha256, "bytes": self.size}
        content = {**facts, "record": self.record, "key": self.facts}
        return json.dumps(content, indent=1, allow_nan=False).encode() + b"\n"


def plan_path(folder: Path, digest: str) -> Path:
    """Where a plan lies."""
    return folder / f"{digest}.plan"


def sidecar_path(folder: Path, digest: str) -> Path:
    """Where its record lies."""
    return folder / f"{digest}.json"


def read_plan(folder: Path, digest: str) -> Plan | str:
    """The plan of a digest, or what is wrong with it; an empty text where there is none."""
    path = plan_path(folder, digest)
    sidecar = Sidecar.read(sidecar_path(folder, digest))
    if isinstance(sidecar, str):
        there = os.path.lexists(path) or os.path.lexists(sidecar_path(folder, digest))
        return sidecar if there else ""
    try:
        content = files.read_private(path, sidecar.size)
    except FileNotFoundError:
        return "the plan is missing"
    except Untrusted as error:
        return f"it cannot be trusted: {error}"
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    if hashlib.sha256(content).hexdigest() != sidecar.sha256:
        return "its content is not what was written"
    return Plan(digest, sidecar.record, path, content)


def read_entry(folder: Path, digest: str) -> Entry:
    """What there is of a digest, without reading the plan; of size 0 where there is nothing."""
    size, used, problem = 0, 0.0, ""
    for path in (plan_path(folder, digest), sidecar_path(folder, digest)):
        with contextlib.suppress(OSError):
            status = path.lstat()
            size, used = size + status.st_size, max(used, status.st_mtime)
    path = plan_path(folder, digest)
    sidecar = Sidecar.read(sidecar_path(folder, digest))
    if isinstance(sidecar, str):
        return Entry(digest, path, size, used, PlanKey({}), {}, sidecar)
    try:
        problem = "" if path.lstat().st_size == sidecar.size else "its content is not what was written"
    except OSError:
        problem = "the plan is missing"
    return Entry(digest, path, size, used, PlanKey(sidecar.facts), sidecar.record, problem)
