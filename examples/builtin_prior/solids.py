"""Simple solids of one colour each, of which shapes are put together. Y up, facing +Z."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import trimesh

Colour = tuple[float, float, float]
Point = Sequence[float]
Part = tuple[trimesh.Trimesh, Colour]

RED, ORANGE, YELLOW, GREEN, BLUE = (
    (0.8, 0.1, 0.1),
    (0.95, 0.5, 0.1),
    (0.97, 0.82, 0.2),
    (0.2, 0.6, 0.2),
    (0.15, 0.3, 0.8),
)
LEAF, BROWN, TAN, WOOD, DARKWOOD = (
    (0.2, 0.5, 0.15),
    (0.4, 0.24, 0.12),
    (0.82, 0.66, 0.45),
    (0.62, 0.42, 0.22),
    (0.36, 0.22, 0.12),
)
WHITE, PALE, GREY, DARK, BLACK = (
    (0.95, 0.95, 0.93),
    (0.75, 0.75, 0.77),
    (0.5, 0.5, 0.52),
    (0.25, 0.25, 0.27),
    (0.07, 0.07, 0.08),
)
STEEL, GOLD, BRASS, COPPER, STONE = (
    (0.72, 0.74, 0.78),
    (0.95, 0.76, 0.25),
    (0.78, 0.6, 0.25),
    (0.75, 0.42, 0.25),
    (0.6, 0.58, 0.54),
)
PINK, PURPLE, CYAN, NAVY, CREAM = (
    (0.93, 0.55, 0.68),
    (0.5, 0.2, 0.65),
    (0.4, 0.8, 0.9),
    (0.1, 0.15, 0.4),
    (0.93, 0.88, 0.75),
)
SKIN, GLASS, LIME = (0.9, 0.7, 0.56), (0.6, 0.8, 0.9), (0.55, 0.75, 0.2)  # fmt: skip


def turned(mesh: trimesh.Trimesh, *axes_and_degrees: tuple[str, float]) -> trimesh.Trimesh:
    """Turned about the axes one after the other, in place."""
    for axis, degrees in axes_and_degrees:
        direction = [float(axis == a) for a in "xyz"]
        mesh.apply_transform(trimesh.transformations.rotation_matrix(np.deg2rad(degrees), direction))
    return mesh


def upright(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """trimesh builds along +Z; the world's up is +Y."""
    return turned(mesh, ("x", -90))


def placed(mesh: trimesh.Trimesh, at: Point, turn: Sequence[tuple[str, float]] = ()) -> trimesh.Trimesh:
    """Turned, then moved, in place."""
    turned(mesh, *turn)
    mesh.apply_translation(at)
    return mesh


def ball(at: Point, size: float | Point, colour: Colour, *turn: tuple[str, float]) -> Part:
    """An ellipsoid with these half-axes."""
    mesh = trimesh.creation.icosphere(3)
    mesh.apply_scale(size if np.isscalar(size) else list(size))
    return placed(mesh, at, turn), colour


def box(at: Point, size: Point, colour: Colour, *turn: tuple[str, float]) -> Part:
    return placed(trimesh.creation.box(size), at, turn), colour


def lathe(
    profile: Sequence[Point], colour: Colour, at: Point = (0, 0, 0), *turn: tuple[str, float], sides: int = 40
) -> Part:
    """The solid of revolution about +Y of (radius, height) points, from bottom to top."""
    mesh = upright(trimesh.creation.revolve(np.array(profile, float), sections=sides))
    return placed(mesh, at, turn), colour


def rod(start: Point, end: Point, radius: float, colour: Colour, tip: float | None = None, sides: int = 20) -> Part:
    """A round bar from one point to another; with `tip`, of that radius at its end."""
    a, b = np.array(start, float), np.array(end, float)
    length = np.linalg.norm(b - a)
    tip = radius if tip is None else tip
    mesh = trimesh.creation.revolve(np.array([(0, 0), (radius, 0), (tip, length), (0, length)]), sections=sides)
    mesh.apply_transform(trimesh.geometry.align_vectors([0, 0, 1], (b - a) / length))
    return placed(mesh, a), colour


def tube(points: Sequence[Point], radius: float | Sequence[float], colour: Colour, sides: int = 14) -> list[Part]:
    """A bent bar through points, round at its joints."""
    radii = [radius] * len(points) if np.isscalar(radius) else list(radius)
    pieces = [piece for piece in zip(points, points[1:], radii, radii[1:], strict=False) if not np.allclose(*piece[:2])]
    parts = [rod(a, b, r, colour, s, sides) for a, b, r, s in pieces]
    return parts + [ball(p, r, colour) for p, r in zip(points, radii, strict=True)]


def arc(at: Point, radius: float, start: float, end: float, count: int = 16, plane: str = "xy") -> list[list[float]]:
    """Points on a circle, degrees counted from the first axis of its plane to the second."""
    angles = np.deg2rad(np.linspace(start, end, count))
    points = np.tile(np.array(at, float), (count, 1))
    points[:, "xyz".index(plane[0])] += radius * np.cos(angles)
    points[:, "xyz".index(plane[1])] += radius * np.sin(angles)
    return points.tolist()


def ring(at: Point, radius: float, thick: float, colour: Colour, *turn: tuple[str, float]) -> Part:
    """A torus lying flat before it is turned."""
    return placed(upright(trimesh.creation.torus(radius, thick)), at, turn), colour


def plate(
    outline: Sequence[Point], depth: float, colour: Colour, at: Point = (0, 0, 0), *turn: tuple[str, float]
) -> Part:
    """A simple outline in the x-y plane, counterclockwise, `depth` thick."""
    points, count = np.array(outline, float), len(outline)
    vertices = np.concatenate([np.c_[points, np.full(count, z)] for z in (depth / 2, -depth / 2)])
    caps = np.array(_ears(points))
    i, j = np.arange(count), np.roll(np.arange(count), -1)
    rim = np.concatenate([np.c_[i, i + count, j], np.c_[j, i + count, j + count]])
    mesh = trimesh.Trimesh(vertices, np.concatenate([caps, caps[:, ::-1] + count, rim]), process=False)
    return placed(mesh, at, turn), colour


def _ears(points: np.ndarray) -> list[tuple[int, int, int]]:
    """Triangles of a simple counterclockwise polygon, one ear after the other."""
    left, triangles = list(range(len(points))), []

    def side(a: int, b: int, c: int) -> float:
        (ax, ay), (bx, by), (cx, cy) = points[a], points[b], points[c]
        return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)

    while len(left) > 3:
        for n in range(len(left)):
            a, b, c = left[n - 1], left[n], left[(n + 1) % len(left)]
            others = (p for p in left if p not in (a, b, c))
            if side(a, b, c) > 0 and not any(
                side(a, b, p) >= 0 and side(b, c, p) >= 0 and side(c, a, p) >= 0 for p in others
            ):
                break
        else:
            n = 1  # nothing but slivers is left
            a, b, c = left[0], left[1], left[2]
        triangles.append((a, b, c))
        del left[n]
    return [*triangles, (left[0], left[1], left[2])]


def mirrored(parts: list[Part]) -> list[Part]:
    """The parts, and their images on the other side of x = 0."""
    images = []
    for mesh, colour in parts:
        image = mesh.copy()
        image.apply_transform(np.diag([-1.0, 1.0, 1.0, 1.0]))
        images.append((image, colour))
    return parts + images


def moved(parts: list[Part], at: Point = (0, 0, 0), scale: float | Point = 1.0, *turn: tuple[str, float]) -> list[Part]:
    """The parts scaled, turned and moved together."""
    out = []
    for mesh, colour in parts:
        mesh = mesh.copy()
        mesh.apply_scale(scale if np.isscalar(scale) else list(scale))
        out.append((placed(mesh, at, turn), colour))
    return out


def around(parts: list[Part], count: int, axis: str = "y", first: float = 0.0) -> list[Part]:
    """Copies of the parts, evenly about an axis."""
    return [part for k in range(count) for part in moved(parts, (0, 0, 0), 1.0, (axis, first + 360 * k / count))]
