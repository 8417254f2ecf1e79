"""Volumes as voxels of raw density, normal and colour, and what lies between voxels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

FULL = 10.0
"""Raw density of voxels inside things, far from their surface; minus this outside."""

_SMALL, _GRAIN, _NEAR = 0.025, 4, 5.0
"""A piece is small under this share of the largest one's voxels, and a grain under this many; what is broken is at most
this many voxels apart [m]."""

_ROD, _FALL = 6.0, 5.0
"""A rod over a gap: the raw density of its axis, and how much lower it is a voxel away [m]."""


def mended(volume: Float[Tensor, "J I K 7"]) -> Float[Tensor, "J I K 7"]:
    """A thing's volume with thin parts whole that its latent has broken, and without small pieces in the air.

    A small piece that is near to what stays is joined to it by a rod, and what is near to that piece in turn: a
    snowman's arm, the claw of a wing. Grains stay where they are near. Others go.
    """
    pieces, count = ndimage.label(volume[..., 0].detach().cpu().numpy() > 0, np.ones((3, 3, 3), bool))
    at = np.argwhere(pieces)
    name = pieces[tuple(at.T)]
    voxels = np.bincount(name, minlength=count + 1)
    stays = voxels >= max(_SMALL * voxels.max(initial=0), 1)
    if stays.sum() in (0, count):
        return volume
    body = at[stays[name]]
    gaps = _gaps({int(one): at[name == one] for one in np.flatnonzero((voxels >= _GRAIN) & ~stays)}, body)
    stays[list(gaps)] = True
    grains = ~stays[name]
    far = np.isinf(cKDTree(at[~grains]).query(at[grains], distance_upper_bound=_NEAR)[0])
    stays[name[grains][~far]] = True
    whole = volume.clone()
    if not stays[1:].all():
        # What is nearest to a piece that goes, goes with it: its fog would leave a crust.
        box = tuple(slice(low, high) for low, high in zip((at.min(0) - 2).clip(0), at.max(0) + 3, strict=True))
        nearest = ndimage.distance_transform_edt(pieces[box] == 0, return_distances=False, return_indices=True)
        crumbs = ~stays[pieces[box][tuple(nearest)]]
        whole[..., 0][box][torch.from_numpy(crumbs).to(volume.device)] = -FULL
    for start, end in gaps.values():
        _add_rod(whole, start, end)
    return whole


def _gaps(
    pieces: dict[int, Int[np.ndarray, "V 3"]], body: Int[np.ndarray, "V 3"]
) -> dict[int, tuple[Int[np.ndarray, "3"], Int[np.ndarray, "3"]]]:
    """For each piece near to the body, or near to a piece that is: two voxels with its narrowest gap between them."""
    found: dict[int, tuple[float, Int[np.ndarray, "3"], Int[np.ndarray, "3"]]] = {}
    joined: dict[int, tuple[Int[np.ndarray, "3"], Int[np.ndarray, "3"]]] = {}
    new = body
    while True:
        tree = cKDTree(new)
        for name, own in pieces.items():
            if name not in joined:
                distance, index = tree.query(own)
                ends = np.flatnonzero(distance == distance.min())
                best = ends[np.linalg.norm(own[ends] - own[ends].mean(0), axis=1).argmin()]  # in the middle of them
                if name not in found or distance[best] < found[name][0]:
                    found[name] = (float(distance[best]), own[best], new[index[best]])
        near = [name for name in found if name not in joined and found[name][0] <= _NEAR]
        if not near:
            return joined
        name = min(near, key=lambda one: found[one][0])
        joined[name], new = found[name][1:], pieces[name]


def _add_rod(volume: Float[Tensor, "J I K 7"], start: Int[np.ndarray, "3"], end: Int[np.ndarray, "3"]) -> None:
    """Fill the gap between two solid voxels; normals and colours are those of the nearer one."""
    low, high = np.minimum(start, end) - 2, np.maximum(start, end) + 3
    low, high = low.clip(0), np.minimum(high, volume.shape[:3])
    box = volume[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    at = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), -1)
    way = end - start
    share = ((at - start) @ way / (way @ way)).clip(0, 1)
    distance = np.linalg.norm(at - start - share[..., None] * way, axis=-1)
    density = torch.from_numpy(_ROD - _FALL * distance).to(volume)
    ends = volume[tuple(start)], volume[tuple(end)]
    looks = torch.where(torch.from_numpy(share < 0.5).to(volume.device)[..., None], ends[0][1:], ends[1][1:])
    new = (box[..., 0] <= 0) & (density > box[..., 0])
    box[..., 1:][new] = looks[new]
    box[..., 0][new] = density[new]


def weighted(volume: Float[Tensor, "J I K 7"]) -> Float[Tensor, "1 8 J I K"]:
    """Raw density, a weight, and normal and colour times the weight: between a voxel that is there and one that is not,
    normal and colour are those of the one that is."""
    parts = volume[None].movedim(-1, 1)
    weight = F.softplus(parts[:, :1]).clamp(1e-4, 1)
    return torch.cat([parts[:, :1], weight, weight * parts[:, 1:]], 1)


def sampled(parts: Float[Tensor, "1 8 J I K"], grid: Float[Tensor, "j i k 3"]) -> Float[Tensor, "j i k 7"]:
    """`weighted` voxels at places of the cube, -1 to 1 along z, x and y: raw density, normal and colour again."""
    found = F.grid_sample(parts, grid[None], padding_mode="border", align_corners=False)[0].movedim(0, -1)
    return torch.cat([found[..., :1], found[..., 2:] / found[..., 1:2].clamp(min=1e-6)], -1)
