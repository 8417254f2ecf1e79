"""Ambient occlusion: how much of the sky over each point of a surface the object itself hides.

Parallel rays from many directions over the whole sphere, a grid of them each: the first surface that a ray meets sees
that direction, whatever lies behind does not. No ground, so that an object can be set down anywhere.
"""

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import Float

from magic3d_cli.asset.mesh import Faces, Vertices
from magic3d_cli.kernels.numba_cache import CACHE

DIRECTIONS = 128
RAYS = 512  # along each side of a direction's grid
_OFF = 1.5
"""Spacings of rays that a point is lifted off its surface: nearer, it would lie in the shade of its own triangle."""


def visibility(
    vertices: Vertices,
    faces: Faces,
    points: Float[np.ndarray, "N 3"],
    normals: Float[np.ndarray, "N 3"],
    directions: int = DIRECTIONS,
    rays: int = RAYS,
) -> Float[np.ndarray, "N"]:
    """Share of the sky, weighted by the cosine as matt surfaces are, that each point sees: 0 none, 1 all.

    Args:
        vertices, faces: what hides the sky.
        points: on the surface, world units.
        normals: unit, outward.
        directions: from which rays come.
        rays: along each side of a direction's grid.
    """
    middle = (vertices.min(0) + vertices.max(0)) / 2
    radius = max(float(np.linalg.norm(vertices - middle, axis=1).max()), 1e-12)
    spacing = 2.1 * radius / rays  # a rim of rays that meet nothing
    lifted = points - middle + normals * (_OFF * spacing)
    seen, sky = np.zeros(len(points)), np.zeros(len(points))
    for direction in _sphere(directions):
        side = np.cross(direction, np.eye(3)[np.abs(direction).argmin()])
        side /= np.linalg.norm(side)
        axes = np.stack([side, np.cross(direction, side), direction], 1)
        corners = (vertices - middle) @ axes / spacing
        corners[:, :2] += rays / 2
        nearest = np.full((rays, rays), -np.inf)
        _nearest(corners, faces, nearest)
        seen_from = lifted @ axes / spacing
        seen_from[:, :2] += rays / 2
        _add(seen_from, normals @ direction, nearest, seen, sky)
    return seen / np.maximum(sky, 1e-12)


def _sphere(count: int) -> Float[np.ndarray, "D 3"]:
    """Unit vectors spread evenly: a Fibonacci lattice."""
    height = 1 - (2 * np.arange(count) + 1) / count
    angle = np.arange(count) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], 1)


@numba.njit(cache=CACHE, nogil=True)
def _nearest(corners, faces, nearest):  # pragma: no cover - compiled
    """For each ray, along z through the middle of a cell, the greatest z at which it meets a face."""
    for f in range(faces.shape[0]):
        a, b, c = corners[faces[f, 0]], corners[faces[f, 1]], corners[faces[f, 2]]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if abs(area) < 1e-12:
            continue
        for y in range(int(np.ceil(min(a[1], b[1], c[1]) - 0.5)), int(np.floor(max(a[1], b[1], c[1]) - 0.5)) + 1):
            for x in range(int(np.ceil(min(a[0], b[0], c[0]) - 0.5)), int(np.floor(max(a[0], b[0], c[0]) - 0.5)) + 1):
                px, py = x + 0.5, y + 0.5
                wa = ((b[0] - px) * (c[1] - py) - (b[1] - py) * (c[0] - px)) / area
                wb = ((c[0] - px) * (a[1] - py) - (c[1] - py) * (a[0] - px)) / area
                wc = 1 - wa - wb
                if wa >= 0 and wb >= 0 and wc >= 0:
                    nearest[y, x] = max(nearest[y, x], wa * a[2] + wb * b[2] + wc * c[2])


@numba.njit(cache=CACHE, nogil=True)
def _add(points, cosine, nearest, seen, sky):  # pragma: no cover - compiled
    for i in range(points.shape[0]):
        if cosine[i] > 0:
            sky[i] += cosine[i]
            x, y = int(np.floor(points[i, 0])), int(np.floor(points[i, 1]))
            inside = 0 <= x < nearest.shape[1] and 0 <= y < nearest.shape[0]
            # A ray passes up to half a spacing beside the point; a slope of two is allowed for.
            if not inside or points[i, 2] + 1.0 >= nearest[y, x]:
                seen[i] += cosine[i]
