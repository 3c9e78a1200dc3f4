"""The files of a pack, checked against their digests before anything reads them."""

from __future__ import annotations

import hashlib
import io
import os
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fastseg.errors import NetworkError
from fastseg.networks.network import Network, SvmModel
from fastseg.networks.toml_table import AGAIN

__all__ = ["SVM_LENGTH", "Shapes", "checked", "checked_bytes", "onnx_shapes", "read_svm", "shape_problem"]

#: Coefficients of an SVM: 576 HOG weights and the bias.
SVM_LENGTH = 577

# An .npy file of 577 float32 has 2436 bytes.
_MAX_SVM_BYTES = 1 << 16

#: Shapes of a network's input and output; 0 where any size is taken.
Shapes = tuple[tuple[int, ...], tuple[int, ...]]

_File = TypeVar("_File", Network, SvmModel)


def checked(item: _File) -> _File:
    """Give the item back when its file is the one that was packed.

    Raises
    ------
    NetworkError
        The file is missing or has another digest.
    """
    checked_bytes(item)
    return item


def read_svm(model: SvmModel) -> NDArray[np.float32]:
    """Read the coefficients of an SVM, checked against their digest; nothing is unpickled.

    Returns
    -------
    coefficients : (577,) float32     576 weights in OpenCV's order and the bias

    Raises
    ------
    NetworkError
        The file is not the one that was packed, or not 577 finite float32.
    """
    content = checked_bytes(model)
    problem = "it is too large"
    if len(content) <= _MAX_SVM_BYTES:
        try:
            loaded: object = np.load(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # numpy raises many kinds for what is no .npy
            problem = " ".join(str(error).split())[:200]
        else:
            if isinstance(loaded, np.ndarray) and loaded.dtype == np.float32:
                if loaded.shape == (SVM_LENGTH,) and np.isfinite(loaded).all():
                    return loaded
                problem = "another shape, or a value that is not finite"
            else:
                problem = "not an array of float32"
    raise NetworkError(f"{model.path}: not {SVM_LENGTH} float32 in an .npy file ({problem}): {AGAIN}")


def checked_bytes(item: Network | SvmModel) -> bytes:
    """Read a file that is the one that was packed; see `checked`."""
    try:
        content = item.path.read_bytes()
    except OSError as error:
        raise NetworkError(
            f"{item.path}: cannot be read ({error.strerror}): import the pack again"
        ) from error
    if hashlib.sha256(content).hexdigest() != item.sha256:
        raise NetworkError(
            f"{item.path}: its sha256 is not the one in pack.toml, so it was changed or damaged: "
            "import the pack again"
        )
    return content


def onnx_shapes(content: bytes) -> Shapes:
    """Load a network with onnxruntime; give the shapes of its input and output, 0 for free sizes.

    It is loaded from memory, so a network that keeps its weights in other files is refused.

    Raises
    ------
    NetworkError
        onnxruntime cannot load it, or it is not one float32 array in and one out.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    # Without this, weights outside the file would be looked for in the working directory.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    # Only whether it loads is asked; optimising would take longer than loading.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises bare classes of its C++ side
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NetworkError(f"onnxruntime cannot load it ({reason})") from error
    ends = (*session.get_inputs(), *session.get_outputs())
    if len(session.get_inputs()) != 1 or len(ends) != 2 or any(e.type != "tensor(float)" for e in ends):
        raise NetworkError("it does not take one float32 array and give one")
    taken, given = (tuple(n if isinstance(n, int) else 0 for n in end.shape) for end in ends)
    return taken, given


def shape_problem(network: Network, shapes: Shapes) -> str:
    """Say how a file's input or output differs from what the Network says; empty when they agree.

    Free sizes (0) fit any.

    Examples
    --------
    >>> from fastseg.networks.network import Role
    >>> from fastseg.networks.packs import find_pack
    >>> segmenter = find_pack("default").network(Role.SEGMENT_2D, "t2")
    >>> shape_problem(segmenter, ((0, 1, 64, 64), (0, 1, 64, 64)))
    ''
    >>> shape_problem(segmenter, ((0, 64, 64, 1), (0, 64, 64, 1)))
    'its input is (any, 64, 64, 1) where (any, 1, 64, 64) was expected'
    """
    item = (*network.spatial, 1) if network.channels_last else (1, *network.spatial)
    wanted = (0, *item)
    for end, shape in zip(("input", "output"), shapes, strict=True):
        fits = len(shape) == len(wanted) and all(
            not a or not b or a == b for a, b in zip(shape, wanted, strict=True)
        )
        if not fits and not (end == "output" and not shape):
            return f"its {end} is {_sizes(shape)} where {_sizes(wanted)} was expected"
    return ""


def _sizes(shape: tuple[int, ...]) -> str:
    return f"({', '.join(str(n or 'any') for n in shape)})"
