"""Small files that look like SCT's from outside, and a folder of them."""

import hashlib

import numpy as np
import onnx

CONTRASTS = ("t1", "t2", "t2s", "dwi")


def onnx_file(shape, *, scale=1.0, batch="N"):
    """One multiplication and a sigmoid; the shape is without batch axis."""
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, *shape])
        for name in ("input_1", "predictions")
    ]
    factor = onnx.numpy_helper.from_array(np.array(scale, np.float32), "factor")
    nodes = [
        onnx.helper.make_node("Mul", ["input_1", "factor"], ["scaled"]),
        onnx.helper.make_node("Sigmoid", ["scaled"], ["predictions"]),
    ]
    graph = onnx.helper.make_graph(nodes, "stand-in", ends[:1], ends[1:], [factor])
    opsets = [onnx.helper.make_opsetid("", 11)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=6).SerializeToString()


def yaml_file(values, **settings):
    """What OpenCV writes for a HOGDescriptor."""
    hog = {
        "winSize": "[ 32, 32 ]",
        "blockSize": "[ 8, 8 ]",
        "nbins": "9",
        "L2HysThreshold": "2.0000000000000001e-01",
        "signedGradient": "1",
        **settings,
    }
    numbers = ",\n       ".join(v if isinstance(v, str) else f"{v:.8e}" for v in values)
    lines = "".join(f"   {key}: {value}\n" for key, value in hog.items())
    head = "%YAML:1.0\nHOG: !!opencv-object-detector-hog\n"
    return f"{head}{lines}   SVMDetector: [ {numbers} ]\nps0: 1.\nps1: 1.\n".encode()


def svm_values(seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, 577).astype(np.float32)


def sct_folder(folder, *, networks=True, svm=True):
    """Lay out an SCT data folder with stand-ins for all of its ONNX and YAML files."""
    models, optic = folder / "deepseg_sc_models", folder / "optic_models"
    if networks:
        models.mkdir(parents=True)
        for i, c in enumerate(CONTRASTS):
            (models / f"{c}_ctr.onnx").write_bytes(onnx_file((80, 80, 1), scale=1 + i))
            (models / f"{c}_sc.onnx").write_bytes(onnx_file((64, 64, 1), scale=2 + i))
            if c != "dwi":
                xy = 96 if c == "t2s" else 64
                (models / f"{c}_sc_3D.onnx").write_bytes(onnx_file((1, xy, xy, 48), scale=3 + i, batch=1))
    if svm:
        optic.mkdir(parents=True)
        for i, c in enumerate(CONTRASTS):
            (optic / f"{c}_model.yml").write_bytes(yaml_file(svm_values(i)))
    return folder


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
