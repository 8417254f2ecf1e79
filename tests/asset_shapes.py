"""Meshes and colour functions for the asset tests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
import trimesh


def colours(points: torch.Tensor) -> torch.Tensor:
    """A smooth colour [N, 3] in [0, 1] at world positions [N, 3], different on every side."""
    return 0.5 + 0.4 * torch.sin(3 * points + torch.tensor([0.0, 1.0, 2.0]))


def joined(parts: Sequence[trimesh.Trimesh]) -> trimesh.Trimesh:
    """Several meshes as one."""
    mesh = trimesh.util.concatenate(list(parts))
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh


def tetrahedral_isosurface(distance, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Zero set of a function on [-1, 1]^3 by marching tetrahedra, slivers and all."""
    axis = np.linspace(-1, 1, cells + 1)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    value = distance(grid)
    stride = np.array([(cells + 1) ** 2, cells + 1, 1])
    base = (np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), -1).reshape(-1, 3)) @ stride
    tets = []
    for order in itertools.permutations(range(3)):
        path = np.cumsum([0, *stride[list(order)]])
        even = (order[0] < order[1]) + (order[1] < order[2]) + (order[0] < order[2])
        path = path if even % 2 == 1 else path[[0, 2, 1, 3]]
        tets.append(base[:, None] + path)
    tet = np.concatenate(tets)
    inside = value[tet] < 0
    tet = tet[inside.any(1) & ~inside.all(1)]
    inside = value[tet] < 0
    soup = []  # pairs of grid vertices, three a face
    for corners in itertools.chain(itertools.combinations(range(4), 1), itertools.combinations(range(4), 3)):
        rows = (inside == np.isin(range(4), corners)).all(1)
        lone = corners[0] if len(corners) == 1 else next(i for i in range(4) if i not in corners)
        rest = [i for i in range(4) if i != lone]
        t = tet[rows]
        soup.append(np.stack([np.stack([t[:, lone], t[:, r]], 1) for r in rest], 1))
    for pair in itertools.combinations(range(4), 2):
        rows = (inside == np.isin(range(4), pair)).all(1)
        a, b = pair
        c, d = (i for i in range(4) if i not in pair)
        t = tet[rows]
        quad = [np.stack([t[:, i], t[:, j]], 1) for i, j in ((a, c), (b, c), (b, d), (a, d))]
        soup += [np.stack([quad[0], quad[1], quad[2]], 1), np.stack([quad[0], quad[2], quad[3]], 1)]
    edges = np.sort(np.concatenate(soup).reshape(-1, 2), axis=1)
    edges, faces = np.unique(edges, axis=0, return_inverse=True)
    near, far = value[edges[:, 0]], value[edges[:, 1]]
    t = (near / (near - far))[:, None]
    vertices = grid[edges[:, 0]] * (1 - t) + grid[edges[:, 1]] * t
    return vertices, faces.reshape(-1, 3)  # the winding is arbitrary: repairing it is part of what is tested


def bumpy_torus(cells: int, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A torus with ripples, optionally with per-vertex noise in cells."""
    rng = np.random.default_rng(0)

    def distance(p: np.ndarray) -> np.ndarray:
        ring = np.hypot(p[:, 0], p[:, 2]) - 0.6
        d = np.hypot(ring, p[:, 1]) - 0.28 + 0.03 * np.sin(20 * p).sum(1)
        return d + noise * 2 / cells * rng.standard_normal(len(p))

    return tetrahedral_isosurface(distance, cells)
