"""The half of the fake TensorRT that builds: parser, profiles, configuration, plans."""

from __future__ import annotations

import hashlib
import json
import weakref
from typing import TYPE_CHECKING, Any

from tests.engines.fake_numbers import FakeNumbers
from tests.engines.fake_types import (
    NULL,
    BuilderFlag,
    DataType,
    HardwareCompatibilityLevel,
    ILogger,
    ITensor,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    usable,
)

if TYPE_CHECKING:
    from tests.engines.fake_tensorrt import FakeTensorRt

__all__ = [
    "Builder",
    "IBuilderConfig",
    "INetworkDefinition",
    "IOptimizationProfile",
    "ITimingCache",
    "OnnxParser",
    "ParserError",
]


class INetworkDefinition:
    """A network while it is built."""

    _world: FakeTensorRt
    flags: int
    ends: tuple[list[ITensor], list[ITensor]]
    content: bytes

    def __init__(self) -> None:
        raise TypeError("INetworkDefinition: No constructor defined!")

    @property
    def num_inputs(self) -> int:
        return len(self.ends[0])

    @property
    def num_outputs(self) -> int:
        return len(self.ends[1])

    def get_input(self, index: int) -> ITensor:
        return self.ends[0][index]

    def get_output(self, index: int) -> ITensor:
        return self.ends[1][index]


class ParserError:
    """What the parser does not like."""

    _world: FakeTensorRt
    text: str

    def desc(self) -> str:
        return self.text

    def node(self) -> int:
        return -1

    def node_name(self) -> str:
        return ""

    def node_operator(self) -> str:
        return ""


class OnnxParser:
    """Reads a file into a network, which has to live as long."""

    _world: FakeTensorRt

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger = weakref.ref(network), usable(logger)
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def clear_errors(self) -> None:
        self._errors.clear()

    def parse(self, model: bytes, path: str | None = None) -> bool:
        network = self._network()
        if network is None:
            raise AssertionError("the network died before it was parsed into: the real parser crashes")
        if not model:
            return True  # as the real one: an empty network
        problem = self._world.failing("parse")
        try:
            ends = FakeNumbers(bytes(model)).ends
        except (ValueError, RuntimeError) as error:
            problem = problem or f"Failed to parse the ONNX model: {error}"
        except Exception as error:  # protobuf's own
            problem = problem or f"Failed to parse the ONNX model: {error}"
        if problem:
            error = self._world.make("ParserError")
            error.text = problem
            self._errors.append(error)
            self._logger.log(ILogger.Severity.ERROR, problem)
            return False
        for known, (name, shape, kind) in zip(network.ends, ends, strict=True):
            tensor = self._world.make("ITensor")
            tensor.name, tensor.shape, tensor.dtype = name, shape, DataType(kind)
            known.append(tensor)
        network.content = bytes(model)
        return True


class IOptimizationProfile:
    """Sizes of inputs that a plan is for."""

    _world: FakeTensorRt
    shapes: dict[str, list[tuple[int, ...]]]

    def __init__(self) -> None:
        raise TypeError("IOptimizationProfile: No constructor defined!")

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002  the real names
        self.shapes[input] = [tuple(min), tuple(opt), tuple(max)]

    def get_shape(self, input: str) -> list[tuple[int, ...]]:  # noqa: A002
        return self.shapes[input]


class ITimingCache:
    """What a build measured, for the next one."""

    _world: FakeTensorRt
    content: bytes

    def serialize(self) -> Any:
        memory = self._world.make("IHostMemory")
        memory.content = self.content
        return memory


class IBuilderConfig:
    """How to build."""

    _world: FakeTensorRt

    def __init__(self) -> None:
        raise TypeError("IBuilderConfig: No constructor defined!")

    def _begin(self) -> None:
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.chosen: set[BuilderFlag] = {BuilderFlag.TF32}  # on, unless it is cleared
        self.pools: dict[MemoryPoolType, int] = {}
        self.profiles: list[IOptimizationProfile] = []
        self.timing: ITimingCache | None = None

    def set_flag(self, flag: BuilderFlag) -> None:
        self.chosen.add(BuilderFlag(flag))

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.chosen.discard(BuilderFlag(flag))

    def get_flag(self, flag: BuilderFlag) -> bool:
        return flag in self.chosen

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.pools[MemoryPoolType(pool)] = int(pool_size)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        for least, best, most in profile.shapes.values():
            if not all(0 <= a <= b <= c for a, b, c in zip(least, best, most, strict=True)):
                return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        cache = self._world.make("ITimingCache")
        cache.content = bytes(serialized_timing_cache)
        return cache

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if self._world.failing("set_timing_cache"):
            return False
        self.timing = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self.timing


class Builder:
    """Makes plans; needs a GPU."""

    _world: FakeTensorRt

    def __init__(self, logger: ILogger) -> None:
        self._logger = usable(logger)
        if not self._world.cuda.pushed or self._world.failing("Builder"):
            raise TypeError(NULL)

    def create_network(self, flags: int = 0) -> Any:
        if self._world.failing("create_network"):
            return None
        network = self._world.make("INetworkDefinition")
        network.flags, network.ends, network.content = int(flags), ([], []), b""
        return network

    def create_builder_config(self) -> Any:
        if self._world.failing("create_builder_config"):
            return None
        config = self._world.make("IBuilderConfig")
        config._begin()
        return config

    def create_optimization_profile(self) -> Any:
        if self._world.failing("create_optimization_profile"):
            return None
        profile = self._world.make("IOptimizationProfile")
        profile.shapes = {}
        return profile

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> Any:
        strong = 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        if not network.flags & strong and self._world.version < "11":
            raise AssertionError("fastseg builds strongly typed networks only")
        problem = self._world.failing("build") or self._problem(network, config)
        if problem:
            self._logger.log(ILogger.Severity.ERROR, f"IBuilder::buildSerializedNetwork: {problem}")
            return None
        profile = {name: shapes for each in config.profiles for name, shapes in each.shapes.items()}
        facts = self._world.gpu() | {"profile": profile, "tf32": config.get_flag(BuilderFlag.TF32)}
        header = json.dumps(facts).encode()
        body = len(header).to_bytes(4, "little") + header + network.content
        memory = self._world.make("IHostMemory")
        memory.content = b"ftrt" + hashlib.sha256(body).digest() + body
        if config.timing is not None:
            config.timing.content += b"measured "
        return memory

    def _problem(self, network: INetworkDefinition, config: IBuilderConfig) -> str:
        if not network.num_outputs:
            return "Network must have at least one output"
        free = {end.name: end.shape for end in network.ends[0] if -1 in end.shape}
        if free and not config.profiles:
            return "Network has dynamic or shape inputs, but no optimization profile has been defined"
        for profile in config.profiles:
            for name, shape in free.items():
                shapes = profile.shapes.get(name)
                if shapes is None or any(len(each) != len(shape) for each in shapes):
                    return f"no optimization profile for input {name}"
                if any(n not in (-1, size) for each in shapes for n, size in zip(shape, each, strict=True)):
                    return f"the optimization profile contradicts the shape of input {name}"
        return ""
