"""Ray marching through an occupancy grid, and compositing of the packed samples: PyTorch references, numba kernels.

Packed means: the samples of ray r are rows offsets[r] to offsets[r + 1], front to back, with no padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from magic3d_cli.kernels import NUMBA_LOCK
from magic3d_cli.kernels.numba_cache import CACHE


@dataclass(frozen=True)
class Samples:
    """N packed samples of R rays."""

    points: Float[Tensor, "N 3"]  # world
    ray: Int[Tensor, "N"]  # int64, ascending
    t: Float[Tensor, "N"]  # distance from the ray's origin
    delta: Float[Tensor, "N"]  # length of ray that each sample stands for
    offsets: Int[Tensor, "R+1"]  # int64

    def __len__(self) -> int:
        return self.t.shape[0]

    def select(self, keep: Bool[Tensor, "N"]) -> Samples:
        """The samples where `keep`, still packed."""
        before = torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.long().cumsum(0)])
        return Samples(self.points[keep], self.ray[keep], self.t[keep], self.delta[keep], before[self.offsets])


def lattice_points(step: float) -> int:
    """How many points `step` apart lie on a ray through [-1, 1]^3, at most: as many as on its diagonal."""
    return int(2 * 3**0.5 / step) + 2


def march_numba(
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    occupancy: Bool[Tensor, "G G G"],
    step: float,
    jitter: Float[Tensor, "R"],
) -> Samples:
    """The reference's samples by numba, on the CPU."""
    o, d, cells, shift = (x.detach().contiguous().numpy() for x in (origins, directions, occupancy, jitter))
    counts = np.empty(len(origins), dtype=np.int64)
    lattice = np.empty((len(origins), lattice_points(step)), dtype=np.int32)
    with NUMBA_LOCK:
        _march_find(o, d, cells, shift, _occupied_box(cells), np.float32(step), counts, lattice)
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
        points = np.empty((offsets[-1], 3), dtype=np.float32)
        ray, t = np.empty(offsets[-1], dtype=np.int64), np.empty(offsets[-1], dtype=np.float32)
        _march_fill(o, d, shift, np.float32(step), offsets, lattice, points, ray, t)
    t_tensor = torch.from_numpy(t)
    return Samples(
        torch.from_numpy(points),
        torch.from_numpy(ray),
        t_tensor,
        torch.full_like(t_tensor, step),
        torch.from_numpy(offsets),
    )


def march_reference(
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    occupancy: Bool[Tensor, "G G G"],
    step: float,
    jitter: Float[Tensor, "R"],
) -> Samples:
    """Samples at t = entry + (k + jitter) step, wherever they lie in an occupied cell of [-1, 1]^3.

    Plain PyTorch, on any device: all lattice points of the box, then the occupied ones.

    Args:
        origins, directions: world space; directions of unit length, so that t and `step` are world distances.
        occupancy: indexed [x, y, z].
        jitter: in [0, 1), one for each ray.
    """
    size = occupancy.shape[0]
    inverse = 1 / _away_from_zero(directions)
    low, high = (-1 - origins) * inverse, (1 - origins) * inverse
    entry = torch.minimum(low, high).amax(-1).clamp(min=0)
    leave = torch.maximum(low, high).amin(-1)
    most = int(torch.ceil((leave - entry).amax().clamp(min=0) / step).item()) + 1
    k = torch.arange(most, device=origins.device, dtype=torch.float32)
    t = entry[:, None] + (k + jitter[:, None]) * step  # R K
    points = origins[:, None] + t[..., None] * directions[:, None]
    cell = ((points + 1) * (0.5 * size)).long().clamp(0, size - 1)
    keep = (t < leave[:, None]) & occupancy[cell.unbind(-1)]
    ray = keep.nonzero()[:, 0]
    offsets = torch.cat([ray.new_zeros(1), keep.sum(1).cumsum(0)])
    return Samples(points[keep], ray, t[keep], torch.full_like(t[keep], step), offsets)


def _away_from_zero(directions: Tensor) -> Tensor:
    return torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)


def _occupied_box(occupancy: np.ndarray) -> np.ndarray:
    """Lowest and highest corner of the box around all occupied cells, a hair larger: [2, 3], world."""
    box = np.empty((2, 3), dtype=np.float32)
    for axis in range(3):
        others = tuple({0, 1, 2} - {axis})
        filled = np.flatnonzero(occupancy.any(axis=others))
        low, high = (filled[0], filled[-1] + 1) if len(filled) else (0, 0)
        box[:, axis] = np.array([low, high]) / len(occupancy) * 2 - 1
    return box + np.array([[-1e-3], [1e-3]], dtype=np.float32)


@numba.njit(inline="always")
def _span(origin, direction, box):
    """Where a ray enters and leaves a box; entry > leave if it misses."""
    entry, leave = np.float32(0), np.float32(np.inf)
    for axis in range(3):
        slope = direction[axis]
        if abs(slope) < np.float32(1e-9):
            slope = np.float32(1e-9)
        inverse = np.float32(1) / slope
        a, b = (box[0, axis] - origin[axis]) * inverse, (box[1, axis] - origin[axis]) * inverse
        entry, leave = max(entry, min(a, b)), min(leave, max(a, b))
    return entry, leave


@numba.njit(inline="always")
def _cell(value, scale, last):
    return min(max(np.int32((value + np.float32(1)) * scale), np.int32(0)), last)


_SCENE = np.array([[-1.0] * 3, [1.0] * 3], dtype=np.float32)


@numba.njit(parallel=True, cache=CACHE, boundscheck=False)
def _march_find(origins, directions, occupancy, jitter, box, step, counts, lattice):
    """How many lattice points of each ray are occupied, and which; only the occupied box is searched."""
    scale, last = np.float32(0.5) * np.float32(len(occupancy)), np.int32(len(occupancy) - 1)
    for r in numba.prange(len(origins)):
        entry, leave = _span(origins[r], directions[r], _SCENE)
        near, far = _span(origins[r], directions[r], box)
        ox, oy, oz = origins[r, 0], origins[r, 1], origins[r, 2]
        dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
        count = 0
        if near < far and entry < leave:
            stop = min(leave, far)
            k = max(int((near - entry) / step) - 1, 0)
            t = entry + (np.float32(k) + jitter[r]) * step
            while t < stop and k < lattice.shape[1]:
                x = _cell(ox + t * dx, scale, last)
                y = _cell(oy + t * dy, scale, last)
                z = _cell(oz + t * dz, scale, last)
                lattice[r, count] = k
                count += occupancy[x, y, z]
                k += 1
                t = entry + (np.float32(k) + jitter[r]) * step
        counts[r] = count


@numba.njit(parallel=True, cache=CACHE, boundscheck=False)
def _march_fill(origins, directions, jitter, step, offsets, lattice, points, ray, depth):
    for r in numba.prange(len(origins)):
        entry, _ = _span(origins[r], directions[r], _SCENE)
        for n in range(offsets[r], offsets[r + 1]):
            t = entry + (np.float32(lattice[r, n - offsets[r]]) + jitter[r]) * step
            for axis in range(3):
                points[n, axis] = origins[r, axis] + t * directions[r, axis]
            ray[n], depth[n] = r, t


def composite_reference(
    density: Float[Tensor, "N"],
    values: Float[Tensor, "N C"],
    delta: Float[Tensor, "N"],
    offsets: Int[Tensor, "R+1"],
) -> tuple[Float[Tensor, "R C"], Float[Tensor, "R"], Float[Tensor, "N"]]:
    """Sum of weights x values, opacity and weights (NeRF, arXiv 2003.08934, eq. 3). Plain PyTorch, on any device.

    weight_i = T_i (1 - exp(-density_i delta_i)) with T_i the transmittance in front of sample i.
    Differentiable in `density` and `values`. Rays without samples give zeros.
    """
    rays = len(offsets) - 1
    ray = torch.repeat_interleave(torch.arange(rays, device=offsets.device), offsets.diff())
    weights = transmittance(density, delta, offsets) * -torch.expm1(-density * delta)
    out = values.new_zeros(rays, values.shape[1]).index_add(0, ray, weights[:, None] * values)
    opacity = values.new_zeros(rays).index_add(0, ray, weights)
    return out, opacity, weights


def transmittance(
    density: Float[Tensor, "N"], delta: Float[Tensor, "N"], offsets: Int[Tensor, "R+1"]
) -> Float[Tensor, "N"]:
    """Fraction of light that reaches each sample past those in front of it. Plain PyTorch, differentiable."""
    optical = (density * delta).double()
    # Running sums over all rays are differenced, which would cost single precision its digits.
    before = torch.cat([optical.new_zeros(1), optical.cumsum(0)])
    start = torch.repeat_interleave(before[offsets[:-1]], offsets.diff())
    return torch.exp(start - before[:-1]).to(density.dtype)


def composite_numba(
    density: Float[Tensor, "N"],
    values: Float[Tensor, "N C"],
    delta: Float[Tensor, "N"],
    offsets: Int[Tensor, "R+1"],
) -> tuple[Float[Tensor, "R C"], Float[Tensor, "R"], Float[Tensor, "N"]]:
    """The reference's result by numba, for float32 on the CPU."""
    return _Composite.apply(density, values, delta, offsets)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density: Tensor, values: Tensor, delta: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        density, values = density.detach().contiguous(), values.detach().contiguous()
        rays = len(offsets) - 1
        out, opacity = torch.empty(rays, values.shape[1]), torch.empty(rays)
        weights = torch.empty_like(density)
        with NUMBA_LOCK:
            _composite(*(x.numpy() for x in (density, values, delta, offsets, out, opacity, weights)))
        ctx.save_for_backward(density, values, delta, offsets, weights)
        return out, opacity, weights

    @staticmethod
    def backward(
        ctx, grad_out: Tensor, grad_opacity: Tensor, grad_weights: Tensor
    ) -> tuple[Tensor, Tensor, None, None]:
        density, values, delta, offsets, weights = ctx.saved_tensors
        grad_density, grad_values = torch.empty_like(density), torch.empty_like(values)
        inputs = (density, values, delta, offsets, weights)
        grads = tuple(g.contiguous() for g in (grad_out, grad_opacity, grad_weights))
        with NUMBA_LOCK:
            _composite_backward(*(x.numpy() for x in (*inputs, *grads, grad_density, grad_values)))
        return grad_density, grad_values, None, None


@numba.njit(parallel=True, cache=CACHE, boundscheck=False)
def _composite(density, values, delta, offsets, out, opacity, weights):
    channels = values.shape[1]
    for r in numba.prange(len(opacity)):
        transmittance, total = np.float32(1), np.float32(0)
        for c in range(channels):
            out[r, c] = 0
        for n in range(offsets[r], offsets[r + 1]):
            passed = np.exp(-density[n] * delta[n])
            weight = transmittance * (np.float32(1) - passed)
            transmittance *= passed
            weights[n] = weight
            total += weight
            for c in range(channels):
                out[r, c] += weight * values[n, c]
        opacity[r] = total


@numba.njit(parallel=True, cache=CACHE, boundscheck=False)
def _composite_backward(
    density, values, delta, offsets, weights, grad_out, grad_opacity, grad_weights, grad_density, grad_values
):
    """With G_i the loss's derivative by weight_i:

    d loss / d (density_i delta_i) = T_{i+1} G_i - sum_{j > i} weight_j G_j, summed from the back.
    """
    channels = values.shape[1]
    for r in numba.prange(len(offsets) - 1):
        transmittance = np.float32(1)
        for n in range(offsets[r], offsets[r + 1]):
            transmittance *= np.exp(-density[n] * delta[n])
            grad_density[n] = transmittance  # T_{i+1}, until the way back replaces it
        behind = np.float32(0)
        for n in range(offsets[r + 1] - 1, offsets[r] - 1, -1):
            by_weight = grad_opacity[r] + grad_weights[n]
            for c in range(channels):
                by_weight += grad_out[r, c] * values[n, c]
                grad_values[n, c] = weights[n] * grad_out[r, c]
            grad_density[n] = (grad_density[n] * by_weight - behind) * delta[n]
            behind += weights[n] * by_weight
