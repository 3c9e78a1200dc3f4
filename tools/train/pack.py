"""Puts trained networks together as a pack: `tools/train/pack`."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from pathlib import Path

from fastseg.networks.network import ANY_CONTRAST, CONTRASTS, Network, Role, SvmModel
from fastseg.networks.pack_toml import pack_toml
from fastseg.networks.packs import Origin, Pack, load_pack, verify_pack
from tools.train.make import SVM_CONTRASTS
from tools.train.recipes import RECIPES, Recipe

__all__ = ["assemble", "main"]

LICENCE = "MIT"

_EVERY = (*CONTRASTS, ANY_CONTRAST)
_SOURCE = "fastseg: trained by tools/train/all on synthetic images only"
# Before calibration on real volumes.
_THRESHOLDS = {Role.DETECT_SLICES: 0.55}
_MIDDLE = 0.5


def assemble(work: Path, target: Path, *, seed: int, version: str = "1.0") -> Path:
    """Make a pack of what a training left in its folder.

    Parameters
    ----------
    work : folder of a training
    target : the pack's folder; files of a pack that is there are replaced, its thresholds are kept
    seed : for the record

    Returns
    -------
    folder : the pack, its files checked
    """
    target.mkdir(parents=True, exist_ok=True)
    before = load_pack(target) if (target / "pack.toml").is_file() else None
    networks = [_network(recipe, work, target, before) for recipe in RECIPES.values()]
    machines = [_svm(contrast, work, target) for contrast in SVM_CONTRASTS]
    source = f"{_SOURCE}, seed {seed}"
    pack = Pack(
        name=target.name,
        folder=target,
        version=version,
        licence=LICENCE,
        source=source,
        networks=tuple(networks),
        svm_models=tuple(machines),
        origins={item.path.name: Origin(source, LICENCE) for item in (*networks, *machines)},
        centerline="cnn",
    )
    (target / "pack.toml").write_text(pack_toml(pack))
    problems = [f"{check.file}: {check.problem}" for check in verify_pack(load_pack(target)) if check.problem]
    if problems:
        raise ValueError("; ".join(problems))
    return target


def _network(recipe: Recipe, work: Path, target: Path, before: Pack | None) -> Network:
    path = target / f"{recipe.name}.onnx"
    shutil.copyfile(work / recipe.name / path.name, path)
    content = path.read_bytes()
    default = _THRESHOLDS.get(recipe.role, _MIDDLE)
    thresholds = dict.fromkeys(_EVERY, default)
    for network in before.networks if before else ():
        if network.role is recipe.role:
            thresholds |= network.thresholds
    return Network(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        role=recipe.role,
        contrasts=_EVERY,
        spatial=recipe.spatial,
        channels_last=False,
        mean=0.0,
        std=1.0,
        thresholds=thresholds,
        pack=target.name,
        macs_millions=round(recipe.macs() / 1e6, 1),
    )


def _svm(contrast: str, work: Path, target: Path) -> SvmModel:
    path = target / f"svm_{contrast}.npy"
    shutil.copyfile(work / "svm" / path.name, path)
    return SvmModel(path, hashlib.sha256(path.read_bytes()).hexdigest(), contrast, target.name)


def main() -> int:
    """Make a pack of a finished training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder of the training")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the pack")
    parser.add_argument("--seed", type=int, default=1, help="of the training, for the record")
    options = parser.parse_args()
    try:
        print(f"{assemble(options.work, options.out, seed=options.seed)} made")
    except FileNotFoundError as error:
        parser.error(f"{error.filename} is missing: finish the training in {options.work} first")
    return 0


if __name__ == "__main__":
    sys.exit(main())
