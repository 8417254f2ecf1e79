"""The fine stage: optimise a textured mesh on a deformable tetrahedral grid (Magic3D section 4.2)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from magic3d_cli.coarse.initial import fit_albedo
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.errors import Collapsed
from magic3d_cli.fine.edit import Edit, changed_inside, unchanged
from magic3d_cli.fine.geometry import Geometry
from magic3d_cli.fine.mesh_render import MeshRender, render_mesh
from magic3d_cli.fine.surface import SOLID, field_to_surface
from magic3d_cli.fine.tetrahedra import Lattice
from magic3d_cli.fine.topology import mesh_edges, normal_consistency
from magic3d_cli.scene.background import Background
from magic3d_cli.scene.field import HashField
from magic3d_cli.scene.region import Region, RegionField
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.shape import InitialShape
from magic3d_cli.scene.views import Views, sample_views, turntable
from magic3d_cli.settings import Settings
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.loop import Stage
from magic3d_cli.training.optimiser import FiniteAdam
from magic3d_cli.training.report import StepReport
from magic3d_cli.training.terms import LossTerm, Step, ViewGroup

_EMPTY, _SOLID = 0.002, 0.98  # mean opacity of the renderings
_PIXELS = 1 << 19  # rendered at a time without gradient
_HANDOVER_SIZE = 64  # pixels of the renderings that the surface is compared with
_PRIOR_PIXELS = 256**2  # the fine built-in prior's image; Stable Diffusion's latents have 4 x 64^2 numbers
_COLOURED = 1 << 18  # points at which the colours of a shape are learnt
_SHAPE_SHADING = (0.25, 0.0, 0.75)
"""Three of four views without texture while the shape comes first [DreamCraft3D's code: every fourth in colour]."""
_REMEDY = "Try another --seed, or a prompt that names one solid object."


class FineStage(Stage):
    """A mesh, its colour field and their optimisation.

    With `settings.fine.freeze_geometry` the mesh stays as it is and only its colours are optimised; with
    `geometry_first` from that share of the steps on.

    Attributes:
        handover: how well the starting mesh matches the coarse volume: {threshold (density), iou (of the
            mesh's silhouettes with the rendered opacity), volume_iou (the same before floaters were removed),
            floaters_removed, faces}; of an edit that keeps the shape {faces} alone.
    """

    name = "fine"
    prior_pixels = float(_PRIOR_PIXELS)
    """Of the image that a prior sees: the unit of the distillation loss is a sum over them."""

    def __init__(
        self,
        settings: Settings,
        geometry: Geometry,
        field: HashField,
        background: Background,
        generator: torch.Generator,
        handover: dict[str, Any],
        processes: Processes | None = None,
    ) -> None:
        self.settings, self.handover = settings, handover
        self.geometry, self.background = geometry, background
        self.field: HashField = field
        fine = settings.fine
        optimiser = FiniteAdam(
            [
                {"params": list(geometry.parameters()), "lr": fine.geometry_lr},
                {"params": list(field.parameters()), "lr": fine.lr},
                {"params": list(background.parameters()), "lr": settings.coarse.background_lr},
            ]
        )
        geometry.requires_grad_(not fine.freeze_geometry)
        self._rendered: Float[Tensor, "V 3"] | None = None  # the last step's vertices
        super().__init__(fine.steps, geometry.sdf.device, generator, optimiser, processes or Processes())

    @classmethod
    def from_coarse(
        cls,
        settings: Settings,
        coarse: CoarseStage,
        shape: InitialShape | None = None,
        parent: Geometry | None = None,
    ) -> FineStage:
        """Turn the coarse volume into a mesh on a fresh grid; colours and background are carried over.

        With a `shape`, what the scene began with, the colours are taken from there: the coarse field, which also has
        to know where things are, remembers them less sharply than they were. Outside the region of the coarse stage,
        if it has one, the mesh is the `parent`'s.

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

        surface = field_to_surface(
            visible_logit, views, image.opacity, image.depth, settings.fine.surface_resolution, coarse.device,
            shape.density if shape is not None else None,
        )  # fmt: skip
        low, high = surface.points.amin(0), surface.points.amax(0)
        generator = torch.Generator().manual_seed(settings.seed + 1)
        region = coarse.field.region if isinstance(coarse.field, RegionField) else None
        if region is not None and parent is not None:
            geometry = changed_inside(region, parent, surface.distance, low, high)
        else:
            lattice = Lattice.around(low, high, settings.fine.grid_size)
            geometry = Geometry(lattice, surface.distance(lattice.vertices())).to(coarse.device)
        if shape is None:
            field = coarse.field.own() if isinstance(coarse.field, RegionField) else copy.deepcopy(coarse.field)
        else:
            field = _coloured(settings, geometry, shape, generator)
        background = copy.deepcopy(coarse.background)
        stage = cls(settings, geometry, field, background, generator, {}, coarse.processes)
        if region is not None:
            stage.hold_outside(region)
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

    @classmethod
    def from_parent(
        cls, settings: Settings, edit: Edit, shape: InitialShape, processes: Processes | None = None
    ) -> FineStage:
        """Begin with the mesh of the run that is edited, triangle by triangle, in the colours of a shape."""
        generator = torch.Generator().manual_seed(settings.seed + 1)
        geometry, background = unchanged(edit.geometry), copy.deepcopy(edit.background)
        field = _coloured(settings, geometry, shape, generator)
        stage = cls(settings, geometry, field, background, generator, {}, processes)
        stage.handover = {"faces": len(stage.mesh()[1])}
        return stage

    def hold_outside(self, region: Region, kept: HashField | None = None) -> None:
        """From now on the shape and the colours change inside the region alone; outside colours are those of `kept`.

        `kept` is a field of the same settings; None: what the stage's own is now.
        """
        before = self.field.kept if isinstance(self.field, RegionField) else self.field
        self.field = RegionField(self.field, kept or before, region)
        self.geometry.hold_outside(self.field.region)

    def random_views(self, *terms: LossTerm) -> ViewGroup:
        """Views as the settings sample them, with the regulariser of the mesh and these losses."""
        fine = self.settings.fine
        shapes = replace(fine.sampling, shading=_SHAPE_SHADING)

        def draw(progress: float, generator: torch.Generator) -> Views:
            sampling = shapes if progress < fine.geometry_first else fine.sampling
            return sample_views(fine.views, sampling, generator, progress=progress)

        smooth = LossTerm("normal_consistency", _normal_consistency_loss, fine.normal_consistency)
        return ViewGroup(
            draw=draw,
            size=fine.render_size,
            terms=(*([smooth] if fine.normal_consistency and not fine.freeze_geometry else []), *terms),
            together=fine.sampling.together,
        )

    def modules(self) -> dict[str, nn.Module]:
        return {"geometry": self.geometry, "field": self.field, "background": self.background}

    @torch.no_grad()
    def render(self, views: Views, size: int) -> Render:
        """Render without gradient, a few views at a time to bound memory."""
        vertices, faces = self.geometry.surface()
        edges = mesh_edges(faces, len(vertices))
        at_once = max(_PIXELS // size**2, 1)
        parts = [
            render_mesh(vertices, faces, self.field.albedo, self.background, views[i : i + at_once], size, edges)
            for i in range(0, len(views), at_once)
        ]
        return Render.concatenate(parts)

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
        tensors, meta = super().state()
        return tensors, {**meta, "lattice": self.geometry.lattice.to_json(), "handover": self.handover}

    @classmethod
    def from_state(
        cls,
        settings: Settings,
        tensors: dict[str, Tensor],
        meta: dict[str, Any],
        device: torch.device | str = "cpu",
        processes: Processes | None = None,
    ) -> FineStage:
        """Inverse of `state`, on any device. Raises KeyError or RuntimeError when tensors do not fit."""
        generator = torch.Generator()
        lattice = Lattice.from_json(meta["lattice"])
        stage = cls(
            settings,
            Geometry(lattice, tensors["geometry.sdf"]).to(device),
            HashField(settings.coarse.field, generator).to(device),
            Background(generator).to(device),
            generator,
            meta["handover"],
            processes,
        )
        if (grid := tensors.get("field.grid")) is not None:
            kept = RegionField.blank(settings.coarse.field, tensors, "field.kept.").to(device)
            stage.hold_outside(Region(grid), kept)
        stage._restore(tensors, meta)
        return stage

    def _step(self, groups: Sequence[ViewGroup]) -> StepReport:
        if self.settings.fine.geometry_first and not self.settings.fine.freeze_geometry:
            self.geometry.requires_grad_(self.step < self.settings.fine.geometry_first * self.total)
        return super()._step(groups)

    def _render_step(self, views: Views, size: int, jitter: Float[Tensor, "B H W"] | None) -> MeshRender:
        vertices, faces = self.geometry.surface()
        if len(faces) == 0:
            raise Collapsed("The surface vanished in the fine stage.", _REMEDY)
        self._rendered = vertices.detach()
        edges = mesh_edges(faces, len(vertices))
        return render_mesh(vertices, faces, self.field.albedo, self.background, views, size, edges)

    def _describe(self, render: MeshRender) -> dict[str, float]:
        return {"faces": float(len(render.faces))}

    def _finish_step(self, renders: Sequence[dict[str, float]], stepped: bool) -> dict[str, float]:
        if stepped and self._rendered is not None:
            self.geometry.grow_around(self._rendered, self.optimiser.adam)
        return {"faces": renders[0]["faces"]}

    def _collapse(self, opacity: float) -> Collapsed | None:
        if opacity < _EMPTY:
            return Collapsed(f"The mesh nearly vanished (mean opacity {opacity:.4f}).", _REMEDY)
        if opacity > _SOLID:
            return Collapsed(f"The mesh fills the views (mean opacity {opacity:.2f}).", _REMEDY)
        return None


def _normal_consistency_loss(render: MeshRender, step: Step) -> Float[Tensor, ""]:
    """In the unit of the distillation loss: a sum over the prior's image, however large the render is."""
    return _PRIOR_PIXELS * normal_consistency(render.vertices, render.faces, render.edges)


def _coloured(settings: Settings, geometry: Geometry, shape: InitialShape, generator: torch.Generator) -> HashField:
    """A fresh field with the colours of a shape at a surface."""
    field = HashField(settings.coarse.field, generator).to(geometry.sdf.device)
    fit_albedo(field, shape, _near_surface(geometry, _COLOURED, generator), generator)
    return field


@torch.no_grad()
def _near_surface(geometry: Geometry, count: int, generator: torch.Generator) -> Float[Tensor, "N 3"]:
    """Points spread evenly over the surface, half a cell off it: it will move by a cell or so."""
    vertices, faces = geometry.surface()
    if len(faces) == 0:
        return vertices.new_zeros(count, 3)
    a, b, c = vertices[faces].unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=1).cpu()
    face = torch.multinomial(area, count, replacement=True, generator=generator).to(vertices.device)
    u, v = torch.rand(2, count, 1, generator=generator).to(vertices.device)
    u, v = torch.where(u + v > 1, 1 - u, u), torch.where(u + v > 1, 1 - v, v)  # uniform in a triangle
    off = geometry.lattice.cell / 2 * torch.randn(count, 3, generator=generator).to(vertices.device)
    return a[face] + u * (b - a)[face] + v * (c - a)[face] + off
