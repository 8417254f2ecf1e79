"""Which triangle each pixel sees: the one part of the mesh renderer that tensor code cannot do well.

Coverage is decided as graphics hardware does it: vertices are snapped to 1/256 pixel, edge functions are
exact integers, and a pixel centre on an edge belongs to the triangle that has it as a top or left edge, so
that two triangles sharing an edge neither both cover a pixel nor both miss it. Depth is quantised to integers
too and ties go to the lower index; hence the numba and CUDA kernels and the reference return the very same ids.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from magic3d_cli.kernels import NUMBA_LOCK
from magic3d_cli.kernels.numba_cache import CACHE

SUBPIXEL = 256
"""Vertex positions are rounded to this fraction of a pixel."""
BACKGROUND = torch.iinfo(torch.int64).max
"""Where depth and id are packed into one number: no triangle."""

_REACH = 1 << 24  # subpixels; keeps products of two coordinate differences within int64
_DEPTH_STEPS = 1 << 30
_ID_BITS = 31
_BANDS = 4  # horizontal strips of an image that threads work on independently
_PAIRS = 1 << 22  # triangle-pixel pairs the reference holds at once


def rasterize_numba(clip: Float[Tensor, "B V 4"], faces: Int[Tensor, "F 3"], size: int) -> Int[Tensor, "B H W"]:
    """The reference's ids by numba, on the CPU."""
    xy, depth, usable = to_screen(clip.detach(), size)
    ids = np.empty((clip.shape[0], size, size), np.int32)
    with NUMBA_LOCK:
        _zbuffer(xy.numpy(), depth.numpy(), usable.numpy(), faces.long().numpy(), ids)
    return torch.from_numpy(ids)


def to_screen(
    clip: Float[Tensor, "B V 4"], size: int
) -> tuple[Int[Tensor, "B V 2"], Float[Tensor, "B V"], Bool[Tensor, "B V"]]:
    """Snapped coordinates in 1/256 pixel (y down), depth in [-1, 1], and which vertices can be drawn at all."""
    clip = clip.double()
    w = clip[..., 3]
    in_front = w > 1e-6
    safe = torch.where(in_front, w, torch.ones_like(w))
    x = (clip[..., 0] / safe * 0.5 + 0.5) * (size * SUBPIXEL)
    y = (0.5 - clip[..., 1] / safe * 0.5) * (size * SUBPIXEL)
    usable = in_front & (x.abs() < _REACH) & (y.abs() < _REACH)  # also false for NaN
    xy = torch.stack([x, y], -1).where(usable[..., None], torch.zeros((), dtype=x.dtype, device=x.device))
    return xy.round().long().contiguous(), (clip[..., 2] / safe).contiguous(), usable.contiguous()


@numba.njit(parallel=True, cache=CACHE)
def _zbuffer(xy: Any, depth: Any, usable: Any, faces: Any, ids: Any) -> None:  # pragma: no cover - compiled
    images, size = ids.shape[0], ids.shape[1]
    for task in numba.prange(images * _BANDS):
        b, band = task // _BANDS, task % _BANDS
        top, bottom = band * size // _BANDS, (band + 1) * size // _BANDS
        nearest = np.full((bottom - top, size), np.iinfo(np.int64).max, np.int64)
        ids[b, top:bottom] = -1
        for f in range(faces.shape[0]):
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            if not (usable[b, i] and usable[b, j] and usable[b, k]):
                continue
            y0, y1, y2 = xy[b, i, 1], xy[b, j, 1], xy[b, k, 1]
            # Pixel centres lie at (n + 1/2) * SUBPIXEL: first and last row that can be covered.
            low = max(top, (min(y0, y1, y2) + SUBPIXEL // 2 - 1) // SUBPIXEL)
            high = min(bottom - 1, (max(y0, y1, y2) - SUBPIXEL // 2) // SUBPIXEL)
            if low > high:
                continue
            x0, x1, x2 = xy[b, i, 0], xy[b, j, 0], xy[b, k, 0]
            left = max(0, (min(x0, x1, x2) + SUBPIXEL // 2 - 1) // SUBPIXEL)
            right = min(size - 1, (max(x0, x1, x2) - SUBPIXEL // 2) // SUBPIXEL)
            area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
            if left > right or area == 0:
                continue
            z0, z1, z2 = depth[b, i], depth[b, j], depth[b, k]
            if area < 0:
                x1, x2, y1, y2, z1, z2, area = x2, x1, y2, y1, z2, z1, -area
            own0 = _owns(x2 - x1, y2 - y1)
            own1 = _owns(x0 - x2, y0 - y2)
            own2 = _owns(x1 - x0, y1 - y0)
            for row in range(low, high + 1):
                py = row * SUBPIXEL + SUBPIXEL // 2
                for column in range(left, right + 1):
                    px = column * SUBPIXEL + SUBPIXEL // 2
                    e0 = (x2 - x1) * (py - y1) - (y2 - y1) * (px - x1)
                    e1 = (x0 - x2) * (py - y2) - (y0 - y2) * (px - x2)
                    e2 = (x1 - x0) * (py - y0) - (y1 - y0) * (px - x0)
                    if e0 + own0 <= 0 or e1 + own1 <= 0 or e2 + own2 <= 0:
                        continue
                    z = (e0 * z0 + e1 * z1 + e2 * z2) / area
                    if z < -1.0 or z > 1.0:
                        continue
                    key = np.int64((z + 1.0) * 0.5 * _DEPTH_STEPS)
                    if key < nearest[row - top, column]:
                        nearest[row - top, column] = key
                        ids[b, row, column] = f


@numba.njit(inline="always")
def _owns(dx: int, dy: int) -> int:  # pragma: no cover - compiled
    """1 if a triangle of positive area (y down) owns the points on this edge: a top or a left edge."""
    return 1 if (dy < 0 or (dy == 0 and dx > 0)) else 0


def rasterize_reference(clip: Float[Tensor, "B V 4"], faces: Int[Tensor, "F 3"], size: int) -> Int[Tensor, "B H W"]:
    """Index of the nearest triangle at every pixel centre of square images; -1 where there is none.

    Plain PyTorch, on any device: tests every pixel of every triangle's bounding box. A minimum over (depth, id)
    packed into one integer makes the result independent of order.

    Args:
        clip: vertices in OpenGL clip space (y up, visible depth in [-w, w]). No gradient flows through here.
        faces: vertex indices; either winding is drawn.
        size: pixels per side; row 0 is the top, clip y = +w.

    Returns:
        int32 ids. Triangles with a vertex at or behind the camera (w <= 0) are skipped, not clipped: this
        program's cameras stay outside the scene.
    """
    xy, depth, usable = to_screen(clip.detach(), size)
    return torch.stack([_reference_image(xy[b], depth[b], usable[b], faces, size) for b in range(len(clip))])


def _reference_image(xy: Tensor, depth: Tensor, usable: Tensor, faces: Tensor, size: int) -> Tensor:
    faces = faces.long()
    corner, z = xy[faces], depth[faces]  # [F, 3, 2], [F, 3]
    edge1, edge2 = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    area = edge1[:, 0] * edge2[:, 1] - edge2[:, 0] * edge1[:, 1]
    mirrored = (area < 0)[:, None]
    swap = torch.tensor([0, 2, 1], device=xy.device)
    corner = torch.where(mirrored[..., None], corner[:, swap], corner)
    z, area = torch.where(mirrored, z[:, swap], z), area.abs()
    half = SUBPIXEL // 2
    low = ((corner.amin(1) + half - 1).div(SUBPIXEL, rounding_mode="floor")).clamp(min=0)  # [F, 2]
    high = ((corner.amax(1) - half).div(SUBPIXEL, rounding_mode="floor")).clamp(max=size - 1)
    extent = (high - low + 1).clamp(min=0)
    pixels = extent.prod(1) * (usable[faces].all(1) & (area > 0))

    key = torch.full((size * size,), BACKGROUND, device=xy.device)
    total = pixels.cumsum(0)
    start = 0
    while start < len(faces):
        done = int(total[start - 1]) if start else 0
        stop = max(start + 1, int(torch.searchsorted(total, done + _PAIRS)))
        count = pixels[start:stop]
        face = torch.repeat_interleave(torch.arange(start, stop, device=xy.device), count)
        rank = torch.arange(len(face), device=xy.device) - (total[face] - pixels[face] - done)
        column = low[face, 0] + rank % extent[face, 0]
        row = low[face, 1] + rank.div(extent[face, 0], rounding_mode="floor")
        centre = torch.stack([column, row], 1) * SUBPIXEL + half
        inside = torch.ones_like(face, dtype=torch.bool)
        weighted = torch.zeros(len(face), dtype=torch.float64, device=xy.device)
        for i in range(3):
            a, b = corner[face, (i + 1) % 3], corner[face, (i + 2) % 3]
            dx, dy = (b - a).unbind(1)
            side = dx * (centre[:, 1] - a[:, 1]) - dy * (centre[:, 0] - a[:, 0])
            owns = (dy < 0) | ((dy == 0) & (dx > 0))
            inside &= side + owns.long() > 0
            weighted = weighted + side * z[face, i]
        value = weighted / area[face]
        inside &= (value >= -1) & (value <= 1)
        packed = ((value[inside] + 1) * 0.5 * _DEPTH_STEPS).long() << _ID_BITS | face[inside]
        key.scatter_reduce_(0, (row * size + column)[inside], packed, "amin")
        start = stop
    return triangle_ids(key).view(size, size)


def triangle_ids(nearest: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """The int32 ids in numbers that hold depth and id, -1 for BACKGROUND."""
    return torch.where(nearest == BACKGROUND, -1, nearest & ((1 << _ID_BITS) - 1)).int()
