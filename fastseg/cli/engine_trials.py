"""What `fastseg engines` does: builds engines, and holds them against the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fastseg.engines.tensorrt.plans import Entry, Plan, PlanCache, PlanKey
from fastseg.errors import EngineBuildError, EngineError, EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastseg.engines.acceptance import Difference
    from fastseg.engines.base import Engine
    from fastseg.engines.cuda.base import GpuFacts
    from fastseg.networks.network import Network

__all__ = ["Trial", "build", "check_cpu", "check_plans"]

Verdict = Literal["accepted", "refused", "failed", "not checked"]


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one engine.

    Parameters
    ----------
    network, device, precision : what was tried
    verdict : refused: not built, or its numbers are not the network's; failed: it could not run here
    engine : its name, as far as it is known
    max_difference, flipped, pixels, dice : against the reference on fixed inputs; None where not known
    size, seconds : of its plan, where there is one: bytes, and how long it was built
    cached : whether its plan was there before it was asked for
    why : it was not accepted
    unavailable : whether that is because of this machine, and not of the network
    """

    network: str
    device: str
    precision: str
    verdict: Verdict
    engine: str = ""
    max_difference: float | None = None
    flipped: int | None = None
    pixels: int | None = None
    dice: float | None = None
    size: int | None = None
    seconds: float | None = None
    cached: bool = False
    why: str = ""
    unavailable: bool = False


class _Watched(PlanCache):
    """Knows whether a plan was built."""

    built = False

    def store(self, key: PlanKey, content: bytes, record: Mapping[str, Any]) -> Plan:
        self.built = True
        return super().store(key, content, record)


class _NotKept(EngineUnavailable):
    """There is no such plan."""


class _Kept(PlanCache):
    """Gives what is there, and builds nothing."""

    found = ""

    def fetch(self, key: PlanKey) -> Plan | None:
        plan = super().fetch(key)
        self.found = plan.digest if plan else ""
        return plan

    def building(self, key: PlanKey) -> Any:
        if not self.found:
            raise _NotKept("the cache has no plan for this GPU, version of TensorRT, and network")
        raise EngineBuildError(
            "TensorRT does not load the plan: `fastseg engines build`, or the next run, builds it anew"
        )


def build(
    networks: Sequence[Network],
    gpus: Sequence[GpuFacts],
    precisions: Callable[[Network, GpuFacts], Sequence[str]],
    say: Callable[[str], None],
) -> Iterator[Trial]:
    """Get the engines of networks ready on GPUs, one after another.

    Parameters
    ----------
    precisions : in which ones; called for each network and GPU
    say : gets a line before each
    """
    from fastseg.engines.tensorrt.engine import TensorRt

    for gpu in gpus:
        for network in networks:
            for precision in precisions(network, gpu):
                where = network.name, _named(gpu), precision
                say(f"{network.name} in {precision} on {_named(gpu)} ...")
                cache = _Watched(say=say)
                try:
                    with TensorRt(network, number=gpu.number, precision=precision, cache=cache) as engine:
                        facts = _of_record(engine.plan.record)
                        cached = not cache.built
                        yield Trial(*where, "accepted", engine.name, **facts, cached=cached)
                except EngineError as error:
                    yield _unsuccessful(where, error)


def check_plans(
    networks: Sequence[Network], gpus: Sequence[GpuFacts], problem: str, say: Callable[[str], None]
) -> Iterator[Trial]:
    """Hold every plan of the cache that this machine can load against the reference.

    Parameters
    ----------
    networks : to which they may belong
    problem : why there is no GPU to load them
    """
    left = {each.digest: each for each in PlanCache().entries()}
    known = {network.name: network for network in networks}
    kinds = {_kind(gpu): gpu for gpu in reversed(gpus)}  # the first of each kind
    wanted = dict.fromkeys((str(each.record.get("network")), _precision(each)) for each in left.values())
    for gpu in kinds.values() if not problem else ():
        for name, precision in wanted:
            if name in known:
                for digest, trial in _check_plan(known[name], gpu, precision, say):
                    left.pop(digest, None)
                    yield trial
    for entry in left.values():
        gone = "" if entry.path.exists() else "it was damaged, and has been removed"
        other = "of another GPU, version of TensorRT, or network: fastseg engines prune removes such"
        why = entry.problem or gone or problem or other
        device = str(entry.record.get("device", "?"))
        name, size = str(entry.record.get("network", "?")), entry.size
        yield Trial(name, device, _precision(entry), "not checked", size=size, why=why)


def _check_plan(
    network: Network, gpu: GpuFacts, precision: str, say: Callable[[str], None]
) -> Iterator[tuple[str, Trial]]:
    from fastseg.engines.tensorrt.engine import TensorRt

    where = network.name, _named(gpu), precision
    cache = _Kept(say=say)
    try:
        with TensorRt(network, number=gpu.number, precision=precision, cache=cache) as engine:
            say(f"{network.name} in {precision} on {_named(gpu)} ...")
            yield engine.plan.digest, _measured(where, engine, network, engine.plan)
    except _NotKept:
        return
    except EngineError as error:
        yield cache.found, _unsuccessful(where, error)


def check_cpu(networks: Sequence[Network], say: Callable[[str], None]) -> Iterator[Trial]:
    """Hold the other engines of the CPU that are installed against the reference."""
    from fastseg.engines.compute import BACKENDS, Compute
    from fastseg.engines.select import open_engine, problem_of

    reference = next(reversed(BACKENDS))
    others = [each for each in BACKENDS.values() if each.device == "cpu" and each.name != reference]
    for backend in others:
        if problem_of(backend.name):
            continue
        for network in networks:
            for precision in backend.precisions:
                where = network.name, "cpu", precision
                say(f"{network.name} by {backend.name} in {precision} ...")
                try:
                    with open_engine(network, Compute(backend.name, "cpu", precision)) as engine:
                        yield _measured(where, engine, network)
                except EngineUnavailable as error:
                    yield Trial(*where, "not checked", backend.name, why=str(error), unavailable=True)
                except EngineError as error:
                    yield _unsuccessful(where, error, backend.name)


def _measured(
    where: tuple[str, str, str], engine: Engine, network: Network, plan: Plan | None = None
) -> Trial:
    from fastseg.engines.acceptance import measure, require
    from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu

    with OnnxRuntimeCpu(network) as reference:
        found = measure(engine, network, reference)
    facts = _of_record(plan.record if plan else {}) | _numbers(found)
    try:
        require(found, where[2], f"{network.name} on {engine.name}")
    except EngineBuildError as error:
        return Trial(*where, "refused", engine.name, **facts, why=str(error))
    return Trial(*where, "accepted", engine.name, **facts)


def _unsuccessful(where: tuple[str, str, str], error: EngineError, engine: str = "") -> Trial:
    from fastseg.engines.acceptance import Refused

    verdict: Verdict = "refused" if isinstance(error, EngineBuildError) else "failed"
    unavailable = isinstance(error, EngineUnavailable)
    facts = _numbers(error.difference) if isinstance(error, Refused) else {}
    return Trial(*where, verdict, engine, **facts, why=str(error), unavailable=unavailable)


def _numbers(found: Difference) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("max_difference", "flipped", "pixels", "dice")}


def _of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    facts = {name: record.get(name) for name in ("max_difference", "flipped", "pixels", "dice", "seconds")}
    return facts | {"size": record.get("bytes")}


def _named(gpu: GpuFacts) -> str:
    return f"cuda:{gpu.number} {gpu.name}"


def _kind(gpu: GpuFacts) -> tuple[object, ...]:
    return gpu.name, gpu.compute_capability, gpu.multiprocessors


def _precision(entry: Entry) -> str:
    return str(entry.record.get("precision", "?"))
