"""The plain types of the fake TensorRT: its logger, enumerations and values."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.engines.fake_tensorrt import FakeTensorRt

__all__ = [
    "ENUMS",
    "NULL",
    "BuilderFlag",
    "DataType",
    "HardwareCompatibilityLevel",
    "IHostMemory",
    "ILogger",
    "ITensor",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "TensorIOMode",
    "usable",
]

NULL = "pybind11::init(): factory function returned nullptr"


class ILogger:
    """Is told what goes wrong; to be derived from."""

    _world: FakeTensorRt

    class Severity(Enum):
        """How bad it is; the lower the worse."""

        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

        def __int__(self) -> int:
            return int(self.value)

        def __le__(self, other: Any) -> bool:
            return int(self) <= int(other)

        def __lt__(self, other: Any) -> bool:
            return int(self) < int(other)

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def __init__(self) -> None:
        self.made = True

    def log(self, severity: Any, msg: str) -> None:
        raise AssertionError("ILogger.log has to be overridden")


def usable(logger: Any) -> Any:
    if not isinstance(logger, ILogger) or not hasattr(logger, "made"):
        raise TypeError("__init__(): incompatible constructor arguments")
    return logger


class TensorIOMode(Enum):
    """Which end a tensor is."""

    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(Enum):
    """Type of a tensor."""

    FLOAT = "tensor(float)"
    HALF = "tensor(float16)"
    BF16 = "tensor(bfloat16)"


class NetworkDefinitionCreationFlag(Enum):
    """Kinds of networks."""

    STRONGLY_TYPED = 1

    def __int__(self) -> int:
        return self.value


class BuilderFlag(Enum):
    """Switches of a build."""

    TF32 = 7
    VERSION_COMPATIBLE = 13


class MemoryPoolType(Enum):
    """Kinds of memory of a build."""

    WORKSPACE = 0


class HardwareCompatibilityLevel(Enum):
    """Other GPUs that a plan shall run on."""

    NONE = 0
    AMPERE_PLUS = 1
    SAME_COMPUTE_CAPABILITY = 2


class IHostMemory:
    """Bytes that TensorRT made."""

    _world: FakeTensorRt
    content: bytes

    @property
    def nbytes(self) -> int:
        return len(self.content)

    def __bytes__(self) -> bytes:
        return self.content


class ITensor:
    """An end of a network."""

    _world: FakeTensorRt

    def __init__(self) -> None:
        raise TypeError("ITensor: No constructor defined!")

    name: str
    shape: tuple[int, ...]
    dtype: DataType


ENUMS = (
    TensorIOMode,
    DataType,
    NetworkDefinitionCreationFlag,
    BuilderFlag,
    MemoryPoolType,
    HardwareCompatibilityLevel,
)
