"""Bake a colour field into a texture: texel centre -> position on the surface -> colour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from magic3d_cli.asset.uv_raster import Ownership

Albedo = Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N 3"]]
"""World positions to display-referred colours in [0, 1]."""

CHUNK = 1 << 16


def bake(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    ownership: Ownership,
    uvs: Float[np.ndarray, "V 2"],
    albedo: Albedo,
    device: torch.device | str = "cpu",
) -> UInt8[np.ndarray, "H W 3"]:
    """The texture of a mesh, every texel filled.

    Args:
        vertices: positions at which `albedo` is evaluated, world units.
        faces: indices into `vertices`.
        ownership: which face each texel shows.
        uvs: texture coordinates in [0, 1], origin top left; used for faces too small to own a texel.
        albedo: the colour field; called without gradients on at most 65,536 points at a time.
        device: where `albedo` wants its points.
    """
    owner, weights = ownership.owner.copy(), ownership.weights.copy()
    _lend_texels(owner, weights, ownership, uvs[faces])
    rows, columns = np.nonzero(owner >= 0)
    corners = vertices[faces[owner[rows, columns]]]
    points = np.einsum("nk,nkc->nc", weights[rows, columns].astype(np.float64), corners)
    texture = np.zeros((*owner.shape, 3), np.uint8)
    texture[rows, columns] = to_bytes(evaluate(albedo, points, device))
    return fill_gutters(texture, owner >= 0)


def evaluate(
    albedo: Albedo, points: Float[np.ndarray, "N 3"], device: torch.device | str = "cpu"
) -> Float[np.ndarray, "N 3"]:
    """`albedo` at many points, in chunks."""
    with torch.no_grad():
        parts = [
            albedo(torch.from_numpy(points[i : i + CHUNK].astype(np.float32)).to(device)).float().cpu().numpy()
            for i in range(0, len(points), CHUNK)
        ]
    return np.concatenate(parts) if parts else np.zeros((0, 3), np.float32)


def to_bytes(colour: Float[np.ndarray, "*d"]) -> UInt8[np.ndarray, "*d"]:
    """[0, 1] to 0..255, rounded: truncation would darken every texture by half a step."""
    return np.rint(np.clip(colour, 0, 1) * 255).astype(np.uint8)


def _lend_texels(
    owner: Int[np.ndarray, "H W"],
    weights: Float[np.ndarray, "H W 3"],
    ownership: Ownership,
    corners: Float[np.ndarray, "F 3 2"],
) -> None:
    """Give each face without a texel centre the texel at its centroid, unless another face has it."""
    small = np.flatnonzero(ownership.texels == 0)
    size = np.array(owner.shape[::-1])
    column, row = np.clip((corners[small].mean(1) * size).astype(int), 0, size - 1).T
    free = ownership.distance[row, column] > 0
    owner[row[free], column[free]] = small[free]
    weights[row[free], column[free]] = 1 / 3


def fill_gutters(texture: UInt8[np.ndarray, "H W 3"], known: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    """Each unknown texel takes the nearest known one's colour; mipmaps then blend charts with themselves."""
    if not known.any():
        return texture
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return texture[tuple(nearest)]
