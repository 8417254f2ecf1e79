"""The coarse stage: optimise a hash-grid NeRF against an objective on its images (Magic3D section 4.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from magic3d_cli.coarse.occupancy import OccupancyGrid
from magic3d_cli.coarse.regularisers import normal_terms, opaqueness, sparsity
from magic3d_cli.coarse.volume_render import Render, VolumeRender, render, step_length
from magic3d_cli.errors import Collapsed
from magic3d_cli.scene.background import Background
from magic3d_cli.scene.field import HashField
from magic3d_cli.scene.views import Views, sample_views
from magic3d_cli.settings import Settings
from magic3d_cli.training.distributed import current
from magic3d_cli.training.microbatch import Portions
from magic3d_cli.training.optimiser import FiniteAdam, pack_state, unpack_state
from magic3d_cli.training.report import Clock, Objective, StepReport

PIXELS = 64.0
"""A regulariser of weight 1 pulls on a whole image as hard as this many pixels of the objective, which is a
sum over pixels. It makes the usual weights (threestudio's are relative to a mean) fit a summed loss."""

_EMPTY, _SOLID = 0.002, 0.95  # mean opacity of the renderings
_CHECK_FROM = 0.2  # share of the run after which an empty or solid volume is an error
_RAYS = 1 << 15  # rendered at a time without gradient


class CoarseStage:
    """A coarse scene and its optimisation. The same seed on a CPU gives the same bits, resumed or not."""

    def __init__(self, settings: Settings, seed: int, device: torch.device | str = "cpu") -> None:
        self.settings, self.device, self.step = settings, torch.device(device), 0
        coarse = settings.coarse
        self.generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on every device
        self.field = HashField(coarse.field, self.generator).to(device)
        self.background = Background(self.generator).to(device)
        self.occupancy = OccupancyGrid(
            coarse.occupancy_size,
            step_length(coarse.samples_per_ray),
            coarse.occupancy_threshold,
            coarse.occupancy_decay,
            coarse.occupancy_start,
        ).to(device)
        self._update_occupancy()
        self.optimiser = FiniteAdam(
            [
                {"params": list(self.field.parameters()), "lr": coarse.lr},
                {"params": list(self.background.parameters()), "lr": coarse.background_lr},
            ]
        )
        self.portions = Portions()
        self._mean_opacity: float | None = None  # running

    def run(
        self,
        objective: Objective,
        *,
        until: int | None = None,
        on_step: Callable[[StepReport], None] | None = None,
    ) -> None:
        """Train to step `until` (default: all). `on_step` may raise to stop: its step is complete.

        Raises Collapsed when the volume has become empty or solid, or when no gradient is finite any more.
        """
        total = self.settings.coarse.steps
        while self.step < min(until if until is not None else total, total):
            report = self._step(objective)
            if on_step is not None:
                on_step(report)
            self._check()

    def _step(self, objective: Objective) -> StepReport:
        coarse = self.settings.coarse
        clock = Clock(self.device)
        progress = self.step / coarse.steps
        size = coarse.warm_render_size if progress < coarse.warm else coarse.render_size
        ranks = current()
        views = ranks.own(sample_views(coarse.views, coarse.sampling, self.generator)).to(self.device)
        jitter = ranks.draw(lambda count: torch.rand(count, size, size, generator=self.generator), len(views))
        self.optimiser.zero_grad()

        def compute(part: Views, rows: slice, share: float) -> tuple[dict[str, float], Tensor, float]:
            image = render(
                self.field, self.occupancy, self.background, part, size, coarse.samples_per_ray, jitter[rows]
            )
            clock.lap("render")
            loss, metrics = objective(image.rgb, part, progress, self.generator)
            clock.lap("objective")
            terms = self._regularisers(image, progress)
            clock.lap("render")
            (share * (loss + sum(terms.values()))).backward()
            clock.lap("backward")
            metrics = {"loss": loss.item(), **metrics, **{name: term.item() for name, term in terms.items()}}
            found = {name: share * value for name, value in metrics.items()}
            return found, share * image.opacity.detach().mean(), float(image.marched)

        parts = self.portions.accumulate(views, self.generator, compute, self.optimiser.zero_grad)
        found, opacities, samples = zip(*parts, strict=True)
        covered = torch.stack(opacities).sum()
        ranks.average([covered])
        ranks.average_gradients(self.optimiser.parameters())
        opacity = float(covered)
        self.optimiser.step()
        self.step += 1
        if self.step % coarse.occupancy_every == 0:
            self._update_occupancy()
        previous = opacity if self._mean_opacity is None else self._mean_opacity
        self._mean_opacity = 0.9 * previous + 0.1 * opacity
        clock.lap("optimizer")
        metrics = {
            **{name: sum(part[name] for part in found) for name in found[0]},
            "opacity": opacity,
            "occupied": self.occupancy.fraction(),
            "samples": sum(samples),  # marched, seen or not: rendering pays for all
            "skipped": float(self.optimiser.skipped),
        }
        return StepReport("coarse", self.step, coarse.steps, metrics, clock.seconds)

    def _update_occupancy(self) -> None:
        self.occupancy.update(self.field.density, self.generator)
        current().follow(self.occupancy.buffers())  # GPUs of different makes draw different points

    def _regularisers(self, image: VolumeRender, progress: float) -> dict[str, Tensor]:
        """Weighted terms that are added to the objective, in its units: a sum over an image's pixels.

        All but the agreement grow with `progress`, so that they do not freeze a shape before there is one.
        """
        coarse = self.settings.coarse
        terms = {}
        if coarse.sparsity:
            terms["sparsity"] = PIXELS * progress * coarse.sparsity * sparsity(image.opacity)
        if coarse.opaqueness:
            terms["opaqueness"] = PIXELS * progress * coarse.opaqueness * opaqueness(image.opacity)
        if coarse.normal_agreement or coarse.orientation:
            agreement, orientation = normal_terms(self.field, image, coarse.normal_samples, self.generator)
            # Summed over pixels like the objective: it has to hold against the gradient of the shading, or
            # the predicted normals drift away from the shape.
            pixels = image.opacity[0].numel()
            terms["normal_agreement"] = pixels * coarse.normal_agreement * agreement
            terms["orientation"] = PIXELS * progress * coarse.orientation * orientation
        return terms

    def _check(self) -> None:
        opacity, total = self._mean_opacity, self.settings.coarse.steps
        if opacity is None or self.step < max(_CHECK_FROM * total, 10):
            return
        if not _EMPTY < opacity < _SOLID:
            state = "empty" if opacity < 0.5 else "solid"
            raise Collapsed(
                f"The coarse volume became {state} (mean opacity {opacity:.4f}) by step {self.step}.",
                "Try another --seed, or a prompt that names one solid object.",
            )

    @torch.no_grad()
    def render(self, views: Views, size: int) -> Render:
        """Images of the present scene: normals for every view, no jitter, twice as finely sampled."""
        at_once = max(_RAYS // size**2, 1)  # bounds the memory
        parts = [
            render(
                self.field,
                self.occupancy,
                self.background,
                views[start : start + at_once],
                size,
                2 * self.settings.coarse.samples_per_ray,
                all_normals=True,
            )
            for start in range(0, len(views), at_once)
        ]
        return Render(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Render)))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a bit-identical continuation needs: CPU tensors by name, and plain JSON values."""
        meta = {
            "stage": "coarse",
            "step": self.step,
            "skipped": self.optimiser.skipped,
            "mean_opacity": self._mean_opacity,
        }
        return pack_state(self._modules(), self.optimiser, self.generator), meta

    @classmethod
    def from_state(
        cls,
        settings: Settings,
        tensors: dict[str, Tensor],
        meta: dict[str, Any],
        device: torch.device | str = "cpu",
    ) -> CoarseStage:
        """Inverse of `state`, on any device. Raises KeyError or RuntimeError when tensors do not fit."""
        stage = cls(settings, 0, device)
        unpack_state(stage._modules(), stage.optimiser, stage.generator, tensors)
        stage.step, stage.optimiser.skipped = meta["step"], meta["skipped"]
        stage._mean_opacity = meta["mean_opacity"]
        return stage

    def _modules(self) -> dict[str, nn.Module]:
        return {"field": self.field, "background": self.background, "occupancy": self.occupancy}
