"""What a run has cost: seconds by part, seconds by kind of work within a step, peak memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from magic3d_cli.training.report import StepReport


@dataclass
class Timings:
    """Adds up over interruptions: a checkpoint carries it, a resumed run goes on from there."""

    seconds: dict[str, float] = field(default_factory=dict)  # part -> wall time
    steps: dict[str, int] = field(default_factory=dict)  # stage -> steps timed
    step_seconds: dict[str, dict[str, float]] = field(default_factory=dict)  # stage -> kind of work -> total

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the wall time of the block to `part`."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(part, time.perf_counter() - begun)

    def add(self, part: str, seconds: float) -> None:
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def add_step(self, report: StepReport) -> None:
        self.steps[report.stage] = self.steps.get(report.stage, 0) + 1
        total = self.step_seconds.setdefault(report.stage, {})
        for kind, seconds in report.seconds.items():
            total[kind] = total.get(kind, 0.0) + seconds

    def to_json(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "steps": self.steps, "step_seconds": self.step_seconds}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Timings:
        """Inverse of `to_json`. Raises KeyError, TypeError, ValueError or AttributeError for what is none."""
        seconds = {part: float(value) for part, value in data["seconds"].items()}
        steps = {stage: int(count) for stage, count in data["steps"].items()}
        work = {stage: {kind: float(value) for kind, value in kinds.items()} for stage, kinds in
                data["step_seconds"].items()}  # fmt: skip
        if any(steps.get(stage, 0) < 1 for stage in work):
            raise ValueError("seconds of no steps")
        return Timings(seconds, steps, work)

    def per_step(self) -> dict[str, dict[str, float]]:
        """Mean seconds of each kind of work in one step, by stage."""
        return {
            stage: {kind: round(seconds / self.steps[stage], 4) for kind, seconds in total.items()}
            for stage, total in self.step_seconds.items()
        }


def forget_peak() -> None:
    """Have `peak_memory` tell a GPU's use from here on; the system's record of the host's cannot be reset."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, int]:
    """Highest memory use of this process so far, in bytes: "host" (where the system tells) and "cuda"."""
    peak: dict[str, int] = {}
    if sys.platform != "win32":
        import resource

        scale = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, the others kibibytes
        peak["host"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    if torch.cuda.is_initialized():
        peak["cuda"] = torch.cuda.max_memory_allocated()
    return peak
