"""The `magic3d` program: its commands, and what happens when the command line itself is wrong."""

from __future__ import annotations

import atexit
import gc
import itertools
import os
import shlex
import sys
from functools import cache
from typing import Annotated, Any

import typer

from magic3d_cli import checks
from magic3d_cli.cli.batch import batch
from magic3d_cli.cli.bench import bench
from magic3d_cli.cli.config import config, default_map
from magic3d_cli.cli.doctor import doctor
from magic3d_cli.cli.edit import edit
from magic3d_cli.cli.examples import epilog
from magic3d_cli.cli.export import export
from magic3d_cli.cli.failures import explain, json_failure, reported, say
from magic3d_cli.cli.generate import generate
from magic3d_cli.cli.personalise import personalise
from magic3d_cli.cli.preview import preview
from magic3d_cli.cli.priors import priors
from magic3d_cli.cli.refine import refine
from magic3d_cli.cli.runs import runs
from magic3d_cli.errors import Magic3DError, UsageError
from magic3d_cli.version import __version__

app = typer.Typer(
    name="magic3d",
    help="A sentence in, a textured 3D model out.",
    epilog=epilog(""),
    # --install-completion for bash, zsh, fish and PowerShell
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # typer's boxed help imports a Markdown parser: 80 ms
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (generate, batch, edit, refine, export, personalise, preview, runs, priors, bench, doctor, config):
    app.command(epilog=epilog(command.__name__))(command)


def _commands(incomplete: str) -> list[str]:
    return [name for name in getattr(_program(), "commands", {}) if name.startswith(incomplete)]


@app.command("help", epilog=epilog("help"))
@reported
def help_of(
    context: typer.Context,
    command: Annotated[
        str | None, typer.Argument(help="One of them; default: all.", show_default=False, autocompletion=_commands)
    ] = None,
) -> None:
    """Show how a command is used."""
    group = context.parent
    assert group is not None
    known: dict[str, Any] = getattr(group.command, "commands", {})
    if command is not None and command not in known:
        raise UsageError(f"There is no command {command!r}.{checks.meant(command, known)}", "magic3d --help")
    if command is None:
        print(group.get_help())
    else:
        print(known[command].get_help(type(group)(known[command], info_name=command, parent=group)))


def _version(asked: bool) -> None:
    if asked:
        print(f"magic3d {__version__}")
        raise typer.Exit


@app.command("version", epilog=epilog("version"))
def version_of() -> None:
    """Show the version."""
    _version(True)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@cache
def _program() -> Any:
    return typer.main.get_command(app)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code."""
    _open_standard_streams()
    atexit.register(gc.freeze)  # or Python looks through all of PyTorch for garbage before it ends: a second
    arguments = sys.argv[1:] if arguments is None else arguments
    program = _program()
    try:
        parameters = {
            name: {str(parameter.name) for parameter in command.params}
            for name, command in getattr(program, "commands", {}).items()
        }
        # `config` says itself what is wrong with them; help is shown whatever they are.
        asks = {"-h", "--help", "--version", "help", "version", "config"} & set(arguments) or not arguments
        program.context_settings["default_map"] = {} if asks else default_map(parameters)
        code = program.main(arguments or ["--help"], prog_name="magic3d", standalone_mode=False)
    except Magic3DError as error:
        code = explain(error, as_json="--json" in arguments)
    except Exception as error:
        # Typer's usage errors come from click or, in newer releases, from a copy of it inside typer.
        if not hasattr(error, "format_message"):
            raise
        what, next_step = _explained(error, arguments, list(getattr(program, "commands", {})))
        say(what, next_step)
        if "--json" in arguments:
            json_failure(what, next_step, 2)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def _explained(error: Any, arguments: list[str], commands: list[str]) -> tuple[str, str]:
    """A parser's complaint in a person's words."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "magic3d"
    given = next((word for word in arguments if not word.startswith("-")), "")
    if path == "magic3d" and given and given not in commands:
        words = _words(arguments)
        quoted = f"magic3d generate {shlex.quote(words)}" if " " in words else "magic3d --help"
        meant = checks.meant(given, commands)
        return f"There is no command {given!r}.{meant}", "magic3d --help" if meant else quoted
    if type(error).__name__ == "UsageError" and "unexpected extra argument" in error.format_message():
        extra = error.format_message().partition(" (")[2].removesuffix(")")  # of "argument(s) (NAMES)"
        taken = getattr(context, "params", {})
        if path in ("magic3d generate", "magic3d edit") and taken.get("prompt"):
            before = [str(taken["source"])] if "source" in taken else []
            words = shlex.join([*before, f"{taken['prompt']} {extra}"])
            return "A prompt of several words has to be in quotes.", f"{path} {words}"
        return f"{path} has no use for {checks.shown(extra)!r}.", f"{path} --help"
    if type(error).__name__ == "NoSuchOption":
        names = [name for option in context.command.params for name in option.opts] if context else []
        return f"There is no option {error.option_name}.{checks.meant(error.option_name, names)}", f"{path} --help"
    parameter = getattr(error, "param", None)
    said = error.format_message()  # in words of typer or of the library that it asks
    kind = "a whole number" if "integer" in said else "a number" if "number" in said or "float" in said else ""
    if parameter is not None and kind:
        value = _value_of(parameter.opts, arguments)
        return f"{parameter.opts[0]} {value!r} is not {kind}.", f"{path} --help"
    if type(error).__name__ == "MissingParameter" and path == "magic3d generate":
        return "The prompt is missing.", 'Say what to make: magic3d generate "a metal dragon"'
    return error.format_message(), f"{path} --help"


def _words(arguments: list[str]) -> str:
    """What stands before the first option."""
    return " ".join(itertools.takewhile(lambda word: not word.startswith("-"), arguments))


def _value_of(names: list[str], arguments: list[str]) -> str:
    """What was given for an option, as "--seed x" or "--seed=x"."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else following
    return ""


def _open_standard_streams() -> None:
    """A stream that was closed (`2>&-`) becomes /dev/null: its number would go to the next file that is opened."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is not None:
            continue
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        # It stays open for as long as the program runs.
        setattr(sys, name, open(number, mode, encoding="utf-8"))  # noqa: SIM115
