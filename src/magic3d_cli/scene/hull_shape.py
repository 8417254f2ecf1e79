"""A shape to begin with from pictures alone: what fits into all outlines, and is as thick as it is wide.

With one picture the outline is inflated: a disc becomes a ball, a bar a rod (in the spirit of Igarashi et al. 1999,
Teddy). With several, what lies inside the cones of all outlines is kept (the visual hull, Laurentini 1994).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from magic3d_cli.scene.reference import Reference
from magic3d_cli.scene.shape import DENSITY, voxels_at

_SIZE = 96  # voxels along each side of the scene
_PIXELS = 256  # of the outlines
_AROUND = 40.0  # degrees of azimuth: pictures closer together than this show no depth


class HullShape:
    """`scene.shape.InitialShape` of a few reference pictures."""

    def __init__(self, references: Sequence[Reference]) -> None:
        self._references = references
        self._looks = [reference.at(_PIXELS) for reference in references]
        azimuths = np.deg2rad([reference.camera.azimuth for reference in references])
        apart = np.abs(np.sin(azimuths[:, None] - azimuths[None])).max()
        self._inflate = bool(apart < np.sin(np.deg2rad(_AROUND)))
        self._outlines = [self._outline(mask.numpy()) for _, mask, _ in self._looks]
        along = (torch.arange(_SIZE) + 0.5) / _SIZE * 2 - 1
        z, y, x = torch.meshgrid(along, along, along, indexing="ij")
        points = torch.stack([x, y, z], -1).reshape(-1, 3)
        self._inside = self._signed(points).view(1, 1, _SIZE, _SIZE, _SIZE)  # Z Y X, world units, positive inside

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Per world unit of length: falls from full to nothing within a voxel of the surface."""
        inside = voxels_at(self._inside, points)[:, 0]
        return DENSITY * torch.sigmoid(inside * (2 * _SIZE))

    def albedo(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """The colour where the picture that faces the point most shows it; behind, as in front."""
        away = self._outward(points)
        total, weights = torch.zeros_like(points), torch.zeros_like(points[:, :1])
        for reference, (rgb, _, _) in zip(self._references, self._looks, strict=True):
            forward = reference.camera.views().axes()[2].to(points)
            facing = -(away @ forward.T)
            weight = facing.clamp(min=0) ** 4 + 0.02 * facing.abs() + 1e-4
            at = reference.camera.project(points)[0]
            seen = F.grid_sample(
                rgb.to(points).movedim(-1, 0)[None], at[None, None], padding_mode="border", align_corners=False
            )[0, :, 0].T
            total, weights = total + weight * seen, weights + weight
        return total / weights

    def surface(self, count: int, generator: torch.Generator) -> Float[Tensor, "N 3"]:
        """Points in voxels at the surface."""
        near = (self._inside[0, 0].abs() < 1.5 / _SIZE).nonzero()
        if len(near) == 0:
            return torch.rand(count, 3, generator=generator) * 2 - 1
        chosen = near[torch.randint(len(near), (count,), generator=generator)].flip(1)  # to x, y, z
        return (chosen + torch.rand(count, 3, generator=generator)) / _SIZE * 2 - 1

    def _outline(self, mask: Float[np.ndarray, "S S"]) -> Float[Tensor, "1 2 S S"]:
        """Distance to the outline, positive inside, and half the thickness there; in half-sides of the picture."""
        solid = mask > 0.5
        inside, outside = ndimage.distance_transform_edt(solid), ndimage.distance_transform_edt(~solid)
        smooth = ndimage.gaussian_filter(inside, 1.0)
        ridge = solid & (smooth >= ndimage.maximum_filter(smooth, 5) - 0.3)
        nearest = ndimage.distance_transform_edt(~ridge, return_distances=False, return_indices=True)
        radius = np.maximum(ndimage.gaussian_filter(inside[tuple(nearest)], 3.0), inside)
        thick = np.sqrt(np.maximum(inside * (2 * radius - inside), 0))
        both = np.stack([inside - outside, thick]) * (2 / _PIXELS)
        return torch.from_numpy(both).float()[None]

    def _signed(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        found = torch.full_like(points[:, 0], 1.0)
        for reference, outline in zip(self._references, self._outlines, strict=True):
            at, deep, scale = reference.camera.project(points)
            signed, thick = F.grid_sample(outline, at[None, None], padding_mode="border", align_corners=False)[0, :, 0]
            beyond = (at.abs().amax(-1) - 1).clamp(min=0)  # outside the picture is outside the thing
            found = torch.minimum(found, (signed - 2 * beyond) * scale)
            if self._inflate:
                found = torch.minimum(found, thick * scale - deep.abs())
        return found

    def _outward(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        step = 2.0 / _SIZE
        shifts = torch.eye(3, device=points.device) * step
        slopes = [
            voxels_at(self._inside, points + shift)[:, 0] - voxels_at(self._inside, points - shift)[:, 0]
            for shift in shifts
        ]
        return F.normalize(-torch.stack(slopes, -1), dim=-1, eps=1e-6)
