"""Optimising a stage toward a loss of its images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from magic3d_cli.scene.views import Views
from magic3d_cli.training.loop import Stage
from magic3d_cli.training.terms import Loss, LossTerm, Step

ImageLoss = Callable[[Tensor, Views, float, torch.Generator], tuple[Tensor, dict[str, float]]]
"""(images [B, H, W, 3] with gradient, views, progress, generator) -> (loss [], metrics)."""


def of_images(loss: ImageLoss) -> Loss:
    """As a loss of renders."""

    def of_render(render: Any, step: Step) -> tuple[Tensor, dict[str, float]]:
        return loss(render.rgb, step.views, step.progress, step.generator)

    return of_render


def train(stage: Stage, loss: ImageLoss, **how: Any) -> None:
    """Run a stage with this loss of its random views, and its regularisers."""
    stage.run([stage.random_views(LossTerm("image", of_images(loss)))], **how)
