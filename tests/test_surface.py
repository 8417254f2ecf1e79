"""Claims about turning a density into a signed distance."""

from __future__ import annotations

import math

import pytest
import torch

from magic3d_cli.errors import Collapsed
from magic3d_cli.fine.surface import JOINED, clean, crossings, field_to_surface
from magic3d_cli.scene.views import Views, turntable

RESOLUTION = 64
VOXEL = 2 / RESOLUTION
VIEWS = turntable(4, elevation=20.0)
SIZE = 48


def ball_logit(points: torch.Tensor, radius: float = 0.5, centre: float = 0.0) -> torch.Tensor:
    """An opaque ball as a trained field has it: a steep slope, cut off neither inside nor outside."""
    return 200 * (radius - (points - centre).norm(dim=-1))


def ball_images(views: Views, radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Opacity and depth of an opaque ball at the origin."""
    origins, directions = views.rays(SIZE)
    middle = -(origins * directions).sum(-1)
    under = radius**2 - ((origins + middle[..., None] * directions) ** 2).sum(-1)
    hit = under > 0
    return hit.float(), torch.where(hit, middle - under.clamp(min=0).sqrt(), 0)


def level_of(distance: torch.Tensor) -> torch.Tensor:
    """A level function whose zero is where `distance` (negative inside) is zero."""
    return (-100 * distance).clamp(-30, 30)


def grid() -> torch.Tensor:
    axis = (torch.arange(RESOLUTION) + 0.5) * VOXEL - 1
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)


def test_the_distance_to_a_ball_is_accurate_to_a_fraction_of_a_voxel() -> None:
    opacity, depth = ball_images(VIEWS, 0.5)
    surface = field_to_surface(ball_logit, VIEWS, opacity, depth, RESOLUTION)
    where = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    exact = where.norm(dim=1) - 0.5
    error = surface.distance(where) - exact
    # The level may be anywhere on the density's slope: the offset it leaves is common to all points.
    assert abs(float(error.median())) < 0.7 * VOXEL
    assert float((error - error.median()).abs().quantile(0.95)) < 0.15 * VOXEL
    assert surface.iou > 0.95 and surface.floaters == 0


def test_the_threshold_is_found_where_the_outline_is() -> None:
    """A soft ball, of which only the core is opaque: the silhouette, not a constant, tells the level."""
    for radius in (0.35, 0.55):
        opacity, depth = ball_images(VIEWS, radius)
        surface = field_to_surface(lambda p: 30 * (1 - p.norm(dim=-1)), VIEWS, opacity, depth, RESOLUTION)
        assert surface.iou > 0.95
        assert surface.points.norm(dim=1).mean() == pytest.approx(radius, abs=1.5 * VOXEL)


def test_floaters_go_and_large_or_touching_pieces_stay() -> None:
    points = grid()
    body = (points - torch.tensor([0.3, 0, 0])).norm(dim=-1) - 0.3
    twin = (points - torch.tensor([-0.5, 0, 0])).norm(dim=-1) - 0.25
    speck = (points - torch.tensor([0.0, 0.7, 0])).norm(dim=-1) - 0.06
    level, removed = clean(level_of(torch.minimum(torch.minimum(body, twin), speck)))
    assert removed == 1
    inside = level > 0
    assert not inside[speck < 0].any()
    assert inside[body < -VOXEL].all() and inside[twin < -VOXEL].all()
    assert (crossings(level)[0][:, 1] < 0.5).all()  # no crust where the speck was


def test_a_small_piece_of_the_shape_that_is_asked_for_is_no_floater() -> None:
    points = grid()
    house = (points - torch.tensor([0.3, 0, 0])).norm(dim=-1) - 0.4
    dog = (points - torch.tensor([-0.5, 0, 0])).norm(dim=-1) - 0.1
    speck = (points - torch.tensor([-0.5, 0.6, 0])).norm(dim=-1) - 0.1
    level = level_of(torch.minimum(torch.minimum(house, dog), speck))
    assert clean(level)[1] == 2
    kept, removed = clean(level, expected=torch.minimum(house, dog) < 0.5 * VOXEL)
    assert removed == 1
    assert (kept > 0)[dog < -VOXEL].all() and not (kept > 0)[speck < 0].any()


def test_a_thin_leg_stays_with_its_body() -> None:
    points = grid()
    body = (points - torch.tensor([0.0, 0.3, 0])).norm(dim=-1) - 0.3
    aside = points[..., [0, 2]].norm(dim=-1)
    leg = torch.maximum(aside - 1.2 * VOXEL, (points[..., 1] + 0.2).abs() - 0.4)
    level, removed = clean(level_of(torch.minimum(body, leg)))
    assert removed == 0 and (level > 0)[leg < -0.5 * VOXEL].all()


def test_a_density_beyond_what_expm1_takes_still_has_a_surface() -> None:
    """The outline is that of the densest core: the threshold lies above 8000."""
    opacity, depth = ball_images(VIEWS, 0.5)

    def field(points: torch.Tensor) -> torch.Tensor:
        radius = points.norm(dim=-1)
        return torch.where(radius < 0.5, 9000.0, torch.where(radius < 0.8, 8000.0, -30.0))

    surface = field_to_surface(field, VIEWS, opacity, depth, RESOLUTION)
    assert surface.threshold > 8000 and surface.iou > 0.9


@pytest.mark.parametrize("between, floaters", [(3.0, 1), (1e-6, 2)])
def test_a_trunk_that_fog_joins_to_its_crown_is_no_floater(between: float, floaters: int) -> None:
    points = grid()
    height, aside = points[..., 1], points[..., [0, 2]].norm(dim=-1)
    crown = (points - torch.tensor([0.0, 0.4, 0])).norm(dim=-1) < 0.35
    trunk = (aside < 1.5 * VOXEL) & (height < 0.1) & (height > -0.7)
    speck = (points - torch.tensor([0.7, -0.5, 0])).norm(dim=-1) < 0.06
    density = torch.full(points.shape[:-1], 1e-6)
    for part, value in ((crown | speck, 40.0), (trunk, 12.0), (trunk & ((height + 0.1).abs() < 0.1), between)):
        density[part] = value
    logit = torch.log(torch.expm1(density)).clamp(min=-30)
    level, removed = clean(logit - 10.0, math.log(math.expm1(JOINED * 10.0)) - 10.0)
    assert removed == floaters and not (level > 0)[speck].any()
    assert (level > 0)[trunk & (height < -0.3)].all() == (floaters == 1)


def test_a_hollow_is_filled_even_behind_a_pinhole() -> None:
    points = grid()
    shell = (points.norm(dim=-1) - 0.5).abs() - 0.08
    pinhole = torch.maximum(points[..., [0, 1]].norm(dim=-1) - VOXEL, -points[..., 2])
    for hollow in (shell, torch.maximum(shell, -pinhole)):
        level, _ = clean(level_of(hollow))
        assert (level > 0)[points.norm(dim=-1) < 0.35].all()
        assert not (level > 0)[points.norm(dim=-1) > 0.65].any()


def test_normals_point_outward() -> None:
    points, normals = crossings(level_of(grid().norm(dim=-1) - 0.5))
    assert (torch.nn.functional.cosine_similarity(points, normals) > 0.99).all()
    assert torch.allclose(points.norm(dim=1), torch.tensor(0.5), atol=0.05 * VOXEL)


def test_an_empty_and_a_solid_volume_are_reported() -> None:
    blank = torch.zeros(4, SIZE, SIZE)
    with pytest.raises(Collapsed, match="empty"):
        field_to_surface(lambda p: torch.full_like(p[:, 0], -9.0), VIEWS, blank, blank, 32)
    with pytest.raises(Collapsed, match="solid"):
        field_to_surface(lambda p: torch.full_like(p[:, 0], 9.0), VIEWS, blank + 1, blank + 1, 32)
    nearly = torch.ones(4, SIZE, SIZE)
    nearly[:, :2] = 0
    with pytest.raises(Collapsed, match="solid"):
        field_to_surface(lambda p: torch.full_like(p[:, 0], 9.0), VIEWS, nearly, nearly, 32)
