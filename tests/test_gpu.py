"""On a GPU a step is the step that the CPU makes, but for the order of its sums; skipped where there is no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from optimise import train
from tiny_priors import save_if, save_sd
from tiny_run import BallGuide, tiny_settings
from torch import Tensor

from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.guidance.conditioning import condition, read_prompt
from magic3d_cli.guidance.diffusers.prior import load_prior
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.presets import preset
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import Views, turntable
from magic3d_cli.settings import GuidanceSettings
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.terms import Step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]


def ball(images: Tensor, views: Views, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
    (term,) = BallGuide().terms("", tiny_settings().coarse)
    step = Step(views.to("cpu"), progress, generator, Processes())
    loss, metrics = term(Render(images.cpu(), *[torch.zeros(0)] * 4), step)
    return loss.to(images.device), metrics


def apart(one: Tensor, other: Tensor) -> float:
    """Difference relative to the first, in the root mean square."""
    return float((one.cpu().double() - other.cpu().double()).norm() / one.cpu().double().norm())


@pytest.mark.parametrize("kind", ["coarse", "fine"])
def test_a_step_has_the_gradient_of_the_cpu(kind: str) -> None:
    settings = tiny_settings()
    scene = CoarseStage(settings, 0)
    train(scene, ball, until=5)
    stage = scene if kind == "coarse" else FineStage.from_coarse(settings, scene)
    there = type(stage).from_state(settings, *stage.state(), "cuda")
    reports: list[dict[str, float]] = []
    for each in (stage, there):
        train(each, ball, until=each.step + 1, on_step=lambda report: reports.append(report.metrics))
    # A pixel on a triangle's edge may fall to either side: one of 48 x 48 is 2e-4 of two pictures.
    assert reports[1]["loss"] == pytest.approx(reports[0]["loss"], rel=1e-4 if kind == "coarse" else 1e-3)
    pairs = zip(stage.optimiser.parameters(), there.optimiser.parameters(), strict=True)
    gradients = [(here.grad, gpu.grad) for here, gpu in pairs if here.grad is not None]
    assert gradients
    for here, gpu in gradients:
        assert gpu is not None and gpu.is_cuda and apart(here, gpu) < 1e-2
    views = turntable(3)
    assert (stage.render(views, 32).rgb - there.render(views, 32).rgb.cpu()).abs().mean() < 1e-2


def test_a_finished_coarse_stage_becomes_the_same_mesh() -> None:
    settings = tiny_settings()
    scene = CoarseStage(settings, 0)
    train(scene, ball)
    there = CoarseStage.from_state(settings, *scene.state(), "cuda")
    here, gpu = FineStage.from_coarse(settings, scene), FineStage.from_coarse(settings, there)
    assert gpu.handover["iou"] == pytest.approx(here.handover["iou"], abs=0.02)
    assert (here.render(turntable(3), 32).opacity - gpu.render(turntable(3), 32).opacity.cpu()).abs().mean() < 0.01


@pytest.mark.parametrize("kind", ["sd", "if", "builtin"])
def test_a_prior_in_half_precision_pulls_where_the_cpu_does(kind: str, tmp_path: Path) -> None:
    name = "builtin" if kind == "builtin" else str({"sd": save_sd, "if": save_if}[kind](tmp_path / kind))
    pulls = []
    for device in ("cpu", "cuda"):
        prior = load_prior(name, device, torch.float32 if device == "cpu" else None)
        guidance = preset("draft").coarse.guidance if kind == "builtin" else GuidanceSettings()
        images = torch.rand(4, 64, 64, 3, generator=torch.Generator().manual_seed(1)).to(device).requires_grad_()
        conditioning = condition(prior, read_prompt(prior, "a red car", 0))
        step = Step(turntable(4).to(device), 0.5, torch.Generator().manual_seed(2), Processes())
        loss, _ = ScoreDistillation(prior, conditioning, guidance)(Render(images, *[torch.zeros(0)] * 4), step)
        pulls.append(torch.autograd.grad(loss, images)[0])
    assert pulls[1].is_cuda and apart(*pulls) < 0.05
