"""Take light out of a colour field: what is bright because it faces the sky, and dark because it faces the ground.

Priors paint pictures, and pictures are lit from above; a base colour that keeps the light is lit twice in every viewer.
Where the whole surface is said to be of one metal or stone, no reason is left for colour to depend on the direction of
the surface, and the dependence is taken out as it is. Elsewhere a cow's belly may well be white: there only what
changes gradually between neighbours, as shading does and paint does not, counts as light.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from magic3d_cli import srgb
from magic3d_cli.asset.bake import Albedo, evaluate

_DARK = 2e-3  # linear luminance below which nothing is told from noise
_STRONGEST = 1.6  # natural logarithm of the factor, at most: five times as bright, as painted metal is above its ground
_NOTHING = 0.02  # below it nothing is done: a step of 8 bits
_BINS = 16
# Of neighbours that are compared: their distance in world units, and how far apart in luminance (logarithm) and hue.
_NEAR, _ALIKE, _HUE = 0.2, 0.7, 0.1
_PAIRS = 1_000_000


def delit(
    albedo: Albedo,
    points: Float[np.ndarray, "N 3"],
    normals: Float[np.ndarray, "N 3"],
    uniform: bool,
    device: torch.device | str = "cpu",
) -> Albedo:
    """The field without the light in it, of the same median brightness; the field itself where there is none.

    Args:
        albedo: display-referred colours at world positions.
        points, normals: spread evenly over the surface.
        uniform: whether the whole surface is of one material.
        device: where `albedo` wants its points.
    """
    linear = srgb.linear(evaluate(albedo, points, device).astype(np.float64))
    up = normals[:, 1]
    light = (_by_direction if uniform else _by_neighbours)(points, up, linear)
    if np.abs(light).max() < _NOTHING:
        return albedo
    # Of the points, since a field knows no normals; each takes those of the four points of the surface nearest to it.
    tree, of_point = cKDTree(points), np.clip(light - np.median(light), -_STRONGEST, _STRONGEST)

    def unlit(positions: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        colour = albedo(positions)
        distance, index = tree.query(positions.detach().cpu().numpy(), k=4, workers=-1)
        weight = 1 / np.maximum(distance, 1e-4) ** 2
        factor = np.exp(-(of_point[index] * weight).sum(1) / weight.sum(1))[:, None]
        bright = srgb.linear(colour.detach().cpu().numpy().astype(np.float64))
        # Not beyond white: clipping one channel alone would shift the hue.
        factor = np.minimum(factor, np.maximum(1 / np.maximum(bright.max(1, keepdims=True), 1e-6), 1.0))
        return torch.from_numpy(srgb.displayed(bright * factor).astype(np.float32)).to(colour.device)

    return unlit


def _by_direction(
    points: Float[np.ndarray, "N 3"], up: Float[np.ndarray, "N"], linear: Float[np.ndarray, "N 3"]
) -> Float[np.ndarray, "N"]:
    """Logarithm of the light at each point: the median brightness of all that face as it does."""
    bright = _brightness(linear)
    order = np.argsort(up)
    groups = np.array_split(order, _BINS)  # as many points in each
    middle = np.array([up[group].mean() for group in groups])
    median = np.array([np.median(bright[group]) for group in groups])
    return np.interp(up, middle, median)


def _by_neighbours(
    points: Float[np.ndarray, "N 3"], up: Float[np.ndarray, "N"], linear: Float[np.ndarray, "N 3"]
) -> Float[np.ndarray, "N"]:
    """The same, in proportion to `up`, as much as neighbours of like colour differ by it; never light from below."""
    some = slice(0, None, max(1, len(points) // 30_000))
    points, facing, bright = points[some], up[some], _brightness(linear[some])
    hue = linear[some] / np.maximum(linear[some].sum(1, keepdims=True), 1e-3)
    one, other = _neighbours(points)
    apart, turned = bright[one] - bright[other], facing[one] - facing[other]
    kept = (np.abs(apart) < _ALIKE) & (np.abs(hue[one] - hue[other]).max(1) < _HUE) & (np.abs(turned) > 0.1)
    apart, turned = apart[kept], turned[kept]
    return max(0.0, float((apart * turned).sum() / max((turned**2).sum(), 1e-9))) * up


def _neighbours(points: Float[np.ndarray, "N 3"]) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
    """Random pairs of points that lie near each other."""
    rng = np.random.default_rng(0)
    tree = cKDTree(points)
    one = rng.integers(len(points), size=_PAIRS // 32)
    _, index = tree.query(points[one] + rng.normal(0, _NEAR / 3, (len(one), 3)), k=32, workers=-1)
    near = np.linalg.norm(points[index] - points[one][:, None], axis=2) < _NEAR
    first = np.broadcast_to(one[:, None], index.shape)
    return first[near], index[near]


def _brightness(linear: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N"]:
    return np.log(np.maximum(linear @ np.array(srgb.LUMINANCE), _DARK))
