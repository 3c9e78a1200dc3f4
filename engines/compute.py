"""What the networks shall run on, as the user says it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Self

from fastseg.errors import OptionError

__all__ = ["AUTO", "BACKENDS", "PRECISIONS", "Backend", "Compute"]


@dataclass(frozen=True, slots=True)
class Backend:
    """An engine that fastseg has, and what it can be asked for.

    Parameters
    ----------
    name : what ``--engine`` calls it
    device : cpu or cuda
    precisions : that it runs networks in, the exact one first
    modules : of its vendor, any of which will do; not imported to find out whether they are there
    install : what to do where it is not
    """

    name: str
    device: str
    precisions: tuple[str, ...]
    modules: tuple[str, ...]
    install: str


#: Engines by name; the last one is the reference, whose results do not depend on threads or neighbours.
BACKENDS: dict[str, Backend] = {
    each.name: each
    for each in (
        Backend(
            "tensorrt",
            "cuda",
            ("fp32", "tf32", "fp16", "bf16", "int8"),
            ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"),
            "pip install 'fastseg[gpu]'",
        ),
        Backend("openvino", "cpu", ("fp32", "bf16"), ("openvino",), "pip install 'fastseg[cpu-fast]'"),
        Backend("onnxruntime", "cpu", ("fp32",), ("onnxruntime",), "pip install onnxruntime"),
    )
}

#: Precisions by name, the exact one first.
PRECISIONS = BACKENDS["tensorrt"].precisions

_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3}(,\d{1,3})*)?")


@dataclass(frozen=True, slots=True)
class Compute:
    """What the networks shall run on.

    What is asked for by name runs, or opening the engine fails with the remedy; ``auto`` takes the fastest
    whose results are known to be as good as the reference's (`fastseg.engines.select`).

    Parameters
    ----------
    engine : auto, or a name of `BACKENDS`
    device : auto, cpu, cuda (the first GPU), or GPUs by number: cuda:0, cuda:0,1. With several, a cohort is
        spread over them; one volume takes the first.
    precision : auto, fp32, tf32, fp16, bf16 or int8
    threads : threads that share one inference on the CPU. Results do not depend on it.

    Raises
    ------
    OptionError
        A name is unknown, or two do not go together.

    Examples
    --------
    >>> Compute(device="cuda:0,2").gpus
    (0, 2)
    >>> Compute(engine="onnxruntime", precision="fp16")
    Traceback (most recent call last):
    ...
    fastseg.errors.OptionError: engine onnxruntime runs in fp32, not in fp16: choose another of the two
    """

    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.engine not in ("auto", *BACKENDS):
            raise OptionError(f"engine {self.engine!r}: choose auto or one of {', '.join(BACKENDS)}")
        if self.precision not in ("auto", *PRECISIONS):
            raise OptionError(f"precision {self.precision!r}: choose auto or one of {', '.join(PRECISIONS)}")
        if not _DEVICE.fullmatch(self.device):
            raise OptionError(
                f"device {self.device!r}: choose auto, cpu, cuda, or GPUs as cuda:0 or cuda:0,1"
            )
        if len(set(self.gpus)) < len(self.gpus):
            raise OptionError(f"device {self.device}: a GPU is named twice")
        if self.threads < 1:
            raise OptionError(f"threads {self.threads}: at least 1")
        self._check_together()

    def _check_together(self) -> None:
        if self.engine != "auto" and self.kind not in ("auto", BACKENDS[self.engine].device):
            raise OptionError(
                f"engine {self.engine} runs on {BACKENDS[self.engine].device}, not on {self.device}: "
                "choose another of the two"
            )
        if not any(map(self.allows, BACKENDS.values())):
            there = [each for each in BACKENDS.values() if replace(self, precision="auto").allows(each)]
            known = dict.fromkeys(name for each in there for name in each.precisions)
            what = f"engine {self.engine}" if self.engine != "auto" else f"device {self.device}"
            raise OptionError(
                f"{what} runs in {' or '.join(known)}, not in {self.precision}: choose another of the two"
            )

    @property
    def kind(self) -> str:
        """The device without numbers: auto, cpu or cuda."""
        return self.device.partition(":")[0]

    @property
    def gpus(self) -> tuple[int, ...]:
        """GPUs that were named by number."""
        numbers = self.device.partition(":")[2]
        return tuple(int(each) for each in numbers.split(",")) if numbers else ()

    @property
    def first_gpu(self) -> int:
        """The GPU that one process takes."""
        return self.gpus[0] if self.gpus else 0

    def allows(self, backend: Backend) -> bool:
        """Whether an engine may run by what was asked for."""
        return (
            self.engine in ("auto", backend.name)
            and self.kind in ("auto", backend.device)
            and self.precision in ("auto", *backend.precisions)
        )

    def on_gpu(self, number: int) -> Self:
        """The same, on one GPU."""
        return replace(self, device=f"cuda:{number}")


#: The fastest whose results are known to be as good as the reference's.
AUTO = Compute()
