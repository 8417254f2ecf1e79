"""The conventions all else relies on: where views are, which way is up, and that rays and matrices agree."""

from __future__ import annotations

import math
from typing import Any

import torch

from magic3d_cli.scene.shading import TEXTURELESS_ALBEDO, shade
from magic3d_cli.scene.views import (
    ALBEDO,
    CAMERA_EMBEDDING,
    DIFFUSE,
    TEXTURELESS,
    direction,
    sample_views,
    turntable,
    views_from_embedding,
)
from magic3d_cli.settings import ViewSampling


def _sampled(count: int = 2000, **kwargs):
    return sample_views(count, ViewSampling(), torch.Generator().manual_seed(0), **kwargs)


def test_azimuth_0_is_in_front_on_z_and_90_on_x_and_elevation_90_above() -> None:
    quarter, zero = torch.tensor(math.pi / 2), torch.tensor(0.0)
    near: dict[str, Any] = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(direction(zero, zero), torch.tensor([0.0, 0.0, 1.0]), **near)
    torch.testing.assert_close(direction(quarter, zero), torch.tensor([1.0, 0.0, 0.0]), **near)
    torch.testing.assert_close(direction(zero, quarter), torch.tensor([0.0, 1.0, 0.0]), **near)


def test_camera_distance_shows_the_frame_at_the_origin() -> None:
    views = _sampled(20)
    torch.testing.assert_close(views.distance * torch.tan(views.fov / 2), views.half_height)
    torch.testing.assert_close(views.position.norm(dim=-1), views.distance)


def test_from_the_front_plus_x_is_right_and_plus_y_is_up() -> None:
    right, up, forward = turntable(1, elevation=0).axes()
    torch.testing.assert_close(torch.cat([right, up, -forward]), torch.eye(3), rtol=0, atol=1e-6)


def test_axes_are_orthonormal_even_at_the_pole() -> None:
    views = turntable(3, elevation=90)
    frame = torch.stack(views.axes(), 1)
    torch.testing.assert_close(frame @ frame.mT, torch.eye(3).expand(3, 3, 3), rtol=0, atol=1e-6)


def test_rays_are_unit_and_row_0_looks_up() -> None:
    origins, directions = turntable(1, elevation=0).rays(8)
    assert origins.shape == directions.shape == (1, 8, 8, 3)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(1, 8, 8))
    assert (directions[0, 0, :, 1] > 0).all() and (directions[0, -1, :, 1] < 0).all()
    assert (directions[0, :, -1, 0] > 0).all()


def test_clip_matrix_puts_points_of_a_ray_on_its_pixel() -> None:
    views, size = _sampled(6), 5
    origins, directions = views.rays(size)
    points = origins + directions * views.distance[:, None, None, None]
    homogeneous = torch.cat([points, torch.ones(*points.shape[:-1], 1)], -1)
    clip = torch.einsum("bij,bhwj->bhwi", views.world_to_clip(), homogeneous)
    x, y, depth = (clip[..., :3] / clip[..., 3:]).unbind(-1)
    centre = (torch.arange(size) + 0.5) / size * 2 - 1
    torch.testing.assert_close(x, centre.expand(6, size, size), rtol=0, atol=1e-4)
    torch.testing.assert_close(y, -centre[:, None].expand(6, size, size), rtol=0, atol=1e-4)
    assert (depth.abs() < 1).all()


def test_clip_depth_runs_from_minus_1_at_near_to_1_at_far() -> None:
    views = turntable(1)
    forward = views.axes()[2]
    for distance, expected in ((0.5, -1.0), (7.0, 1.0)):
        point = torch.cat([views.position + distance * forward, torch.ones(1, 1)], 1)
        clip = (views.world_to_clip(near=0.5, far=7.0) @ point[..., None])[0, :, 0]
        assert abs((clip[2] / clip[3]).item() - expected) < 1e-4


def test_features_have_their_length_and_are_of_order_one() -> None:
    features = _sampled().camera_embedding()
    assert features.shape == (2000, CAMERA_EMBEDDING)
    assert features.abs().max() <= 1.1


def test_albedo_views_do_not_tell_the_light_and_learned_backgrounds_not_the_backdrop() -> None:
    views = _sampled(10)
    views = views.replace(shading=torch.full((10,), ALBEDO), solid_background=torch.zeros(10))
    other = views.replace(light=-views.light, ambient=1 - views.ambient, backdrop=1 - views.backdrop)
    assert torch.equal(views.camera_embedding(), other.camera_embedding())


def test_samples_stay_in_their_ranges() -> None:
    sampling, views = ViewSampling(), _sampled()
    for value, (low, high), slack in (
        (torch.rad2deg(views.elevation), sampling.elevation, 1e-3),
        (torch.rad2deg(views.fov), sampling.fov, 1e-3),
        (views.half_height, sampling.half_height, 1e-5),
        (views.ambient, sampling.ambient, 1e-5),
    ):
        assert low - slack <= value.min() and value.max() <= high + slack
        assert value.max() - value.min() > 0.9 * (high - low)
    assert views.azimuth.min() >= 0 and views.azimuth.max() < 2 * math.pi + 1e-5
    camera = direction(views.azimuth, views.elevation)
    cosine = (views.light * camera).sum(-1)
    assert cosine.min() >= math.cos(math.radians(sampling.light_spread)) - 1e-4
    torch.testing.assert_close(views.light.norm(dim=-1), torch.ones(2000), rtol=0, atol=1e-4)
    assert abs(views.solid_background.mean() - sampling.solid_background) < 0.05
    shares = torch.bincount(views.shading, minlength=3) / 2000
    torch.testing.assert_close(shares, torch.tensor(sampling.shading), rtol=0, atol=0.05)


def test_elevation_is_uniform_over_area_not_over_angle() -> None:
    low, high = (math.sin(math.radians(e)) for e in ViewSampling().elevation)
    heights = (torch.sin(_sampled().elevation) - low) / (high - low)
    assert abs(heights.mean() - 0.5) < 0.03 and abs(heights.var() - 1 / 12) < 0.01


def test_stratified_azimuths_see_every_side_in_every_batch() -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        azimuth = sample_views(4, ViewSampling(), generator).azimuth.sort().values
        gaps = torch.cat([azimuth.diff(), azimuth[:1] + 2 * math.pi - azimuth[-1:]])
        assert gaps.max() < math.pi


def test_the_same_seed_gives_the_same_views() -> None:
    assert torch.equal(_sampled().camera_embedding(), _sampled().camera_embedding())


def test_shading_modes() -> None:
    views = turntable(3, elevation=0).replace(shading=torch.tensor([ALBEDO, DIFFUSE, TEXTURELESS]))
    albedo = torch.tensor([0.2, 0.4, 0.6]).expand(3, 7, 3)
    facing, away = views.light[:, None].expand(3, 7, 3), -views.light[:, None].expand(3, 7, 3)
    bright, dark = shade(albedo, facing, views), shade(albedo, away, views)
    torch.testing.assert_close(bright[:2], albedo[:2])
    torch.testing.assert_close(bright[2], torch.full((7, 3), TEXTURELESS_ALBEDO))
    torch.testing.assert_close(dark[1], albedo[1] * views.ambient[1])
    torch.testing.assert_close(dark[0], albedo[0])


def test_indexing_keeps_views_together() -> None:
    views = _sampled(10)
    assert len(views[2:5]) == 3
    assert torch.equal(views[2:5].camera_embedding(), views.camera_embedding()[2:5])


def test_views_can_be_read_back_from_their_features() -> None:
    views = _sampled(200)
    back = views_from_embedding(views.camera_embedding())
    torch.testing.assert_close(back.position, views.position)
    torch.testing.assert_close(back.rays(4)[1], views.rays(4)[1])
    assert torch.equal(back.shading, views.shading) and torch.equal(back.solid_background, views.solid_background)
