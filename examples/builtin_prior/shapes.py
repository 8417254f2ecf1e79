"""Shapes that no catalogue has. Here the simplest: spheres, stairs, a mushroom; the rest is in the shapes_* files.

Y up, facing +Z.
"""

from __future__ import annotations

import numpy as np
import trimesh
from shapes_arms import ARMS
from shapes_beasts import BEASTS
from shapes_birds import BIRDS
from shapes_buildings import BUILDINGS
from shapes_crawlers import CRAWLERS
from shapes_curios import CURIOS
from shapes_everyday import EVERYDAY
from shapes_flowers import FLOWERS
from shapes_fruit import FRUIT
from shapes_household import HOUSEHOLD
from shapes_landscape import LANDSCAPE
from shapes_meals import MEALS
from shapes_music import MUSIC
from shapes_pantry import PANTRY
from shapes_people import PEOPLE
from shapes_sea import SEA
from shapes_space import SPACE
from shapes_sport import SPORT
from shapes_styles import STYLES
from shapes_toys import TOYS
from shapes_treasure import TREASURE
from shapes_vehicles import VEHICLES
from shapes_workshop import WORKSHOP
from solids import turned, upright
from sources import Model, flat, merge

PALE = (0.75, 0.75, 0.77)


def _revolved(profile: list[tuple[float, float]]) -> trimesh.Trimesh:
    """The solid of revolution about +Y of (radius, height) points, from bottom to top."""
    return upright(trimesh.creation.revolve(np.array(profile), sections=48))


def _extruded(outline: np.ndarray, depth: float) -> trimesh.Trimesh:
    """A star-shaped outline [N, 2] in the x-y plane, `depth` thick."""
    count, half = len(outline), depth / 2
    rim = np.concatenate([np.c_[outline, np.full(count, z)] for z in (half, -half)])
    vertices = np.concatenate([rim, [[0, 0, half], [0, 0, -half]]])
    i, j = np.arange(count), np.roll(np.arange(count), -1)
    front, back = np.full(count, 2 * count), np.full(count, 2 * count + 1)
    faces = [np.c_[i, j, front], np.c_[j + count, i + count, back], np.c_[i, i + count, j]]
    return trimesh.Trimesh(vertices, np.concatenate([*faces, np.c_[j, i + count, j + count]]), process=False)


def _polar(radius: np.ndarray) -> np.ndarray:
    """Outline whose distance from the centre is `radius`, from the top, counterclockwise."""
    angle = np.pi / 2 + np.arange(len(radius)) / len(radius) * 2 * np.pi
    return np.c_[radius * np.cos(angle), radius * np.sin(angle)]


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    height = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.c_[-16 * np.sin(t) ** 3, height + 2] / 17


def _stairs() -> trimesh.Trimesh:
    steps = [trimesh.creation.box((1.2, 0.2 * (i + 1), 0.25)) for i in range(6)]
    for i, step in enumerate(steps):
        step.apply_translation((0, 0.1 * (i + 1), -0.25 * i))
    return trimesh.util.concatenate(steps)


def _dice() -> list[tuple[trimesh.Trimesh, tuple[float, float, float]]]:
    """Pips of 1 to 6, opposite faces adding up to seven."""
    at = {1: [(0, 0)], 2: [(-1, -1), (1, 1)], 4: [(-1, -1), (1, 1), (-1, 1), (1, -1)]}
    at[3], at[5], at[6] = at[1] + at[2], at[1] + at[4], at[4] + [(-1, 0), (1, 0)]
    turns = {1: ("y", 0), 6: ("y", 180), 2: ("y", 90), 5: ("y", -90), 3: ("x", -90), 4: ("x", 90)}
    parts = [(trimesh.creation.box((2, 2, 2)), (0.95, 0.95, 0.93))]
    for number, places in at.items():
        for x, y in places:
            pip = trimesh.creation.cylinder(0.2, 0.02)
            pip.apply_translation((0.5 * x, 0.5 * y, 1.01))
            parts.append((turned(pip, turns[number]), (0.08, 0.08, 0.1)))
    return parts


def _mushroom() -> list[tuple[trimesh.Trimesh, tuple[float, float, float]]]:
    stem = _revolved([(0, 0), (0.32, 0), (0.26, 0.3), (0.2, 0.9), (0, 0.9)])
    angle = np.linspace(0, np.pi / 2, 16)
    cap = _revolved([(0, 0.72), (0.7, 0.72), *zip(0.75 * np.cos(angle), 0.8 + 0.5 * np.sin(angle), strict=True)])
    parts = [(stem, (0.93, 0.9, 0.82)), (cap, (0.8, 0.08, 0.06))]
    for latitude, count in ((0.35, 7), (0.8, 5), (1.5, 1)):
        for k in range(count):
            spot = trimesh.creation.icosphere(2, 0.085)
            longitude = 2 * np.pi * (k + latitude) / count
            flat_radius = 0.75 * np.cos(latitude)
            spot.apply_translation(
                (flat_radius * np.sin(longitude), 0.8 + 0.5 * np.sin(latitude), flat_radius * np.cos(longitude))
            )
            parts.append((spot, (0.97, 0.96, 0.93)))
    return parts


def _parts(name: str) -> list[tuple[trimesh.Trimesh, tuple[float, float, float]]]:
    creation, turn = trimesh.creation, np.arange(180)
    egg = [(0.75 * np.sin(a) * (1 + 0.18 * np.cos(a)), -np.cos(a)) for a in np.linspace(0, np.pi, 40)]
    match name:
        case "sphere":
            return [(creation.icosphere(4), PALE)]
        case "cube":
            return [(creation.box((2, 2, 2)), PALE)]
        case "cylinder":
            return [(upright(creation.cylinder(0.6, 1.8)), PALE)]
        case "torus":
            return [(upright(creation.torus(0.75, 0.28)), PALE)]
        case "donut":
            icing = upright(creation.torus(0.62, 0.31))
            icing.apply_translation((0, 0.07, 0))
            return [(upright(creation.torus(0.62, 0.33)), (0.72, 0.45, 0.2)), (icing, (0.93, 0.5, 0.66))]
        case "egg":
            return [(_revolved(egg), (0.93, 0.87, 0.78))]
        case "stairs":
            return [(_stairs(), PALE)]
        case "star":
            radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
            return [(_extruded(_polar(radius), 0.35), (0.96, 0.82, 0.2))]
        case "heart":
            return [(_extruded(_heart(), 0.5), (0.85, 0.1, 0.14))]
        case "gear":
            radius = np.where(turn % 15 < 7, 1.0, 0.78)
            hub = creation.cylinder(0.22, 0.5)
            return [(_extruded(_polar(radius), 0.35), (0.55, 0.56, 0.58)), (hub, (0.35, 0.36, 0.38))]
        case "mushroom":
            return _mushroom()
        case "dice":
            return _dice()
        case "ice_cream":
            ball = creation.icosphere(3, 0.5)
            ball.apply_translation((0, 0.25, 0))
            return [(_revolved([(0, -1.1), (0.45, 0.15), (0, 0.15)]), (0.82, 0.6, 0.32)), (ball, (0.96, 0.86, 0.8))]
        case "diamond":
            gem = trimesh.creation.revolve(np.array([(0, -0.8), (0.8, 0.15), (0.45, 0.5), (0, 0.5)]), sections=8)
            return [(upright(gem), (0.65, 0.86, 0.95))]
    raise ValueError(f"no shape is called {name!r}")


COMPOSED = {
    **FRUIT,
    **MEALS,
    **ARMS,
    **TREASURE,
    **HOUSEHOLD,
    **TOYS,
    **EVERYDAY,
    **MUSIC,
    **BIRDS,
    **CRAWLERS,
    **SEA,
    **BEASTS,
    **PEOPLE,
    **SPACE,
    **VEHICLES,
    **BUILDINGS,
    **LANDSCAPE,
    **FLOWERS,
    **SPORT,
    **PANTRY,
    **CURIOS,
    **WORKSHOP,
    **STYLES,
}
"""Shapes that are put together from solids, by name."""


def make_shape(name: str) -> Model:
    """The triangles of a named shape, a flat colour for each part. Raises ValueError for unknown names."""
    parts = []
    for mesh, colour in COMPOSED[name]() if name in COMPOSED else _parts(name):
        triangles = np.asarray(mesh.triangles, np.float32)
        parts.append((triangles, np.zeros((len(triangles), 3, 2), np.float32), flat(list(colour))))
    return merge(parts)
