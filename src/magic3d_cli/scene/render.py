"""What a renderer returns, the same for the volume and the mesh: all that a loss may look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Render:
    """B square images of H x W pixels. Colours are display-referred."""

    rgb: Float[Tensor, "B H W 3"]  # shaded, over the background
    opacity: Float[Tensor, "B H W"]
    depth: Float[Tensor, "B H W"]  # distance from the camera, world units; 0 where empty
    normal: Float[Tensor, "B H W 3"]  # world space; unit where opaque, zero where empty or not needed for the shading
    albedo: Float[Tensor, "B H W 3"]  # of the surface alone

    @staticmethod
    def concatenate(parts: Sequence[Render]) -> Render:
        """The images of all parts, one after the other."""
        return Render(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Render)))
