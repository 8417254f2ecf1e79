"""What a stage tells about each step."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

PHASES = ("render", "losses", "backward", "optimizer")
"""What a step's time goes to."""


@dataclass(frozen=True)
class StepReport:
    """One finished optimisation step."""

    stage: str  # "coarse" or "fine"
    step: int  # steps done, 1 after the first
    total: int
    metrics: dict[str, float]
    seconds: dict[str, float]  # one entry for each of PHASES


def now(device: torch.device) -> float:
    """Seconds, once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class PhaseTimer:
    """Adds up the seconds of each phase; waits for the device, so that a phase is charged its own work."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.last = now(device)

    def lap(self, phase: str) -> None:
        lapped = now(self.device)
        self.seconds[phase] += lapped - self.last
        self.last = lapped
