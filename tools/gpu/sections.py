"""The sections of the check, in their order, with their parts of the time."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SECTIONS", "Section"]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the check that runs in a process of its own.

    Parameters
    ----------
    name : of its module in tools.gpu, whose `check` takes a `Bench`
    title : for the report
    weight : its part of the time; what one section leaves over goes to those after it
    needs_gpu : whether it checks anything on a machine without one
    """

    name: str
    title: str
    weight: float
    needs_gpu: bool = True


#: Engines are built by one section, and those after it take them from the cache.
SECTIONS = (
    Section("found", "What is here", 20, needs_gpu=False),
    Section("device", "Device memory layer", 30),
    Section("build", "Engines: build and acceptance", 140),
    Section("conformance", "Conformance suite on the GPU", 70),
    Section("neighbours", "What neighbours in a batch change", 20),
    Section("throughput", "Throughput by batch size", 80),
    Section("memory", "Memory", 20),
    Section("cohort", "Cohort", 80),
    Section("onnxruntime_cuda", "onnxruntime with CUDA, a yardstick", 20),
)
