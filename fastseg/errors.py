"""What can go wrong, as a tree.

::

    FastsegError
    ├── OptionError (ValueError)   options that do not go together
    ├── InputError (ValueError)    a volume or centerline that cannot be used
    ├── OutputError                a result that cannot be written
    ├── CordNotFound               a good volume in which no spinal cord was found
    ├── NetworkError               a pack of networks that is missing, incomplete or damaged
    └── EngineError
        ├── EngineUnavailable      this machine cannot run that engine
        ├── EngineBuildError       the engine could not be built from the network
        └── InferenceError         the engine failed while running
            └── OutOfDeviceMemory  ... because the GPU's memory is full

Every message says what is wrong, where, and what to do about it, on one line. A volume that raises one
of these is an outcome; anything else that escapes is a bug of fastseg.
"""

__all__ = [
    "CordNotFound",
    "EngineBuildError",
    "EngineError",
    "EngineUnavailable",
    "FastsegError",
    "InferenceError",
    "InputError",
    "NetworkError",
    "OptionError",
    "OutOfDeviceMemory",
    "OutputError",
]


class FastsegError(Exception):
    """Base of all errors that fastseg raises on purpose."""


class OptionError(FastsegError, ValueError):
    """Options that are out of range or do not go together."""


class InputError(FastsegError, ValueError):
    """A volume or centerline that cannot be used."""


class OutputError(FastsegError):
    """A result that cannot be written."""


class CordNotFound(FastsegError):
    """A readable volume in which no spinal cord was found."""


class NetworkError(FastsegError):
    """A pack of networks that is missing, incomplete or damaged."""


class EngineError(FastsegError):
    """Base of everything that goes wrong in an engine."""


class EngineUnavailable(EngineError):
    """This machine cannot run the engine that was asked for."""


class EngineBuildError(EngineError):
    """The engine could not be built from the network."""


class InferenceError(EngineError):
    """The engine failed while it ran."""


class OutOfDeviceMemory(InferenceError):
    """The memory of the GPU does not suffice."""
