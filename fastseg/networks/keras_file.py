"""What a Keras 2 HDF5 file holds: its layers and their weights, read without trusting it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastseg.errors import NetworkError

if TYPE_CHECKING:
    import h5py

__all__ = ["Layer", "read_layers", "read_weight"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the model: its name, kind, settings, and the layers it takes."""

    name: str
    kind: str
    config: Mapping[str, object]
    inputs: tuple[str, ...]

    def error(self, problem: str) -> NetworkError:
        """Make the error for this layer."""
        return NetworkError(f"layer {self.name!r} ({self.kind}) {problem}: it cannot be converted")

    def sizes(self, key: str, rank: int, default: int | None = None) -> tuple[int, ...]:
        """Read a setting that is one number, or one for each axis."""
        value = self.config.get(key, default)
        values = [value] * rank if isinstance(value, int) else value
        if not isinstance(values, list) or len(values) != rank:
            raise self.error(f"has no {key} for {rank} axes")
        if not all(type(n) is int and 1 <= n <= 4096 for n in values):
            raise self.error(f"has {key} {values}")
        return tuple(values)

    def refuse_unless(self, key: str, *allowed: object) -> None:
        """Refuse a setting that is there and not one of these."""
        if (value := self.config.get(key, allowed[0])) not in allowed:
            raise self.error(f"has {key} {value!r}")


def read_layers(config: object) -> list[Layer]:
    """Read model_config (JSON): a functional model with one input, one output and no shared layers.

    Raises
    ------
    NetworkError
        It is another kind of model.
    KeyError, TypeError, ValueError, IndexError
        It is not what Keras writes.
    """
    model = json.loads(config if isinstance(config, str | bytes) else str(config))
    if model["class_name"] not in ("Model", "Functional"):
        raise NetworkError(
            f"a Keras {model['class_name']!s:.40} cannot be converted, only a functional model"
        )
    layers: list[Layer] = []
    for item in model["config"]["layers"]:
        nodes = item["inbound_nodes"]
        layer = Layer(
            str(item["config"]["name"]),
            str(item["class_name"]),
            dict(item["config"]),
            tuple(str(source[0]) for source in (nodes[0] if nodes else [])),
        )
        if len(nodes) > 1 or any(source[1:3] != [0, 0] for node in nodes for source in node):
            raise layer.error("is used more than once")
        if any(layer.name == other.name for other in layers):
            raise layer.error("has the name of another layer")
        layers.append(layer)
    ends = [str(end[0]) for end in model["config"]["output_layers"]]
    if not layers or ends != [layers[-1].name] or sum(layer.kind == "InputLayer" for layer in layers) != 1:
        raise NetworkError("a Keras model without exactly one input, and one output at its end")
    return layers


def read_weight(weights: h5py.Group, layer: Layer, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Read one array of a layer, from this very file only, once its shape is known to fit.

    Raises
    ------
    NetworkError
        It is missing, linked from elsewhere, of another shape or type, or not finite.
    """
    import h5py

    group = _child(weights, layer.name, layer)
    names = [n.decode() if isinstance(n, bytes) else str(n) for n in group.attrs["weight_names"]]
    paths = [path for path in names if path.rsplit("/", 1)[-1].split(":")[0] == name]
    if len(paths) != 1:
        raise layer.error(f"has no {name} in the file")
    node = group
    for part in paths[0].split("/"):
        node = _child(node, part, layer)
    if not isinstance(node, h5py.Dataset) or node.is_virtual or node.external:
        raise layer.error(f"has a {name} that lies outside the file")
    if node.shape != shape or node.dtype.kind != "f":
        raise layer.error(f"has a {name} of shape {node.shape} where {shape} was expected")
    values = np.asarray(node[()], np.float64)
    if not np.isfinite(values).all():
        raise layer.error(f"has a {name} that is not finite")
    return values


def _child(group: h5py.HLObject, name: str, layer: Layer) -> h5py.HLObject:
    """Open a member of a group, unless a link leads out of the file."""
    import h5py

    if not isinstance(group, h5py.Group) or not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise layer.error(f"has no {name!r} in the file itself")
    return group[name]
