"""Layers that the built-in prior's networks share."""

from __future__ import annotations

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Residual(nn.Module):
    """Two convolutions; with an embedding, its normalised input is scaled and shifted by the conditioning (FiLM)."""

    def __init__(self, width: int, out: int, embedding: int = 0, norm: bool = True) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(8, channels) if norm else nn.Identity() for channels in (width, out))
        self.conv1 = nn.Conv2d(width, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * out) if embedding else None
        self.skip = nn.Conv2d(width, out, 1) if width != out else nn.Identity()

    def forward(self, x: Float[Tensor, "B C h w"], emb: Float[Tensor, "B E"] | None = None) -> Tensor:
        hidden = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.film is not None and emb is not None:
            scale, shift = self.film(F.silu(emb))[:, :, None, None].chunk(2, 1)
            hidden = hidden * (1 + scale) + shift
        return self.skip(x) + self.conv2(F.silu(hidden))


def unit_gain(model: nn.Module) -> None:
    """Unit gain in every linear layer: at PyTorch's default the caption hardly reaches the picture."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1.3 / math.sqrt(module.in_features))
            nn.init.zeros_(module.bias)
