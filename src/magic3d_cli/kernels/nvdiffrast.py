"""Visible triangles by nvdiffrast (github.com/NVlabs/nvdiffrast), an optional library for research and evaluation."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def can_draw(size: int) -> bool:
    """Whether it draws images of `size` pixels per side: multiples of eight, up to 2048."""
    return size % 8 == 0 and size <= 2048


def rasterize(clip: Float[Tensor, "B V 4"], faces: Int[Tensor, "F 3"], size: int) -> Int[Tensor, "B H W"]:
    """Ids of `rasterize_reference` but for pixels on edges, for images on a GPU that it `can_draw`."""
    module, context = _context(clip.device)
    buffer, _ = module.rasterize(
        context, clip.detach().float().contiguous(), faces.int().contiguous(), (size, size), grad_db=False
    )
    # nvdiffrast's row 0 is the bottom, and it stores id + 1 so that 0 means background.
    return (buffer[..., 3].flip(1).int() - 1).contiguous()


@cache
def _context(device: torch.device) -> tuple[Any, Any]:
    """Its torch module and its state on a GPU, which are made once."""
    import nvdiffrast.torch as module  # only here: it is not always installed

    return module, module.RasterizeCudaContext(device)
