"""Things that no prior has a name for, made by formulas: their every side is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sources import Model, flat, merge

_TURNS, _ROUND = 240, 20


def make_form(name: str) -> Model:
    """The form of this name. Raises KeyError for another."""
    return FORMS[name]()


def torus_knot() -> Model:
    """The trefoil, a tube whose colour runs once round the rainbow."""

    def path(t: np.ndarray) -> np.ndarray:
        r = 0.6 + 0.25 * np.cos(3 * t)
        return np.stack([r * np.cos(2 * t), r * np.sin(2 * t), 0.25 * np.sin(3 * t)], -1)

    return _tube(path, 0.1, 2 * np.pi, lambda s: np.stack([np.cos(2 * np.pi * (s + k / 3)) for k in range(3)], -1))


def coil() -> Model:
    """A spring of four turns, copper below and steel above."""

    def path(t: np.ndarray) -> np.ndarray:
        return np.stack([0.4 * np.cos(t), t / (8 * np.pi) * 1.4 - 0.7, 0.4 * np.sin(t)], -1)

    copper, steel = np.array([0.45, -0.1, -0.6]), np.array([0.1, 0.2, 0.3])
    return _tube(path, 0.08, 8 * np.pi, lambda s: np.where(s[:, None] < 0.5, copper, steel))


def stella_octangula() -> Model:
    """Two tetrahedra through each other, a red and a blue one."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float)
    faces = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    parts = [
        ((sign * corners)[faces[:, ::sign]], np.zeros((4, 3, 2)), flat(colour))
        for sign, colour in ((1, [0.8, 0.15, 0.1]), (-1, [0.15, 0.3, 0.8]))
    ]
    return merge(parts)


def letter_r() -> Model:
    """A letter R of boxes, green in front and yellow behind: neither left like right nor front like back."""
    boxes = [((-0.4, -0.7), (-0.15, 0.7)), ((-0.15, 0.45), (0.3, 0.7)), ((0.2, 0.1), (0.45, 0.6)),
             ((-0.15, -0.05), (0.3, 0.2)), ((0.0, -0.4), (0.25, -0.05)), ((0.2, -0.7), (0.45, -0.35))]  # fmt: skip
    parts = []
    for (x0, y0), (x1, y1) in boxes:
        for z0, z1, colour in ((0.0, 0.2, [0.2, 0.7, 0.3]), (-0.2, 0.0, [0.9, 0.75, 0.2])):
            parts.append((_box((x0, y0, z0), (x1, y1, z1)), np.zeros((12, 3, 2)), flat(colour)))
    return merge(parts)


FORMS: dict[str, Callable[[], Model]] = {form.__name__: form for form in (torus_knot, coil, stella_octangula, letter_r)}


def _tube(path: Callable, radius: float, length: float, colour: Callable) -> Model:
    """A tube of this radius along a path of t in [0, length]; `colour` of the share of the way, each about [-1, 1]."""
    share = np.arange(_TURNS + 1) / _TURNS
    t = share * length
    middle, along = path(t), path(t + 1e-4) - path(t - 1e-4)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.cross(along, [0.3, 1.0, 0.2])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, along)
    angle = np.arange(_ROUND + 1) / _ROUND * 2 * np.pi
    ring = np.cos(angle)[:, None, None] * side + np.sin(angle)[:, None, None] * up  # [ROUND + 1, TURNS + 1, 3]
    grid = middle + radius * ring
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    triangles = np.concatenate([np.stack([a, c, b], 2).reshape(-1, 3, 3), np.stack([a, d, c], 2).reshape(-1, 3, 3)])
    s = np.broadcast_to(share[:-1], (_ROUND, _TURNS)).reshape(-1)
    u = np.tile(s, 2)[:, None].repeat(3, 1)
    image = ((0.5 + 0.4 * colour((np.arange(256) + 0.5) / 256)).clip(0, 1) * 255).astype(np.uint8)[None]
    parts = [(triangles, np.stack([u, np.full_like(u, 0.5)], -1), image)]
    for end in () if np.allclose(path(t[:1]), path(t[-1:])) else (0, _TURNS):
        rim = grid[:, end]
        cap = np.stack([np.broadcast_to(middle[end], rim[1:].shape), rim[:-1], rim[1:]], 1)
        parts.append((cap, np.full((len(cap), 3, 2), [share[end] * 0.99, 0.5]), image))
    return merge(parts)


def _box(low: tuple[float, float, float], high: tuple[float, float, float]) -> np.ndarray:
    """Twelve triangles."""
    corners = np.array([[(low, high)[i][0], (low, high)[j][1], (low, high)[k][2]]
                        for i in (0, 1) for j in (0, 1) for k in (0, 1)])  # fmt: skip
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return corners[np.array([face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))])]
