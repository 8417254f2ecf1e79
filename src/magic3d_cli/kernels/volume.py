"""Images of a feature volume: PyTorch reference and CPU kernel.

Channel 0 of the volume is the density before its softplus, so that surfaces may be sharper than a voxel
(post-activation: Sun et al. 2022, DVGO); the other channels are composited as they are.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from magic3d_cli.kernels import NUMBA_LOCK

EMPTY = -6.0
"""Raw densities below this count as nothing, without gradient."""
SHARPNESS = 8.0
"""Optical thickness of a world unit where softplus(raw) is 1."""


def composite_volume(
    volume: Float[Tensor, "C Y X Z F"],
    origins: Float[Tensor, "B 3"],
    directions: Float[Tensor, "B R 3"],
    start: Float[Tensor, "B"],
    jitter: Float[Tensor, "B R"],
    samples: int,
    extent: float,
) -> Float[Tensor, "B F R"]:
    """Opacity (channel 0) and composited features along rays; B / C consecutive views look at each volume.

    Args:
        volume: voxels over the cube [-extent, extent]^3, sampled trilinearly, clamped at its faces.
        origins, directions: world space, unit directions.
        start: distance at which sampling starts; it goes on for 2 extent.
        jitter: place of the points within their step, in [0, 1].
    """
    if volume.device.type != "cpu":
        return composite_volume_reference(volume, origins, directions, start, jitter, samples, extent)
    return _CompositeVolume.apply(volume.float(), origins, directions, start, jitter, samples, extent)


def composite_volume_reference(
    volume: Float[Tensor, "C Y X Z F"],
    origins: Float[Tensor, "B 3"],
    directions: Float[Tensor, "B R 3"],
    start: Float[Tensor, "B"],
    jitter: Float[Tensor, "B R"],
    samples: int,
    extent: float,
) -> Float[Tensor, "B F R"]:
    """`composite_volume` in plain PyTorch, on any device."""
    count, views, rays = len(volume), len(origins), directions.shape[1]
    step = 2 * extent / samples
    along = torch.arange(samples, device=volume.device) + jitter[..., None]
    depth = start[:, None, None] + along * step  # B R S
    points = (origins[:, None, None] + depth[..., None] * directions[:, :, None]) / extent
    grid = points.reshape(count, views // count * rays, samples, 1, 3)
    taken = F.grid_sample(
        volume.float().permute(0, 4, 3, 1, 2), grid, padding_mode="border", align_corners=False
    )  # C F N S 1
    taken = taken.view(count, -1, views // count, rays, samples).transpose(1, 2).flatten(0, 1)  # B F R S
    raw = taken[:, 0]
    solid = (raw > EMPTY) & (points.abs().amax(-1) < 1)
    thickness = torch.where(solid, F.softplus(raw), 0) * (SHARPNESS * step)
    behind = torch.exp(-thickness.cumsum(-1))
    weights = torch.cat([1 - behind[..., :1], behind[..., :-1] - behind[..., 1:]], -1)
    return torch.cat([weights.sum(-1)[:, None], (weights[:, None] * taken[:, 1:]).sum(-1)], 1)


class _CompositeVolume(torch.autograd.Function):
    @staticmethod
    def forward(ctx, volume, origins, directions, start, jitter, samples, extent):
        inputs = tuple(x.detach().contiguous() for x in (volume, origins, directions, start, jitter))
        out = torch.empty(len(origins), directions.shape[1], volume.shape[-1])
        with NUMBA_LOCK:
            _forward(*(x.numpy() for x in (*inputs, out)), samples, np.float32(extent))  # type: ignore[call-arg]
        ctx.save_for_backward(*inputs)
        ctx.samples, ctx.extent = samples, extent
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx, grad_out):
        inputs = ctx.saved_tensors
        grad = torch.zeros_like(inputs[0])
        grad_out = grad_out.transpose(1, 2).contiguous().float()
        with NUMBA_LOCK:
            arrays = (x.numpy() for x in (*inputs, grad_out, grad))
            _backward(*arrays, ctx.samples, np.float32(ctx.extent))  # type: ignore[call-arg]
        return grad, None, None, None, None, None, None


@numba.njit(inline="always")
def _locate(origin, direction, depth, extent, shape, corner, weight):
    """Voxels around a point and its trilinear weights; False outside the cube."""
    for axis in range(3):
        p = (origin[axis] + depth * direction[axis]) / extent
        if abs(p) >= 1:
            return False
        size = shape[1] if axis == 0 else (shape[0] if axis == 1 else shape[2])
        at = min(max((p + 1) * np.float32(0.5) * size - np.float32(0.5), np.float32(0)), np.float32(size - 1))
        low = min(int(at), size - 2)
        corner[axis] = low
        weight[axis] = at - low
    return True


@numba.njit(inline="always")
def _share(weight, k):
    x = weight[0] if k & 1 else 1 - weight[0]
    y = weight[1] if k & 2 else 1 - weight[1]
    z = weight[2] if k & 4 else 1 - weight[2]
    return x * y * z


@numba.njit(inline="always")
def _softplus(x):
    return x if x > 15 else np.log1p(np.exp(x))


@numba.njit(parallel=True, cache=True, boundscheck=False, fastmath=True)
def _forward(volume, origins, directions, start, jitter, out, samples, extent):
    views, rays, channels = out.shape
    step = 2 * extent / samples
    shape = volume.shape[1:4]
    group = views // len(volume)
    for b in numba.prange(views):
        field = volume[b // group]
        corner, weight = np.empty(3, np.int64), np.empty(3, np.float32)
        for r in range(rays):
            total = out[b, r]
            total[:] = 0
            left = np.float32(1)
            for s in range(samples):
                depth = start[b] + (s + jitter[b, r]) * step
                if not _locate(origins[b], directions[b, r], depth, extent, shape, corner, weight):
                    continue
                x, y, z = corner
                raw = np.float32(0)
                for k in range(8):
                    raw += _share(weight, k) * field[y + (k >> 1 & 1), x + (k & 1), z + (k >> 2), 0]
                if raw <= EMPTY:
                    continue
                passed = np.exp(-_softplus(raw) * np.float32(SHARPNESS * step))
                here = left * (1 - passed)
                left *= passed
                total[0] += here
                if here > 1e-5:
                    for k in range(8):
                        share = here * _share(weight, k)
                        values = field[y + (k >> 1 & 1), x + (k & 1), z + (k >> 2)]
                        for c in range(1, channels):
                            total[c] += share * values[c]
                if left < 1e-4:
                    break


@numba.njit(parallel=True, cache=True, boundscheck=False, fastmath=True)
def _backward(volume, origins, directions, start, jitter, grad_out, grad, samples, extent):
    """With w_i the weight of sample i and q_i the loss's derivative by it,

    d loss / d thickness_i = T_{i+1} q_i - sum_{j > i} w_j q_j.
    """
    views, rays, channels = grad_out.shape
    step = 2 * extent / samples
    shape = volume.shape[1:4]
    group = views // len(volume)
    for n in numba.prange(len(volume)):
        field, grown = volume[n], grad[n]
        corners, weights = np.empty((samples, 3), np.int64), np.empty((samples, 3), np.float32)
        raws, lefts = np.empty(samples, np.float32), np.empty(samples + 1, np.float32)
        taken = np.empty(channels, np.float32)
        for b in range(n * group, (n + 1) * group):
            for r in range(rays):
                g = grad_out[b, r]
                used = 0
                lefts[0] = 1
                for s in range(samples):
                    depth = start[b] + (s + jitter[b, r]) * step
                    corner, weight = corners[used], weights[used]
                    if not _locate(origins[b], directions[b, r], depth, extent, shape, corner, weight):
                        continue
                    x, y, z = corner
                    raw = np.float32(0)
                    for k in range(8):
                        raw += _share(weight, k) * field[y + (k >> 1 & 1), x + (k & 1), z + (k >> 2), 0]
                    if raw <= EMPTY:
                        continue
                    raws[used] = raw
                    lefts[used + 1] = lefts[used] * np.exp(-_softplus(raw) * np.float32(SHARPNESS * step))
                    used += 1
                    if lefts[used] < 1e-4:
                        break
                behind = np.float32(0)
                for i in range(used - 1, -1, -1):
                    x, y, z = corners[i]
                    here = lefts[i] - lefts[i + 1]
                    taken[:] = 0
                    for k in range(8):
                        share = _share(weights[i], k)
                        values = field[y + (k >> 1 & 1), x + (k & 1), z + (k >> 2)]
                        for c in range(channels):
                            taken[c] += share * values[c]
                    by_weight = g[0]
                    for c in range(1, channels):
                        by_weight += g[c] * taken[c]
                    by_thickness = lefts[i + 1] * by_weight - behind
                    behind += here * by_weight
                    by_raw = by_thickness * np.float32(SHARPNESS * step) / (1 + np.exp(-raws[i]))
                    for k in range(8):
                        share = _share(weights[i], k)
                        target = grown[y + (k >> 1 & 1), x + (k & 1), z + (k >> 2)]
                        target[0] += share * by_raw
                        for c in range(1, channels):
                            target[c] += share * here * g[c]
