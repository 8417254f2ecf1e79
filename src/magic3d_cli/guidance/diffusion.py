"""What a diffusion prior is to this program, and the algebra of its predictions.

z_t = alpha x + sigma noise with alpha^2 + sigma^2 = 1 and alpha^2 = alphas_cumprod[t].
"""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.guidance.builtin.vocabulary import Vocabulary

PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""What a network may output: the noise, v = alpha noise - sigma x (Salimans and Ho 2022), the clean image."""


class Prior(Protocol):
    """A diffusion model of images of one object: z_t = alpha x + sigma noise, alpha^2 = alphas_cumprod[t]."""

    id: str
    kind: str  # "pixel": x is the image in [-1, 1]; "latent": x is the scaled mean of the VAE's encoding
    image_size: int  # side in pixels of the images it is meant for; others are resized
    camera_conditioned: bool  # wants Views.camera_embedding(); else the view is told in words
    set_size: int  # views that it is shown together, evenly round the object; then it wants Views.camera_matrix()
    vocabulary: Vocabulary | None  # the words it knows; None: any prompt
    alphas_cumprod: Float[Tensor, "T"]
    device: torch.device

    def encode_prompt(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        """Text states; the empty prompt is the unconditional one."""

    def release_text_encoder(self) -> None:
        """Free the text encoder's memory; `encode_prompt` loads it again when called."""

    def encode_image(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Images in [0, 1] to clean x, differentiable."""

    def denoise(
        self,
        noisy: Float[Tensor, "B C h w"],
        timestep: Int[Tensor, "B"],
        text: Float[Tensor, "B L D"],
        features: Float[Tensor, "B F"] | None,
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """Predicted clean x and noise, float32, without gradient."""


def alpha_sigma(
    alphas_cumprod: Float[Tensor, "T"], timestep: Int[Tensor, "B"]
) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
    """Scale of the clean signal and of the noise at each timestep, in float32."""
    squared = alphas_cumprod[timestep.to(alphas_cumprod.device)].float().view(-1, 1, 1, 1)
    return squared.sqrt(), (1 - squared).sqrt()


def as_clean_and_noise(
    prediction: str,
    output: Float[Tensor, "B C h w"],
    noisy: Float[Tensor, "B C h w"],
    alpha: Float[Tensor, "B 1 1 1"],
    sigma: Float[Tensor, "B 1 1 1"],
) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
    """Clean x and noise from a network's output (v: Salimans and Ho 2022, v = alpha noise - sigma x)."""
    if prediction == "epsilon":
        return (noisy - sigma * output) / alpha.clamp(min=1e-6), output
    if prediction == "v_prediction":
        return alpha * noisy - sigma * output, sigma * noisy + alpha * output
    if prediction == "sample":
        return output, (noisy - alpha * output) / sigma.clamp(min=1e-4)
    raise ValueError(f"prediction type {prediction!r} is none of {PREDICTIONS}")
