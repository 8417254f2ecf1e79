"""One picture seen in many ways, so that a word learnt from it means the thing and not its place in the picture.

RealFusion's augmentations (Melas-Kyriazi et al., arXiv 2302.10663, section 3.2; numbers from its authors' code), for
pictures in [0, 1]; theirs reached the encoder without being scaled to [-1, 1], ours do not.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

TEMPLATES = (
    "a photo of a {}",
    "a rendering of a {}",
    "a cropped photo of the {}",
    "the photo of a {}",
    "a close-up photo of a {}",
    "a bright photo of the {}",
    "a good photo of a {}",
    "a photo of one {}",
)
"""What is said of the picture, by turns (as textual inversion does, arXiv 2208.01618, supplement)."""
_ROTATED, _ANGLE = 0.75, 10.0  # how often, and degrees at most to either side
_SCALE = 0.85, 1.15
_JITTERED, _JITTER = 0.75, 0.04  # of brightness, contrast and saturation
_GREY, _BLURRED, _MIRRORED = 0.1, 0.1, 0.5


def augmented(picture: Float[Tensor, "3 S S"], generator: torch.Generator) -> Float[Tensor, "3 S S"]:
    """A picture turned, scaled, mirrored, and its colours changed a little, at random; white comes in at the edges."""
    draw = torch.rand(10, generator=generator).tolist()
    angle = math.radians(_ANGLE * (2 * draw[1] - 1)) if draw[0] < _ROTATED else 0.0
    size = 1 / (_SCALE[0] + (_SCALE[1] - _SCALE[0]) * draw[2])
    mirror = -1.0 if draw[3] < _MIRRORED else 1.0
    cos, sin = size * math.cos(angle), size * math.sin(angle)
    move = torch.tensor([[cos * mirror, -sin, 0.0], [sin * mirror, cos, 0.0]], device=picture.device)[None]
    grid = F.affine_grid(move, [1, *picture.shape], align_corners=False)
    seen = 1 - F.grid_sample(1 - picture[None], grid, align_corners=False)[0]
    if draw[4] < _JITTERED:
        bright, strong, rich = (1 + _JITTER * (2 * value - 1) for value in draw[5:8])
        seen = _apart(_apart(seen * bright, seen.mean(), strong), seen.mean(0, keepdim=True), rich)
    if draw[8] < _GREY:
        seen = seen.mean(0, keepdim=True).expand_as(seen)
    if draw[9] < _BLURRED:
        seen = F.avg_pool2d(seen[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    return seen.clamp(0, 1)


def _apart(picture: Tensor, middle: Tensor, factor: float) -> Tensor:
    """Further from a middle by a factor."""
    return middle + (picture - middle) * factor
