"""What a picture shows, at a glance: which of the built-in prior's models, in which colour, from which side.

A small residual network (He et al. 2016), taught by examples/learning/encoder.py on pictures of the prior's models in
all colours and lights, stretched and tilted, so that it names things by their kind and not by their pixels.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from magic3d_cli.errors import EnvironmentFault, first_line
from magic3d_cli.guidance.builtin.paint import COLOURS

GLANCE = 64
"""Pixels along the side of what the encoder looks at."""
BINS = 24
"""Directions around a thing that it tells apart; the middle of the first is the front."""


class Glance(NamedTuple):
    """What B pictures seem to show, as logits: of the prior's M models, of the colour that the body was painted in
    (`COLOURS`, the last: its own), and of the azimuth; and the elevation in radians."""

    models: Float[Tensor, "B M"]
    colours: Float[Tensor, "B 17"]
    azimuths: Float[Tensor, "B 24"]
    elevation: Float[Tensor, "B"]


class PictureEncoder(ModelMixin, ConfigMixin):
    """From cut-out pictures to a `Glance`.

    Args:
        styles: the words of the models that it knows, in the order of its logits.
        widths: channels at a half, a quarter, an eighth and a sixteenth of the picture's side.
    """

    config_name: str = "config.json"  # type: ignore[assignment]

    @register_to_config
    def __init__(self, styles: tuple[str, ...] = ("",), widths: tuple[int, ...] = (48, 96, 160, 256)) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(4, widths[0], 3, padding=1, bias=False)]
        for last, width in zip((widths[0], *widths), widths, strict=False):
            blocks += [_Block(last, width, 2), _Block(width, width, 1)]
        self.body = nn.Sequential(*blocks, nn.BatchNorm2d(widths[-1]), nn.ReLU())
        self.head = nn.Linear(widths[-1], len(styles) + len(COLOURS) + 1 + BINS + 1)

    def forward(self, pictures: Float[Tensor, "B 4 64 64"]) -> Glance:
        """Pictures as `glanced` gives them."""
        seen = self.head(self.body(pictures).mean((2, 3)))
        parts = seen.split([len(self.config["styles"]), len(COLOURS) + 1, BINS, 1], 1)
        return Glance(parts[0], parts[1], parts[2], parts[3][:, 0])


class _Block(nn.Module):
    """Two convolutions after their normalisations, beside a way around them."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width_in), nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        same = width_in == width and stride == 1
        self.around = nn.Identity() if same else nn.Conv2d(width_in, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        ready = F.relu(self.norm1(x))
        return self.around(x if isinstance(self.around, nn.Identity) else ready) + self.conv2(
            F.relu(self.norm2(self.conv1(ready)))
        )


def glanced(rgb: Float[Tensor, "B 3 H W"], opacity: Float[Tensor, "B 1 H W"], turn: Tensor | None = None) -> Tensor:
    """What the encoder looks at, [B, 4, 64, 64]: the thing cut out, as large as the square allows, before mid grey.

    Args:
        rgb: straight colours in [0, 1]. opacity: in [0, 1]; more than a half is the thing.
        turn: [B, 2, 2] applied to the square's coordinates, to stretch and tilt pictures in training; None for none.
    """
    solid = opacity[:, 0] > 0.5
    scales, middles = [], []
    for axis in (1, 2):  # across rows: the columns that are taken, then the rows
        taken = solid.any(axis)
        size = taken.shape[1]
        first = taken.float().argmax(1)
        last = size - taken.flip(1).float().argmax(1)
        scales.append((last - first) / size)
        middles.append((last + first) / size - 1)
    widest = torch.stack([scales[0] * opacity.shape[3], scales[1] * opacity.shape[2]]).amax(0)
    middle = torch.stack(middles, 1)
    aspect = torch.tensor([opacity.shape[3], opacity.shape[2]], device=opacity.device)
    scale = torch.diag_embed(widest[:, None] / aspect)
    theta = torch.cat([scale if turn is None else scale @ turn, middle[:, :, None]], 2)
    grid = F.affine_grid(theta, [len(rgb), 4, GLANCE, GLANCE], align_corners=False)
    layers = torch.cat([rgb * opacity, opacity], 1)
    shrink = max(round(float(widest.median()) / GLANCE), 1)
    layers = F.avg_pool2d(layers, shrink) if shrink > 1 else layers
    seen = F.grid_sample(layers, grid, padding_mode="zeros", align_corners=False)
    mask = seen[:, 3:]
    return torch.cat([seen[:, :3] + 0.5 * (1 - mask), mask], 1) * 2 - 1


def likely_models(folder: Path, picture: UInt8[np.ndarray, "H W 4"]) -> dict[str, float]:
    """Log-probabilities of the models that a cut-out picture, straight alpha, may show, by their words.

    `folder` is the built-in prior's. Raises EnvironmentFault where its encoder is missing or damaged.
    """
    encoder = _load(folder / "encoder")
    layers = torch.from_numpy(np.ascontiguousarray(picture)).movedim(-1, 0)[None].float() / 255
    with torch.no_grad():
        told = encoder(glanced(layers[:, :3], layers[:, 3:]))
    chances = told.models[0].log_softmax(0).tolist()
    return dict(zip(encoder.config["styles"], chances, strict=True))


@lru_cache(1)
def _load(folder: Path) -> PictureEncoder:
    try:
        return PictureEncoder.from_pretrained(folder, local_files_only=True).float().eval()
    except Exception as error:  # whatever diffusers and safetensors trip over in a damaged file
        raise EnvironmentFault(
            f"The prior's image encoder {folder} cannot be read: {first_line(error)}",
            "Reinstall magic3d, or say in words what the picture shows.",
        ) from error
