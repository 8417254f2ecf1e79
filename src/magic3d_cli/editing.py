"""From a finished run and a new prompt to what a job needs: the region that may change, and the shape to begin with.

Magic3D's prompt-based editing (section 5, "controllable generation") goes on from a scene with another prompt. Here it
is also told where: what the old and the new prompt agree on, or what lies outside a box, stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from magic3d_cli.asset.mesh import at_samples, surface_samples
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.delivery import own_surface
from magic3d_cli.errors import UsageError
from magic3d_cli.fine.edit import Edit, RunLook
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.guidance import disagreement
from magic3d_cli.guidance.adapters import IMAGE_PROMPT, Adapter
from magic3d_cli.guidance.guide import Loaded, PriorGuide
from magic3d_cli.guidance.priors import ChosenPrior, understood
from magic3d_cli.guidance.styling import check_style
from magic3d_cli.run.context import OwnSurface
from magic3d_cli.run.resume import Saved
from magic3d_cli.scene.mesh_shape import SAMPLES
from magic3d_cli.scene.region import COLOUR, Box, EditedShape, Region
from magic3d_cli.scene.shape import DENSITY, InitialShape
from magic3d_cli.settings import GuidanceSettings
from magic3d_cli.style import Style

Tell = Callable[[str], None]
_SIDE = 64  # voxels along the scene that are near the surface or far from it
_STEEP = 500.0  # per world unit: the density falls from full to nothing within a sixth of a voxel of the prior's volume
_RENDER = 128  # pixels of the pictures whose predictions are compared
_SEED = 7  # of the noise in that comparison: the same request finds the same region


@dataclass(frozen=True)
class EditRequest:
    """What is to be changed of a run, beside its prompt."""

    source: Path  # its checkpoint
    digest: str  # of the source and of what follows, see `precheck.edit_digest`
    box: Box | None = None
    recolour: bool = False  # the shape stays


@dataclass(frozen=True)
class Wanted:
    """What a thing is to be: what priors are told and shown of it, and what is added to them."""

    prompt: str
    adapters: tuple[Adapter, ...] = ()
    style: Style | None = None


class ParentShape:
    """`scene.shape.InitialShape` of a run's finished surface, in its own colours also beside the surface."""

    def __init__(self, stage: FineStage) -> None:
        vertices, faces = (tensor.numpy() for tensor in stage.mesh())
        face, weight = surface_samples(vertices, faces, SAMPLES)
        points = at_samples(vertices, faces, face, weight)
        a, b, c = np.moveaxis(vertices[faces[face]], 1, 0)
        normals = np.cross(b - a, c - a)
        self._normals = normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
        self._points, self._tree, self._stage = points, cKDTree(points), stage
        self._sides = self._far()

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """By the distance to the nearest sample, on whose side of its face a point lies: the surface is closed."""
        places = points.cpu().numpy()
        outside = self._sides[tuple(_voxel(places).T)].copy()
        near = outside == 0
        outside[near] = self._distance(places[near])
        return (DENSITY * torch.sigmoid(-_STEEP * torch.from_numpy(outside).float())).to(points.device)

    def _distance(self, places: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N"]:
        """Signed, negative inside, to the nearest sample."""
        apart, nearest = self._tree.query(places, workers=-1)
        return np.copysign(apart, ((places - self._points[nearest]) * self._normals[nearest]).sum(1))

    def _far(self) -> Float[np.ndarray, "X Y Z"]:
        """1 in voxels that are far outside, -1 far inside, 0 near the surface: only there the distance is looked up.

        Far from all samples the look-up takes seventy times as long: four seconds a step of the fit [m].
        """
        near = np.zeros((_SIDE,) * 3, bool)
        near[tuple(_voxel(self._points).T)] = True
        parts, count = ndimage.label(~ndimage.binary_dilation(near, np.ones((3, 3, 3)), 2))
        one = ndimage.maximum_position(parts > 0, parts, np.arange(1, count + 1))
        sides = np.sign(self._distance((np.array(one).reshape(-1, 3) + 0.5) / _SIDE * 2 - 1))
        return np.concatenate([[0.0], sides])[parts]

    def albedo(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        return self._stage.albedo(points)

    def surface(self, count: int, generator: torch.Generator) -> Float[Tensor, "N 3"]:
        """Some of the samples."""
        chosen = torch.randint(len(self._points), (count,), generator=generator)
        return torch.from_numpy(self._points).float()[chosen]


def _voxel(places: Float[np.ndarray, "N 3"]) -> Int[np.ndarray, "N 3"]:
    return ((places + 1) / 2 * _SIDE).astype(np.int64).clip(0, _SIDE - 1)


def prepare(
    request: EditRequest,
    saved: Saved,
    adapters: tuple[Adapter, ...],
    wanted: Wanted,
    priors: Mapping[str, Sequence[ChosenPrior]],
    guidance: GuidanceSettings,
    device: str,
    tell: Tell,
) -> tuple[Edit, OwnSurface | None]:
    """Open the parent and find out what may change; also a person's own mesh, where its shape stays.

    Args:
        adapters: of the parent.
        guidance: of the fine stage, with which predictions are compared where the prior has no volume.

    Raises UsageError where nothing would change, or the parent's checkpoint does not fit this version.
    """
    stage = saved.stage(saved.settings, device)
    if isinstance(stage, CoarseStage):
        stage = FineStage.from_coarse(saved.settings, stage)
    parent = ParentShape(stage)
    points = parent.surface(1 << 16, torch.Generator().manual_seed(_SEED))
    was, seed = _before(saved, adapters, priors), saved.header["seed"]
    guide = _drawing(priors, wanted, seed, device)
    new = guide.volume() if guide else None
    region = Region.everywhere() if request.box is None else Region.within(request.box, points)
    if (found := _disagreement(priors, was, wanted, new, stage, request, guidance, device, tell)) is not None:
        region = region.both(found)
    if request.recolour:
        region = region.colours_only()
    share = float((region.share(points, COLOUR) > 0.5).float().mean())
    if region.is_empty or (share == 0 and not region.shape_changes):
        raise UsageError(
            f'"{wanted.prompt}" asks for nothing that "{was.prompt}" does not show there already.',
            "Name another colour, material or thing, or another --box.",
        )
    tell(f"Edits {share:.0%} of the surface" + ("." if region.shape_changes else "; the shape stays as it is."))
    fits = new is not None and (region.shape_changes or found is None or not found.shape_changes)
    shape = EditedShape(parent, new, region) if new is not None and fits else parent
    edit = Edit(
        str(saved.path),
        request.digest,
        region,
        shape,
        begins_as_asked=fits,
        geometry=stage.geometry,
        kept=stage.field,
        background=stage.background,
        share=share,
        things=guide.things() if guide and fits else None,
        earlier=() if region.is_everything else (_run_of(saved), *saved.earlier),
    )
    return edit, None if region.shape_changes else own_surface(saved)


def _before(saved: Saved, adapters: tuple[Adapter, ...], priors: Mapping[str, Sequence[ChosenPrior]]) -> Wanted:
    """What the parent was, as far as the edit's priors can be told; its own may have been others."""
    prompt, style = saved.header["prompt"], saved.style
    try:
        check_style(priors, adapters, style)
    except UsageError:
        return Wanted(prompt, tuple(adapter for adapter in adapters if adapter.kind != IMAGE_PROMPT))
    return Wanted(prompt, adapters, style)


def _drawing(priors: Mapping[str, Sequence[ChosenPrior]], wanted: Wanted, seed: int, device: str) -> PriorGuide | None:
    """What has the first coarse prior's own volume of a prompt; None where it has none, or cannot draw the prompt."""
    if not priors["coarse"][0].has_volume:
        return None
    try:
        understood(priors, wanted.prompt, seed, wanted.adapters)
    except UsageError:
        return None
    return _guide(priors, wanted, seed, device)


def _guide(
    priors: Mapping[str, Sequence[ChosenPrior]], wanted: Wanted, seed: int, device: str, loaded: Loaded | None = None
) -> PriorGuide:
    return PriorGuide(priors, wanted.prompt, seed, device, loaded=loaded, adapters=wanted.adapters, style=wanted.style)


def _disagreement(
    priors: Mapping[str, Sequence[ChosenPrior]],
    was: Wanted,
    wanted: Wanted,
    new: InitialShape | None,
    stage: FineStage,
    request: EditRequest,
    guidance: GuidanceSettings,
    device: str,
    tell: Tell,
) -> Region | None:
    """Where what was and what is wanted disagree; None where that is not asked or cannot be told, and anything may
    change."""
    seed = stage.settings.seed
    if new is not None:
        drawing = _drawing(priors, was, seed, device)
        before = drawing.volume() if drawing else None
        if before is None:
            tell(f'What "{was.prompt}" showed is not known to this prior: anything may change.')
            return None
        return disagreement.of_shapes(before, new, device)
    if request.box is not None:
        return None
    tell("Comparing what the prior expects of both prompts.")
    loaded: Loaded = {}
    guides = [_guide(priors, one, seed, device, loaded) for one in (was, wanted)]
    views = disagreement.views_to_compare()
    both = [guide.distillation("fine", guidance) for guide in guides]
    generator = torch.Generator().manual_seed(_SEED)
    render = stage.render(views.to(stage.device), _RENDER)
    return disagreement.of_predictions(both[0], both[1], render, views.to(stage.device), generator)


def _run_of(saved: Saved) -> RunLook:
    return RunLook(saved.header["prompt"], saved.header["seed"], saved.header["prior"]["id"], saved.things)
