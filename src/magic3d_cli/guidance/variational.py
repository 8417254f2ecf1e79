"""Variational score distillation (ProlificDreamer, arXiv 2305.16213): the renders' own score in place of the noise.

    g = w(t) (eps_hat - eps_phi)                     eps_hat: the prior's, guided by the text at scale s
    phi: minimises |eps_phi(z_t, t, camera) - eps|^2  for z_t of the renders, one step each time

eps_phi is the prior's own network with a LoRA that is told the camera: it learns what the scene looks like now, so that
only what the prior expects and the scene does not have is left of the gradient. The scale of 100 that plain score
distillation needs, with its strong colours, is not needed. As in threestudio, which the numbers are from, eps_phi is
told the prompt without words for the view, and at scale 1.

Not here: several scenes at once (particles), whose distribution the paper optimises; one is what it shows mostly. Nor
the tenth of steps that threestudio teaches without a camera, for a guidance that its scale of 1 does not use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.guidance.diffusers.denoising import predicted_and_wanted
from magic3d_cli.guidance.diffusers.lora import CameraLora
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusion import alpha_sigma
from magic3d_cli.guidance.distillation import ScoreDistillation, reparameterised
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import CAMERA_EMBEDDING, Views
from magic3d_cli.settings import VariationalSettings
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.optimiser import FiniteAdam, pack_state, unpack_state
from magic3d_cli.training.terms import Look, Step

_NUMBERS = 16 + CAMERA_EMBEDDING


def camera_numbers(views: Views) -> Float[Tensor, "B 39"]:
    """What decides how the scene is rendered: the matrix from the world to the picture, and light, shading, backdrop.

    The matrix is what threestudio calls `mvp`; its `extrinsics`, ProlificDreamer's, leave out the field of view.
    """
    return torch.cat([views.world_to_clip().flatten(1), views.camera_embedding()], 1)


class RendersScore:
    """eps_phi: the prior's network with a LoRA, which learns to denoise the renders."""

    def __init__(
        self, prior: DiffusersPrior, text: Float[Tensor, "1 L D"], settings: VariationalSettings, seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.prior, self.text = prior, text
        self.lora = CameraLora(prior.network, _NUMBERS, settings.rank, generator)
        self.optimiser = FiniteAdam(
            [{"params": list(self.lora.parameters()), "lr": settings.rate}], "the LoRA that learns the renders"
        )
        self._seen, self._error = 0, 0.0  # numbers of x in this step, and their squared errors

    def noise(
        self, noisy: Float[Tensor, "B C h w"], timestep: Int[Tensor, "B"], views: Views
    ) -> Float[Tensor, "B C h w"]:
        """What it takes to be noise, without gradient."""
        with torch.no_grad(), self.lora.told(self.prior.network, self._camera(views)):
            return self.prior.denoise(noisy, timestep, self._told(views))[1]

    def learn(self, clean: Float[Tensor, "B C h w"], step: Step) -> None:
        """Add the gradient of the denoising loss of renders, at times drawn from all.

        Summed, as half precision would lose a mean's over thousands of numbers; `finish_step` makes the mean.
        """
        steps, generator = len(self.prior.alphas_cumprod), step.generator
        time = step.draw(lambda n: torch.randint(steps, (n,), generator=generator)).to(clean.device)
        noise = step.draw(lambda n: torch.randn(n, *clean.shape[1:], generator=generator)).to(clean)
        with torch.enable_grad(), self.lora.told(self.prior.network, self._camera(step.views)):
            predicted, wanted = predicted_and_wanted(self.prior, clean.detach(), self._told(step.views), time, noise)
            loss = (predicted - wanted).square().sum()
        loss.backward()
        self._seen += clean.numel()
        self._error += loss.item()

    def zero_grad(self) -> None:
        self.optimiser.zero_grad()
        self._seen, self._error = 0, 0.0

    def finish_step(self, processes: Processes) -> dict[str, float]:
        """A step of Adam, where there is something to learn from; metrics: the mean squared error, of this process."""
        if self._seen == 0:
            return {}
        for parameter in self.optimiser.parameters():
            if parameter.grad is not None:
                parameter.grad /= self._seen
        processes.average_gradients(self.optimiser.parameters())
        self.optimiser.step()
        return {"renders_error": self._error / self._seen}

    def state(self) -> dict[str, Tensor]:
        skipped = {"skipped": torch.tensor(self.optimiser.skipped)}
        return pack_state({"lora": self.lora}, self.optimiser) | skipped

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        unpack_state({"lora": self.lora}, self.optimiser, tensors)
        self.optimiser.skipped = int(tensors["skipped"])

    def _camera(self, views: Views) -> Float[Tensor, "B F"]:
        return camera_numbers(views).to(self.prior.device)

    def _told(self, views: Views) -> Float[Tensor, "B L D"]:
        return self.text.expand(len(views), -1, -1)


@dataclass(frozen=True)
class VariationalDistillation(ScoreDistillation):
    """A loss of renders as `ScoreDistillation`, whose second score it learns: see `training.terms.LearningLoss`."""

    renders: RendersScore
    start: float = 0.0  # progress of the stage from which on it is variational; plain score distillation before

    def __call__(self, render: Render, step: Step) -> tuple[Float[Tensor, ""], dict[str, float]]:
        own = self.settings.variational
        if step.progress < self.start:
            return super().__call__(render, step)
        clean = self.prior.encode_image(render.rgb.permute(0, 3, 1, 2))
        since = replace(step, progress=(step.progress - self.start) / (1 - self.start))
        timestep, noise = self.drawn(clean, since, own.times)
        with torch.no_grad():
            gradient = self.variational_gradient(clean.detach(), timestep, noise, step.views)
        self.renders.learn(clean.detach(), step)
        return reparameterised(clean, gradient), self.metrics(gradient, timestep, own.scale)

    def variational_gradient(
        self,
        clean: Float[Tensor, "B C h w"],
        timestep: Int[Tensor, "B"],
        noise: Float[Tensor, "B C h w"],
        views: Views,
    ) -> Float[Tensor, "B C h w"]:
        """g for given noise, of which it depends on nothing but where the scores are asked."""
        alpha, sigma = alpha_sigma(self.prior.alphas_cumprod, timestep)
        noisy = alpha * clean + sigma * noise
        return sigma**2 * (self.expected(noisy, timestep, views) - self.renders.noise(noisy, timestep, views))

    def expected(
        self, noisy: Float[Tensor, "B C h w"], timestep: Int[Tensor, "B"], views: Views
    ) -> Float[Tensor, "B C h w"]:
        """The noise that is left of what the prior expects to see."""
        return self.guided(noisy, timestep, views, self.settings.variational.scale)[1]

    def begin_step(self, progress: float, look: Look, generator: torch.Generator, processes: Processes) -> None:
        """Everything is learnt from the step's own views."""

    def zero_grad(self) -> None:
        self.renders.zero_grad()

    def finish_step(self, processes: Processes) -> dict[str, float]:
        return self.renders.finish_step(processes)

    def state(self) -> dict[str, Tensor]:
        return self.renders.state()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.renders.restore(tensors)
