"""A new thing from two known ones of its kind: the first in proportions half way to the other's, in the other's colour.

Where the two, brought to one box, fill about the same space, the surface lies half way between theirs as well. Where
they do not (the legs of two chairs), half way is nothing at all, and the first keeps its parts.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from magic3d_cli.guidance.builtin.paint import LUMA, Tones
from magic3d_cli.guidance.builtin.voxels import FULL, sampled, weighted

ALIKE = 0.65
"""Overlap (IoU) of two volumes in one box above which their surfaces are mixed [looked at: pairs of twenty nouns]."""
MOST = 1.5
"""A side is at most so much longer or shorter than the first thing's."""
SLOPE = 6.0
"""Raw density a voxel of depth, as at the surfaces of learned volumes."""


def mixture(
    first: Float[Tensor, "J I K 7"],
    second: Float[Tensor, "J I K 7"],
    tones: tuple[Float[Tensor, "6"], Float[Tensor, "6"]] | None = None,
) -> Float[Tensor, "J I K 7"]:
    """A volume between two, each with its raw density, normal and own colour.

    With the `tones` of both, the body of the first takes the colour of the second's; else it keeps its own.
    """
    low, high = _box(first)
    other_low, other_high = _box(second)
    grown = ((other_high - other_low) / (high - low)).sqrt().clamp(1 / MOST, MOST)
    half = (high - low) * grown / 2
    half = half * min(1.0, float(((high - low) / 2).max() / half.max()))  # no larger than it was
    middle = (low + high) / 2
    new = middle - half, middle + half
    own = _moved(first, (low, high), new)
    theirs = _moved(second, (other_low, other_high), new)
    a, b = own[..., 0] > 0, theirs[..., 0] > 0
    if float((a & b).sum() / (a | b).sum().clamp(min=1)) > ALIKE:
        inside, place = _depth(a)
        depth = (inside + _depth(b)[0]) / 2
        own = torch.cat([(SLOPE * depth).clamp(-FULL, FULL)[..., None], own[tuple(place)][..., 1:]], -1)
    return own if tones is None else _recoloured(own, *tones)


def _recoloured(
    volume: Float[Tensor, "J I K 7"], tones: Float[Tensor, "6"], wanted: Float[Tensor, "6"]
) -> Float[Tensor, "J I K 7"]:
    """The body's colours moved to another body's, light and dark as they were; all else as it was."""
    mine, other = Tones(*tones.float().tolist()), Tones(*wanted.float().tolist())
    colour = volume[..., 4:].clamp(0, 1)
    luma = (colour @ colour.new_tensor(LUMA))[..., None]
    apart = torch.cat(
        [luma / 2 - mine.light, colour[..., :1] - luma - mine.red, colour[..., 2:] - luma - mine.blue], -1
    )
    share = ((mine.far - apart.norm(dim=-1, keepdim=True)) / (mine.far - mine.near + 1e-6)).clamp(0, 1)
    light = luma * (other.light + 0.02) / (mine.light + 0.02)
    red, blue = light + other.red, light + other.blue
    green = (light - LUMA[0] * red - LUMA[2] * blue) / LUMA[1]
    moved = torch.cat([red, green, blue], -1).clamp(0, 1)
    return torch.cat([volume[..., :4], colour + share * (moved - colour)], -1)


def _box(volume: Float[Tensor, "J I K 7"]) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """The box of filled voxels along y, x and z, in voxels."""
    places = (volume[..., 0] > 0).nonzero()
    if not len(places):
        return torch.zeros(3), torch.full((3,), float(volume.shape[0]))
    return places.min(0).values.float().cpu(), places.max(0).values.float().cpu() + 1


def _moved(
    volume: Float[Tensor, "J I K 7"], old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]
) -> Float[Tensor, "J I K 7"]:
    """What is in the old box stretched to the new one."""
    side = volume.shape[0]
    line = torch.arange(side) + 0.5
    axes = []
    for axis in range(3):
        share = (line - new[0][axis]) / (new[1][axis] - new[0][axis])
        axes.append((old[0][axis] + share * (old[1][axis] - old[0][axis])) / side * 2 - 1)
    y, x, z = torch.meshgrid(*axes, indexing="ij")
    return sampled(weighted(volume), torch.stack([z, x, y], -1).to(volume))


def _depth(filled: Bool[Tensor, "J I K"]) -> tuple[Float[Tensor, "J I K"], tuple[Tensor, ...]]:
    """How deep voxels lie inside, negative outside, in voxels; and the nearest filled voxel of each."""
    solid = filled.cpu().numpy()
    outside, nearest = ndimage.distance_transform_edt(~solid, return_indices=True)
    depth = np.where(solid, ndimage.distance_transform_edt(solid) - 0.5, 0.5 - outside)
    device = filled.device
    places = tuple(torch.from_numpy(axis.astype(np.int64)).to(device) for axis in nearest)
    return torch.from_numpy(depth.astype(np.float32)).to(device), places
