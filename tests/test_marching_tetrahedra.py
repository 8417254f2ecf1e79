"""Claims about the tetrahedral grid and the surface taken from it."""

from __future__ import annotations

import math

import pytest
import torch
import trimesh

from magic3d_cli.fine.marching_tetrahedra import marching_tetrahedra
from magic3d_cli.fine.tetrahedra import Lattice

LATTICE = Lattice(low=(-1.0, -1.0, -1.0), cell=2 / 20, cells=(20, 20, 20))


def signed_volume(vertices: torch.Tensor, tetrahedra: torch.Tensor) -> torch.Tensor:
    corner = vertices[tetrahedra.long()]
    return torch.linalg.det(corner[:, 1:] - corner[:, :1]) / 6


def test_tetrahedra_are_positive_congruent_and_inside_the_box() -> None:
    lattice = Lattice.around(torch.tensor([-0.5, -0.2, -0.1]), torch.tensor([0.5, 0.4, 0.1]), 24)
    vertices, tetrahedra = lattice.vertices(), lattice.tetrahedra()
    volume = signed_volume(vertices, tetrahedra)
    assert torch.allclose(volume, torch.full_like(volume, lattice.cell**3 / 12), rtol=1e-3)
    low = torch.tensor(lattice.low)
    high = low + lattice.cell * torch.tensor(lattice.cells)
    assert (vertices >= low - 1e-6).all() and (vertices <= high + 1e-5).all()
    margin = 1.9 * lattice.cell
    assert (low < torch.tensor([-0.5, -0.2, -0.1]) - margin).all()
    assert (high > torch.tensor([0.5, 0.4, 0.1]) + margin).all()


def test_boundary_vertices_are_exactly_those_of_open_faces() -> None:
    lattice = Lattice((0.0, 0.0, 0.0), 1.0, (4, 5, 3))
    tetrahedra = lattice.tetrahedra().long()
    faces = torch.cat([tetrahedra[:, list(k)] for k in ((0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3))])
    faces, count = torch.unique(faces.sort(1).values, dim=0, return_counts=True)
    assert count.max() == 2  # conforming: a face belongs to at most two tetrahedra
    open_vertices = torch.zeros(len(lattice.vertices()), dtype=torch.bool)
    open_vertices[faces[count == 1].unique()] = True
    used = torch.zeros_like(open_vertices)
    used[tetrahedra.unique()] = True
    assert torch.equal(open_vertices & used, lattice.boundary() & used)


def test_padding_keeps_every_vertex_where_it_was() -> None:
    lattice = Lattice((0.5, 0.0, -0.25), 0.125, (3, 4, 5))
    before = (1, 0, 2)
    larger = lattice.padded(before, (0, 3, 1))
    where = lattice.positions_in(larger, before)
    assert torch.allclose(larger.vertices()[where], lattice.vertices(), atol=1e-6)


def test_a_sphere_is_watertight_outward_and_has_the_right_size() -> None:
    radius = 0.6
    grid = LATTICE.vertices()
    vertices, faces = marching_tetrahedra(grid, grid.norm(dim=1) - radius, LATTICE.tetrahedra())
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == 2
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.02)  # positive: wound outward
    assert mesh.area == pytest.approx(4 * math.pi * radius**2, rel=0.02)
    assert ((mesh.face_normals * mesh.triangles_center).sum(1)[mesh.area_faces > 1e-8] > 0).all()


def test_random_signs_still_give_a_closed_mesh() -> None:
    lattice = Lattice((0.0, 0.0, 0.0), 1.0, (6, 6, 6))
    sdf = torch.randn(len(lattice.vertices()), generator=torch.Generator().manual_seed(0))
    sdf[lattice.boundary()] = 1.0
    vertices, faces = marching_tetrahedra(lattice.vertices(), sdf, lattice.tetrahedra())
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0


def test_no_surface_gives_no_faces() -> None:
    for value in (1.0, -1.0):
        sdf = torch.full((len(LATTICE.vertices()),), value)
        vertices, faces = marching_tetrahedra(LATTICE.vertices(), sdf, LATTICE.tetrahedra())
        assert vertices.shape == (0, 3) and faces.shape == (0, 3)


def test_gradients_equal_finite_differences() -> None:
    lattice = Lattice((-1.0, -1.0, -1.0), 2 / 8, (8, 8, 8))
    grid = lattice.vertices().double().requires_grad_()
    sdf = (grid.detach().norm(dim=1) - 0.55).requires_grad_()
    tetrahedra = lattice.tetrahedra()
    generator = torch.Generator().manual_seed(0)
    count = len(marching_tetrahedra(grid, sdf, tetrahedra)[0])
    cotangent = torch.randn(count, 3, generator=generator, dtype=torch.float64)

    def loss(g: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return (marching_tetrahedra(g, s, tetrahedra)[0] * cotangent).sum()

    loss(grid, sdf).backward()
    assert grid.grad is not None and sdf.grad is not None
    for parameter, gradient in ((grid, grid.grad), (sdf, sdf.grad)):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        step = 1e-6 * direction  # small enough that no sign changes
        plus = [p.detach() + (step if p is parameter else 0) for p in (grid, sdf)]
        minus = [p.detach() - (step if p is parameter else 0) for p in (grid, sdf)]
        numeric = (loss(*plus) - loss(*minus)) / 2e-6
        assert float(numeric) == pytest.approx(float((gradient * direction).sum()), rel=1e-5)
