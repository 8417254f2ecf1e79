"""Which of several things each place of a scene belongs to: each keeps a material of its own."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

SIZE = 128
"""Voxels along each side of the scene's box."""


def things_of(owners: Int[Tensor, "z y x"], extent: float) -> UInt8[Tensor, "Z Y X"]:
    """Numbers of things, of voxels over +-`extent`, as voxels over the scene's box; past them those of their faces."""
    line = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    at = [((line / extent + 1) / 2 * side).long().clamp(0, side - 1) for side in owners.shape]
    return owners[at[0][:, None, None], at[1][:, None], at[2]].to(torch.uint8)


def share_of(things: UInt8[Tensor, "Z Y X"], number: int, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
    """1 at world points that belong to a thing, else 0."""
    x, y, z = ((points + 1) / 2 * SIZE).long().clamp(0, SIZE - 1).unbind(-1)
    return (things.to(points.device)[z, y, x] == number).float()
