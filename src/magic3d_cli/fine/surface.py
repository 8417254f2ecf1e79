"""From the coarse density to a signed distance: pick the level, drop floaters, fill holes, measure distance.

The paper subtracts a constant from the density and flips the sign (section 4.2). A fixed constant fails on
the next prompt, and a clamped density is no distance: it saturates and gives stair steps. So the level is
chosen here by comparing silhouettes with the volume's own renderings, and the result is a true distance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from magic3d_cli.errors import Collapsed
from magic3d_cli.scene.views import Views

KEEP, KEEP_ASKED = 0.05, 0.002
"""A separate piece stays if it has at least this share of the largest piece's volume; the second where the shape that
is asked for has it too: a dog behind a house is no floater."""

SOLID = 0.3
"""Opacity above which a pixel counts as the object's: thin parts rarely get further, and with 0.5 chairs lost their
backs and palms their trunks, for silhouettes that agreed no better (IoU 0.90 against 0.97 for a wooden chair)."""

JOINED = 0.1
"""Pieces with this share of the threshold's density between them are one: fog joins a trunk to its crown, while
between a floater and the object there is nothing."""

_OUTSIDE = -30.0  # density logit of empty space: exp(-30) is nothing
_INSIDE = 30.0
_POINTS = 1 << 18
_ANYWHERE = np.ones((3, 3, 3), bool)  # pieces that touch by a corner belong together
_REMEDY = "Try --preset standard, which takes more steps, another --seed, or a more concrete prompt."


@dataclass(frozen=True)
class Surface:
    """A solid shape: its level function on voxel centres (positive inside), and points on its surface."""

    level: Float[Tensor, "G G G"]  # density logit minus that of the threshold; index order x, y, z
    points: Float[Tensor, "S 3"]  # world, on the zero level to sub-voxel accuracy
    normals: Float[Tensor, "S 3"]  # unit, outward
    threshold: float  # density
    iou: float  # of the thresholded volume's silhouettes with the rendered opacity, before floaters go
    floaters: int  # pieces removed

    def distance(self, where: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Signed distance, negative inside; near the surface accurate to a fraction of a voxel."""
        voxel = 2 / self.level.shape[0]
        tree = cKDTree(self.points.numpy())
        apart, nearest = tree.query(where.numpy(), workers=2)
        away = torch.from_numpy(apart).float()
        # The distance to a point cloud is too large close by, where the cloud's gaps show: there, measure to
        # the tangent plane of the nearest point.
        offset = where - self.points[torch.from_numpy(nearest)]
        plane = (offset * self.normals[torch.from_numpy(nearest)]).sum(-1).abs()
        size = torch.lerp(plane, away, ((away / voxel - 1.5) / 1.5).clamp(0, 1))
        # The level decides the side, so that thin parts cannot flip; it vanishes where the plane does.
        inside = sample_volume(self.level, where) > 0
        return torch.where(inside, -1.0, 1.0) * size.clamp(min=1e-3 * voxel)


def field_to_surface(
    density_logit: Callable[[Tensor], Tensor],
    views: Views,
    opacity: Float[Tensor, "B H W"],
    depth: Float[Tensor, "B H W"],
    resolution: int,
    device: torch.device | str = "cpu",
    asked: Callable[[Tensor], Tensor] | None = None,
) -> Surface:
    """The solid that the volume renders as.

    Args:
        density_logit: world points [N, 3] in [-1, 1]^3 -> density before its softplus [N].
        views, opacity, depth: renderings of the same volume; depth is the distance from the camera.
        asked: world points [N, 3] -> density [N] of the shape that was asked for, where it is known.

    Raises Collapsed if the volume is empty, or solid up to the walls of the scene.
    """
    logit = _sample(density_logit, resolution, device)
    opacity, depth, views = opacity.cpu(), depth.cpu(), views.to("cpu")
    share = float(opacity.mean())
    if not math.isfinite(share) or bool(torch.isnan(logit).any()):
        raise Collapsed("The coarse volume holds numbers that are not finite.", _REMEDY)
    if share < 0.002:
        raise Collapsed(f"The coarse volume is empty: its renderings are {share:.2%} opaque.", _REMEDY)
    if share > 0.98:
        raise Collapsed(f"The coarse volume is solid: its renderings are {share:.0%} opaque.", _REMEDY)
    threshold, iou = choose_threshold(logit, views, opacity, depth)
    density = float(F.softplus(torch.tensor(threshold)))
    low = JOINED * density
    joined = low + math.log(-math.expm1(-low))  # the inverse of softplus, which cannot overflow
    expected = None if asked is None else _sample(asked, resolution, device) > density
    level, floaters = clean(logit - threshold, joined - threshold, expected)
    filled = float((level > 0).float().mean())
    if filled > 0.7:
        raise Collapsed(f"The coarse volume is solid: the shape fills {filled:.0%} of the scene.", _REMEDY)
    points, normals = crossings(level)
    return Surface(level, points, normals, density, iou, floaters)


@torch.no_grad()
def _sample(density_logit: Callable[[Tensor], Tensor], size: int, device: torch.device | str) -> Float[Tensor, "G G G"]:
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    points = torch.cartesian_prod(axis, axis, axis)
    parts = [density_logit(part.to(device)).float().cpu() for part in points.split(_POINTS)]
    logit = torch.cat(parts).view(size, size, size).clamp(_OUTSIDE, 1e4)
    walls = torch.ones_like(logit, dtype=torch.bool)
    walls[1:-1, 1:-1, 1:-1] = False
    return logit.masked_fill(walls, _OUTSIDE)  # a surface that leaves the scene is closed at its walls


def sample_volume(volume: Float[Tensor, "G G G"], points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
    """Trilinear value of a volume over [-1, 1]^3, given at voxel centres in x, y, z order."""
    grid = points.flip(-1).view(1, 1, 1, -1, 3)  # grid_sample wants the last index's coordinate first
    return F.grid_sample(volume[None, None], grid, padding_mode="border", align_corners=False).view(-1)


def choose_threshold(
    logit: Float[Tensor, "G G G"],
    views: Views,
    opacity: Float[Tensor, "B H W"],
    depth: Float[Tensor, "B H W"],
    candidates: int = 32,
) -> tuple[float, float]:
    """(logit of the level, silhouette IoU): the level whose outline and depth agree best with the renderings.

    A level's silhouette is the set of rays along which the logit exceeds it somewhere. Opaque shapes give the
    same outline over a wide range of levels; within 1 % of the best IoU, the depth at which rays first meet
    the level decides.
    """
    profile, t = _along_rays(logit, views, opacity.shape[1])
    peak = profile.amax(1)
    solid, opaque = opacity.reshape(-1) > SOLID, opacity.reshape(-1) > 0.95
    if not solid.any():
        solid = opacity.reshape(-1) > SOLID * opacity.max()
    low, high = torch.quantile(peak[solid], 0.02), torch.quantile(peak[solid], 0.7)
    levels = torch.linspace(min(float(low), -2.0), float(high), candidates)
    outlines = peak[:, None] >= levels
    common = (outlines & solid[:, None]).sum(0)
    iou = common / (outlines | solid[:, None]).sum(0).clamp(min=1)
    best = float(iou.max())
    if best == 0:
        raise Collapsed("No density level gives a shape that matches the coarse renderings.", _REMEDY)
    if not opaque.any():
        chosen = int(iou.argmax())
        return float(levels[chosen]), float(iou[chosen])
    miss = torch.full_like(iou, torch.inf)
    for k in (iou >= best - 0.01).nonzero()[:, 0].tolist():
        rays = opaque & outlines[:, k]
        first = (profile[rays] >= levels[k]).float().argmax(1)
        miss[k] = (t[rays].gather(1, first[:, None])[:, 0] - depth.reshape(-1)[rays]).abs().median()
    chosen = int(miss.argmin())
    return float(levels[chosen]), float(iou[chosen])


def _along_rays(
    logit: Float[Tensor, "G G G"], views: Views, size: int
) -> tuple[Float[Tensor, "R T"], Float[Tensor, "R T"]]:
    """The logit, and the distance, at even steps through the scene along every pixel's ray."""
    origins, directions = (x.reshape(-1, 3) for x in views.rays(size))
    middle = -(origins * directions).sum(-1, keepdim=True)  # where the ray is nearest to the world's origin
    t = middle + torch.linspace(-1.7, 1.7, round(1.7 * logit.shape[0]))
    values = []
    for o, d, s in zip(origins.split(4096), directions.split(4096), t.split(4096), strict=True):
        points = o[:, None] + s[..., None] * d[:, None]
        inside = (points.abs() <= 1).all(-1)
        values.append(torch.where(inside, sample_volume(logit, points.view(-1, 3)).view(s.shape), _OUTSIDE))
    return torch.cat(values), t


def clean(
    level: Float[Tensor, "G G G"], joined: float = -math.log(2), expected: Bool[Tensor, "G G G"] | None = None
) -> tuple[Float[Tensor, "G G G"], int]:
    """The level function without floaters and with hollows filled, and how many floaters there were.

    Pieces are told apart at the level `joined`, where a leg that fog or the voxels cut is still one with its body, and
    measured at the threshold itself. Small ones stay where at least half of them is `expected`.
    """
    values = level.numpy().copy()
    inside = values > 0
    if not inside.any():
        raise Collapsed("The coarse volume has no surface at the chosen density.", _REMEDY)
    label, _ = ndimage.label(values > joined, _ANYWHERE)
    volume = np.bincount(label[inside], minlength=label.max() + 1)
    volume[0] = 0
    kept = volume >= max(KEEP * volume.max(), 1)
    if expected is not None:
        known = np.bincount(label[inside & expected.cpu().numpy()], minlength=len(volume))
        kept |= (2 * known >= volume) & (volume >= max(KEEP_ASKED * volume.max(), 1))
    floaters = int(((volume > 0) & ~kept).sum())
    if floaters:
        # The whole neighbourhood of a floater goes, or its slope would leave a crust behind.
        nearest = ndimage.distance_transform_edt(label == 0, return_distances=False, return_indices=True)
        values[~kept[label[tuple(nearest)]]] = _OUTSIDE
    inside = values > 0
    values[_hollows(inside)] = _INSIDE
    return torch.from_numpy(values), floaters


def _hollows(inside: Bool[np.ndarray, "G G G"]) -> Bool[np.ndarray, "G G G"]:
    """Enclosed empty voxels, also those behind walls with holes of up to two voxels.

    A volume is trained on what is seen, so that its inside may be anything; left as it is, it would become an
    inner surface that nothing ever corrects.
    """
    sealed = ndimage.binary_dilation(inside, _ANYWHERE)
    enclosed = ndimage.binary_fill_holes(sealed) & ~sealed
    enclosed = ndimage.binary_dilation(enclosed, _ANYWHERE) & ~inside
    return enclosed | (ndimage.binary_fill_holes(inside) & ~inside)


def crossings(level: Float[Tensor, "G G G"]) -> tuple[Float[Tensor, "S 3"], Float[Tensor, "S 3"]]:
    """Points where the level changes sign along voxel edges, interpolated linearly, and outward normals.

    The level is a logit: unlike the density, it is nearly linear across the surface. It is limited to a few
    units, so that filled-in values have no steeper slope than their neighbours.
    """
    size = level.shape[0]
    found = []
    for axis in range(3):
        a, b = level.narrow(axis, 0, size - 1), level.narrow(axis, 1, size - 1)
        index = ((a > 0) != (b > 0)).nonzero()
        start, end = a[tuple(index.T)], b[tuple(index.T)]
        where = index.float()
        where[:, axis] += start / (start - end)
        found.append((where + 0.5) * (2 / size) - 1)
    points = torch.cat(found)
    limited = level.clamp(-8, 8)
    voxel = 2 / size
    slope = torch.stack(
        [
            sample_volume(limited, points + step) - sample_volume(limited, points - step)
            for step in voxel * torch.eye(3)
        ],
        -1,
    )
    return points, -F.normalize(slope, dim=-1, eps=1e-12)
