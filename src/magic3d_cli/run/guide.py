"""What a run is guided by: which prior, what the prompt means to it, and each stage's objective."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol

import torch

from magic3d_cli.errors import UsageError
from magic3d_cli.guidance import compiled
from magic3d_cli.guidance.conditioning import Conditioning, condition, read_prompt
from magic3d_cli.guidance.description import Description, check, describe
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.guidance.hub import INSTALLED, state_of
from magic3d_cli.guidance.layout import vocabulary_of, weights_sha256
from magic3d_cli.guidance.prior import DiffusersPrior, default_dtype
from magic3d_cli.guidance.prompts import Caption, Vocabulary
from magic3d_cli.guidance.sources import HUB, NAMES, OPEN_VOCABULARY, directory, find, of_stage, small_encoder
from magic3d_cli.guidance.understanding import Understood, understand
from magic3d_cli.settings import GuidanceSettings, Settings, guided_by
from magic3d_cli.stage_report import Objective


class Guide(Protocol):
    """What the pipeline needs to know of a prior; tests put a known image in its place."""

    def name(self, stage: str) -> str:
        """The stage's prior, for people and for checkpoints."""

    def suited(self, settings: Settings) -> Settings:
        """The settings as this guide needs them."""

    def sha256(self, stage: str) -> str:
        """Identifies the weights that guide a stage."""

    def objective(self, stage: str, settings: GuidanceSettings) -> Objective:
        """Load what is needed to guide a stage."""


class PriorGuide:
    """Score distillation from one prior a stage; a prior may also keep a model for each."""

    def __init__(
        self,
        coarse: str,
        fine: str,
        prompt: str,
        seed: int,
        device: str,
        tell: Callable[[str], None] = lambda text: None,
        strict: bool = False,
    ) -> None:
        """Find and check the priors of both stages, without loading them, and the prompt, before any work starts.

        `tell` is told before a download, and of options that these priors have no use for.

        Raises EnvironmentFault when there is no such prior or it cannot be used, UsageError for a prompt in which
        it can draw nothing, and if `strict` for any word that it does not know.
        """
        self._names = {"coarse": full_name(coarse, device), "fine": full_name(fine, device)}
        self.prompt, self.seed, self.device, self._tell = prompt, seed, device, tell
        found = {name: find(name, tell) for name in dict.fromkeys(self._names.values())}
        folders = {stage: of_stage(found[name], stage) for stage, name in self._names.items()}
        self._encoder: Path | None = None
        self._loaded: DiffusersPrior | None = None
        self._conditioning: dict[tuple[Path, str, bool, Caption | str], Conditioning] = {}
        self._words = {stage: vocabulary_of(folder) for stage, folder in folders.items()}
        self.understood: Understood | None = None  # by the last stage whose prior has a closed vocabulary
        for words in self._words.values():
            if words is not None:
                self.understood = understand(Vocabulary.load(words), prompt, seed, strict=strict)
        self._about = {stage: describe(folder, self._names[stage]) for stage, folder in folders.items()}
        for about in {about.folder: about for about in self._about.values()}.values():
            check(about)

    def name(self, stage: str) -> str:
        """What a checkpoint keeps: what "auto" chose, and directories in full."""
        return self._names[stage]

    def suited(self, settings: Settings) -> Settings:
        """The settings with each stage guided as its prior needs; a small encoder that they want is fetched.

        Raises UsageError where it does not fit, EnvironmentFault where it cannot be fetched.
        """
        opened = {f"open_{stage}": words is None for stage, words in self._words.items()}
        suited = guided_by(settings, **opened)
        if settings.fine.guidance.perp_neg and not any(opened.values()):
            self._tell("--perp-neg is not used: the built-in prior is told where the camera is.")
        if settings.fine.guidance.small_encoder:
            self._fetch_small_encoder()
        return suited

    def _fetch_small_encoder(self) -> None:
        latent = [about for about in self._about.values() if about.vae]
        if not latent:
            self._tell("--small-encoder is not used: these priors work on pixels, without an encoder.")
            return
        for about in latent:
            if not about.fits_small_encoder:
                raise UsageError(
                    f"The small encoder makes the latents of Stable Diffusion 1 and 2; {about.name} has others.",
                    "Leave out --small-encoder, or use --prior sd15.",
                )
        self._encoder = small_encoder(self._tell)
        check(describe(latent[0].folder, latent[0].name, self._encoder))

    def sha256(self, stage: str) -> str:
        """Hash of the stage's weights."""
        return _hash(self._about[stage].folder)

    def objective(self, stage: str, settings: GuidanceSettings) -> ScoreDistillation:
        """Load the stage's prior, unless the stage before used the same one, and encode the prompt."""
        about = self._about[stage]
        if settings.small_encoder:
            about = describe(about.folder, about.name, self._encoder)
        prior = self._load(about)
        if compiled.pays(settings, prior.device):
            prior.compile(self._tell)
        return ScoreDistillation(prior, self._condition(prior), settings)

    def _load(self, about: Description) -> DiffusersPrior:
        if self._loaded is None or (self._loaded.about.folder, self._loaded.about.vae) != (about.folder, about.vae):
            self.release()
            device = torch.device(self.device)
            self._loaded = DiffusersPrior(about, device, default_dtype(device))
        return self._loaded

    def _condition(self, prior: DiffusersPrior) -> Conditioning:
        """The prompt encoded, once for each text encoder: T5-XXL takes minutes to load."""
        words, about = read_prompt(prior, self.prompt, self.seed), prior.about
        # Length and masking of the states follow from the network's class.
        key = (about.text_encoder.folder, about.network.cls, about.takes_views, words)
        if key not in self._conditioning:
            self._conditioning[key] = condition(prior, words)
        return self._conditioning[key]

    def release(self) -> None:
        """Free the prior that is loaded, before the next one is."""
        self._loaded = None
        gc.collect()  # a compiled network holds itself


_hash = cache(weights_sha256)


def full_name(name: str, device: str) -> str:
    """A name that means the same later and elsewhere: directories in full, and for "auto" the built-in prior, or

    with a GPU a Stable Diffusion that is in the cache already: nothing is downloaded unasked.
    """
    if name == "auto":
        cached = (key for key in OPEN_VOCABULARY if device == "cuda" and state_of(HUB[key]) == INSTALLED)
        return next(cached, "builtin")
    folder = None if name in NAMES else directory(name)
    return name if folder is None else str(folder)
