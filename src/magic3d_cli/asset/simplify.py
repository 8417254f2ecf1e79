"""Fewer faces: quadric edge collapse (Garland and Heckbert 1997), then repair of what it folds or pinches."""

from __future__ import annotations

from collections.abc import Callable

import fast_simplification
import numpy as np
from jaxtyping import Bool
from scipy.spatial import cKDTree

from magic3d_cli.asset.clean import clean
from magic3d_cli.asset.mesh import Faces, Vertices, face_vectors, neighbour_means, unit


def simplify(vertices: Vertices, faces: Faces, target: int) -> tuple[Vertices, Faces]:
    """At most `target` faces of a clean mesh, as far as its topology allows; the result is clean too.

    A mesh that is already small enough is returned as it is.
    """
    if len(faces) <= target:
        return vertices, faces
    goal = target
    # The collapse checks neither the link condition nor, always, its count; both are made good here, the
    # latter by a more aggressive threshold and by leaving room for the edges that repair splits.
    for aggression in (5.0, 6.0, 7.0, 8.0, 9.0):
        points, triangles = fast_simplification.simplify(
            vertices, faces.astype(np.int32), target_count=max(goal, 4), agg=aggression
        )
        points = unfold(np.asarray(points, np.float64), np.asarray(triangles, np.int64), vertices, faces)
        points, triangles, _ = clean(points, triangles.astype(np.int64))
        if len(triangles) <= target:
            break
        goal -= len(triangles) - target
    return points, triangles


HUGE = 200_000
"""Faces above which a mesh is reduced before it is repaired: repair takes seconds a hundred thousand."""


def small_enough(vertices: Vertices, faces: Faces, tell: Callable[[str], None]) -> tuple[Vertices, Faces]:
    """A mesh as it is, or one of too many faces reduced to HUGE, which is told."""
    if len(faces) <= HUGE:
        return vertices, faces
    tell(f"The mesh has {len(faces):,} faces; it is simplified to {HUGE:,} before it is repaired.")
    points, triangles = fast_simplification.simplify(vertices, faces.astype(np.int32), target_count=HUGE, agg=7.0)
    return np.asarray(points, np.float64), np.asarray(triangles, np.int64)


def flipped_faces(
    vertices: Vertices, faces: Faces, reference_vertices: Vertices, reference_faces: Faces
) -> Bool[np.ndarray, "F"]:
    """Faces whose normal opposes every one of the eight nearest faces of the reference surface."""
    tree = cKDTree(reference_vertices[reference_faces].mean(1))
    nearest = tree.query(vertices[faces].mean(1), k=min(8, len(reference_faces)), workers=-1)[1]
    nearest = nearest.reshape(len(faces), -1)
    reference = unit(face_vectors(reference_vertices, reference_faces))
    agreement = np.einsum("fkc,fc->fk", reference[nearest], unit(face_vectors(vertices, faces)))
    return agreement.max(1) < 0


def unfold(vertices: Vertices, faces: Faces, reference_vertices: Vertices, reference_faces: Faces) -> Vertices:
    """Relax the vertices of folded-over faces toward their neighbours until no face opposes the reference."""
    for _ in range(5):
        flipped = flipped_faces(vertices, faces, reference_vertices, reference_faces)
        if not flipped.any():
            break
        move = np.zeros(len(vertices), bool)
        move[faces[flipped]] = True
        vertices = np.where(move[:, None], neighbour_means(vertices, faces), vertices)
    return vertices
