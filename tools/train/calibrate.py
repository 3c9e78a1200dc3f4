"""Choose the thresholds of a pack's segmentation networks on real volumes: `tools/train/calibrate`.

Networks see synthetic images only; what a person calls cord is learned here, as one number for each contrast
and network. `tools/evaluate --leave-one-out` says how good thresholds are on people who did not choose them.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from fastseg.errors import FastsegError
from fastseg.networks.network import ANY_CONTRAST, CONTRASTS, Network, Role
from fastseg.networks.pack_toml import pack_toml
from fastseg.networks.packs import load_pack
from tools.evaluation.calibration import Score, choose, scores
from tools.evaluation.runs import Result, Run, evaluate
from tools.evaluation.volumes import Case, default_data, load_case, read_list

__all__ = ["KERNELS", "averaged", "main"]

#: Kernel of the command line, by role.
KERNELS = {Role.SEGMENT_2D: "2d", Role.SEGMENT_2D_LIGHT: "2d-light", Role.SEGMENT_3D: "3d"}

_SWEEP = tuple(round(float(t), 2) for t in np.arange(0.15, 0.86, 0.05))


def averaged(by_contrast: Mapping[str, Sequence[Score]]) -> list[Score]:
    """Average the scores of contrasts, threshold by threshold, for volumes whose contrast is not given."""
    columns = list(zip(*by_contrast.values(), strict=True))
    return [
        Score(
            column[0].threshold,
            math.fsum(score.dice for score in column) / len(column),
            min(score.worst for score in column),
            math.fsum(score.area_bias_percent for score in column) / len(column),
            sum(score.missed for score in column),
        )
        for column in columns
    ]


def main() -> int:
    """Calibrate a pack, and write its pack.toml anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, metavar="FOLDER", help="the pack")
    parser.add_argument("--data", type=Path, metavar="DIR", help="real volumes  [../shared/data]")
    parser.add_argument(
        "--kernel",
        action="append",
        choices=list(KERNELS.values()),
        help="calibrate this network only; may be repeated",
    )
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    data = options.data or default_data(Path(__file__).resolve().parents[2])
    if not data.is_dir():
        parser.error(f"{data} is not a folder: name the one with the real volumes with --data")
    cases = [case for case in read_list().cases if case.counted]
    kernels = options.kernel or list(KERNELS.values())
    try:
        pack = load_pack(options.models)
        networks = tuple(
            _calibrated(network, options, cases, data) if KERNELS.get(network.role) in kernels else network
            for network in pack.networks
        )
        (options.models / "pack.toml").write_text(pack_toml(replace(pack, networks=networks)))
    except FastsegError as error:
        parser.error(str(error))
    return 0


def _calibrated(network: Network, options: argparse.Namespace, cases: Sequence[Case], data: Path) -> Network:
    run = Run(
        models=str(options.models),
        kernel=KERNELS[network.role],
        centerline="auto",  # as users run it
        threads=options.threads,
    )
    sweep: dict[float, list[Result]] = {
        t: list(evaluate(cases, run.at(t), lambda case: load_case(case, data))) for t in _SWEEP
    }
    by_contrast = {contrast: scores(sweep, contrast) for contrast in CONTRASTS}
    by_contrast = {contrast: found for contrast, found in by_contrast.items() if found}
    thresholds = dict(network.thresholds)
    for contrast, found in {**by_contrast, ANY_CONTRAST: averaged(by_contrast)}.items():
        thresholds[contrast] = choose(found)
        chosen = next(score for score in found if score.threshold == thresholds[contrast])
        print(
            f"{network.path.stem} {contrast}: threshold {chosen.threshold:.2f}, Dice {chosen.dice:.3f}, "
            f"worst {chosen.worst:.3f}, area {chosen.area_bias_percent:+.1f} %",
            flush=True,
        )
    return replace(network, thresholds=cast(Mapping[str, float], thresholds))


if __name__ == "__main__":
    sys.exit(main())
