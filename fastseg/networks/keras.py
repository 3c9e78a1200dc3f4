"""Keras 2 HDF5 files -> ONNX, for the networks that SCT shipped before 2022.

Layers are mapped one by one from the file's model_config; nothing of the file is ever executed or
unpickled. What comes out takes and gives channels-first arrays of any batch length, whatever the layout
inside the file, with batch norm folded into the convolutions.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from fastseg.errors import NetworkError
from fastseg.networks.keras_file import Layer, read_layers, read_weight

if TYPE_CHECKING:
    import h5py
    import onnx

__all__ = ["convert", "require_extra"]

# Read by onnxruntime 1.18 (our oldest) and by TensorRT 8.
_OPSET = 13
_IR_VERSION = 7


def require_extra() -> None:
    """See that what reads Keras files is installed.

    Raises
    ------
    NetworkError
        h5py or onnx is missing.
    """
    try:
        import h5py  # noqa: F401
        import onnx  # noqa: F401
    except ImportError as error:
        raise NetworkError(
            f"Keras files (.h5) are read with h5py and onnx, and {error.name} is missing: "
            'pip install "fastseg[import]"'
        ) from error


def convert(content: bytes) -> bytes:
    """Convert a Keras 2 model file to ONNX.

    Parameters
    ----------
    content : bytes of the HDF5 file

    Returns
    -------
    network : ONNX file with the input ``input_1`` (N, C, x, y[, z]) and the output ``predictions``

    Raises
    ------
    NetworkError
        The extra is missing, this is no Keras model, or it has a layer that is not known here.
    """
    require_extra()
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            config = file.attrs.get("model_config")
            link = file.get("model_weights", getlink=True)
            if config is None or not isinstance(link, h5py.HardLink):
                raise NetworkError("not a whole Keras model: it has no model_config or no model_weights")
            layers = read_layers(config)
            return _Graph(layers, file["model_weights"]).onnx()
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise NetworkError(f"not a Keras 2 model that can be converted ({reason})") from error
    except (OSError, RuntimeError) as error:  # what h5py raises for a file that is none, or damaged
        reason = " ".join(str(error).split())[:200]
        raise NetworkError(f"not a readable HDF5 file ({reason})") from error


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A named array of the ONNX graph, without its batch axis."""

    name: str
    channels: int
    spatial: tuple[int, ...]


class _Graph:
    """Collects the nodes of the ONNX graph, layer by layer."""

    def __init__(self, layers: list[Layer], weights: h5py.Group) -> None:
        self._layers = layers
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._tensors: dict[str, _Tensor] = {}
        self._channels_first = self._has_channels_first()
        self._norm_of = self._foldable()

    def onnx(self) -> bytes:
        """Build the file."""
        import onnx

        for layer in self._layers:
            self._tensors[layer.name] = self._add(layer)
        source = next(self._tensors[layer.name] for layer in self._layers if layer.kind == "InputLayer")
        result = self._tensors[self._layers[-1].name]
        self._node("Identity", (result.name,), "predictions")
        ends = [
            onnx.helper.make_tensor_value_info(
                name, onnx.TensorProto.FLOAT, ["N", tensor.channels, *tensor.spatial]
            )
            for name, tensor in (("input_1", source), ("predictions", result))
        ]
        graph = onnx.helper.make_graph(self._nodes, "network", ends[:1], ends[1:], self._constants)
        model = onnx.helper.make_model(
            graph,
            opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="fastseg",
        )
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise NetworkError(f"the converted network is not valid ({error!s:.200})") from error
        return cast(bytes, model.SerializeToString(deterministic=True))

    def _has_channels_first(self) -> bool:
        found = {layer.config.get("data_format") or "channels_last" for layer in self._layers
                 if layer.config.get("data_format") or "kernel_size" in layer.config}  # fmt: skip
        if len(found) > 1 or not found <= {"channels_first", "channels_last"}:
            raise NetworkError("its layers mix channels first and channels last: it cannot be converted")
        return found == {"channels_first"}

    def _foldable(self) -> dict[str, Layer]:
        """Find the batch norms that can be folded: alone behind a convolution without activation."""
        by_name = {layer.name: layer for layer in self._layers}
        users: dict[str, int] = {}
        for layer in self._layers:
            for source in layer.inputs:
                users[source] = users.get(source, 0) + 1
        return {
            before.name: layer
            for layer in self._layers
            if layer.kind == "BatchNormalization"
            and (before := by_name[layer.inputs[0]]).kind.startswith(("Conv2D", "Conv3D"))
            and before.config.get("activation", "linear") == "linear"
            and users[before.name] == 1
        }

    def _add(self, layer: Layer) -> _Tensor:
        if layer.kind == "InputLayer":
            return self._input(layer)
        sources = [self._tensors[name] for name in layer.inputs]
        if layer.kind == "Concatenate":
            return self._concatenate(layer, sources)
        (source,) = sources
        match layer.kind:
            case "Conv2D" | "Conv3D":
                return self._convolution(layer, source)
            case "Conv2DTranspose" | "Conv3DTranspose":
                return self._transposed(layer, source)
            case "BatchNormalization":
                return self._batch_norm(layer, source)
            case "Activation":
                return self._activation(layer, source)
            case "MaxPooling2D" | "MaxPooling3D":
                return self._max_pooling(layer, source)
            case "UpSampling2D" | "UpSampling3D":
                return self._upsampling(layer, source)
            case "Dropout" | "SpatialDropout2D" | "SpatialDropout3D":
                return source
            case "Lambda":
                return self._lambda(layer, source)
        raise layer.error("is of a kind that is not known here")

    def _input(self, layer: Layer) -> _Tensor:
        shape = layer.config["batch_input_shape"]
        if not isinstance(shape, list) or len(shape) not in (4, 5):
            raise layer.error(f"has the shape {shape}")
        if not all(type(n) is int and 1 <= n <= 4096 for n in shape[1:]):
            raise layer.error(f"has no fixed size: {shape}")
        channels, spatial = (shape[1], shape[2:]) if self._channels_first else (shape[-1], shape[1:-1])
        return _Tensor("input_1", channels, tuple(spatial))

    def _convolution(self, layer: Layer, source: _Tensor) -> _Tensor:
        rank = self._rank(layer, source)
        size, strides = layer.sizes("kernel_size", rank), layer.sizes("strides", rank, 1)
        dilations = layer.sizes("dilation_rate", rank, 1)
        layer.refuse_unless("groups", 1, None)
        reach = tuple((k - 1) * d + 1 for k, d in zip(size, dilations, strict=True))
        spatial, pads = self._window(layer, source, reach, strides)
        filters = layer.sizes("filters", 1)[0]
        kernel, bias = self._kernel(layer, (*size, source.channels, filters), filters, -1)
        return self._emit(
            layer, "Conv", source, [kernel, bias], _Tensor(layer.name, filters, spatial),
            kernel_shape=size, strides=strides, dilations=dilations, pads=pads,
        )  # fmt: skip

    def _transposed(self, layer: Layer, source: _Tensor) -> _Tensor:
        rank = self._rank(layer, source)
        size, strides = layer.sizes("kernel_size", rank), layer.sizes("strides", rank, 1)
        if set(layer.sizes("dilation_rate", rank, 1)) != {1}:
            raise layer.error("is dilated")
        layer.refuse_unless("output_padding", None)
        layer.refuse_unless("padding", "valid", "same")
        # Keras gives in * stride, and for "valid" the overhang of the last window besides.
        overhang = [k - s for k, s in zip(size, strides, strict=True)]
        cut = [max(o, 0) if layer.config.get("padding") == "same" else 0 for o in overhang]
        spatial = tuple(
            n * s + max(o, 0) - c for n, s, o, c in zip(source.spatial, strides, overhang, cut, strict=True)
        )
        filters = layer.sizes("filters", 1)[0]
        kernel, bias = self._kernel(layer, (*size, filters, source.channels), filters, -2)
        return self._emit(
            layer, "ConvTranspose", source, [kernel, bias], _Tensor(layer.name, filters, spatial),
            kernel_shape=size, strides=strides, output_padding=[max(-o, 0) for o in overhang],
            pads=[c // 2 for c in cut] + [c - c // 2 for c in cut],
        )  # fmt: skip

    def _kernel(
        self, layer: Layer, shape: tuple[int, ...], filters: int, out_axis: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Read kernel and bias, with the batch norm behind them folded in, in ONNX's order of axes."""
        kernel = read_weight(self._weights, layer, "kernel", shape)
        bias = np.zeros(filters)
        if layer.config.get("use_bias", True):
            bias = read_weight(self._weights, layer, "bias", (filters,))
        if layer.name in self._norm_of:
            scale, shift = self._scale_and_shift(self._norm_of[layer.name], filters)
            bias = bias * scale + shift
            kernel = kernel * (scale if out_axis == -1 else scale[:, None])
        # Both Keras orders end in the two channel axes, and ONNX has them first and swapped.
        return np.moveaxis(kernel, (-1, -2), (0, 1)), bias

    def _batch_norm(self, layer: Layer, source: _Tensor) -> _Tensor:
        self._check_channel_axis(layer, source, layer.config.get("axis", -1))
        if self._norm_of.get(layer.inputs[0]) is layer:
            return source
        scale, shift = self._scale_and_shift(layer, source.channels)
        shape = (1, -1, *[1] * len(source.spatial))
        scaled = f"{layer.name}:scaled"
        self._node("Mul", (source.name, self._constant(scale.reshape(shape))), scaled)
        self._node("Add", (scaled, self._constant(shift.reshape(shape))), layer.name)
        return _Tensor(layer.name, source.channels, source.spatial)

    def _scale_and_shift(self, norm: Layer, channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        epsilon = norm.config.get("epsilon", 1e-3)
        if not isinstance(epsilon, float) or not 0 <= epsilon < 1:
            raise norm.error(f"has epsilon {epsilon!r}")
        mean = read_weight(self._weights, norm, "moving_mean", (channels,))
        variance = read_weight(self._weights, norm, "moving_variance", (channels,))
        if not (variance + epsilon > 0).all():
            raise norm.error("has a variance that is not positive")
        scale = 1 / np.sqrt(variance + epsilon)
        if norm.config.get("scale", True):
            scale = scale * read_weight(self._weights, norm, "gamma", (channels,))
        shift = -mean * scale
        if norm.config.get("center", True):
            shift = shift + read_weight(self._weights, norm, "beta", (channels,))
        return scale, shift

    def _activation(self, layer: Layer, source: _Tensor) -> _Tensor:
        return self._activate(layer, source, layer.name)

    def _max_pooling(self, layer: Layer, source: _Tensor) -> _Tensor:
        rank = self._rank(layer, source)
        size = layer.sizes("pool_size", rank, 2)
        strides = layer.sizes("strides", rank) if layer.config.get("strides") else size
        spatial, pads = self._window(layer, source, size, strides)
        self._node("MaxPool", (source.name,), layer.name, kernel_shape=size, strides=strides, pads=pads)
        return _Tensor(layer.name, source.channels, spatial)

    def _upsampling(self, layer: Layer, source: _Tensor) -> _Tensor:
        factors = layer.sizes("size", self._rank(layer, source), 2)
        layer.refuse_unless("interpolation", "nearest")
        scales = self._constant(np.array([1, 1, *factors]))
        self._node(
            "Resize", (source.name, "", scales), layer.name,
            mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        spatial = tuple(n * f for n, f in zip(source.spatial, factors, strict=True))
        return _Tensor(layer.name, source.channels, spatial)

    def _concatenate(self, layer: Layer, sources: Sequence[_Tensor]) -> _Tensor:
        if len({source.spatial for source in sources}) != 1:
            raise layer.error("joins arrays of different sizes")
        self._check_channel_axis(layer, sources[0], layer.config.get("axis", -1))
        self._node("Concat", tuple(source.name for source in sources), layer.name, axis=1)
        return _Tensor(layer.name, sum(source.channels for source in sources), sources[0].spatial)

    def _lambda(self, layer: Layer, source: _Tensor) -> _Tensor:
        """Pass through SCT's temperature, a division of the logits by the value in its closure.

        Its code is marshalled bytes of Python 2, which are never looked at. A temperature of 1 divides by
        nothing; any other function, or value, is refused.
        """
        function = layer.config.get("function")
        if not isinstance(function, list) or function[1:] != [None, [1.0]] or layer.config.get("arguments"):
            raise layer.error("is not a temperature of 1")
        return source

    def _rank(self, layer: Layer, source: _Tensor) -> int:
        rank = 3 if "3D" in layer.kind else 2
        if rank != len(source.spatial):
            raise layer.error(f"follows an array of {len(source.spatial)} axes")
        return rank

    def _check_channel_axis(self, layer: Layer, source: _Tensor, axis: object) -> None:
        last = len(source.spatial) + 1
        axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
        if axis not in ((1, -last) if self._channels_first else (last, -1)):
            raise layer.error(f"works along axis {axis!r}, which is not the channels")

    def _window(
        self, layer: Layer, source: _Tensor, reach: tuple[int, ...], strides: tuple[int, ...]
    ) -> tuple[tuple[int, ...], list[int]]:
        """Output size and padding of a sliding window; "same" pads more at the end, as Keras does."""
        layer.refuse_unless("padding", "valid", "same")
        sizes = list(zip(source.spatial, reach, strides, strict=True))
        if layer.config.get("padding", "valid") == "same":
            spatial = tuple(math.ceil(n / s) for n, _, s in sizes)
            pads = [max((o - 1) * s + r - n, 0) for o, (n, r, s) in zip(spatial, sizes, strict=True)]
        else:
            spatial = tuple((n - r) // s + 1 for n, r, s in sizes)
            pads = [0] * len(sizes)
        if min(spatial) < 1:
            raise layer.error("is larger than its input")
        return spatial, [p // 2 for p in pads] + [p - p // 2 for p in pads]

    def _emit(
        self, layer: Layer, operator: str, source: _Tensor, weights: Sequence[NDArray[np.float64]],
        result: _Tensor, **attributes: object,
    ) -> _Tensor:  # fmt: skip
        raw = f"{layer.name}:raw"
        self._node(operator, (source.name, *map(self._constant, weights)), raw, **attributes)
        return self._activate(layer, _Tensor(raw, result.channels, result.spatial), result.name)

    def _activate(self, layer: Layer, source: _Tensor, name: str) -> _Tensor:
        kind = layer.config.get("activation", "linear")
        if kind == "linear":
            return source
        if kind not in ("relu", "sigmoid"):
            raise layer.error(f"has the activation {kind!r}")
        self._node("Relu" if kind == "relu" else "Sigmoid", (source.name,), name)
        return _Tensor(name, source.channels, source.spatial)

    def _constant(self, values: NDArray[np.generic]) -> str:
        import onnx

        name = f"weights_{len(self._constants)}"
        self._constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
        return name

    def _node(self, operator: str, inputs: Sequence[str], output: str, **attributes: object) -> None:
        import onnx

        self._nodes.append(onnx.helper.make_node(operator, list(inputs), [output], **attributes))
