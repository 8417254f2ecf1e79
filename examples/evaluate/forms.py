"""Things that no prior has a name for, made by formulas: their every side is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from sources import Model, flat, merge

Part = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Corners [F, 3, 3], their places in a picture [F, 3, 2], and the picture."""
_TURNS, _ROUND = 240, 20


def make_form(name: str) -> Model:
    """The form of this name. Raises KeyError for another."""
    return FORMS[name]()


def torus_knot() -> Model:
    """The trefoil, a tube whose colour runs once round the rainbow."""

    def path(t: np.ndarray) -> np.ndarray:
        r = 0.6 + 0.25 * np.cos(3 * t)
        return np.stack([r * np.cos(2 * t), r * np.sin(2 * t), 0.25 * np.sin(3 * t)], -1)

    return merge(
        _tube(path, 0.1, 2 * np.pi, lambda s: np.stack([np.cos(2 * np.pi * (s + k / 3)) for k in range(3)], -1))
    )


def coil() -> Model:
    """A spring of four turns, copper below and steel above."""

    def path(t: np.ndarray) -> np.ndarray:
        return np.stack([0.4 * np.cos(t), t / (8 * np.pi) * 1.4 - 0.7, 0.4 * np.sin(t)], -1)

    copper, steel = np.array([0.45, -0.1, -0.6]), np.array([0.1, 0.2, 0.3])
    return merge(_tube(path, 0.08, 8 * np.pi, lambda s: np.where(s[:, None] < 0.5, copper, steel)))


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
    return _two_faced(boxes, [0.2, 0.7, 0.3], [0.9, 0.75, 0.2])


def number_four() -> Model:
    """A figure 4 of boxes, blue in front and white behind."""
    boxes = [((-0.45, -0.1), (0.5, 0.12)), ((0.1, -0.7), (0.35, 0.7)), ((-0.45, 0.12), (-0.2, 0.7))]
    return _two_faced(boxes, [0.15, 0.3, 0.75], [0.92, 0.92, 0.9])


def figure_eight_knot() -> Model:
    """The knot with four crossings, pink and turquoise in turns."""

    def path(t: np.ndarray) -> np.ndarray:
        r = (2 + np.cos(2 * t)) / 3.4
        return np.stack([r * np.cos(3 * t), r * np.sin(3 * t), 0.3 * np.sin(4 * t)], -1)

    pink, turquoise = np.array([0.8, -0.2, 0.4]), np.array([-0.6, 0.6, 0.6])
    return merge(_tube(path, 0.09, 2 * np.pi, lambda s: np.where(np.sin(12 * np.pi * s)[:, None] > 0, pink, turquoise)))


def linked_rings() -> Model:
    """Two rings through each other, a gold one lying and a violet one standing."""
    lying = _ring([-0.25, 0, 0], [0.45, 0, 0], [0, 0, 0.45], 0.11, [0.7, 0.4, -0.6])
    return merge([*lying, *_ring([0.25, 0, 0], [0.45, 0, 0], [0, 0.45, 0], 0.11, [0.1, -0.5, 0.7])])


def borromean_rings() -> Model:
    """Three long rings, of which no two are linked: red, green, blue."""
    x, y, z = np.eye(3)
    red = _ring([0, 0, 0], 0.8 * x, 0.4 * y, 0.07, [0.8, -0.7, -0.7])
    green = _ring([0, 0, 0], 0.8 * y, 0.4 * z, 0.07, [-0.7, 0.5, -0.6])
    return merge([*red, *green, *_ring([0, 0, 0], 0.8 * z, 0.4 * x, 0.07, [-0.7, -0.4, 0.8])])


def question_mark() -> Model:
    """Orange, with a blue point."""

    def bow(t: np.ndarray) -> np.ndarray:
        return np.stack([-0.36 * np.cos(t), 0.35 + 0.33 * np.sin(t), 0 * t], -1)

    orange = [0.95, 0.54, 0.18]
    stem = _boxes([((-0.1, -0.35, -0.1), (0.1, 0.1, 0.1))], orange)
    point = _boxes([((-0.12, -0.75, -0.12), (0.12, -0.5, 0.12))], [0.15, 0.3, 0.8])
    return merge([*_tube(bow, 0.1, 1.5 * np.pi, _one((np.array(orange) - 0.5) / 0.4)), *stem, *point])


def moebius_strip() -> Model:
    """A green band with half a twist, lying."""

    def edge(t: np.ndarray) -> np.ndarray:
        r = 0.6 + 0.28 * np.cos(t / 2)
        return np.stack([r * np.cos(t), 0.28 * np.sin(t / 2), r * np.sin(t)], -1)

    t = np.linspace(0, 2 * np.pi, _TURNS + 1)
    one, other = edge(t), edge(t + 2 * np.pi)  # its one edge goes round twice
    thick = np.cross(one - other, np.stack([-np.sin(t), 0 * t, np.cos(t)], -1))
    thick *= 0.03 / np.linalg.norm(thick, axis=1, keepdims=True)
    corners = [one + thick, other + thick, other - thick, one - thick]
    sides = [
        np.stack(side, 1)
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True)
        for side in ([a[:-1], b[1:], b[:-1]], [a[:-1], a[1:], b[1:]])
    ]
    triangles = np.concatenate(sides)
    return merge([(triangles, np.zeros((len(triangles), 3, 2)), flat([0.2, 0.65, 0.35]))])


def menger_sponge() -> Model:
    """A cube of 3 x 3 x 3, without its own middle and those of its sides; orange corners, brown edges."""
    parts = []
    for place in np.ndindex(3, 3, 3):
        if (middles := place.count(1)) < 2:
            low = np.array(place) * 0.4 - 0.6
            parts += _boxes([(low, low + 0.4)], [0.45, 0.28, 0.15] if middles else [0.95, 0.6, 0.2])
    return merge(parts)


def cube_frame() -> Model:
    """The twelve edges of a cube, those along each axis in a colour of their own."""
    parts = []
    for axis, colour in enumerate(_THREE):
        middles = [np.insert([a, b], axis, 0.0) for a in (-0.55, 0.55) for b in (-0.55, 0.55)]
        half = np.where(np.arange(3) == axis, 0.62, 0.07)
        parts += _boxes([(middle - half, middle + half) for middle in middles], colour)
    return merge(parts)


def toy_jack() -> Model:
    """Six arms with knobs, those along each axis in a colour of their own."""
    parts = []
    for axis, colour in enumerate(_THREE):
        for reach, thick, middle in ((0.7, 0.09, 0.0), (0.15, 0.18, 0.65), (0.15, 0.18, -0.65)):
            half, centre = np.where(np.arange(3) == axis, reach, thick), middle * (np.arange(3) == axis)
            parts += _boxes([(centre - half, centre + half)], colour)
    return merge(parts)


def five_cubes() -> Model:
    """A bent row of four and one on top, each in its own colour: neither left like right nor front like back."""
    places = [(0, 0, 0), (1, 0, 0), (1, 0, 1), (2, 0, 1), (1, 1, 1)]
    colours = [*_THREE, [0.9, 0.7, 0.2], [0.6, 0.3, 0.7]]
    lows = [0.45 * np.array(place) - [0.68, 0.45, 0.45] for place in places]
    return merge(
        [part for low, colour in zip(lows, colours, strict=True) for part in _boxes([(low, low + 0.44)], colour)]
    )


def double_helix() -> Model:
    """Two strands, red and blue, and white rungs between them."""

    def strand(turn: float) -> Callable:
        return lambda t: np.stack([0.32 * np.cos(t + turn), t / (4 * np.pi) * 1.5 - 0.75, 0.32 * np.sin(t + turn)], -1)

    parts = _tube(strand(0.0), 0.07, 4 * np.pi, _one([0.8, -0.6, -0.6]))
    parts += _tube(strand(np.pi), 0.07, 4 * np.pi, _one([-0.6, -0.3, 0.8]))
    for t in np.linspace(0, 4 * np.pi, 13)[1:-1]:
        one, other = strand(0.0)(t), strand(np.pi)(t)
        parts += _tube(lambda u, a=one, b=other: a + u[:, None] * (b - a), 0.04, 1.0, _one([0.9, 0.9, 0.9]))
    return merge(parts)


def bent_loop() -> Model:
    """A closed band bent to an A, brown and pale in turns."""

    def path(t: np.ndarray) -> np.ndarray:
        x = 0.62 * np.sin(t) * (1 + 0.35 * np.cos(2 * t))
        y = 0.55 * np.cos(2 * t) * (0.75 + 0.25 * np.cos(t)) + 0.12 * np.cos(t)
        return np.stack([x, y, 0.12 * np.sin(3 * t)], -1)

    brown, pale = np.array([0.2, -0.35, -0.8]), np.array([0.7, 0.1, -0.5])
    return merge(_tube(path, 0.11, 2 * np.pi, lambda s: np.where(np.cos(4 * np.pi * s)[:, None] > 0, pale, brown)))


FORMS: dict[str, Callable[[], Model]] = {
    form.__name__: form
    for form in (
        torus_knot, coil, stella_octangula, letter_r, number_four, figure_eight_knot, linked_rings, borromean_rings,
        question_mark, moebius_strip, menger_sponge, cube_frame, toy_jack, five_cubes, double_helix, bent_loop,
    )
}  # fmt: skip
_THREE = [0.85, 0.2, 0.2], [0.2, 0.6, 0.3], [0.2, 0.3, 0.8]
"""Colours along x, y and z."""


def _one(colour: Sequence[float]) -> Callable:
    """The same all along a tube; each about [-1, 1]."""
    return lambda s: np.broadcast_to(np.array(colour), (len(s), 3))


def _two_faced(
    boxes: list[tuple[tuple[float, float], tuple[float, float]]], front: Sequence[float], back: Sequence[float]
) -> Model:
    """Boxes seen from the front, given by their corners, in another colour there than behind."""
    parts = []
    for z0, z1, colour in ((0.0, 0.2, front), (-0.2, 0.0, back)):
        parts += _boxes([((*low, z0), (*high, z1)) for low, high in boxes], colour)
    return merge(parts)


def _ring(
    middle: Sequence[float], one: Sequence[float], other: Sequence[float], radius: float, colour: Sequence[float]
) -> list[Part]:
    """A closed tube round `middle`, through the ends of these two half axes."""

    def path(t: np.ndarray) -> np.ndarray:
        return np.array(middle) + np.cos(t)[:, None] * np.array(one) + np.sin(t)[:, None] * np.array(other)

    return _tube(path, radius, 2 * np.pi, _one(colour))


def _tube(path: Callable, radius: float, length: float, colour: Callable) -> list[Part]:
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
    return parts


def _boxes(sizes: Iterable[tuple[Sequence[float], Sequence[float]]], colour: Sequence[float]) -> list[Part]:
    """Boxes from their low to their high corners."""
    return [(_box(low, high), np.zeros((12, 3, 2)), flat(list(colour))) for low, high in sizes]


def _box(low: Sequence[float], high: Sequence[float]) -> np.ndarray:
    """Twelve triangles."""
    corners = np.array([[(low, high)[i][0], (low, high)[j][1], (low, high)[k][2]]
                        for i in (0, 1) for j in (0, 1) for k in (0, 1)])  # fmt: skip
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return corners[np.array([face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))])]
