"""Claims about the mesh renderer and the fine stage."""

from __future__ import annotations

import math

import pytest
import torch

from magic3d_cli.fine.marching_tetrahedra import marching_tetrahedra
from magic3d_cli.fine.render import render_mesh
from magic3d_cli.fine.tetrahedra import Lattice
from magic3d_cli.fine.topology import mesh_edges, roughness, vertex_normals
from magic3d_cli.views import DIFFUSE, turntable


def ball(radius: float = 0.6, cells: int = 20, centre: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    lattice = Lattice((-1.0, -1.0, -1.0), 2 / cells, (cells,) * 3)
    grid = lattice.vertices()
    return marching_tetrahedra(grid, (grid - centre).norm(dim=1) - radius, lattice.tetrahedra())


def white(points: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(points)


def grey(directions: torch.Tensor) -> torch.Tensor:
    return torch.full_like(directions, 0.5)


def rendered(vertices: torch.Tensor, faces: torch.Tensor, views, size: int, colour=white):
    return render_mesh(vertices, faces, colour, grey, views, size)


def test_a_rendered_ball_has_the_right_size_depth_and_normals() -> None:
    vertices, faces = ball(cells=32)
    views, size = turntable(2, elevation=30.0), 96
    image = rendered(vertices, faces, views, size)
    # A ball of radius r at distance d is seen as a disc of tangent r / sqrt(d^2 - r^2).
    tangent = 0.6 / torch.sqrt(views.distance**2 - 0.36)
    disc = math.pi * (tangent / torch.tan(views.fov / 2) / 2) ** 2
    assert torch.allclose(image.opacity.mean((1, 2)), disc, rtol=0.01)
    middle = image.depth[:, size // 2, size // 2]
    assert torch.allclose(middle, views.distance - 0.6, atol=0.01)
    origins, directions = views.rays(size)
    point = origins + image.depth[..., None] * directions
    hit = image.depth > 0
    assert torch.allclose(point[hit].norm(dim=-1), torch.tensor(0.6), atol=0.01)
    assert (torch.nn.functional.cosine_similarity(point[hit], image.normal[hit]) > 0.98).all()


def test_the_colour_field_is_read_at_the_surface_and_shaded() -> None:
    vertices, faces = ball()
    views = turntable(4).replace(shading=torch.full((4,), DIFFUSE))
    flat = rendered(vertices, faces, turntable(4), 48, colour=lambda p: (p + 1) / 2)
    lit = rendered(vertices, faces, views, 48)
    assert flat.albedo[0, 24, 24, 2] == pytest.approx(0.8, abs=0.02)  # front: z = +0.6
    assert flat.albedo[1, 24, 24, 0] == pytest.approx(0.8, abs=0.02)  # azimuth 90: x = +0.6
    assert lit.rgb[0, 24, 24, 0] == pytest.approx(1.0, abs=0.02)  # the light stands behind the camera
    assert lit.rgb[0, 24, 46, 0] == 1.0 and lit.opacity[0, 24, 46] == 0.0  # the white backdrop


def test_the_learned_background_follows_the_pixel_ray() -> None:
    vertices, faces = ball(0.3)
    views = turntable(2).replace(plain=torch.zeros(2))
    image = render_mesh(vertices, faces, white, lambda d: (d + 1) / 2, views, 32)
    expected = (views.rays(32)[1] + 1) / 2
    empty = image.opacity == 0
    assert empty.any() and torch.allclose(image.rgb[empty], expected[empty])


@pytest.mark.parametrize("cells", [12, 32])  # triangles larger, and smaller, than a pixel
def test_antialiased_opacity_is_the_covered_share_of_each_pixel(cells: int) -> None:
    vertices, faces = ball(cells=cells)
    views = turntable(2, elevation=20.0)
    image = rendered(vertices, faces, views, 40)
    soft, hard = image.opacity, (image.depth > 0).float()
    fine = rendered(vertices, faces, views, 40 * 6).opacity
    exact = torch.nn.functional.avg_pool2d(fine[:, None], 6)[:, 0]
    assert (soft - exact).abs().mean() < 0.25 * (hard - exact).abs().mean()


@pytest.mark.parametrize("cells", [12, 32])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_silhouette_gradient_equals_finite_differences_of_a_supersampled_render(
    cells: int, axis: int
) -> None:
    vertices, faces = ball(0.5, cells)
    views, size = turntable(2, elevation=10.0, start=25.0)[:1], 40
    ramp = torch.linspace(-1, 1, size)
    weight = ramp[None, :, None] + 0.5 * ramp  # a force to the lower right

    def loss(shift: torch.Tensor, scale: int) -> torch.Tensor:
        opacity = rendered(vertices + shift, faces, views, size * scale).opacity
        return (torch.nn.functional.avg_pool2d(opacity[:, None], scale)[:, 0] * weight).sum()

    shift = torch.zeros(3, requires_grad=True)
    loss(shift, 1).backward()
    assert shift.grad is not None
    step = torch.zeros(3)
    step[axis] = 0.02
    numeric = float(loss(step, 6) - loss(-step, 6)) / 0.04
    assert abs(numeric) > 10  # far from cancelling out
    assert float(shift.grad[axis]) == pytest.approx(numeric, rel=0.2)


def test_an_occluded_outline_leaves_no_trace() -> None:
    small, faces = ball(0.2)
    large, more = ball(0.6)
    # A small ball inside the large one: nothing of it may be seen.
    both = torch.cat([large, small])
    joined = torch.cat([more, faces + len(large)])
    alone = rendered(large, more, turntable(3), 48)
    together = rendered(both, joined, turntable(3), 48)
    assert torch.equal(alone.rgb, together.rgb)


def test_normals_and_edges_of_a_closed_mesh() -> None:
    vertices, faces = ball(0.613)
    edges = mesh_edges(faces, len(vertices))
    assert len(edges.ends) * 2 == len(faces) * 3 and (edges.faces >= 0).all()
    shared = [set(faces[f].tolist()) & set(faces[g].tolist()) for f, g in edges.faces[:50].tolist()]
    assert shared == [set(pair) for pair in edges.ends[:50].tolist()]
    normals = vertex_normals(vertices, faces)
    assert (torch.nn.functional.cosine_similarity(normals, vertices) > 0.98).all()


def test_roughness_is_zero_for_a_plane_and_falls_when_a_bumpy_ball_is_smoothed() -> None:
    plane = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    quad = torch.tensor([[0, 1, 2], [1, 3, 2]])
    assert roughness(plane, quad, mesh_edges(quad, 4)) == 0
    bent = plane.clone()
    bent[3, 2] = 1.0
    assert roughness(bent, quad, mesh_edges(quad, 4)) > 0.05
    vertices, faces = ball()
    edges = mesh_edges(faces, len(vertices))
    bumpy = vertices + 0.02 * torch.randn(vertices.shape, generator=torch.Generator().manual_seed(0))
    start = bumpy.clone().requires_grad_()
    roughness(start, faces, edges).backward()
    assert start.grad is not None and torch.isfinite(start.grad).all()
    better = bumpy - 1e-4 * start.grad.sign()
    assert roughness(better, faces, edges) < roughness(bumpy, faces, edges)
