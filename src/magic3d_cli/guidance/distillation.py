"""Score distillation (DreamFusion, arXiv 2209.14988, section 3): a prior as a loss on rendered images.

    x = encode(image);  z = alpha_t x + sigma_t eps
    eps_hat = uncond + s (cond - uncond)           the guidance scale is s, not s + 1
    g = w(t) (eps_hat - eps)                       the gradient at x, the denoiser's Jacobian left out

g enters by reparameterisation: 0.5 ||x - stop_gradient(x - g)||^2 has exactly g as its gradient at x, and a
value that means something. It is summed over x and averaged over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.guidance.conditioning import Conditioning
from magic3d_cli.guidance.diffusion import Prior, alpha_sigma
from magic3d_cli.guidance.schedule import mix, sample_timesteps
from magic3d_cli.ranks import current
from magic3d_cli.settings import GuidanceSettings
from magic3d_cli.views import Views

WEIGHTINGS = ("sds", "uniform")


@dataclass(frozen=True)
class ScoreDistillation:
    """A stage's objective: pulls rendered images toward what the prior expects to see from their cameras."""

    prior: Prior
    conditioning: Conditioning
    settings: GuidanceSettings

    def __post_init__(self) -> None:
        if self.settings.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting {self.settings.weighting!r} is none of {WEIGHTINGS}")

    def __call__(
        self, images: Float[Tensor, "B H W 3"], views: Views, progress: float, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Loss and metrics of a batch of renders in [0, 1].

        `progress` runs from 0 to 1 over the stage. All randomness comes from `generator`, on the CPU, so that
        a step draws the same on every device. Predictions that are not finite make a loss that is not finite:
        the stage decides what to do about it.
        """
        clean = self.prior.encode_image(images.permute(0, 3, 1, 2))
        times, steps, ranks = self.settings.times, len(self.prior.alphas_cumprod), current()
        timestep = ranks.draw(lambda n: sample_timesteps(times, progress, n, steps, generator), len(views))
        noise = ranks.draw(lambda n: torch.randn(n, *clean.shape[1:], generator=generator), len(views)).to(clean)
        with torch.no_grad():
            scale = mix(*self.settings.scale, progress)
            gradient = self.gradient(clean.detach(), timestep.to(clean.device), noise, views, scale)
        loss = reparameterised(clean, gradient)
        metrics = {
            "gradient": float(gradient.abs().mean()),
            "time": float(timestep.double().mean()) / len(self.prior.alphas_cumprod),
            "scale": scale,
        }
        return loss, metrics

    def gradient(
        self,
        clean: Float[Tensor, "B C h w"],
        timestep: Int[Tensor, "B"],
        noise: Float[Tensor, "B C h w"],
        views: Views,
        scale: float,
    ) -> Float[Tensor, "B C h w"]:
        """g for given noise: descending along it moves x toward the prior's guess."""
        settings = self.settings
        alpha, sigma = alpha_sigma(self.prior.alphas_cumprod, timestep)
        noisy = alpha * clean + sigma * noise
        (plain, plain_eps), (told, told_eps) = self.predict(noisy, timestep, views, scale)
        guess, eps = guide(plain, told, scale), guide(plain_eps, told_eps, scale)
        clip = settings.clean_clip and self.prior.kind == "pixel"
        if settings.rescale or clip:
            guess = rescaled(guess, told, settings.rescale)
            guess = guess.clamp(-1, 1) if clip else guess
            eps = (noisy - alpha * guess) / sigma.clamp(min=1e-4)
        gradient = sigma**2 * (eps - noise) if settings.weighting == "sds" else clean - guess
        return limited(gradient, settings.clip_gradient) if settings.clip_gradient else gradient

    def predict(
        self, noisy: Float[Tensor, "B C h w"], timestep: Int[Tensor, "B"], views: Views, scale: float
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(clean, noise) without and with the prompt, both in one batch and with the same view features."""
        features = views.features().to(noisy) if self.prior.takes_views else None
        text = self.conditioning.text(views).to(noisy)
        if scale == 1:  # the unconditional half has no say
            told = self.prior.denoise(noisy, timestep, text, features)
            return told, told
        text = torch.cat([self.conditioning.without(views).to(noisy), text])
        features = None if features is None else torch.cat([features, features])
        noisy, timestep = torch.cat([noisy, noisy]), torch.cat([timestep, timestep])
        clean, noise = self.prior.denoise(noisy, timestep, text, features)
        half = len(views)
        return (clean[:half], noise[:half]), (clean[half:], noise[half:])


def guide(plain: Float[Tensor, "*s"], told: Float[Tensor, "*s"], scale: float) -> Float[Tensor, "*s"]:
    """Classifier-free guidance uncond + s (cond - uncond), Ho and Salimans 2022 in Imagen's convention.

    Clean images and noises are affine in each other with weights that sum to one, so either may be guided.
    """
    return plain + scale * (told - plain)


def rescaled(guess: Float[Tensor, "B C h w"], told: Float[Tensor, "B C h w"], share: float) -> Float[Tensor, "B C h w"]:
    """Pull each guided image's contrast back to the unguided one's (Lin et al., arXiv 2305.08891, eq. 15)."""
    ratio = told.std((1, 2, 3), keepdim=True) / guess.std((1, 2, 3), keepdim=True).clamp(min=1e-6)
    return guess * (share * ratio + (1 - share))


def limited(gradient: Float[Tensor, "B C h w"], largest: float) -> Float[Tensor, "B C h w"]:
    """Scale down each image's gradient whose root mean square exceeds `largest`."""
    rms = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
    return gradient * (largest / rms.clamp(min=1e-12)).clamp(max=1)


def reparameterised(x: Float[Tensor, "B *d"], gradient: Float[Tensor, "B *d"]) -> Float[Tensor, ""]:
    """0.5 ||x - stop_gradient(x - g)||^2, summed over each item and averaged over the batch: d/dx = g / B."""
    target = (x - gradient).detach()
    return 0.5 * (x - target).square().sum() / len(x)
