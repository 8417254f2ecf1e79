"""What a stage is given to optimise, and what it tells about each step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from magic3d_cli.scene.views import Views

Objective = Callable[[Tensor, Views, float, torch.Generator], tuple[Tensor, dict[str, float]]]
"""(images [B, H, W, 3] with gradient, views, progress 0..1, generator) -> (loss [], metrics).

The loss is a sum over an image's pixels (or latents), averaged over the batch.
"""


@dataclass(frozen=True)
class StepReport:
    """One finished optimisation step."""

    stage: str  # "coarse" or "fine"
    step: int  # steps done, 1 after the first
    total: int
    metrics: dict[str, float]
    seconds: dict[str, float]  # "render", "objective", "backward", "optimizer"


def now(device: torch.device) -> float:
    """Seconds, once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Clock:
    """Adds up the seconds of each phase; waits for the device, so that a phase is charged its own work."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(("render", "objective", "backward", "optimizer"), 0.0)
        self.last = now(device)

    def lap(self, phase: str) -> None:
        lapped = now(self.device)
        self.seconds[phase] += lapped - self.last
        self.last = lapped
