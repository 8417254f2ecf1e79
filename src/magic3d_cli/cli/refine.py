"""`magic3d refine coarse.ckpt`: the fine stage alone, from a coarse checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from magic3d_cli.cli import checks, options
from magic3d_cli.cli.failures import reported
from magic3d_cli.cli.session import answer, choose_device, opened, session
from magic3d_cli.errors import UsageError
from magic3d_cli.run.directory import RunDirectory


@reported
def refine(
    checkpoint: Annotated[Path, typer.Argument(help="A coarse.ckpt from a .run folder.", show_default=False)],
    output: options.Output = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="draft, standard or paper; default: as the checkpoint.")
    ] = None,
    prior: Annotated[
        str | None, typer.Option(metavar="NAME", help="As for generate; default: the checkpoint's.")
    ] = None,
    perp_neg: options.PerpNeg = None,
    small_encoder: options.SmallEncoder = None,
    device: options.Device = "auto",
    faces: options.Faces = None,
    texture_size: options.TextureSize = None,
    fresh: options.Fresh = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Refine a coarse checkpoint into a textured mesh, written beside it."""
    out = checks.check_output(output or default_output(checkpoint))
    if preset is not None:
        checks.check_choice("--preset", preset, checks.PRESETS)
    checks.check_choice("--device", device, checks.DEVICES)
    sizes = checks.check_sizes(faces, texture_size)
    with session(quiet) as work:
        from magic3d_cli import pipeline, settings
        from magic3d_cli.guidance.guide import PriorGuide
        from magic3d_cli.training.distributed import joined

        saved = pipeline.Saved.load(checkpoint)
        header, chosen = saved.header, saved.settings
        if header["stage"] != "coarse":
            raise UsageError(
                f"{checkpoint} is a {header['stage']} checkpoint: it is refined already.",
                f"Write its mesh: magic3d export {checkpoint}",
            )
        if header["step"] < header["total"]:
            work.observer.note(f"{checkpoint}: only {header['step']} of {header['total']} coarse steps were done.")
        if preset is not None:
            other = settings.preset(preset)
            fine = replace(other.fine, guidance=chosen.fine.guidance)  # suited to the prior below
            chosen = replace(chosen, preset=preset, fine=fine, asset=other.asset)
        chosen = replace(chosen, asset=replace(chosen.asset, **sizes))
        chosen = settings.asked_for(chosen, perp_neg=perp_neg, small_encoder=small_encoder)
        where = choose_device(device, work.observer.note)
        fine_prior = prior or header.get("fine_prior", header["prior"]["id"])
        guide = PriorGuide(fine_prior, fine_prior, header["prompt"], header["seed"], where, work.observer.note)
        chosen = guide.suited(chosen)
        with joined(where, chosen) as ranks, opened(RunDirectory.for_output(out), ranks) as run:
            job = pipeline.Job(
                header["prompt"],
                chosen,
                out,
                run,
                guide,
                where,
                ranks.leads,
                observer=work.observer,
                interrupts=work.interrupts,
            )
            result = pipeline.refine(job, saved, fresh=fresh)
    answer(result, as_json)


def default_output(checkpoint: Path, suffix: str = ".glb") -> Path:
    """dragon.run/coarse.ckpt -> dragon.glb; a checkpoint elsewhere gets the asset beside it."""
    folder = checkpoint.absolute().parent
    beside = folder if folder.suffix == ".run" else checkpoint
    return shortened(beside.with_suffix(suffix))


def shortened(path: Path) -> Path:
    """Relative to the current folder where the path lies under it."""
    return path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path
