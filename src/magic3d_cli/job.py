"""From a request to a job: settings, device, priors, run folder. The one assembly, whoever asks.

The command line, Python (`magic3d_cli.generate`), the tests and clusters all come through here.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from magic3d_cli import pipeline, settings
from magic3d_cli.asset.simplify import small_enough
from magic3d_cli.asset.write import Asset
from magic3d_cli.environment import is_main_process
from magic3d_cli.errors import EnvironmentFault, UsageError
from magic3d_cli.guidance.diffusers.catalogue import HUB, NAMES, directory, local, of_stage
from magic3d_cli.guidance.diffusers.files import installed_bytes, vocabulary_of
from magic3d_cli.guidance.diffusers.hub import INSTALLED, state_of
from magic3d_cli.guidance.guide import (
    STAGES,
    ChosenPrior,
    Guide,
    PriorGuide,
    WeightedPrior,
    choose_priors,
    fetch_small_encoder,
    full_name,
    understood,
)
from magic3d_cli.guidance.pictured import Pictured
from magic3d_cli.initial_shapes import NamedShape, named_shape
from magic3d_cli.kernels.dispatch import NVRTC, usable
from magic3d_cli.pictures import NoPrior, PictureAlone, look_at, write_sheet
from magic3d_cli.reference import PictureRequest
from magic3d_cli.run import estimate
from magic3d_cli.run.callbacks import Intervals
from magic3d_cli.run.context import Job, OwnSurface
from magic3d_cli.run.directory import CHECKPOINTS, RunDirectory
from magic3d_cli.run.interrupts import Interrupts
from magic3d_cli.run.observer import Observer
from magic3d_cli.run.resume import Saved
from magic3d_cli.scene.hull_shape import HullShape
from magic3d_cli.scene.shape import InitialShape
from magic3d_cli.settings import Settings
from magic3d_cli.training.distributed import Processes, joined
from magic3d_cli.training.terms import ViewGroup

TEXTURE, RESHAPE = "texture", "reshape"
"""What a mesh of a person's own gets: new colours on the shape as it is, or a new shape too."""


@dataclass(frozen=True)
class Request:
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
    faces: int | None = None
    texture_size: int | None = None
    height: float | None = None  # metres
    mesh: str | None = None  # TEXTURE or RESHAPE: what `init` names is a mesh of a person's own, and what it gets
    fresh: bool = False  # start over; an earlier run is moved aside
    strict: bool = False  # refuse words that a prior of closed vocabulary does not know
    pictures: PictureRequest | None = None  # of the thing; the prompt may then be empty


def generate(
    prompt: str,
    seed: int,
    request: Request,
    observer: Observer,
    interrupts: Interrupts,
    *,
    more_views: Sequence[ViewGroup] = (),
) -> tuple[Asset | None, dict[str, Any]]:
    """`pipeline.generate` for a request. Raises what that does, and EnvironmentFault."""
    device = choose_device(request.device, observer)
    names = {"coarse": request.coarse_prior or "auto", "fine": request.fine_prior or "auto"}
    if request.pictures is not None:
        return _from_pictures(request.pictures, prompt, seed, request, names, device, observer, interrupts, more_views)
    priors = _choose(names, request, prompt, seed, device, observer)
    if device == "cuda" and names["fine"] == "auto" and priors["fine"][0].name == "builtin":
        observer.note("On this GPU --prior sd15 makes anything that words can say (4.3 GB, downloaded once).")
    drawn = understood(priors, prompt, seed)
    for note in drawn.notes if drawn else ():
        observer.note(note)
    shape = named_shape(request.init or settings.AUTO, request.init_up, seed, device, observer.note)
    if shape is not None:
        request = replace(request, init=shape.identity)
    chosen = _resolve(replace(settings.preset(request.preset or "draft"), seed=seed), priors, request)
    surface = None
    if request.mesh is not None:
        chosen = settings.of_a_mesh(chosen, keep_geometry=request.mesh == TEXTURE)
        if shape is not None and shape.mesh is not None and request.mesh == TEXTURE:
            surface = small_enough(shape.mesh.vertices, shape.mesh.faces, observer.note)
    guide = _guide(priors, chosen, request, prompt, device, observer)
    extra: dict[str, Any] = {"shape": shape, "more_views": more_views, "surface": surface}
    with opened(prompt, chosen, request.output, guide, device, observer, interrupts, **extra) as job:
        asset, report = pipeline.generate(job, fresh=request.fresh)
    return asset, report | ({"understood": drawn.to_json()} if drawn else {})


@dataclass(frozen=True)
class Plan:
    """What a request would do."""

    settings: Settings
    priors: dict[str, str]  # the first one of each stage
    device: str
    seconds: float | None  # on this machine; None where nobody knows
    download_gigabytes: float


def plan(request: Request, seed: int, observer: Observer) -> Plan:
    """Looked up and estimated; nothing is downloaded, loaded or made. Raises EnvironmentFault, UsageError."""
    device = choose_device(request.device, observer)
    names = {"coarse": request.coarse_prior or "auto", "fine": request.fine_prior or "auto"}
    full = {stage: full_name(name, device) for stage, name in names.items()}
    some = {stage: [_Foreseen(name), *(_Foreseen(p.name, p.weight) for p in request.more_priors)] for stage, name in
            full.items()}  # fmt: skip
    chosen = _resolve(replace(settings.preset(request.preset or "draft"), seed=seed), some, request)
    absent = {name for name in full.values() if name in HUB and state_of(HUB[name]) != INSTALLED}
    alike = {stage: full[stage] if prior.open_vocabulary else "builtin" for stage, (prior, *_) in some.items()}
    here = {name: folder for name in full.values() if name not in NAMES and (folder := directory(name))}
    weights = {name: installed_bytes(folder / "unet") for name, folder in here.items()}
    seconds = estimate.seconds_of(chosen, alike, device, estimate.matrix_speed(device), weights)
    return Plan(chosen, full, device, seconds, sum(HUB[name].gigabytes for name in absent))


@dataclass(frozen=True)
class _Foreseen:
    """A prior as far as settings depend on it, by its name alone."""

    name: str
    weight: float = 1.0

    @property
    def open_vocabulary(self) -> bool:
        folder = local(self.name)
        return folder is None or vocabulary_of(of_stage(folder, "coarse")) is None

    @property
    def has_volume(self) -> bool:
        return not self.open_vocabulary


def _from_pictures(
    pictures: PictureRequest,
    typed: str,
    seed: int,
    request: Request,
    names: dict[str, str],
    device: str,
    observer: Observer,
    interrupts: Interrupts,
    more_views: Sequence[ViewGroup],
) -> tuple[Asset | None, dict[str, Any]]:
    """`generate` with pictures: what they show is found out first."""
    observer.phase("look at the picture")
    pictured = look_at(pictures, typed, seed, observer.note)
    shape = named_shape(request.init or settings.AUTO, request.init_up, seed, device, observer.note)
    priors, guide = _guided(pictured, seed, request, names, device, observer)
    if shape is None and request.init in (None, settings.AUTO):
        shape = _shape_of(pictured, seed, device)
    if shape is not None:
        request = replace(request, init=shape.identity)
    base = replace(settings.preset(request.preset or "draft"), seed=seed)
    chosen = _resolve(base, priors, request, imagine=pictured.imagine)
    guide = guide or _guide(priors, chosen, request, pictured.prompt, device, observer, pictured)
    extra: dict[str, Any] = {"shape": shape, "more_views": more_views, "pictured": pictured, "typed": typed}
    with opened(pictured.prompt, chosen, request.output, guide, device, observer, interrupts, **extra) as job:
        if job.processes.is_main:
            write_sheet(pictured, job.run.picture)
        asset, report = pipeline.generate(job, fresh=request.fresh)
    return asset, report | {"pictures": pictured.to_json()}


def _guided(
    pictured: Pictured, seed: int, request: Request, names: dict[str, str], device: str, observer: Observer
) -> tuple[Any, Guide | None]:
    """The priors of each stage; where none knows the thing, nothing but the pictures, and that as the guide."""
    if pictured.fit is None and all(full_name(name, device) == "builtin" for name in names.values()):
        if request.more_priors:
            raise UsageError(
                "The built-in prior knows nothing like the picture, and leads both stages.",
                "Say in words what it shows, or name another prior with --prior.",
            )
        return {stage: [NoPrior()] for stage in STAGES}, PictureAlone()
    if not pictured.prompt:
        raise UsageError(
            "What the picture shows is not known, and this prior is told in words.",
            'Say it: magic3d generate --image FILE "a brass teapot"',
        )
    return _choose(names, request, pictured.prompt, seed, device, observer), None


def _shape_of(pictured: Pictured, seed: int, device: str) -> NamedShape:
    """What pictures are begun with: the fitted model of the built-in prior, else what fits into the outlines."""

    def load() -> InitialShape | None:
        if pictured.fit is None:
            return HullShape(pictured.references)
        wanted = {stage: [WeightedPrior("builtin")] for stage in STAGES}
        noun = pictured.fit.noun
        priors = choose_priors(wanted, noun, seed, device, lambda text: None)
        return PriorGuide(priors, noun, seed, device, pictured=pictured).volume()

    return NamedShape(f"{settings.PICTURE_SHAPE}{pictured.digest}", load)


def refine(
    checkpoint: Path, request: Request, observer: Observer, interrupts: Interrupts
) -> tuple[Asset | None, dict[str, Any]]:
    """`pipeline.refine` for a request. Raises what that does, and EnvironmentFault."""
    saved = Saved.load(checkpoint)
    header = saved.header
    if header["stage"] != "coarse":
        raise UsageError(
            f"{checkpoint} is a {header['stage']} checkpoint: it is refined already.",
            f"Write its mesh: magic3d export {checkpoint}",
        )
    if saved.unfinished:
        observer.note(f"{checkpoint}: only {header['step']} of {header['total']} coarse steps were done.")
    device = choose_device(request.device, observer)
    name = request.fine_prior or header.get("fine_prior", header["prior"]["id"])
    if request.fine_prior is None and not request.more_priors:
        added = tuple(WeightedPrior(a.prior, a.weight) for a in saved.settings.fine.added_guidance)
        request = replace(request, more_priors=added)
    pictured, guide, priors = saved.pictured, None, None
    if pictured is not None and name == NoPrior.name:
        priors, guide = _guided(pictured, header["seed"], request, dict.fromkeys(STAGES, "builtin"), device, observer)
    priors = priors or _choose(dict.fromkeys(STAGES, name), request, header["prompt"], header["seed"], device, observer)
    imagine = pictured.imagine if pictured else None
    chosen = _resolve(saved.settings, priors, request, fine_preset=request.preset, imagine=imagine)
    guide = guide or _guide(priors, chosen, request, header["prompt"], device, observer, pictured)
    extra: dict[str, Any] = {"pictured": pictured}
    if pictured is not None and chosen.coarse.init.startswith(settings.PICTURE_SHAPE):
        extra["shape"] = _shape_of(pictured, header["seed"], device)
    with opened(header["prompt"], chosen, request.output, guide, device, observer, interrupts, **extra) as job:
        return pipeline.refine(job, saved, fresh=request.fresh)


def export(checkpoint: Path, request: Request, observer: Observer) -> dict[str, Any]:
    """`pipeline.export` for a request: of its choices, the output, the device and the asset's sizes."""
    saved = Saved.load(checkpoint)
    header = saved.header
    observer.note(
        f'{checkpoint}: "{header["prompt"]}", {header["stage"]} stage, step {header["step"]} of {header["total"]}'
    )
    sizes: dict[str, Any] = {"faces": request.faces, "texture_size": request.texture_size, "height": request.height}
    asset = replace(saved.settings.asset, **{key: value for key, value in sizes.items() if value is not None})
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
    shape: NamedShape | None = None,
    pictured: Pictured | None = None,
    typed: str = "",
    more_views: Sequence[ViewGroup] = (),
    surface: OwnSurface | None = None,
    intervals: Intervals | None = None,
) -> Iterator[Job]:
    """A job whose processes have met and whose run folder is made and locked; a failure inside goes into its log."""
    views = {"coarse": chosen.coarse.views, "fine": chosen.fine.views}
    with joined(device, views) as processes, _run_of(processes, output) as run, run, run.recording():
        yield Job(
            prompt=prompt,
            settings=chosen,
            output=output,
            run=run,
            guide=guide,
            device=device,
            processes=processes,
            shape=shape.load if shape else None,
            pictured=pictured,
            typed=typed,
            more_views=more_views,
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


def _choose(
    names: dict[str, str], request: Request, prompt: str, seed: int, device: str, observer: Observer
) -> dict[str, list[ChosenPrior]]:
    wanted = {stage: [WeightedPrior(name), *request.more_priors] for stage, name in names.items()}
    return choose_priors(wanted, prompt, seed, device, observer.note, strict=request.strict)


def _resolve(
    base: Settings,
    priors: Mapping[str, Sequence[settings.StagePrior]],
    request: Request,
    fine_preset: str | None = None,
    imagine: float | None = None,
) -> Settings:
    return settings.resolve(
        base,
        priors,
        perp_neg=request.perp_neg,
        small_encoder=request.small_encoder,
        faces=request.faces,
        texture_size=request.texture_size,
        height=request.height,
        fine_preset=fine_preset,
        init=request.init,
        imagine=imagine,
    )


def _guide(
    priors: dict[str, list[ChosenPrior]],
    chosen: Settings,
    request: Request,
    prompt: str,
    device: str,
    observer: Observer,
    pictured: Pictured | None = None,
) -> PriorGuide:
    """The guide, with what the settings want of it fetched; says which choices the priors have no use for."""
    if request.perp_neg and not any(prior.open_vocabulary for some in priors.values() for prior in some):
        observer.note("--perp-neg is not used: the built-in prior is told where the camera is.")
    small = request.small_encoder or chosen.coarse.guidance.small_encoder or chosen.fine.guidance.small_encoder
    encoder = fetch_small_encoder(priors, observer.note) if small else None
    return PriorGuide(priors, prompt, chosen.seed, device, encoder, observer.note, pictured)


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
