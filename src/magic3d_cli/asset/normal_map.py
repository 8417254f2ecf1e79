"""A normal map: the fine surface's normals, baked into the frame of the simplified mesh's texture.

The frame is made as MikkTSpace makes it (Mikkelsen 2008), which readers use where they are told none (OBJ; glTF 2.0
section 3.7.2.1): per vertex the direction of growing u, weighted by the angle of each face there, made perpendicular to
the normal; the bitangent points up in the picture. GLB files tell the tangents, so that nobody has to guess.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.spatial import cKDTree

from magic3d_cli.asset.bake import Texels, to_bytes
from magic3d_cli.asset.mesh import Faces, Vertices, at_samples, surface_samples, unit, vertex_normals

_SAMPLES = 400_000  # of the fine surface
_NEAREST = 4


def tangent_frames(
    positions: Float[np.ndarray, "V 3"],
    normals: Float[np.ndarray, "V 3"],
    uvs: Float[np.ndarray, "V 2"],
    faces: Int[np.ndarray, "F 3"],
) -> Float[np.ndarray, "V 4"]:
    """Unit tangent of each vertex, and 1 or -1: bitangent = cross(normal, tangent) times that.

    Vertices are split where texture coordinates are.
    """
    corners, places = positions[faces], uvs[faces]
    one, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    (u1, v1), (u2, v2) = ((places[:, k] - places[:, 0]).T[..., None] for k in (1, 2))
    turning = u1 * v2 - u2 * v1
    along = (v2 * one - v1 * other) * np.sign(turning)  # of growing u; its length does not matter
    mirrored = np.zeros(len(positions))
    tangent = np.zeros((len(positions), 3))
    for corner in range(3):
        here = faces[:, corner]
        right, left = (unit(_flat(corners[:, (corner + k) % 3] - corners[:, corner], normals[here])) for k in (1, 2))
        weight = np.arccos(np.clip((right * left).sum(1), -1, 1))[:, None]
        np.add.at(tangent, here, weight * unit(_flat(along, normals[here])) * (turning != 0))
        np.add.at(mirrored, here, (weight * np.sign(turning))[:, 0])
    tangent = unit(_flat(tangent, normals))
    # v points down: a face that turns clockwise in (u, v) is seen in the picture as it is from outside.
    return np.concatenate([tangent, np.where(mirrored > 0, -1.0, 1.0)[:, None]], 1)


def _flat(vectors: Float[np.ndarray, "N 3"], normals: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    return vectors - normals * (vectors * normals).sum(1, keepdims=True)


def bake_normals(
    positions: Float[np.ndarray, "V 3"],
    normals: Float[np.ndarray, "V 3"],
    tangents: Float[np.ndarray, "V 4"],
    texels: Texels,
    fine_vertices: Vertices,
    fine_faces: Faces,
) -> UInt8[np.ndarray, "H W 3"]:
    """The map in glTF's encoding: x right, y up, z out of the surface, 0..255 for -1..1.

    Args:
        positions, normals: of the simplified mesh, its vertices split at texture seams.
        tangents: `tangent_frames` of it.
        texels: of its texture.
        fine_vertices, fine_faces: the mesh before it was simplified.
    """
    fine = _Fine(fine_vertices, fine_faces)

    def encoded(
        points: Float[np.ndarray, "N 3"], normal: Float[np.ndarray, "N 3"], tangent: Float[np.ndarray, "N 4"]
    ) -> UInt8[np.ndarray, "N 3"]:
        # As readers do it: both interpolated, the bitangent made of them.
        bitangent = np.cross(normal, tangent[:, :3]) * np.where(tangent[:, 3:] < 0, -1.0, 1.0)
        frame = np.stack([unit(part) for part in (tangent[:, :3], bitangent, normal)], 2) + np.eye(3) * 1e-9
        local = unit(np.linalg.solve(frame, fine.normals(points, unit(normal))[..., None])[..., 0])
        local[:, 2] = np.maximum(local[:, 2], 0.05)  # never behind the surface
        return to_bytes(unit(local) / 2 + 0.5)

    return texels.image(encoded, positions, normals, tangents)


class _Fine:
    """The fine surface as points with normals."""

    def __init__(self, vertices: Vertices, faces: Faces) -> None:
        face, weights = surface_samples(vertices, faces, _SAMPLES)
        self._normals = unit(at_samples(vertex_normals(vertices, faces), faces, face, weights))
        self._tree = cKDTree(at_samples(vertices, faces, face, weights))

    def normals(self, points: Float[np.ndarray, "N 3"], facing: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        """Those nearest to each point, of the side that faces as the point does."""
        distance, index = self._tree.query(points, k=_NEAREST, workers=-1)
        near = self._normals[index]
        weight = np.where((near * facing[:, None]).sum(2) > 0.2, 1 / np.maximum(distance, 1e-4) ** 2, 0.0)
        return unit(np.where(weight.sum(1, keepdims=True) > 0, (near * weight[..., None]).sum(1), facing))
