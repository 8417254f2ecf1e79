"""Light from above is taken out of colours, and colours that only look like it are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from magic3d_cli.asset.bake import evaluate
from magic3d_cli.asset.build import build_asset
from magic3d_cli.asset.check import FileMesh, sample
from magic3d_cli.asset.delight import delit
from magic3d_cli.asset.material import of_prompt
from magic3d_cli.asset.mesh import surface_samples, unit
from magic3d_cli.settings import AssetSettings


def ball(count: int = 40_000):
    """Points of a unit ball's surface, which are their own normals."""
    mesh = trimesh.creation.icosphere(4)
    face, weights = surface_samples(mesh.vertices, mesh.faces, count)
    points = (mesh.vertices[mesh.faces[face]] * weights).sum(1)
    return points, unit(points)


def lit(points: torch.Tensor) -> torch.Tensor:
    """A ball of one colour, lit from above; its normal is its position."""
    up = points[:, 1:2] / points.norm(dim=1, keepdim=True)
    return torch.tensor([[0.8, 0.5, 0.3]]) * (0.75 + 0.25 * up)


def dependence(albedo, points, normals) -> float:
    """Correlation of luminance with the normal's y."""
    return float(np.corrcoef(evaluate(albedo, points) @ (0.2126, 0.7152, 0.0722), normals[:, 1])[0, 1])


@pytest.mark.parametrize("uniform", [True, False], ids=["one material", "anything"])
def test_light_from_above_is_taken_out(uniform):
    points, normals = ball()
    assert dependence(lit, points, normals) > 0.99
    unlit = evaluate(delit(lit, points, normals, uniform), points)
    before = evaluate(lit, points)
    assert unlit.std(0).max() < 0.25 * before.std(0).max()
    np.testing.assert_allclose(np.median(unlit, 0), np.median(before, 0), atol=0.02)


def test_a_dark_belly_with_a_clear_edge_is_paint_and_kept():
    def painted(points: torch.Tensor) -> torch.Tensor:
        return torch.where(points[:, 1:2] < -0.3, 0.15, 0.8).expand(-1, 3)

    points, normals = ball()
    kept = evaluate(delit(painted, points, normals, uniform=False), points)
    np.testing.assert_allclose(kept, evaluate(painted, points), atol=0.03)


def test_a_field_without_light_is_left_as_it_is():
    def stripes(points: torch.Tensor) -> torch.Tensor:
        return (0.6 + 0.1 * torch.sign(torch.sin(9 * points[:, :1]))).expand(-1, 3)

    points, normals = ball()
    assert delit(stripes, points, normals, uniform=False) is stripes


def test_a_golden_ball_that_was_painted_with_a_sky_is_gold_all_over():
    mesh = trimesh.creation.icosphere(4)
    settings = AssetSettings(faces=1000, texture_size=256)
    asset = build_asset(mesh.vertices, mesh.faces, lit, settings, material=of_prompt("a golden ball"))
    found = FileMesh(asset.positions, asset.uvs, asset.faces, asset.texture)
    face, weights = surface_samples(found.positions, found.faces, 20_000)
    corners = found.faces[face]
    colours = sample(found.texture, (found.uvs[corners] * weights).sum(1))
    assert colours.std(0).max() < 0.02
