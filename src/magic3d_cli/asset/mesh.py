"""Triangle meshes as plain arrays: measures, normals, components and the pairing of half-edges.

A mesh is vertices float64 [V, 3] and faces int64 [F, 3], counter-clockwise seen from outside.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Vertices = Float[np.ndarray, "V 3"]
Faces = Int[np.ndarray, "F 3"]


def face_vectors(vertices: Vertices, faces: Faces) -> Float[np.ndarray, "F 3"]:
    """Cross product of two edges of each face: the outward normal times twice the area."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def face_areas(vertices: Vertices, faces: Faces) -> Float[np.ndarray, "F"]:
    """Area of each face, in squared world units."""
    return np.linalg.norm(face_vectors(vertices, faces), axis=1) / 2


def surface_samples(
    vertices: Vertices, faces: Faces, count: int
) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N 3 1"]]:
    """Faces and barycentric weights of points spread evenly over the surface; the same ones every time."""
    rng = np.random.default_rng(0)
    area = face_areas(vertices, faces)
    face = np.searchsorted(np.cumsum(area), rng.random(count) * area.sum()).clip(max=len(area) - 1)
    return face, rng.dirichlet(np.ones(3), count)[:, :, None]


def unit(vectors: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """Vectors scaled to length 1; a zero vector becomes +Y, since glTF forbids zero normals."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(length > 1e-20, vectors / np.maximum(length, 1e-20), [0.0, 1.0, 0.0])


def vertex_normals(vertices: Vertices, faces: Faces) -> Float[np.ndarray, "V 3"]:
    """Smooth unit normals: face normals weighted by their angle there (Thuermer and Wuethrich 1998)."""
    normals = unit(face_vectors(vertices, faces))
    normals[face_areas(vertices, faces) < 1e-18] = 0  # a collinear face has no direction
    total = np.zeros((len(vertices), 3))
    for corner in range(3):
        here, right, left = (vertices[faces[:, (corner + k) % 3]] for k in range(3))
        cosine = (unit(right - here) * unit(left - here)).sum(1)
        weight = np.arccos(np.clip(cosine, -1, 1))[:, None]
        for axis in range(3):
            total[:, axis] += np.bincount(faces[:, corner], (weight * normals)[:, axis], minlength=len(vertices))
    return unit(total)


def neighbour_means(vertices: Vertices, faces: Faces) -> Vertices:
    """Mean of the neighbours of each vertex, each counted once per shared edge direction."""
    directed, _ = half_edges(faces)
    count = len(vertices)
    sums = [np.bincount(directed[:, 0], vertices[directed[:, 1], k], minlength=count) for k in range(3)]
    degree = np.bincount(directed[:, 0], minlength=count)
    return np.stack(sums, 1) / np.maximum(degree, 1)[:, None]


def signed_volume(vertices: Vertices, faces: Faces) -> float:
    """Enclosed volume of a closed mesh; negative when the faces are wound inward."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def half_edges(faces: Faces) -> tuple[Int[np.ndarray, "H 2"], Int[np.ndarray, "H"]]:
    """Directed edges (from, to) of all faces and, for each, the index of its undirected edge.

    Half-edge h belongs to face h // 3 and starts at that face's corner h % 3.
    """
    directed = np.stack([faces, np.roll(faces, -1, axis=1)], axis=2).reshape(-1, 2)
    low, high = directed.min(1), directed.max(1)
    _, edge = np.unique(low * (int(faces.max(initial=0)) + 1) + high, return_inverse=True)
    return directed, edge.reshape(-1)


def edge_groups(
    edge: Int[np.ndarray, "H"],
) -> tuple[Int[np.ndarray, "H"], Int[np.ndarray, "E"], Int[np.ndarray, "E"]]:
    """Half-edges sorted by undirected edge, with the start and the length of each edge's run."""
    order = np.argsort(edge, kind="stable")
    counts = np.bincount(edge)
    return order, np.cumsum(counts) - counts, counts


def label_components(count: int, pairs: Int[np.ndarray, "P 2"]) -> Int[np.ndarray, "count"]:
    """Component number of each of `count` nodes joined by `pairs`."""
    ones = np.ones(len(pairs), dtype=np.int8)
    return connected_components(coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count)), False)[1]


def vertex_components(count: int, faces: Faces) -> Int[np.ndarray, "count"]:
    """Component number of each of `count` vertices; those of a face are joined."""
    return label_components(count, np.concatenate([faces[:, :2], faces[:, 1:]]))


def face_components(faces: Faces) -> Int[np.ndarray, "F"]:
    """Component number of each face; faces are joined by shared vertices."""
    return vertex_components(int(faces.max(initial=-1)) + 1, faces)[faces[:, 0]]


def joints(faces: Faces) -> tuple[Int[np.ndarray, "H 2"], Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
    """Directed edges of all half-edges, and the two half-edges of each edge that exactly two faces use."""
    directed, edge = half_edges(faces)
    order, start, counts = edge_groups(edge)
    start = start[counts == 2]
    return directed, order[start], order[start + 1]


def face_neighbours(faces: Faces) -> Int[np.ndarray, "P 2"]:
    """Pairs of faces that share an edge used by exactly two faces."""
    _, one, other = joints(faces)
    return np.stack([one // 3, other // 3], axis=1)


def at_samples(
    values: Float[np.ndarray, "V K"], faces: Faces, face: Int[np.ndarray, "N"], weights: Float[np.ndarray, "N 3 1"]
) -> Float[np.ndarray, "N K"]:
    """What lies between the vertices' values at the points of `surface_samples`."""
    return (values[faces[face]] * weights).sum(1)


def drop_unused(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces]:
    """The same mesh without vertices that no face uses."""
    used, index = np.unique(faces, return_inverse=True)
    return vertices[used], index.reshape(-1, 3)


def is_watertight(faces: Faces) -> bool:
    """True when every edge joins exactly two faces that traverse it in opposite directions."""
    if len(faces) == 0:
        return False
    directed, edge = half_edges(faces)
    forward = np.bincount(edge, directed[:, 0] < directed[:, 1])
    return bool((np.bincount(edge) == 2).all() and (forward == 1).all())


def is_manifold(faces: Faces) -> bool:
    """True when edges have at most two faces and the faces round every vertex form one fan."""
    _, edge = half_edges(faces)
    order, start, counts = edge_groups(edge)
    if counts.max(initial=0) > 2:
        return False
    first, second = order[start[counts == 2]], order[start[counts == 2] + 1]
    corners = label_components(len(faces) * 3, paired_corners(faces, first, second))
    fans = np.unique(np.stack([faces.reshape(-1), corners], 1), axis=0)
    return len(fans) == len(np.unique(faces))


def paired_corners(faces: Faces, first: Int[np.ndarray, "P"], second: Int[np.ndarray, "P"]) -> Int[np.ndarray, "Q 2"]:
    """Pairs of face corners (3 f + i) that coincide when half-edges `first` and `second` are glued."""
    flat = faces.reshape(-1)

    def end(h: Int[np.ndarray, "P"]) -> Int[np.ndarray, "P"]:
        return h // 3 * 3 + (h + 1) % 3

    same = flat[first] == flat[second]  # both run the same way: inconsistent winding
    start_to = np.where(same, second, end(second))
    tip_to = np.where(same, end(second), second)
    return np.concatenate([np.stack([first, start_to], 1), np.stack([end(first), tip_to], 1)])
