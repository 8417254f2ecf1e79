"""A mesh as a shape to begin with, also one that is open, crosses itself or has many parts."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from magic3d_cli.scene.shape import DENSITY, voxels_at

SAMPLES = 400_000
"""Points on a mesh: closer than half a voxel of `MeshShape` on anything that fits into the scene's box."""
_SIZE = 160  # voxels along each side of the scene
_WALL = 0.87  # voxels whose centres are nearer to the surface than this cannot be passed: half a diagonal
_SHEET = 0.75  # half the thickness of what encloses nothing, in voxels


class MeshShape:
    """`scene.shape.InitialShape` of points on a mesh: solid where the surface encloses, a thin sheet elsewhere.

    What is outside is found by flooding the scene's voxels from the border, so that holes smaller than a voxel do not
    matter and neither does the way that faces are wound.
    """

    def __init__(self, points: Float[np.ndarray, "N 3"], colours: Float[np.ndarray, "N 3"]) -> None:
        """`points` cover the surface, about a voxel (1 / 160 of the box) apart; `colours` are theirs, 0..1."""
        self._points = torch.from_numpy(points).float()
        self._colours = torch.from_numpy(np.ascontiguousarray(colours)).float()
        self._tree = cKDTree(points)
        self._distance = torch.from_numpy(self._signed_distance())[None, None]  # 1 1 Z Y X, in voxels

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Per world unit of length: falls from full to nothing within a voxel of the surface."""
        return DENSITY * torch.sigmoid(-4 * voxels_at(self._distance, points)[:, 0])

    def albedo(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """The colour of the nearest point of the surface; farther from it than three voxels, of some point."""
        nearest = self._tree.query(points.cpu().numpy(), workers=-1, distance_upper_bound=6 / _SIZE)[1]
        return self._colours[torch.from_numpy(nearest.clip(max=len(self._points) - 1))].to(points.device)

    def surface(self, count: int, generator: torch.Generator) -> Float[Tensor, "N 3"]:
        """Some of the points."""
        return self._points[torch.randint(len(self._points), (count,), generator=generator)]

    def _signed_distance(self) -> Float[np.ndarray, "Z Y X"]:
        """To the surface at voxels' centres, negative inside, in voxels; right near the surface, else clipped."""
        centres = (np.arange(_SIZE, dtype=np.float32) + 0.5) / _SIZE * 2 - 1
        index = np.floor((self._points.numpy() + 1) / 2 * _SIZE).astype(int).clip(0, _SIZE - 1)
        near = np.zeros((_SIZE,) * 3, bool)
        near[index[:, 2], index[:, 1], index[:, 0]] = True
        near = ndimage.binary_dilation(near, iterations=3)
        distance = np.full(near.shape, 4.0, np.float32)
        distance[near] = self._tree.query(centres[np.argwhere(near)[:, ::-1]], workers=-1)[0] * (_SIZE / 2)
        # Voxels at the surface are a wall; the space is what is left, in connected parts.
        wall = distance < _WALL
        parts, _ = ndimage.label(np.pad(~wall, 1, constant_values=True))
        outside = (parts == parts[0, 0, 0])[1:-1, 1:-1, 1:-1]
        inside = ~wall & ~outside
        # A wall voxel is on the side that more of its surroundings are on.
        sign = np.where(outside, 1.0, -1.0).astype(np.float32)
        wall &= ndimage.binary_dilation(outside, iterations=2) & ndimage.binary_dilation(inside, iterations=2)
        lean = ndimage.uniform_filter(outside.astype(np.float32) - inside, 3)
        sign[wall] = np.sign(lean[wall])
        signed = sign * distance
        # Where nothing is enclosed nearby, the surface is given the thickness of a sheet.
        sheet = ~ndimage.binary_dilation(inside, iterations=2)
        signed[sheet] = distance[sheet] - _SHEET
        return signed.astype(np.float32)
