"""Volumes as voxels of raw density, normal and colour, and what lies between voxels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

FULL = 10.0
"""Raw density of voxels inside things, far from their surface; minus this outside."""


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
