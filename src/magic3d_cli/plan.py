"""What a request would do, without doing it: settings, priors, seconds, downloads."""

from __future__ import annotations

from dataclasses import dataclass, replace

from magic3d_cli import presets, recipes
from magic3d_cli.guidance.diffusers.catalogue import FROM_PICTURE, HUB, NAMES, directory, local, of_stage
from magic3d_cli.guidance.diffusers.files import installed_bytes, vocabulary_of
from magic3d_cli.guidance.diffusers.hub import INSTALLED, state_of
from magic3d_cli.guidance.diffusers.spec import DENOISERS, describe
from magic3d_cli.guidance.guide import full_name
from magic3d_cli.job import Request, choose_device, prior_names, resolved
from magic3d_cli.run import estimate
from magic3d_cli.run.observer import Observer
from magic3d_cli.settings import Settings, StagePrior


@dataclass(frozen=True)
class Plan:
    """What a request would do."""

    settings: Settings
    priors: dict[str, str]  # the first one of each stage
    device: str
    seconds: float  # on this machine
    download_gigabytes: float


def plan(request: Request, seed: int, observer: Observer) -> Plan:
    """Looked up and estimated; nothing is downloaded, loaded or made. Raises EnvironmentFault, UsageError."""
    device = choose_device(request.device, observer)
    full = {stage: full_name(name, device) for stage, name in prior_names(request).items()}
    more = [_foreseen(full_name(prior.name, device), prior.weight) for prior in request.more_priors]
    names = dict.fromkeys([*full.values(), *(prior.name for prior in more)])
    some = {stage: [_foreseen(name), *more] for stage, name in full.items()}
    if request.recipe and all(
        name in HUB or local(name) is not None for name in names
    ):  # else it is seen when it is here
        recipes.check_priors(recipes.named(request.recipe), some)
    chosen = resolved(replace(presets.preset(request.preset or "draft"), seed=seed), some, request)
    absent = {name for name in names if name in HUB and state_of(HUB[name]) != INSTALLED}
    alike = {stage: full[stage] if prior.open_vocabulary else "builtin" for stage, (prior, *_) in some.items()}
    here = {name: folder for name in names if name not in NAMES and (folder := directory(name))}
    weights = {name: sum(installed_bytes(folder / part) for part in DENOISERS) for name, folder in here.items()}
    seconds = estimate.seconds_of(chosen, alike, device, estimate.matrix_speed(device), weights)
    return Plan(chosen, full, device, seconds, sum(HUB[name].gigabytes for name in absent))


def _foreseen(name: str, weight: float = 1.0) -> StagePrior:
    """A prior as far as settings depend on it, by its name and, where it is here, by its files."""
    folder = local(name)
    pipeline = None if folder is None else of_stage(folder, "coarse")
    known = pipeline is not None and vocabulary_of(pipeline) is not None
    shown = name in FROM_PICTURE or (pipeline is not None and not known and describe(pipeline, name).from_picture)
    return StagePrior(name, weight, not known, shown, known)
