"""`magic3d export [CHECKPOINT] --format NAME`: write the mesh of any checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from magic3d_cli import checks, precheck
from magic3d_cli.cli import options
from magic3d_cli.cli.failures import reported
from magic3d_cli.cli.refine import default_output
from magic3d_cli.cli.session import answer, session
from magic3d_cli.errors import UsageError
from magic3d_cli.run.directory import RunDirectory


@reported
def export(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="A checkpoint or a .run folder; default: the newest run in the current folder.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="NAME",
            help=f"{', '.join(checks.FORMATS)}; default: by --output.",
            autocompletion=options.one_of(checks.FORMATS),
        ),
    ] = None,
    output: options.Output = None,
    device: options.Device = "auto",
    faces: options.Faces = None,
    texture_size: options.TextureSize = None,
    height: options.Height = None,
    lod: options.Lod = None,
    ao: options.Occlusion = None,
    normal_map: options.NormalMap = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Write the textured mesh of a checkpoint.

    Also of one that is unfinished or only coarse.
    """
    if format is not None:
        checks.check_choice("--format", format, checks.FORMATS)
    source = find_checkpoint(checkpoint)
    out = checks.check_output(output or default_output(source, f".{format or 'glb'}"))
    if format is not None and out.suffix.lower() != f".{format}":
        raise UsageError(f"--format {format} and the output {out} disagree.", f"Use -o {out.with_suffix('.' + format)}")
    checks.check_choice("--device", device, checks.DEVICES)
    checks.check_sizes(faces, texture_size, height, lod)
    precheck.check_source(source, out, force, lod)
    with session(quiet, verbose) as work:
        from magic3d_cli import job
        from magic3d_cli.request import Request

        result = job.export(
            source,
            Request(
                out,
                device=device,
                faces=faces,
                texture_size=texture_size,
                height=height,
                lod=lod,
                occlusion=ao,
                normal_map=normal_map,
            ),
            work.observer,
        )
    answer(result, as_json)


def find_checkpoint(given: Path | None) -> Path:
    """The file that was meant. Raises UsageError when there is none."""
    if given is not None and not given.is_dir():
        return given
    run = RunDirectory.newest(Path()) if given is None else RunDirectory(given)
    if run is None or run.furthest is None:
        where = "the current folder" if given is None else str(given)
        raise UsageError(
            f"There is no run with a checkpoint in {where}.",
            'Make one: magic3d generate "a metal dragon" -o dragon.glb',
        )
    return run.furthest
