"""Latents of many models in little space: cut to the box that holds the model, rounded, deflated.

Outside a model's box nothing is stored and nothing is decoded; that is two thirds of three planes. Latents are learned
with noise as large as the rounding, so it costs nothing that can be measured. Principal components of all models, which
were kept before, took twice the space, and all of it was read for one caption.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

STEP = 0.3
"""To which latents are rounded."""
AXES = ((0, 1), (0, 2), (1, 2))
"""The axes (y, x, z) that each plane spans."""

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Latent:
    """A model's latent.

    Args:
        box: first cell, and the cell after the last, along y, x and z.
        planes: [E, rows, columns] each: y x, y z and x z, cut to the box.
    """

    box: Box
    planes: tuple[Float[Tensor, "E h w"], ...]

    @staticmethod
    def whole(planes: Float[Tensor, "3 E s s"]) -> Latent:
        """A latent whose box is the whole cube."""
        side = planes.shape[-1]
        return Latent(((0, side),) * 3, tuple(planes))


def encode(latent: Latent) -> bytes:
    """Six bytes of box, then the deflated planes, an int8 a number, channel by channel."""
    numbers = torch.cat([plane.flatten() for plane in latent.planes]).float()
    rounded = (numbers / STEP).round().clamp(-127, 127).to(torch.int8).cpu().numpy()
    return bytes(n for ends in latent.box for n in ends) + zlib.compress(rounded.tobytes(), 9)


def decode(data: bytes, channels: int) -> Latent:
    """The latent that `encode` wrote, rounded, float32. Raises ValueError when the bytes are not of that kind."""
    low, box = 0, tuple((data[2 * axis], data[2 * axis + 1]) for axis in range(3))
    try:
        numbers = np.frombuffer(zlib.decompress(data[6:]), np.int8)
    except zlib.error as error:
        raise ValueError(f"a latent cannot be unpacked: {error}") from error
    planes = []
    for rows, columns in AXES:
        shape = channels, box[rows][1] - box[rows][0], box[columns][1] - box[columns][0]
        size = shape[0] * shape[1] * shape[2]
        planes.append(torch.from_numpy(numbers[low : low + size].astype(np.float32) * STEP).view(shape))
        low += size
    if low != len(numbers):
        raise ValueError(f"a latent has {len(numbers)} numbers, and its box wants {low}")
    return Latent(box, tuple(planes))  # type: ignore[arg-type]
