"""Where an optimisation begins: a shape that is known already, to which the coarse field is fitted point by point.

The paper begins with a soft ball (section 4.1). Where there is something better, a 3D prior's own volume, a mesh or
another run, the field is taught it directly in seconds and distilled from lower noise on, as GaussianDreamer (arXiv
2310.08529) does with points of a 3D diffusion model and DreamCraft3D (arXiv 2310.16818) with its reference.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.scene.field import HashField
from magic3d_cli.scene.shape import InitialShape

STEPS, POINTS, NORMALS = 200, 16384, 1024
"""Of the fit; compared in each step; and of these, whose normals are learnt [m]."""
POOL = 1 << 19
"""Points near the surface at which the shape is looked at, once."""
COLOUR_STEPS = 200
_LR = (2e-2, 1e-3)  # from first to last step
_NEAR, _SPREAD = 0.6, 0.025  # share of the points that lie near the surface; their standard deviation, world units
_WAY = 1 / 32  # world units: two voxels of the built-in prior's volume
_CEILING = 16.0  # denser than this is as good as this
_LOGIT = 1e-2
"""Weight of the logit's error beside the opacity's: it keeps empty space empty and the level sets parallel."""


def fit(stage: CoarseStage, shape: InitialShape, steps: int | None = None) -> None:
    """Teach a stage's field the density, colours and normals of a shape; a fresh stage, before its first step.

    The density is compared as the opacity of a short way through it, in which a mistake counts where it is seen:
    between nothing and something, not between dense and denser. Predicted normals follow the field's own. All
    randomness comes from the stage's generator. `steps` are STEPS unless given.
    """
    steps = STEPS if steps is None else steps
    field, generator, device = stage.field, stage.generator, stage.device
    pool = shape.surface(POOL, generator)
    pool = (pool + _SPREAD * torch.randn(POOL, 3, generator=generator)).clamp(-1, 1).to(device)
    density, colour = shape.density(pool), shape.albedo(pool)
    near = round(_NEAR * POINTS)
    for adam in _steps(field, steps):
        index = torch.randint(POOL, (near,), generator=generator).to(device)
        anywhere = (torch.rand(POINTS - near, 3, generator=generator) * 2 - 1).to(device)
        points, target = torch.cat([pool[index], anywhere]), torch.cat([density[index], shape.density(anywhere)])
        features = field.features(points)
        found, albedo = field.density_and_albedo(points, features)
        opacity, seen = (-torch.expm1(-d * _WAY) for d in (found, target))
        logit = field.density_logit(points, features).clamp(-8, _CEILING)
        loss = (opacity - seen).square().mean()
        loss = loss + _LOGIT * (logit - _inverse_softplus(target.clamp(max=_CEILING))).square().mean()
        loss = loss + (seen[:near, None] * (albedo[:near] - colour[index]).square()).sum(-1).mean()
        few = slice(0, NORMALS)
        actual = field.density_normal(points[few]).detach()
        predicted = field.normals(features[few])  # the grid learns directions too: distances do not tell them
        loss = loss + (seen[few, None] * (predicted - actual).square()).sum(-1).mean()
        loss.backward()
        adam.step()
    stage.restart_occupancy()


def fit_albedo(field: HashField, shape: InitialShape, points: Float[Tensor, "N 3"], generator: torch.Generator) -> None:
    """Teach a fresh field the colours of a shape at these points, and nothing else, in `COLOUR_STEPS` steps.

    A field that holds colours alone, and at a surface alone, carries three times the detail of one that also has to
    know where things are [m].
    """
    colour = shape.albedo(points)
    for adam in _steps(field, COLOUR_STEPS):
        index = torch.randint(len(points), (POINTS,), generator=generator).to(points.device)
        (field.albedo(points[index]) - colour[index]).square().sum(-1).mean().backward()
        adam.step()


def _steps(field: HashField, count: int) -> Iterator[torch.optim.Adam]:
    """An optimiser of the field for each step, its rate falling and its gradients cleared."""
    adam = torch.optim.Adam(list(field.parameters()), lr=_LR[0], betas=(0.9, 0.99), eps=1e-15, fused=True)
    for step in range(count):
        for group in adam.param_groups:
            group["lr"] = _LR[0] * (_LR[1] / _LR[0]) ** (step / count)
        yield adam
        adam.zero_grad(set_to_none=True)


def _inverse_softplus(density: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    density = density.clamp(min=3e-4)
    return density + torch.log(-torch.expm1(-density))
