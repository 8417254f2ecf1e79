"""From a request to a job: settings, device, priors, run folder. The one assembly, whoever asks.

The command line, Python (`magic3d_cli.generate`), the tests and clusters all come through here.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from magic3d_cli import open_presets, pipeline, presets, recipes, settings
from magic3d_cli.asset.simplify import small_enough
from magic3d_cli.asset.write import Asset
from magic3d_cli.checks import check_recipe
from magic3d_cli.editing import EditRequest, Wanted, prepare
from magic3d_cli.environment import is_main_process
from magic3d_cli.errors import EnvironmentFault, UsageError
from magic3d_cli.fine.edit import Edit
from magic3d_cli.guidance.adapters import Adapter, check_shown, read_adapters
from magic3d_cli.guidance.guide import (
    STAGES,
    ChosenPrior,
    Guide,
    Loaded,
    PriorGuide,
    WeightedPrior,
    choose_priors,
    fetch_small_encoder,
    foresee_priors,
    full_name,
    takes_words,
    told_of_style,
    understood,
)
from magic3d_cli.guidance.methods import check_method
from magic3d_cli.guidance.pictured import Pictured
from magic3d_cli.initial_shapes import named_shape
from magic3d_cli.kernels.dispatch import NVRTC, usable
from magic3d_cli.picture_request import PictureRequest
from magic3d_cli.pictures import NO_PRIOR, PictureAlone, draw_picture, look_at, write_sheet
from magic3d_cli.precheck import check_paints, drawn_digest, prior_of
from magic3d_cli.run.callbacks import Intervals
from magic3d_cli.run.context import Job, OwnSurface
from magic3d_cli.run.directory import CHECKPOINTS, RunDirectory
from magic3d_cli.run.forecast import told_of_rounds
from magic3d_cli.run.interrupts import Interrupts
from magic3d_cli.run.observer import Observer
from magic3d_cli.run.resume import Saved
from magic3d_cli.scene.hull_shape import HullShape
from magic3d_cli.scene.shape import InitialShape
from magic3d_cli.settings import Settings
from magic3d_cli.style import Style
from magic3d_cli.training.distributed import Processes, joined
from magic3d_cli.training.terms import ViewGroup

TEXTURE, RESHAPE = "texture", "reshape"
"""What a mesh of a person's own gets: new colours on the shape as it is, or a new shape too."""
NOTHING = {stage: [NO_PRIOR] for stage in STAGES}
"""What settings are resolved for where no prior knows what pictures show."""


@dataclass(frozen=True)
class Request(settings.AssetChoices):
    """What a person asks for; None leaves a choice to the preset or, when refining, to the checkpoint."""

    output: Path  # the suffix says the format
    preset: str | None = None
    coarse_prior: str | None = None
    fine_prior: str | None = None
    more_priors: tuple[WeightedPrior, ...] = ()  # beside those of both stages
    init: str | None = None  # where the coarse stage begins: auto, ball, or a shape of `initial_shapes`
    init_up: str = "y"  # which axis of its mesh file points upwards
    device: str = "auto"
    perp_neg: bool | None = None
    small_encoder: bool | None = None
    distillation: str | None = None  # of `settings.METHODS`
    mesh: str | None = None  # TEXTURE or RESHAPE: what `init` names is a mesh of a person's own, and what it gets
    fresh: bool = False  # start over; an earlier run is moved aside
    strict: bool = False  # refuse words that a prior of closed vocabulary does not know
    pictures: PictureRequest | None = None  # of the thing; the prompt may then be empty
    recipe: str | None = None  # of `recipes`
    adapters: tuple[str, ...] = ()  # FILE or FILE=WEIGHT, see `guidance.adapters`
    style: Style | None = None  # of a picture: the built-in prior paints in its palette, others are shown it


def generate(
    prompt: str,
    seed: int,
    request: Request,
    observer: Observer,
    interrupts: Interrupts,
    *,
    more_views: Sequence[ViewGroup] = (),
    loaded: Loaded | None = None,
) -> tuple[Asset | None, dict[str, Any]]:
    """`pipeline.generate` for a request. Raises what that does, and EnvironmentFault.

    `loaded` keeps priors for the next job of the same process.
    """
    device, names = choose_device(request.device, observer), prior_names(request)
    pictured, recipe = None, recipes.named(request.recipe) if request.recipe else None
    adapters = read_adapters(request.adapters)
    check_recipe(request.recipe, request.pictures is not None)
    if recipe is not None and request.pictures is None:
        observer.phase("draw the picture")
        drawn_for = drawn_digest(recipe.name, prompt, seed)
        request = replace(request, pictures=draw_picture(prompt, seed, recipe.elevation or 0.0, drawn_for))
    if request.pictures is not None:
        observer.phase("look at the picture")
        more: dict[str, Any] = {"elevation": recipe.elevation, "depth": recipe.depth} if recipe else {}
        pictured = look_at(request.pictures, prompt, seed, observer.note, **more)
    asked = pictured.prompt if pictured else prompt
    priors = _choose(names, request, asked, seed, device, observer, pictured, adapters, request.style)
    if recipe is not None:
        priors = _following(recipe, priors, observer.note)
    drawn = None
    if priors is not None and pictured is None:
        if device == "cuda" and names["fine"] == "auto" and priors["fine"][0].name == "builtin":
            observer.note("On this GPU --prior sd15 makes anything that words can say (4.3 GB, downloaded once).")
        drawn = understood(priors, prompt, seed, adapters)
    for note in drawn.notes if drawn else ():
        observer.note(note)
    shape = named_shape(request.init or settings.AUTO, request.init_up, seed, device, observer.note)
    if shape is not None:
        request = replace(request, init=shape.identity)
    elif pictured is not None and request.init in (None, settings.AUTO):
        request = replace(request, init=f"{settings.PICTURE_SHAPE}{pictured.digest}")
    base = replace(presets.preset(request.preset or "draft"), seed=seed)
    chosen = resolved(base, priors or NOTHING, request, pictured=pictured)
    if priors is not None and (short := open_presets.shortfall(chosen, priors["coarse"])):
        observer.note(short)
    surface = None
    if request.mesh is not None:
        chosen = presets.of_a_mesh(chosen, keep_geometry=request.mesh == TEXTURE)
        if shape is not None and shape.mesh is not None and request.mesh == TEXTURE:
            surface = small_enough(shape.mesh.vertices, shape.mesh.faces, observer.note)
    guide = _guide(priors, chosen, request, asked, device, observer, pictured, loaded, adapters, request.style)
    with opened(
        asked,
        chosen,
        request.output,
        guide,
        device,
        observer,
        interrupts,
        shape=shape.load if shape else _shape_of(pictured, chosen, guide, device),
        pictured=pictured,
        typed=prompt if pictured else "",
        adapters=adapters,
        style=request.style,
        more_views=more_views,
        surface=surface,
    ) as job:
        if pictured is not None and job.processes.is_main:
            write_sheet(pictured, job.run.picture)
        asset, report = pipeline.generate(job, fresh=request.fresh)
    report |= {"pictures": pictured.to_json()} if pictured else {}
    return asset, report | ({"understood": drawn.to_json()} if drawn else {})


def edit(
    prompt: str, asked: EditRequest, request: Request, observer: Observer, interrupts: Interrupts
) -> tuple[Asset | None, dict[str, Any]]:
    """Another run's scene, changed to what a prompt asks; of the request neither pictures nor a shape to begin with.

    Raises what `generate` does.
    """
    saved = Saved.load(asked.source)
    seed, device = saved.header["seed"], choose_device(request.device, observer)
    name = request.fine_prior or prior_of(saved.header)
    style = request.style or saved.style
    before, adapters = saved.adapters_of_edit(read_adapters(request.adapters))
    priors = _choose(dict.fromkeys(STAGES, name), request, prompt, seed, device, observer, None, adapters, style)
    assert priors is not None  # there are no pictures
    drawn = understood(priors, prompt, seed, adapters)
    for note in drawn.notes if drawn else ():
        observer.note(note)
    request, base = editing_from(saved, request, priors["fine"][0])
    guidance = resolved(base, priors, request).fine.guidance
    observer.phase("find what changes")
    wanted = Wanted(prompt, adapters, style)
    found, surface = prepare(asked, saved, before, wanted, priors, guidance, device, observer.note)
    kind = settings.EDITED_VOLUME if found.begins_as_asked else settings.EDITED
    chosen = resolved(base, priors, replace(request, init=f"{kind}{asked.digest}"))
    chosen = presets.of_an_edit(chosen, saved.settings.coarse.field, keep_geometry=not found.region.shape_changes)
    guide = _guide(priors, chosen, request, prompt, device, observer, None, None, adapters, style)
    with opened(
        prompt, chosen, request.output, guide, device, observer, interrupts,
        shape=lambda: found.shape, edit=found, surface=surface, adapters=adapters, style=style,
    ) as job:  # fmt: skip
        asset, report = pipeline.generate(job, fresh=request.fresh)
    return asset, report | ({"understood": drawn.to_json()} if drawn else {})


def editing_from(saved: Saved, request: Request, prior: settings.StagePrior) -> tuple[Request, Settings]:
    """A request to edit, by the run's own method of distillation where its prior is, and the settings of its preset."""
    if request.fine_prior is None and prior.learns_renders:
        request = replace(request, distillation=saved.settings.fine.guidance.method)
    return request, replace(presets.preset(request.preset or saved.settings.preset), seed=saved.header["seed"])


def refine(
    checkpoint: Path, request: Request, observer: Observer, interrupts: Interrupts
) -> tuple[Asset | None, dict[str, Any]]:
    """`pipeline.refine` for a request. Raises what that does, and EnvironmentFault."""
    saved = Saved.load(checkpoint)
    header, prompt = saved.header, saved.header["prompt"]
    if header["stage"] != "coarse":
        raise UsageError(
            f"{checkpoint} is a {header['stage']} checkpoint: it is refined already.",
            f"Write its mesh: magic3d export {checkpoint}",
        )
    if saved.settings.coarse.init.startswith((settings.EDITED, settings.EDITED_VOLUME)):
        raise UsageError(
            f"{checkpoint} is of an edit: what it left as it was is its parent's, which refining would make anew.",
            f"Edit its parent with another preset: magic3d edit PARENT.run {shlex.quote(prompt)} --preset NAME",
        )
    if saved.unfinished:
        observer.note(f"{checkpoint}: only {header['step']} of {header['total']} coarse steps were done.")
    device = choose_device(request.device, observer)
    request, name = refining(saved, request)
    pictured = saved.pictured
    adapters = saved.adapters(read_adapters(request.adapters))
    wanted = dict.fromkeys(STAGES, name)
    priors = _choose(wanted, request, prompt, header["seed"], device, observer, pictured, adapters, saved.style)
    chosen = resolved(saved.settings, priors or NOTHING, request, fine_preset=request.preset, pictured=pictured)
    guide = _guide(priors, chosen, request, prompt, device, observer, pictured, None, adapters, saved.style)
    shape = _shape_of(pictured, chosen, guide, device)
    with opened(
        prompt,
        chosen,
        request.output,
        guide,
        device,
        observer,
        interrupts,
        shape=shape,
        pictured=pictured,
        adapters=adapters,
        style=saved.style,
    ) as job:
        return pipeline.refine(job, saved, fresh=request.fresh)


def refining(saved: Saved, request: Request) -> tuple[Request, str]:
    """A request to refine with the checkpoint's own priors where it asks for no others; and the first one's name."""
    if request.fine_prior is not None:
        return request, request.fine_prior
    if not request.more_priors:
        added = tuple(WeightedPrior(a.prior, a.weight) for a in saved.settings.fine.added_guidance)
        request = replace(request, more_priors=added)
    name = saved.header.get("fine_prior", saved.header["prior"]["id"])
    return request, "builtin" if name == NO_PRIOR.name else name


def export(checkpoint: Path, request: Request, observer: Observer) -> dict[str, Any]:
    """`pipeline.export` for a request: of its choices, the output, the device and the asset's sizes."""
    saved = Saved.load(checkpoint)
    header = saved.header
    observer.note(
        f'{checkpoint}: "{header["prompt"]}", {header["stage"]} stage, step {header["step"]} of {header["total"]}'
    )
    asset = request.applied(saved.settings.asset)
    return pipeline.export(saved, request.output, asset, choose_device(request.device, observer), observer)


@contextmanager
def opened(
    prompt: str,
    chosen: Settings,
    output: Path,
    guide: Guide,
    device: str,
    observer: Observer,
    interrupts: Interrupts,
    *,
    shape: Callable[[], InitialShape | None] | None = None,
    pictured: Pictured | None = None,
    typed: str = "",
    adapters: Sequence[Adapter] = (),
    style: Style | None = None,
    more_views: Sequence[ViewGroup] = (),
    edit: Edit | None = None,
    surface: OwnSurface | None = None,
    intervals: Intervals | None = None,
) -> Iterator[Job]:
    """A job whose processes have met and whose run folder is made and locked; a failure inside goes into its log."""
    views = {"coarse": chosen.coarse.views, "fine": chosen.fine.views}
    together = {"coarse": chosen.coarse.sampling.together, "fine": chosen.fine.sampling.together}
    with joined(device, views, together) as processes, _run_of(processes, output) as run, run, run.recording():
        yield Job(
            prompt=prompt,
            settings=chosen,
            output=output,
            run=run,
            guide=guide,
            device=device,
            processes=processes,
            shape=shape,
            pictured=pictured,
            typed=typed,
            adapters=adapters,
            style=style,
            more_views=more_views,
            edit=edit,
            surface=surface,
            observer=observer,
            interrupts=interrupts,
            intervals=intervals or Intervals(),
        )


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


def prior_names(request: Request) -> dict[str, str]:
    """The prior asked for, of each stage."""
    return {"coarse": request.coarse_prior or "auto", "fine": request.fine_prior or "auto"}


def wanted_priors(names: Mapping[str, str], request: Request) -> dict[str, list[WeightedPrior]]:
    """The priors of each stage, the one of this name first, with those that a request adds."""
    return {stage: [WeightedPrior(name), *request.more_priors] for stage, name in names.items()}


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


def _following(
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


def _choose(
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


def _guide(
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


def _shape_of(
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


@contextmanager
def _run_of(processes: Processes, output: Path) -> Iterator[RunDirectory]:
    """The run's folder for the main process; for any other a copy to resume from and to forget."""
    run = RunDirectory.for_output(output)
    if processes.is_main:
        processes.barrier()  # the others have copied
        yield run
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / run.path.name
        copy.mkdir()
        for name in CHECKPOINTS:
            if (run.path / name).is_file():
                shutil.copyfile(run.path / name, copy / name)
        processes.barrier()
        yield RunDirectory(copy)
