"""Bootstrapped score distillation (DreamCraft3D, arXiv 2310.16818, section 3.3): a prior that comes to know the thing.

In rounds, renders of the scene are redrawn by the prior at falling strength, and a LoRA of it is tuned on these
pictures, each told with its own view's words. Between the rounds it is variational score distillation with that tuned
network in the prior's place: its pictures are of this very thing, seen from all sides, and sharper than the renders.

The authors' code trains whole networks, tells the tuned one the words of whatever view a step happens to show, and
shows it zeros for the unconditional tenth of its pictures; here the words are the picture's own and the empty prompt's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.guidance.conditioning import Conditioning
from magic3d_cli.guidance.diffusers.denoising import denoising_loss, sample
from magic3d_cli.guidance.diffusers.lora import Lora
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.schedule import mix
from magic3d_cli.guidance.variational import VariationalDistillation
from magic3d_cli.scene.views import Views
from magic3d_cli.settings import BootstrapSettings
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.optimiser import FiniteAdam
from magic3d_cli.training.terms import Look

_ROUNDING = 1e-6  # a third of a third is not always a ninth
_UNTOLD = 0.1  # share of the tuning without words, for classifier-free guidance [DreamCraft3D's code]


class TunedPrior:
    """A prior's network with a LoRA that is tuned on redrawn renders, round by round."""

    def __init__(
        self, prior: DiffusersPrior, told: Conditioning, settings: BootstrapSettings, seed: int,
        tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.prior, self.told, self.settings, self._tell = prior, told, settings, tell
        self.lora = Lora(prior.network, settings.rank, torch.Generator().manual_seed(seed))
        self.rounds = 0  # done

    def go_on(self, progress: float, look: Look, generator: torch.Generator, processes: Processes) -> None:
        """A round where one is due by the `progress` of the texture, 0 to 1."""
        settings = self.settings
        due = min(int(progress * settings.rounds + _ROUNDING) + 1, settings.rounds)
        if self.rounds >= due:
            return
        strength = mix(*settings.strength, progress)
        if processes.is_main:
            self._tell(
                f"Texture, round {due} of {settings.rounds}: the prior redraws {settings.pictures} renders at strength "
                f"{strength:.2f} and learns them in {settings.steps} steps."
            )
        self._tune(*self.redrawn(look, strength, generator), generator)
        processes.broadcast(parameter.data for parameter in self.lora.parameters())
        self.rounds = due

    @torch.no_grad()
    def redrawn(
        self, look: Look, strength: float, generator: torch.Generator
    ) -> tuple[Float[Tensor, "N C h w"], Float[Tensor, "N L D"]]:
        """Pictures of the thing, as the prior as it is draws them over renders, and their views' words."""
        render, views = look(self.settings.pictures)
        texts, nothing = self.told.text(views), self.told.unconditional
        pictures = []
        for image, text in zip(render.rgb, texts, strict=True):
            seen = self.prior.encode_image(image[None].permute(0, 3, 1, 2))
            pictures.append(sample(self.prior, text[None], nothing, seen.shape[1:], generator, seen, strength))
        return torch.cat(pictures), texts

    def _tune(
        self, pictures: Float[Tensor, "N C h w"], texts: Float[Tensor, "N L D"], generator: torch.Generator
    ) -> None:
        """DreamBooth on them (arXiv 2208.12242), without a word of their own."""
        parameters = list(self.lora.parameters())
        adam = FiniteAdam([{"params": parameters, "lr": self.settings.rate}], "the LoRA that learns redrawn renders")
        for _ in range(self.settings.steps):
            n = int(torch.randint(len(pictures), (1,), generator=generator))
            untold = float(torch.rand(1, generator=generator)) < _UNTOLD
            picture, text = pictures[n : n + 1], self.told.unconditional if untold else texts[n : n + 1]
            adam.zero_grad()
            with torch.enable_grad(), self.lora.applied(self.prior.network):
                denoising_loss(self.prior, picture, text, generator, reduction="sum").backward()
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad /= picture.numel()  # the mean's
            adam.step()


@dataclass(frozen=True, kw_only=True)
class BootstrappedDistillation(VariationalDistillation):
    """As `VariationalDistillation`, with a tuned network in the prior's place."""

    tuned: TunedPrior

    def begin_step(self, progress: float, look: Look, generator: torch.Generator, processes: Processes) -> None:
        if progress >= self.start:
            self.tuned.go_on((progress - self.start) / (1 - self.start), look, generator, processes)

    def expected(
        self, noisy: Float[Tensor, "B C h w"], timestep: Int[Tensor, "B"], views: Views
    ) -> Float[Tensor, "B C h w"]:
        with self.tuned.lora.applied(self.tuned.prior.network):
            return super().expected(noisy, timestep, views)

    def state(self) -> dict[str, Tensor]:
        tuned = {f"tuned.{name}": value.cpu().clone() for name, value in self.tuned.lora.state_dict().items()}
        return super().state() | tuned | {"rounds": torch.tensor(self.tuned.rounds)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        super().restore(tensors)
        tuned = {name.removeprefix("tuned."): value for name, value in tensors.items() if name.startswith("tuned.")}
        self.tuned.lora.load_state_dict(tuned)
        self.tuned.rounds = int(tensors["rounds"])
