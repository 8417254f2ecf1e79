"""A whole run in seconds: tiny settings, and a red ball in place of a prior.

As a script it is a process to kill: python tiny_run.py OUTPUT [STEP_SECONDS [STAGE]]
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from magic3d_cli import assembly, job, open_presets, pipeline, presets
from magic3d_cli.coarse import initial
from magic3d_cli.guidance.guide import Guide
from magic3d_cli.guidance.priors import STAGES
from magic3d_cli.presets import resolve
from magic3d_cli.run.callbacks import Intervals
from magic3d_cli.run.interrupts import Interrupts
from magic3d_cli.run.observer import Observer
from magic3d_cli.scene.render import Render
from magic3d_cli.settings import (
    AssetSettings,
    CoarseSettings,
    FieldSettings,
    FineSettings,
    Settings,
    StagePrior,
)
from magic3d_cli.training.report import StepReport
from magic3d_cli.training.terms import LossTerm, Step

RADIUS = 0.5


_BALL = StagePrior("ball", open_vocabulary=False)


def tiny_settings(seed: int = 0) -> Settings:
    """A few steps of a few pixels."""
    field = FieldSettings(levels=4, log2_size=10, base_resolution=4, finest_resolution=16, hidden=16)
    settings = Settings(
        preset="tiny",
        coarse=CoarseSettings(
            steps=10, views=2, render_size=24, samples_per_ray=48, occupancy_size=16, sparsity=0, field=field
        ),
        fine=FineSettings(steps=6, views=2, render_size=48, grid_size=14),
        asset=AssetSettings(faces=400, texture_size=64, padding=1),
        seed=seed,
    )
    return resolve(settings, {stage: [_BALL] for stage in STAGES})


class BallGuide:
    """Guides toward a red ball around the origin, which looks the same from everywhere."""

    def __init__(self, step_seconds: float = 0.0, slow_stage: str = "", weights: str = "one") -> None:
        self.step_seconds, self.slow_stage, self.weights = step_seconds, slow_stage, weights

    def name(self, stage: str) -> str:
        return "ball"

    def sha256(self, stage: str) -> str:
        return f"{self.weights}-{stage}"

    def terms(self, stage: str, settings: CoarseSettings | FineSettings) -> list[LossTerm]:
        def toward_ball(render: Render, step: Step) -> torch.Tensor:
            if stage == self.slow_stage:
                time.sleep(self.step_seconds)
            images = render.rgb
            origins, directions = step.views.rays(images.shape[1])
            nearest = origins - (origins * directions).sum(-1, keepdim=True) * directions
            hit = nearest.norm(dim=-1, keepdim=True) < RADIUS
            # As score distillation draws some.
            noise = step.draw(lambda n: 0.01 * torch.randn(n, *images.shape[1:], generator=step.generator))
            target = torch.where(hit, torch.tensor([0.9, 0.1, 0.1]), step.views.backdrop[:, None, None, :])
            return (images - target - noise).square().sum() / len(images)

        return [LossTerm("ball", toward_ball)]

    def things(self) -> None:
        """One thing."""

    def volume(self) -> None:
        return None


def tiny_draft(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset draft is tiny, from a ball and from a prior's volume."""
    for some in (presets.PRESETS, open_presets.PRESETS):
        monkeypatch.setitem(some, "draft", replace(tiny_settings(), preset="draft"))
    monkeypatch.setattr(presets, "_SHAPED", {})
    monkeypatch.setattr(open_presets, "_SHAPED", {})
    monkeypatch.setattr(open_presets, "SHAPE_FIELD", tiny_settings().coarse.field)
    monkeypatch.setattr(initial, "STEPS", 30)
    monkeypatch.setattr(initial, "COLOUR_STEPS", 10)


def play_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks `job.py` for a draft gets tiny settings and a ball in place of a prior."""
    monkeypatch.setattr(assembly, "choose_priors", lambda names, *rest, **more: {stage: [_BALL] for stage in names})
    monkeypatch.setattr(job, "understood", lambda *arguments: None)
    monkeypatch.setattr(assembly, "PriorGuide", lambda *arguments: BallGuide())
    tiny_draft(monkeypatch)


class Noting(Observer):
    """Adds what it is told to a list."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes

    def note(self, text: str) -> None:
        self.notes.append(text)


class Recorder(Observer):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int]] = []
        self.notes: list[str] = []
        self.phases: list[str] = []

    def step(self, report: StepReport) -> None:
        self.steps.append((report.stage, report.step))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def phase(self, name: str) -> None:
        self.phases.append(name)


def run_tiny(
    output: Path,
    *,
    prompt: str = "a red ball",
    settings: Settings | None = None,
    guide: Guide | None = None,
    observer: Observer | None = None,
    interrupts: Interrupts | None = None,
    intervals: Intervals | None = None,
    fresh: bool = False,
) -> dict[str, Any]:
    """`pipeline.generate` on the tiny settings, as `magic3d generate` would call it."""
    with (
        one_thread(),
        job.opened(
            prompt,
            settings or tiny_settings(),
            output,
            guide or BallGuide(),
            "cpu",
            observer or Recorder(),
            interrupts or Interrupts(),
            intervals=intervals or Intervals(checkpoint=0.0, preview=1e9, preview_size=16),
        ) as opened,
    ):
        return pipeline.generate(opened, fresh=fresh)[1]


@contextmanager
def one_thread() -> Iterator[None]:
    """The same in every process, or sums would round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def with_fine_steps(steps: int) -> Settings:
    """The tiny settings with another length of the fine stage."""
    settings = tiny_settings()
    return replace(settings, fine=replace(settings.fine, steps=steps))


if __name__ == "__main__":
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    stage = sys.argv[3] if len(sys.argv) > 3 else ""
    output = Path(sys.argv[1])
    (output.parent / f"process.{os.environ.get('RANK', 0)}").write_text(str(os.getpid()))
    with Interrupts().installed() as handlers:
        print(run_tiny(output, guide=BallGuide(seconds, stage), interrupts=handlers).get("output"))
