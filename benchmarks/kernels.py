"""Time kernels against what they replace, on one thread.

    python -m benchmarks.kernels [--data DIR] [--case NAME]... [--repetitions N] [--out FILE]

A case is a function in `CASES`; see `benchmarks.runner`. What it is compared with does the same work on the
same input, and how far the results differ is among its facts.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.inputs import Inputs, random_detector
from benchmarks.runner import Case, Target, main


def scores_t2(inputs: Inputs) -> Case:
    """HOG and support vector machine on the t2 volume of sct_testing (52 x 60 x 55, 1 mm)."""
    return _scores("HOG + SVM, t2", *inputs.slices("t2"), inputs.detector())


def scores_lumbar(inputs: Inputs) -> Case:
    """HOG and support vector machine on a lumbar volume (38 x 257 x 201, 1 mm)."""
    return _scores("HOG + SVM, lumbar", *inputs.slices("lumbar"), inputs.detector())


def curve_noise(_: Inputs) -> Case:
    """Curve through noise, 320 x 320 x 60 at 0.5 x 0.5 x 1 mm."""
    heat = np.random.default_rng(0).normal(size=(60, 320, 320)).astype(np.float32)
    return _curve("curve through noise", heat, (0.5, 0.5, 1.0))


def curve_cord(_: Inputs) -> Case:
    """Curve through the score map of a winding cord, 320 x 320 x 60 at 0.5 x 0.5 x 1 mm."""
    return _curve("curve along a cord", _winding_cord(), (0.5, 0.5, 1.0))


def curve_cord_thick(_: Inputs) -> Case:
    """Curve through the same map with slices of 7.5 mm, where long steps are cheap."""
    return _curve("curve along a cord, thick slices", _winding_cord(), (0.5, 0.5, 7.5))


def centerline_half_mm(inputs: Inputs) -> Case:
    """Whole OptiC on the lumbar volume, repeated to 76 x 514 x 201 at 0.5 x 0.5 x 1 mm."""
    from fastseg.optic import optic_centerline

    slices, origin = inputs.slices("lumbar")
    voxels = slices.repeat(2, axis=1).repeat(2, axis=2).transpose(1, 2, 0)
    detector = inputs.detector()
    return Case(
        "whole OptiC, lumbar at 0.5 mm",
        voxels.size,
        {"fastseg": lambda: optic_centerline(voxels, (0.5, 0.5, 1.0), detector)},
        {"input": origin},
    )


def centerline_large(_: Inputs) -> Case:
    """Whole OptiC on a bright cord in a noisy body, 320 x 320 x 64 at 0.5 x 0.5 x 1 mm."""
    from fastseg.optic import optic_centerline

    rng = np.random.default_rng(2)
    z, x, y = np.ogrid[:64, :320, :320]
    distance = (x - 160) ** 2 + (y - 160 - 5 * np.sin(z / 20)) ** 2
    slices = (300 * np.exp(-distance / 60) + rng.normal(200, 30, (64, 320, 320))).astype(np.float32)
    voxels, detector = slices.transpose(1, 2, 0), random_detector()
    work = {"fastseg": lambda: optic_centerline(voxels, (0.5, 0.5, 1.0), detector)}
    return Case("whole OptiC, 320 x 320 x 64 at 0.5 mm", voxels.size, work)


def resample_lumbar(inputs: Inputs) -> Case:
    """The whole lumbar volume to 0.5 mm in plane."""
    from scipy import ndimage

    from fastseg.kernels.resample import resample_slices

    slices, origin = inputs.slices("lumbar")
    (nz, nx, ny), (wx, wy) = slices.shape, (2 * slices.shape[1], 2 * slices.shape[2])
    volume, step = np.ascontiguousarray(slices.transpose(1, 2, 0)), np.array([nx / wx, ny / wy, 1.0])

    def whole(matrix: NDArray[np.float64]) -> NDArray[np.float32]:
        # As nibabel.processing.resample_from_to calls it, which is what SCT uses.
        return ndimage.affine_transform(
            volume, matrix, output_shape=(wx, wy, nz), output=np.float32, order=1, mode="nearest"
        )

    def fastseg() -> NDArray[np.float32]:
        return resample_slices(slices, wx, wy)

    theirs = whole(np.diag(step)).transpose(2, 0, 1)
    return Case(
        "to 0.5 mm in plane, lumbar",
        theirs.size,
        {
            "fastseg": fastseg,
            "scipy affine_transform": lambda: whole(np.diag(step)),
            "scipy affine_transform, separable": lambda: whole(step),
        },
        {"input": origin, "largest_difference": float(abs(fastseg() - theirs).max())},
        (Target("scipy affine_transform", "ratio", 20, at_least=True),),
    )


def windows_lumbar(inputs: Inputs) -> Case:
    """Only the 64 x 64 window around the cord on each slice, at 0.5 mm."""
    from scipy import ndimage

    from fastseg.kernels.resample import resample_windows

    slices, origin = inputs.slices("lumbar")
    (nz, nx, ny), (wx, wy) = slices.shape, (2 * slices.shape[1], 2 * slices.shape[2])
    volume, step = np.ascontiguousarray(slices.transpose(1, 2, 0)), np.array([nx / wx, ny / wy, 1.0])
    z = np.arange(nz)
    starts = np.column_stack([np.full(nz, wx // 2 - 31), wy // 2 - 31 + (20 * np.sin(z / 20)).astype(int)])
    starts = np.clip(starts, 0, [wx - 64, wy - 64]).astype(np.int64)

    def fastseg() -> NDArray[np.float32]:
        return resample_windows(slices, wx, wy, z, starts, 64, 64)

    def whole() -> NDArray[np.float32]:
        resampled = ndimage.affine_transform(
            volume, np.diag(step), output_shape=(wx, wy, nz), output=np.float32, order=1, mode="nearest"
        )
        return np.array([resampled[x : x + 64, y : y + 64, k] for k, (x, y) in enumerate(starts)])

    return Case(
        "windows at 0.5 mm, lumbar",
        nz * 64 * 64,
        {"fastseg": fastseg, "scipy affine_transform, crop": whole},
        {"input": origin, "largest_difference": float(abs(fastseg() - whole()).max())},
    )


def back_lumbar(inputs: Inputs) -> Case:
    """A mask around the cord back onto the native grid of the lumbar volume."""
    from scipy import ndimage

    from fastseg.centerline import Centerline
    from fastseg.crops import CropWindows
    from fastseg.resampling import resample_onto, working_grid
    from fastseg.volume import Grid

    slices, origin = inputs.slices("lumbar")
    nz, nx, ny = slices.shape
    native = Grid((nx, ny, nz), np.diag([-1.0, 1.0, 1.0, 1.0]))
    working = working_grid(native)
    z = np.arange(nz)
    centre_y = working.shape[1] // 2 + 20 * np.sin(z / 20)
    points = np.column_stack([np.full(nz, working.shape[0] // 2), centre_y, z])
    windows = CropWindows.around(Centerline(working, points), 64)
    i, j = np.ogrid[:64, :64]
    crops = np.repeat((((i - 31) / 13) ** 2 + ((j - 31) / 8) ** 2 < 1)[None], nz, axis=0).astype(np.float32)
    matrix = np.linalg.inv(working.affine) @ native.affine

    def fastseg() -> tuple[NDArray[np.float32], tuple[int, int, int]]:
        canvas, corner = windows.paste(crops)
        return resample_onto(canvas, corner, working, native)

    def whole() -> NDArray[np.float32]:
        full = np.zeros(working.shape, np.float32)
        for crop, k, (x, y) in zip(crops, windows.z, windows.starts, strict=True):
            full[x : x + 64, y : y + 64, k] = crop
        return ndimage.affine_transform(
            full, matrix[:3, :3], matrix[:3, 3], native.shape, order=1, mode="nearest"
        )

    part, (x, y, first) = fastseg()
    ours = np.zeros(native.shape, np.float32)
    ours[x : x + part.shape[1], y : y + part.shape[2], first : first + len(part)] = part.transpose(1, 2, 0)
    return Case(
        "mask back to the native grid, lumbar",
        ours.size,
        {"fastseg": fastseg, "scipy affine_transform": whole},
        {"input": origin, "largest_difference": float(abs(ours - whole()).max())},
    )


def objects(_: Inputs) -> Case:
    """Threshold, fill holes and keep the cord on 200 crops of 64 x 64 with stray objects."""
    from scipy import ndimage

    from fastseg.kernels.components import keep_cord_slices

    rng = np.random.default_rng(4)
    z, i, j = np.ogrid[:200, :64, :64]
    cord = np.exp(-(((i - 32 - 5 * np.sin(z / 30)) / 12) ** 2 + ((j - 31) / 8) ** 2))
    ring = 0.5 * (np.hypot(i - 32, j - 31) < 2) * (z % 7 == 0)  # a hole in every seventh
    smooth = ndimage.gaussian_filter(rng.normal(0, 1, (200, 64, 64)), (0, 2, 2))
    probabilities = (cord - ring + smooth).astype(np.float32)

    def slice_by_slice() -> NDArray[np.uint8]:
        masks, centre = np.zeros(probabilities.shape, np.uint8), None
        for image, mask in zip(probabilities, masks, strict=True):
            labels, count = ndimage.label(ndimage.binary_fill_holes(image > 0.5, np.ones((3, 3))))
            if not count:
                continue
            keep = labels[centre] if centre else 0
            keep = keep or 1 + np.argmax(np.bincount(labels.ravel())[1:])
            mask[:] = labels == keep
            x, y = ndimage.center_of_mass(mask)
            centre = round(x), round(y)
        return masks

    def fastseg() -> NDArray[np.uint8]:
        return keep_cord_slices(probabilities, np.float32(0.5))

    return Case(
        "one object a slice, 200 crops",
        probabilities.size,
        {"fastseg": fastseg, "scipy label, fill_holes": slice_by_slice},
        {"different_pixels": int((fastseg() != slice_by_slice()).sum())},
    )


def read_gzip(inputs: Inputs) -> Case:
    """Read the lumbar volume from its .nii.gz."""
    import nibabel
    from isal import igzip

    from fastseg.nifti import read_volume

    path, origin = inputs.volume("lumbar")
    content = path.read_bytes()
    return Case(
        "read .nii.gz, lumbar",
        read_volume(path)[0].voxels.size,
        {
            "fastseg": lambda: read_volume(path),
            "nibabel (zlib)": lambda: np.asanyarray(nibabel.load(path).dataobj),
            "isal alone": lambda: igzip.decompress(content),
            "zlib alone": lambda: gzip.decompress(content),
        },
        {"input": origin, "mb": round(len(gzip.decompress(content)) / 1e6, 2)},
    )


def write_gzip(inputs: Inputs) -> Case:
    """Write a mask of 320 x 320 x 64."""
    import nibabel
    from isal import igzip

    from fastseg.nifti import read_volume, write_volume

    template = read_volume(inputs.volume("large")[0])[1]
    mask = np.asfortranarray(read_volume(inputs.centerline("large"))[0].voxels)
    content, target = mask.tobytes(order="F"), inputs.work / "written.nii.gz"
    affine = template.header.get_best_affine()
    return Case(
        "write mask .nii.gz, 320 x 320 x 64",
        mask.size,
        {
            "fastseg": lambda: write_volume(mask, template, target),
            "nibabel (zlib 1)": lambda: nibabel.save(nibabel.Nifti1Image(mask, affine), target),
            "isal 1 alone": lambda: igzip.compress(content, 1),
            "zlib 6 alone": lambda: zlib.compress(content, 6),
        },
        {
            "mb": round(len(content) / 1e6, 2),
            "bytes_isal_1": len(igzip.compress(content, 1)),
            "bytes_zlib_6": len(zlib.compress(content, 6)),
        },
    )


CASES: dict[str, Callable[[Inputs], Case]] = {
    "scores-t2": scores_t2,
    "scores-lumbar": scores_lumbar,
    "curve-noise": curve_noise,
    "curve-cord": curve_cord,
    "curve-cord-thick": curve_cord_thick,
    "centerline-half-mm": centerline_half_mm,
    "centerline-large": centerline_large,
    "resample-lumbar": resample_lumbar,
    "windows-lumbar": windows_lumbar,
    "back-lumbar": back_lumbar,
    "objects": objects,
    "read-gzip": read_gzip,
    "write-gzip": write_gzip,
}


def _scores(title: str, voxels: NDArray[np.float32], origin: str, detector: NDArray[np.float32]) -> Case:
    """Images are made beforehand: neither side is timed on grey values or resampling."""
    from fastseg.kernels.hog import score_pixels
    from fastseg.kernels.optic_resize import to_uint8
    from fastseg.optic import prepare_uint16

    slices = np.ascontiguousarray(prepare_uint16(voxels.transpose(1, 2, 0)).transpose(2, 0, 1))
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
    targets = (Target("opencv", "ratio", 4, at_least=True),) if "opencv" in contenders else ()
    return Case(title, images.size, contenders, facts, targets)


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


def _curve(title: str, heat: NDArray[np.float32], zooms: tuple[float, float, float]) -> Case:
    """Dynamic programming as it is, and with the lower envelope for all lines."""
    from fastseg.curve import trace_curve
    from fastseg.kernels import optic

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
    return Case(
        title,
        heat.size,
        {"fastseg": fastseg, "envelope": envelope},
        {"same_path": same},
        (Target("fastseg", "cpu_seconds_median", 0.15),),
    )


def _winding_cord() -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    z, x, y = np.ogrid[:60, :320, :320]
    distance = (x - 160 - 10 * np.sin(z / 20)) ** 2 + (y - 150 - z / 6) ** 2
    noise = rng.normal(0, 0.1, (60, 320, 320))
    return (1.5 * np.exp(-distance / 200) - 1 + noise).astype(np.float32)


if __name__ == "__main__":
    main(CASES, __doc__, "benchmarks.kernels")
