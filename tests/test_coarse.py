"""The coarse stage fits what it is shown, can be stopped anywhere, and says so when it collapses."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from optimise import train
from torch import Tensor

from magic3d_cli.coarse import regularisers
from magic3d_cli.coarse.occupancy import OccupancyGrid
from magic3d_cli.coarse.regularisers import normal_losses, opaqueness, sparsity, surface_samples
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.coarse.volume_render import _visible, render_volume, step_length
from magic3d_cli.errors import Collapsed
from magic3d_cli.presets import PRESETS
from magic3d_cli.scene.background import Background
from magic3d_cli.scene.field import LEAST_SLOPE, HashField
from magic3d_cli.scene.shading import shade
from magic3d_cli.scene.views import ALBEDO, DIFFUSE, Views, turntable
from magic3d_cli.settings import FieldSettings, Settings, ViewSampling
from magic3d_cli.training.report import PHASES, StepReport

RADIUS = 0.6


def _settings(**changes) -> Settings:
    small = {
        "steps": 160,
        "render_size": 32,
        "samples_per_ray": 64,
        "occupancy_size": 24,
        "normal_samples": 256,
        "warmup": 0.0,
        "field": FieldSettings(levels=6, log2_size=12, base_resolution=4, finest_resolution=48, hidden=16),
        "sampling": ViewSampling(solid_background=0.9),
    }
    coarse = replace(PRESETS["draft"].coarse, **{**small, **changes})
    return replace(PRESETS["draft"], coarse=coarse)


def _ball(views: Views, size: int) -> tuple[Tensor, Tensor]:
    """A ball, half red and half blue: shaded images over each view's backdrop, and silhouettes."""
    origins, directions = views.rays(size)
    middle = (origins * directions).sum(-1)
    inside = middle**2 - (origins**2).sum(-1) + RADIUS**2
    hit = inside > 0
    points = origins + (-middle - inside.clamp(min=0).sqrt())[..., None] * directions
    red, blue = torch.tensor([0.9, 0.2, 0.1]), torch.tensor([0.1, 0.3, 0.9])
    colour = shade(torch.where(points[..., :1] > 0, red, blue), points / RADIUS, views)
    return torch.where(hit[..., None], colour, views.backdrop[:, None, None].expand_as(colour)), hit


def _show_ball(images: Tensor, views: Views, progress: float, generator: torch.Generator):
    target, hit = _ball(views, images.shape[1])
    # Where the background is the stage's own, it may be any colour.
    judged = hit | (views.solid_background > 0)[:, None, None]
    return ((images - target) ** 2 * judged[..., None]).sum() / len(views), {"seen": progress}


@pytest.fixture(scope="module")
def fitted() -> tuple[CoarseStage, list[StepReport]]:
    reports: list[StepReport] = []
    stage = CoarseStage(_settings(), seed=0)
    train(stage, _show_ball, on_step=reports.append)
    return stage, reports


def test_a_two_coloured_ball_is_learnt_from_its_images(fitted) -> None:
    stage, _ = fitted
    views = turntable(6, elevation=20, start=17)
    target, silhouette = _ball(views, 48)
    image = stage.render(views, 48)
    assert -10 * math.log10((image.rgb - target).square().mean()) > 19
    seen = image.opacity > 0.5
    assert (seen & silhouette).sum() / (seen | silhouette).sum() > 0.93


def test_depth_and_normals_are_those_of_the_ball(fitted) -> None:
    stage, _ = fitted
    views = turntable(4, elevation=10)
    image = stage.render(views, 33)
    expected = views.distance - RADIUS
    torch.testing.assert_close(image.depth[:, 16, 16], expected, rtol=0, atol=0.2)
    core = image.opacity > 0.9
    origins, directions = views.rays(33)
    outward = torch.nn.functional.normalize(origins + image.depth[..., None] * directions, dim=-1)
    assert (image.normal * outward).sum(-1)[core].mean() > 0.9
    # Trap: density normals of the wrong sign would still agree with the predicted ones.
    points = outward[core] * RADIUS
    with torch.no_grad():
        assert (stage.field.density_normal(points) * outward[core]).sum(-1).mean() > 0.9


def test_reports_tell_what_a_step_did(fitted) -> None:
    stage, reports = fitted
    assert [r.step for r in reports] == list(range(1, 161)) and stage.step == 160
    assert {r.stage for r in reports} == {"coarse"} and reports[-1].total == 160
    assert set(reports[-1].seconds) == set(PHASES)
    assert {"loss", "image", "image_seen", "opacity", "occupied", "samples"} <= set(reports[-1].metrics)
    assert reports[-1].metrics["loss"] < 0.3 * reports[0].metrics["loss"]


def test_samples_are_counted_as_marched_not_as_seen(fitted, monkeypatch) -> None:
    kept: list[int] = []

    def watched(field, samples):
        kept.append(len(samples))
        return _visible(field, samples)

    monkeypatch.setattr("magic3d_cli.coarse.volume_render._visible", watched)
    views = turntable(2)
    image = render_volume(fitted[0].field, fitted[0].occupancy, fitted[0].background, views, 16, 48)
    assert kept == [image.marched] and 0 < len(image.samples) < 0.8 * image.marched
    reports: list[StepReport] = []
    train(CoarseStage(_settings(), seed=0), _show_ball, until=1, on_step=reports.append)
    assert reports[0].metrics["samples"] == kept[1]


def test_empty_space_is_skipped_and_the_ball_is_not(fitted) -> None:
    occupied = fitted[0].occupancy.occupied
    axis = (torch.arange(24) + 0.5) / 12 - 1
    distance = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).norm(dim=-1)
    assert occupied[(distance - RADIUS).abs() < 0.08].float().mean() > 0.98
    assert occupied[distance > 1.2].float().mean() < 0.1


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() -> None:
    settings = _settings(steps=14, occupancy_every=5, warmup=0.3, warmup_render_size=16)
    whole = CoarseStage(settings, seed=3)
    train(whole, _show_ball)

    class Stop(Exception):
        pass

    def stop_at_7(report: StepReport) -> None:
        if report.step == 7:
            raise Stop

    first = CoarseStage(settings, seed=3)
    with pytest.raises(Stop):
        train(first, _show_ball, on_step=stop_at_7)
    tensors, meta = first.state()
    second = CoarseStage.from_state(settings, tensors, meta)
    assert second.step == 7
    train(second, _show_ball)
    (expected, expected_meta), (got, got_meta) = whole.state(), second.state()
    assert got_meta == expected_meta and got.keys() == expected.keys()
    assert [name for name in got if not torch.equal(got[name], expected[name])] == []
    views = turntable(2)
    assert torch.equal(whole.render(views, 16).rgb, second.render(views, 16).rgb)


def test_run_stops_at_until() -> None:
    stage = CoarseStage(_settings(), seed=0)
    train(stage, _show_ball, until=2)
    train(stage, _show_ball, until=2)
    assert stage.step == 2


def _objective(value: Callable[[Tensor], Tensor]):
    return lambda images, views, progress, generator: (value(images), {})


def test_gradients_that_stay_non_finite_are_a_collapse_and_change_nothing() -> None:
    stage = CoarseStage(_settings(), seed=0)
    before = stage.field.table.detach().clone()
    with pytest.raises(Collapsed):
        train(stage, _objective(lambda images: images.sum() * float("nan")))
    assert torch.equal(stage.field.table, before)


def test_an_emptied_volume_is_a_collapse() -> None:
    def vanish(images: Tensor, views: Views, progress: float, generator: torch.Generator):
        behind = views.backdrop[:, None, None]
        plain = views.solid_background[:, None, None, None]
        return ((images - behind) ** 2 * plain).sum() * 10, {}

    stage = CoarseStage(_settings(steps=80, lr=0.1), seed=0)
    with pytest.raises(Collapsed, match="empty"):
        train(stage, vanish)
    assert stage.occupancy.fraction() > 0  # nothing was left to prune, yet it can come back


def test_what_has_faded_away_comes_back() -> None:
    """A prior may fade the initial ball wholly before it says where a thin thing is; the lamp still has to appear."""

    def fade_then_show(images: Tensor, views: Views, progress: float, generator: torch.Generator):
        if progress >= 0.05:
            return _show_ball(images, views, progress, generator)
        behind = views.backdrop[:, None, None]
        return 0.1 * ((images - behind) ** 2 * views.solid_background[:, None, None, None]).sum(), {}

    opacity: list[float] = []
    stage = CoarseStage(_settings(steps=1900), seed=0)
    train(stage, fade_then_show, until=142, on_step=lambda report: opacity.append(report.metrics["opacity"]))
    assert opacity[99] < 0.001
    assert opacity[-1] > 0.03  # 0.001 if faint samples were dropped as ever


def test_the_field_starts_as_a_soft_ball() -> None:
    field = HashField(_settings().coarse.field, torch.Generator().manual_seed(0))
    points = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.9, 0.0]])
    features = field.features(points)
    density, albedo = field.density_and_albedo(points, features)
    torch.testing.assert_close(density, torch.tensor([10.0, math.log(2), 0.0]), rtol=0, atol=0.05)
    torch.testing.assert_close(field.normals(features).norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(field.density(points), density)
    assert torch.equal(field.albedo(points), albedo)
    outward = torch.nn.functional.normalize(torch.tensor([[0.3, 0.1, 0.2]]), dim=-1)
    assert (field.density_normal(0.4 * outward) * outward).sum() > 0.99


def test_normals_of_a_twisted_density_are_exact(monkeypatch) -> None:
    """The logit 10 z + 20 x y has the slope (20 y, 20 x, 10); a one-sided stencil would add its second derivative."""
    field = HashField(_settings().coarse.field, torch.Generator().manual_seed(0))

    def twisted(points: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        return 10 * points[:, 2] + 20 * points[:, 0] * points[:, 1]

    monkeypatch.setattr(field, "density_logit", twisted)
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) - 0.5
    slope = torch.stack([20 * points[:, 1], 20 * points[:, 0], torch.full((50,), 10.0)], 1)
    expected = -torch.nn.functional.normalize(slope, dim=-1)
    torch.testing.assert_close(field.density_normal(points), expected, rtol=0, atol=1e-3)


def test_empty_space_still_feels_a_pull() -> None:
    field = HashField(_settings().coarse.field, torch.Generator().manual_seed(0))
    corner = torch.full((1, 3), 0.99)
    density, _ = field.density_and_albedo(corner, field.features(corner))
    density.sum().backward()
    assert density.item() < 1e-3
    slope = field.surface.bias_out.grad
    assert slope is not None and slope[0] > 0.9 * LEAST_SLOPE * field.settings.density_gain


def _keep_every_sample(monkeypatch) -> None:
    monkeypatch.setattr("magic3d_cli.coarse.volume_render.HIDDEN", 0.0)
    monkeypatch.setattr("magic3d_cli.coarse.volume_render.FAINT", -1.0)


def _in_double_precision(views: Views) -> Views:
    return Views(
        **{name: x.double() if x is not None and x.is_floating_point() else x for name, x in vars(views).items()}
    )


def test_rendering_gradients_equal_finite_differences(monkeypatch) -> None:
    """Through both heads, compositing, shading and background; not through which samples are dropped, and without
    the slope that is added to the density's.

    In double precision, where differences are exact enough to be compared with on any processor: in single
    precision their rounding is as large as the smallest of these slopes. The gradients of the single-precision kernels
    are then compared with those.
    """
    _keep_every_sample(monkeypatch)
    monkeypatch.setattr("magic3d_cli.scene.field.LEAST_SLOPE", 0.0)
    stage = CoarseStage(_settings(), seed=1)
    stage.occupancy.occupied.fill_(True)
    views = turntable(2).replace(shading=torch.tensor([ALBEDO, DIFFUSE]), solid_background=torch.tensor([1.0, 0.0]))
    cotangent = torch.randn(2, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # away from the nearly constant initial table
        stage.field.table.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(5))
        stage.field.normal.bias_out.copy_(views.light[1])  # away from the shadow's edge, where shading has a kink
    modules: dict[str, Any] = {
        "field": copy.deepcopy(stage.field).double(),
        "background": copy.deepcopy(stage.background).double(),
    }

    def loss(field: HashField, background: Background, views: Views) -> Tensor:
        image = render_volume(field, stage.occupancy, background, views, 8, 24)
        return (image.rgb.double() * cotangent).sum()

    def parts(field: HashField, background: Background) -> list[Tensor]:
        weights = [field.surface.weight_in, field.surface.weight_out, field.normal.weight_out, field.table]
        return [*weights, *background.parameters()]

    def exact_loss() -> Tensor:
        return loss(**modules, views=_in_double_precision(views))

    exact = torch.autograd.grad(exact_loss(), parts(**modules))
    for part, grad in zip(parts(**modules), exact, strict=True):
        assert grad.norm() > 1e-3  # or nothing is compared
        for direction in range(2):
            along = torch.randn(part.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(direction))
            along /= along.norm()
            expected, error = (grad * along).sum().item(), math.inf
            for size in (1e-5, 1e-6):  # too large: curvature and the kinks of ReLU; too small: rounding
                with torch.no_grad():
                    part += size * along
                    above = exact_loss().item()
                    part -= 2 * size * along
                    below = exact_loss().item()
                    part += size * along
                error = min(error, abs((above - below) / (2 * size) - expected))
            assert error < 1e-5 * grad.norm().item()

    fast = torch.autograd.grad(loss(stage.field, stage.background, views), parts(stage.field, stage.background))
    for grad, right in zip(fast, exact, strict=True):
        assert (grad - right).norm() < 1e-3 * right.norm()


def test_dropping_hidden_and_faint_samples_hardly_changes_the_image(monkeypatch) -> None:
    stage = CoarseStage(_settings(), seed=0)
    views = turntable(2)
    dropped = stage.render(views, 24)
    _keep_every_sample(monkeypatch)
    difference = (stage.render(views, 24).rgb - dropped.rgb).abs()
    assert difference.max() < 0.03 and difference.mean() < 0.004  # where a ray grazes the fringe of a soft ball


def test_normals_of_chosen_shading_equal_those_of_all() -> None:
    stage = CoarseStage(_settings(), seed=0)
    views = turntable(2).replace(shading=torch.tensor([ALBEDO, DIFFUSE]))
    args = (stage.field, stage.occupancy, stage.background, views, 16, 48)
    few, every = render_volume(*args), render_volume(*args, all_normals=True)
    assert torch.equal(few.rgb, every.rgb)
    assert not few.normal[0].any() and torch.equal(few.normal[1], every.normal[1])


def test_pruned_cells_come_back_and_never_all_are_pruned() -> None:
    generator = torch.Generator().manual_seed(0)
    grid = OccupancyGrid(16, step_length(64), threshold=0.01, decay=0.6)
    assert grid.fraction() == 1
    grid.update(lambda p: 30.0 * (p.norm(dim=-1) < 0.3), generator)
    assert 0 < grid.fraction() < 0.1
    assert not grid.occupied[0, 0, 0] and grid.occupied[8, 8, 8]
    grid.update(lambda p: 30.0 * (p.norm(dim=-1) > 1.2), generator)
    assert grid.occupied[0, 0, 0]
    for _ in range(40):
        grid.update(lambda p: 1e-9 * torch.exp(-p.norm(dim=-1)), generator)
    assert 0 < grid.fraction() < 0.6  # of nothing but air, what is above its mean


def test_thin_fog_is_not_pruned_where_all_is_as_thin() -> None:
    """An even density of 0.7 hides 90 % of what is behind the box, and no step of 256 through it hides 1 %."""
    generator = torch.Generator().manual_seed(0)
    grid = OccupancyGrid(16, step_length(256), threshold=0.01, decay=0.6)
    grid.update(lambda p: torch.full((len(p),), 0.7), generator)
    assert grid.fraction() == 1
    grid.update(lambda p: 0.7 * (p[:, 0] < 0), generator)
    grid.update(lambda p: 0.7 * (p[:, 0] < 0), generator)
    assert 0.5 < grid.fraction() < 0.6  # half, grown by a cell: the thinner half is below the mean
    ball = OccupancyGrid(16, step_length(256), threshold=0.01, decay=0.6)
    ball.update(lambda p: 0.7 + 300.0 * (p.norm(dim=-1) < 0.5), generator)
    assert ball.fraction() < 0.25  # beside something dense the same fog is skipped as ever


def test_the_papers_full_grid_lasts_six_updates() -> None:
    generator = torch.Generator().manual_seed(0)
    grid = OccupancyGrid(16, step_length(256), threshold=0.01, decay=0.6, start=20.0)
    fractions = []
    for _ in range(7):
        grid.update(lambda p: 90.0 * (p.norm(dim=-1) < 0.5), generator)
        fractions.append(grid.fraction())
    assert fractions[5] == 1 and fractions[6] < 0.3


def test_regularisers_reward_what_they_name() -> None:
    half, clear = torch.full((2, 4, 4), 0.5), torch.tensor([0.0, 1.0]).expand(2, 4, 4, 2)
    assert opaqueness(half) > opaqueness(clear)
    assert sparsity(half) > sparsity(half * 0.1)
    weights = torch.tensor([0.0, 3.0, 0.0, 1.0])
    index = surface_samples(weights, 400, torch.Generator().manual_seed(0))
    assert torch.bincount(index, minlength=4).tolist() == [0, 300, 0, 100]
    assert len(surface_samples(torch.zeros(3), 10, torch.Generator())) == 0


def test_orientation_is_zero_for_the_initial_ball_and_agreement_is_not() -> None:
    stage = CoarseStage(_settings(), seed=0)
    image = render_volume(stage.field, stage.occupancy, stage.background, turntable(2), 16, 64)
    agreement, orientation = normal_losses(stage.field, image, 512, torch.Generator().manual_seed(0))
    assert orientation < 0.02 < agreement


def test_predicted_normals_lead_the_density_by_their_share_alone(monkeypatch) -> None:
    """Without it shading, which predicted normals are learnt from, would leave dents in walls of one colour."""
    stage = CoarseStage(_settings(), seed=0)
    image = render_volume(stage.field, stage.occupancy, stage.background, turntable(2), 24, 64)

    def gradients(share: float) -> tuple[torch.Tensor, ...]:
        monkeypatch.setattr(regularisers, "SHAPING", share)
        agreement, _ = normal_losses(stage.field, image, 512, torch.Generator().manual_seed(0))
        return torch.autograd.grad(agreement, (stage.field.table, stage.field.normal.weight_out))

    shipped = regularisers.SHAPING
    assert 0.2 <= shipped <= 0.5  # at 0.05 an armchair had pits, at 0.6 a castle's gate filled
    density, head = gradients(shipped)
    density_alone, nothing = gradients(1.0)
    assert torch.allclose(density, shipped * density_alone, atol=1e-8) and density.abs().max() > 0
    none, head_alone = gradients(0.0)
    assert torch.allclose(head, (1 - shipped) * head_alone, atol=1e-8) and head.abs().max() > 0
    assert not none.any() and not nothing.any()
