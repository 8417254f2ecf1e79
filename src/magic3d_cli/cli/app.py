"""The `magic3d` program: its commands, and what happens when the command line itself is wrong."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from magic3d_cli import __version__
from magic3d_cli.cli.bench import bench
from magic3d_cli.cli.doctor import doctor
from magic3d_cli.cli.export import export
from magic3d_cli.cli.failures import say
from magic3d_cli.cli.generate import generate
from magic3d_cli.cli.priors import priors
from magic3d_cli.cli.refine import refine

app = typer.Typer(
    name="magic3d",
    help="A sentence in, a textured 3D model out.",
    epilog='Start with: magic3d generate "a metal dragon" -o dragon.glb',
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # typer's boxed help imports a Markdown parser: 80 ms
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate)
app.command()(refine)
app.command()(export)
app.command()(priors)
app.command()(bench)
app.command()(doctor)


def _version(asked: bool) -> None:
    if asked:
        print(f"magic3d {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(arguments or ["--help"], prog_name="magic3d", standalone_mode=False)
    except Exception as error:
        # Typer's usage errors come from click or, in newer releases, from a copy of it inside typer.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        say(error.format_message(), f"{context.command_path if context else 'magic3d'} --help")
        code = 2
    sys.exit(code if isinstance(code, int) else 0)
