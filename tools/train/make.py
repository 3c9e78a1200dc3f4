"""Train one network of the pack, from its samples to its ONNX file: `python -m tools.train.make NAME`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from tools.train.export import to_onnx
from tools.train.loop import Plan, plot_curve, train
from tools.train.networks import Segmenter3d, count_macs
from tools.train.pools import ensure_pool, read_pool, split
from tools.train.recipes import RECIPES, Recipe
from tools.train.svm import train_svm

__all__ = ["FULL_MINUTES", "SVM_CONTRASTS", "make_network", "make_svms"]

#: Minutes that everything takes at full length on two cores of a server of 2021 (AMD EPYC, Zen 3).
FULL_MINUTES = 35.0

#: Contrasts that get an SVM; auto is for volumes whose contrast was not given.
SVM_CONTRASTS = ("t1", "t2", "t2s", "dwi", "auto")


def make_network(
    recipe: Recipe, work: Path, *, seed: int, share: float, device: str, bf16: bool, threads: int
) -> Path:
    """Train a network and write it as ONNX.

    Parameters
    ----------
    recipe : what to train
    work : folder for pools, checkpoints, curves and networks; an interrupted training goes on from there
    seed : of samples and weights
    share : of full length, in samples and steps
    device, bf16 : where and how to compute
    threads : cores to use

    Returns
    -------
    path : of the ONNX file
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    pools = work / "pools"
    ensure_pool(recipe.pool, pools, seed, share, threads)
    mine, others = split(read_pool(recipe.pool, pools), held_back := _held_back(recipe, pools))
    network = recipe.build()
    folder = work / recipe.name
    if recipe.starts_from:
        weights = torch.load(work / recipe.starts_from / "network.pt", weights_only=True)
        assert isinstance(network, Segmenter3d)
        network.plane.load_state_dict(weights)
    macs = count_macs(network, recipe.shape) / 1e6
    print(f"{recipe.name}: {macs:.1f} million multiply-adds for {recipe.shape[1:]}", flush=True)
    validate = recipe.batches(others, recipe.size, seed + 1)
    network = train(
        network,
        recipe.batches(mine, recipe.size, seed),
        [validate(k) for k in range(max(held_back // recipe.size, 1))],
        Plan(max(int(recipe.steps * share), 20), rate=recipe.rate, device=device, bf16=bf16),
        folder,
        loss=recipe.loss,
        score=recipe.score,
        say=lambda text: print(text, flush=True),
    )
    network.cpu()
    torch.save(network.state_dict(), folder / "network.pt")
    plot_curve(folder / "curve.csv", folder / "curve.png")
    path = folder / f"{recipe.name}.onnx"
    path.write_bytes(to_onnx(network, (recipe.inputs, recipe.outputs), recipe.shape, recipe.free))
    return path


def make_svms(work: Path, *, seed: int, share: float, threads: int) -> list[Path]:
    """Train the SVM of every contrast."""
    ensure_pool("whole", work / "pools", seed, share, threads)
    samples = read_pool("whole", work / "pools")
    folder = work / "svm"
    folder.mkdir(exist_ok=True)
    paths = []
    for contrast in SVM_CONTRASTS:
        paths.append(folder / f"svm_{contrast}.npy")
        np.save(paths[-1], train_svm(samples, contrast, seed, slices=max(int(2500 * share), 50)))
    return paths


def _held_back(recipe: Recipe, pools: Path) -> int:
    n = len(read_pool(recipe.pool, pools).kinds)
    return min(max(n // 20, recipe.size), 512 if recipe.pool != "blocks" else 64)


def arguments(description: str) -> argparse.ArgumentParser:
    """Options that every training command has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for all that is made")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--minutes",
        type=float,
        default=FULL_MINUTES,
        help="length of training everything on two cores; the numbers of samples and steps follow from it, "
        "so that results do not depend on the machine's speed  [%(default)s]",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--bf16", action="store_true", help="faster on a GPU, and on a CPU with AMX")
    parser.add_argument("--threads", type=int, default=1, help="cores to use  [%(default)s]")
    return parser


def main() -> int:
    """Train what the command line names."""
    parser = arguments(__doc__ or "")
    parser.add_argument("name", choices=[*RECIPES, "svm"])
    options = parser.parse_args()
    if options.minutes <= 0:
        parser.error("--minutes must be more than 0")
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch sees no GPU; leave it out to train on the CPU")
    share = options.minutes / FULL_MINUTES
    if options.name == "svm":
        options.work.mkdir(parents=True, exist_ok=True)
        make_svms(options.work, seed=options.seed, share=share, threads=options.threads)
        return 0
    recipe = RECIPES[options.name]
    if recipe.starts_from and not (options.work / recipe.starts_from / "network.pt").is_file():
        parser.error(
            f"{options.name} starts from {recipe.starts_from}: train that first, into the same --work"
        )
    options.work.mkdir(parents=True, exist_ok=True)
    path = make_network(
        recipe,
        options.work,
        seed=options.seed,
        share=share,
        device=options.device,
        bf16=options.bf16,
        threads=options.threads,
    )
    print(f"{path} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
