"""What a triangle mesh needs beyond its triangles: edges with the faces beside them, normals, smoothness."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Edges:
    """The E undirected edges of a mesh and the two faces beside each; -1 where there is only one."""

    ends: Int[Tensor, "E 2"]
    faces: Int[Tensor, "E 2"]


def mesh_edges(faces: Int[Tensor, "F 3"], vertex_count: int) -> Edges:
    """Every edge once. Where more than two faces share an edge, two of them are kept."""
    ends = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    # minimum of two columns, not amin: reducing rows of two is thirty times slower.
    low, high = torch.minimum(*ends.unbind(1)), torch.maximum(*ends.unbind(1))
    keys, order = (low * vertex_count + high).sort(stable=True)
    keys, count = torch.unique_consecutive(keys, return_counts=True)
    first = count.cumsum(0) - count
    face = order % max(len(faces), 1)
    other = torch.where(count > 1, face[(first + 1).clamp(max=max(len(face) - 1, 0))], -1)
    low = keys.div(vertex_count, rounding_mode="floor")
    return Edges(torch.stack([low, keys % vertex_count], 1), torch.stack([face[first], other], 1))


def face_normals(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "F 3"]:
    """Outward normals, twice the face's area long."""
    a, b, c = vertices.index_select(0, faces.T.reshape(-1)).view(3, -1, 3)
    return torch.linalg.cross(b - a, c - a)


def vertex_normals(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "V 3"]:
    """Unit normals: the area-weighted mean over the faces around each vertex."""
    normals = face_normals(vertices, faces)
    total = torch.zeros_like(vertices).index_add(0, faces.T.reshape(-1), normals.repeat(3, 1))
    return F.normalize(total, dim=-1, eps=1e-12)


def normal_consistency(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], edges: Edges) -> Float[Tensor, ""]:
    """Mean of 1 - cos of the angle between adjacent faces: 0 for a plane (Magic3D section 4.2).

    Each edge counts as much as the smaller of its two faces. Slivers, which marching tetrahedra makes by the
    hundred, have meaningless normals whose gradient grows without bound as their area goes to zero.
    """
    normals = face_normals(vertices, faces)
    doubled = normals.norm(dim=-1)
    unit = normals / doubled.clamp(min=1e-12)[:, None]
    pairs = edges.faces[edges.faces[:, 1] >= 0]
    left, right = unit.index_select(0, pairs[:, 0]), unit.index_select(0, pairs[:, 1])
    area = doubled.detach()
    weight = torch.minimum(area[pairs[:, 0]], area[pairs[:, 1]])
    return (weight * (1 - (left * right).sum(-1))).sum() / weight.sum().clamp(min=1e-20)
