"""The coarse stage begins with a shape that is known: its field is fitted to it, and the rest goes on from there."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from magic3d_cli import open_presets
from magic3d_cli.coarse.initial import fit
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.guidance.builtin.shape import VolumeShape
from magic3d_cli.guidance.conditioning import condition, read_prompt
from magic3d_cli.guidance.diffusers.prior import load_prior
from magic3d_cli.presets import PRESETS, resolve
from magic3d_cli.scene.views import turntable
from magic3d_cli.settings import BALL, VOLUME, Settings, StagePrior

CLOSED = [StagePrior("prior", open_vocabulary=False, has_volume=True)]
OPENED = [StagePrior("prior")]


class Torus:
    """Red on one side and blue on the other; lies flat, so that it is a ring from above and a bar from the side."""

    ring, tube = 0.5, 0.2

    def distance(self, points: Tensor) -> Tensor:
        around = points[:, [0, 2]].norm(dim=1) - self.ring
        return torch.stack([around, points[:, 1]], 1).norm(dim=1) - self.tube

    def density(self, points: Tensor) -> Tensor:
        return 60 * torch.sigmoid(-self.distance(points) * 300)

    def albedo(self, points: Tensor) -> Tensor:
        return torch.where(points[:, :1] > 0, torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9]))

    def surface(self, count: int, generator: torch.Generator) -> Tensor:
        a, b = (2 * math.pi * torch.rand(2, count, generator=generator)).unbind(0)
        out = self.ring + self.tube * b.cos()
        return torch.stack([out * a.cos(), self.tube * b.sin(), out * a.sin()], 1)


def shaped(base: str = "draft") -> Settings:
    return resolve(PRESETS[base], {"coarse": CLOSED, "fine": CLOSED})


@pytest.fixture(scope="module")
def fitted() -> CoarseStage:
    stage = CoarseStage(shaped(), 0)
    fit(stage, Torus())
    return stage


def truth(size: int = 64) -> tuple[Tensor, Tensor]:
    """Which pixels of four views see the torus, by sphere tracing, and the points they see."""
    origins, directions = turntable(4, elevation=40).rays(size)
    origins, directions = origins.reshape(-1, 3), directions.reshape(-1, 3)
    t = torch.zeros(len(origins))
    for _ in range(200):
        t = t + Torus().distance(origins + t[:, None] * directions)
    points = origins + t[:, None] * directions
    return (Torus().distance(points).abs() < 1e-3).view(4, size, size), points.view(4, size, size, 3)


def test_the_fitted_field_has_the_outline_the_colours_and_the_normals_of_the_shape(fitted: CoarseStage) -> None:
    image = fitted.render(turntable(4, elevation=40), 64)
    hit, points = truth()
    seen = image.opacity > 0.5
    assert (seen & hit).sum() / (seen | hit).sum() > 0.95  # a ring with its hole, where the start was a ball
    clear = hit & (points[..., 0].abs() > 0.1)
    colour = Torus().albedo(points[clear])
    assert (image.albedo[clear] - colour).abs().mean() < 0.06
    outward = points[hit].clone().requires_grad_()
    normal = torch.autograd.grad(Torus().distance(outward).sum(), outward)[0]
    assert (image.normal[hit] * normal).sum(-1).mean() > 0.6  # predicted, by a grid that learns distances first


def test_empty_space_is_empty_and_what_is_there_is_marched(fitted: CoarseStage) -> None:
    corners = torch.tensor([[x, y, z] for x in (-0.9, 0.9) for y in (-0.8, 0.8) for z in (-0.9, 0.9)])
    with torch.no_grad():
        assert fitted.field.density(corners).max() < 0.1
        hole = 0.1 * (torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1)
        assert fitted.field.density(hole).median() < 0.5  # where the ball was densest
    assert fitted.occupancy.fraction() < 0.3


def test_a_fit_is_the_same_each_time() -> None:
    tables = []
    for _ in range(2):
        stage = CoarseStage(shaped(), 7)
        fit(stage, Torus(), steps=5)
        tables.append(stage.state()[0])
    assert all(torch.equal(value, tables[1][name]) for name, value in tables[0].items())


def test_auto_takes_the_volume_of_a_prior_that_has_one_and_the_ball_of_the_paper_otherwise() -> None:
    closed, opened = ({"coarse": prior, "fine": prior} for prior in (CLOSED, OPENED))
    for preset in ("draft", "standard"):
        volume = resolve(PRESETS[preset], closed)
        assert volume.coarse.init == VOLUME and volume.coarse.steps < PRESETS[preset].coarse.steps / 3
        for priors, init, own in ((closed, BALL, PRESETS), (opened, None, open_presets.PRESETS)):
            ball = resolve(PRESETS[preset], priors, init=init)
            whole = own[preset].coarse
            assert ball.coarse == replace(whole, init=BALL, guidance=ball.coarse.guidance)  # the way from a ball stays
            assert ball.fine.steps == own[preset].fine.steps
    assert resolve(PRESETS["paper"], closed).coarse.init == BALL
    # A checkpoint's settings say what they began with.
    assert resolve(volume, opened).coarse.init == VOLUME


@pytest.mark.slow
def test_the_built_in_priors_volume_reaches_the_mesh() -> None:
    """Thin parts too: a snowman keeps both his arms, which three hundred steps from a ball lost."""
    prior = load_prior("builtin")
    assert prior.volume is not None
    shape = VolumeShape(prior.volume, condition(prior, read_prompt(prior, "a snowman", 0)).states)
    views = turntable(4, elevation=10)
    maps = prior.volume.render(shape._volume.movedim(1, -1).float(), views, 96)
    stage = CoarseStage(shaped(), 0)
    fit(stage, shape)
    mesh = FineStage.from_coarse(stage.settings, stage)
    hit = maps[:, 0] > 0.5
    for opacity in (stage.render(views, 96).opacity, mesh.render(views, 96).opacity):
        seen = opacity > 0.5
        assert (seen & hit).sum() / (seen | hit).sum() > 0.93
    ends = maps[0, 7:10, :, :].movedim(0, -1)[hit[0]] / maps[0, :1].movedim(0, -1)[hit[0]]
    vertices = mesh.mesh()[0]
    assert vertices[:, 0].min() < ends[:, 0].min() + 0.08 and vertices[:, 0].max() > ends[:, 0].max() - 0.08
