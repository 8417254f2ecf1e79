"""Multi-resolution hash encoding (Instant-NGP, arXiv 2201.05989, section 3): PyTorch reference and numba kernel."""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.kernels import NUMBA_LOCK
from magic3d_cli.kernels.numba_cache import CACHE

_PRIME_Y, _PRIME_Z = 2654435761, 805459861  # [Instant-NGP, section 3]; the first prime is 1


def level_resolutions(levels: int, base: int, finest: int) -> tuple[int, ...]:
    """Cells per side of each level: geometric growth from `base` to `finest` [Instant-NGP, eq. 2-3]."""
    growth = (finest / base) ** (1 / max(levels - 1, 1))
    # The small constant keeps rounding from turning `finest` into `finest - 1`.
    return tuple(int(base * growth**level + 1e-6) for level in range(levels))


def check_table(table: Float[Tensor, "L T F"], resolutions: tuple[int, ...]) -> None:
    """Raises ValueError where a table has not a power of two of entries for each level."""
    levels, size, _ = table.shape
    if levels != len(resolutions) or size & (size - 1):
        raise ValueError(f"table {tuple(table.shape)} must be {len(resolutions)} levels of 2^k entries")


def hash_encode_reference(
    points: Float[Tensor, "N 3"], table: Float[Tensor, "L T F"], resolutions: tuple[int, ...]
) -> Float[Tensor, "N L*F"]:
    """Trilinearly interpolated features of all levels, level-major: column l F + f. Plain PyTorch, on any device.

    Args:
        points: in [0, 1]^3; outside they are clamped.
        table: T entries a level, T a power of two. Levels whose (resolution + 1)^3 vertices fit are dense,
            the others hashed.
        resolutions: cells per side of each level.

    Differentiable in `table`, and here in `points` too. Raises ValueError for a table of another shape.
    """
    check_table(table, resolutions)
    features = []
    for level, resolution in enumerate(resolutions):
        scaled = points.clamp(0, 1) * resolution
        cell = scaled.detach().floor().clamp(max=resolution - 1)
        fraction = scaled - cell  # N 3
        corner = torch.stack(torch.meshgrid(*[torch.arange(2, device=points.device)] * 3, indexing="ij"), -1)
        corner = corner.view(1, 8, 3)
        weight = torch.where(corner == 1, fraction[:, None], 1 - fraction[:, None]).prod(-1)  # N 8
        index = _index_reference(cell.long()[:, None] + corner, resolution, table.shape[1])
        features.append((table[level, index] * weight[..., None]).sum(1))
    return torch.cat(features, -1)


def _index_reference(vertex: Int[Tensor, "*n 3"], resolution: int, size: int) -> Int[Tensor, "*n"]:
    x, y, z = vertex.unbind(-1)
    side = resolution + 1
    if side**3 <= size:
        return x + side * (y + side * z)
    return (x ^ (y * _PRIME_Y) ^ (z * _PRIME_Z)) & (size - 1)


def hash_encode_numba(
    points: Float[Tensor, "N 3"],
    table: Float[Tensor, "L T F"],
    resolutions: tuple[int, ...],
    known: Float[Tensor, "N L*F"] | None = None,
) -> Float[Tensor, "N L*F"]:
    """The reference's features by numba, for float32 on the CPU; differentiable in `table` only.

    `known`: the result, where it has been computed before without gradient: only the gradient is added.
    Bit-deterministic for any number of threads.
    """
    return _HashEncode.apply(points, table, resolutions, known)


class _HashEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points: Tensor, table: Tensor, resolutions: tuple[int, ...], known: Tensor | None) -> Tensor:
        points = points.detach().contiguous()
        ctx.save_for_backward(points)
        ctx.table_shape, ctx.resolutions = table.shape, np.asarray(resolutions, dtype=np.int64)
        if known is not None:
            return known.view_as(known)
        levels, _, width = table.shape
        features = torch.empty(len(points), levels * width)
        with NUMBA_LOCK:
            _encode(points.numpy(), table.detach().contiguous().numpy(), ctx.resolutions, features.numpy())
        return features

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, Tensor, None, None]:
        (points,) = ctx.saved_tensors
        table_grad = torch.zeros(ctx.table_shape)
        with NUMBA_LOCK:
            _encode_backward(points.numpy(), grad.contiguous().numpy(), ctx.resolutions, table_grad.numpy())
        return None, table_grad, None, None


@numba.njit(inline="always")
def _locate(value, resolution):
    """Cell along one axis and the position inside it."""
    scaled = min(max(value, np.float32(0)), np.float32(1)) * np.float32(resolution)
    cell = min(np.uint32(scaled), np.uint32(resolution - 1))
    return cell, scaled - np.float32(cell)


@numba.njit(inline="always")
def _axis_terms(cell, stride, prime, dense):
    """What the two vertices of a cell contribute to the index along one axis."""
    factor = stride if dense else prime
    return np.uint32(cell * factor), np.uint32((cell + np.uint32(1)) * factor)


@numba.njit(inline="always")
def _combine(x, y, z, dense, mask):
    return (x + y + z) if dense else (x ^ y ^ z) & mask


_BLOCK = 2048  # points: a block's features stay in the second-level cache while levels write their columns


@numba.njit(parallel=True, cache=CACHE, boundscheck=False)
def _encode(points, table, resolutions, out):
    """Parallel over blocks of points; each point is written by one thread only."""
    levels, size, width = table.shape
    count = len(points)
    mask = np.uint32(size - 1)
    for block in numba.prange((count + _BLOCK - 1) // _BLOCK):
        for level in range(levels):
            resolution = resolutions[level]
            side = resolution + 1
            dense = side * side * side <= size
            one, row, slab = np.uint32(1), np.uint32(side), np.uint32(side * side)
            for n in range(block * _BLOCK, min((block + 1) * _BLOCK, count)):
                cx, fx = _locate(points[n, 0], resolution)
                cy, fy = _locate(points[n, 1], resolution)
                cz, fz = _locate(points[n, 2], resolution)
                x0, x1 = _axis_terms(cx, one, one, dense)
                y0, y1 = _axis_terms(cy, row, np.uint32(_PRIME_Y), dense)
                z0, z1 = _axis_terms(cz, slab, np.uint32(_PRIME_Z), dense)
                gx, gy, gz = np.float32(1) - fx, np.float32(1) - fy, np.float32(1) - fz
                i000, i001 = _combine(x0, y0, z0, dense, mask), _combine(x0, y0, z1, dense, mask)
                i010, i011 = _combine(x0, y1, z0, dense, mask), _combine(x0, y1, z1, dense, mask)
                i100, i101 = _combine(x1, y0, z0, dense, mask), _combine(x1, y0, z1, dense, mask)
                i110, i111 = _combine(x1, y1, z0, dense, mask), _combine(x1, y1, z1, dense, mask)
                w00, w01, w10, w11 = gx * gy, gx * fy, fx * gy, fx * fy
                for f in range(width):
                    near = table[level, i000, f] * w00 + table[level, i010, f] * w01
                    near += table[level, i100, f] * w10 + table[level, i110, f] * w11
                    far = table[level, i001, f] * w00 + table[level, i011, f] * w01
                    far += table[level, i101, f] * w10 + table[level, i111, f] * w11
                    out[n, level * width + f] = near * gz + far * fz


@numba.njit(parallel=True, cache=CACHE, boundscheck=False)
def _encode_backward(points, grad, resolutions, table_grad):
    """Parallel over levels: one thread owns a level's entries: no atomics, a fixed order of summation."""
    levels, size, width = table_grad.shape
    mask = np.uint32(size - 1)
    for level in numba.prange(levels):
        resolution = resolutions[level]
        side = resolution + 1
        dense = side * side * side <= size
        one, row, slab = np.uint32(1), np.uint32(side), np.uint32(side * side)
        for n in range(len(points)):
            cx, fx = _locate(points[n, 0], resolution)
            cy, fy = _locate(points[n, 1], resolution)
            cz, fz = _locate(points[n, 2], resolution)
            x0, x1 = _axis_terms(cx, one, one, dense)
            y0, y1 = _axis_terms(cy, row, np.uint32(_PRIME_Y), dense)
            z0, z1 = _axis_terms(cz, slab, np.uint32(_PRIME_Z), dense)
            gx, gy, gz = np.float32(1) - fx, np.float32(1) - fy, np.float32(1) - fz
            i000, i001 = _combine(x0, y0, z0, dense, mask), _combine(x0, y0, z1, dense, mask)
            i010, i011 = _combine(x0, y1, z0, dense, mask), _combine(x0, y1, z1, dense, mask)
            i100, i101 = _combine(x1, y0, z0, dense, mask), _combine(x1, y0, z1, dense, mask)
            i110, i111 = _combine(x1, y1, z0, dense, mask), _combine(x1, y1, z1, dense, mask)
            w00, w01, w10, w11 = gx * gy, gx * fy, fx * gy, fx * fy
            for f in range(width):
                near = grad[n, level * width + f] * gz
                far = grad[n, level * width + f] * fz
                table_grad[level, i000, f] += near * w00
                table_grad[level, i010, f] += near * w01
                table_grad[level, i100, f] += near * w10
                table_grad[level, i110, f] += near * w11
                table_grad[level, i001, f] += far * w00
                table_grad[level, i011, f] += far * w01
                table_grad[level, i101, f] += far * w10
                table_grad[level, i111, f] += far * w11
