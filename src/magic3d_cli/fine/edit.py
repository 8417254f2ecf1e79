"""What a job knows of an edit, and the shape that an edit is to leave alone: the parent's own tetrahedra."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from magic3d_cli.fine.geometry import LEAST_OUTSIDE, Geometry
from magic3d_cli.fine.tetrahedra import MARGIN
from magic3d_cli.scene.background import Background
from magic3d_cli.scene.field import HashField
from magic3d_cli.scene.region import SHAPE, Region
from magic3d_cli.scene.shape import InitialShape


@dataclass(frozen=True)
class RunLook:
    """A run, as far as its look is known by its prompt: the materials in it."""

    prompt: str
    seed: int
    prior: str
    things: UInt8[Tensor, "Z Y X"] | None = None  # where each of several is, see `scene.things`

    def to_json(self) -> dict[str, Any]:
        """For checkpoints, which keep the things as a tensor."""
        return {"prompt": self.prompt, "seed": self.seed, "prior": self.prior}


@dataclass(frozen=True)
class Edit:
    """An edit of an earlier run, before its first step.

    Attributes:
        parent: the checkpoint that is edited.
        digest: of the parent's file and of what was asked.
        shape: what the scene begins with.
        begins_as_asked: whether that looks as the new prompt asks already, because the prior has a volume of it.
        geometry, kept, background: the parent's; outside the region its shape and its colours stay.
        share: of the parent's surface, that may change.
        things: where in `shape` each of several things of the new prompt is, if it has them.
        earlier: the runs whose look is left outside the region: the parent, then what that was an edit of.
    """

    parent: str
    digest: str
    region: Region
    shape: InitialShape
    begins_as_asked: bool
    geometry: Geometry
    kept: HashField
    background: Background
    share: float
    things: UInt8[Tensor, "Z Y X"] | None = None
    earlier: tuple[RunLook, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For reports."""
        return {"parent": self.parent, "digest": self.digest, "share": round(self.share, 4)}


@torch.no_grad()
def unchanged(parent: Geometry) -> Geometry:
    """A geometry of its own with the same surface, triangle by triangle."""
    own = Geometry(parent.lattice, parent.sdf).to(parent.sdf.device)
    return _filled(own, parent.sdf, parent.displacement)


@torch.no_grad()
def changed_inside(
    region: Region,
    parent: Geometry,
    distance: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]],
    low: Float[Tensor, "3"],
    high: Float[Tensor, "3"],
) -> Geometry:
    """The parent's geometry outside the region, another surface inside it, on the parent's grid.

    The grid is grown by whole cells until the box [low, high] fits, so that all vertices outside the region keep their
    values and all triangles there their places. A surface that is extracted anew stands a part of a voxel elsewhere,
    and what is thinner than that is gone.

    Args:
        distance: signed, negative inside, of the other surface at world points; on the CPU.
    """
    lattice = parent.lattice
    start = torch.tensor(lattice.low)
    end = start + lattice.cell * torch.tensor(lattice.cells)
    before, after = (
        tuple(max(math.ceil(gap / lattice.cell + MARGIN - 1e-6), 0) for gap in gaps.tolist())
        for gaps in (start - low, high - end)
    )
    larger = lattice.padded(before, after)
    where = lattice.positions_in(larger, before)
    vertices = larger.vertices()
    new = distance(vertices) / larger.cell
    # Nothing is past the parent's grid, nor on its outside, whatever the numbers there are (`Geometry.surface`).
    own = torch.where(parent.boundary, parent.sdf.clamp(min=LEAST_OUTSIDE), parent.sdf).cpu()
    kept = new.abs().clamp(min=1.0).index_copy(0, where, own)
    displacement = torch.zeros_like(vertices).index_copy(0, where, parent.displacement.cpu())
    share = region.share(vertices, SHAPE)
    geometry = _filled(Geometry(larger, kept), torch.lerp(kept, new, share), displacement * (1 - share)[:, None])
    return geometry.to(parent.sdf.device)


def _filled(geometry: Geometry, sdf: Float[Tensor, "V"], displacement: Float[Tensor, "V 3"]) -> Geometry:
    """With these parameters, in units of a cell: none is rounded on the way."""
    geometry.sdf.copy_(sdf)
    geometry.displacement.copy_(displacement)
    return geometry
