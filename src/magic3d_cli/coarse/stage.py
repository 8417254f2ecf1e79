"""The coarse stage: optimise a hash-grid NeRF against losses of its images (Magic3D section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from magic3d_cli.coarse.occupancy import OccupancyGrid
from magic3d_cli.coarse.regularisers import regularisers
from magic3d_cli.coarse.volume_render import VolumeRender, render_volume, step_length
from magic3d_cli.errors import Collapsed
from magic3d_cli.scene.background import Background
from magic3d_cli.scene.field import HashField
from magic3d_cli.scene.region import Region, RegionField
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import Views, sample_views
from magic3d_cli.settings import Settings
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.loop import Stage
from magic3d_cli.training.optimiser import FiniteAdam
from magic3d_cli.training.terms import LossTerm, Step, ViewGroup

_EMPTY, _SOLID = 0.002, 0.95  # mean opacity of the renderings
_RAYS = 1 << 15  # rendered at a time without gradient


class CoarseStage(Stage):
    """A coarse scene and its optimisation."""

    name = "coarse"

    def __init__(
        self,
        settings: Settings,
        seed: int,
        device: torch.device | str = "cpu",
        processes: Processes | None = None,
    ) -> None:
        self.settings = settings
        coarse, generator = settings.coarse, torch.Generator().manual_seed(seed)
        self.field: HashField = HashField(coarse.field, generator).to(device)
        self.background = Background(generator).to(device)
        self.occupancy = OccupancyGrid(
            coarse.occupancy_size,
            step_length(coarse.samples_per_ray),
            coarse.occupancy_threshold,
            coarse.occupancy_decay,
            coarse.occupancy_start,
        ).to(device)
        optimiser = FiniteAdam(
            [
                {"params": list(self.field.parameters()), "lr": coarse.lr},
                {"params": list(self.background.parameters()), "lr": coarse.background_lr},
            ]
        )
        super().__init__(coarse.steps, torch.device(device), generator, optimiser, processes or Processes())
        self._update_occupancy()

    @property
    def prior_pixels(self) -> float:
        """Of the image that a prior sees: the unit of the distillation loss is a sum over them."""
        return float(self.settings.coarse.render_size**2)

    def random_views(self, *terms: LossTerm) -> ViewGroup:
        """Views as the settings sample them, smaller while warming up, with these losses and the regularisers."""
        coarse = self.settings.coarse
        return ViewGroup(
            draw=lambda progress, generator: sample_views(coarse.views, coarse.sampling, generator, progress=progress),
            size=lambda progress: coarse.warmup_render_size if progress < coarse.warmup else coarse.render_size,
            terms=(*terms, *regularisers(coarse, self.field)),
            together=coarse.sampling.together,
        )

    def hold_outside(self, region: Region, kept: HashField | None = None) -> None:
        """From now on the field changes inside the region alone; outside it is `kept`: None, what it is now.

        To be called before `random_views`. `kept` has the same settings.
        """
        self.field = RegionField(self.field, kept or self.field, region)

    def modules(self) -> dict[str, nn.Module]:
        return {"field": self.field, "background": self.background, "occupancy": self.occupancy}

    @torch.no_grad()
    def render(self, views: Views, size: int) -> Render:
        """Images of the present scene: normals for every view, no jitter, twice as finely sampled."""
        at_once = max(_RAYS // size**2, 1)  # bounds the memory
        samples = 2 * self.settings.coarse.samples_per_ray
        return Render.concatenate(
            [
                render_volume(
                    self.field,
                    self.occupancy,
                    self.background,
                    views[start : start + at_once],
                    size,
                    samples,
                    all_normals=True,
                )
                for start in range(0, len(views), at_once)
            ]
        )

    @classmethod
    def from_state(
        cls,
        settings: Settings,
        tensors: dict[str, Tensor],
        meta: dict[str, Any],
        device: torch.device | str = "cpu",
        processes: Processes | None = None,
    ) -> CoarseStage:
        """Inverse of `state`, on any device. Raises KeyError or RuntimeError when tensors do not fit."""
        stage = cls(settings, 0, device, processes)
        if (grid := tensors.get("field.grid")) is not None:
            kept = RegionField.blank(settings.coarse.field, tensors, "field.kept.").to(device)
            stage.hold_outside(Region(grid), kept)
        stage._restore(tensors, meta)
        return stage

    def _render_step(self, views: Views, size: int, jitter: Float[Tensor, "B H W"] | None) -> VolumeRender:
        samples = self.settings.coarse.samples_per_ray
        return render_volume(self.field, self.occupancy, self.background, views, size, samples, jitter)

    def _draw_jitter(self, step: Step, size: int) -> Float[Tensor, "B H W"]:
        return step.draw(lambda count: torch.rand(count, size, size, generator=self.generator))

    def _describe(self, render: VolumeRender) -> dict[str, float]:
        return {"samples": float(render.marched)}

    def _finish_step(self, renders: Sequence[dict[str, float]], stepped: bool) -> dict[str, float]:
        if self.step % self.settings.coarse.occupancy_every == 0:
            self._update_occupancy()
        # Samples are counted as marched, seen or not: rendering pays for all.
        return {"occupied": self.occupancy.fraction(), "samples": sum(render["samples"] for render in renders)}

    def restart_occupancy(self) -> None:
        """Forget what the grid remembers, for a field that is another one now."""
        self.occupancy.density.zero_()
        self._update_occupancy()

    def _update_occupancy(self) -> None:
        self.occupancy.update(self.field.density, self.generator)
        self.processes.broadcast(self.occupancy.buffers())  # GPUs of different makes draw different points

    def _collapse(self, opacity: float) -> Collapsed | None:
        if _EMPTY < opacity < _SOLID:
            return None
        state = "empty" if opacity < 0.5 else "solid"
        return Collapsed(
            f"The coarse volume became {state} (mean opacity {opacity:.4f}) by step {self.step}.",
            "Try another --seed, or a prompt that names one solid object.",
        )
