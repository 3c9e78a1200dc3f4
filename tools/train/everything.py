"""Train every network of the default pack and put the pack together: `tools/train/all`.

Two chains run side by side, one thread each: a network of this size gains little from a second core. What was
interrupted goes on where it was when the same command is given again.
"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.train.make import FULL_MINUTES, arguments
from tools.train.pack import assemble
from tools.train.pools import POOLS, ensure_pool
from tools.train.recipes import RECIPES

__all__ = ["main"]

#: What waits for what: each chain in its order.
CHAINS = (("segmenter_2d", "segmenter_3d"), ("detector", "segmenter_2d_light", "svm"))


def main() -> int:
    """Train everything that the folder does not hold yet."""
    parser = arguments(__doc__ or "")
    parser.set_defaults(threads=2)
    options = parser.parse_args()
    if options.minutes <= 0:
        parser.error("--minutes must be more than 0")
    started = time.perf_counter()
    share = options.minutes / FULL_MINUTES
    for kind in POOLS:
        ensure_pool(kind, options.work / "pools", options.seed, share, options.threads)
    common = [f"--work={options.work}", f"--seed={options.seed}", f"--minutes={options.minutes}"]
    common += [f"--device={options.device}", *(["--bf16"] if options.bf16 else [])]

    def chain(names: tuple[str, ...]) -> str:
        """Train one after the other; gives the name of the one that failed."""
        for name in names:
            if not _is_made(options.work, name) and not _train(name, common, options.work):
                return name
        return ""

    at_once = min(options.threads, len(CHAINS)) if options.device == "cpu" else 1
    with ThreadPoolExecutor(at_once) as pool:
        failed = [name for name in pool.map(chain, CHAINS) if name]
    if failed:
        logs = ", ".join(str(options.work / f"{name}.log") for name in failed)
        print(f"error: {', '.join(failed)} failed: see {logs}", file=sys.stderr)
        return 1
    pack = assemble(options.work, options.work / "pack", seed=options.seed)
    print(f"{pack} made in {(time.perf_counter() - started) / 60:.0f} minutes; look at it with")
    print(f"  tools/evaluate --models {pack}")
    return 0


def _is_made(work: Path, name: str) -> bool:
    if name == "svm":
        return (work / "svm" / "svm_auto.npy").is_file()  # the last one
    return (work / name / f"{RECIPES[name].name}.onnx").is_file()


def _train(name: str, common: list[str], work: Path) -> bool:
    command = [sys.executable, "-m", "tools.train.make", name, *common]
    with (work / f"{name}.log").open("a") as log:
        print(f"{name}: training, see {log.name}", flush=True)
        started = time.perf_counter()
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    print(f"{name}: {(time.perf_counter() - started) / 60:.1f} minutes", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
