"""A shape to begin with, seen point by point; whoever has one gives it this face."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EXTENT, RADIUS = 0.75, 0.92
"""A thing is scaled until its longest half-side is EXTENT or its half-diagonal RADIUS, whichever comes first: world
units, as the models of the built-in prior are."""
DENSITY = 60.0
"""Inside a solid shape, per world unit of length: opaque within a voxel."""


class InitialShape(Protocol):
    """A shape in the scene's box [-1, 1]^3, seen point by point."""

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Per world unit of length, at world points."""

    def albedo(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Display-referred, 0..1; asked only at and near the surface."""

    def surface(self, count: int, generator: torch.Generator) -> Float[Tensor, "N 3"]:
        """Points on the surface, drawn evenly enough."""


def scale_into_scene(half: Float[np.ndarray, "3"]) -> float:
    """What a thing with a bounding box of these half-sides is scaled by; see EXTENT."""
    return min(EXTENT / half.max(), RADIUS / np.linalg.norm(half))


def voxels_at(grid: Float[Tensor, "1 C Z Y X"], points: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
    """Trilinear values, at world points, of voxels that fill the scene's box; outside it those of its faces."""
    at = points[None, None, None]
    return F.grid_sample(grid.to(points), at, padding_mode="border", align_corners=False)[0, :, 0, 0].T
