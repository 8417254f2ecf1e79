"""What a run is guided by: which prior, what the prompt means to it, and each stage's objective."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache
from typing import Protocol

from magic3d_cli.errors import UsageError
from magic3d_cli.guidance import compiled
from magic3d_cli.guidance.conditioning import condition, read_prompt
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.guidance.prior import DiffusersPrior, load_prior
from magic3d_cli.guidance.prompts import Vocabulary
from magic3d_cli.guidance.sources import (
    HUB,
    INSTALLED,
    NAMES,
    OPEN_VOCABULARY,
    check_weights,
    directory,
    fits_small_encoder,
    has_vae,
    locate,
    small_encoder,
    state_of,
    vocabulary_of,
    weights_sha256,
)
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
    ) -> None:
        """Find the weights of both stages and check the prompt, before any work starts.

        `tell` is told before a download, and of options that these priors have no use for.

        Raises EnvironmentFault when there is no such prior or its weights cannot be loaded, UsageError for words that
        it does not know.
        """
        self._names = {"coarse": full_name(coarse, device), "fine": full_name(fine, device)}
        self.prompt, self.seed, self.device, self._tell = prompt, seed, device, tell
        self._folders = {stage: locate(name, stage, tell) for stage, name in self._names.items()}
        self._loaded: DiffusersPrior | None = None
        self._words = {stage: vocabulary_of(folder) for stage, folder in self._folders.items()}
        for words in self._words.values():
            if words is not None:
                Vocabulary.load(words).parse(prompt, seed)
        for folder in self._folders.values():
            check_weights(folder)

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
        latent = {stage: folder for stage, folder in self._folders.items() if has_vae(folder)}
        if not latent:
            self._tell("--small-encoder is not used: these priors work on pixels, without an encoder.")
            return
        for stage, folder in latent.items():
            if not fits_small_encoder(folder):
                raise UsageError(
                    f"The small encoder makes the latents of Stable Diffusion 1 and 2; {self.name(stage)} has others.",
                    "Leave out --small-encoder, or use --prior sd15.",
                )
        small_encoder(self._tell)

    def sha256(self, stage: str) -> str:
        """Hash of the stage's weights."""
        return _hash(self._folders[stage])

    def objective(self, stage: str, settings: GuidanceSettings) -> ScoreDistillation:
        """Load the stage's prior, unless the stage before used the same one, and encode the prompt."""
        folder = self._folders[stage]
        small = settings.small_encoder and has_vae(folder)
        if self._loaded is None or (self._loaded.folder, self._loaded.encoder is not None) != (folder, small):
            self.release()
            self._loaded = load_prior(self._names[stage], self.device, stage=stage, small=small)
        if compiled.pays(settings, self._loaded.device):
            self._loaded.compile(self._tell)
        words = read_prompt(self._loaded, self.prompt, self.seed)
        return ScoreDistillation(self._loaded, condition(self._loaded, words), settings)

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
