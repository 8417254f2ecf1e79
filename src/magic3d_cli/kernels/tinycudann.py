"""Hash encoding by tinycudann (github.com/NVlabs/tiny-cuda-nn, BSD-3-Clause), an optional library.

A grid of tinycudann with a single level holds one of our levels, in our order: its index and its hash are ours
(`grid_index` in its common_device.h), and with a base_resolution of r + 1 vertices it has r cells a side
(`grid_scale`). So a checkpoint's table is handed to it as it is. Several levels in one grid would not do: their scales
are no integers. Its networks are not used: they have no biases, and FullyFusedMLP works in half precision, while a
checkpoint's heads have biases and the CPU computes them in single precision.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

WIDTHS = (1, 2, 4, 8)
"""Features a level that it is compiled for."""
TOLERANCE = 1e-3
"""Of values and gradients, for tables and cotangents in [0, 1] and levels of up to 2048 cells a side: there a shifted
point is rounded to 2e-4 of a cell along each axis."""


def hash_encode(
    points: Float[Tensor, "N 3"],
    table: Float[Tensor, "L T F"],
    resolutions: tuple[int, ...],
    known: Float[Tensor, "N L*F"] | None = None,
) -> Float[Tensor, "N L*F"]:
    """Features of `hash_encode_reference`, for a float32 table on a GPU, F one of WIDTHS.

    `known` saves nothing here: tinycudann gives a gradient only after its own evaluation.
    """
    levels, size, width = table.shape
    if len(points) == 0:
        return table[:, :0].reshape(0, levels * width)  # tinycudann would leave the gradient unwritten
    points = points.detach().float().clamp(0, 1)
    features = []
    for level, resolution in zip(table.unbind(), resolutions, strict=True):
        encoding, entries = _encoding(table.device, resolution, size, width)
        # `pos_fract` adds half a cell. On a face rounding may choose the cell outside, but then with no weight for the
        # vertices beyond the face, whose indices wrap around.
        shifted = points - 0.5 / resolution
        features.append(functional_call(encoding, {"params": level[:entries].reshape(-1)}, (shifted,)))
    encoded = torch.cat(features, -1)
    if encoded.requires_grad:
        encoded.register_hook(Tensor.contiguous)  # tinycudann refuses a gradient in another layout
    return encoded


@cache
def _encoding(device: torch.device, resolution: int, size: int, width: int) -> tuple[nn.Module, int]:
    """One level, without parameters of its own, and how many of a table's leading entries it uses."""
    import tinycudann  # only here: without a GPU it cannot be imported

    settings = {
        "otype": "HashGrid",
        "n_levels": 1,
        "n_features_per_level": width,
        "log2_hashmap_size": size.bit_length() - 1,
        "base_resolution": resolution + 1,
    }
    with torch.cuda.device(device):
        encoding = tinycudann.Encoding(3, settings, dtype=torch.float32)
    entries = encoding.params.numel() // width
    encoding.params = None  # all levels' would take as much memory as the table
    return encoding, entries
