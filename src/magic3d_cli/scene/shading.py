"""Light on surfaces, and what is behind them (DreamFusion section 3.1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from magic3d_cli.scene.views import ALBEDO, TEXTURELESS, Views

TEXTURELESS_ALBEDO = 0.9


def shade(albedo: Float[Tensor, "B *d 3"], normal: Float[Tensor, "B *d 3"], views: Views) -> Float[Tensor, "B *d 3"]:
    """Colour of surface points under each view's light and shading mode (DreamFusion section 3.1).

    Display-referred in and out. `normal` is a world-space unit vector; d stands for any number of dimensions.
    """
    shape = (len(views),) + (1,) * (albedo.dim() - 2)
    lambert = (normal * views.light.view(*shape, 3)).sum(-1).clamp(min=0)
    ambient = views.ambient.view(shape)
    lit = (ambient + (1 - ambient) * lambert)[..., None]
    mode = views.shading.view(*shape, 1)
    base = torch.where(mode == TEXTURELESS, torch.full_like(albedo, TEXTURELESS_ALBEDO), albedo)
    return torch.where(mode == ALBEDO, albedo, base * lit)


def backdrop(
    background: Callable[[Tensor], Tensor], directions: Float[Tensor, "B H W 3"], views: Views
) -> Float[Tensor, "B H W 3"]:
    """What is behind the object: each view's plain colour, or `background` of the directions where it has none."""
    colour = views.backdrop[:, None, None, :].expand_as(directions)
    open_sky = (views.solid_background < 0.5).nonzero()[:, 0]
    if len(open_sky) == 0:
        return colour
    return colour.index_copy(0, open_sky, background(directions[open_sky]))
