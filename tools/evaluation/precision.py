"""What networks lose in other precisions and in other engines, on real volumes: `tools/precision`.

Two things are measured and written into pack.toml, and into benchmarks/results/precision:

* precisions, without the hardware: tf32, fp16 and bf16 as matrix units round (tools/evaluation/rounding.py),
  int8 with the file that TensorRT is given and the crops that it is calibrated on. A GPU's own figures are
  those of the second kind;
* engines that run here, against the reference engine in the same run: their own answers, and their speed with
  one thread. Records of other machines stay in pack.toml.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from fastseg.centerline_file import centerline_from_volume
from fastseg.crops import CropWindows
from fastseg.engines.acceptance import calibration_inputs
from fastseg.engines.onnxruntime_cpu import OnnxRuntimeCpu
from fastseg.engines.tensorrt.conversion import converted
from fastseg.errors import FastsegError
from fastseg.heatmap import HEAT_ZOOM
from fastseg.intensity import finite_slices, rescale_percentiles, standardise
from fastseg.networks.network import PRECISIONS, Acceptance, EngineRecord, Network, Precision, Role
from fastseg.networks.pack_toml import pack_toml
from fastseg.networks.packs import load_pack
from fastseg.resampling import as_slices, resample_in_plane, working_grid
from fastseg.slice_detection import padded_slices
from fastseg.volume import SCT_RPI, Volume
from tools.evaluation.engine_speed import contenders, speed
from tools.evaluation.rounding import rounded
from tools.evaluation.volumes import Case, default_data, load_case, read_list

__all__ = ["ACCEPTANCES", "compare", "inputs_of", "main", "table"]

_Batch = NDArray[np.float32]

_CHECKOUT = Path(__file__).resolve().parents[2]
_MOST_SLICES = 48  # of a block, and of a volume for the detector

# A mask may change by 1 pixel of 0.5 mm in 24 crops: 0.01 % of the area of a cord of 80 mm2, where the masks
# themselves are 2.5 % off (the pack's card). Of the detector's heat map only the peaks count, not the borders
# of the blobs, and these are small.
_SEGMENTER, _DETECTOR = Acceptance(10.0, 0.9999), Acceptance(10.0, 0.999)
#: What networks of a pack of ours may lose in an engine that is chosen for the user.
ACCEPTANCES = {
    Role.DETECT_BLOCKS: _DETECTOR,
    Role.DETECT_SLICES: _DETECTOR,
    Role.SEGMENT_2D: _SEGMENTER,
    Role.SEGMENT_2D_LIGHT: _SEGMENTER,
    Role.SEGMENT_3D: _SEGMENTER,
}


def compare(exact: Sequence[_Batch], other: Sequence[_Batch], thresholds: Sequence[float]) -> Precision:
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write pack.toml anew."""
    options = _parser().parse_args(arguments)
    if not options.data.is_dir():
        _parser().error(f"{options.data} is not a folder: name the one with the real volumes with --data")
    cases = [case for case in read_list().cases if case.counted]
    lines: list[dict[str, Any]] = []
    try:
        pack = load_pack(options.models)
        networks = []
        for network in pack.networks:
            chosen = not options.network or network.path.stem in options.network
            networks.append(_measured(network, cases, options, lines) if chosen else network)
        (options.models / "pack.toml").write_text(pack_toml(replace(pack, networks=tuple(networks))))
    except FastsegError as error:
        print(f"tools/precision: error: {error}", file=sys.stderr)
        return 2
    if options.results:
        options.results.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (options.results / f"{pack.name}.jsonl").write_text(text)
        (options.results / f"{pack.name}.md").write_text(table(lines))
    return 0


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown of what was measured.

    Parameters
    ----------
    lines : what the JSON lines hold
    """
    head = [
        "network",
        "precision or engine",
        "how",
        "max difference",
        "flipped of a million",
        "Dice",
        "speed",
    ]
    rows = [head, ["---"] * 3 + ["--:"] * 4]
    for line in lines:
        numbers = [f"{line[key]:.3g}" for key in ("max_difference", "flipped_per_million")]
        speed = f"{line['speed']:.2f}x" if "speed" in line else ""
        dice = f"{line['dice']:.5f}"
        rows.append([line["network"], line["name"], line["how"], *numbers, dice, speed])
    facts = lines[0]
    return (
        "# What networks lose in other precisions and engines\n\n"
        f"Against onnxruntime in fp32 on {facts['volumes']} real volumes (`tools/precision`, "
        f"{facts['date']}). Differences of probabilities, or of heat; pixels of crops, or of a heat map, "
        "that change sides of the contrast's threshold; Dice of the two masks. *Simulated*: rounded as "
        "matrix units do, no such hardware has run. Speed: times as fast as onnxruntime with one thread in "
        "the same run, by CPU seconds, for GPUs by the clock.\n\n"
        + "".join(f"| {' | '.join(row)} |\n" for row in rows)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/precision", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True, metavar="FOLDER", help="the pack")
    parser.add_argument(
        "--data", type=Path, default=default_data(_CHECKOUT), metavar="DIR", help="real volumes"
    )
    parser.add_argument("--network", action="append", metavar="NAME", help="this file only, without .onnx")
    parser.add_argument("--results", type=Path, metavar="DIR", help="tables go here, named by the pack")
    return parser


def _measured(
    network: Network, cases: Sequence[Case], options: argparse.Namespace, lines: list[dict[str, Any]]
) -> Network:
    """The network with its precisions and engines, each with its line."""
    inputs = [inputs_of(network, case, options.data) for case in cases]
    thresholds = [network.thresholds[case.contrast] for case in cases]
    common = {"volumes": len(cases), "date": date.today().isoformat(), "network": network.path.stem}

    def note(name: str, how: str, found: Precision | EngineRecord) -> None:
        lines.append({**common, "how": how, **asdict(found), "name": name})
        print(f"{network.path.stem} {name}: {found}", flush=True)

    with OnnxRuntimeCpu(network) as reference:
        exact = [*map(reference.infer, inputs)]
        precision = {}
        for name in PRECISIONS:
            answers = [*map(_session(_changed(network, name), network), inputs)]
            precision[name] = compare(exact, answers, thresholds)
            how = "quantised file" if name == "int8" else "simulated"
            note(name, how, precision[name])
        records = {(each.name, each.capability): each for each in network.engines}
        for contender in contenders(network):
            with contender.engine as engine:
                lost = compare(exact, [*map(engine.infer, inputs)], thresholds)
                times = speed(contender, reference, inputs)
            record = EngineRecord(
                contender.name, contender.capability, **asdict(lost), speed=float(f"{times:.3g}")
            )
            records[record.name, record.capability] = record
            note(record.name, f"ran, {record.capability}", record)
    accepted = network.acceptance or ACCEPTANCES[network.role]
    engines = tuple(records[key] for key in sorted(records))
    return replace(network, precision=precision, acceptance=accepted, engines=engines)


def _changed(network: Network, precision: str) -> onnx.ModelProto:
    """The network's file in a precision, as onnxruntime runs it."""
    content = network.path.read_bytes()
    if precision != "int8":
        return rounded(onnx.load_from_string(content), precision)
    return onnx.load_from_string(converted(content, precision, lambda: _calibration(network)))


def _calibration(network: Network) -> list[_Batch]:
    batches = calibration_inputs(network)
    return [np.moveaxis(each, 1, -1) if network.channels_last else each for each in batches]


def _session(model: onnx.ModelProto, network: Network) -> Callable[[_Batch], _Batch]:
    settings = onnxruntime.SessionOptions()
    # Optimisations would take casts there and back for nothing.
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, ["CPUExecutionProvider"])
    name, last = session.get_inputs()[0].name, network.channels_last

    def infer(batch: _Batch) -> _Batch:
        parts = []
        for k in range(len(batch)):  # one by one: some files take no more
            part = batch[k : k + 1]
            (answer,) = session.run(None, {name: np.moveaxis(part, 1, -1) if last else part})
            parts.append(np.moveaxis(answer, -1, 1) if last else answer)
        return np.concatenate(parts)

    return infer


def inputs_of(network: Network, case: Case, data: Path) -> _Batch:
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
    crops = standardise(crops, network.mean, network.std)
    if network.role is Role.SEGMENT_3D:
        deep = network.spatial[2] or _MOST_SLICES
        block = np.ascontiguousarray(crops[:deep].transpose(1, 2, 0)[None, None])
        short = network.spatial[2] - block.shape[-1]
        return np.pad(block, [(0, 0)] * 4 + [(0, max(short, 0))])
    return crops[:, None]


if __name__ == "__main__":
    sys.exit(main())
