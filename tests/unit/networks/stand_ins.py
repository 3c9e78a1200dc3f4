"""Small files that look like SCT's from outside, a folder of them, and a pack as our own are."""

import hashlib
from pathlib import Path

import numpy as np
import onnx

from fastseg.networks.network import Network, Role, SvmModel
from fastseg.networks.pack_toml import pack_toml
from fastseg.networks.packs import Origin, Pack

CONTRASTS = ("t1", "t2", "t2s", "dwi")


def onnx_file(shape, *, scale=1.0, batch="N", blind=False):
    """One multiplication and a sigmoid; the shape is without batch axis. A blind one answers 0 to all."""
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, *shape])
        for name in ("input_1", "predictions")
    ]
    factor = onnx.numpy_helper.from_array(np.array(0.0 if blind else scale, np.float32), "factor")
    nodes = [
        onnx.helper.make_node("Mul", ["input_1", "factor"], ["scaled"]),
        onnx.helper.make_node("Identity" if blind else "Sigmoid", ["scaled"], ["predictions"]),
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


def own_pack(folder, *, blind=False, svm=True, contrasts=("t2", "auto"), roles=None, **facts):
    """Lay out a pack of our own kind: a network for every role but SCT's detector, or for some, and SVMs.

    Segmenters answer 0.5 to black and 1 to everything else; the detector sees cord everywhere, or, blind,
    nowhere. Facts of the pack can be given.
    """
    folder.mkdir(parents=True)
    shapes = {
        Role.DETECT_SLICES: ("x", "y"),
        Role.SEGMENT_2D: (64, 64),
        Role.SEGMENT_2D_LIGHT: (64, 64),
        Role.SEGMENT_3D: (64, 64, "z"),
    }
    networks = []
    for i, (role, shape) in enumerate(shapes.items()):
        if roles and role not in roles:
            continue
        path = folder / f"{role}.onnx"
        path.write_bytes(onnx_file((1, *shape), scale=1 + i, blind=blind and role is Role.DETECT_SLICES))
        spatial = tuple(n if isinstance(n, int) else 0 for n in shape)
        thresholds = {c: 0.6 + i / 100 for i, c in enumerate(contrasts)}
        networks.append(
            Network(path, sha256(path), role, contrasts, spatial, False, 0.0, 1.0, thresholds, folder.name)
        )
    models = []
    for i, contrast in enumerate(contrasts if svm else ()):
        path = folder / f"{contrast}_svm.npy"
        np.save(path, svm_values(i))
        models.append(SvmModel(path, sha256(path), contrast, folder.name))
    origins = {item.path.name: Origin("made by a test", "MIT") for item in (*networks, *models)}
    known = {"version": "1", "licence": "MIT", "source": "made by a test", "origins": origins}
    pack = Pack(
        folder.name, Path(folder), networks=tuple(networks), svm_models=tuple(models), **known | facts
    )
    (folder / "pack.toml").write_text(pack_toml(pack))
    return folder


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


HEAD = 'format = 1\nversion = "1"\nlicence = "MIT"\nsource = "made by a test"\n'


def make_pack(folder, *, head=HEAD, network=None, svm=None):
    """A pack with a 2D segmenter for t2 and an SVM for t1; entries can be overridden, None drops one."""
    folder.mkdir(parents=True)
    (folder / "net.onnx").write_bytes(onnx_file((64, 64, 1)))
    np.save(folder / "svm.npy", svm_values())
    entry = {
        "file": '"net.onnx"',
        "sha256": f'"{sha256(folder / "net.onnx")}"',
        "role": '"segment_2d"',
        "contrasts": '["t2"]',
        "spatial": "[64, 64]",
        "layout": '"NHWC"',
        "mean": "0",
        "std": "1.0",
        "thresholds": "{ t2 = 0.7 }",
    } | (network or {})
    other = {
        "file": '"svm.npy"',
        "sha256": f'"{sha256(folder / "svm.npy")}"',
        "contrast": '"t1"',
    } | (svm or {})
    text = head
    for title, values in (("network", entry), ("svm", other)):
        text += f"\n[[{title}]]\n" + "".join(f"{k} = {v}\n" for k, v in values.items() if v is not None)
    (folder / "pack.toml").write_text(text)
    return folder


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    return message
