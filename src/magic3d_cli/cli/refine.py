"""`magic3d refine SOURCE`: the fine stage alone, from a coarse checkpoint or from a mesh of a person's own."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from magic3d_cli import checks, precheck
from magic3d_cli.cli import options
from magic3d_cli.cli.failures import reported
from magic3d_cli.cli.plan import begins
from magic3d_cli.cli.session import answer, session
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.adapters import marks, read_adapters
from magic3d_cli.guidance.diffusers.catalogue import NAMES
from magic3d_cli.run import checkpoint
from magic3d_cli.run.directory import RunDirectory


@reported
def refine(
    source: Annotated[
        Path,
        typer.Argument(help="A coarse.ckpt, a .run folder, or a mesh of your own with --prompt.", show_default=False),
    ],
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="For a mesh of your own: what its new texture is to show.")
    ] = None,
    reshape: Annotated[
        bool, typer.Option("--reshape", help="For a mesh of your own: let the shape change too, not the texture alone.")
    ] = False,
    up: options.Up = "y",
    output: options.Output = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="draft, standard or paper; default: as the checkpoint, draft for a mesh.",
            autocompletion=options.one_of(checks.PRESETS),
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="As for generate; default: the checkpoint's, auto for a mesh.",
            autocompletion=options.one_of(NAMES),
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="For a mesh of your own; default: 0.")] = None,
    adapter: options.Adapter = None,
    style: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="For a mesh of your own: a picture whose colours or look its texture gets, see generate.",
        ),
    ] = None,
    perp_neg: options.PerpNeg = None,
    small_encoder: options.SmallEncoder = None,
    distillation: options.Distillation = None,
    device: options.Device = "auto",
    faces: options.Faces = None,
    texture_size: options.TextureSize = None,
    height: options.Height = None,
    lod: options.Lod = None,
    ao: options.Occlusion = None,
    normal_map: options.NormalMap = None,
    fresh: options.Fresh = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Turn a coarse checkpoint into a textured mesh.

    Or give a mesh of your own (.glb, .obj, .stl, .ply, ...) a new texture: --prompt says of what. It is
    centred and scaled; its shape is kept unless --reshape.
    """
    if preset is not None:
        checks.check_choice("--preset", preset, checks.PRESETS)
    checks.check_choice("--device", device, checks.DEVICES)
    checks.check_choice("--up", up, checks.UPS)
    checks.check_sizes(faces, texture_size, height, lod)
    checks.check_distillation(distillation)
    source, adapters = find_source(source), read_adapters(adapter or [])
    if not checks.is_checkpoint(source) and not source.is_file():
        raise UsageError(
            f"There is no file {source}.",
            "Give a coarse.ckpt, a .run folder (magic3d runs lists them), or with --prompt a mesh of your own.",
        )
    own, palette = not checks.is_checkpoint(source) and source.is_file(), None
    if own and prompt is None:
        raise UsageError(
            f"{source} is no checkpoint; a mesh of your own needs a prompt.",
            f'Say what it shows: magic3d refine {shlex.quote(str(source))} --prompt "a golden dragon"',
        )
    if own and prompt is not None:
        prompt, seed = checks.check_prompt(prompt), checks.check_seed(seed or 0)
        palette = precheck.styled(style, [prior or "auto"], device, adapters)
        added = marks(adapters, palette.digest if palette else None)
        out = precheck.choose_output(output, prompt, seed, preset or "draft", force, adapters=added, lod=lod)
        precheck.check_distilled(distillation, prior or "auto", prior or "auto", (), device)
        precheck.check_generate(prompt, seed, [prior or "auto"], device, out, adapters=adapters)
    else:
        if prompt is not None or reshape or seed is not None or up != "y" or style is not None:
            raise UsageError(
                "--prompt, --reshape, --seed, --up and --style belong to a mesh of your own; a checkpoint knows them.",
                f"magic3d refine {shlex.quote(str(source))}",
            )
        out = checks.check_output(output or default_output(source))
        precheck.check_source(source, out, force, lod)
        header = checkpoint.read_header(source)
        prompt = header["prompt"]
        checks.check_distillation(distillation, header["settings"].get("recipe"))
    with session(quiet, verbose) as work:
        from magic3d_cli import job
        from magic3d_cli.plan import plan, plan_refinement
        from magic3d_cli.request import RESHAPE, TEXTURE, Request

        request = Request(
            out,
            preset=preset,
            coarse_prior=prior if own else None,
            fine_prior=prior,
            device=device,
            perp_neg=perp_neg,
            small_encoder=small_encoder,
            distillation=distillation,
            faces=faces,
            texture_size=texture_size,
            height=height,
            lod=lod,
            occlusion=ao,
            normal_map=normal_map,
            init=str(source) if own else None,
            init_up=up,
            mesh=(RESHAPE if reshape else TEXTURE) if own else None,
            fresh=fresh,
            adapters=tuple(adapter or ()),
            style=palette,
        )
        again = RunDirectory.for_output(out).fine.is_file() and not (preset or prior or distillation or fresh)
        planned = partial(plan, request, seed or 0) if own else partial(plan_refinement, source, request)
        foresee = partial(planned, work.observer)
        if not begins(foresee, out, prompt, work.observer, dry_run=dry_run, wanted=yes or again, as_json=as_json):
            return
        if own:
            _, result = job.generate(prompt, seed or 0, request, work.observer, work.interrupts)
        else:
            _, result = job.refine(source, request, work.observer, work.interrupts)
    answer(result, as_json)


def find_source(given: Path) -> Path:
    """The coarse checkpoint of a run folder; a file as it is. Raises UsageError for a folder without one."""
    if not given.is_dir():
        return given
    run = RunDirectory(given)
    if not run.coarse.is_file():
        raise UsageError(f"There is no coarse checkpoint in {given}.", "magic3d runs lists the runs of a folder.")
    return run.coarse


def default_output(checkpoint: Path, suffix: str = ".glb") -> Path:
    """dragon.run/coarse.ckpt -> dragon.glb; a checkpoint elsewhere gets the asset beside it."""
    folder = checkpoint.absolute().parent
    beside = folder if folder.suffix == ".run" else checkpoint
    return shortened(beside.with_suffix(suffix))


def shortened(path: Path) -> Path:
    """Relative to the current folder where the path lies under it."""
    return path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path
