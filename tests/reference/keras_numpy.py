"""Keras 2 files made and run with numpy: the slow twin of fastseg.networks.keras.

`evaluate` knows nothing of ONNX: it walks the model_config, in float64 and channels-last, tap by tap.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np


class KerasFile:
    """Collects layers with random weights and writes them as Keras 2.0.6 does."""

    def __init__(self, shape, *, channels_first=False, seed=0):
        self.data_format = "channels_first" if channels_first else "channels_last"
        self.rng = np.random.default_rng(seed)
        self.layers, self.weights, self.channels = [], {}, {}
        self.rank = len(shape) - 1
        channels = shape[0] if channels_first else shape[-1]
        self.add("InputLayer", [], channels, name="input_1", batch_input_shape=[None, *shape])

    def add(self, kind, inputs, channels, name=None, weights=None, **config):
        name = name or f"{kind.lower()}_{len(self.layers)}"
        self.layers.append(
            {
                "class_name": kind,
                "name": name,
                "config": {"name": name, **config},
                "inbound_nodes": [[[source, 0, 0, {}] for source in inputs]] if inputs else [],
            }
        )
        self.channels[name] = channels
        self.weights[name] = weights or {}
        return name

    def conv(self, source, filters, size=3, *, transposed=False, **config):
        kind = f"Conv{self.rank}D" + ("Transpose" if transposed else "")
        sizes = [size] * self.rank if isinstance(size, int) else list(size)
        ends = (filters, self.channels[source]) if transposed else (self.channels[source], filters)
        scale = np.sqrt(2 / (np.prod(sizes) * self.channels[source]))
        weights = {
            "kernel": self.rng.normal(0, scale, (*sizes, *ends)),
            "bias": self.rng.normal(0, 0.2, filters),
        }
        settings = {
            "kernel_size": sizes,
            "filters": filters,
            "strides": [1] * self.rank,
            "padding": "same",
            "activation": "linear",
            "use_bias": True,
            "data_format": self.data_format,
            **config,
        }
        if settings["use_bias"] is False:
            del weights["bias"]
        return self.add(kind, [source], filters, weights=weights, **settings)

    def batch_norm(self, source, **config):
        n = self.channels[source]
        weights = {
            "gamma": self.rng.uniform(0.5, 1.5, n),
            "beta": self.rng.normal(0, 0.3, n),
            "moving_mean": self.rng.normal(0, 0.3, n),
            "moving_variance": self.rng.uniform(0.3, 2, n),
        }
        settings = {
            "axis": 1 if self.data_format == "channels_first" else -1,
            "epsilon": 1e-3,
            "scale": True,
            "center": True,
            **config,
        }
        if not settings["scale"]:
            del weights["gamma"]
        if not settings["center"]:
            del weights["beta"]
        return self.add("BatchNormalization", [source], n, weights=weights, **settings)

    def activation(self, source, kind):
        return self.add("Activation", [source], self.channels[source], activation=kind)

    def pool(self, source, **config):
        settings = {"pool_size": [2] * self.rank, "strides": [2] * self.rank, "padding": "valid"} | config
        kind = f"MaxPooling{self.rank}D"
        return self.add(kind, [source], self.channels[source], data_format=self.data_format, **settings)

    def upsample(self, source):
        kind, n = f"UpSampling{self.rank}D", self.channels[source]
        return self.add(kind, [source], n, size=[2] * self.rank, data_format=self.data_format)

    def concatenate(self, *sources):
        axis = 1 if self.data_format == "channels_first" else -1
        return self.add("Concatenate", list(sources), sum(self.channels[s] for s in sources), axis=axis)

    def dropout(self, source):
        return self.add("Dropout", [source], self.channels[source], rate=0.4)

    def temperature(self, source, value=1.0):
        function = ["c\u0001 marshalled code that nobody reads", None, [value]]
        return self.add("Lambda", [source], self.channels[source], function=function, arguments={})

    def write(self, path):
        config = {
            "class_name": "Model",
            "config": {
                "name": "model_1",
                "layers": self.layers,
                "input_layers": [["input_1", 0, 0]],
                "output_layers": [[self.layers[-1]["config"]["name"], 0, 0]],
            },
        }
        with h5py.File(path, "w") as file:
            file.attrs["keras_version"] = "2.0.6"
            file.attrs["model_config"] = json.dumps(config)
            for layer, weights in self.weights.items():
                group = file.create_group(f"model_weights/{layer}")
                names = [f"{layer}/{name}:0".encode() for name in weights]
                group.attrs["weight_names"] = np.array(names) if names else np.zeros(0)
                for name, values in weights.items():
                    group[f"{layer}/{name}:0"] = np.asarray(values, np.float32)
        return Path(path)


def unet_2d(shape=(16, 16, 1), *, base=3, norm=True, seed=0):
    """A small network built like SCT's 2D ones: dilated, normalised, transposed convolutions."""
    net = KerasFile(shape, seed=seed)

    def block(source, filters, dilation=1):
        source = net.conv(source, filters, dilation_rate=[dilation] * 2)
        source = net.batch_norm(source) if norm else source
        return net.dropout(net.activation(source, "relu"))

    skips, x = [], "input_1"
    for level in range(2):
        x = block(block(x, base << level), base << level, 2)
        skips.append(x)
        x = net.pool(x)
    x = block(block(x, base * 4, 2), base * 4, 4)
    for level in (1, 0):
        x = net.conv(x, base << level, 2, transposed=True, strides=[2, 2], padding="valid")
        x = block(net.concatenate(x, skips[level]), base << level)
    x = net.temperature(net.conv(x, 1, 1, padding="valid"))
    net.activation(x, "sigmoid")
    return net


def unet_3d(shape=(1, 8, 8, 8), *, base=2, seed=0):
    """A small network built like SCT's 3D ones: channels first, nearest upsampling, batch norm on axis 1."""
    net = KerasFile(shape, channels_first=True, seed=seed)

    def block(source, filters):
        return net.activation(net.batch_norm(net.conv(source, filters)), "relu")

    skip = block(block("input_1", base), base * 2)
    x = block(block(net.pool(skip), base * 2), base * 4)
    x = net.concatenate(net.upsample(x), skip)
    x = block(block(x, base * 2), base * 2)
    net.activation(net.conv(x, 1, 1), "sigmoid")
    return net


def evaluate(path, batch):
    """Run a Keras file on a batch in the file's own layout; float64."""
    with h5py.File(path, "r") as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        weights = {
            layer: {
                name.decode().rsplit("/", 1)[-1][:-2]: np.asarray(group[name.decode()], np.float64)
                for name in group.attrs["weight_names"]
            }
            for layer, group in file["model_weights"].items()
        }
    first = any(layer["config"].get("data_format") == "channels_first" for layer in layers)
    values = np.asarray(batch, np.float64)
    values = np.moveaxis(values, 1, -1) if first else values
    done = {}
    for layer in layers:
        name, config = layer["config"]["name"], layer["config"]
        sources = [done[source[0]] for node in layer["inbound_nodes"] for source in node]
        done[name] = _run(layer["class_name"], config, weights[name], sources or [values])
    result = done[name]
    return np.moveaxis(result, -1, 1) if first else result


def _run(kind, config, weights, sources):
    x = sources[0]
    if kind.endswith("Transpose"):
        x = _transposed(x, weights["kernel"], config) + weights.get("bias", 0)
    elif kind.startswith("Conv"):
        x = _convolve(x, weights["kernel"], config) + weights.get("bias", 0)
    elif kind == "BatchNormalization":
        x = (x - weights["moving_mean"]) / np.sqrt(weights["moving_variance"] + config["epsilon"])
        x = x * weights.get("gamma", 1) + weights.get("beta", 0)
    elif kind.startswith("MaxPooling"):
        x = _pool(x, config)
    elif kind.startswith("UpSampling"):
        for axis, factor in enumerate(config["size"], start=1):
            x = np.repeat(x, factor, axis)
    elif kind == "Concatenate":
        x = np.concatenate(sources, -1)
    activation = config.get("activation")
    if activation == "relu":
        x = np.maximum(x, 0)
    elif activation == "sigmoid":
        x = 1 / (1 + np.exp(-x))
    return x


def _padded(x, reach, strides, same, fill):
    pads = []
    for n, r, s in zip(x.shape[1:-1], reach, strides, strict=True):
        total = max((-(-n // s) - 1) * s + r - n, 0) if same else 0
        pads.append((total // 2, total - total // 2))
    x = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=fill)
    sizes = [(n - r) // s + 1 for n, r, s in zip(x.shape[1:-1], reach, strides, strict=True)]
    return x, sizes


def _taken(x, start, sizes, strides):
    window = tuple(slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(start, sizes, strides, strict=True))
    return x[(slice(None), *window)]


def _convolve(x, kernel, config):
    size, strides = kernel.shape[:-2], config["strides"]
    dilation = config.get("dilation_rate", [1] * len(size))
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    x, sizes = _padded(x, reach, strides, config["padding"] == "same", 0)
    taps = np.ndindex(*size)
    return sum(_taken(x, np.multiply(tap, dilation), sizes, strides) @ kernel[tap] for tap in taps)


def _pool(x, config):
    size, strides = config["pool_size"], config["strides"]
    x, sizes = _padded(x, size, strides, config["padding"] == "same", -np.inf)
    return np.max([_taken(x, tap, sizes, strides) for tap in np.ndindex(*size)], axis=0)


def _transposed(x, kernel, config):
    size, strides = kernel.shape[:-2], config["strides"]
    sizes = [n * s + max(k - s, 0) for n, s, k in zip(x.shape[1:-1], strides, size, strict=True)]
    result = np.zeros((len(x), *sizes, kernel.shape[-2]))
    for tap in np.ndindex(*size):
        window = tuple(slice(a, a + n * s, s) for a, n, s in zip(tap, x.shape[1:-1], strides, strict=True))
        result[(slice(None), *window)] += x @ kernel[tap].T
    if config["padding"] == "same":
        cuts = [max(k - s, 0) for k, s in zip(size, strides, strict=True)]
        inner = tuple(slice(c // 2, n - (c - c // 2)) for c, n in zip(cuts, sizes, strict=True))
        result = result[(slice(None), *inner)]
    return result
