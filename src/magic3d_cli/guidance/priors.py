"""Which priors guide a run: named, found on this machine and checked, whether they know the words; not loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.adapters import Adapter, check_used, vocabulary_with
from magic3d_cli.guidance.builtin.understanding import Understood, understand
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.diffusers.adapted import check_any_fits
from magic3d_cli.guidance.diffusers.catalogue import (
    FROM_PICTURE,
    HUB,
    IN_SETS,
    NAMES,
    OPEN_VOCABULARY,
    directory,
    find,
    local,
    needs_picture,
    of_stage,
    small_encoder,
)
from magic3d_cli.guidance.diffusers.files import vocabulary_of, weights_sha256
from magic3d_cli.guidance.diffusers.hub import INSTALLED, state_of
from magic3d_cli.guidance.diffusers.mvdream import SET_SIZE
from magic3d_cli.guidance.diffusers.spec import PriorSpec, check, describe
from magic3d_cli.settings import StagePrior

Tell = Callable[[str], None]
STAGES = ("coarse", "fine")
_hash = cache(weights_sha256)


@dataclass(frozen=True)
class WeightedPrior:
    """A prior by name, and its weight in a stage's sum of distillation losses."""

    name: str  # as a person may type it
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class ChosenPrior(StagePrior):
    """One of a stage's priors: found on this machine and checked, not loaded.

    Its name means the same later and elsewhere, see `full_name`.
    """

    spec: PriorSpec = field(kw_only=True)

    @staticmethod
    def of(prior: WeightedPrior, spec: PriorSpec) -> ChosenPrior:
        known = vocabulary_of(spec.folder) is not None
        return ChosenPrior(
            prior.name,
            prior.weight,
            open_vocabulary=not known,
            from_picture=spec.from_picture,
            has_volume=spec.volume is not None,
            set_size=spec.set_size,
            on_pixels=spec.vae is None and not known,
            spec=spec,
        )

    @property
    def vocabulary(self) -> Path | None:
        """The words that it knows; None where it takes any prompt."""
        return vocabulary_of(self.spec.folder)

    @property
    def sha256(self) -> str:
        """Hash of its weights."""
        return _hash(self.spec.folder)


def choose_priors(
    names: Mapping[str, Sequence[WeightedPrior]],
    prompt: str,
    seed: int,
    device: str,
    tell: Tell,
    *,
    strict: bool = False,
    pictured: bool = False,
    adapters: Sequence[Adapter] = (),
) -> dict[str, list[ChosenPrior]]:
    """Find and check the priors of each stage, and whether they understand the prompt, before any work starts.

    `tell` is told before a download. Raises EnvironmentFault when there is no such prior or it cannot be used,
    UsageError for a prompt in which it can draw nothing, if `strict` for any word that it does not know, and for one
    that has to be shown a picture unless the job is `pictured`.
    """
    full = {stage: [WeightedPrior(full_name(p.name, device), p.weight) for p in some] for stage, some in names.items()}
    found = {name: find(name, tell) for name in dict.fromkeys(p.name for some in full.values() for p in some)}
    folders = {(stage, p.name): of_stage(found[p.name], stage) for stage, some in full.items() for p in some}
    vocabularies = list(dict.fromkeys(vocabulary_of(folder) for folder in folders.values()))
    for words in vocabularies:
        if words is not None:
            understand(vocabulary_with(words, adapters), prompt, seed, strict=strict)
    check_used(adapters, [words is not None for words in vocabularies])
    specs = {(stage, name): describe(folder, name) for (stage, name), folder in folders.items()}
    apart = {spec.folder: spec for spec in specs.values()}
    for spec in apart.values():
        if spec.from_picture and not pictured:
            raise needs_picture(spec.name)
        check(spec)
    check_any_fits(adapters, [spec for spec in apart.values() if spec.volume is None and not spec.from_picture])
    return {stage: [ChosenPrior.of(p, specs[stage, p.name]) for p in some] for stage, some in full.items()}


def foresee_priors(names: Mapping[str, Sequence[WeightedPrior]], device: str) -> dict[str, list[StagePrior]]:
    """The priors of each stage as far as settings depend on them, without a download: by a prior's files where it is
    on this machine, else by its name. Raises EnvironmentFault for a directory that holds no prior."""
    return {
        stage: [_foreseen(replace(prior, name=full_name(prior.name, device)), stage) for prior in some]
        for stage, some in names.items()
    }


def _foreseen(prior: WeightedPrior, stage: str) -> StagePrior:
    folder = local(prior.name)
    if folder is not None:
        return ChosenPrior.of(prior, describe(of_stage(folder, stage), prior.name))
    together = SET_SIZE if prior.name in IN_SETS else 1
    shown = prior.name in FROM_PICTURE
    return StagePrior(prior.name, prior.weight, open_vocabulary=True, from_picture=shown, set_size=together)


def full_name(name: str, device: str) -> str:
    """A name that means the same later and elsewhere: directories in full, and what "auto" stands for.

    That is the built-in prior, or with a GPU a Stable Diffusion that is in the cache: nothing is downloaded unasked.
    """
    if name == "auto":
        cached = (key for key in OPEN_VOCABULARY if device == "cuda" and state_of(HUB[key]) == INSTALLED)
        return next(cached, "builtin")
    folder = None if name in NAMES else directory(name)
    return name if folder is None else str(folder)


def takes_words(name: str, device: str) -> bool:
    """Whether the prior of this name is given a prompt; for one that is not on this machine the name alone decides.

    Raises EnvironmentFault for a directory that holds no prior.
    """
    full = full_name(name, device)
    if full in FROM_PICTURE:
        return False
    folder = local(full)
    return folder is None or not describe(of_stage(folder, "coarse"), full).from_picture


def understood(
    priors: Mapping[str, Sequence[ChosenPrior]], prompt: str, seed: int, adapters: Sequence[Adapter] = ()
) -> Understood | None:
    """How a prompt is drawn by the priors of closed vocabulary; None where all take any prompt."""
    words = next((prior.vocabulary for some in priors.values() for prior in some if prior.vocabulary), None)
    return understand(vocabulary_with(words, adapters), prompt, seed) if words else None


def drawn_things(prior: str, prompt: str, seed: int) -> list[tuple[str, str]]:
    """What an asset of a prior shows, thing by thing: the relation of those before to it, and its own prompt.

    Of an open vocabulary, or where the prior is no longer here, the prompt itself.
    """
    folder = local(prior)
    words = vocabulary_of(of_stage(folder, "coarse")) if folder else None
    try:
        things = understand(Vocabulary.load(words), prompt, seed).things if words else ()
    except UsageError:  # it came from a picture
        things = ()
    return list(things) if len(things) > 1 else [("", prompt)]


def fetch_small_encoder(priors: Mapping[str, Sequence[ChosenPrior]], tell: Tell) -> Path | None:
    """The folder of TAESD, fetched where it is missing; None where no prior has use for it, which is told.

    Raises UsageError where it does not fit a prior's latents, EnvironmentFault where it cannot be fetched.
    """
    latent = [prior.spec for some in priors.values() for prior in some if prior.spec.vae]
    if not latent:
        tell("--small-encoder is not used: these priors work on pixels, without an encoder.")
        return None
    for spec in latent:
        if not spec.fits_small_encoder:
            raise UsageError(
                f"The small encoder makes the latents of Stable Diffusion 1 and 2; {spec.name} has others.",
                "Leave out --small-encoder, or use --prior sd15.",
            )
    encoder = small_encoder(tell)
    check(describe(latent[0].folder, latent[0].name, encoder))
    return encoder
