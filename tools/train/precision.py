"""What networks lose in fp16, bf16 and int8, on real volumes: `tools/train/precision`, into pack.toml.

fp16 and bf16 are simulated as matrix units compute: inputs and weights of every convolution rounded, products
summed in fp32, results rounded. int8 is onnxruntime's own: one scale a channel for weights, one a tensor for
activations, chosen on synthetic crops. No GPU is needed, and none is asked: its own figures are those of the
acceptance test that runs when an engine is built.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from fastseg.centerline_file import centerline_from_volume
from fastseg.crops import CropWindows
from fastseg.errors import FastsegError
from fastseg.heatmap import HEAT_ZOOM
from fastseg.intensity import finite_slices, rescale_percentiles
from fastseg.networks.network import Network, Precision, Role
from fastseg.networks.pack_toml import pack_toml
from fastseg.networks.packs import load_pack
from fastseg.resampling import as_slices, resample_in_plane, working_grid
from fastseg.slice_detection import padded_slices
from fastseg.volume import SCT_RPI, Volume
from tools.evaluation.volumes import Case, default_data, load_case, read_list
from tools.train.batches import crop_batches, whole_batches
from tools.train.synthesis.samples import draw_samples

__all__ = ["compare", "main", "rounded", "to_int8"]

_Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]
_FLOATS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_LAYERS = ("Conv", "ConvTranspose")
_MOST_SLICES = 48  # of a block, and of a volume for the detector


def rounded(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """Round what goes into and comes out of every convolution to fp16 or bf16."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    nodes = list(out.graph.node)
    del out.graph.node[:]

    def cast_there_and_back(name: str, serial: str) -> str:
        half, whole = f"{name}_{serial}_half", f"{name}_{serial}_whole"
        out.graph.node.append(helper.make_node("Cast", [name], [half], to=_FLOATS[precision]))
        out.graph.node.append(helper.make_node("Cast", [half], [whole], to=TensorProto.FLOAT))
        return whole

    for k, node in enumerate(nodes):
        if node.op_type not in _LAYERS:
            out.graph.node.append(node)
            continue
        for i in range(2):
            node.input[i] = cast_there_and_back(node.input[i], str(k))
        result, node.output[0] = node.output[0], f"{node.output[0]}_exact"
        out.graph.node.append(node)
        half = f"{result}_half"
        out.graph.node.append(helper.make_node("Cast", [node.output[0]], [half], to=_FLOATS[precision]))
        out.graph.node.append(helper.make_node("Cast", [half], [result], to=TensorProto.FLOAT))
    return out


def to_int8(model: onnx.ModelProto, batches: Sequence[NDArray[np.float32]]) -> onnx.ModelProto:
    """Quantise the convolutions, with scales chosen on some batches."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    name = model.graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[NDArray[np.float32]] = iter(batches)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self.left, None)
            return None if batch is None else {name: batch}

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_LAYERS),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )
        return onnx.load(target)


def compare(
    exact: Sequence[NDArray[np.float32]], other: Sequence[NDArray[np.float32]], thresholds: Sequence[float]
) -> Precision:
    """Compare answers, one array a volume, each with its threshold.

    Examples
    --------
    >>> exact, other = np.array([0.4, 0.6, 0.9, 0.1], "f4"), np.array([0.4, 0.4, 0.9, 0.1], "f4")
    >>> found = compare([exact], [other], [0.5])
    >>> round(found.max_difference, 3), found.flipped_per_million, round(found.dice, 3)
    (0.2, 250000.0, 0.667)
    """
    largest, flipped, voxels, both, total = 0.0, 0, 0, 0, 0
    for a, b, threshold in zip(exact, other, thresholds, strict=True):
        largest = max(largest, float(abs(a - b).max()))
        mine, theirs = a > threshold, b > threshold
        flipped += int((mine != theirs).sum())
        both += int((mine & theirs).sum())
        total += int(mine.sum() + theirs.sum())
        voxels += a.size
    return Precision(
        float(f"{largest:.3g}"),
        float(f"{1e6 * flipped / voxels:.3g}"),
        round(2 * both / total, 5) if total else 1.0,
    )


def main() -> int:
    """Measure, print, and write pack.toml anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, metavar="FOLDER", help="the pack")
    parser.add_argument("--data", type=Path, metavar="DIR", help="real volumes  [../shared/data]")
    options = parser.parse_args()
    data = options.data or default_data(Path(__file__).resolve().parents[2])
    if not data.is_dir():
        parser.error(f"{data} is not a folder: name the one with the real volumes with --data")
    cases = [case for case in read_list().cases if case.counted]
    try:
        pack = load_pack(options.models)
        networks = tuple(replace(n, precision=_measured(n, cases, data)) for n in pack.networks)
        (options.models / "pack.toml").write_text(pack_toml(replace(pack, networks=networks)))
    except FastsegError as error:
        parser.error(str(error))
    return 0


def _measured(network: Network, cases: Sequence[Case], data: Path) -> dict[str, Precision]:
    model = onnx.load(network.path)
    inputs = [_inputs(network, case, data) for case in cases]
    thresholds = [network.thresholds[case.contrast] for case in cases]
    exact = [*map(_session(model), inputs)]
    found = {}
    for precision in ("fp16", "bf16", "int8"):
        eight_bits = precision == "int8"
        changed = to_int8(model, _calibration(network)) if eight_bits else rounded(model, precision)
        found[precision] = compare(exact, [*map(_session(changed), inputs)], thresholds)
        print(f"{network.path.stem} {precision}: {found[precision]}", flush=True)
    return found


def _session(model: onnx.ModelProto) -> _Predict:
    settings = onnxruntime.SessionOptions()
    # Optimisations would take casts there and back for nothing.
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def _inputs(network: Network, case: Case, data: Path) -> NDArray[np.float32]:
    """What the network sees of a volume, with the centerline of the reference."""
    image, reference = load_case(case, data)
    native = image.reoriented(SCT_RPI)
    slices = finite_slices(as_slices(native))
    if network.role is Role.DETECT_SLICES:
        every = np.ascontiguousarray(slices[:: -(-len(slices) // _MOST_SLICES)])
        return padded_slices(resample_in_plane(every, working_grid(native.grid, HEAT_ZOOM)), network)[0]
    mask = Volume(np.asarray(reference.voxels, np.uint8), reference.grid).reoriented(SCT_RPI)
    line = centerline_from_volume(mask, native.grid, working_grid(native.grid))
    windows = CropWindows.around(line, network.spatial[0])
    crops, _ = rescale_percentiles(windows.extract(slices), zero_slices=0)
    if network.role is Role.SEGMENT_3D:
        return np.ascontiguousarray(crops[:_MOST_SLICES].transpose(1, 2, 0)[None, None])
    return crops[:, None]


def _calibration(network: Network) -> list[NDArray[np.float32]]:
    """Synthetic inputs, of another seed than training's."""
    if network.role is Role.DETECT_SLICES:
        make = whole_batches(draw_samples(128, 99, whole=True, threads=2), 16, 99)
        return [make(k).inputs for k in range(8)]
    make = crop_batches(draw_samples(256, 99, threads=2), 16, 99)
    crops = [make(k).inputs for k in range(16)]
    if network.role is Role.SEGMENT_3D:
        return [np.ascontiguousarray(c.transpose(1, 2, 3, 0)[None]) for c in crops]
    return crops


if __name__ == "__main__":
    sys.exit(main())
