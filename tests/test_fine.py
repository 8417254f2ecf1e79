"""Claims about the mesh renderer and the fine stage."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import trimesh
from optimise import train

from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.errors import Collapsed
from magic3d_cli.fine.geometry import Geometry
from magic3d_cli.fine.marching_tetrahedra import marching_tetrahedra
from magic3d_cli.fine.mesh_render import render_mesh
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.fine.tetrahedra import Lattice
from magic3d_cli.fine.topology import mesh_edges, normal_consistency, vertex_normals
from magic3d_cli.presets import preset
from magic3d_cli.scene.views import DIFFUSE, Views, turntable
from magic3d_cli.settings import Settings
from magic3d_cli.training.report import PHASES, StepReport


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
    views = turntable(2).replace(solid_background=torch.zeros(2))
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
@pytest.mark.parametrize("towards", ["right", "up", "camera"])
def test_silhouette_gradient_equals_finite_differences_of_a_supersampled_render(cells: int, towards: str) -> None:
    vertices, faces = ball(0.5, cells)
    views, size = turntable(2, elevation=10.0, start=25.0)[:1], 40
    right, up, forward = (axis[0] for axis in views.axes())
    ramp = torch.linspace(-1, 1, size)
    # What each pixel is worth, and the move that this should reward.
    weight, move = {
        "right": (ramp.expand(size, size), right),
        "up": (-ramp[:, None].expand(size, size), up),
        "camera": (torch.ones(size, size), -forward),
    }[towards]

    def loss(shift: torch.Tensor, scale: int) -> torch.Tensor:
        opacity = rendered(vertices + shift, faces, views, size * scale).opacity
        return (torch.nn.functional.avg_pool2d(opacity[:, None], scale)[:, 0] * weight).sum()

    shift = torch.zeros(3, requires_grad=True)
    loss(shift, 1).backward()
    assert shift.grad is not None
    numeric = float(loss(0.02 * move, 6) - loss(-0.02 * move, 6)) / 0.04
    assert numeric > 50
    assert float(shift.grad @ move) == pytest.approx(numeric, rel=0.15)


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


def test_normal_consistency_is_zero_for_a_plane_and_falls_when_a_bumpy_ball_is_smoothed() -> None:
    plane = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    quad = torch.tensor([[0, 1, 2], [1, 3, 2]])
    assert normal_consistency(plane, quad, mesh_edges(quad, 4)) == 0
    bent = plane.clone()
    bent[3, 2] = 1.0
    assert normal_consistency(bent, quad, mesh_edges(quad, 4)) > 0.05
    vertices, faces = ball()
    edges = mesh_edges(faces, len(vertices))
    bumpy = vertices + 0.02 * torch.randn(vertices.shape, generator=torch.Generator().manual_seed(0))
    start = bumpy.clone().requires_grad_()
    normal_consistency(start, faces, edges).backward()
    assert start.grad is not None and torch.isfinite(start.grad).all()
    better = bumpy - 1e-4 * start.grad.sign()
    assert normal_consistency(better, faces, edges) < normal_consistency(bumpy, faces, edges)


def tiny_settings(**fine: Any) -> Settings:
    base = preset("draft")
    field = replace(base.coarse.field, levels=4, log2_size=12, finest_resolution=32, hidden=16)
    coarse = replace(base.coarse, steps=10, samples_per_ray=48, occupancy_size=24, field=field)
    small = replace(base.fine, **{"steps": 10, "views": 2, "render_size": 40, "grid_size": 18, **fine})
    return replace(base, coarse=coarse, fine=small)


def darken(images: torch.Tensor, views: Views, progress: float, generator: torch.Generator):
    """Pull every pixel to a random dark grey: draws from the generator, as distillation does."""
    target = 0.2 * torch.rand(1, generator=generator)
    return ((images - target) ** 2).sum() / len(images), {"progress": progress}


@pytest.fixture(scope="module")
def coarse() -> CoarseStage:
    return CoarseStage(tiny_settings(), seed=0)


@pytest.fixture(scope="module")
def start(coarse: CoarseStage) -> FineStage:
    """The stage at step 0; tests train copies of it."""
    return FineStage.from_coarse(tiny_settings(), coarse)


def again(stage: FineStage, **fine: object) -> FineStage:
    return FineStage.from_state(tiny_settings(**fine), *stage.state())


def test_the_coarse_ball_becomes_a_matching_mesh_at_step_zero(coarse: CoarseStage, start: FineStage) -> None:
    stage = start
    vertices, faces = stage.mesh()
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert mesh.is_watertight and mesh.volume > 0
    assert vertices.dtype == torch.float32 and faces.dtype == torch.int64
    assert stage.handover["iou"] > 0.95 and stage.handover["floaters_removed"] == 0
    points = vertices[:7]
    assert torch.equal(stage.albedo(points), coarse.field.albedo(points).detach())
    difference = stage.render(turntable(2), 40).rgb - coarse.render(turntable(2), 40).rgb
    assert difference.abs().mean() < 0.03


def test_training_changes_the_colour_but_not_the_coarse_field(coarse: CoarseStage) -> None:
    stage = FineStage.from_coarse(tiny_settings(), coarse)
    reports: list[StepReport] = []
    before = [p.detach().clone() for p in coarse.field.parameters()]
    train(stage, darken, on_step=reports.append)
    assert [r.step for r in reports] == list(range(1, 11)) and stage.step == 10
    assert set(reports[0].seconds) == set(PHASES)
    colour = [stage.albedo(stage.mesh()[0]).mean(), coarse.field.albedo(stage.mesh()[0]).mean()]
    assert colour[0] < colour[1] - 0.02
    assert all(torch.equal(a, b) for a, b in zip(before, coarse.field.parameters(), strict=True))


def test_geometry_that_comes_first_stays_as_it_is_while_the_colours_go_on(start: FineStage) -> None:
    stage = again(start, geometry_first=0.5, geometry_lr=0.05)
    at: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(report: StepReport) -> None:
        at.append((stage.geometry.sdf.detach().clone(), stage.field.table.detach().clone()))

    train(stage, darken, on_step=keep)
    assert not torch.equal(at[0][0], at[4][0]) and torch.equal(at[4][0], at[9][0])
    assert not torch.equal(at[4][1], at[9][1])


def test_a_resumed_run_equals_an_uninterrupted_one(start: FineStage) -> None:
    settings = tiny_settings(geometry_lr=0.05)
    whole = again(start, geometry_lr=0.05)
    train(whole, darken, until=6)
    half = again(start, geometry_lr=0.05)
    train(half, darken, until=3)
    tensors, meta = half.state()
    resumed = FineStage.from_state(settings, tensors, json.loads(json.dumps(meta)))
    assert resumed.step == 3 and resumed.handover == half.handover
    train(resumed, darken, until=6)
    first, second = whole.state(), resumed.state()
    assert first[1] == second[1] and first[0].keys() == second[0].keys()
    assert all(torch.equal(first[0][name], second[0][name]) for name in first[0])


def test_stopping_from_the_callback_leaves_a_complete_step(start: FineStage) -> None:
    stage = again(start)

    def stop(report: StepReport) -> None:
        if report.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stage, darken, on_step=stop)
    assert stage.step == 2 and stage.state()[1]["step"] == 2


def test_gradients_that_are_not_finite_are_skipped_then_reported(start: FineStage) -> None:
    stage = again(start, steps=30)
    before = stage.geometry.sdf.detach().clone()
    with pytest.raises(Collapsed, match="finite"):
        train(stage, lambda images, views, progress, generator: ((images * math.nan).sum(), {}))
    assert torch.equal(before, stage.geometry.sdf) and stage.step == 19  # the twentieth was not taken


def as_trimesh(stage: FineStage) -> trimesh.Trimesh:
    vertices, faces = (x.numpy() for x in stage.mesh())
    return trimesh.Trimesh(vertices, faces, process=False)


def test_the_outline_follows_a_silhouette_objective(start: FineStage) -> None:
    """White on black: more light means a larger silhouette, so the ball must swell."""
    stage = again(start, steps=12, geometry_lr=0.05, normal_consistency=0.0035)
    volume = as_trimesh(stage).volume

    def dark_sky(images: torch.Tensor, views: Views, progress: float, generator: torch.Generator):
        # Undo the random backdrop: pixels are compared with the colour of their own background.
        behind = views.backdrop[:, None, None, :]
        return -((images - behind) ** 2).sum() / len(images), {}

    train(stage, dark_sky)
    swollen = as_trimesh(stage)
    assert swollen.is_watertight and swollen.volume > 1.1 * volume


def test_the_grid_grows_before_the_surface_reaches_its_walls() -> None:
    lattice = Lattice((-0.5, -0.5, -0.5), 0.1, (10, 10, 10))
    centre = torch.tensor([0.1, 0.0, 0.0])
    geometry = Geometry(lattice, (lattice.vertices() - centre).norm(dim=1) - 0.3)
    optimizer = torch.optim.Adam(geometry.parameters(), lr=0.1)
    geometry.surface()[0].sum().backward()
    optimizer.step()
    with torch.no_grad():
        geometry.displacement.zero_()
        geometry.sdf.copy_(((geometry.grid - centre).norm(dim=1) - 0.3) / 0.1)
    before, faces = geometry.surface()
    assert geometry.grow_around(before.detach(), optimizer)
    after, more = geometry.surface()
    assert geometry.lattice.cells[0] > 10 and geometry.lattice.cells[1] == 10
    assert len(faces) == len(more)
    assert torch.allclose(before.sort(0).values, after.sort(0).values, atol=1e-6)
    assert (geometry.sdf.abs() * 0.1 > (geometry.grid - after.mean(0)).norm(dim=1) - 0.4).all()
    after.sum().backward()
    optimizer.step()  # the optimiser knows the new parameters
    assert not geometry.grow_around(after.detach() * 0.5, optimizer)
