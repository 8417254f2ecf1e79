"""Volume rendering of the coarse scene: march, drop what is hidden, evaluate, composite, shade each pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from magic3d_cli.coarse.occupancy import OccupancyGrid
from magic3d_cli.kernels.dispatch import composite, march
from magic3d_cli.kernels.march import Samples, transmittance
from magic3d_cli.scene.background import Background
from magic3d_cli.scene.field import HashField
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.shading import backdrop, shade
from magic3d_cli.scene.views import ALBEDO, Views

HIDDEN, FAINT = 1e-3, 3e-3
"""Samples that less than this share of the light reaches, or that stop less than this share of it, are
dropped: each is under one 8-bit level."""

SEEN = 0.1
"""Samples a ray, on average, below which the faint ones stay: of a scene that has faded they are all there is to
pull on."""


@dataclass(frozen=True)
class VolumeRender(Render):
    """What the regularisers of the coarse stage look at besides the images."""

    samples: Samples
    weights: Float[Tensor, "N"]
    directions: Float[Tensor, "R 3"]  # of the B H W rays
    marched: int  # samples in occupied cells, of which `samples` are those that are seen


def step_length(samples_per_ray: int) -> float:
    """World distance between samples: the box's diagonal in `samples_per_ray` steps."""
    return 2 * math.sqrt(3) / samples_per_ray


def render_volume(
    field: HashField,
    occupancy: OccupancyGrid,
    background: Background,
    views: Views,
    size: int,
    samples_per_ray: int,
    jitter: Float[Tensor, "B H W"] | None = None,
    *,
    all_normals: bool = False,
) -> VolumeRender:
    """Render square images of `size` pixels; all on the field's device.

    Args:
        jitter: where each ray's samples sit in their intervals, in [0, 1); without it in the middle.
        all_normals: give normals for every view, not only for those whose shading needs them.

    The composited albedo and normal are shaded once for each pixel: a tenth of the cost of shading samples.
    """
    device = field.table.device
    views = views.to(device)
    shape = (len(views), size, size)
    origins, directions = (x.reshape(-1, 3) for x in views.rays(size))
    jitter = torch.full(shape, 0.5) if jitter is None else jitter
    placed = jitter.reshape(-1).to(device)
    samples = march(origins, directions, occupancy.occupied, step_length(samples_per_ray), placed)
    marched = len(samples)
    samples, features = _visible(field, samples)

    lit = torch.ones_like(views.shading, dtype=torch.bool) if all_normals else views.shading != ALBEDO
    density, values = _evaluate(field, samples, features, lit[samples.ray // size**2] if lit.any() else None)
    out, opacity, weights = composite(density, values, samples.delta, samples.offsets)

    share = opacity[:, None].clamp(min=1e-3)  # out is premultiplied by the opacity
    albedo = (out[:, :3] / share).view(*shape, 3)
    normal = out[:, 4:7] if values.shape[1] > 4 else torch.zeros_like(out[:, :3])
    normal = (normal / torch.sqrt((normal**2).sum(-1, keepdim=True) + 1e-6)).view(*shape, 3)
    opacity = opacity.view(shape)
    surface = shade(albedo, normal, views)
    far = backdrop(background, directions.view(*shape, 3), views)
    return VolumeRender(
        rgb=opacity[..., None] * surface + (1 - opacity[..., None]) * far,
        opacity=opacity,
        depth=(out[:, 3:4] / share).view(shape),
        normal=normal,
        albedo=albedo,
        samples=samples,
        weights=weights,
        directions=directions,
        marched=marched,
    )


@torch.no_grad()
def _visible(field: HashField, samples: Samples) -> tuple[Samples, Float[Tensor, "N E"]]:
    """The samples that can be seen, and their features. Most of a solid object, and of the cost, cannot."""
    features = field.features(samples.points)
    density = F.softplus(field.density_logit(samples.points, features))
    keep = transmittance(density, samples.delta, samples.offsets) > HIDDEN
    seen = keep & (-torch.expm1(-density * samples.delta) > FAINT)
    if int(seen.sum()) >= SEEN * (len(samples.offsets) - 1):
        keep = seen
    return samples.select(keep), features[keep]


def _evaluate(
    field: HashField, samples: Samples, known: Float[Tensor, "N E"], lit: Bool[Tensor, "N"] | None
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N C"]]:
    """Density, and what to composite: albedo, distance and, if `lit`, the normals of the lit samples."""
    features = field.features(samples.points, known)
    density, albedo = field.density_and_albedo(samples.points, features)
    values = [albedo, samples.t[:, None]]
    if lit is not None:
        rows = lit.nonzero()[:, 0]
        values.append(torch.zeros_like(albedo).index_copy(0, rows, field.normals(features[rows])))
    return density, torch.cat(values, -1)
