"""Several things as one scene: each thing's volume, placed by its own extents, and all of them as one volume.

Things keep their usual sizes to each other, within a factor of `UNLIKE`. They are placed one after the other: all that
stands already is put on the next thing, under it, beside it, before it or behind it. World: Y up, +Z to the front.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage
from torch import Tensor

from magic3d_cli.guidance.builtin.vocabulary import Caption
from magic3d_cli.guidance.builtin.volume import CaptionVolume
from magic3d_cli.guidance.builtin.voxels import FULL, sampled, weighted
from magic3d_cli.scene.shape import scale_into_scene
from magic3d_cli.scene.things import things_of

UNLIKE = 4.0
"""The longest side of a thing is at most so many times another's: beyond that the smaller one has no voxels left."""
ON_TOP = 1.25
"""What is on another thing is at most so many times as long: a car on a table is a toy."""
GAP = 0.06
"""Space between things side by side, as a share of the smaller one's longest side."""
CELLS = 40
"""Along the longest side of two things, where it is tried where one of them fits."""
CLOSE = 1.5
"""Cells by which two surfaces may be apart and still touch."""
SHRUNK = (1.0, 0.8, 0.65, 0.5, 0.4)
"""What a thing that does not fit under another is scaled by, one after the other."""
SOLID = 0.0
"""Raw density above which a voxel counts as filled when things are placed."""


@dataclass(frozen=True)
class Group:
    """Things that stand together.

    Args:
        points: places in the middle of filled voxels [N, 3], metres.
        parts: of each thing the number of its volume, its scale, and where the middle of its cube is, metres.
    """

    points: np.ndarray
    parts: tuple[tuple[int, float, np.ndarray], ...]

    @property
    def low(self) -> np.ndarray:
        """The lowest x, y and z."""
        return self.points.min(0)

    @property
    def high(self) -> np.ndarray:
        """The highest x, y and z."""
        return self.points.max(0)

    @property
    def longest(self) -> float:
        """The longest side of the bounding box."""
        return float((self.high - self.low).max())

    def moved(self, by: np.ndarray) -> Group:
        """The same elsewhere."""
        return Group(self.points + by, tuple((n, scale, middle + by) for n, scale, middle in self.parts))

    def scaled(self, factor: float) -> Group:
        """The same in another size, about the origin."""
        return Group(self.points * factor, tuple((n, s * factor, middle * factor) for n, s, middle in self.parts))

    def joined(self, other: Group) -> Group:
        """Both."""
        return Group(np.concatenate([self.points, other.points]), (*self.parts, *other.parts))


def show_together(
    volume: CaptionVolume,
    encode: Callable[[list[str]], Tensor],
    caption: Caption,
    show: Callable[[Caption], None] = lambda thing: None,
) -> UInt8[Tensor, "Z Y X"]:
    """From now on the first thing of a caption is shown as the whole scene, painted as is asked of each thing.

    `encode` are a prior's text states [C, L, D] of captions; `show` has the volume show what a thing is, before it is
    asked for it: two things may take the place of the same model. Returns where each thing is, see `scene.things`.
    """
    things = [replace(caption, others=()), *(other.caption for other in caption.others)]
    weight = next(volume.parameters())
    texts = encode([thing.text for thing in things]).to(weight)
    with torch.no_grad():
        volumes = []
        for thing, text in zip(things, texts, strict=True):
            show(thing)
            volumes.append(volume.painted(text[None]))
        scene, owners = arranged(
            volumes, [thing.metres for thing in things], [o.relation for o in caption.others], volume.extent
        )
        model = int(volume.find(encode([caption.text]).to(weight))[0])
    volume.show_instead(model, scene)
    return things_of(owners.permute(2, 0, 1), volume.extent)


def arranged(
    volumes: list[Float[Tensor, "J I K 7"]], metres: list[float | None], relations: list[str], extent: float
) -> tuple[Float[Tensor, "J I K 7"], Int[Tensor, "J I K"]]:
    """One volume of several, each with its raw density, normal and colour, indexed y, x, z over +-`extent`.

    Also of each voxel the number of the nearest thing.

    Args:
        metres: the longest side of each thing, None where it is not known.
        relations: how all things before it stand to the second thing, the third, ...: see `place`.
    """
    if any(not (volume[..., 0] > SOLID).any() for volume in volumes):
        raise ValueError("one of the things has no voxels")
    sizes = _sizes(metres)
    groups = [_group(number, *pair, extent) for number, pair in enumerate(zip(volumes, sizes, strict=True))]
    whole = groups[0]
    for relation, group in zip(relations, groups[1:], strict=True):
        whole = place(whole, relation, group)
    half, middle = (whole.high - whole.low) / 2, (whole.high + whole.low) / 2
    whole = whole.moved(-middle).scaled(float(scale_into_scene(half)))
    scene = torch.zeros_like(volumes[0])
    scene[..., 0] = -FULL
    owners = torch.full(scene.shape[:3], -1)
    for number, scale, where in whole.parts:
        resampled = _resampled(volumes[number], scale, where, extent)
        denser = resampled[..., 0] > scene[..., 0]
        scene = torch.where(denser[..., None], resampled, scene)
        owners[(denser & (resampled[..., 0] > SOLID)).cpu()] = number
    nearest = ndimage.distance_transform_edt(owners.numpy() < 0, return_distances=False, return_indices=True)
    return scene, owners[tuple(torch.from_numpy(nearest).long())]


def place(group: Group, relation: str, other: Group) -> Group:
    """Both, with `group` on, under, next to, in front of or behind the `other`; "and" is next to it.

    Raises ValueError for another relation.
    """
    middles = (other.low + other.high) / 2 - (group.low + group.high) / 2
    if relation == "on":
        return _on(group.scaled(min(1.0, ON_TOP * other.longest / group.longest)), other)
    if relation == "under":
        return _under(group, other)
    gap = GAP * min(group.longest, other.longest)
    by = np.array([middles[0], other.low[1] - group.low[1], middles[2]])  # on the same ground
    if relation in ("next to", "and"):
        by[0] = other.low[0] - gap - group.high[0]
    elif relation == "in front of":
        by[2] = other.high[2] + gap - group.low[2]
    elif relation == "behind":
        by[2] = other.low[2] - gap - group.high[2]
    else:
        raise ValueError(f"no place is known for {relation!r}")
    return group.moved(by).joined(other)


def _on(group: Group, other: Group) -> Group:
    """Let down onto the other from above, where it stands best: on the seat of a chair, not on its back.

    Of all places over the other, the one where most of the group's underside touches, its middle is held, and that is
    not far from the other's middle.
    """
    cell = max(group.longest, other.longest) / CELLS
    top = _heights(other, cell, highest=True)
    under = _heights(group, cell, highest=False)
    rows, columns = top.shape[0], top.shape[1]
    a, b = under.shape
    padded = np.pad(top, ((a, a), (b, b)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (a, b))  # [rows + a + 1, columns + b + 1, a, b]
    rest = (windows - under).max((2, 3))  # the height that the group's own zero comes to
    base = np.isfinite(under) & (under < np.min(under) + CLOSE * cell)
    with np.errstate(invalid="ignore"):
        touching = base & (rest[..., None, None] - (windows - under) < CLOSE * cell)
    share = touching.sum((2, 3)) / base.sum()
    x, z = np.meshgrid(np.arange(a), np.arange(b), indexing="ij")
    held = np.ones(share.shape, bool)
    for places, centre in ((x, x[base].mean()), (z, z[base].mean())):
        some = touching.any((2, 3))
        first = np.where(touching, places, places.max() + 1).min((2, 3))
        last = np.where(touching, places, -1).max((2, 3))
        held &= some & (first <= centre + 0.5) & (last >= centre - 0.5)
    row, column = np.meshgrid(np.arange(rest.shape[0]), np.arange(rest.shape[1]), indexing="ij")
    away = np.hypot((row - (rows + a) / 2) / max(rows, a), (column - (columns + b) / 2) / max(columns, b))
    score = np.where(np.isfinite(rest), share + 0.5 * held - 0.5 * away, -np.inf)
    best, beside = np.unravel_index(np.argmax(score), score.shape)
    corner = other.low + np.array([int(best) - a, 0, int(beside) - b]) * cell
    by = np.array([corner[0] - group.low[0], rest[best, beside], corner[2] - group.low[2]])
    return group.moved(by).joined(other)


def _under(group: Group, other: Group) -> Group:
    """On the ground below the other, smaller if it must be; where there is no room, the other is put on it."""
    for factor in SHRUNK:
        small = group.scaled(factor)
        cell = max(small.longest, other.longest) / CELLS
        filled, own = _cells(other, cell), _cells(small, cell)
        a, h, b = own.shape
        if h > filled.shape[1] or a > filled.shape[0] or b > filled.shape[2]:
            continue
        roof = filled[:, h:].any(1)
        windows = np.lib.stride_tricks.sliding_window_view(filled[:, :h], (a, h, b))[:, 0]  # [x, z, a, h, b]
        clash = (windows & own).sum((2, 3, 4)) / own.sum()
        covered = np.lib.stride_tricks.sliding_window_view(roof, (a, b)).mean((2, 3))
        row, column = np.meshgrid(np.arange(clash.shape[0]), np.arange(clash.shape[1]), indexing="ij")
        middle = (np.array(filled.shape)[[0, 2]] - (a, b)) / 2
        away = np.hypot(row - middle[0], column - middle[1]) / CELLS
        score = np.where((clash < 0.01) & (covered > 0.5), covered - away, -np.inf)
        if np.isfinite(score).any():
            best, beside = np.unravel_index(np.argmax(score), score.shape)
            corner = other.low + np.array([int(best), 0, int(beside)]) * cell
            return small.moved(corner - small.low).joined(other)
    return _on(other, group)


def _sizes(metres: list[float | None]) -> list[float]:
    """Longest sides; what is not known is as large as the smallest of the others, and none is much larger than one."""
    known = [size for size in metres if size is not None] or [1.0]
    sizes = [size or min(known) for size in metres]
    return [max(size, max(sizes) / UNLIKE) for size in sizes]


def _group(number: int, volume: Float[Tensor, "J I K 7"], size: float, extent: float) -> Group:
    """A thing alone, its longest side `size`, standing on the ground about the origin."""
    side = volume.shape[0]
    places = (volume[..., 0] > SOLID).nonzero()[:, [1, 0, 2]].cpu().numpy()  # x, y, z
    points = ((places + 0.5) / side * 2 - 1) * extent
    low, high = points.min(0), points.max(0)
    group = Group(points, ((number, 1.0, np.zeros(3)),))
    group = group.moved(-np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2]))
    return group.scaled(size / max(float((high - low).max()), 2 * extent / side))


def _heights(group: Group, cell: float, highest: bool) -> np.ndarray:
    """Of each column of cells over x and z, from the group's corner, its highest or lowest y; infinite where empty."""
    at = ((group.points[:, [0, 2]] - group.low[[0, 2]]) / cell).astype(int)
    heights = np.full(at.max(0) + 1, -np.inf if highest else np.inf)
    (np.maximum if highest else np.minimum).at(heights, (at[:, 0], at[:, 1]), group.points[:, 1])
    return heights


def _cells(group: Group, cell: float) -> Bool[np.ndarray, "x y z"]:
    """Whether cells from the group's corner on are filled."""
    at = ((group.points - group.low) / cell).astype(int)
    filled = np.zeros(at.max(0) + 1, bool)
    filled[tuple(at.T)] = True
    return filled


def _resampled(
    volume: Float[Tensor, "J I K 7"], scale: float, where: np.ndarray, extent: float
) -> Float[Tensor, "J I K 7"]:
    """A thing in the scene's voxels; the densest of its own that fall into one counts, so that thin parts stay."""
    side = volume.shape[0]
    parts = weighted(volume)
    block = 1 if scale > 0.7 else math.ceil(1 / scale + 0.25)  # a little more than a voxel: none falls between
    if block > 1:
        parts = torch.cat([F.max_pool3d(parts[:, :1], block, 1, 0), F.avg_pool3d(parts[:, 1:], block, 1, 0)], 1)
    # Windows of `block` voxels, one a voxel: the first is in the middle of the first `block`.
    count = parts.shape[-1]
    line = ((torch.arange(side, device=volume.device) + 0.5) / side * 2 - 1) * extent
    axes = [(line - float(middle)) / scale / extent * side / count for middle in (where[1], where[0], where[2])]
    y, x, z = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack([z, x, y], -1).to(parts)
    found = sampled(parts, grid)
    outside = (grid.abs() >= 1).any(-1)
    found[..., 0][outside] = -FULL
    return found
