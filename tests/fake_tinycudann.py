"""What tinycudann's Encoding computes, in plain PyTorch: for machines where it cannot be installed.

Written from its sources of April 2026 (version 2.0): include/tiny-cuda-nn/encodings/grid.h and common_device.h,
bindings/torch/tinycudann/modules.py. Only grids of linear interpolation, in single precision.
"""

from __future__ import annotations

import math
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

PRIMES = (1, 2654435761, 805459861)


def module(encoding: type[nn.Module]) -> ModuleType:
    """A module `tinycudann`, for sys.modules."""
    made = ModuleType("tinycudann")
    made.__spec__ = ModuleSpec("tinycudann", None)
    made.Encoding = encoding  # type: ignore[attr-defined]
    return made


class _Bindings(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: Tensor) -> Tensor:
        return out.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        scaled = grad * 1.0  # by the loss scale
        if not scaled.is_contiguous():
            raise RuntimeError("bindings.cpp check failed dL_doutput.is_contiguous()")
        return scaled


class Encoding(nn.Module):
    """A multi-resolution hash grid, with the defaults of the original."""

    def __init__(
        self, n_input_dims: int, encoding_config: dict[str, Any], seed: int = 1337, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        config = encoding_config
        if n_input_dims != 3 or dtype != torch.float32 or config.get("otype") not in ("Grid", "HashGrid"):
            raise RuntimeError("this stand-in has three dimensions, single precision and hash grids only")
        self.width = config.get("n_features_per_level", 2)
        if self.width not in (1, 2, 4, 8):
            raise RuntimeError("GridEncoding: n_features_per_level must be 1, 2, 4, or 8.")
        growth, base = config.get("per_level_scale", 2.0), config.get("base_resolution", 16)
        self.scales = [2 ** (level * math.log2(growth)) * base - 1 for level in range(config.get("n_levels", 16))]
        # A level has as many entries as vertices, in eights, but no more than the hash table's size.
        dense = [-(-(self.side(scale) ** 3) // 8) * 8 for scale in self.scales]
        self.sizes = [min(entries, 2 ** config.get("log2_hashmap_size", 19)) for entries in dense]
        initial = torch.rand(sum(self.sizes) * self.width, generator=torch.Generator().manual_seed(seed))
        self.params = nn.Parameter(initial * 2e-4 - 1e-4)

    @staticmethod
    def side(scale: float) -> int:
        return math.ceil(scale) + 1

    def forward(self, x: Tensor) -> Tensor:
        entries = sum(self.sizes)
        if len(x) == 0:
            raise AssertionError("the original leaves the gradient of an empty batch unwritten")
        if x.dtype != torch.float32 or self.params.shape != (entries * self.width,):
            raise RuntimeError("bindings.cpp check failed")
        levels = self.params.view(entries, self.width).split(self.sizes)
        padded = nn.functional.pad(x, (0, 0, 0, -len(x) % 256))
        out = torch.cat([self.level(padded, *level) for level in zip(self.scales, levels, strict=True)], -1)
        return _Bindings.apply(out)[: len(x), : out.shape[1]]

    def level(self, x: Tensor, scale: float, parameters: Tensor) -> Tensor:
        position = (scale * x.double() + 0.5).float()  # fused: the product is not rounded
        cell = position.floor()
        fraction = position - cell
        out = torch.zeros(len(x), self.width)
        for corner in torch.cartesian_prod(*[torch.arange(2)] * 3):
            weight = torch.where(corner == 1, fraction, 1 - fraction).prod(1)
            out = out + weight[:, None] * parameters[self.index(cell.long() + corner, scale, len(parameters))]
        return out

    def index(self, vertex: Tensor, scale: float, size: int) -> Tensor:
        """As unsigned 32-bit numbers: what is below 0 wraps around."""
        x, y, z = (vertex & 0xFFFFFFFF).unbind(-1)
        side = self.side(scale)
        dense = side <= 0x659 and side**3 <= size  # beyond 0x659 vertices a side the dense index would overflow
        index = x + side * y + side**2 * z if dense else x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]
        return (index & 0xFFFFFFFF) % size
