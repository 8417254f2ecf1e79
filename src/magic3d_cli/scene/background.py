"""A tiny environment map behind the object (Magic3D, supplement)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

_WIDTH = 16  # deliberately too small to paint an object on the sky


class Background(nn.Module):
    """Unit direction -> colour in [0, 1]."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        first, last = nn.Linear(9, _WIDTH), nn.Linear(_WIDTH, 3)
        self.net = nn.Sequential(first, nn.ReLU(), last)
        for layer in (first, last):
            weight = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.data = 0.3 * weight / layer.in_features**0.5
            layer.bias.data.zero_()

    def forward(self, direction: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        bands = torch.cat([direction, torch.sin(torch.pi * direction), torch.cos(torch.pi * direction)], -1)
        return torch.sigmoid(self.net(bands))
