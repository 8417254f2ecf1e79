"""The coarse stage: optimise a hash-grid NeRF under an image objective (Magic3D, section 4.1)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from magic3d_cli.coarse.background import Background
from magic3d_cli.coarse.field import HashField
from magic3d_cli.coarse.occupancy import OccupancyGrid
from magic3d_cli.coarse.render import Render, VolumeRender, render, step_length
from magic3d_cli.errors import Collapsed
from magic3d_cli.optimiser import FiniteAdam, pack_state, unpack_state
from magic3d_cli.settings import Settings
from magic3d_cli.stage_report import Objective, StepReport
from magic3d_cli.views import Views, sample_views

_VISIBLE = 0.01  # opacity of one sample below which a cell counts as empty
_EMPTY, _SOLID = 0.002, 0.9  # mean opacity of an image
_CHECK_FROM = 0.2  # share of the run after which an empty or solid volume is an error
_NORMAL_SAMPLES = 4096  # samples a step whose predicted normals are compared with the density's


class CoarseStage:
    """Scene, optimiser and random state of the coarse stage; `step` is the number of steps done."""

    def __init__(self, settings: Settings, seed: int, device: torch.device | str = "cpu") -> None:
        self.settings = settings
        self.device = torch.device(device)
        self.generator = torch.Generator().manual_seed(seed)
        own = settings.coarse
        self.field = HashField(own.field, self.generator).to(self.device)
        self.background = Background(self.generator).to(self.device)
        self.occupancy = OccupancyGrid(own.occupancy_size, own.occupancy_decay, own.occupancy_start).to(
            self.device
        )
        self.optimiser = FiniteAdam(
            [
                {"params": list(self.field.parameters()), "lr": own.lr},
                {"params": list(self.background.parameters()), "lr": own.background_lr},
            ]
        )
        self.step = 0

    def run(
        self,
        objective: Objective,
        *,
        until: int | None = None,
        on_step: Callable[[StepReport], None] | None = None,
    ) -> None:
        """Optimise up to step `until` (default: all). `on_step` may raise to stop; the state is then consistent.

        Raises:
            Collapsed: the volume became empty or solid, or gradients stayed non-finite.
        """
        own = self.settings.coarse
        for _ in range(self.step, own.steps if until is None else until):
            begun = time.perf_counter()
            progress = self.step / own.steps
            if self.step % own.occupancy_every == 0:
                threshold = _VISIBLE / step_length(own.samples_per_ray)
                self.occupancy.update(self.field.density, threshold, self.generator)
            views = sample_views(own.views, own.sampling, self.generator).to(self.device)
            size = own.warm_render_size if progress < own.warm else own.render_size
            image = render(
                self.field, self.occupancy, self.background, views, size, own.samples_per_ray, self.generator
            )
            rendered = time.perf_counter()
            loss, metrics = objective(image.rgb, views, progress, self.generator)
            judged = time.perf_counter()
            loss = loss + self._regulariser(image, views, progress)
            self.optimiser.zero_grad()
            loss.backward()
            differentiated = time.perf_counter()
            self.optimiser.step()
            self.step += 1
            opacity = image.opacity.detach().mean().item()
            self._check(opacity)
            if on_step is not None:
                seconds = {
                    "render": rendered - begun,
                    "objective": judged - rendered,
                    "backward": differentiated - judged,
                    "optimizer": time.perf_counter() - differentiated,
                }
                metrics = {
                    **metrics,
                    "opacity": opacity,
                    "occupied": self.occupancy.fraction(),
                    "samples": float(len(image.samples)),
                }
                on_step(StepReport("coarse", self.step, own.steps, metrics, seconds))

    def _regulariser(self, image: VolumeRender, views: Views, progress: float) -> Tensor:
        """The paper's regularisers, each a sum over an image's pixels, averaged over the views."""
        own = self.settings.coarse
        count = len(views)
        loss = own.sparsity * progress * image.opacity.sum() / count
        if own.opaqueness:
            p = image.opacity.clamp(1e-4, 1 - 1e-4)
            entropy = -(p * p.log() + (1 - p) * (1 - p).log())
            loss = loss + own.opaqueness * progress * entropy.sum() / count
        weights = image.weights.detach()
        total = len(weights)
        if total and own.normal_agreement:
            index = torch.randint(total, (_NORMAL_SAMPLES,), generator=self.generator).to(self.device)
            target = self.field.density_normal(image.samples.points[index], self._normal_step())
            apart = (image.field.normal[index] - target).square().sum(-1)
            share = total / _NORMAL_SAMPLES / count
            loss = loss + own.normal_agreement * share * (weights[index] * apart).sum()
        if total and own.orientation:
            loss = loss + own.orientation * progress * _facing_away(image, views) / count
        return loss

    def _normal_step(self) -> float:
        """Finite differences over one cell of a middling grid level: smaller follows noise, larger rounds edges."""
        return 2 / min(self.settings.coarse.field.finest_resolution, 128)

    def _check(self, opacity: float) -> None:
        if self.step < _CHECK_FROM * self.settings.coarse.steps:
            return
        hint = "Try another --seed, or a prompt that names one solid object."
        if opacity < _EMPTY:
            raise Collapsed(
                f"The volume became empty (mean opacity {opacity:.4f}) at step {self.step}.", hint
            )
        if opacity > _SOLID:
            raise Collapsed(
                f"The volume became solid (mean opacity {opacity:.2f}) at step {self.step}.", hint
            )

    @torch.no_grad()
    def render(self, views: Views, size: int) -> Render:
        """Images of the present scene, without jitter."""
        samples = 2 * self.settings.coarse.samples_per_ray
        return render(self.field, self.occupancy, self.background, views.to(self.device), size, samples)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a bit-identical continuation needs: tensors by name, and plain JSON values."""
        modules = {"field": self.field, "background": self.background, "occupancy": self.occupancy}
        return pack_state(modules, self.optimiser, self.generator), {"stage": "coarse", "step": self.step}

    @classmethod
    def from_state(
        cls,
        settings: Settings,
        tensors: dict[str, Tensor],
        meta: dict[str, Any],
        device: torch.device | str = "cpu",
    ) -> CoarseStage:
        """Inverse of `state`. Raises KeyError or RuntimeError when tensors do not fit the settings."""
        stage = cls(settings, 0, device)
        modules = {"field": stage.field, "background": stage.background, "occupancy": stage.occupancy}
        unpack_state(modules, stage.optimiser, stage.generator, tensors)
        stage.step = int(meta["step"])
        return stage


def _facing_away(image: VolumeRender, views: Views) -> Float[Tensor, ""]:
    """Orientation loss (Ref-NeRF, used by DreamFusion): visible normals must not point away from the camera."""
    rays = views.rays(image.rgb.shape[1])[1].reshape(-1, 3)[image.samples.ray]
    away = (image.field.normal * rays).sum(-1).clamp(min=0)
    return (image.weights.detach() * away.square()).sum()
