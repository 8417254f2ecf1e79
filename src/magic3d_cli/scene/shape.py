"""A shape to begin with, seen point by point; whoever has one gives it this face."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor


class InitialShape(Protocol):
    """A shape in the scene's box [-1, 1]^3, seen point by point."""

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Per world unit of length, at world points."""

    def albedo(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Display-referred, 0..1; asked only at and near the surface."""

    def surface(self, count: int, generator: torch.Generator) -> Float[Tensor, "N 3"]:
        """Points on the surface, drawn evenly enough."""
