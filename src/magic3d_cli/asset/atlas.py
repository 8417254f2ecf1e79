"""Texture atlases that always succeed: charts by dominant axis, projected flat and packed on shelves; a grid for noise.

Not as tight as xatlas, but they take a bounded time and cannot overlap: wherever two faces of a chart would
share a texel, one of them leaves for a chart of its own.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from magic3d_cli.asset.mesh import (
    Faces,
    Vertices,
    face_neighbours,
    face_vectors,
    joints,
    label_components,
    unit,
)
from magic3d_cli.asset.uv_raster import Ownership

_SMOOTHING_ROUNDS = 4
_STEEPEST = 0.3  # cosine below which a face may not be projected along an axis: it would be squashed
_SMALLEST_SQUARE = 4  # texels along a side of a grid's square, its gap included


def box_atlas(
    vertices: Vertices, faces: Faces, size: int, padding: int
) -> tuple[Int[np.ndarray, "W"], Faces, Float[np.ndarray, "W 2"], int]:
    """Chart and pack a mesh.

    Args:
        vertices, faces: a clean mesh.
        size: texels per side of the square texture.
        padding: texels between charts; fewer when the charts would not fit otherwise.

    Returns:
        for each new vertex the vertex it copies; faces over new vertices; texture coordinates in [0, 1],
        origin top left; and the texture size, doubled until every chart had room for one texel.
    """
    axis = _axes(vertices, faces)
    chart, corners = _charts(vertices, faces, axis, _wound_alike(faces), size)
    while True:
        for gap in sorted({g for g in (padding, 2, 1) if g <= padding}, reverse=True):
            placed = _pack(corners, chart, size, gap)
            if placed is not None:
                key = faces * (int(chart.max()) + 1) + chart[:, None]
                _, first, index = np.unique(key, return_index=True, return_inverse=True)
                uvs = (placed / size).reshape(-1, 2)[first]
                return faces.reshape(-1)[first], index.reshape(-1, 3), uvs, size
        size *= 2


def grid_atlas(
    vertices: Vertices, faces: Faces, size: int, padding: int
) -> tuple[Int[np.ndarray, "W"], Faces, Float[np.ndarray, "W 2"], int]:
    """As `box_atlas`, with two neighbours, or one face, in each square of a grid: for noise, whose charts are crumbs.

    Faces are stretched into half squares, each of the same size.
    """
    one, other = _couples(vertices, faces)
    alone = np.setdiff1d(np.arange(len(faces)), np.concatenate([one, other]) // 3)
    squares = len(one) + len(alone)
    columns = int(np.ceil(np.sqrt(squares)))
    while size // columns < _SMALLEST_SQUARE:
        size *= 2
    square = size // columns
    gap = max(1, min(padding, square // 4))

    # Slots of a square: 0 and 2 are the ends of the diagonal that two faces share, 3 and 1 their other corners.
    slot = np.empty((len(faces), 3), np.int64)

    def lay(half: Int[np.ndarray, "P"], square: Int[np.ndarray, "P"], ends: Int[np.ndarray, "2 P"], tip: int) -> None:
        for ahead, place in enumerate((ends[0], ends[1], tip)):
            slot[half // 3, (half % 3 + ahead) % 3] = square * 4 + place

    against = faces.reshape(-1)[one] != faces.reshape(-1)[other]  # as it should be: both traverse the edge, in turn
    lay(one, np.arange(len(one)), np.array([[0], [2]]), 3)
    lay(other, np.arange(len(one)), np.where(against, [[2], [0]], [[0], [2]]), 1)
    lay(alone * 3, np.arange(len(one), squares), np.array([[0], [2]]), 3)
    used, first, split = np.unique(slot.reshape(-1), return_index=True, return_inverse=True)
    at = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])[used % 4] * (square - gap) + gap / 2
    row, column = np.divmod(used // 4, columns)
    uvs = (np.stack([column, row], 1) * square + at) / size
    return faces.reshape(-1)[first], split.reshape(-1, 3), uvs, size


def _couples(vertices: Vertices, faces: Faces) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
    """Half-edges at which two faces are joined, each face once, long edges first: the other sides are then alike."""
    directed, one, other = joints(faces)
    length = np.linalg.norm(vertices[directed[one, 0]] - vertices[directed[one, 1]], axis=1)
    free = np.ones(len(faces), bool)
    taken = []
    for pair in np.argsort(-length, kind="stable"):
        a, b = one[pair] // 3, other[pair] // 3
        if free[a] and free[b] and a != b:
            free[a] = free[b] = False
            taken.append(pair)
    return one[taken], other[taken]


def _wound_alike(faces: Faces) -> Int[np.ndarray, "P 2"]:
    """Neighbours that traverse their edge in opposite directions; others would lie over each other in one chart."""
    directed, one, other = joints(faces)
    alike = directed[one, 0] == directed[other, 1]
    return np.stack([one // 3, other // 3], axis=1)[alike]


def _axes(vertices: Vertices, faces: Faces) -> Int[np.ndarray, "F"]:
    """Index 0..5 (+x -x +y -y +z -z) of the projection of each face, smoothed so that charts are few."""
    normals = unit(face_vectors(vertices, faces))
    facing = np.stack([normals, -normals], axis=2).reshape(-1, 6)
    axis = facing.argmax(1)
    pairs = face_neighbours(faces)
    for _ in range(_SMOOTHING_ROUNDS):
        votes = np.zeros((len(faces), 6))
        np.add.at(votes, (pairs[:, 0], axis[pairs[:, 1]]), 1)
        np.add.at(votes, (pairs[:, 1], axis[pairs[:, 0]]), 1)
        popular = votes.argmax(1)
        rows = np.arange(len(faces))
        axis = np.where((votes[rows, popular] >= 2) & (facing[rows, popular] > _STEEPEST), popular, axis)
    return axis


def _project(vertices: Vertices, faces: Faces, axis: Int[np.ndarray, "F"]) -> Float[np.ndarray, "F 3 2"]:
    """Face corners seen from outside along each face's axis; counter-clockwise stays counter-clockwise."""
    u = np.array([1, 2, 2, 0, 0, 1])[axis]
    v = np.array([2, 1, 0, 2, 1, 0])[axis]
    corners = vertices[faces]
    rows = np.arange(len(faces))[:, None]
    return np.stack([corners[rows, np.arange(3), u[:, None]], corners[rows, np.arange(3), v[:, None]]], 2)


def _charts(
    vertices: Vertices,
    faces: Faces,
    axis: Int[np.ndarray, "F"],
    neighbours: Int[np.ndarray, "P 2"],
    size: int,
) -> tuple[Int[np.ndarray, "F"], Float[np.ndarray, "F 3 2"]]:
    """Chart number and flat corners, in world units, of each face; no chart covers a texel twice."""
    corners = _project(vertices, faces, axis)
    extent = max(float(np.ptp(corners.reshape(-1, 2), axis=0).max()), 1e-12)
    joined = neighbours[axis[neighbours[:, 0]] == axis[neighbours[:, 1]]]
    evictions = np.zeros(len(faces), np.int64)
    for _ in range(8):
        chart = label_components(len(faces), joined[evictions[joined[:, 0]] == evictions[joined[:, 1]]])
        clash = np.zeros(len(faces), bool)
        order = np.argsort(chart, kind="stable")
        bounds = np.flatnonzero(np.diff(chart[order])) + 1
        for members in np.split(order, bounds):
            if len(members) < 3:
                continue
            flat = corners[members]
            low = flat.reshape(-1, 2).min(0)
            texel = extent / size
            shape = np.ceil((flat.reshape(-1, 2).max(0) - low) / texel).astype(int) + 1
            contested = Ownership((flat - low) / texel, int(shape[1]), int(shape[0]), 0.0).contested
            clash[members[np.unique(contested[contested >= 0])]] = True
        if not clash.any():
            break
        evictions[clash] += 1
    else:
        # Still tangled: each of these faces is a chart alone.
        lonely = clash[joined].any(1)
        chart = label_components(len(faces), joined[(evictions[joined[:, 0]] == evictions[joined[:, 1]]) & ~lonely])
    return chart, corners


def _pack(
    corners: Float[np.ndarray, "F 3 2"], chart: Int[np.ndarray, "F"], size: int, gap: int
) -> Float[np.ndarray, "F 3 2"] | None:
    """Corners in texels on a size x size texture at the largest scale that fits; None when none does."""
    count = int(chart.max()) + 1
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    for corner in range(3):
        np.minimum.at(low, chart, corners[:, corner])
        np.maximum.at(high, chart, corners[:, corner])
    extent = high - low
    tall = extent[:, 1] > extent[:, 0]
    extent = np.where(tall[:, None], extent[:, ::-1], extent)
    local = corners - low[chart][:, None]
    # A quarter turn, not a mirror image: (x, y) -> (height - y, x).
    height = (high - low)[chart][:, None, 1]
    turned = np.stack([height - local[..., 1], local[..., 0]], 2)
    local = np.where(tall[chart][:, None, None], turned, local)

    best, smallest, largest = None, 0.0, size / max(float(extent.max()), 1e-12)
    for _ in range(14):
        scale = (smallest + largest) / 2
        offsets = _shelves(extent * scale, size, gap)
        if offsets is None:
            largest = scale
        else:
            best, smallest = (scale, offsets), scale
    if best is None:
        return None
    scale, offsets = best
    return local * scale + offsets[chart][:, None]


def _shelves(boxes: Float[np.ndarray, "C 2"], size: int, gap: int) -> Float[np.ndarray, "C 2"] | None:
    """Top-left texel positions of boxes set on shelves, tallest first, with at least `gap` texels between."""
    cells = np.ceil(boxes).astype(int) + 1 + gap
    offsets = np.zeros((len(boxes), 2))
    x, y, shelf = 0, 0, 0
    for index in np.lexsort((-cells[:, 0], -cells[:, 1])):
        width, height = cells[index]
        if x + width > size + gap:
            x, y, shelf = 0, y + shelf, 0
        if shelf == 0:
            shelf = height
        if width > size + gap or y + height > size + gap:
            return None
        offsets[index] = x + 0.5, y + 0.5
        x += width
    return offsets
