"""Images of a feature volume: PyTorch reference and numba kernel.

Densities are kept before their softplus, so that surfaces may be sharper than a voxel (post-activation: Sun et al.
2022, DVGO).
"""

from __future__ import annotations

import numba
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from magic3d_cli.kernels import NUMBA_LOCK
from magic3d_cli.kernels.numba_cache import CACHE

EMPTY = -6.0
"""Raw densities below this count as nothing, without gradient."""
SHARPNESS = 16.0
"""Optical thickness of a world unit where softplus(raw) is 1."""
_SAMPLES = 1 << 24  # composited at a time in plain PyTorch


def composite_volume_reference(
    volume: Float[Tensor, "C J I K F+1"],
    origins: Float[Tensor, "B 3"],
    directions: Float[Tensor, "B R 3"],
    start: Float[Tensor, "B"],
    jitter: Float[Tensor, "B R"],
    samples: int,
    extent: float,
) -> Float[Tensor, "B F+4 R"]:
    """Opacity, then features and position composited along rays; B / C consecutive views look at each volume.

    Plain PyTorch, on any device; a few views at a time: at 256 pixels one takes a gigabyte.

    Args:
        volume: raw density and features of voxels over the cube [-extent, extent]^3, indexed y, x, z, sampled
            trilinearly, clamped at its faces.
        origins, directions: world space, unit directions.
        start: distance at which sampling starts; it goes on for 2 extent.
        jitter: place of the points within their step, in [0, 1].
    """
    each, at_once = len(origins) // len(volume), max(_SAMPLES // (directions.shape[1] * samples), 1)
    rays = (x.split(each) for x in (origins, directions, start, jitter))
    images = []
    for one, *seen in zip(volume, *rays, strict=True):
        for part in zip(*(x.split(at_once) for x in seen), strict=True):
            images.append(_composite(one, part, samples, extent))
    return torch.cat(images)


def _composite(
    volume: Float[Tensor, "J I K F+1"], rays: tuple[Tensor, ...], samples: int, extent: float
) -> Float[Tensor, "B F+4 R"]:
    """Some views of one volume; `rays` are their origins, directions, start and jitter."""
    origins, directions, start, jitter = rays
    step = 2 * extent / samples
    along = torch.arange(samples, device=volume.device) + jitter[..., None]
    depth = start[:, None, None] + along * step  # B R S
    points = (origins[:, None, None] + depth[..., None] * directions[:, :, None]) / extent
    # grid_sample's x, y, z run over the last, second last and third last dimension: z, x, y of the world.
    grid = points.roll(1, -1).flatten(0, 1)[None, :, :, None]
    taken = F.grid_sample(volume.movedim(-1, 0)[None], grid, padding_mode="border", align_corners=False)
    taken = taken.view(-1, *depth.shape).transpose(0, 1)
    raw = taken[:, 0]
    solid = (raw > EMPTY) & (points.abs().amax(-1) < 1)
    thickness = torch.where(solid, F.softplus(raw), 0) * (SHARPNESS * step)
    behind = torch.exp(-thickness.cumsum(-1))
    weights = torch.cat([1 - behind[..., :1], behind[..., :-1] - behind[..., 1:]], -1)
    taken = torch.cat([torch.ones_like(taken[:, :1]), taken[:, 1:], points.movedim(-1, 1) * extent], 1)
    return (weights[:, None] * taken).sum(-1)


def composite_volume_numba(
    volume: Float[Tensor, "C J I K F+1"],
    origins: Float[Tensor, "B 3"],
    directions: Float[Tensor, "B R 3"],
    start: Float[Tensor, "B"],
    jitter: Float[Tensor, "B R"],
    samples: int,
    extent: float,
    blocks: Bool[Tensor, "C j i k"] | None = None,
) -> Float[Tensor, "B F+4 R"]:
    """The reference's images by numba, for float32 on the CPU; rays end where 1e-3 of the light is left.

    `blocks`: `occupied_blocks(volume)`, for a volume that is rendered again and again.
    """
    blocks = occupied_blocks(volume) if blocks is None else blocks
    return _CompositeVolume.apply(volume, origins, directions, start, jitter, blocks, samples, extent)


class _CompositeVolume(torch.autograd.Function):
    @staticmethod
    def forward(ctx, volume, origins, directions, start, jitter, blocks, samples, extent):
        given = _boxes(blocks, volume.shape), blocks, volume, origins, directions, start, jitter
        inputs = tuple(x.detach().contiguous() for x in given)
        out = torch.empty(len(origins), directions.shape[1], volume.shape[-1] + 3)
        with NUMBA_LOCK:
            _forward(*(x.numpy() for x in (*inputs, out)), samples, np.float32(extent))  # type: ignore[call-arg]
        ctx.save_for_backward(*inputs)
        ctx.samples, ctx.extent = samples, extent
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx, grad_out):
        inputs = ctx.saved_tensors
        grad = torch.zeros_like(inputs[2])
        grad_out = grad_out.transpose(1, 2).contiguous().float()
        with NUMBA_LOCK:
            arrays = (x.numpy() for x in (*inputs, grad_out, grad))
            _backward(*arrays, ctx.samples, np.float32(ctx.extent))  # type: ignore[call-arg]
        return grad, None, None, None, None, None, None, None


@numba.njit(inline="always")
def _place(point, size):
    """The lower of the two voxels around a coordinate in [-1, 1], and the share of the upper one."""
    at = min(max((point + 1) * np.float32(0.5) * size - np.float32(0.5), np.float32(0)), np.float32(size - 1))
    low = min(int(at), size - 2)
    return low, at - low


@numba.njit(inline="always")
def _density(grid, px, py, pz):
    """Trilinear value, and the voxels and shares it was made of."""
    j, v = _place(py, grid.shape[0])
    i, u = _place(px, grid.shape[1])
    k, w = _place(pz, grid.shape[2])
    low = (grid[j, i, k, 0] * (1 - w) + grid[j, i, k + 1, 0] * w) * (1 - u)
    low += (grid[j, i + 1, k, 0] * (1 - w) + grid[j, i + 1, k + 1, 0] * w) * u
    high = (grid[j + 1, i, k, 0] * (1 - w) + grid[j + 1, i, k + 1, 0] * w) * (1 - u)
    high += (grid[j + 1, i + 1, k, 0] * (1 - w) + grid[j + 1, i + 1, k + 1, 0] * w) * u
    return low * (1 - v) + high * v, j, i, k, v, u, w


BLOCK = 4
"""Voxels along the side of a block that rays skip when it is empty."""
CHUNK = 64
"""Rays that a thread takes at once."""


def occupied_blocks(volume: Float[Tensor, "C J I K F+1"]) -> Bool[Tensor, "C j i k"]:
    """Blocks with a voxel above EMPTY inside or next to them, a last incomplete one included."""
    density = volume[..., 0].detach().float()
    return F.max_pool3d(density[:, None], BLOCK + 2, BLOCK, padding=1, ceil_mode=True)[:, 0] > EMPTY


@numba.njit(inline="always")
def _skipped(blocks, shape, px, py, pz):
    """Whether a point in the cube lies in an empty block."""
    half = np.float32(0.5)
    y, x = int((py + 1) * half * shape[0]) // BLOCK, int((px + 1) * half * shape[1]) // BLOCK
    return not blocks[y, x, int((pz + 1) * half * shape[2]) // BLOCK]


def _boxes(occupied: Bool[Tensor, "C j i k"], shape: torch.Size) -> Float[Tensor, "C 2 3"]:
    """Lower and upper corner (x, y, z in [-1, 1]) of the box around occupied blocks, swapped if there is none."""
    corners = []
    for axis in (2, 1, 3):
        hit = occupied.movedim(axis, 1).flatten(2).any(2)
        block = torch.arange(hit.shape[1])
        ends = torch.stack([torch.where(hit, block, len(block)).amin(1), torch.where(hit, block + 1, 0).amax(1)], 1)
        corners.append(ends * (2 * BLOCK / shape[axis]) - 1)
    return torch.stack(corners, -1).float()


@numba.njit(inline="always")
def _span(box, ox, oy, oz, dx, dy, dz, start, jitter, step, samples):
    """The samples of a ray that may lie in a box: the first one, and the one after the last."""
    if box[0, 0] > box[1, 0]:
        return 0, 0
    near, far = start, start + step * samples
    for axis, o, d in ((0, ox, dx), (1, oy, dy), (2, oz, dz)):
        inverse = 1 / (d if abs(d) > 1e-9 else np.float32(1e-9))
        a, b = (box[0, axis] - o) * inverse, (box[1, axis] - o) * inverse
        near, far = max(near, min(a, b)), min(far, max(a, b))
    if near > far:
        return 0, 0
    return max(int((near - start) / step - jitter), 0), min(int((far - start) / step - jitter) + 2, samples)


@numba.njit(inline="always")
def _softplus(x):
    return x if x > 15 else np.log1p(np.exp(x))


@numba.njit(parallel=True, cache=CACHE, boundscheck=False, fastmath=True)
def _forward(boxes, occupied, volume, origins, directions, start, jitter, out, samples, extent):
    views, rays = out.shape[:2]
    features = volume.shape[-1] - 1
    step = 2 * extent / samples
    group = views // len(volume)
    # Each thread has some rays of every view: half of the views may look at nothing.
    for task in numba.prange(views * ((rays + CHUNK - 1) // CHUNK)):
        b, begin = task % views, task // views * CHUNK
        field, blocks = volume[b // group], occupied[b // group]
        for r in range(begin, min(begin + CHUNK, rays)):
            total = out[b, r]
            total[:] = 0
            left = np.float32(1)
            ox, oy, oz = origins[b, 0] / extent, origins[b, 1] / extent, origins[b, 2] / extent
            dx, dy, dz = directions[b, r, 0] / extent, directions[b, r, 1] / extent, directions[b, r, 2] / extent
            first, end = _span(boxes[b // group], ox, oy, oz, dx, dy, dz, start[b], jitter[b, r], step, samples)
            for s in range(first, end):
                t = start[b] + (s + jitter[b, r]) * step
                px, py, pz = ox + t * dx, oy + t * dy, oz + t * dz
                if max(abs(px), abs(py), abs(pz)) >= 1 or _skipped(blocks, field.shape, px, py, pz):
                    continue
                raw, j, i, k, v, u, w = _density(field, px, py, pz)
                if raw <= EMPTY:
                    continue
                passed = np.exp(-_softplus(raw) * np.float32(SHARPNESS * step))
                here = left * (1 - passed)
                left *= passed
                total[0] += here
                if here > 1e-4:
                    for n in range(8):
                        share = here * (v if n & 1 else 1 - v) * (u if n & 2 else 1 - u) * (w if n & 4 else 1 - w)
                        values = field[j + (n & 1), i + (n >> 1 & 1), k + (n >> 2)]
                        for c in range(1, features + 1):
                            total[c] += share * values[c]
                    total[features + 1] += here * px * extent
                    total[features + 2] += here * py * extent
                    total[features + 3] += here * pz * extent
                if left < 1e-3:
                    break


@numba.njit(parallel=True, cache=CACHE, boundscheck=False, fastmath=True)
def _backward(boxes, occupied, volume, origins, directions, start, jitter, grad_out, grad, samples, extent):
    """Adds the gradient of the volume to `grad`.

    With w_i the weight of sample i, q_i the loss's derivative by it and T_{i+1} the light left behind it:
    d loss / d thickness_i = T_{i+1} q_i - sum_{j > i} w_j q_j.
    """
    views, rays = grad_out.shape[:2]
    features = volume.shape[-1] - 1
    step = 2 * extent / samples
    group = views // len(volume)
    for n in numba.prange(len(volume)):
        field, field_grad, blocks = volume[n], grad[n], occupied[n]
        times, raws = np.empty(samples, np.float32), np.empty(samples, np.float32)
        lefts = np.empty(samples + 1, np.float32)
        for b in range(n * group, (n + 1) * group):
            ox, oy, oz = origins[b, 0] / extent, origins[b, 1] / extent, origins[b, 2] / extent
            for r in range(rays):
                g = grad_out[b, r]
                dx, dy, dz = directions[b, r, 0] / extent, directions[b, r, 1] / extent, directions[b, r, 2] / extent
                used = 0
                lefts[0] = 1
                first, end = _span(boxes[n], ox, oy, oz, dx, dy, dz, start[b], jitter[b, r], step, samples)
                for s in range(first, end):
                    t = start[b] + (s + jitter[b, r]) * step
                    px, py, pz = ox + t * dx, oy + t * dy, oz + t * dz
                    if max(abs(px), abs(py), abs(pz)) >= 1 or _skipped(blocks, field.shape, px, py, pz):
                        continue
                    raw = _density(field, px, py, pz)[0]
                    if raw <= EMPTY:
                        continue
                    times[used], raws[used] = t, raw
                    lefts[used + 1] = lefts[used] * np.exp(-_softplus(raw) * np.float32(SHARPNESS * step))
                    used += 1
                    if lefts[used] < 1e-3:
                        break
                behind = np.float32(0)
                for i in range(used - 1, -1, -1):
                    t = times[i]
                    px, py, pz = ox + t * dx, oy + t * dy, oz + t * dz
                    here = lefts[i] - lefts[i + 1]
                    by_weight = g[0]
                    by_weight += (g[features + 1] * px + g[features + 2] * py + g[features + 3] * pz) * extent
                    _, y, x, z, v, u, w = _density(field, px, py, pz)
                    for m in range(8):
                        share = (v if m & 1 else 1 - v) * (u if m & 2 else 1 - u) * (w if m & 4 else 1 - w)
                        values = field[y + (m & 1), x + (m >> 1 & 1), z + (m >> 2)]
                        target = field_grad[y + (m & 1), x + (m >> 1 & 1), z + (m >> 2)]
                        dot = np.float32(0)
                        for c in range(1, features + 1):
                            dot += g[c] * values[c]
                            target[c] += share * here * g[c]
                        by_weight += share * dot
                    by_thickness = lefts[i + 1] * by_weight - behind
                    behind += here * by_weight
                    by_raw = by_thickness * np.float32(SHARPNESS * step) / (1 + np.exp(-raws[i]))
                    for m in range(8):
                        share = (v if m & 1 else 1 - v) * (u if m & 2 else 1 - u) * (w if m & 4 else 1 - w)
                        field_grad[y + (m & 1), x + (m >> 1 & 1), z + (m >> 2), 0] += share * by_raw
