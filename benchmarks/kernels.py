"""Time kernels against what they replace, on one thread.

    python benchmarks/kernels.py [--data DIR] [--case NAME]... [--repetitions N] [--out FILE]

Every case runs in a process of its own. Its contenders do the same work on the same input and take turns
(A B A B), so that the machine's noise meets all of them; the first turn of each is dropped. Output are JSON
lines: one about the machine, then one for each contender with minimum and median of wall-clock and CPU
seconds, million voxels per CPU second, the process's peak memory, and `ratio`: its median CPU time over
that of the case's first contender, which is fastseg's own.

A case is a function in `CASES` that takes the data folder and returns a `Case`. Where the folder is absent,
phantoms of the same size stand in for volumes and random numbers for detectors.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LUMBAR = "sub-tutlumbar/anat/sub-tutlumbar_T2w.nii.gz"
FEWEST_REPETITIONS = 7


@dataclass(frozen=True, slots=True)
class Case:
    """Work on `n_voxels` voxels that several contenders do, fastseg first.

    Parameters
    ----------
    facts : further numbers that the case reports, such as differences between the contenders' results
    """

    n_voxels: int
    contenders: dict[str, Callable[[], object]]
    facts: dict[str, object] = field(default_factory=dict)


def scores_t2(data: Path) -> Case:
    """HOG and support vector machine on the t2 volume of sct_testing (52 x 60 x 55, 1 mm)."""
    return _scores(*_las(data / "sct_testing/t2/t2.nii.gz", (52, 60, 55)), _detector(data))


def scores_lumbar(data: Path) -> Case:
    """HOG and support vector machine on a lumbar volume (38 x 257 x 201, 1 mm)."""
    return _scores(*_las(data / LUMBAR, (38, 257, 201)), _detector(data))


def curve_noise(_: Path) -> Case:
    """Curve through noise, 320 x 320 x 60 at 0.5 x 0.5 x 1 mm."""
    heat = np.random.default_rng(0).normal(size=(60, 320, 320)).astype(np.float32)
    return _curve(heat, (0.5, 0.5, 1.0))


def curve_cord(_: Path) -> Case:
    """Curve through the score map of a winding cord, 320 x 320 x 60 at 0.5 x 0.5 x 1 mm."""
    return _curve(_winding_cord(), (0.5, 0.5, 1.0))


def curve_cord_thick(_: Path) -> Case:
    """Curve through the same map with slices of 7.5 mm, where long steps are cheap."""
    return _curve(_winding_cord(), (0.5, 0.5, 7.5))


def centerline_half_mm(data: Path) -> Case:
    """Whole OptiC on the lumbar volume, repeated to 76 x 514 x 201 at 0.5 x 0.5 x 1 mm."""
    from fastseg.optic import optic_centerline

    voxels, _ = _las(data / LUMBAR, (38, 257, 201))
    voxels = voxels.repeat(2, axis=0).repeat(2, axis=1)
    detector = _detector(data)
    return Case(voxels.size, {"fastseg": lambda: optic_centerline(voxels, (0.5, 0.5, 1.0), detector)})


def centerline_large(_: Path) -> Case:
    """Whole OptiC on a phantom of 320 x 320 x 64 at 0.5 x 0.5 x 1 mm."""
    from fastseg.optic import optic_centerline

    voxels = np.asfortranarray(_phantom((320, 320, 64)))
    detector = _random_detector()
    return Case(voxels.size, {"fastseg": lambda: optic_centerline(voxels, (0.5, 0.5, 1.0), detector)})


CASES: dict[str, Callable[[Path], Case]] = {
    "scores-t2": scores_t2,
    "scores-lumbar": scores_lumbar,
    "curve-noise": curve_noise,
    "curve-cord": curve_cord,
    "curve-cord-thick": curve_cord_thick,
    "centerline-half-mm": centerline_half_mm,
    "centerline-large": centerline_large,
}


def _scores(voxels: NDArray[np.float32], origin: str, detector: NDArray[np.float32]) -> Case:
    """Images are made beforehand: neither side is timed on grey values or resampling."""
    from fastseg.kernels.hog import score_pixels
    from fastseg.kernels.optic_resize import to_uint8
    from fastseg.optic import prepare_uint16

    slices = np.ascontiguousarray(prepare_uint16(voxels).transpose(2, 0, 1))
    images = np.empty(slices.shape, np.uint8)
    for slice_, image in zip(slices, images, strict=True):
        to_uint8(slice_, image)
    opencv_images = np.ascontiguousarray(images.transpose(0, 2, 1))
    scores = np.empty(images.shape, np.float32)

    def fastseg() -> NDArray[np.float32]:
        for image, out in zip(images, scores, strict=True):
            score_pixels(image, detector, out)
        return scores

    def dense_numpy() -> NDArray[np.float32]:
        return np.array([_dense_numpy_scores(image, detector) for image in images])

    contenders: dict[str, Callable[[], object]] = {"fastseg": fastseg}
    facts: dict[str, object] = {
        "input": origin,
        "largest_difference_to_numpy": float(abs(fastseg() - dense_numpy()).max()),
    }
    try:
        import cv2
    except ImportError:
        facts["missing"] = "cv2: install fastseg[benchmark]"
    else:
        cv2.setNumThreads(1)
        hog = cv2.HOGDescriptor((32, 32), (8, 8), (8, 8), (4, 4), 9, 1, 2.0, 0, 0.2, True, 64, True)
        hog.setSVMDetector(detector)

        def opencv() -> list[NDArray[np.float64]]:
            # All windows, from 16 pixels before the image on.
            return [
                hog.detect(image, hitThreshold=-1e9, winStride=(1, 1), padding=(16, 16))[1]
                for image in opencv_images
            ]

        found = [s.reshape(images.shape[2] + 1, -1)[:-1, :-1].T for s in opencv()]
        facts["largest_difference_to_opencv"] = float(abs(fastseg() - found).max())
        contenders["opencv"] = opencv
    contenders["numpy"] = dense_numpy
    return Case(images.size, contenders, facts)


def _dense_numpy_scores(image: NDArray[np.uint8], detector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Score a slice with whole-slice numpy operations in float32."""
    padded = np.pad(np.sqrt(image.astype(np.float32)), 17, "reflect")
    dx = padded[2:, 1:-1] - padded[:-2, 1:-1]
    dy = padded[1:-1, 2:] - padded[1:-1, :-2]
    turn = np.arctan2(dy, dx) * np.float32(9 / (2 * np.pi)) - np.float32(0.5)
    distance = abs(turn - np.arange(9, dtype=np.float32)[:, None, None]) % 9
    votes = np.hypot(dx, dy) * np.maximum(0, 1 - np.minimum(distance, 9 - distance))
    cells = np.array([[5, 7, 7, 5, 3, 1, 0, 0], [0, 0, 1, 3, 5, 7, 7, 5]]) / 8
    cells = (cells * np.exp(-((np.arange(8) - 4.0) ** 2) / 8)).astype(np.float32)
    n_x, n_y = votes.shape[1] - 7, votes.shape[2] - 7
    votes = sum(cells[:, j, None, None, None] * votes[None, :, :, j : j + n_y] for j in range(8))
    blocks = sum(cells[:, i, None, None, None, None] * votes[None, :, :, i : i + n_x] for i in range(8))
    blocks = blocks.reshape(36, n_x, n_y)
    blocks = np.minimum(blocks / (np.sqrt((blocks**2).sum(0)) + np.float32(3.6)), np.float32(0.2))
    blocks /= np.sqrt((blocks**2).sum(0)) + np.float32(1e-3)
    scores = np.full(image.shape, detector[576])
    for bx, by in np.ndindex(4, 4):
        block = blocks[:, 8 * bx : 8 * bx + image.shape[0], 8 * by : 8 * by + image.shape[1]]
        scores += np.einsum("c,cxy->xy", detector[(4 * bx + by) * 36 :][:36], block)
    return scores


def _curve(heat: NDArray[np.float32], zooms: tuple[float, float, float]) -> Case:
    """Dynamic programming as it is, and with the lower envelope for all lines."""
    from fastseg.kernels import optic
    from fastseg.optic import trace_curve

    ordinary = optic.ENVELOPE_RADIUS

    def envelope() -> NDArray[np.int32]:
        optic.ENVELOPE_RADIUS = 0
        try:
            return trace_curve(heat, zooms)
        finally:
            optic.ENVELOPE_RADIUS = ordinary

    def fastseg() -> NDArray[np.int32]:
        return trace_curve(heat, zooms)

    same = bool(np.array_equal(fastseg(), envelope()))
    return Case(heat.size, {"fastseg": fastseg, "envelope": envelope}, {"same_path": same})


def _winding_cord() -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    z, x, y = np.ogrid[:60, :320, :320]
    distance = (x - 160 - 10 * np.sin(z / 20)) ** 2 + (y - 150 - z / 6) ** 2
    noise = rng.normal(0, 0.1, (60, 320, 320))
    return (1.5 * np.exp(-distance / 200) - 1 + noise).astype(np.float32)


def _las(path: Path, shape: tuple[int, int, int]) -> tuple[NDArray[np.float32], str]:
    """Voxels of a volume in SCT's axis order, or of a phantom, and which of them."""
    if not path.is_file():
        return _phantom(shape), "phantom"
    import nibabel
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    image = nibabel.load(path)
    image = image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(("L", "A", "S"))))
    return np.ascontiguousarray(image.get_fdata(dtype=np.float32)), path.name


def _phantom(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Bright cord in a noisy body."""
    rng = np.random.default_rng(2)
    x, y, z = np.ogrid[: shape[0], : shape[1], : shape[2]]
    distance = (x - shape[0] / 2) ** 2 + (y - shape[1] / 2 - 5 * np.sin(z / 20)) ** 2
    return (300 * np.exp(-distance / 60) + rng.normal(200, 30, shape)).astype(np.float32)


def _detector(data: Path) -> NDArray[np.float32]:
    path = data / "sct_optic_models" / "t2_model.yml"
    if not path.is_file():
        return _random_detector()
    numbers = re.search(r"SVMDetector: \[(.*?)\]", path.read_text(), re.DOTALL)
    assert numbers is not None, path
    return np.array(numbers[1].split(","), np.float32)


def _random_detector() -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(0, 0.05, 577).astype(np.float32)


def run(name: str, data: Path, repetitions: int) -> list[dict[str, object]]:
    """Time one case in this process."""
    case = CASES[name](data)
    wall: dict[str, list[float]] = {contender: [] for contender in case.contenders}
    cpu: dict[str, list[float]] = {contender: [] for contender in case.contenders}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(repetitions + 1):
        for contender, work in case.contenders.items():
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            work()
            cpu[contender].append(time.process_time() - cpu_start)
            wall[contender].append(time.perf_counter() - wall_start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    own = statistics.median(next(iter(cpu.values()))[1:])
    return [
        {
            "case": name,
            "contender": contender,
            "voxels": case.n_voxels,
            "repetitions": repetitions,
            "cpu_seconds_min": round(min(cpu[contender][1:]), 5),
            "cpu_seconds_median": round(statistics.median(cpu[contender][1:]), 5),
            "wall_seconds_min": round(min(wall[contender][1:]), 5),
            "wall_seconds_median": round(statistics.median(wall[contender][1:]), 5),
            "mvx_per_second": round(case.n_voxels / statistics.median(cpu[contender][1:]) / 1e6, 2),
            "ratio": round(statistics.median(cpu[contender][1:]) / own, 2),
            "rss_mb_before": before // 1024,
            "rss_mb_peak": peak // 1024,
            **case.facts,
        }
        for contender in case.contenders
    ]


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    versions = {}
    for package in ("numpy", "numba", "opencv-python-headless"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return {
        "machine": model[1] if model else platform.processor(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **versions,
    }


def main() -> None:
    """Run the cases, one process each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with real volumes")
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--repetitions", type=int, default=FEWEST_REPETITIONS)
    parser.add_argument("--out", type=Path, help="file for the JSON lines, default: standard output")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.repetitions < FEWEST_REPETITIONS:
        parser.error(f"--repetitions must be at least {FEWEST_REPETITIONS}")
    if options.in_this_process:
        for line in run(options.case[0], options.data, options.repetitions):
            print(json.dumps(line))
        return
    lines = [json.dumps(machine())]
    for name in options.case or CASES:
        command = [sys.executable, __file__, "--in-this-process", "--case", name, "--data", str(options.data)]
        command += ["--repetitions", str(options.repetitions)]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        finished = subprocess.run(command, env=one_thread, stdout=subprocess.PIPE, text=True, check=True)
        lines += finished.stdout.splitlines()
    text = "\n".join(lines) + "\n"
    if options.out is None:
        print(text, end="")
    else:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
