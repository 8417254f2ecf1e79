"""The priors that guide a run at work: loaded, told the prompt, and each stage's loss terms."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import UInt8
from torch import Tensor

from magic3d_cli.errors import OutOfMemory
from magic3d_cli.guidance.adapters import (
    SUBJECT,
    Adapter,
    image_prompt,
    marks,
    vocabulary_with,
)
from magic3d_cli.guidance.builtin.arrangement import show_together
from magic3d_cli.guidance.builtin.palette import dress
from magic3d_cli.guidance.builtin.shape import VolumeShape
from magic3d_cli.guidance.builtin.subject import load_subject, show_subject
from magic3d_cli.guidance.builtin.vocabulary import Caption
from magic3d_cli.guidance.conditioning import Conditioning, condition, read_prompt
from magic3d_cli.guidance.diffusers import compile as compiling
from magic3d_cli.guidance.diffusers import ip_adapter
from magic3d_cli.guidance.diffusers.adapted import adapt, fitting
from magic3d_cli.guidance.diffusers.files import installed_bytes, part_sha256, vocabulary_of
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior, default_dtype
from magic3d_cli.guidance.diffusers.spec import PriorSpec, describe
from magic3d_cli.guidance.diffusers.zero123 import PicturePrior
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.guidance.methods import distillation_of
from magic3d_cli.guidance.pictured import Pictured
from magic3d_cli.guidance.priors import ChosenPrior, Tell
from magic3d_cli.guidance.styling import check_style
from magic3d_cli.scene.shape import InitialShape
from magic3d_cli.settings import SDS, CoarseSettings, FineSettings, GuidanceSettings
from magic3d_cli.style import Style
from magic3d_cli.training.terms import LossTerm

LoadedKey = tuple[Path, Path | None, str | None]
Loaded = dict[LoadedKey, DiffusersPrior]
"""Priors by their folder, their encoder's, and what was added to them; what each shows, its guide says: `_prepare`."""

_part_hash = cache(part_sha256)


class Guide(Protocol):
    """What the pipeline needs to know of what guides a run; tests put a known picture in its place."""

    def name(self, stage: str) -> str:
        """The stage's prior, for people and for checkpoints."""

    def sha256(self, stage: str) -> str:
        """Identifies the weights that guide a stage."""

    def terms(self, stage: str, settings: CoarseSettings | FineSettings) -> list[LossTerm]:
        """Load what is needed to guide a stage, and give its loss terms."""

    def volume(self) -> InitialShape | None:
        """The first coarse prior's own volume of the prompt; None where it has none."""

    def things(self) -> UInt8[Tensor, "Z Y X"] | None:
        """Where in that volume each thing of the prompt is, see `scene.things`; None where it shows one thing."""


class PriorGuide:
    """Score distillation from the priors of each stage; a stage may have several, whose losses are added up."""

    def __init__(
        self,
        priors: Mapping[str, Sequence[ChosenPrior]],
        prompt: str,
        seed: int,
        device: str,
        encoder: Path | None = None,
        tell: Tell = lambda text: None,
        pictured: Pictured | None = None,
        loaded: Loaded | None = None,
        adapters: Sequence[Adapter] = (),
        style: Style | None = None,
    ) -> None:
        """
        Args:
            encoder: the folder of the small encoder, for settings that ask for it; see `fetch_small_encoder`.
            pictured: what the built-in prior shows in place of the prompt: a model of its own, bent to a picture.
            loaded: priors that other guides have loaded, and that later ones may use, also in another style; not those
                that were changed to show a picture's thing.
            adapters: what is added to the priors.
            style: of a picture, see `check_style`, whose UsageErrors are raised.
        """
        check_style(priors, adapters, style)
        self.priors, self.prompt, self.seed, self.device = priors, prompt, seed, torch.device(device)
        self._encoder, self._tell, self._pictured = encoder, tell, pictured
        self.adapters, self.style = tuple(adapters), style
        self._subjects = {str(a.word): load_subject(a) for a in self.adapters if a.kind == SUBJECT}
        shared = None if pictured is not None else loaded
        self._shared = shared is not None
        self._loaded: Loaded = {} if shared is None else shared
        self._prepared: Loaded = {}
        self._things: dict[LoadedKey, UInt8[Tensor, "Z Y X"]] = {}
        self._added: dict[Path, list[Adapter]] = {}  # by a prior's folder
        self._conditioning: dict[tuple[Path, str, bool, bool, bool, Caption | str], Conditioning] = {}

    def name(self, stage: str) -> str:
        """The stage's first prior, as a checkpoint keeps it: what "auto" chose, and directories in full."""
        return self.priors[stage][0].name

    def sha256(self, stage: str) -> str:
        """Hash of the weights of the stage's priors and of adapters; of more than one, with what each counts for."""
        first, *others = self.priors[stage]
        added = [f"+{adapter.mark}" for adapter in self.adapters]
        if (shown := image_prompt(self.adapters)) is not None:
            added.append(f"+{_part_hash(shown.encoder)}")
        added += [f"+style:{self.style.digest}"] if self.style else []
        return " ".join([first.sha256, *(f"{prior.sha256}*{prior.weight}" for prior in others), *added])

    def terms(self, stage: str, settings: CoarseSettings | FineSettings) -> list[LossTerm]:
        """One distillation term for each prior of the stage, all loaded together.

        Raises OutOfMemory, before anything is loaded, where several do not fit beside each other.
        """
        chosen = self.priors[stage]
        shares = imagined(chosen, settings.reference.imagine)
        if not any(shares):
            return []
        guidance = [settings.guidance, *(added.guidance for added in settings.added_guidance)]
        specs = [self._spec(prior, own) for prior, own in zip(chosen, guidance, strict=True)]
        self._keep_only(specs)
        self._check_memory(chosen)
        terms = []
        for prior, spec, own, share in zip(chosen, specs, guidance, shares, strict=True):
            if not share:
                continue
            name = "distillation" if prior is chosen[0] else f"distillation_{Path(prior.name).name}"
            shape_first = settings.geometry_first if isinstance(settings, FineSettings) else 0.0
            terms.append(LossTerm(name, self._distillation(spec, own, shape_first), prior.weight * share))
        return terms

    def volume(self) -> InitialShape | None:
        """The first coarse prior's own volume of the prompt, painted; None where it has none."""
        first = self.priors["coarse"][0]
        if not first.has_volume:
            return None
        spec = first.spec
        self._keep_only([spec])
        prior = self._load(spec)
        assert prior.volume is not None  # as `has_volume` says
        return VolumeShape(prior.volume, self._condition(prior).states)

    def things(self) -> UInt8[Tensor, "Z Y X"] | None:
        """Where in `volume` each thing of the prompt is, see `scene.things`; None where it shows one thing."""
        first = self.priors["coarse"][0]
        if not first.has_volume:
            return None
        self._load(first.spec)
        return self._things.get(self._key(first.spec))

    def distillation(self, stage: str, settings: GuidanceSettings) -> ScoreDistillation:
        """The loss of the stage's first prior alone."""
        spec = self._spec(self.priors[stage][0], settings)
        self._keep_only([spec])
        return self._distillation(spec, settings)

    def release(self) -> None:
        """Free the priors that are loaded."""
        self._loaded.clear()
        self._prepared.clear()
        gc.collect()  # a compiled network holds itself

    def _spec(self, prior: ChosenPrior, settings: GuidanceSettings) -> PriorSpec:
        small = settings.small_encoder and prior.spec.vae is not None
        return describe(prior.spec.folder, prior.name, self._encoder) if small else prior.spec

    def _distillation(self, spec: PriorSpec, settings: GuidanceSettings, shape_first: float = 0.0) -> ScoreDistillation:
        """A prior's loss; variational score distillation begins once the shape is done."""
        prior = self._load(spec)
        if compiling.pays(settings, prior.device):
            prior.compile(self._tell)
        if isinstance(prior, PicturePrior):
            assert self._pictured is not None  # as `choose_priors` says
            return ScoreDistillation(prior, prior.see(self._pictured.references[0]), settings)
        told = self._condition(prior, plain=settings.method != SDS)
        return distillation_of(prior, told, settings, self.seed, shape_first, self._tell)

    def _load(self, spec: PriorSpec) -> DiffusersPrior:
        """The prior, unless it is there already."""
        key = self._key(spec)
        if key not in self._loaded:
            kind = PicturePrior if spec.from_picture else DiffusersPrior
            self._loaded[key] = kind(spec, self.device, default_dtype(self.device))
            adapt(self._loaded[key], self._fitting(spec))
        prior = self._loaded[key]
        if self._prepared.get(key) is not prior:
            self._prepared[key] = prior
            self._prepare(prior)
        return prior

    def _fitting(self, spec: PriorSpec) -> list[Adapter]:
        """The adapters that a prior is changed by as it is loaded; those that are told no words are by none."""
        if spec.folder not in self._added:
            told = spec.volume is None and not spec.from_picture
            self._added[spec.folder] = fitting(self.adapters, spec) if told else []
        return self._added[spec.folder]

    def _key(self, spec: PriorSpec) -> LoadedKey:
        return spec.folder, spec.vae.folder if spec.vae else None, marks(self._fitting(spec))

    def _prepare(self, prior: DiffusersPrior) -> None:
        """Have a prior show what this job is about: the picture of its style, by an IP-Adapter; and where it has a
        volume pictures' thing, or several together, or else what it knows."""
        if (shown := image_prompt(self._fitting(prior.spec))) is not None:
            assert self.style is not None  # as `check_style` says
            ip_adapter.show(prior, shown, self.style)
        if prior.volume is None:
            return
        prior.volume.show_own()
        prior.volume.dress = None
        if self._pictured is not None and self._pictured.fit is not None:
            self._show(prior, self._pictured)
        elif prior.vocabulary is not None:
            caption = self._read(prior)
            assert isinstance(caption, Caption)
            show = partial(show_subject, prior.volume, self._subjects, prior.encode_prompt)
            if caption.others:
                together = show_together(prior.volume, prior.encode_prompt, caption, show)
                self._things[self._key(prior.spec)] = together
            else:
                show(caption)
        if self.style is not None:
            prior.volume.dress = dress(
                VolumeShape(prior.volume, self._condition(prior).states), self.style, prior.device
            )

    def _read(self, prior: DiffusersPrior) -> Caption | str:
        """The prompt as a prior reads it, with the words of adapters."""
        words = vocabulary_of(prior.spec.folder) if self._subjects else None
        return read_prompt(prior, self.prompt, self.seed, vocabulary_with(words, self.adapters) if words else None)

    def _show(self, prior: DiffusersPrior, pictured: Pictured) -> None:
        """Have a prior show the fitted model wherever it is asked for the model."""
        volume = prior.volume
        assert volume is not None
        weight = next(volume.parameters())
        model = int(volume.find(self._condition(prior).states.to(weight))[0])
        with torch.no_grad():
            volume.show_instead(model, pictured.volume(volume, model))

    def _keep_only(self, specs: Sequence[PriorSpec]) -> None:
        """Free the priors that the stage has no use for, before the others are loaded.

        Those that later jobs may use are kept while there is plenty of memory.
        """
        wanted = {self._key(spec): spec for spec in specs}
        missing = sum(installed_bytes(spec.folder) for key, spec in wanted.items() if key not in self._loaded)
        if self._shared and (free_memory(self.device) or 0) > 4 * missing:
            return
        if any(key not in wanted for key in self._loaded):
            for key in self._loaded.keys() - wanted.keys():
                del self._loaded[key]
                self._prepared.pop(key, None)
            gc.collect()  # a compiled network holds itself

    def _check_memory(self, chosen: Sequence[ChosenPrior]) -> None:
        """Several priors are loaded beside each other, or not at all."""
        if len(chosen) < 2:
            return
        needed = sum(installed_bytes(prior.spec.folder) for prior in chosen)
        free = free_memory(self.device)
        if free is not None and needed > free:
            raise OutOfMemory(
                f"The priors {', '.join(prior.name for prior in chosen)} take {needed / 1e9:.1f} GB together, and "
                f"{free / 1e9:.1f} GB are free.",
                "Leave out --also-prior, or use smaller priors.",
            )

    def _condition(self, prior: DiffusersPrior, plain: bool = False) -> Conditioning:
        """The prompt encoded, once for each text encoder: T5-XXL takes minutes to load."""
        fit = self._pictured.fit if self._pictured else None
        fitted = fit.caption if fit is not None and prior.vocabulary is not None else None
        words, spec = fitted or self._read(prior), prior.spec
        assert spec.text_encoder is not None
        # Length and masking of the states follow from the network's class and from whether it is shown a picture.
        shown = prior.picture is not None
        key = (spec.text_encoder.folder, spec.network.cls, spec.camera_conditioned, shown, plain, words)
        if key not in self._conditioning:
            told = condition(prior, words, plain)
            self._conditioning[key] = replace(told, unshown=prior.picture.nothing) if prior.picture else told
        return self._conditioning[key]


def imagined(priors: Sequence[ChosenPrior], imagine: float) -> list[float]:
    """What each prior's weight is multiplied by: 1 at 0.5, where there is no picture as well.

    Beside a picture all priors fade as `imagine` goes to 0. With priors of both kinds it is Magic123's trade-off (arXiv
    2306.17843, section 3.3): those that are told the camera keep to what is known, the others invent.
    """
    cameras = [prior.spec.camera_conditioned or prior.spec.from_picture for prior in priors]
    mixed = any(cameras) and not all(cameras)
    return [2 * (1 - imagine) if mixed and camera else 2 * imagine for camera in cameras]


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on a device; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    kibibytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return int(kibibytes) * 1024 if kibibytes else None
