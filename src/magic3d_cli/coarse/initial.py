"""Where an optimisation begins: a shape that is known already, to which the coarse field is fitted point by point.

The paper begins with a soft ball (section 4.1). Where there is something better, a 3D prior's own volume, a mesh or
another run, the field is taught it directly in seconds and distilled from lower noise on, as GaussianDreamer (arXiv
2310.08529) does with points of a 3D diffusion model and DreamCraft3D (arXiv 2310.16818) with its reference.
"""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from magic3d_cli.coarse.stage import CoarseStage

STEPS, POINTS = 250, 16384
"""Of the fit, and compared in each of them: seconds on two cores; the silhouettes' error no longer falls then [m]."""
OPAQUE = 60.0
"""Density inside shapes that have none of their own: nearly opaque over one voxel of 1/64."""
_LR = (2e-2, 1e-3)  # from first to last step
_NEAR = 0.7  # share of the points that lie near the surface
_SPREAD = 0.03  # their standard deviation around it, world units
_CEILING = 40.0  # denser than this is as good as this


class InitialShape(Protocol):
    """A shape in the scene's box [-1, 1]^3, seen point by point."""

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Per world unit of length, at world points."""

    def albedo(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Display-referred, 0..1; asked only at and near the surface."""

    def surface(self, count: int, generator: torch.Generator) -> Float[Tensor, "N 3"]:
        """Points on the surface, drawn evenly enough."""


def fit(stage: CoarseStage, shape: InitialShape, steps: int = STEPS) -> None:
    """Teach a stage's field the density and colour of a shape; a fresh stage, before its first step.

    The density is compared as the opacity of a voxel's length, in which a mistake counts where it is seen: between
    nothing and something, not between dense and denser. All randomness comes from the stage's generator.
    """
    field, generator, device = stage.field, stage.generator, stage.device
    adam = torch.optim.Adam(list(field.parameters()), lr=_LR[0], betas=(0.9, 0.99), eps=1e-15, fused=True)
    pool = shape.surface(POINTS * 8, generator)
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = _LR[0] * (_LR[1] / _LR[0]) ** (step / steps)
        points = _draw(pool, generator).to(device)
        with torch.no_grad():
            density = shape.density(points).clamp(max=_CEILING)
            colour = shape.albedo(points)
            seen = 1 - torch.exp(-density / 32)  # colour matters where there is something
        adam.zero_grad(set_to_none=True)
        found, albedo = field.density_and_albedo(points, features := field.features(points))
        opacity = 1 - torch.exp(-found / 32)
        logit = field.density_logit(points, features)
        wrong = (opacity - seen).square() + 1e-4 * (logit.clamp(-8, _CEILING) - _inverse_softplus(density)).square()
        loss = wrong.mean() + (seen[:, None] * (albedo - colour).square()).sum(-1).mean()
        loss.backward()
        adam.step()
    field.zero_grad(set_to_none=True)
    stage.restart_occupancy()


def _draw(pool: Float[Tensor, "P 3"], generator: torch.Generator) -> Float[Tensor, "N 3"]:
    """Points near the surface, and some from everywhere."""
    near = round(_NEAR * POINTS)
    index = torch.randint(len(pool), (near,), generator=generator)
    around = pool[index] + _SPREAD * torch.randn(near, 3, generator=generator)
    anywhere = torch.rand(POINTS - near, 3, generator=generator) * 2 - 1
    return torch.cat([around, anywhere]).clamp(-1, 1)


def _inverse_softplus(density: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    density = density.clamp(min=3e-4)
    return density + torch.log(-torch.expm1(-density))
