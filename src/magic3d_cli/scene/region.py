"""Where an edit may change a scene, and a field that stays as it was everywhere else."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from magic3d_cli.scene.field import HashField
from magic3d_cli.scene.shape import InitialShape, voxels_at
from magic3d_cli.settings import FieldSettings

SIZE = 128
"""Voxels along each side of a region."""
SHAPE, COLOUR = 0, 1
"""Channels of a region's grid."""

Box = tuple[float, float, float, float, float, float]
"""x, y, z of the lowest corner, then of the highest: shares, 0 to 1, of a thing's own bounding box."""


@dataclass(frozen=True)
class Region:
    """Voxels over the scene's box in which a shape may change, and in which its colours may.

    `grid` [1, 2, SIZE, SIZE, SIZE], indexed z, y, x: 1 where it may, else 0. Colours may change wherever the shape may.
    """

    grid: Float[Tensor, "1 2 Z Y X"]

    @staticmethod
    def of(shape: Bool[Tensor, "Z Y X"], colour: Bool[Tensor, "Z Y X"]) -> Region:
        return Region(torch.stack([shape, shape | colour])[None].float())

    @staticmethod
    def everywhere() -> Region:
        return Region(torch.ones(1, 2, SIZE, SIZE, SIZE))

    @staticmethod
    def within(box: Box, points: Float[Tensor, "N 3"]) -> Region:
        """A box in shares of the bounding box of these points; what lies past its outer sides belongs to it."""
        low, high = points.amin(0), points.amax(0)
        inside = torch.ones(SIZE, SIZE, SIZE, dtype=torch.bool)
        place = centres()
        for axis in range(3):
            share = (place[..., axis] - low[axis]) / (high[axis] - low[axis]).clamp(min=1e-6)
            start, end = box[axis], box[axis + 3]
            inside &= (share >= start) | (start <= 0)
            inside &= (share <= end) | (end >= 1)
        return Region.of(inside, inside)

    @property
    def shape_changes(self) -> bool:
        """Whether the shape may change anywhere."""
        return bool(self.grid[0, SHAPE].any())

    @property
    def is_empty(self) -> bool:
        return not bool(self.grid.any())

    @property
    def is_everything(self) -> bool:
        return bool(self.grid.all())

    def both(self, other: Region) -> Region:
        """What lies in both."""
        return Region(self.grid * other.grid)

    def colours_only(self) -> Region:
        """The same colours, and no change of shape."""
        shape, colour = self.grid[0].bool()
        return Region.of(torch.zeros_like(shape), colour)

    def share(self, points: Float[Tensor, "N 3"], channel: int) -> Float[Tensor, "N"]:
        """1 at points where it may change, 0 where not, between them at the border."""
        return voxels_at(self.grid[:, channel : channel + 1], points)[:, 0]


def centres() -> Float[Tensor, "Z Y X 3"]:
    """World positions of the middles of a region's voxels."""
    line = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    return torch.stack([x, y, z], -1)


def grown(mask: Bool[Tensor, "Z Y X"], voxels: int) -> Bool[Tensor, "Z Y X"]:
    """A mask and all that is at most this many voxels from it along every axis."""
    size = 2 * voxels + 1
    return F.max_pool3d(mask[None, None].float(), size, 1, voxels)[0, 0] > 0.5


class EditedShape:
    """`scene.shape.InitialShape` of one shape with another one's in its place inside a region."""

    def __init__(self, kept: InitialShape, other: InitialShape, region: Region) -> None:
        self._kept, self._other, self._region = kept, other, region

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        kept = self._kept.density(points)
        return torch.lerp(kept, self._other.density(points).to(kept), self._region.share(points, SHAPE))

    def albedo(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        kept = self._kept.albedo(points)
        return torch.lerp(kept, self._other.albedo(points).to(kept), self._region.share(points, COLOUR)[:, None])

    def surface(self, count: int, generator: torch.Generator) -> Float[Tensor, "N 3"]:
        """Of each shape's points those that are its own, as often as they are drawn."""
        kept, other = (shape.surface(count, generator).cpu() for shape in (self._kept, self._other))
        both = torch.cat([kept, other])
        inside = self._region.share(both, SHAPE) > 0.5
        inside[:count] = ~inside[:count]
        own = both[inside]
        own = own if len(own) else both
        return own[torch.randint(len(own), (count,), generator=generator)]


class RegionField(HashField):
    """A field that may change inside a region; elsewhere it is the field that it once was.

    It shares the parameters of the field that it is made of; `kept` has none that are learned, and may be an earlier
    edit's.
    """

    grid: Int[Tensor, "1 2 Z Y X"]

    def __init__(self, field: HashField, kept: HashField, region: Region) -> None:
        nn.Module.__init__(self)
        self.settings, self.resolutions = field.settings, field.resolutions
        self.table, self.surface, self.normal = field.table, field.surface, field.normal
        self.kept = copy.deepcopy(kept).requires_grad_(False)
        self.region = Region(region.grid.to(field.table.device).float())
        self.register_buffer("grid", self.region.grid.byte())  # what a checkpoint keeps

    @staticmethod
    def blank(settings: FieldSettings, tensors: Mapping[str, Tensor], prefix: str) -> HashField:
        """A field, of any kind, that the tensors of this prefix fit into; only regions are read."""
        field = HashField(settings, torch.Generator())
        if (grid := tensors.get(f"{prefix}grid")) is None:
            return field
        return RegionField(field, RegionField.blank(settings, tensors, f"{prefix}kept."), Region(grid))

    def own(self) -> HashField:
        """A copy of the field as it would be without the region."""
        field = HashField(self.settings, torch.Generator())
        field.table = copy.deepcopy(self.table)
        field.surface, field.normal = copy.deepcopy(self.surface), copy.deepcopy(self.normal)
        return field

    def logit_and_albedo(
        self, points: Float[Tensor, "N 3"], features: Float[Tensor, "N E"]
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"]]:
        logit, albedo = super().logit_and_albedo(points, features)
        with torch.no_grad():
            kept_logit, kept_albedo = self.kept.logit_and_albedo(points, self.kept.features(points))
            shape, colour = (self.region.share(points, channel) for channel in (SHAPE, COLOUR))
        return torch.lerp(kept_logit, logit, shape), torch.lerp(kept_albedo, albedo, colour[:, None])

    def density_logit(
        self, points: Float[Tensor, "N 3"], features: Float[Tensor, "N E"] | None = None
    ) -> Float[Tensor, "N"]:
        logit = super().density_logit(points, features)
        with torch.no_grad():
            return_to = self.kept.density_logit(points)
            shape = self.region.share(points, SHAPE)
        return torch.lerp(return_to, logit, shape)
