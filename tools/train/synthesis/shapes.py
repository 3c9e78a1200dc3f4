"""Random numbers, closed outlines and smooth fields: what anatomies and textures are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tools.train.synthesis.compiling import compiled, inlined

__all__ = [
    "N_ANGLES",
    "between",
    "chance",
    "dent",
    "field",
    "inside_ellipse",
    "radius_at",
    "superellipse",
    "wobble",
]

#: Directions in which an outline's radius is known, from the left (+x) by the front (+y).
N_ANGLES = 64

_TURN = 2 * np.pi


@compiled
def between(low: float, high: float) -> float:
    """Uniform random number."""
    return low + (high - low) * np.random.random()


@compiled
def chance(probability: float) -> bool:
    """True as often as that."""
    return np.random.random() < probability


@inlined
def radius_at(outline: NDArray[np.float64], angle: float) -> float:
    """Radius of an outline in a direction, by linear interpolation."""
    place = angle / _TURN
    place = (place - np.floor(place)) * N_ANGLES
    i = int(place) % N_ANGLES
    part = place - int(place)
    return outline[i] * (1 - part) + outline[(i + 1) % N_ANGLES] * part


@compiled
def superellipse(a: float, b: float, power: float) -> NDArray[np.float64]:
    """Outline with semi-axes a along x and b along y; 2 is an ellipse, more is squarer."""
    outline = np.empty(N_ANGLES)
    for i in range(N_ANGLES):
        c, s = np.cos(i * _TURN / N_ANGLES), np.sin(i * _TURN / N_ANGLES)
        outline[i] = (abs(c / a) ** power + abs(s / b) ** power) ** (-1 / power)
    return outline


@compiled
def wobble(amplitude: float, order: int) -> NDArray[np.float64]:
    """Random harmonics around an outline, the k-th with amplitude / k."""
    waves = np.zeros(N_ANGLES)
    for k in range(1, order + 1):
        size, phase = np.random.randn() * amplitude / k, between(0.0, _TURN)
        for i in range(N_ANGLES):
            waves[i] += size * np.cos(k * i * _TURN / N_ANGLES + phase)
    return waves


@compiled
def dent(outline: NDArray[np.float64], direction: float, width: float, depth: float) -> None:
    """Press an outline inwards: by a share `depth`, over an angle `width` around a direction (rad)."""
    for i in range(N_ANGLES):
        away = i * _TURN / N_ANGLES - direction
        away -= _TURN * np.round(away / _TURN)
        outline[i] *= 1 - depth * np.exp(-0.5 * (away / width) ** 2)


@inlined
def inside_ellipse(x: float, y: float, a: float, b: float) -> bool:
    """Whether a point lies in an ellipse around the origin."""
    return (x / a) ** 2 + (y / b) ** 2 < 1


@compiled
def field(n: int, cells: int) -> NDArray[np.float32]:
    """Smooth random field of about unit variance.

    Parameters
    ----------
    n : pixels along a side
    cells : independent values along a side, between which it is interpolated
    """
    grid = np.random.randn(cells + 2, cells + 2)
    out = np.empty((n, n), np.float32)
    step, lead_x, lead_y = cells / n, np.random.random(), np.random.random()
    columns = np.empty(n, np.int64)
    weights = np.empty(n)
    for j in range(n):
        place = j * step + lead_y
        columns[j] = int(place)
        part = place - columns[j]
        weights[j] = part * part * (3 - 2 * part)
    for i in range(n):
        place = i * step + lead_x
        a = int(place)
        part = place - a
        part = part * part * (3 - 2 * part)
        for j in range(n):
            b, w = columns[j], weights[j]
            near = grid[a, b] * (1 - part) + grid[a + 1, b] * part
            far = grid[a, b + 1] * (1 - part) + grid[a + 1, b + 1] * part
            out[i, j] = 1.5 * (near * (1 - w) + far * w)
    return out
