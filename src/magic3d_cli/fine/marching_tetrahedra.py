"""Differentiable marching tetrahedra: signed distances at a tetrahedral grid's vertices -> a closed mesh.

Doi and Koide, "An efficient method of triangulating equi-valued surfaces by using tetrahedral cells", 1991;
made differentiable in Shen et al., "Deep Marching Tetrahedra", arXiv 2111.04276, section 3.1.
"""

from __future__ import annotations

from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_EDGES = list(combinations(range(4), 2))  # the six edges of a tetrahedron


def _case_table() -> tuple[Int[Tensor, "16 2 3"], Int[Tensor, "16"]]:
    """For each set of inside vertices (bit i = vertex i): up to two triangles of edge numbers, and how many.

    Built from the geometry of one positively oriented tetrahedron, so that the winding is outward by
    construction: counter-clockwise seen from the outside vertices.
    """
    corner = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    triangles = torch.zeros(16, 2, 3, dtype=torch.long)
    count = torch.zeros(16, dtype=torch.long)
    for case in range(1, 15):
        inside = [i for i in range(4) if case >> i & 1]
        outside = [i for i in range(4) if not case >> i & 1]
        if len(inside) == 2:
            (p, q), (r, s) = inside, outside
            ring = [(p, r), (p, s), (q, s), (q, r)]
        else:
            ring = [(i, o) for i in inside for o in outside]
        middle = torch.stack([(corner[i] + corner[o]) / 2 for i, o in ring])
        normal = torch.linalg.cross(middle[1] - middle[0], middle[2] - middle[0])
        if normal @ (corner[outside].mean(0) - corner[inside].mean(0)) < 0:
            ring.reverse()
        edges = [_EDGES.index((min(edge), max(edge))) for edge in ring]
        count[case] = len(ring) - 2
        for k in range(len(ring) - 2):
            triangles[case, k] = torch.tensor([edges[0], edges[k + 1], edges[k + 2]])
    return triangles, count


_TRIANGLES, _COUNT = _case_table()


def marching_tetrahedra(
    vertices: Float[Tensor, "V 3"], sdf: Float[Tensor, "V"], tetrahedra: Int[Tensor, "T 4"]
) -> tuple[Float[Tensor, "N 3"], Int[Tensor, "F 3"]]:
    """The zero level of `sdf` (negative inside), linear in each tetrahedron.

    Every crossed grid edge gives one vertex, shared by all triangles around it, so that the mesh is closed
    and manifold if no boundary vertex of the grid is inside. Gradients reach `vertices` and `sdf`; which
    edges are crossed is fixed by the signs and has none. A value of exactly 0 counts as outside.

    Args:
        tetrahedra: positively oriented (see `Lattice.tetrahedra`), else the winding is inward.

    Returns:
        Vertices, and int64 faces that are counter-clockwise seen from outside.
    """
    total = vertices.shape[0]
    inside = sdf.detach() < 0
    corners = torch.index_select(inside, 0, tetrahedra.reshape(-1)).view(-1, 4)
    case = (corners * torch.tensor([1, 2, 4, 8], device=sdf.device, dtype=torch.uint8)).sum(-1)
    crossed = ((case > 0) & (case < 15)).nonzero()[:, 0]
    case, tet = case[crossed], tetrahedra[crossed].long()  # only these hold any surface

    first, second = torch.tensor(_EDGES, device=sdf.device).T
    low, high = torch.minimum(tet[:, first], tet[:, second]), torch.maximum(tet[:, first], tet[:, second])
    edge_key = low * total + high  # one number for a grid edge, whichever tetrahedron names it: (S, 6)
    triangles, count = _TRIANGLES.to(sdf.device)[case], _COUNT.to(sdf.device)[case]
    corner_key = torch.cat([edge_key[count > k].gather(1, triangles[count > k, k]) for k in range(2)])  # (F, 3)
    keys, faces = torch.unique(corner_key, return_inverse=True)

    # index_select, not advanced indexing: the latter's backward adds in a racy order on several CPU threads.
    a, b = keys.div(total, rounding_mode="floor"), keys % total
    sdf_a, sdf_b = sdf.index_select(0, a), sdf.index_select(0, b)
    share = (sdf_a / (sdf_a - sdf_b))[:, None]  # signs differ, so this is finite and in [0, 1]
    start, end = vertices.index_select(0, a), vertices.index_select(0, b)
    return start + share * (end - start), faces.view(-1, 3)
