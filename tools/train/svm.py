"""Coefficients of OptiC's detector: HOG descriptors of cord and of everything else, and a linear SVM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastseg.kernels.hog import N_COEFFICIENTS, score_pixels
from tools.train.synthesis.contrasts import KINDS, RANDOM
from tools.train.synthesis.samples import Samples

__all__ = ["train_svm"]

# Kinds of images that stand for a contrast, where it is not its own kind alone.
_LIKE = {"t2s": ("t2s", "mt"), "auto": KINDS[:RANDOM]}
# Windows, pixels of 1 mm; windows farther than _FAR from the cord show something else.
_WINDOW, _HALF, _FAR = 32, 16, 9
_ROUNDS = 3  # of mining for hard negatives
_PER_SLICE = 4  # negatives that a slice gives in a round


def train_svm(
    samples: Samples,
    contrast: str,
    seed: int,
    *,
    slices: int = 2500,
    weight: float = 0.002,
    say: Callable[[str], None] = print,
) -> NDArray[np.float32]:
    """Train coefficients for a contrast.

    Parameters
    ----------
    samples : whole slices
    contrast : t1, t2, t2s or dwi; auto for all
    seed : of the choice of windows
    slices : how many to use
    weight : of errors against the margin (C of scikit-learn)

    Returns
    -------
    coefficients : (577,) float32    as `fastseg.optic.svm_score_map` takes them

    Notes
    -----
    Positives are windows around the cord, and a pixel beside it. Negatives are at first anywhere else, then
    where the detector so far is surest and wrong (Dalal & Triggs 2005, section 4).
    """
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng([seed, 4])
    kinds = [k for k, kind in enumerate(KINDS) if kind in _LIKE.get(contrast, (contrast,))]
    usable = np.isin(samples.kinds, kinds)
    chosen = rng.permutation(np.flatnonzero(usable))[:slices]
    images = [_as_detector_sees(samples.images[q, 0], rng) for q in chosen]
    centres = samples.centres[chosen, 0]
    positives = [
        _descriptors(image, np.round(centre + shift))
        for image, centre in zip(images, centres, strict=True)
        if np.isfinite(centre).all() and _inside(image, centre)
        for shift in ((0, 0), rng.integers(-1, 2, 2))
    ]
    cord = np.concatenate(positives)
    rest = np.concatenate(
        [_descriptors(i, _elsewhere(i, c, rng)) for i, c in zip(images, centres, strict=True)]
    )
    coefficients = np.zeros(N_COEFFICIENTS, np.float32)
    for turn in range(_ROUNDS):
        machine = LinearSVC(C=weight, class_weight="balanced", max_iter=5000, tol=1e-3, random_state=seed)
        machine.fit(np.concatenate([cord, rest]), np.concatenate([np.ones(len(cord)), np.zeros(len(rest))]))
        coefficients = np.append(machine.coef_[0], machine.intercept_[0]).astype(np.float32)
        say(f"svm {contrast}: round {turn + 1}, {len(cord)} windows of cord, {len(rest)} of the rest")
        if turn + 1 < _ROUNDS:
            hard = [_hardest(i, c, coefficients) for i, c in zip(images, centres, strict=True)]
            rest = np.concatenate([rest, *(_descriptors(i, p) for i, p in zip(images, hard, strict=True))])
    return coefficients


def _as_detector_sees(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Scale a slice to its maximum, as OptiC does; a tail of bright voxels darkens the rest."""
    top = max(int(image.max()), 1) * rng.uniform(1.0, 1.6)
    return np.minimum(image * (255.0 / top), 255).astype(np.uint8)


def _inside(image: NDArray[np.uint8], centre: NDArray[np.float32]) -> bool:
    return bool((centre >= 4).all() and (centre < np.array(image.shape) - 4).all())


def _elsewhere(
    image: NDArray[np.uint8], centre: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float64]:
    places = rng.integers(0, image.shape, (3 * _PER_SLICE, 2)).astype(np.float64)
    far = ~(np.hypot(*(places - centre).T) < _FAR)  # NaN, no cord, is far from everything
    return places[far][:_PER_SLICE]


def _hardest(
    image: NDArray[np.uint8], centre: NDArray[np.float32], coefficients: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Places with the highest scores that are not the cord, some pixels apart."""
    scores = np.empty(image.shape, np.float32)
    score_pixels(image, coefficients, scores)
    x, y = np.ogrid[: image.shape[0], : image.shape[1]]
    if np.isfinite(centre).all():
        scores[np.hypot(x - centre[0], y - centre[1]) < _FAR] = -np.inf
    found = []
    for _ in range(_PER_SLICE):
        best = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores[best] < -1:  # beyond the margin: nothing to learn
            break
        found.append(best)
        scores[np.hypot(x - best[0], y - best[1]) < 6] = -np.inf
    return np.array(found, np.float64).reshape(-1, 2)


def _descriptors(image: NDArray[np.uint8], places: NDArray[Any]) -> NDArray[np.float32]:
    """HOG descriptors, (n, 576) float32, of windows around places (n, 2) or (2,); reflected at the edge."""
    import cv2

    places = np.asarray(places, np.int64).reshape(-1, 2)
    if not len(places):
        return np.zeros((0, N_COEFFICIENTS - 1), np.float32)
    hog = cv2.HOGDescriptor((_WINDOW, _WINDOW), (8, 8), (8, 8), (4, 4), 9, 1, 2.0, 0, 0.2, True, 64, True)
    # One pixel more than the windows need, for the gradient of their first; OpenCV's rows are y.
    rows = np.ascontiguousarray(np.pad(image, _HALF + 1, mode="reflect").T)
    corners = [(int(x) + 1, int(y) + 1) for x, y in places]
    return np.asarray(hog.compute(rows, locations=corners)).reshape(len(places), -1)
