"""Priors that are shown a picture of the thing and asked how it looks from another side (Zero-1-to-3, 2303.11328).

The network's states are one token, of the picture's CLIP embedding and the camera's turn; the picture's latent lies
beside the noisy one. In diffusers layout by several authors, and Stable Zero123 among them; see `spec`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from magic3d_cli.errors import EnvironmentFault, first_line
from magic3d_cli.guidance.conditioning import PictureConditioning
from magic3d_cli.guidance.diffusers.files import weight_files
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import PriorSpec
from magic3d_cli.scene.reference import Reference

_MEAN, _SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the colours that CLIP's image encoder was taught with [CLIP, 2103.00020, its code]."""


class PicturePrior(DiffusersPrior):
    """A prior of Zero-1-to-3's kind. It has to `see` the picture before it denoises."""

    def __init__(self, spec: PriorSpec, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(spec, device, dtype)
        self._picture: Tensor | None = None

    def see(self, reference: Reference) -> PictureConditioning:
        """Take in the picture, before white, and give what the prior is told of each view.

        The image encoder is loaded for this alone.
        """
        rgb, opacity, _ = reference.at(self.image_size)
        image = (rgb * opacity[..., None] + 1 - opacity[..., None]).movedim(-1, 0)[None].to(self.device)
        self._picture = self._latent(image)
        assert self.spec.image_encoder is not None and self.spec.projection is not None
        encoder = self.component(self.spec.image_encoder, torch.float32)
        embedding = embedded(encoder, image)
        projection = load_projection(self.spec.projection).to(self.device)
        return PictureConditioning(embedding, reference.camera, projection, self.spec.absolute)

    @torch.no_grad()
    def _latent(self, image: Float[Tensor, "1 3 S S"]) -> Float[Tensor, "1 C s s"]:
        """The mode of the picture's encoding, without the factor that other latents have: so the network was taught."""
        assert self.vae is not None
        pixels = (image * 2 - 1).to(self.vae.dtype, memory_format=torch.channels_last)
        return self.vae.encode(pixels).latent_dist.mode().float()

    def _network(self, noisy: Tensor, timestep: Tensor, text: Tensor, features: Tensor | None) -> Tensor:
        """With the picture's latent beside each noisy one; zeros where the token is zeros, in guidance's other half."""
        if self._picture is None:
            raise ValueError(f"{self.id} has seen no picture")
        told = (text != 0).flatten(1).any(1).view(-1, 1, 1, 1).to(noisy)
        return super()._network(torch.cat([noisy, self._picture.to(noisy) * told], 1), timestep, text, features)


@torch.no_grad()
def embedded(encoder: Any, image: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B E"]:
    """CLIP's embedding of images in [0, 1]."""
    side = encoder.config.image_size
    small = F.interpolate(image, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
    mean, spread = (image.new_tensor(row).view(1, 3, 1, 1) for row in (_MEAN, _SPREAD))
    return encoder((small - mean) / spread).image_embeds.float()


def load_projection(folder: Path) -> nn.Linear:
    """The layer from picture and camera to the token, whichever way its author named it. Raises EnvironmentFault."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            tensors |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise EnvironmentFault(
                f"{path} cannot be read: {first_line(error)}", "The prior is damaged; fetch it again."
            ) from error
    named = {key.rpartition(".")[2]: tensor.float() for key, tensor in tensors.items()}
    layer = nn.Linear(named["weight"].shape[1], len(named["weight"]))
    layer.load_state_dict(named)
    return layer.requires_grad_(False)
