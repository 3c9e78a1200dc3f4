"""ONNX files in an opset that older onnxruntimes read too."""

from __future__ import annotations

import numpy as np
import onnx

from fastseg.errors import NetworkError
from fastseg.networks.network import Network
from tools.export.trial import answer_to_noise

__all__ = ["OPSETS", "in_old_opset"]

#: Opsets of an export. SCT's own files are 11; the nodes that are added here mean the same in all three.
OPSETS = range(11, 14)

# Side of the input that two forms of a network are compared on, where it takes any.
_SIDE = 48

# Rounding, where a converted graph is optimised in another way.
_TOLERANCE = 1e-5


def in_old_opset(model: onnx.ModelProto, network: Network) -> onnx.ModelProto:
    """Bring a model into `OPSETS`, and see that it still gives what it gave.

    onnx's converter does not know the way back for every operator, not even for those that never changed
    their meaning. Where it fails, the model is taken for one of the newest opset here.

    Raises
    ------
    NetworkError
        The model has operators of vendors, or some that no opset here has, or gives something else.
    """
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    vendors = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if vendors:
        names = ", ".join(sorted(vendors))
        raise NetworkError(f"it has operators of {names}, which not every onnxruntime has")
    version = max(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if version in OPSETS:
        return model
    try:
        changed = onnx.version_converter.convert_version(model, OPSETS[-1])
    except RuntimeError:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        del changed.opset_import[:]
        changed.opset_import.append(onnx.helper.make_opsetid("", OPSETS[-1]))
    changed.ir_version = min(changed.ir_version, model.ir_version)
    try:
        onnx.checker.check_model(changed, full_check=True)
        difference = _difference(model, changed, network)
    except Exception as error:  # onnx and onnxruntime raise bare classes of their C++ sides
        reason = " ".join(str(error).split())[:200]
        raise NetworkError(
            f"it is opset {version} and cannot be brought to {OPSETS[-1]} ({reason})"
        ) from error
    if not difference <= _TOLERANCE:
        raise NetworkError(f"it is opset {version}, and gives something else when brought to {OPSETS[-1]}")
    return changed


def _difference(one: onnx.ModelProto, other: onnx.ModelProto, network: Network) -> float:
    """Largest difference of two models' answers to noise."""
    size = [n or _SIDE for n in network.spatial]
    answers = [answer_to_noise(model.SerializeToString(), network, size) for model in (one, other)]
    return float(np.abs(answers[0] - answers[1]).max())
