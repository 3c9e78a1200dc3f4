"""A network's file to a plan: the serialised engine, for the GPU of this machine.

One path for TensorRT 10, TensorRT 11 and TensorRT-RTX: networks are strongly typed, so the precision is what
`fastseg.engines.tensorrt.conversion` wrote into the file, and the only flag that touches it is TF32. TensorRT
times kernels on the GPU whose context is current; TensorRT-RTX leaves that to the moment when the plan is
loaded, and so builds without a GPU too, for any that it knows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from fastseg.engines.tensorrt.profiles import Profile
from fastseg.engines.tensorrt.vendor import Api, Vendor, vendor_of
from fastseg.errors import EngineBuildError

if TYPE_CHECKING:
    import tensorrt

__all__ = ["Built", "Recipe", "build_engine"]

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an engine is built; all of it belongs into the key under which its plan is kept.

    Parameters
    ----------
    precision : that of the file; tf32 lets convolutions of float32 round what they take to TF32
    workspace_bytes : memory on the GPU that kernels may use besides the network's own values
    optimisation_level : 0 to 5, how long TensorRT looks for faster kernels
    hardware_compatibility : none, ampere_plus or same_compute_capability: which GPUs besides this one run the
        plan. TensorRT-RTX knows none of it: its plans are for all GPUs that it supports
    version_compatible : whether later versions of TensorRT run it
    """

    precision: str
    workspace_bytes: int = 1 << 30
    optimisation_level: int = 3
    hardware_compatibility: str = "none"
    version_compatible: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """What building gives.

    Parameters
    ----------
    plan : the serialised engine
    seconds : that it took
    timing_cache : what was measured, with what was known before; empty where the vendor measures nothing
    """

    plan: bytes
    seconds: float
    timing_cache: bytes


def build_engine(
    content: bytes, profile: Profile, recipe: Recipe, *, trt: Api, timing_cache: bytes = b""
) -> Built:
    """Build the engine of a network.

    Parameters
    ----------
    content : ONNX file, converted to the recipe's precision
    profile : shapes of its input
    trt : the vendor's module, imported; what it logs explains failures
    timing_cache : of an earlier build on this GPU; one that does not fit is left aside

    Raises
    ------
    EngineBuildError
        The file is not one that the vendor takes, or it finds no way to run it. The message does not name the
        file: whoever calls knows it.
    """
    vendor = vendor_of(trt)
    vendor.log.explain()  # what was said before belongs to somebody else
    started = time.perf_counter()
    try:
        builder = trt.Builder(vendor.log.logger)
        network = _given(
            builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)),
            "makes no network",
            vendor,
        )
        # The parser does not keep the network alive, nor the network the weights that the parser holds.
        parser = trt.OnnxParser(network, vendor.log.logger)
        _parse(parser, content, vendor)
        _check_ends(network, profile, vendor)
        config = _given(builder.create_builder_config(), "makes no configuration", vendor)
        _configure(config, recipe, vendor)
        _add_profile(builder, config, profile, vendor)
        cache = None if vendor.just_in_time else _timing_cache(config, timing_cache, vendor)
        serialised = builder.build_serialized_network(network, config)
        plan = bytes(_given(serialised, "cannot build the network", vendor))
        known = b"" if cache is None else bytes(_given(cache.serialize(), "gives no timings", vendor))
    except (TypeError, ValueError, RuntimeError, MemoryError) as error:  # null pointers are TypeErrors
        said = "; ".join(dict.fromkeys([" ".join(str(error).split())[:200], vendor.log.explain()]))
        raise EngineBuildError(_message("failed", vendor, said)) from error
    return Built(plan, time.perf_counter() - started, known)


def _parse(parser: tensorrt.OnnxParser, content: bytes, vendor: Vendor) -> None:
    parsed = parser.parse(content)
    errors = [parser.get_error(k) for k in range(parser.num_errors)]
    if not parsed or errors:
        said = "; ".join(dict.fromkeys(_where(error) for error in errors))
        logged = vendor.log.explain()
        raise EngineBuildError(_message("cannot read the network", vendor, said[:400] or logged))


def _where(error: tensorrt.ParserError) -> str:
    """What the parser says, and at which operator."""
    place = " ".join(part for part in (error.node_operator(), error.node_name()) if part)
    said = " ".join(error.desc().split())
    return f"{place}: {said}" if place else said


def _check_ends(network: tensorrt.INetworkDefinition, profile: Profile, vendor: Vendor) -> None:
    """The parser takes files that are empty, and the builder says of shapes only that they are wrong."""
    if (network.num_inputs, network.num_outputs) != (1, 1):
        ends = f"{network.num_inputs} inputs and {network.num_outputs} outputs"
        raise EngineBuildError(
            _message("cannot run the network", vendor, f"it has {ends}, one each is needed")
        )
    first, last = network.get_input(0), network.get_output(0)
    kind = vendor.module.DataType.FLOAT
    for end in (first, last):
        if end.dtype != kind:
            said = f"{end.name} holds {end.dtype}, float32 is needed"
            raise EngineBuildError(_message("cannot run the network", vendor, said))
    shape = tuple(first.shape)
    fits = len(shape) == len(profile.least) and all(
        n in (-1, low) and (n == -1 or low == high)
        for n, low, high in zip(shape, profile.least, profile.most, strict=True)
    )
    if first.name != profile.name or not fits:
        said = f"its input {first.name} {shape} is not {profile.name} {profile.least} to {profile.most}"
        raise EngineBuildError(_message("cannot run the network", vendor, said))


def _configure(config: tensorrt.IBuilderConfig, recipe: Recipe, vendor: Vendor) -> None:
    trt = vendor.module
    for flag, wanted in (
        (trt.BuilderFlag.TF32, recipe.precision == "tf32"),
        (trt.BuilderFlag.VERSION_COMPATIBLE, recipe.version_compatible),
    ):
        # Not left to the default, which differs between versions.
        (config.set_flag if wanted else config.clear_flag)(flag)
        if config.get_flag(flag) != wanted:
            said = f"{flag.name} cannot be {'set' if wanted else 'cleared'}"
            raise EngineBuildError(_message("refuses the recipe", vendor, said))
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace_bytes)
    config.builder_optimization_level = recipe.optimisation_level
    if config.builder_optimization_level != recipe.optimisation_level:
        said = f"optimisation level {recipe.optimisation_level} is not one of 0 to 5"
        raise EngineBuildError(_message("refuses the recipe", vendor, said))
    if recipe.hardware_compatibility != "none":
        level = getattr(trt.HardwareCompatibilityLevel, recipe.hardware_compatibility.upper(), None)
        if level is not None:
            config.hardware_compatibility_level = level
        if level is None or config.hardware_compatibility_level != level:
            said = f"it has no hardware compatibility {recipe.hardware_compatibility!r}"
            raise EngineBuildError(_message("refuses the recipe", vendor, said))


def _add_profile(
    builder: tensorrt.Builder, config: tensorrt.IBuilderConfig, profile: Profile, vendor: Vendor
) -> None:
    shapes = _given(builder.create_optimization_profile(), "makes no profile", vendor)
    shapes.set_shape(profile.name, profile.least, profile.best, profile.most)
    if config.add_optimization_profile(shapes) < 0:
        said = f"{profile.name} {profile.least} to {profile.most}: {vendor.log.explain()}"
        raise EngineBuildError(_message("refuses the shapes", vendor, said))


def _timing_cache(config: tensorrt.IBuilderConfig, content: bytes, vendor: Vendor) -> tensorrt.ITimingCache:
    """Attach what was measured before, or, where that does not fit this GPU and version, an empty cache."""
    for known in dict.fromkeys([content, b""]):
        cache = config.create_timing_cache(known)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    raise EngineBuildError(_message("takes no timing cache", vendor, vendor.log.explain()))


def _given(made: _Made | None, otherwise: str, vendor: Vendor) -> _Made:
    """The vendor returns None where it fails."""
    if made is None:
        raise EngineBuildError(_message(otherwise, vendor, vendor.log.explain()))
    return made


def _message(what: str, vendor: Vendor, said: str) -> str:
    remedy = "choose another precision, or --device cpu, which runs every network"
    return f"{vendor.name} {vendor.version} {what} ({said}): {remedy}"
