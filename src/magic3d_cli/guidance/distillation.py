"""Score distillation (DreamFusion, arXiv 2209.14988, section 3): a prior as a loss on rendered images.

    x = encode(image);  z = alpha_t x + sigma_t eps
    eps_hat = uncond + s (cond - uncond)           the guidance scale is s, not s + 1
    g = w(t) (eps_hat - eps)                       the gradient at x, the denoiser's Jacobian left out

With Perp-Neg (arXiv 2304.04968) cond - uncond is first turned away from the views that this one is not. A prior that
is shown a picture beside the words is guided by both, or the scene becomes the picture (Magic3D, section 5 and appendix
of arXiv 2211.10440):

    eps_hat = uncond + s_text (words - uncond) + s_joint (words and picture - uncond),  s_text + s_joint = s

g enters by reparameterisation: 0.5 ||x - stop_gradient(x - g)||^2 has exactly g as its gradient at x, and a
value that means something. It is summed over x and averaged over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.guidance.conditioning import Conditioning, PictureConditioning
from magic3d_cli.guidance.diffusion import Prior, alpha_sigma
from magic3d_cli.guidance.schedule import mix, sample_timesteps
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import TEXTURELESS, Views
from magic3d_cli.settings import GuidanceSettings, TimestepSchedule
from magic3d_cli.training.terms import Step

WEIGHTINGS = ("sds", "uniform")
SHOWN_UNTIL, SHOWN = 0.5, 0.5
"""Diffusion time below which a picture has a say, and then the share s_joint / s [Magic3D, arXiv appendix: 50 of 100]:
in the strong noise of later times it would decide on the shape."""


@dataclass(frozen=True)
class ScoreDistillation:
    """A loss of renders: pulls them toward what the prior expects to see from their cameras."""

    prior: Prior
    conditioning: Conditioning | PictureConditioning
    settings: GuidanceSettings

    def __post_init__(self) -> None:
        if self.settings.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting {self.settings.weighting!r} is none of {WEIGHTINGS}")

    def __call__(self, render: Render, step: Step) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Loss and metrics of a batch of renders.

        Predictions that are not finite make a loss that is not finite: the stage decides what to do about it.
        """
        clean = self.prior.encode_image(self._shown(render, step.views).permute(0, 3, 1, 2))
        timestep, noise = self.drawn(clean, step, self.settings.times)
        scale = mix(*self.settings.scale, step.progress)
        with torch.no_grad():
            gradient = self.gradient(clean.detach(), timestep, noise, step.views, scale)
        return reparameterised(clean, gradient), self.metrics(gradient, timestep, scale)

    def drawn(
        self, clean: Float[Tensor, "B C h w"], step: Step, times: TimestepSchedule
    ) -> tuple[Int[Tensor, "B"], Float[Tensor, "B C h w"]]:
        """A diffusion time and noise for each view."""
        steps, generator = len(self.prior.alphas_cumprod), step.generator
        together = self.prior.set_size  # views of a set are one sample, as noisy as each other
        timestep = step.draw(
            lambda n: sample_timesteps(times, step.progress, n // together, steps, generator).repeat_interleave(
                together
            )
        )
        noise = step.draw(lambda n: torch.randn(n, *clean.shape[1:], generator=generator)).to(clean)
        return timestep.to(clean.device), noise

    def metrics(self, gradient: Float[Tensor, "B C h w"], timestep: Int[Tensor, "B"], scale: float) -> dict[str, float]:
        """What is logged of a step."""
        return {
            "gradient": float(gradient.abs().mean()),
            "time": float(timestep.double().mean()) / len(self.prior.alphas_cumprod),
            "scale": scale,
        }

    def _shown(self, render: Render, views: Views) -> Float[Tensor, "B H W 3"]:
        """The pictures that the prior is shown: with `settings.normals`, of textureless views their normals."""
        if not self.settings.normals or self.prior.camera_conditioned:
            return render.rgb
        normals = views.shading == TEXTURELESS
        return torch.where(normals[:, None, None, None], normal_map(render, views), render.rgb)

    def gradient(
        self,
        clean: Float[Tensor, "B C h w"],
        timestep: Int[Tensor, "B"],
        noise: Float[Tensor, "B C h w"],
        views: Views,
        scale: float,
    ) -> Float[Tensor, "B C h w"]:
        """g for given noise: descending along it moves x toward the prior's clean image."""
        alpha, sigma = alpha_sigma(self.prior.alphas_cumprod, timestep)
        denoised, eps = self.guided(alpha * clean + sigma * noise, timestep, views, scale)
        return sigma**2 * (eps - noise) if self.settings.weighting == "sds" else clean - denoised

    def guided(
        self, noisy: Float[Tensor, "B C h w"], timestep: Int[Tensor, "B"], views: Views, scale: float
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """The clean images that the prior expects, guided by the text, and the noise that they leave."""
        settings = self.settings
        negatives = self.conditioning.negatives(views) if settings.perp_neg else []
        weights = [settings.perp_neg * weight.to(noisy) for _, weight in negatives]
        uncond, cond, *others = self.predict(noisy, timestep, views, scale, [text for text, _ in negatives])
        denoised, eps = (
            classifier_free_guidance(u, c, scale, o, weights) for u, c, *o in zip(uncond, cond, *others, strict=True)
        )
        clipped = settings.clean_clip and self.prior.kind == "pixel"
        if settings.rescale:
            denoised = rescaled(denoised, cond[0], settings.rescale, self.prior.set_size)
        if clipped:
            denoised = denoised.clamp(-1, 1)
        if clipped or settings.rescale:
            alpha, sigma = alpha_sigma(self.prior.alphas_cumprod, timestep)
            eps = (noisy - alpha * denoised) / sigma.clamp(min=1e-4)
        return denoised, eps

    def predict(
        self,
        noisy: Float[Tensor, "B C h w"],
        timestep: Int[Tensor, "B"],
        views: Views,
        scale: float,
        negatives: list[Float[Tensor, "B L D"]],
    ) -> list[tuple[Tensor, Tensor]]:
        """(clean, noise) without the prompt, with it, and with each negative: one batch, the same view features.

        Where a picture is shown beside the prompt, the prediction with it is a mean of that by the words alone and that
        by both, of which only the first is asked for where no time is early enough; at scale 1 it is that by both.
        """
        features = None
        if self.prior.camera_conditioned:
            features = (views.camera_matrix() if self.prior.set_size > 1 else views.camera_embedding()).to(noisy)
        text = self.conditioning.text(views).to(noisy)
        if scale == 1 and not negatives:  # the unconditional half has no say
            cond = self.prior.denoise(noisy, timestep, text, features)
            return [cond, cond]
        words, early = self.conditioning.words_alone(views), timestep < SHOWN_UNTIL * len(self.prior.alphas_cumprod)
        if words is not None and not early.any():
            text, words = words.to(noisy), None
        texts = [self.conditioning.without(views).to(noisy), text, *(negative.to(noisy) for negative in negatives)]
        if words is not None:
            texts.append(words.to(noisy))
        count = len(texts)
        features = None if features is None else features.repeat(count, 1)
        clean, noise = self.prior.denoise(
            noisy.repeat(count, 1, 1, 1), timestep.repeat(count), torch.cat(texts), features
        )
        found = list(zip(clean.chunk(count), noise.chunk(count), strict=True))
        if words is not None:
            share = (SHOWN * early.to(noisy)).view(-1, 1, 1, 1)
            alone, both = found.pop(), found[1]
            found[1] = torch.lerp(alone[0], both[0], share), torch.lerp(alone[1], both[1], share)
        return found


def normal_map(render: Render, views: Views) -> Float[Tensor, "B H W 3"]:
    """Normals as colours: right, up and towards the camera as red, green and blue, each from -1 to 1 as 0 to 1."""
    right, up, forward = views.axes()
    axes = torch.stack([right, up, -forward], 1).to(render.normal)
    seen = 0.5 + 0.5 * torch.einsum("bhwc,bkc->bhwk", render.normal, axes)
    opacity = render.opacity[..., None]
    return opacity * seen + (1 - opacity) * views.backdrop[:, None, None].to(seen)


def classifier_free_guidance(
    uncond: Float[Tensor, "B *s"],
    cond: Float[Tensor, "B *s"],
    scale: float,
    negatives: Sequence[Float[Tensor, "B *s"]] = (),
    weights: Sequence[Float[Tensor, "B"]] = (),
) -> Float[Tensor, "B *s"]:
    """Classifier-free guidance uncond + s (cond - uncond), Ho and Salimans 2022 in Imagen's convention.

    Of each negative, `weights` times what is perpendicular to cond - uncond is taken away from it (Perp-Neg): what the
    negative shares with the prompt, the object itself, is left alone.

    Clean images and noises are affine in each other with weights that sum to one, so either may be guided.
    """
    main = cond - uncond
    direction = main
    for negative, weight in zip(negatives, weights, strict=True):
        direction = direction - weight.view(-1, *[1] * (main.ndim - 1)) * perpendicular(negative - uncond, main)
    return uncond + scale * direction


def perpendicular(vectors: Float[Tensor, "B *s"], to: Float[Tensor, "B *s"]) -> Float[Tensor, "B *s"]:
    """The part of each vector that is perpendicular to the other one of its row, over all its pixels."""
    flat, axis = vectors.flatten(1), to.flatten(1)
    along = (flat * axis).sum(1, keepdim=True) / axis.square().sum(1, keepdim=True).clamp(min=1e-12)
    return (flat - along * axis).view_as(vectors)


def rescaled(
    guided: Float[Tensor, "B *s"], cond: Float[Tensor, "B *s"], share: float, together: int = 1
) -> Float[Tensor, "B *s"]:
    """Guided clean images, taken this share of the way to the contrast that they have at scale 1.

    A high scale makes colours too strong (Lin et al., arXiv 2305.08891, section 3.4, equations 15 and 16). Of views
    that are shown `together`, one deviation is taken over all: each for itself would lighten a dark back (MVDream's
    code for its 3D loss).
    """
    sets = guided.unflatten(0, (-1, together)).flatten(1)
    told = cond.unflatten(0, (-1, together)).flatten(1)
    factor = (told.std(1) + 1e-8) / (sets.std(1) + 1e-8)
    factor = (share * factor + 1 - share).repeat_interleave(together)
    return guided * factor.view(-1, *[1] * (guided.ndim - 1))


def reparameterised(x: Float[Tensor, "B *d"], gradient: Float[Tensor, "B *d"]) -> Float[Tensor, ""]:
    """0.5 ||x - stop_gradient(x - g)||^2, summed over each item and averaged over the batch: d/dx = g / B."""
    target = (x - gradient).detach()
    return 0.5 * (x - target).square().sum() / len(x)
