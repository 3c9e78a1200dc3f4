"""From tissues to an image: texture, coil profile, sampling, noise and artefacts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tools.train.synthesis import contrasts, tissues
from tools.train.synthesis.compiling import compiled
from tools.train.synthesis.shapes import between, chance, field

__all__ = ["acquire", "coil_profile", "draw_resolution", "draw_textures"]


@compiled
def draw_textures(kind: int) -> NDArray[np.float64]:
    """Draw how much each tissue's intensity varies from place to place."""
    sizes = np.abs(np.random.randn(tissues.N_TISSUES)) * (0.03 if kind == contrasts.DWI else 0.06)
    cord = abs(np.random.randn()) * 0.025
    sizes[tissues.WHITE] = sizes[tissues.GREY] = cord
    if kind == contrasts.T2 and chance(0.4):
        sizes[tissues.CSF] = between(0.0, 0.25)  # flow
    sizes[tissues.AIR] = sizes[tissues.METAL] = 0.0
    return sizes


@compiled
def coil_profile(n: int, kind: int) -> NDArray[np.float32]:
    """Draw the factor by which the coils' sensitivity changes intensities; (n, n), around 1."""
    size = np.abs(np.random.randn()) * (0.1 if kind == contrasts.DWI else 0.2)
    if chance(0.1):
        size *= 2.5
    waves = field(n, 2)
    steep_x, steep_y = np.random.randn() * 0.35, np.random.randn() * 0.45
    profile = np.empty((n, n), np.float32)
    for i in range(n):
        for j in range(n):
            profile[i, j] = np.exp(size * waves[i, j] + steep_x * (i / n - 0.5) + steep_y * (j / n - 0.5))
    return profile


@compiled
def draw_resolution(kind: int, finest: float) -> tuple[float, float]:
    """Draw in-plane voxel sizes in mm; echo-planar images are coarser."""
    if kind in (contrasts.DWI, contrasts.MT) or chance(0.12):
        size = between(0.7, 1.5) if kind != contrasts.MT else between(0.6, 1.05)
    elif chance(0.45):
        size = between(0.75, 1.1)
    else:
        size = between(0.3, 0.8)
    other = size * (1.0 if chance(0.7) else between(0.7, 1.4))
    return max(size, finest), max(other, finest)


@compiled
def _blurred(image: NDArray[np.float32], step: float, sinc: bool) -> NDArray[np.float32]:
    """Sample the first axis every `step` pixels: by a Gaussian, or as a scanner does, by a windowed sinc."""
    n, width = image.shape
    m = int(n / step)
    lead = (n - m * step) / 2
    half = int(4 * step + 1) if sinc else int(1.3 * step + 1)
    out = np.zeros((m, width), np.float32)
    for i in range(m):
        middle = lead + (i + 0.5) * step - 0.5
        first = int(np.floor(middle + 0.5))
        total = 0.0
        for k in range(first - half, first + half + 1):
            d = (k - middle) / step
            if sinc:
                weight = 0.0
                if abs(d) < 4.5:
                    weight = np.cos(d / 4.5 * np.pi / 2)
                    if abs(d) > 1e-6:
                        weight *= np.sin(np.pi * d) / (np.pi * d)
            else:
                weight = np.exp(-0.5 * (d / 0.45) ** 2)
            total += weight
            source = min(max(k, 0), n - 1)
            for j in range(width):
                out[i, j] += weight * image[source, j]
        for j in range(width):
            out[i, j] /= total
    return out


@compiled
def _noisy(image: NDArray[np.float32], sigma: float) -> None:
    """Rician noise (Gudbjartsson & Patz 1995)."""
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            real = image[i, j] + np.random.randn() * sigma
            image[i, j] = np.hypot(real, np.random.randn() * sigma)


@compiled
def _ghost(image: NDArray[np.float32]) -> None:
    """Motion along the phase-encoding direction: the image again, fainter and displaced."""
    shift = np.random.randint(2, max(3, image.shape[1] // 3))
    strength = between(0.03, 0.15)
    before = image.copy()
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            image[i, j] += strength * before[i, (j + shift) % image.shape[1]]


@compiled
def acquire(
    image: NDArray[np.float32],
    pixel: float,
    resolution: tuple[float, float],
    sigma: float,
    ghost: bool,
    sinc: bool,
    side: int,
    zoom: float,
) -> NDArray[np.float32]:
    """Sample an image as a scanner does, add noise, and resample it to the networks' grid.

    Parameters
    ----------
    image : (n, n) float32     fine image
    pixel : mm, of the fine image
    resolution : mm, of the scan
    sigma : of the noise, relative to the brightest voxel
    ghost : whether the subject moved
    sinc : whether edges ring (Gibbs), or are only blurred
    side : pixels of the result
    zoom : mm, of the result

    Returns
    -------
    sampled : (side, side) float32   around the same middle
    """
    n = image.shape[0]
    step_x, step_y = resolution[0] / pixel, resolution[1] / pixel
    scan = _blurred(_blurred(image, step_x, sinc).T.copy(), step_y, sinc).T.copy()
    brightest = scan.max()
    _noisy(scan, sigma * max(brightest, 0.05))
    if ghost:
        _ghost(scan)
    lead_x, lead_y = (n - scan.shape[0] * step_x) / 2, (n - scan.shape[1] * step_y) / 2
    out = np.empty((side, side), np.float32)
    ratio = zoom / pixel
    lead = (n - side * ratio) / 2
    for i in range(side):
        x = (lead + (i + 0.5) * ratio - lead_x) / step_x - 0.5
        x = min(max(x, 0.0), scan.shape[0] - 1.001)
        a, px = int(x), x - int(x)
        for j in range(side):
            y = (lead + (j + 0.5) * ratio - lead_y) / step_y - 0.5
            y = min(max(y, 0.0), scan.shape[1] - 1.001)
            b, py = int(y), y - int(y)
            near = scan[a, b] * (1 - px) + scan[a + 1, b] * px
            far = scan[a, b + 1] * (1 - px) + scan[a + 1, b + 1] * px
            out[i, j] = near * (1 - py) + far * py
    return out
