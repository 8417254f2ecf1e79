"""What a prior is trained by, a loss of noised pictures; and how it draws pictures of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusion import alpha_sigma

_GUIDANCE, _SAMPLING = 7.5, 25  # of pictures that are drawn: scale, DDIM steps


def predicted_and_wanted(
    prior: DiffusersPrior,
    clean: Float[Tensor, "B C h w"],
    text: Float[Tensor, "B L D"],
    time: Int[Tensor, "B"],
    noise: Float[Tensor, "B C h w"],
) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
    """What the prior's network predicts of a noised picture and what it should have, float32, with gradient."""
    alpha, sigma = alpha_sigma(prior.alphas_cumprod, time)
    noisy = alpha * clean + sigma * noise
    wanted = {"epsilon": noise, "sample": clean, "v_prediction": alpha * noise - sigma * clean}[prior.prediction]
    return prior.predict(noisy, time, text).float(), wanted.float()


def denoising_loss(
    prior: DiffusersPrior,
    clean: Float[Tensor, "1 C h w"],
    text: Float[Tensor, "1 L D"],
    generator: torch.Generator,
    reduction: str = "mean",
) -> Float[Tensor, ""]:
    """Squared error of what the prior predicts of a noisy picture, at a time drawn from all (DDPM's loss).

    Its "mean", or its "sum": half precision would lose the gradient of a mean over thousands of numbers.
    """
    time = torch.randint(len(prior.alphas_cumprod), (len(clean),), generator=generator).to(prior.device)
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    return F.mse_loss(*predicted_and_wanted(prior, clean, text, time, noise), reduction=reduction)


@torch.no_grad()
def sample(
    prior: DiffusersPrior,
    text: Float[Tensor, "1 L D"],
    nothing: Float[Tensor, "1 L D"],
    shape: Sequence[int],
    generator: torch.Generator,
    begin: Float[Tensor, "1 C h w"] | None = None,
    strength: float = 1.0,
) -> Float[Tensor, "1 C h w"]:
    """A picture of the prior's own, as it sees pictures: by DDIM (arXiv 2010.02502) with classifier-free guidance.

    With another to `begin` with, that is noised by `strength` of all the times and drawn anew from there (SDEdit, arXiv
    2108.01073), in this share of the steps.
    """
    top, steps = (len(prior.alphas_cumprod) - 1) * strength, max(round(_SAMPLING * strength), 1)
    times = [round(top * (1 - n / steps)) for n in range(steps)]
    now = torch.randn((1, *shape), generator=generator).to(prior.device)
    if begin is not None:
        alpha, sigma = alpha_sigma(prior.alphas_cumprod, torch.full((1,), times[0], device=prior.device))
        now = alpha * begin + sigma * now
    both = torch.cat([nothing, text])
    for time, following in zip(times, [*times[1:], None], strict=True):
        at = torch.full((2,), time, device=prior.device)
        clean, _ = prior.denoise(torch.cat([now, now]), at, both)
        clean = clean[:1] + _GUIDANCE * (clean[1:] - clean[:1])
        if prior.kind == "pixel":  # or at nearly pure noise a small error becomes a picture far out of range
            clean = clean.clamp(-1, 1)
        alpha, sigma = alpha_sigma(prior.alphas_cumprod, at[:1])
        if following is None:
            return clean
        noise = (now - alpha * clean) / sigma.clamp(min=1e-6)
        alpha, sigma = alpha_sigma(prior.alphas_cumprod, torch.full((1,), following, device=prior.device))
        now = alpha * clean + sigma * noise
    return now
