"""Compare with an installation of the Spinal Cord Toolbox, through its command line only.

    SCT_DIR=/path/to/sct python -m benchmarks.sct [VOLUME:CONTRAST]... [--out FILE]

Where neither SCT_DIR nor the PATH leads to sct_deepseg_sc, this says so and ends well. The networks are SCT's
own: they are imported once from $SCT_DIR/data. For each volume and detector, `sct_deepseg_sc`,
`fastseg deepseg-sc` with the same arguments and `fastseg run` take turns as whole processes. The first turn
is `cold`: each fastseg command compiles its kernels; for SCT it is the first start on this volume. The `warm`
line holds minimum and median of the others. Dice is between SCT's mask and the one of that line. SCT 7.x
sleeps three seconds at every start of this command: that is in its wall-clock times, not in its CPU times.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.inputs import DATA, VOLUMES, Inputs
from benchmarks.process import ProcessUse, measure
from benchmarks.runner import machine

_PROGRAM = "sct_deepseg_sc"
_FASTSEG = [sys.executable, "-m", "fastseg"]


def find_sct() -> Path | None:
    """Find the program in $SCT_DIR/bin, in SCT_DIR itself, or on the PATH."""
    root = os.environ.get("SCT_DIR")
    folders = [Path(root) / "bin", Path(root)] if root else []
    for folder in folders:
        if os.access(folder / _PROGRAM, os.X_OK) and (folder / _PROGRAM).is_file():
            return folder / _PROGRAM
    found = shutil.which(_PROGRAM)
    return Path(found) if found else None


def find_data(program: Path) -> Path | None:
    """Find the folder with SCT's networks: `data` in $SCT_DIR, or near the program."""
    roots = [Path(os.environ["SCT_DIR"])] if os.environ.get("SCT_DIR") else []
    roots += [program.resolve().parent.parent, program.resolve().parent]
    return next((root / "data" for root in roots if (root / "data").is_dir()), None)


def compare(
    program: Path,
    image: Path,
    contrast: str,
    detector: str,
    *,
    turns: int,
    cold: bool,
    timeout: float,
    work: Path,
) -> Iterator[dict[str, object]]:
    """Run all three on a volume, in turns.

    Parameters
    ----------
    turns : how often each of them runs
    cold : whether the first turn starts without compiled kernels
    timeout : seconds for one process
    work : folder with the pack ``sct`` in ``packs``; masks are written below it
    """
    brain = ["-brain", "0"] if detector == "cnn" else []
    same = ["-i", str(image), "-c", contrast, "-centerline", detector, *brain, "-o", "mask.nii.gz"]
    out = {name: work / name.replace(" ", "-") for name in (_PROGRAM, "fastseg deepseg-sc", "fastseg run")}
    commands = {
        _PROGRAM: [str(program), *same],
        "fastseg deepseg-sc": [*_FASTSEG, "deepseg-sc", *same, "--models", "sct"],
        "fastseg run": [*_FASTSEG, "run", str(image), "-c", contrast, "--centerline", detector],
    }
    for name in (_PROGRAM, "fastseg deepseg-sc"):
        commands[name] += ["-ofolder", str(out[name])]
    commands["fastseg run"] += [
        "--models",
        "sct",
        "--overwrite",
        "-o",
        str(out["fastseg run"] / "mask.nii.gz"),
    ]
    environments: dict[str, dict[str, str]] = {}
    for name in commands:
        environments[name] = os.environ | {"FASTSEG_PACKS": str(work / "packs")}
        if cold:  # a cache of its own for each command, so that each one compiles
            environments[name]["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="kernels-", dir=work)
    uses: dict[str, list[ProcessUse]] = {name: [] for name in commands}
    for folder in out.values():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for _ in range(turns):
        for name, command in commands.items():
            if not uses[name] or uses[name][-1].code == 0:  # what failed once is not tried again
                uses[name].append(
                    measure(command, environment=environments[name], folder=work, timeout=timeout)
                )
    case = f"{image.name}, {contrast}, {detector}"
    theirs = uses[_PROGRAM]
    for name, every in uses.items():
        line: dict[str, object] = {"case": case, "contender": name}
        failed = next((use for use in every if use.code), None)
        if failed:
            last = (failed.output.strip().splitlines() or [""])[-1]
            yield {**line, "failed": failed.code, "message": last}
            continue
        likeness = _dice(out[_PROGRAM] / "mask.nii.gz", out[name] / "mask.nii.gz")
        first = 1 if cold else 0
        for state, some, reference in (
            ("cold", every[:first], theirs[:first]),
            ("warm", every[first:], theirs[first:]),
        ):
            if some:
                yield {**line, "state": state, **_numbers(some, reference), **likeness}


def _numbers(uses: list[ProcessUse], reference: list[ProcessUse]) -> dict[str, object]:
    cpu, wall = [use.cpu_seconds for use in uses], [use.wall_seconds for use in uses]
    numbers: dict[str, object] = {
        "repetitions": len(uses),
        "cpu_seconds_min": round(min(cpu), 3),
        "cpu_seconds_median": round(statistics.median(cpu), 3),
        "wall_seconds_min": round(min(wall), 3),
        "wall_seconds_median": round(statistics.median(wall), 3),
        "rss_mb_peak": max(use.peak_bytes for use in uses) // 1_000_000,
    }
    if reference and all(use.code == 0 for use in reference):
        theirs = statistics.median(use.cpu_seconds for use in reference)
        numbers["sct_cpu_over_this"] = round(theirs / max(statistics.median(cpu), 1e-3), 2)
    return numbers


def _dice(a: Path, b: Path) -> dict[str, object]:
    from fastseg.comparison import compare_files
    from fastseg.errors import InputError

    try:
        difference = compare_files(a, b)
    except InputError as error:
        return {"dice": None, "message": str(error)}
    return {"dice": round(difference.dice, 6), "differing_voxels": difference.differing}


def _import_networks(program: Path, work: Path) -> str:
    """Import SCT's networks as a user does; gives what went wrong."""
    data = find_data(program)
    if data is None:
        return "no folder with SCT's networks: set SCT_DIR to the installation"
    command = [*_FASTSEG, "models", "import", "--sct", str(data), "--name", "sct"]
    environment = os.environ | {"FASTSEG_PACKS": str(work / "packs")}
    use = measure(command, environment=environment, folder=work)
    return "" if use.code == 0 else f"the networks in {data} cannot be imported:\n{use.output}"


def _volumes(given: list[str], inputs: Inputs) -> Iterator[tuple[Path, str]]:
    for text in given:
        path, _, contrast = text.rpartition(":")
        if contrast not in ("t1", "t2", "t2s", "dwi") or not Path(path).is_file():
            raise SystemExit(f"{text}: give FILE:CONTRAST, the contrast being t1, t2, t2s or dwi")
        yield Path(path).resolve(), contrast
    for name in () if given else VOLUMES:
        yield inputs.volume(name)[0], VOLUMES[name].contrast


def main() -> None:
    """Compare on every volume, and write JSON lines."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sct", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "volumes", nargs="*", metavar="VOLUME:CONTRAST", help="default: those of the benchmarks"
    )
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder with real volumes; without it, phantoms"
    )
    parser.add_argument("--detector", action="append", choices=["svm", "cnn"], help="default: svm")
    parser.add_argument("--turns", type=int, default=4, help="the first is cold (default: 4)")
    parser.add_argument("--warm-only", action="store_true", help="no cold turn: kernels are compiled already")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one process")
    parser.add_argument("--out", type=Path, help="file for the JSON lines, default: standard output")
    options = parser.parse_args()
    program = find_sct()
    if program is None:
        print(f"no {_PROGRAM} in SCT_DIR or on the PATH: there is nothing to compare with")
        return
    with tempfile.TemporaryDirectory(prefix="fastseg-sct-") as folder:
        work = Path(folder)
        problem = _import_networks(program, work)
        if problem:
            raise SystemExit(problem)
        lines: list[dict[str, object]] = [{**machine(), "benchmark": "benchmarks.sct", "sct": str(program)}]
        if options.out is None:
            print(json.dumps(lines[0]), flush=True)
        for image, contrast in _volumes(options.volumes, Inputs(options.data, work)):
            for detector in options.detector or ["svm"]:
                for line in compare(
                    program,
                    image,
                    contrast,
                    detector,
                    turns=options.turns,
                    cold=not options.warm_only,
                    timeout=options.timeout,
                    work=work,
                ):
                    lines.append(line)
                    if options.out is None:
                        print(json.dumps(line), flush=True)
        if options.out is not None:
            options.out.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
