"""From a request to a job, and its run folder: generate, edit, refine, export. The one way, whoever asks.

The command line, Python (`magic3d_cli.generate`), the tests and clusters all come through here.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from magic3d_cli import open_presets, pipeline, presets, recipes, settings
from magic3d_cli.assembly import NOTHING, choose, choose_device, following, make_guide, resolved, shape_of
from magic3d_cli.asset.simplify import small_enough
from magic3d_cli.asset.write import Asset
from magic3d_cli.checks import check_recipe
from magic3d_cli.editing import EditRequest, Wanted, prepare
from magic3d_cli.errors import UsageError
from magic3d_cli.fine.edit import Edit
from magic3d_cli.guidance.adapters import Adapter, read_adapters
from magic3d_cli.guidance.guide import Guide, Loaded
from magic3d_cli.guidance.pictured import Pictured
from magic3d_cli.guidance.priors import STAGES, WeightedPrior, understood
from magic3d_cli.initial_shapes import named_shape
from magic3d_cli.pictures import draw_picture, look_at
from magic3d_cli.precheck import drawn_digest, prior_of
from magic3d_cli.request import TEXTURE, Request, prior_names
from magic3d_cli.run.callbacks import Intervals
from magic3d_cli.run.context import Job, OwnSurface
from magic3d_cli.run.directory import CHECKPOINTS, RunDirectory
from magic3d_cli.run.interrupts import Interrupts
from magic3d_cli.run.observer import Observer
from magic3d_cli.run.resume import Saved
from magic3d_cli.scene.shape import InitialShape
from magic3d_cli.settings import Settings
from magic3d_cli.style import Style
from magic3d_cli.training.distributed import Processes, joined
from magic3d_cli.training.terms import ViewGroup


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
    priors = choose(names, request, asked, seed, device, observer, pictured, adapters, request.style)
    if recipe is not None:
        priors = following(recipe, priors, observer.note)
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
    guide = make_guide(priors, chosen, request, asked, device, observer, pictured, loaded, adapters, request.style)
    with opened(
        asked,
        chosen,
        request.output,
        guide,
        device,
        observer,
        interrupts,
        shape=shape.load if shape else shape_of(pictured, chosen, guide, device),
        pictured=pictured,
        typed=prompt if pictured else "",
        adapters=adapters,
        style=request.style,
        more_views=more_views,
        surface=surface,
    ) as job:
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
    priors = choose(dict.fromkeys(STAGES, name), request, prompt, seed, device, observer, None, adapters, style)
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
    guide = make_guide(priors, chosen, request, prompt, device, observer, None, None, adapters, style)
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
            f"Write its mesh: magic3d export {shlex.quote(str(checkpoint))}",
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
    priors = choose(wanted, request, prompt, header["seed"], device, observer, pictured, adapters, saved.style)
    chosen = resolved(saved.settings, priors or NOTHING, request, fine_preset=request.preset, pictured=pictured)
    guide = make_guide(priors, chosen, request, prompt, device, observer, pictured, None, adapters, saved.style)
    shape = shape_of(pictured, chosen, guide, device)
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
    return request, "builtin" if name == settings.PICTURES_ALONE else name


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
