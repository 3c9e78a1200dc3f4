"""What CUDA's errors mean, and what to do about them."""

from __future__ import annotations

from dataclasses import dataclass

from fastseg.errors import EngineError, InferenceError, OutOfDeviceMemory

__all__ = ["Known", "failure", "known_code", "lost_gpu"]


@dataclass(frozen=True, slots=True)
class Known:
    """An error of the CUDA driver.

    Parameters
    ----------
    code : of CUresult
    name : in CUresult
    words : of cuGetErrorString, which are all that pycuda passes on
    remedy : what to do
    """

    code: int
    name: str
    words: str
    remedy: str


_OUT_OF_MEMORY = 2

_BUG = "this is a bug of fastseg if it comes back after a restart: report it with this line"
_BROKEN = (
    "this process cannot use the GPU any more: start it again, and if it comes back, look for Xid in `dmesg`"
)

_KNOWN = (
    Known(1, "CUDA_ERROR_INVALID_VALUE", "invalid argument", _BUG),
    Known(
        _OUT_OF_MEMORY,
        "CUDA_ERROR_OUT_OF_MEMORY",
        "out of memory",
        "end what else uses the GPU (`nvidia-smi` lists it), or take another GPU",
    ),
    Known(
        3,
        "CUDA_ERROR_NOT_INITIALIZED",
        "initialization error",
        "start processes with spawn: CUDA does not survive a fork",
    ),
    Known(4, "CUDA_ERROR_DEINITIALIZED", "driver shutting down", "the process is ending already"),
    Known(
        34,
        "CUDA_ERROR_STUB_LIBRARY",
        "CUDA driver is a stub library",
        "the toolkit's libcuda.so, made for linking, was found first: take .../stubs out of LD_LIBRARY_PATH",
    ),
    Known(
        36,
        "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER",
        "API call is not supported in the installed CUDA driver",
        "update the NVIDIA driver",
    ),
    Known(
        46,
        "CUDA_ERROR_DEVICE_UNAVAILABLE",
        "CUDA-capable device(s) is/are busy or unavailable",
        "another process has the GPU for itself: wait for it, or `nvidia-smi -c DEFAULT`",
    ),
    Known(
        100,
        "CUDA_ERROR_NO_DEVICE",
        "no CUDA-capable device is detected",
        "does `nvidia-smi` list one? A container has to be started with --gpus all, a batch job has to ask "
        "for a GPU",
    ),
    Known(
        101,
        "CUDA_ERROR_INVALID_DEVICE",
        "invalid device ordinal",
        "`nvidia-smi` lists the GPUs; CUDA_VISIBLE_DEVICES may name one that is not there",
    ),
    Known(201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context", _BUG),
    Known(
        214,
        "CUDA_ERROR_ECC_UNCORRECTABLE",
        "uncorrectable ECC error encountered",
        f"faulty memory: {_BROKEN}",
    ),
    Known(
        304,
        "CUDA_ERROR_OPERATING_SYSTEM",
        "OS call failed or operation not supported on this OS",
        "may this user read and write /dev/nvidia*, and is `ulimit -v` unlimited?",
    ),
    Known(400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle", _BUG),
    Known(700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered", _BROKEN),
    Known(702, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated", _BROKEN),
    Known(709, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed", _BUG),
    Known(716, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address", _BROKEN),
    Known(718, "CUDA_ERROR_INVALID_PC", "invalid program counter", _BROKEN),
    Known(719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure", _BROKEN),
    Known(801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported", "update the NVIDIA driver"),
    Known(
        802,
        "CUDA_ERROR_SYSTEM_NOT_READY",
        "system not yet initialized",
        "on servers with NVSwitch, start NVIDIA's fabric manager of the driver's version: "
        "systemctl start nvidia-fabricmanager",
    ),
    Known(
        803,
        "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        "system has unsupported display driver / cuda driver combination",
        "libcuda and the kernel's module are of different drivers: reboot after an update of the driver; in "
        "a container, use the host's libcuda",
    ),
    Known(
        804,
        "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
        "forward compatibility was attempted on non supported HW",
        "the container's own libcuda does not run with this GPU and driver: take .../compat out of "
        "LD_LIBRARY_PATH, or update the driver",
    ),
    Known(
        805,
        "CUDA_ERROR_MPS_CONNECTION_FAILED",
        "MPS client failed to connect to the MPS control daemon or the MPS server",
        "start nvidia-cuda-mps-control, or unset CUDA_MPS_PIPE_DIRECTORY",
    ),
    Known(
        900,
        "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        "operation not permitted when stream is capturing",
        "what was recorded cannot be a CUDA graph: run without graphs",
    ),
    Known(
        901,
        "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
        "operation failed due to a previous error during capture",
        "what was recorded cannot be a CUDA graph: run without graphs",
    ),
    Known(
        999,
        "CUDA_ERROR_UNKNOWN",
        "unknown error",
        "does `nvidia-smi` work? Load the driver's module with `nvidia-modprobe -u -c 0`, or reboot",
    ),
)

# What this process was told when it lost its GPU; at most one.
_lost: list[str] = []

_BY_CODE = {each.code: each for each in _KNOWN}
_BY_SAYING = {text: each for each in _KNOWN for text in (each.name, each.words)}


def known_code(code: int) -> Known | None:
    """What is known about a code of CUresult."""
    return _BY_CODE.get(code)


def lost_gpu() -> str:
    """Why this process cannot use its GPU any more; empty where it can, as far as is known.

    Notes
    -----
    After an error inside a kernel, or of the memory's hardware, all calls of CUDA in the process give that
    error, also those for other work: only another process helps.
    """
    return _lost[0] if _lost else ""


def failure(call: str, saying: str, gpu: int, *, wanted: int = 0) -> EngineError:
    """Make the error of a call that the driver refused.

    Parameters
    ----------
    call : its name
    saying : the error's name in CUresult, or the words of cuGetErrorString
    gpu : its number
    wanted : bytes that were asked for, where it was a matter of memory

    Returns
    -------
    error : OutOfDeviceMemory, or InferenceError
    """
    known = _BY_SAYING.get(saying)
    name = f"{known.name} ({known.words})" if known is not None else saying
    remedy = known.remedy if known is not None else _BROKEN
    asked = f" for {wanted / 2**20:.1f} MiB" if wanted else ""
    kind = OutOfDeviceMemory if known is not None and known.code == _OUT_OF_MEMORY else InferenceError
    text = f"GPU {gpu}: {call}{asked} failed with {name}: {remedy}"
    if known is not None and remedy.endswith(_BROKEN) and not _lost:
        _lost.append(text)
    return kind(text)
