"""Repair a triangle soup into closed, manifold, outward-wound surfaces without floaters.

The topology is rebuilt rather than patched: half-edges are glued in pairs, and a vertex is whatever fan of
face corners the gluing joins. Non-manifold edges and vertices then come apart by construction (cutting and
stitching, Gueziec et al. 2001), and stay apart because the copies are moved a little.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from magic3d_cli.asset.mesh import (
    Faces,
    Vertices,
    drop_unused,
    edge_groups,
    face_areas,
    face_components,
    half_edges,
    label_components,
    neighbour_means,
    paired_corners,
    signed_volume,
)
from magic3d_cli.errors import Collapsed

MERGE_TOLERANCE = 1e-6
"""Vertices closer than about this fraction of the bounding box's diagonal become one."""

GAP, CRUMB = 0.02, 0.0005
"""A small component stays if it is nearer to what stays than this share of the bounding box's diagonal, and has this
share of the largest component's area."""

SEPARATION = 0.02
"""How far copies of a split vertex move toward their own neighbours; readers that merge equal positions would
otherwise weld them again."""

_SKEW = np.array([0.2718281828, 0.5772156649, 0.7403626894])  # a direction like no other


def clean(vertices: Vertices, faces: Faces, smallest: float = 0.02) -> tuple[Vertices, Faces, dict[str, int]]:
    """Repair a mesh: see the module's text.

    Args:
        vertices, faces: any triangle soup, in world units.
        smallest: components with less than this share of the largest one's area are dropped, unless near (GAP).

    Returns:
        vertices float64, faces int64 wound outward, and counts of what was done. Holes are closed with fans;
        components hidden inside another one are dropped too, since nobody can see them.

    Raises:
        Collapsed: there is no surface.
    """
    given = len(faces)
    vertices, faces = merge_vertices(np.asarray(vertices, np.float64), np.asarray(faces, np.int64))
    faces = orient(drop_repeats(faces))
    degenerate = given - len(faces)
    if len(faces) == 0:
        raise Collapsed("The surface has no faces to write.", "Run again with another --seed.")
    before = len(drop_unused(vertices, faces)[0])
    vertices, faces = split_nonmanifold(vertices, faces)
    split = len(vertices) - before
    vertices, faces, holes = fill_holes(vertices, faces)
    faces, dropped = keep_visible_components(vertices, faces, smallest)
    vertices, faces = drop_unused(vertices, faces)
    counts = {"degenerate": degenerate, "split": split, "holes": holes, "components_dropped": dropped}
    return vertices, faces, counts


def merge_vertices(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces]:
    """Weld equal vertices; faces with a vertex that is not finite are dropped."""
    finite = np.isfinite(vertices).all(1)
    vertices, faces = drop_unused(vertices, faces[finite[faces].all(1)])
    if len(faces) == 0:
        return vertices, faces
    grid = MERGE_TOLERANCE * max(float(np.linalg.norm(np.ptp(vertices, axis=0))), 1e-12)
    cells = np.round((vertices - vertices.min(0)) / grid).astype(np.int64)
    _, first, index = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    return vertices[first], index.reshape(-1)[faces]


def drop_repeats(faces: Faces) -> Faces:
    """Faces that name a vertex twice go; of coincident faces opposite ones cancel, equal ones become one."""
    corners = np.sort(faces, axis=1)
    faces = faces[(corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2])]
    corners = np.sort(faces, axis=1)
    _, first, group = np.unique(corners, axis=0, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    at = np.argmin(faces, axis=1)
    rolled = np.take_along_axis(faces, (at[:, None] + np.arange(3)) % 3, axis=1)
    even = rolled[:, 1] < rolled[:, 2]
    total = np.bincount(group, np.where(even, 1, -1), minlength=len(first))
    keep = np.zeros(len(faces), bool)
    # A representative that agrees with the surplus orientation.
    for sign in (True, False):
        wanted = (even == sign) & ((total > 0)[group] if sign else (total < 0)[group])
        chosen = np.flatnonzero(wanted)
        keep[chosen[np.unique(group[chosen], return_index=True)[1]]] = True
    return faces[keep]


def orient(faces: Faces) -> Faces:
    """Consistent winding across every two-faced edge, flipping the minority of each patch.

    Components of the orientation double cover: a face and its mirror image are two nodes, and each edge joins
    the copies that agree. A patch that is not orientable is left alone.
    """
    directed, edge = half_edges(faces)
    order, start, counts = edge_groups(edge)
    start = start[counts == 2]
    first, second = order[start], order[start + 1]
    f, g, count = first // 3, second // 3, len(faces)
    disagree = directed[first, 0] == directed[second, 0]
    mirrored = np.where(disagree, g + count, g)
    unmirrored = np.where(disagree, g, g + count)
    label = label_components(
        2 * count, np.concatenate([np.stack([f, mirrored], 1), np.stack([f + count, unmirrored], 1)])
    )
    upright, flipped = label[:count], label[count:]
    patch = np.minimum(upright, flipped)
    votes = np.bincount(patch, np.where(upright == patch, 1, -1), minlength=2 * count)
    flip = (upright != flipped) & ((upright == patch) != (votes[patch] >= 0))
    return np.where(flip[:, None], faces[:, ::-1], faces)


def split_nonmanifold(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces]:
    """Glue half-edges pairwise and give each fan of corners its own vertex.

    Two gluings may still join the same two vertices (a pinched handle); one of them then gets a midpoint.
    """
    moved = np.zeros(len(vertices), bool)
    for _ in range(20):
        first, second = glue(vertices, faces)
        label = label_components(3 * len(faces), paired_corners(faces, first, second))
        corner = np.unique(label, return_index=True)[1]
        origin = faces.reshape(-1)[corner]
        copies = np.bincount(origin, minlength=len(vertices))
        moved = moved[origin] | (copies[origin] > 1)
        vertices, faces = vertices[origin], label.reshape(-1, 3).astype(np.int64)
        split = _doubled_pairs(faces, first, second)
        if len(split) == 0:
            break
        vertices, faces, moved = _insert_midpoints(vertices, faces, moved, first[split], second[split])
    return _pull_apart(vertices, faces, moved), faces


def glue(vertices: Vertices, faces: Faces) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
    """Pairs of opposite half-edges to join; of many at one edge, those that bound the same solid wedge."""
    directed, edge = half_edges(faces)
    order, start, counts = edge_groups(edge)
    forward = np.bincount(edge, directed[:, 0] < directed[:, 1]).astype(int)
    simple = (counts == 2) & (forward == 1)
    first, second = [order[start[simple]]], [order[start[simple] + 1]]
    for e in np.flatnonzero((counts > 2) & (forward > 0) & (forward < counts)):
        group = order[start[e] : start[e] + counts[e]]
        low = directed[group[0]].min()
        axis = vertices[directed[group[0]].max()] - vertices[low]
        axis = axis / max(float(np.linalg.norm(axis)), 1e-20)
        third = vertices[faces[group // 3, (group % 3 + 2) % 3]] - vertices[low]
        side = np.cross(axis, np.eye(3)[np.argmin(np.abs(axis))])
        angle = np.arctan2(third @ np.cross(axis, side), third @ side)
        ring = list(group[np.argsort(angle, kind="stable")])
        # Turning in the positive sense, matter begins at a backward face and ends at a forward one.
        position = 0
        misses = 0
        while len(ring) > 1 and misses <= len(ring):
            here, there = ring[position % len(ring)], ring[(position + 1) % len(ring)]
            if directed[here, 0] != low and directed[there, 0] == low:
                first.append(np.array([here]))
                second.append(np.array([there]))
                ring = [h for h in ring if h not in (here, there)]
                misses = 0
            else:
                position, misses = position + 1, misses + 1
    return np.concatenate(first), np.concatenate(second)


def _doubled_pairs(faces: Faces, first: Int[np.ndarray, "P"], second: Int[np.ndarray, "P"]) -> Int[np.ndarray, "S"]:
    """Gluings to split because another one joins the same vertices; no face occurs in two of them."""
    _, edge = half_edges(faces)
    pair_edge = edge[first]
    repeated = np.flatnonzero(np.bincount(pair_edge)[pair_edge] > 1)
    later = np.ones(len(repeated), bool)
    later[np.unique(pair_edge[repeated], return_index=True)[1]] = False
    used: set[int] = set()
    chosen = []
    for pair in repeated[later]:
        both = {int(first[pair]) // 3, int(second[pair]) // 3}
        if not both & used:
            used |= both
            chosen.append(pair)
    return np.array(chosen, np.int64)


def _insert_midpoints(
    vertices: Vertices,
    faces: Faces,
    moved: Bool[np.ndarray, "V"],
    first: Int[np.ndarray, "S"],
    second: Int[np.ndarray, "S"],
) -> tuple[Vertices, Faces, Bool[np.ndarray, "V"]]:
    """Split each glued edge, and the two faces on it, at its midpoint."""
    ends = np.stack([faces.reshape(-1)[first], faces[first // 3, (first + 1) % 3]], 1)
    middle = len(vertices) + np.arange(len(first))
    faces = faces.copy()
    extra = []
    for half in (first, second):
        face, corner = half // 3, half % 3
        new = faces[face].copy()
        rows = np.arange(len(half))
        new[rows, corner] = middle
        faces[face, (corner + 1) % 3] = middle
        extra.append(new)
    vertices = np.concatenate([vertices, vertices[ends].mean(1)])
    moved = np.concatenate([moved, np.ones(len(first), bool)])
    return vertices, np.concatenate([faces, *extra]), moved


def _pull_apart(vertices: Vertices, faces: Faces, moved: Bool[np.ndarray, "V"]) -> Vertices:
    """Move marked vertices a little toward the mean of their neighbours."""
    return np.where(moved[:, None], vertices + SEPARATION * (neighbour_means(vertices, faces) - vertices), vertices)


def fill_holes(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces, int]:
    """Close every boundary loop of a manifold mesh with a fan round its centroid; also counts them."""
    directed, edge = half_edges(faces)
    boundary = directed[np.bincount(edge)[edge] == 1]
    if len(boundary) == 0:
        return vertices, faces, 0
    loops = label_components(len(vertices), boundary)[boundary[:, 0]]
    names, loop = np.unique(loops, return_inverse=True)
    loop = loop.reshape(-1)
    total = np.stack([np.bincount(loop, vertices[boundary[:, 0], k]) for k in range(3)], 1)
    centres = total / np.bincount(loop)[:, None]
    fan = np.stack([boundary[:, 1], boundary[:, 0], len(vertices) + loop], axis=1)
    return np.concatenate([vertices, centres]), np.concatenate([faces, fan]), len(names)


def keep_visible_components(vertices: Vertices, faces: Faces, smallest: float) -> tuple[Faces, int]:
    """Components that are not inside another one, each wound outward, and how many were dropped.

    Kept are the large ones, and small ones next to what is kept: a hand whose thin arm is broken is no floater.
    """
    label = face_components(faces)
    names, label = np.unique(label, return_inverse=True)
    label = label.reshape(-1)
    area = np.bincount(label, face_areas(vertices, faces))
    order = np.argsort(-area, kind="stable")
    wanted = set(order[area[order] >= smallest * area.max()].tolist())
    crumbs = [name for name in order.tolist() if area[name] >= CRUMB * area.max() and name not in wanted]
    reach = GAP * float(np.linalg.norm(np.ptp(vertices, axis=0)))
    new = wanted
    while new and crumbs:
        tree = cKDTree(vertices[np.unique(faces[np.isin(label, list(new))])])
        new = {n for n in crumbs if tree.query(vertices[np.unique(faces[label == n])])[0].min() < reach}
        wanted, crumbs = wanted | new, [name for name in crumbs if name not in new]
    parts: list[Faces] = []
    for name in order:
        part = faces[label == name]
        if name not in wanted:
            continue
        if any(_inside(vertices, part, other) for other in parts):
            continue
        parts.append(part if signed_volume(vertices, part) >= 0 else part[:, ::-1])
    return np.concatenate(parts), len(names) - len(parts)


def _inside(vertices: Vertices, part: Faces, other: Faces) -> bool:
    """True when every vertex of `part` lies within the closed surface `other`."""
    points, shell = vertices[np.unique(part)], vertices[np.unique(other)]
    if (points < shell.min(0)).any() or (points > shell.max(0)).any():
        return False
    return bool((np.abs(_windings(points, vertices, other)) > 0).all())


def _windings(points: Vertices, vertices: Vertices, faces: Faces) -> Int[np.ndarray, "N"]:
    """How often a closed surface winds around each point: its faces above the point, those that look down as -1.

    Up is a direction in which no edge of a mesh is likely to lie.
    """
    up, right = _SKEW / np.linalg.norm(_SKEW), np.cross(_SKEW, (0.0, 0.0, 1.0))
    axes = np.stack([right / np.linalg.norm(right), np.cross(up, right) / np.linalg.norm(right), up], 1)
    at, corners = points @ axes, (vertices @ axes)[faces]
    flat = corners[:, :, :2]
    centre = flat.mean(1)
    reach = np.linalg.norm(flat - centre[:, None], axis=2).max(1)
    found = cKDTree(at[:, :2]).query_ball_point(centre, reach * (1 + 1e-9))
    face = np.repeat(np.arange(len(faces)), [len(some) for some in found])
    point = np.array([one for some in found for one in some], np.int64)
    a, b, c = (corners[face, k] - at[point] for k in range(3))
    weights = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1)  # twice the areas beside the point
    covers = (weights > 0).all(1) | (weights < 0).all(1)
    height = (weights * np.stack([a[:, 2], b[:, 2], c[:, 2]], 1)).sum(1)  # by the sum of the weights, whose sign it has
    total = weights.sum(1)
    above = covers & (height * total > 0)
    return np.bincount(point[above], np.sign(total[above]), minlength=len(points)).astype(np.int64)


def _cross(a: Vertices, b: Vertices) -> Float[np.ndarray, "N"]:
    """Of the first two coordinates."""
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
