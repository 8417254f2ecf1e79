"""The ideal denoiser of one known object, in closed form: it tells a weak prior from a wrong pipeline.

If the images of an object seen from about a given camera are x_1 ... x_K, equally likely, then the best guess
of the clean image behind z = alpha x + sigma noise is their mean weighted by how well each explains z,

    E[x | z] = sum_k softmax_k(-||z - alpha x_k||^2 / (2 sigma^2)) x_k.

It speaks the `Prior` interface and learns the camera only from `Views.camera_embedding`, so distillation runs on it
unchanged: a broken sign, scale, schedule or camera convention shows in what is rebuilt.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.diffusers.prior import resize
from magic3d_cli.guidance.diffusion import alpha_sigma, as_clean_and_noise
from magic3d_cli.scene.views import CAMERA_EMBEDDING, Views, views_from_embedding

_NEARBY = torch.tensor([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)], dtype=torch.float32)
_AROUND = torch.tensor([(90, 0), (180, 0), (270, 0)], dtype=torch.float32)


class OraclePrior:
    """A pixel prior that knows one object.

    Told the prompt, it considers the asked camera and four neighbours; told nothing, the three other sides
    too, so that classifier-free guidance has something to push away from.

    Args:
        render: the object's images [B, S, S, 3] in [0, 1] for views and a size S.
        image_size: in pixels.
        spread: degrees of azimuth and elevation to the neighbouring cameras.
    """

    kind, camera_conditioned, set_size = "pixel", True, 1
    vocabulary: Vocabulary | None = None

    def __init__(
        self,
        render: Callable[[Views, int], Float[Tensor, "B S S 3"]],
        image_size: int = 64,
        spread: float = 4.0,
    ) -> None:
        self._render, self.image_size = render, image_size
        self.offsets = torch.deg2rad(torch.cat([_NEARBY * spread, _AROUND]))
        self.id, self.device = "oracle", torch.device("cpu")
        # The cosine schedule of Nichol and Dhariwal 2021, as the built-in prior has it.
        steps = torch.linspace(0, 1, 1001, dtype=torch.float64)
        level = torch.cos((steps + 0.008) / 1.008 * math.pi / 2).square()
        betas = (1 - level[1:] / level[:-1]).clamp(max=0.999)
        self.alphas_cumprod = (1 - betas).cumprod(0).float()

    def encode_prompt(self, prompts: list[str]) -> Float[Tensor, "B 1 1"]:
        """1 for any prompt, 0 for the empty one."""
        return torch.tensor([float(bool(prompt)) for prompt in prompts])[:, None, None]

    def release_text_encoder(self) -> None:
        """There is none."""

    def encode_image(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 S S"]:
        return resize(images, self.image_size) * 2 - 1

    @torch.no_grad()
    def denoise(
        self,
        noisy: Float[Tensor, "B 3 S S"],
        timestep: Int[Tensor, "B"],
        text: Float[Tensor, "B 1 1"],
        features: Float[Tensor, "B 23"] | None,
    ) -> tuple[Float[Tensor, "B 3 S S"], Float[Tensor, "B 3 S S"]]:
        """Posterior mean of the clean image, and the noise that goes with it."""
        if features is None or features.shape[1] != CAMERA_EMBEDDING:
            raise ValueError("the oracle has to be told the view")
        # Both halves of a guided batch ask about the same cameras: draw each only once.
        distinct, place = torch.unique(features, dim=0, return_inverse=True)
        images = self._candidates(views_from_embedding(distinct))[place]
        alpha, sigma = alpha_sigma(self.alphas_cumprod, timestep)
        apart = (noisy[:, None] - alpha[:, None] * images).square().sum((2, 3, 4))
        score = -apart / (2 * sigma.view(-1, 1).square())
        unlikely = (text[:, :, 0] > 0) & (torch.arange(score.shape[1]) >= len(_NEARBY))
        weights = score.masked_fill(unlikely, -math.inf).softmax(1)
        clean = torch.einsum("bk,bkchw->bchw", weights, images)
        return as_clean_and_noise("sample", clean, noisy, alpha, sigma)

    def _candidates(self, views: Views) -> Float[Tensor, "B K 3 S S"]:
        """The object from the asked cameras and those about them, everything else being the same."""
        count = len(self.offsets)
        index = torch.arange(len(views)).repeat_interleave(count)
        many, offsets = views[index], self.offsets.repeat(len(views), 1)
        many = many.replace(azimuth=many.azimuth + offsets[:, 0], elevation=many.elevation + offsets[:, 1])
        images = self._render(many, self.image_size).permute(0, 3, 1, 2) * 2 - 1
        return images.unflatten(0, (len(views), count))
