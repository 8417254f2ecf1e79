"""`magic3d refine coarse.ckpt`: the fine stage alone, from a coarse checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from magic3d_cli import checks, precheck
from magic3d_cli.cli import options
from magic3d_cli.cli.failures import reported
from magic3d_cli.cli.session import answer, session


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
    height: options.Height = None,
    fresh: options.Fresh = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Turn a coarse checkpoint into a textured mesh.

    It is written beside the run.
    """
    out = checks.check_output(output or default_output(checkpoint))
    if preset is not None:
        checks.check_choice("--preset", preset, checks.PRESETS)
    checks.check_choice("--device", device, checks.DEVICES)
    checks.check_sizes(faces, texture_size, height)
    precheck.check_source(checkpoint, out, force)
    with session(quiet, verbose) as work:
        from magic3d_cli import job

        request = job.Request(
            out,
            preset=preset,
            fine_prior=prior,
            device=device,
            perp_neg=perp_neg,
            small_encoder=small_encoder,
            faces=faces,
            texture_size=texture_size,
            height=height,
            fresh=fresh,
        )
        _, result = job.refine(checkpoint, request, work.observer, work.interrupts)
    answer(result, as_json)


def default_output(checkpoint: Path, suffix: str = ".glb") -> Path:
    """dragon.run/coarse.ckpt -> dragon.glb; a checkpoint elsewhere gets the asset beside it."""
    folder = checkpoint.absolute().parent
    beside = folder if folder.suffix == ".run" else checkpoint
    return shortened(beside.with_suffix(suffix))


def shortened(path: Path) -> Path:
    """Relative to the current folder where the path lies under it."""
    return path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path
