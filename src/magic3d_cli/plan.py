"""What a request would do, without doing it: settings, priors, seconds, downloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from magic3d_cli import presets, recipes
from magic3d_cli.assembly import choose_device, resolved
from magic3d_cli.guidance.adapters import Adapter, image_prompt, read_adapters
from magic3d_cli.guidance.diffusers.catalogue import HUB, NAMES, directory, local
from magic3d_cli.guidance.diffusers.files import installed_bytes
from magic3d_cli.guidance.diffusers.hub import INSTALLED, state_of
from magic3d_cli.guidance.diffusers.spec import DENOISERS
from magic3d_cli.guidance.methods import check_method
from magic3d_cli.guidance.priors import STAGES, foresee_priors
from magic3d_cli.guidance.styling import check_style
from magic3d_cli.job import editing_from, refining
from magic3d_cli.precheck import prior_of
from magic3d_cli.request import TEXTURE, Request, prior_names, wanted_priors
from magic3d_cli.run import estimate
from magic3d_cli.run.observer import Observer
from magic3d_cli.run.resume import Saved
from magic3d_cli.settings import EDITED, EDITED_VOLUME, SDS, Settings, StagePrior
from magic3d_cli.style import Style


@dataclass(frozen=True)
class Plan:
    """What a request would do."""

    settings: Settings
    priors: dict[str, str]  # the first one of each stage
    device: str
    seconds: float  # on this machine
    download_gigabytes: float
    adapters: tuple[Adapter, ...]
    style: Style | None


def plan(request: Request, seed: int, observer: Observer) -> Plan:
    """Looked up and estimated; nothing is downloaded, loaded or made. Raises EnvironmentFault, UsageError."""
    device, adapters = choose_device(request.device, observer), read_adapters(request.adapters)
    some = _priors_of(prior_names(request), request, device)
    check_style(some, adapters, request.style)
    names = {prior.name for stage in some.values() for prior in stage}
    known = all(name in HUB or local(name) is not None for name in names)  # else it is seen when it is here
    if request.recipe and known:
        recipes.check_priors(recipes.named(request.recipe), some)
    chosen = resolved(replace(presets.preset(request.preset or "draft"), seed=seed), some, request)
    if request.mesh is not None:
        chosen = presets.of_a_mesh(chosen, keep_geometry=request.mesh == TEXTURE)
    return _planned(chosen, some, device, adapters, request.style)


def plan_refinement(checkpoint: Path, request: Request, observer: Observer) -> Plan:
    """`plan` of `job.refine`: the fine stage and the asset."""
    saved, device = Saved.load(checkpoint), choose_device(request.device, observer)
    request, name = refining(saved, request)
    adapters = saved.adapters(read_adapters(request.adapters))
    some = _priors_of(dict.fromkeys(STAGES, name), request, device)
    check_style(some, adapters, saved.style)
    chosen = resolved(saved.settings, some, request, fine_preset=request.preset)
    chosen = replace(chosen, coarse=replace(chosen.coarse, steps=0))
    return _planned(chosen, some, device, adapters, saved.style, fits=False)


def plan_edit(checkpoint: Path, request: Request, keep_geometry: bool, observer: Observer) -> Plan:
    """`plan` of `job.edit`."""
    saved, device = Saved.load(checkpoint), choose_device(request.device, observer)
    some = _priors_of(dict.fromkeys(STAGES, request.fine_prior or prior_of(saved.header)), request, device)
    _, adapters = saved.adapters_of_edit(read_adapters(request.adapters))
    style = request.style or saved.style
    check_style(some, adapters, style)
    request, base = editing_from(saved, request, some["fine"][0])
    init = EDITED_VOLUME if some["coarse"][0].has_volume else EDITED
    chosen = resolved(base, some, replace(request, init=init))
    chosen = presets.of_an_edit(chosen, saved.settings.coarse.field, keep_geometry)
    return _planned(chosen, some, device, adapters, style, fits=not keep_geometry)


def _priors_of(names: Mapping[str, str], request: Request, device: str) -> dict[str, list[StagePrior]]:
    """Of each stage, with those that a request adds. Raises UsageError where they cannot follow its distillation."""
    found = foresee_priors(wanted_priors(names, request), device)
    check_method(request.distillation or SDS, found, lambda text: None)
    return found


def _planned(
    chosen: Settings,
    some: Mapping[str, Sequence[StagePrior]],
    device: str,
    adapters: Sequence[Adapter],
    style: Style | None,
    fits: bool = True,
) -> Plan:
    """What settings come to with the priors of each stage; `fits` as `estimate.seconds_of`."""
    names = dict.fromkeys(prior.name for stage in some.values() for prior in stage)
    absent = {name for name in names if name in HUB and state_of(HUB[name]) != INSTALLED}
    alike = {stage: prior.name if prior.open_vocabulary else "builtin" for stage, (prior, *_) in some.items()}
    here = {name: folder for name in names if name not in NAMES and (folder := directory(name))}
    weights = {name: sum(installed_bytes(folder / part) for part in DENOISERS) for name, folder in here.items()}
    shown = image_prompt(adapters) is not None
    seconds = estimate.seconds_of(chosen, alike, device, estimate.matrix_speed(device), weights, fits, shown)
    first = {stage: prior.name for stage, (prior, *_) in some.items()}
    gigabytes = sum(HUB[name].gigabytes for name in absent)
    return Plan(chosen, first, device, seconds, gigabytes, tuple(adapters), style)
