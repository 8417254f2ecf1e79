"""Volume rendering of the coarse scene (NeRF, arXiv 2003.08934, eq. 3; Magic3D, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from magic3d_cli.coarse.background import Background
from magic3d_cli.coarse.field import FieldSample, HashField
from magic3d_cli.coarse.occupancy import OccupancyGrid
from magic3d_cli.kernels.march import Samples, composite, march
from magic3d_cli.views import Views, shade


@dataclass(frozen=True)
class Render:
    """Images of B views, H x W. Colours are display-referred."""

    rgb: Float[Tensor, "B H W 3"]
    opacity: Float[Tensor, "B H W"]
    depth: Float[Tensor, "B H W"]  # world units along the ray; 0 where nothing is
    normal: Float[Tensor, "B H W 3"]  # world space, unit
    albedo: Float[Tensor, "B H W 3"]


@dataclass(frozen=True)
class VolumeRender(Render):
    """What the regularisers of the coarse stage look at besides the images."""

    samples: Samples
    field: FieldSample
    weights: Float[Tensor, "N"]


def step_length(samples_per_ray: int) -> float:
    """Distance between samples, world units: the box's diagonal shared out."""
    return 2 * 3**0.5 / samples_per_ray


def render(
    field: HashField,
    occupancy: OccupancyGrid,
    background: Background,
    views: Views,
    size: int,
    samples_per_ray: int,
    generator: torch.Generator | None = None,
) -> VolumeRender:
    """Render square images. With a generator, samples are jittered along each ray.

    Colour and normal are composited first and shaded once a pixel: a surface is opaque, so this is what shading
    every sample would give, at a fraction of the cost.
    """
    origins, directions = views.rays(size)
    rays = directions.view(-1, 3)
    jitter = torch.full((len(rays),), 0.5)
    if generator is not None:
        jitter = torch.rand(len(rays), generator=generator)
    step = step_length(samples_per_ray)
    samples = march(origins.reshape(-1, 3), rays, occupancy.occupied, step, jitter.to(rays.device))
    sample = field(samples.points)
    values = torch.cat([sample.albedo, sample.normal, samples.t[:, None]], -1)
    out, opacity, weights = composite(sample.density, values, samples.delta, samples.offsets)
    out, opacity = out.view(len(views), size, size, 7), opacity.view(len(views), size, size)
    alpha = opacity[..., None]
    mean = out / alpha.clamp(min=1e-4)
    albedo, normal = mean[..., :3], normalize(out[..., 3:6], dim=-1)
    plain = views.plain[:, None, None, None]
    behind = plain * views.backdrop[:, None, None, :].expand_as(directions)
    if (views.plain < 1).any():
        behind = behind + (1 - plain) * background(directions)
    rgb = alpha * shade(albedo, normal, views) + (1 - alpha) * behind
    return VolumeRender(rgb, opacity, mean[..., 6], normal, albedo, samples, sample, weights)
