"""The fine stage: optimise a textured mesh on a deformable tetrahedral grid (Magic3D section 4.2)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.errors import Collapsed
from magic3d_cli.fine.geometry import Geometry
from magic3d_cli.fine.mesh_render import MeshRender, render_mesh
from magic3d_cli.fine.surface import SOLID, field_to_surface
from magic3d_cli.fine.tetrahedra import Lattice
from magic3d_cli.fine.topology import mesh_edges, roughness
from magic3d_cli.scene.background import Background
from magic3d_cli.scene.field import HashField
from magic3d_cli.scene.views import Views, sample_views, turntable
from magic3d_cli.settings import Settings
from magic3d_cli.training.distributed import current
from magic3d_cli.training.microbatch import Portions
from magic3d_cli.training.optimiser import FiniteAdam, pack_state, unpack_state
from magic3d_cli.training.report import Clock, Objective, StepReport

_EMPTY, _SOLID = 0.002, 0.98  # mean opacity of the renderings
_PIXELS = 1 << 19  # rendered at a time without gradient
_HANDOVER_SIZE = 64  # pixels of the renderings that the surface is compared with
_REMEDY = "Try another --seed, or a prompt that names one solid object."


class FineStage:
    """A mesh, its colour field and their optimisation. A seed on a CPU gives the same bits, resumed or not.

    Attributes:
        handover: how well the starting mesh matches the coarse volume: {threshold (density), iou (of the
            mesh's silhouettes with the rendered opacity), volume_iou (the same before floaters were removed),
            floaters_removed, faces}.
    """

    def __init__(
        self,
        settings: Settings,
        geometry: Geometry,
        field: HashField,
        background: Background,
        generator: torch.Generator,
        handover: dict[str, Any],
    ) -> None:
        self.settings, self.handover, self.step = settings, handover, 0
        self.geometry, self.field, self.background, self.generator = geometry, field, background, generator
        self.device = geometry.sdf.device
        fine = settings.fine
        self.optimiser = FiniteAdam(
            [
                {"params": list(geometry.parameters()), "lr": fine.geometry_lr},
                {"params": list(field.parameters()), "lr": fine.lr},
                {"params": list(background.parameters()), "lr": settings.coarse.background_lr},
            ]
        )
        self.portions = Portions()
        self._mean_opacity: float | None = None  # running

    @classmethod
    def from_coarse(cls, settings: Settings, coarse: CoarseStage) -> FineStage:
        """Turn the coarse volume into a mesh on a fresh grid; colours and background are carried over.

        Raises Collapsed if the volume has no surface.
        """
        views = turntable(6).replace(elevation=torch.deg2rad(torch.tensor([-10.0, 20.0, 50.0] * 2)))
        image = coarse.render(views.to(coarse.device), _HANDOVER_SIZE)
        occupied = coarse.occupancy.occupied

        def visible_logit(points: Tensor) -> Tensor:
            """The field as it is rendered: what lies in pruned cells does not exist."""
            cell = ((points + 1) / 2 * occupied.shape[0]).long().clamp(0, occupied.shape[0] - 1)
            seen = occupied[cell[:, 0], cell[:, 1], cell[:, 2]]
            return torch.where(seen, coarse.field.density_logit(points), -math.inf)

        surface = field_to_surface(visible_logit, views, image.opacity, image.depth, device=coarse.device)
        low, high = surface.points.amin(0), surface.points.amax(0)
        lattice = Lattice.around(low, high, settings.fine.grid_size)
        geometry = Geometry(lattice, surface.distance(lattice.vertices())).to(coarse.device)
        stage = cls(
            settings,
            geometry,
            copy.deepcopy(coarse.field),
            copy.deepcopy(coarse.background),
            torch.Generator().manual_seed(settings.seed + 1),
            {},
        )
        faces = stage.mesh()[1]
        if len(faces) == 0:
            raise Collapsed("The coarse shape is thinner than the tetrahedral grid.", "Use a larger preset.")
        drawn = stage.render(views, _HANDOVER_SIZE).opacity.cpu() > 0.5
        solid = image.opacity.cpu() > SOLID
        stage.handover = {
            "threshold": surface.threshold,
            "iou": float((drawn & solid).sum() / (drawn | solid).sum().clamp(min=1)),
            "volume_iou": surface.iou,
            "floaters_removed": surface.floaters,
            "faces": len(faces),
        }
        return stage

    def run(
        self,
        objective: Objective,
        *,
        until: int | None = None,
        on_step: Callable[[StepReport], None] | None = None,
    ) -> None:
        """Train to step `until` (default: all). `on_step` may raise to stop: its step is complete.

        Raises Collapsed when the surface has vanished or fills the views, or when no gradient is finite.
        """
        total = self.settings.fine.steps
        while self.step < min(until if until is not None else total, total):
            report = self._step(objective)
            if on_step is not None:
                on_step(report)
            self._check()

    def _step(self, objective: Objective) -> StepReport:
        fine = self.settings.fine
        clock = Clock(self.device)
        ranks = current()
        views = ranks.own(sample_views(fine.views, fine.sampling, self.generator)).to(self.device)
        progress = self.step / fine.steps
        self.optimiser.zero_grad()

        def compute(part: Views, rows: slice, share: float) -> tuple[dict[str, float], Tensor, Tensor]:
            vertices, faces = self.geometry.surface()
            if len(faces) == 0:
                raise Collapsed("The surface vanished in the fine stage.", _REMEDY)
            edges = mesh_edges(faces, len(vertices))
            image = render_mesh(vertices, faces, self.field.albedo, self.background, part, fine.render_size, edges)
            terms = {}
            # Regularisers are in the objective's units, a sum over an image's pixels.
            pixels = fine.render_size**2
            if fine.smoothness:
                terms["smoothness"] = pixels * fine.smoothness * roughness(vertices, faces, edges)
            if fine.laplacian:
                terms["laplacian"] = pixels * fine.laplacian * self.geometry.laplacian()
            clock.lap("render")
            loss, metrics = objective(image.rgb, part, progress, self.generator)
            clock.lap("objective")
            (share * (loss + sum(terms.values()))).backward()
            clock.lap("backward")
            metrics = {"loss": loss.item(), **metrics, **{name: term.item() for name, term in terms.items()}}
            metrics["faces"] = float(len(faces))
            found = {name: share * value for name, value in metrics.items()}
            return found, share * image.opacity.detach().mean(), vertices.detach()

        parts = self.portions.accumulate(views, self.generator, compute, self.optimiser.zero_grad)
        found, opacities, surfaces = zip(*parts, strict=True)
        covered = torch.stack(opacities).sum()
        ranks.average([covered])
        ranks.average_gradients(self.optimiser.parameters())
        if self.optimiser.step():
            self.geometry.grow_around(surfaces[0], self.optimiser.adam)
        self.step += 1
        opacity = float(covered)
        previous = opacity if self._mean_opacity is None else self._mean_opacity
        self._mean_opacity = 0.9 * previous + 0.1 * opacity
        clock.lap("optimizer")
        metrics = {
            **{name: sum(part[name] for part in found) for name in found[0]},
            "opacity": opacity,
            "skipped": float(self.optimiser.skipped),
        }
        return StepReport("fine", self.step, fine.steps, metrics, clock.seconds)

    def _check(self) -> None:
        opacity = self._mean_opacity
        if opacity is not None and self.step * 5 >= self.settings.fine.steps and self.step >= 10:
            if opacity < _EMPTY:
                raise Collapsed(f"The mesh nearly vanished (mean opacity {opacity:.4f}).", _REMEDY)
            if opacity > _SOLID:
                raise Collapsed(f"The mesh fills the views (mean opacity {opacity:.2f}).", _REMEDY)

    @torch.no_grad()
    def render(self, views: Views, size: int) -> MeshRender:
        """Render without gradient, a few views at a time to bound memory."""
        vertices, faces = self.geometry.surface()
        edges = mesh_edges(faces, len(vertices))
        at_once = max(_PIXELS // size**2, 1)
        parts = [
            render_mesh(vertices, faces, self.field.albedo, self.background, views[i : i + at_once], size, edges)
            for i in range(0, len(views), at_once)
        ]
        return parts[0] if len(parts) == 1 else MeshRender.concatenate(parts)

    @torch.no_grad()
    def mesh(self) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"]]:
        """The closed surface on the CPU: float32 vertices, int64 faces wound outward."""
        vertices, faces = self.geometry.surface()
        return vertices.cpu(), faces.cpu()

    @torch.no_grad()
    def albedo(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Display-referred colour at world points, on the points' device."""
        parts = [self.field.albedo(part.to(self.device)) for part in points.split(_PIXELS)]
        return torch.cat(parts).to(points.device) if parts else torch.zeros_like(points)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything `from_state` needs to go on bit for bit: CPU tensors by name, and JSON-able values."""
        return pack_state(self._modules(), self.optimiser, self.generator), {
            "stage": "fine",
            "step": self.step,
            "skipped": self.optimiser.skipped,
            "mean_opacity": self._mean_opacity,
            "lattice": self.geometry.lattice.to_json(),
            "handover": self.handover,
        }

    @classmethod
    def from_state(
        cls,
        settings: Settings,
        tensors: dict[str, Tensor],
        meta: dict[str, Any],
        device: torch.device | str = "cpu",
    ) -> FineStage:
        """The stage that `state` described, on any device; KeyError or RuntimeError for foreign tensors."""
        generator = torch.Generator()
        lattice = Lattice.from_json(meta["lattice"])
        stage = cls(
            settings,
            Geometry(lattice, tensors["geometry.sdf"]).to(device),
            HashField(settings.coarse.field, generator).to(device),
            Background(generator).to(device),
            generator,
            meta["handover"],
        )
        unpack_state(stage._modules(), stage.optimiser, generator, tensors)
        stage.step, stage.optimiser.skipped = meta["step"], meta["skipped"]
        stage._mean_opacity = meta["mean_opacity"]
        return stage

    def _modules(self) -> dict[str, nn.Module]:
        return {"geometry": self.geometry, "field": self.field, "background": self.background}
