"""Make walls flat: the mesh comes from a volume, and what should be flat waves by a few degrees.

Bilateral filtering of face normals and the vertices moved to fit them (Zheng, Fu, Au, Tai 2011, "Bilateral normal
filtering for mesh denoising", the local, iterative scheme): a normal takes the mean of its neighbours that differ
little from it, so that waves go and creases stay. Only on walls: an animal would lose its knees. For simplified
meshes, in which few faces span a wave.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix, csr_matrix

from magic3d_cli.asset.mesh import Faces, Vertices, face_areas, face_neighbours, face_vectors, label_components, unit

ALIKE = 0.25
"""How far apart two unit normals of one wall may be, one standard deviation: 14 degrees."""
SMOOTH, LARGEST_TURN = 4.0, 14.0
"""Degrees: between neighbours of one wall, and between nine tenths of a wall and its mean, once it is filtered."""
SMALLEST = 0.01
"""A wall's share of the surface, at least."""
ROUNDS, MOVES = 10, 20
FARTHEST = 0.012
"""No vertex moves farther, in world units: three quarters of a voxel of the built-in prior."""


def flatten(vertices: Vertices, faces: Faces) -> Vertices:
    """Vertices of a clean mesh; those of its walls moved by at most FARTHEST, along what its faces should face."""
    normals = _filtered(vertices, faces)
    free = np.unique(faces[_walls(normals, faces, face_areas(vertices, faces))])
    if not len(free):
        return vertices
    mobile = np.zeros((len(vertices), 1))
    mobile[free] = 1.0
    moved = vertices
    count = np.bincount(faces.reshape(-1), minlength=len(vertices))[:, None]
    spread = _spread(faces, len(vertices))
    for _ in range(MOVES):
        middle = moved[faces].mean(1)
        step = np.zeros_like(moved)
        for corner in range(3):
            off = ((middle - moved[faces[:, corner]]) * normals).sum(1, keepdims=True)
            step += spread[corner] @ (off * normals)
        moved = moved + mobile * step / np.maximum(count, 1)
        away = moved - vertices
        length = np.linalg.norm(away, axis=1, keepdims=True)
        moved = vertices + away * np.minimum(1.0, FARTHEST / np.maximum(length, 1e-12))
    turned = (unit(face_vectors(moved, faces)) * unit(face_vectors(vertices, faces))).sum(1) < 0.3
    kept = np.unique(faces[turned])  # where a thin part would fold, nothing is done
    moved[kept] = vertices[kept]
    return moved


def _filtered(vertices: Vertices, faces: Faces) -> Float[np.ndarray, "F 3"]:
    """The normals that faces should have."""
    area = face_areas(vertices, faces)
    normals = unit(face_vectors(vertices, faces))
    one, other = _touching(faces, len(vertices))
    for _ in range(ROUNDS):
        apart = ((normals[one] - normals[other]) ** 2).sum(1)
        weight = area[other] * np.exp(-apart / (2 * ALIKE**2))
        mean = csr_matrix((weight, (one, other)), shape=(len(faces), len(faces))) @ normals
        normals = unit(mean + normals * area[:, None])
    return normals


def _walls(normals: Float[np.ndarray, "F 3"], faces: Faces, area: Float[np.ndarray, "F"]) -> Bool[np.ndarray, "F"]:
    """Faces of what is large and nearly flat."""
    one, other = face_neighbours(faces).T
    smooth = (normals[one] * normals[other]).sum(1) > np.cos(np.radians(SMOOTH))
    wall = label_components(len(faces), np.stack([one, other], 1)[smooth])
    size = np.bincount(wall, area)
    mean = unit(np.stack([np.bincount(wall, area * normals[:, axis]) for axis in range(3)], 1))
    aligned = (normals * mean[wall]).sum(1) > np.cos(np.radians(LARGEST_TURN))
    flat = np.bincount(wall, area * aligned) > 0.9 * size
    return (flat & (size > SMALLEST * area.sum()))[wall]


def _touching(faces: Faces, vertices: int) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
    """Pairs of faces that share a vertex, both ways."""
    rows = np.repeat(np.arange(len(faces)), 3)
    of = coo_matrix(
        (np.ones(3 * len(faces), np.int32), (rows, faces.reshape(-1))), shape=(len(faces), vertices)
    ).tocsr()
    pairs = (of @ of.T).tocoo()
    different = pairs.row != pairs.col
    return pairs.row[different], pairs.col[different]


def _spread(faces: Faces, vertices: int) -> list[csr_matrix]:
    """Matrices that add what each face says of its corner to that vertex."""
    ones, columns = np.ones(len(faces)), np.arange(len(faces))
    shape = (vertices, len(faces))
    return [coo_matrix((ones, (faces[:, corner], columns)), shape=shape).tocsr() for corner in range(3)]
