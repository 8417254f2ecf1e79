"""The hot operations by the CUDA kernels of `cuda`: arguments and results as those of their references."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from magic3d_cli.kernels.cuda.nvrtc import Kernels
from magic3d_cli.kernels.march import Samples, lattice_points
from magic3d_cli.kernels.rasterize import BACKGROUND, to_screen, triangle_ids

_THREADS_EACH = 4  # threads that divide the rows of a triangle among them: most are a few pixels high


def hash_encode(
    kernels: Kernels,
    points: Float[Tensor, "N 3"],
    table: Float[Tensor, "L T F"],
    resolutions: tuple[int, ...],
    known: Float[Tensor, "N L*F"] | None = None,
) -> Float[Tensor, "N L*F"]:
    """Features of `hash_encode_reference`, for a float32 table of at most MOST_LEVELS levels.

    `known`: the result, where it has been computed before without gradient: only the gradient is added.
    """
    return _HashEncode.apply(kernels, points, table, resolutions, known)


def march(
    kernels: Kernels,
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    occupancy: Bool[Tensor, "G G G"],
    step: float,
    jitter: Float[Tensor, "R"],
) -> Samples:
    """Samples of `march_reference`."""
    origins, directions, jitter = (x.detach().float().contiguous() for x in (origins, directions, jitter))
    rays = len(origins)
    rest = (rays, len(occupancy), lattice_points(step), float(step))
    counts = torch.empty(rays, dtype=torch.int64, device=origins.device)
    lines = (origins, directions, occupancy.contiguous(), jitter)
    kernels.launch("march_count", (rays, 1), *lines, *rest, counts)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    total = int(offsets[-1])
    points, t = origins.new_empty(total, 3), origins.new_empty(total)
    ray = counts.new_empty(total)
    kernels.launch("march_fill", (rays if total else 0, 1), *lines, offsets, *rest, points, ray, t)
    return Samples(points, ray, t, torch.full_like(t, step), offsets)


def composite(
    kernels: Kernels,
    density: Float[Tensor, "N"],
    values: Float[Tensor, "N C"],
    delta: Float[Tensor, "N"],
    offsets: Int[Tensor, "R+1"],
) -> tuple[Float[Tensor, "R C"], Float[Tensor, "R"], Float[Tensor, "N"]]:
    """Result of `composite_reference`, for float32."""
    return _Composite.apply(kernels, density, values, delta, offsets)


def rasterize(
    kernels: Kernels, clip: Float[Tensor, "B V 4"], faces: Int[Tensor, "F 3"], size: int
) -> Int[Tensor, "B H W"]:
    """Ids of `rasterize_reference`."""
    nearest = torch.full((len(clip), size, size), BACKGROUND, device=clip.device)
    threads = (len(faces) * _THREADS_EACH, len(clip))
    rest = (len(faces), clip.shape[1], size, _THREADS_EACH)
    screen = to_screen(clip.detach(), size)
    kernels.launch("rasterize", threads, *screen, faces.long().contiguous(), *rest, nearest)
    return triangle_ids(nearest)


class _HashEncode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, kernels: Kernels, points: Tensor, table: Tensor, resolutions: tuple[int, ...], known: Tensor | None
    ) -> Tensor:
        points = points.detach().float().contiguous()
        ctx.save_for_backward(points)
        ctx.kernels, ctx.table_shape, ctx.resolutions = kernels, table.shape, resolutions
        if known is not None:
            return known.view_as(known)
        levels, size, width = table.shape
        features = table.new_empty(len(points), levels * width)
        inputs = (points, table.detach().contiguous(), resolutions)
        kernels.launch("hash_encode", (len(points), levels), *inputs, len(points), size, width, features)
        return features

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, None, Tensor, None, None]:
        (points,) = ctx.saved_tensors
        levels, size, width = ctx.table_shape
        table_grad = grad.new_zeros(ctx.table_shape)
        inputs = (points, grad.contiguous(), ctx.resolutions)
        ctx.kernels.launch("hash_encode_backward", (len(points), levels), *inputs, len(points), size, width, table_grad)
        return None, None, table_grad, None, None


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, kernels: Kernels, density: Tensor, values: Tensor, delta: Tensor, offsets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        density, values, delta, offsets = (x.detach().contiguous() for x in (density, values, delta, offsets))
        rays, channels = len(offsets) - 1, values.shape[1]
        out, opacity = values.new_empty(rays, channels), values.new_empty(rays)
        weights = torch.empty_like(density)
        inputs = (density, values, delta, offsets)
        kernels.launch("composite", (rays * (channels + 1), 1), *inputs, rays, channels, out, opacity, weights)
        ctx.save_for_backward(*inputs, weights)
        ctx.kernels = kernels
        return out, opacity, weights

    @staticmethod
    def backward(
        ctx, grad_out: Tensor, grad_opacity: Tensor, grad_weights: Tensor
    ) -> tuple[None, Tensor, Tensor, None, None]:
        density, values, delta, offsets, weights = ctx.saved_tensors
        grad_density, grad_values = torch.empty_like(density), torch.empty_like(values)
        grads = (g.contiguous() for g in (grad_out, grad_opacity, grad_weights))
        rays, channels = len(offsets) - 1, values.shape[1]
        inputs = (density, values, delta, offsets, weights, *grads)
        ctx.kernels.launch("composite_backward", (rays, 1), *inputs, rays, channels, grad_density, grad_values)
        return None, grad_density, grad_values, None, None
