"""Which cells of the scene are worth sampling (Instant-NGP, appendix C; Magic3D, supplement)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

_POINTS = 2**16  # densities asked for at once


class OccupancyGrid(nn.Module):
    """A decaying maximum of the density in each cell of [-1, 1]^3, indexed [x, y, z].

    Starts full, so that nothing is pruned before it had a chance. Every cell is asked again at each update, so an
    emptied cell comes back when density grows in it or next to it.
    """

    density: Tensor
    occupied: Tensor

    def __init__(self, size: int, decay: float, start: float) -> None:
        super().__init__()
        self.size, self.decay = size, decay
        self.register_buffer("density", torch.full((size, size, size), start))
        self.register_buffer("occupied", torch.ones(size, size, size, dtype=torch.bool))

    @torch.no_grad()
    def update(
        self, density: Callable[[Tensor], Tensor], threshold: float, generator: torch.Generator
    ) -> None:
        """Sample one random point a cell; keep cells above `threshold` (density per world unit) and their neighbours.

        A grid in which nothing reaches the threshold is left as it was: the stage's own check for an empty volume
        reports that, a grid of no cells would only hide it.
        """
        device = self.density.device
        axis = torch.arange(self.size, device=device)
        cells = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(-1, 3).float()
        jitter = torch.rand(cells.shape, generator=generator).to(device)
        points = (cells + jitter) / self.size * 2 - 1
        fresh = torch.cat([density(part) for part in points.split(_POINTS)]).view_as(self.density)
        self.density = torch.maximum(self.density * self.decay, fresh)
        full = self.density > threshold
        if full.any():
            self.occupied = _dilate(full)

    def fraction(self) -> float:
        """Share of cells that are sampled."""
        return self.occupied.float().mean().item()


def _dilate(cells: Bool[Tensor, "G G G"]) -> Bool[Tensor, "G G G"]:
    """The cells and their 26 neighbours."""
    grid: Float[Tensor, "1 1 G G G"] = cells[None, None].float()
    return torch.nn.functional.max_pool3d(grid, 3, stride=1, padding=1)[0, 0] > 0
