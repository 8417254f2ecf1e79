"""What a request is answered with: the device, priors, settings, a guide, and the shape to begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from magic3d_cli import presets, recipes, settings
from magic3d_cli.environment import is_main_process
from magic3d_cli.errors import EnvironmentFault, UsageError
from magic3d_cli.guidance.adapters import Adapter, check_shown
from magic3d_cli.guidance.guide import Guide, Loaded, PriorGuide
from magic3d_cli.guidance.methods import check_method
from magic3d_cli.guidance.pictured import Pictured
from magic3d_cli.guidance.priors import (
    STAGES,
    ChosenPrior,
    WeightedPrior,
    choose_priors,
    fetch_small_encoder,
    foresee_priors,
    full_name,
    takes_words,
)
from magic3d_cli.guidance.styling import told_of_style
from magic3d_cli.kernels.dispatch import NVRTC, usable
from magic3d_cli.pictures import NO_PRIOR, PictureAlone
from magic3d_cli.precheck import check_paints
from magic3d_cli.request import Request, wanted_priors
from magic3d_cli.run.forecast import told_of_rounds
from magic3d_cli.run.observer import Observer
from magic3d_cli.scene.hull_shape import HullShape
from magic3d_cli.scene.shape import InitialShape
from magic3d_cli.settings import Settings
from magic3d_cli.style import Style

NOTHING = {stage: [NO_PRIOR] for stage in STAGES}
"""What settings are resolved for where no prior knows what pictures show."""


def choose_device(name: str, observer: Observer) -> str:
    """ "cpu" or "cuda"; notes what is not used. Raises EnvironmentFault when there is no GPU for what was asked."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise EnvironmentFault(
            "There is no CUDA GPU that PyTorch can use on this machine.",
            "Use --device cpu, or install a CUDA build of PyTorch: https://pytorch.org/get-started",
        )
    chosen = "cuda" if available and name != "cpu" else "cpu"
    if not is_main_process():  # only the first asks: the others have not taken their own GPU yet
        return chosen
    for backend, reason in usable(torch.device(chosen)).refused.items():
        if backend == NVRTC:
            observer.note(f"Plain PyTorch does the work of the CUDA kernels, which is slower: {reason}")
        else:
            observer.note(f"{backend} is not used: {reason}")
    return chosen


def resolved(
    base: Settings,
    priors: Mapping[str, Sequence[settings.StagePrior]],
    request: Request,
    fine_preset: str | None = None,
    pictured: Pictured | None = None,
) -> Settings:
    """`presets.resolve` with a request's choices."""
    camera = pictured.references[0].camera if pictured else None
    found = presets.resolve(
        base,
        priors,
        perp_neg=request.perp_neg,
        small_encoder=request.small_encoder,
        distillation=request.distillation,
        choices=request,
        fine_preset=fine_preset,
        init=request.init,
        imagine=pictured.imagine if pictured else None,
        frame=(camera.fov, camera.half_height) if camera else None,
    )
    if not (recipe := request.recipe or base.recipe):
        return found
    return recipes.follow(found, recipe, priors, (camera.azimuth, camera.elevation) if camera else None)


def following(
    recipe: recipes.Recipe, priors: dict[str, list[ChosenPrior]] | None, tell: Callable[[str], None]
) -> dict[str, list[ChosenPrior]]:
    """The priors with the weights that a recipe gives them; tells what of the original is missing.

    Raises UsageError where they cannot follow it.
    """
    if priors is None:
        raise UsageError(
            f"The recipe {recipe.name} needs a prior that knows what the picture shows, and the built-in one does not.",
            "Say in words what it shows, name priors (--prior sd15 --also-prior zero123-xl), or leave out --recipe.",
        )
    recipes.check_priors(recipe, priors)
    tell(f"Follows {recipe.follows}." + (f" Not here: {recipe.missing}." if recipe.missing else ""))
    parts = {"coarse": recipe.coarse, "fine": recipe.fine}
    return {
        stage: [replace(p, weight=p.weight * recipes.prior_weight(parts[stage], p, some[0])) for p in some]
        for stage, some in priors.items()
    }


def choose(
    names: dict[str, str],
    request: Request,
    prompt: str,
    seed: int,
    device: str,
    observer: Observer,
    pictured: Pictured | None,
    adapters: Sequence[Adapter] = (),
    style: Style | None = None,
) -> dict[str, list[ChosenPrior]] | None:
    """The priors of each stage; None where no prior knows what pictures show, and these are all there is."""
    wanted, method = wanted_priors(names, request), request.distillation or settings.SDS
    check_shown(adapters, style is not None)
    if style is not None:
        check_paints((full_name(prior.name, device) for some in wanted.values() for prior in some), adapters)
    if pictured is not None:
        if pictured.fit is None and all(full_name(name, device) == "builtin" for name in names.values()):
            if request.more_priors:
                raise UsageError(
                    "The built-in prior knows nothing like the picture, and leads both stages.",
                    "Say in words what it shows, or name another prior with --prior.",
                )
            check_method(method, NOTHING, observer.note)
            return None
        if not prompt and any(takes_words(name, device) for name in names.values()):
            raise UsageError(
                "What the picture shows is not known, and this prior is told in words.",
                'Say it: magic3d generate --image FILE "a brass teapot"',
            )
    if method != settings.SDS:  # before a download
        check_method(method, foresee_priors(wanted, device), lambda text: None)
    chosen = choose_priors(
        wanted,
        prompt,
        seed,
        device,
        observer.note,
        strict=request.strict,
        pictured=pictured is not None,
        adapters=adapters,
    )
    check_method(method, chosen, observer.note)
    return chosen


def make_guide(
    priors: dict[str, list[ChosenPrior]] | None,
    chosen: Settings,
    request: Request,
    prompt: str,
    device: str,
    observer: Observer,
    pictured: Pictured | None,
    loaded: Loaded | None = None,
    adapters: Sequence[Adapter] = (),
    style: Style | None = None,
) -> Guide:
    """The guide, with what the settings want of it fetched; says which choices the priors have no use for."""
    if priors is None:
        return PictureAlone()
    if request.perp_neg and not any(prior.open_vocabulary for some in priors.values() for prior in some):
        observer.note("--perp-neg is not used: the built-in prior is told where the camera is.")
    small = request.small_encoder or chosen.coarse.guidance.small_encoder or chosen.fine.guidance.small_encoder
    encoder = fetch_small_encoder(priors, observer.note) if small else None
    for note in told_of_style(priors, adapters, style):
        observer.note(note)
    if rounds := told_of_rounds(chosen.fine):
        observer.note(rounds)
    return PriorGuide(priors, prompt, chosen.seed, device, encoder, observer.note, pictured, loaded, adapters, style)


def shape_of(
    pictured: Pictured | None, chosen: Settings, guide: Guide, device: str
) -> Callable[[], InitialShape | None] | None:
    """What pictures are begun with where nothing else was asked for: the built-in prior's fitted model, else what fits
    into the outlines."""
    if pictured is None or not chosen.coarse.init.startswith(settings.PICTURE_SHAPE):
        return None
    if pictured.fit is None:
        return partial(HullShape, pictured.references)
    if guide.name("coarse") == "builtin":
        return guide.volume  # its prior is loaded already
    noun = pictured.fit.noun
    wanted = {stage: [WeightedPrior("builtin")] for stage in STAGES}
    priors = choose_priors(wanted, noun, chosen.seed, device, lambda text: None)
    return PriorGuide(priors, noun, chosen.seed, device, pictured=pictured).volume
