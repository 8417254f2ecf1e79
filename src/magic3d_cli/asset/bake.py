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
AT_ONCE = 1 << 21
"""Texels; a texture of 1024 pixels is painted at once, one of 8192 in memory for a thirtieth of it."""


class Texels:
    """The texels that show a surface, and where on it each lies.

    Args:
        faces: indices of vertices.
        ownership: which face each texel shows.
        uvs: texture coordinates in [0, 1], origin top left; used for faces too small to own a texel.
    """

    def __init__(self, faces: Int[np.ndarray, "F 3"], ownership: Ownership, uvs: Float[np.ndarray, "V 2"]) -> None:
        owner, weights = ownership.owner.copy(), ownership.weights.copy()
        _lend_texels(owner, weights, ownership, uvs[faces])
        self._faces = faces
        self._known = owner >= 0
        self._owner: Int[np.ndarray, "N"] = owner[self._known]
        self._weights: Float[np.ndarray, "N 3"] = weights[self._known]

    def image(
        self, paint: Callable[..., UInt8[np.ndarray, "M C"]], *values: Float[np.ndarray, "V K"]
    ) -> UInt8[np.ndarray, "H W C"]:
        """A texture, every texel filled.

        Args:
            paint: the values of some texels, at most AT_ONCE, from what they have.
            values: what the vertices have, of which the texels get what lies between them.
        """
        parts = []
        for first in range(0, max(len(self._owner), 1), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            corners, weights = self._faces[self._owner[some]], self._weights[some].astype(np.float64)
            parts.append(paint(*(np.einsum("nk,nkc->nc", weights, value[corners]) for value in values)))
        image = np.zeros((*self._known.shape, parts[0].shape[1]), np.uint8)
        image[self._known] = np.concatenate(parts)
        return fill_gutters(image, self._known)


def bake(
    vertices: Float[np.ndarray, "V 3"], texels: Texels, albedo: Albedo, device: torch.device | str = "cpu"
) -> UInt8[np.ndarray, "H W 3"]:
    """The texture of a mesh, every texel filled.

    Args:
        vertices: positions at which `albedo` is evaluated, world units.
        albedo: the colour field; called without gradients on at most 65,536 points at a time.
        device: where `albedo` wants its points.
    """
    return texels.image(lambda points: to_bytes(evaluate(albedo, points, device)), vertices)


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


def fill_gutters(texture: UInt8[np.ndarray, "H W C"], known: np.ndarray) -> UInt8[np.ndarray, "H W C"]:
    """Each unknown texel takes the nearest known one's colour; mipmaps then blend charts with themselves."""
    if not known.any():
        return texture
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return texture[tuple(nearest)]
