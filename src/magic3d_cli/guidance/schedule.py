"""How guidance changes over a run: which diffusion times are drawn, and how strongly the text pulls.

Pure functions of the run's progress, 0 at the first step and 1 at the last.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from magic3d_cli.settings import TimestepSchedule


def mix(start: float, end: float, fraction: float) -> float:
    """Linear interpolation, `fraction` clamped to [0, 1]."""
    fraction = min(max(fraction, 0.0), 1.0)
    return start + (end - start) * fraction


def time_range(schedule: TimestepSchedule, progress: float) -> tuple[float, float]:
    """Lowest and highest diffusion time drawn now; both move linearly over the first `anneal` of the run."""
    fraction = progress / schedule.anneal if schedule.anneal > 0 else 1.0
    low, high = zip(schedule.start, schedule.end, strict=True)
    return mix(*low, fraction), mix(*high, fraction)


def sample_timesteps(
    schedule: TimestepSchedule, progress: float, count: int, train_steps: int, generator: torch.Generator
) -> Int[Tensor, "B"]:
    """Draw one int64 timestep in [0, train_steps) for each image, uniform over the current time range.

    Integers on purpose: in bfloat16, 999 becomes 1000 and 777 becomes 776.
    """
    low, high = time_range(schedule, progress)
    times = low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)
    return (times * train_steps).long().clamp(0, train_steps - 1)
