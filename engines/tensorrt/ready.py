"""Getting a plan ready: from the cache, or built; loaded; and checked against the reference engine.

A plan is stored once it was accepted, so what lies in the cache has given the reference's answers under the
driver that its record names. Under another driver it is checked again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastseg.engines.acceptance import Difference, calibration_inputs, require
from fastseg.engines.cuda.base import GpuFacts
from fastseg.engines.tensorrt.build import Recipe, build_engine
from fastseg.engines.tensorrt.conversion import converted, input_of
from fastseg.engines.tensorrt.plans import Plan, PlanCache, PlanKey, plan_key
from fastseg.engines.tensorrt.profiles import Profile, profile_of
from fastseg.engines.tensorrt.vendor import Vendor
from fastseg.errors import EngineBuildError
from fastseg.networks.network import Network

__all__ = ["Order", "driver_of", "get_ready"]

_logger = logging.getLogger(__name__)

_KERNEL_MODULE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Order:
    """What is to be built, and for what.

    Parameters
    ----------
    network : whose file is read; see `Order.of`
    content : ONNX, the precision written into it
    profile : shapes it shall take
    recipe : how to build
    vendor : that builds
    gpu : that runs it
    """

    network: Network
    content: bytes
    profile: Profile
    recipe: Recipe
    vendor: Vendor
    gpu: GpuFacts

    @classmethod
    def of(cls, network: Network, recipe: Recipe, vendor: Vendor, gpu: GpuFacts) -> Order:
        """Read a network's file and write the precision into it.

        Raises
        ------
        EngineBuildError
            It cannot be read, is no network, or cannot have this precision.
        """
        try:
            file = network.path.read_bytes()
            profile = profile_of(network, *input_of(file))
            content = converted(file, recipe.precision, lambda: _typical(network))
        except OSError as error:
            raise EngineBuildError(
                f"{network.path}: cannot be read ({error.strerror or error}): import the pack again"
            ) from error
        except EngineBuildError as error:
            raise _of(network, error) from error
        return cls(network, content, profile, recipe, vendor, gpu)

    @cached_property
    def key(self) -> PlanKey:
        """What the cache knows the plan by."""
        profile, recipe = self.profile, self.recipe
        return plan_key(
            self.content,
            precision=recipe.precision,
            vendor=self.vendor.name,
            version=self.vendor.version,
            gpu=self.gpu,
            shapes={profile.name: [profile.least, profile.best, profile.most]},
            optimisation_level=recipe.optimisation_level,
            workspace_bytes=recipe.workspace_bytes,
            hardware_compatibility=recipe.hardware_compatibility,
            version_compatible=recipe.version_compatible,
        )

    @property
    def what(self) -> str:
        """For messages: what runs where, in which precision."""
        vendor = f"{self.vendor.name} {self.vendor.version}"
        return f"{self.network.path} with {vendor} in {self.recipe.precision} on {self.gpu.name}"


def get_ready(
    order: Order, cache: PlanCache, load: Callable[[bytes], None], measure: Callable[[], Difference]
) -> Plan:
    """Give a plan that is loaded and gives the reference's answers.

    Parameters
    ----------
    order : what is wanted
    cache : where it may be, and is put
    load : loads a plan in the place of the one before; raises EngineBuildError if that is impossible
    measure : compares what was loaded with the reference engine

    Raises
    ------
    EngineBuildError
        It cannot be built, does not load even then, or its answers are not the reference's: the message has
        the numbers.
    EngineUnavailable, InferenceError
        TensorRT or the GPU failed.
    """
    useless = None
    plan = cache.fetch(order.key)
    if plan is not None and _loads(plan, load):
        return _accepted(order, cache, plan, measure)
    useless = plan
    with cache.building(order.key):
        plan = cache.fetch(order.key)
        if plan is not None and useless is not None and plan.content == useless.content:
            cache.discard(plan)
            plan = None
        if plan is not None and _loads(plan, load):  # another process has built it meanwhile
            return _accepted(order, cache, plan, measure)
        return _built(order, cache, load, measure)


def driver_of(gpu: GpuFacts) -> str:
    """Name the driver: the kernel module's release, where Linux tells it, and the CUDA that it supports."""
    cuda = f"CUDA {gpu.driver[0]}.{gpu.driver[1]}"
    try:
        words = _KERNEL_MODULE.read_text().split()
    except (OSError, UnicodeDecodeError):
        return cuda
    releases = [word for word in words if "." in word and word.replace(".", "").isdigit()]
    return f"{releases[0]}, {cuda}" if releases else cuda


def _built(
    order: Order, cache: PlanCache, load: Callable[[bytes], None], measure: Callable[[], Difference]
) -> Plan:
    vendor, gpu, driver = order.vendor, order.gpu, driver_of(order.gpu)
    timings = f"{vendor.name} {vendor.version} {gpu.name}"
    _logger.info("building %s; this is done once", order.what)
    try:
        built = build_engine(
            order.content,
            order.profile,
            order.recipe,
            trt=vendor.module,
            timing_cache=cache.timing_cache(timings),
        )
        cache.keep_timing_cache(timings, built.timing_cache)
        load(built.plan)
    except EngineBuildError as error:
        raise _of(order.network, error) from error
    difference = measure()
    require(difference, order.recipe.precision, order.what)
    record = {
        "network": order.network.name,
        "network_sha256": order.network.sha256,
        "device": gpu.name,
        "precision": order.recipe.precision,
        "vendor": vendor.name,
        "version": vendor.version,
        "seconds": round(built.seconds, 3),
        "bytes": len(built.plan),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "driver": driver,
        "drivers": [driver],
    }
    return cache.store(order.key, built.plan, record | asdict(difference))


def _loads(plan: Plan, load: Callable[[bytes], None]) -> bool:
    try:
        load(plan.content)
    except EngineBuildError as error:
        _logger.warning("%s: %s", plan.path, error)
        return False
    return True


def _accepted(order: Order, cache: PlanCache, plan: Plan, measure: Callable[[], Difference]) -> Plan:
    """Check a plan of the cache that was not yet seen with this driver."""
    driver, drivers = driver_of(order.gpu), plan.record.get("drivers")
    known = [each for each in drivers if isinstance(each, str)] if isinstance(drivers, list) else []
    if driver in known:
        return plan
    _logger.info("checking %s, which was built under another driver (%s)", order.what, ", ".join(known))
    difference = measure()
    try:
        require(difference, order.recipe.precision, order.what)
    except EngineBuildError:
        cache.discard(plan)
        raise
    return cache.note(plan, driver=driver, drivers=[*known, driver], **asdict(difference))


def _typical(network: Network) -> list[NDArray[np.float32]]:
    """Inputs to calibrate on, with the file's order of axes."""
    batches = calibration_inputs(network)
    return [np.moveaxis(each, 1, -1) if network.channels_last else each for each in batches]


def _of(network: Network, error: EngineBuildError) -> EngineBuildError:
    """Name the file, unless the message does."""
    text = str(error)
    return EngineBuildError(text if str(network.path) in text else f"{network.path}: {text}")
