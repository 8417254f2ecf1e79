"""Which cells of the scene are worth sampling (Instant-NGP appendix C; Magic3D supplement)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

_POINTS = 1 << 18  # points evaluated at a time
_LEAST = 0.002  # share of cells that is never pruned: a ball of radius 0.16
_ROUNDING = 1e-4  # by which equal densities may miss their mean


class OccupancyGrid(nn.Module):
    """A decaying maximum of the density in each cell of [-1, 1]^3, and the cells dense enough to matter.

    Every update looks at every cell, and the occupied ones are grown by one cell, so that a pruned cell comes
    back as soon as density appears in or beside it.
    """

    density: Float[Tensor, "G G G"]
    occupied: Bool[Tensor, "G G G"]

    def __init__(self, size: int, step: float, threshold: float, decay: float, start: float = 0.0) -> None:
        """All cells are occupied until the first update.

        Args:
            step: length of a marching step, world units.
            threshold: opacity of such a step below which a cell is skipped; where the mean of all cells is thinner,
                that mean [Instant-NGP's code, nerfacc's]. A fog that is thin everywhere and hides what is behind it all
                the same would be pruned in one update otherwise.
            decay: factor on the remembered density at each update.
            start: density remembered at first. The paper's 20 keeps every cell for the first six updates (256 steps
                through the box, decay 0.6); with 0 the first update goes by the field alone, and the empty corners are
                never paid for.
        """
        super().__init__()
        self.step, self.threshold, self.decay = step, threshold, decay
        self.register_buffer("density", torch.full((size, size, size), start))
        self.register_buffer("occupied", torch.ones(size, size, size, dtype=torch.bool))

    def fraction(self) -> float:
        """Share of cells that are sampled."""
        return float(self.occupied.float().mean())

    @torch.no_grad()
    def update(self, density: Callable[[Tensor], Tensor], generator: torch.Generator) -> None:
        """Evaluate `density` (world points [N, 3] -> [N]) at one random point in each cell, and prune."""
        size, device = self.density.shape[0], self.density.device
        if device.type != "cpu":  # two million points are drawn there at once, here in a tenth of a second
            generator = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
        axis = torch.arange(size, dtype=torch.float32, device=device)
        corners = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(-1, 3)
        points = (corners + torch.rand(corners.shape, generator=generator, device=device)) * (2 / size) - 1
        found = torch.cat([density(part) for part in points.split(_POINTS)])
        torch.maximum(self.density * self.decay, found.view(self.density.shape), out=self.density)
        thickness = self.density * self.step
        core = thickness > min(-math.log1p(-self.threshold), (1 - _ROUNDING) * float(thickness.mean()))
        # The densest few cells stay: a grid that prunes everything gives no gradient to recover by.
        core.view(-1)[self.density.view(-1).topk(max(int(_LEAST * core.numel()), 1)).indices] = True
        self.occupied.copy_(F.max_pool3d(core[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0)
