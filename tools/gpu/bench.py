"""What a section of the check is given, and how it tells what it finds: at once, lest a crash lose it."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from fastseg.engines.cuda.base import Device, GpuFacts
    from fastseg.engines.cuda.probe import Probe
    from fastseg.engines.tensorrt.vendor import Vendor

__all__ = ["PRECISIONS", "REAL", "Bench", "Hardware", "NotHere", "Settings", "load_hardware"]

#: In the order in which they are tried: the first ones matter most where the time is short.
PRECISIONS = ("fp32", "fp16", "tf32", "bf16", "int8")

#: Where the hardware of this machine comes from; tests name another function.
REAL = "tools.gpu.hardware:real"


class NotHere(Exception):
    """Something that a section needs is missing here; the message says what, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What is checked: the GPU of this machine, or something that behaves like one.

    Parameters
    ----------
    probe : which GPUs there are, asked of the driver alone
    layer_problem : why no binding of CUDA can be imported; empty where one can
    open_device : the device layer on a GPU for engines, not yet entered
    bindings : of CUDA, by name
    open_binding : the device layer with one of them, not yet entered
    find_vendor : TensorRT, or TensorRT-RTX
    fastseg : command line of fastseg, without its arguments
    tests : arguments for pytest: the tests that need a GPU
    """

    probe: Callable[[], Probe]
    layer_problem: Callable[[], str]
    open_device: Callable[[int], Device]
    bindings: tuple[str, ...]
    open_binding: Callable[[int, str], Device]
    find_vendor: Callable[[], Vendor]
    fastseg: tuple[str, ...]
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line asks for.

    Parameters
    ----------
    gpu : its number
    precisions : to try; those that the GPU lacks are left out
    data : folder with volumes for the cohort; None: phantoms
    volumes : of a cohort of phantoms
    largest : batch that is tried
    work : folder for plans, phantoms and masks
    hardware : module:function that gives the hardware
    """

    gpu: int
    precisions: tuple[str, ...]
    data: Path | None
    volumes: int
    largest: int
    work: Path
    hardware: str = REAL

    def told(self) -> str:
        """The settings as one word of a command line."""
        return json.dumps(
            {name: str(value) if isinstance(value, Path) else value
             for name in self.__slots__ for value in (getattr(self, name),)}
        )  # fmt: skip

    @classmethod
    def heard(cls, told: str) -> Settings:
        """Settings from `told`."""
        facts = json.loads(told)
        facts["precisions"] = tuple(facts["precisions"])
        facts["work"] = Path(facts["work"])
        facts["data"] = Path(facts["data"]) if facts["data"] else None
        return cls(**facts)


def load_hardware(spec: str) -> Hardware:
    """Call the function that a `Settings.hardware` names."""
    module, _, name = spec.partition(":")
    hardware = getattr(importlib.import_module(module), name)()
    assert isinstance(hardware, Hardware)
    return hardware


class Bench:
    """What a section works with, and tells its findings to.

    Parameters
    ----------
    told : gets a JSON object a line: ``row``, ``left_out``, ``failed`` or ``doing``
    seconds : after which nothing more should be begun
    settings, hardware : what to check
    """

    def __init__(self, told: TextIO, seconds: float, settings: Settings, hardware: Hardware) -> None:
        self._told, self._end = told, time.monotonic() + seconds
        self.settings, self.hardware = settings, hardware

    @property
    def seconds_left(self) -> float:
        """Until nothing more should be begun; below 0 afterwards."""
        return self._end - time.monotonic()

    def row(self, **facts: object) -> None:
        """Tell a row of the section's table."""
        self._tell("row", facts)

    def left_out(self, what: str) -> None:
        """Tell what there was no time for, or what does not exist here."""
        self._tell("left_out", what)

    def failed(self, why: str) -> None:
        """Tell that a check failed; the others go on."""
        self._tell("failed", why)

    def doing(self, what: str) -> None:
        """Tell what is about to happen, should it be the last thing that happens."""
        self._tell("doing", what)

    def time_for(self, what: str) -> bool:
        """Say whether there is time for one thing more, and tell it: it is done next, or it is left out."""
        if self.seconds_left > 0:
            self.doing(what)
            return True
        self.left_out(f"{what}: no time was left")
        return False

    def gpu(self) -> GpuFacts:
        """The GPU to check.

        Raises
        ------
        NotHere
            There is none.
        """
        probe = self.hardware.probe()
        if probe.problem or not probe.gpus:
            raise NotHere(probe.problem or "the driver sees no GPU")
        for facts in probe.gpus:
            if facts.number == self.settings.gpu:
                return facts
        raise NotHere(f"there is no GPU {self.settings.gpu}: --gpu takes 0 to {len(probe.gpus) - 1}")

    def layer(self) -> GpuFacts:
        """The GPU to check, if Python can reach it.

        Raises
        ------
        NotHere
            There is no GPU, or no binding of CUDA.
        """
        gpu = self.gpu()
        if problem := self.hardware.layer_problem():
            raise NotHere(problem)
        return gpu

    def device(self) -> Device:
        """The device layer as engines get it, not yet entered.

        Raises
        ------
        NotHere
            As from `layer`; or the driver is too old for the TensorRT that is installed.
        """
        from fastseg.errors import EngineUnavailable

        try:
            return self.hardware.open_device(self.layer().number)
        except EngineUnavailable as error:
            raise NotHere(str(error)) from error

    def vendor(self) -> Vendor:
        """TensorRT, for a GPU that is there.

        Raises
        ------
        NotHere
            As from `device`; or there is no TensorRT.
        """
        from fastseg.errors import EngineUnavailable

        self.device()
        try:
            return self.hardware.find_vendor()
        except EngineUnavailable as error:
            raise NotHere(str(error)) from error

    def _tell(self, kind: str, what: object) -> None:
        print(json.dumps({kind: what}), file=self._told, flush=True)
