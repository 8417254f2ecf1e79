"""What was understood of pictures, as a job uses it and a checkpoint keeps it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from magic3d_cli.guidance.builtin.fitting import Fit
from magic3d_cli.guidance.builtin.projection import painted
from magic3d_cli.guidance.builtin.volume import CaptionVolume
from magic3d_cli.guidance.builtin.voxels import mended
from magic3d_cli.scene.reference import Reference


@dataclass(frozen=True)
class Pictured:
    """What was understood of pictures, as a checkpoint keeps it.

    Attributes:
        prompt: what is asked of a prior and said in the files: the person's own, or what the picture looks like.
        fit: the built-in prior's model that looks like the first picture, and how it was changed; None where none does.
        imagine: as `ReferenceSettings.imagine`, resolved.
        digest: of the request.
    """

    prompt: str
    references: tuple[Reference, ...]
    fit: Fit | None
    imagine: float
    digest: str

    @torch.no_grad()
    def volume(self, network: CaptionVolume, model: int) -> Float[Tensor, "J I K 7"]:
        """The fitted model's volume, bent and in the colours of the pictures."""
        assert self.fit is not None
        volume = self.fit.bent(mended(network.volume_of(network.latent(model))), network.extent)
        return painted(network, volume, self.references)

    def sheet(self) -> bytes:
        """The references as they were understood, side by side over grey, as PNG."""
        tiles = []
        for reference in self.references:
            alpha = reference.mask[..., None].float() / 255
            tiles.append((reference.rgb.float() * alpha + 128 * (1 - alpha)).round().to(torch.uint8).numpy())
        buffer = io.BytesIO()
        Image.fromarray(np.concatenate(tiles, 1)).save(buffer, "PNG")
        return buffer.getvalue()

    def to_json(self) -> dict[str, Any]:
        return {
            "prompt": self.prompt,
            "references": [reference.to_json() for reference in self.references],
            "fit": self.fit.to_json() if self.fit else None,
            "imagine": self.imagine,
            "digest": self.digest,
        }

    def to_tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for number, reference in enumerate(self.references):
            tensors |= reference.to_tensors(f"picture.{number}")
        return tensors

    @staticmethod
    def restored(tensors: dict[str, Tensor], meta: dict[str, Any]) -> Pictured:
        """Inverse of `to_tensors` and `to_json`. Raises KeyError or TypeError for what does not fit."""
        references = [
            Reference.restored(f"picture.{number}", tensors, one) for number, one in enumerate(meta["references"])
        ]
        fit = Fit.from_json(meta["fit"]) if meta["fit"] else None
        return Pictured(meta["prompt"], tuple(references), fit, meta["imagine"], meta["digest"])
