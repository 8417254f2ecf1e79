"""`magic3d preview ASSET_OR_RUN`: a turntable, a contact sheet and a page for any browser, beside the asset."""

from __future__ import annotations

import importlib.util
import json
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from magic3d_cli.atomic import write_atomically
from magic3d_cli.cli import options
from magic3d_cli.cli.failures import reported
from magic3d_cli.cli.session import put, session
from magic3d_cli.errors import EnvironmentFault, UsageError
from magic3d_cli.run.directory import RunDirectory

SHOWN = (".glb", ".obj")
ENDS = (".html", "-sheet.png", "-turntable.webp", "-turntable.mp4", "-film.webp")
GENERATOR = b'name="generator" content="magic3d"'
FRAMES, SIZE = (2, 360), (32, 2048)


@reported
def preview(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A .glb or .obj, or a .run folder; default: the newest run in the current folder.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="NAME", help="Where to write NAME.html and so on; default: the asset's name."
        ),
    ] = None,
    frames: Annotated[int, typer.Option(metavar="N", help="Pictures of a turn.")] = 36,
    size: Annotated[int, typer.Option(metavar="N", help="Pixels a picture.")] = 512,
    mp4: Annotated[
        bool, typer.Option("--mp4", help="Also the turntable as MP4; needs imageio-ffmpeg (pip install -e '.[video]').")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that no preview made.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Show an asset: turntable, contact sheet, web page.

    Writes NAME-turntable.webp, NAME-sheet.png (four sides, with light and without) and NAME.html, which opens in any
    browser without a network: drag to turn. Beside a run also NAME-film.webp, the shape appearing.
    """
    for option, value, (low, high) in (("--frames", frames, FRAMES), ("--size", size, SIZE)):
        if not low <= value <= high:
            raise UsageError(f"{option} {value} is out of range.", f"Use a number from {low} to {high}.")
    asset = find_asset(source)
    stem = output or asset.with_suffix("")
    if not stem.parent.is_dir():
        raise UsageError(f"The folder {stem.parent} does not exist.", "Name another one with -o.")
    _check_names(stem, force)
    if mp4:
        _check_video(size)
    with session(quiet, verbose) as work:
        from magic3d_cli.asset.show import film, show
        from magic3d_cli.run.callbacks import film_frames

        work.observer.phase("draw")
        files = show(asset, stem, frames, size, mp4)
        if (data := film(film_frames(RunDirectory.for_output(asset)))) is not None:
            files[stem.with_name(f"{stem.name}-film.webp")] = data
        for path, data in files.items():
            write_atomically(path, data)
        page = next(iter(files))
        work.observer.note(f"Open {page.resolve().as_uri()} in a browser.")
    put(json.dumps({"files": [str(path) for path in files]}) if as_json else "\n".join(str(path) for path in files))


def _check_names(stem: Path, force: bool) -> None:
    """Raises UsageError where a file of another's would be overwritten: the page tells whether a preview made them."""
    files = [stem.with_name(f"{stem.name}{end}") for end in ENDS]
    with suppress(OSError), files[0].open("rb") as page:
        if GENERATOR in page.read(400):
            return
    if not force and (there := next((file for file in files if file.exists()), None)) is not None:
        raise UsageError(
            f"{there} exists already, and no preview made it.",
            "Give another name with -o, or --force to overwrite it.",
        )


def _check_video(size: int) -> None:
    """Raises UsageError for a side that MP4 cannot have, EnvironmentFault where what writes it is missing."""
    if size % 2:
        raise UsageError(f"--mp4 needs an even --size, not {size}.", f"Use --size {size + 1}.")
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise EnvironmentFault("--mp4 needs the package imageio-ffmpeg.", "pip install imageio-ffmpeg")


def find_asset(given: Path | None) -> Path:
    """The file that was meant. Raises UsageError when there is none that can be shown."""
    folder = given or Path()
    run = RunDirectory(folder) if folder.suffix == ".run" else RunDirectory.newest(folder)
    if given is not None and not given.is_dir():
        if given.suffix.lower() in SHOWN:
            if not given.is_file():
                raise UsageError(f"There is no file {given}.", "magic3d runs lists what was made here.")
            return given
        raise UsageError(f"{given} cannot be shown: it is neither .glb nor .obj nor a run.", "magic3d export -f glb")
    if run is None:
        raise UsageError(f"There is no run in {folder.absolute()}.", 'magic3d generate "a metal dragon" -o dragon.glb')
    for suffix in SHOWN:
        if (asset := run.path.with_suffix(suffix)).is_file():
            return asset
    raise UsageError(
        f"{run.path} has no .glb or .obj beside it yet.",
        f"Write one first: magic3d export {shlex.quote(str(run.path))} --format glb",
    )
