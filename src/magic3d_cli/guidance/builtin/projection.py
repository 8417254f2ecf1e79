"""A picture painted onto a volume: what it shows takes its colours, and so does the same on the other side of a thing
whose left is like its right. Everything else is recoloured as what has the same colour of its own was.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from magic3d_cli.guidance.builtin.volume import CaptionVolume
from magic3d_cli.kernels.volume import EMPTY
from magic3d_cli.scene.reference import Reference

_PIXELS = 256
_DEEP = 0.06  # world units behind the surface that is seen, which still belong to it
_FACING = (0.15, 0.45)  # cosines from and to which a surface counts as seen
_EDGE = 5  # pixels of the mask's edge that are left out
_ALIKE = 0.75  # overlap of a volume with its mirror image from which its sides count as alike
_MIRRORED = 0.9  # weight of what is taken from the other side
_PALETTE, _ROUNDS, _SOFT = 8, 8, 0.08
"""Colours of the model's own that are told apart, rounds in which they are found, and how sharply they are."""
_KEPT = 0.5  # of a colour's difference from its palette's


@torch.no_grad()
def painted(
    network: CaptionVolume, volume: Float[Tensor, "J I K 7"], references: Sequence[Reference]
) -> Float[Tensor, "J I K 7"]:
    """A volume in the colours of pictures; what several show is as the first one has it."""
    size = len(volume)
    where = (volume[..., 0] > EMPTY).nonzero()
    if len(where) == 0:
        return volume
    points = ((where[:, [1, 0, 2]] + 0.5) / size * 2 - 1) * network.extent  # indexed y, x, z
    values = volume[*where.T]
    normal, own = F.normalize(values[:, 1:4], dim=1), values[:, 4:7]
    surfaces = [_surface(network, volume, reference) for reference in references]
    pairs = list(zip(references, surfaces, strict=True))[::-1]
    looks = [_look(*pair, points, normal) for pair in pairs]
    shown, colours = torch.cat([seen > 0.5 for seen, _ in looks]), torch.cat([colour for _, colour in looks])
    result = _Palette(own.repeat(len(looks), 1)[shown], colours[shown])(own)
    if _alike(volume):
        flip = points.new_tensor([-1.0, 1.0, 1.0])
        for other, mirrored in [_look(*pair, points * flip, normal * flip) for pair in pairs]:
            result = result + (_MIRRORED * other)[:, None] * (mirrored - result)
    for seen, colour in looks:
        result = result + seen[:, None] * (colour - result)
    out = volume.clone()
    out[..., 4:7][*where.T] = result.clamp(0, 1)
    return out


def _surface(network: CaptionVolume, volume: Tensor, reference: Reference) -> Float[Tensor, "1 1 S S"]:
    """Distance from the camera to what it sees; far where it sees nothing."""
    view = reference.camera.views()
    maps = network.render(volume[None].contiguous(), view, _PIXELS)
    opacity = maps[:, :1]
    distance = (maps[:, 7:10] / opacity.clamp(min=0.05) - view.position[0].view(1, 3, 1, 1)).norm(dim=1, keepdim=True)
    return torch.where(opacity > 0.3, distance, 100.0)


def _look(
    reference: Reference, surface: Float[Tensor, "1 1 S S"], points: Float[Tensor, "N 3"], normal: Float[Tensor, "N 3"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"]]:
    """How well a picture shows each point, 0 to 1, and the colour that it shows there."""
    rgb, mask, _ = reference.at(_PIXELS)
    inner = -F.max_pool2d(-mask[None, None], _EDGE, 1, _EDGE // 2)
    inner = inner if inner.max() > 0.5 else mask[None, None]
    at = reference.camera.project(points)[0][None, None]
    layers = torch.cat([rgb.movedim(-1, 0)[None], inner, surface], 1)
    taken = F.grid_sample(layers, at, mode="bilinear", padding_mode="zeros", align_corners=False)[0, :, 0].T
    away = points - reference.camera.views().position
    distance = away.norm(dim=1)
    facing = -(normal * away).sum(1) / distance
    low, high = _FACING
    weight = ((facing - low) / (high - low)).clamp(0, 1) * (taken[:, 3] > 0.5)
    return weight * (distance < taken[:, 4] + _DEEP), taken[:, :3]


def _alike(volume: Float[Tensor, "J I K 7"]) -> bool:
    """Whether a volume's left is like its right."""
    solid = volume[..., 0] > 0
    mirrored = solid.flip(1)
    return bool((solid & mirrored).sum() > _ALIKE * (solid | mirrored).sum())


class _Palette:
    """From own colours to those of a picture: the middle of what points of about the same own colour show."""

    def __init__(self, own: Float[Tensor, "N 3"], shown: Float[Tensor, "N 3"]) -> None:
        self._own = self._shown = own[:0]
        if len(own) < 50:
            return
        step = max(len(own) // 5000, 1)
        own, shown = own[::step], shown[::step]
        centres = own.mean(0, keepdim=True)
        while len(centres) < _PALETTE:  # each the colour that is farthest from all before
            centres = torch.cat([centres, own[torch.cdist(own, centres).amin(1).argmax()][None]])
        for _ in range(_ROUNDS):
            nearest = torch.cdist(own, centres).argmin(1)
            centres = torch.stack([
                own[nearest == n].mean(0) if (nearest == n).any() else centres[n] for n in range(_PALETTE)
            ])  # fmt: skip
        used = [n for n in range(_PALETTE) if int((nearest == n).sum()) >= max(len(own) // 100, 8)]
        self._own = centres[used]
        self._shown = torch.stack([shown[nearest == n].median(0).values for n in used]) if used else self._own

    def __call__(self, own: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        if len(self._own) == 0:
            return own
        share = torch.softmax(-(torch.cdist(own, self._own) / _SOFT).square(), 1)
        return share @ self._shown + _KEPT * (own - share @ self._own)
