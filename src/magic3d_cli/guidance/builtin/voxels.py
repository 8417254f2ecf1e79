"""Volumes as voxels of raw density, normal and colour, and what lies between voxels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

FULL = 10.0
"""Raw density of voxels inside things, far from their surface; minus this outside."""

_CRUMB, _APART, _FOG = 0.025, 4.0, -2.0
"""A piece is a crumb under this share of the largest one and further than this many voxels from what stays [m]; pieces
are told apart where the raw density falls below `_FOG`."""


def without_crumbs(volume: Float[Tensor, "J I K 7"]) -> Float[Tensor, "J I K 7"]:
    """A thing's volume without small pieces in the air: what is left of thin parts that its latent has lost.

    What is near stays, for there a thin part goes on: a snowman's broken arm.
    """
    raw = volume[..., 0].detach().cpu().numpy()
    pieces, count = ndimage.label(raw > _FOG, np.ones((3, 3, 3), bool))
    voxels = np.bincount(pieces[raw > 0], minlength=count + 1)
    voxels[0] = 0
    large = voxels >= max(_CRUMB * voxels.max(), 1)
    if large.sum() in (0, count):
        return volume
    box = ndimage.find_objects((pieces > 0).astype(np.int8))[0]
    own = pieces[box]
    small = (own > 0) & ~large[own]
    nearest = np.full(count + 1, np.inf)
    np.minimum.at(nearest, own[small], ndimage.distance_transform_edt(~large[own])[small])
    crumbs = torch.zeros(raw.shape, dtype=torch.bool)
    crumbs[box] = torch.from_numpy(small & (nearest > _APART)[own])
    return torch.cat([volume[..., :1].masked_fill(crumbs.to(volume.device)[..., None], -FULL), volume[..., 1:]], -1)


def weighted(volume: Float[Tensor, "J I K 7"]) -> Float[Tensor, "1 8 J I K"]:
    """Raw density, a weight, and normal and colour times the weight: between a voxel that is there and one that is not,
    normal and colour are those of the one that is."""
    parts = volume[None].movedim(-1, 1)
    weight = F.softplus(parts[:, :1]).clamp(1e-4, 1)
    return torch.cat([parts[:, :1], weight, weight * parts[:, 1:]], 1)


def sampled(parts: Float[Tensor, "1 8 J I K"], grid: Float[Tensor, "j i k 3"]) -> Float[Tensor, "j i k 7"]:
    """`weighted` voxels at places of the cube, -1 to 1 along z, x and y: raw density, normal and colour again."""
    found = F.grid_sample(parts, grid[None], padding_mode="border", align_corners=False)[0].movedim(0, -1)
    return torch.cat([found[..., :1], found[..., 2:] / found[..., 1:2].clamp(min=1e-6)], -1)
