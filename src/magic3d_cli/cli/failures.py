"""Failures as a person sees them: what happened, what to type next, and an exit code."""

from __future__ import annotations

import errno
import functools
import json
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import typer

from magic3d_cli import checks
from magic3d_cli.cli.session import put
from magic3d_cli.environment import is_main_process
from magic3d_cli.errors import Magic3DError, OutOfMemory, out_of_memory
from magic3d_cli.run.directory import RunDirectory, run_of
from magic3d_cli.run.interrupts import Interrupted

_LONGEST = 1500  # letters of a message: some quote what was given
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def say(what: str, next_step: str = "", label: str = "error") -> None:
    """A failure on stderr, unwrapped so that paths and commands can be copied."""
    from rich.console import Console
    from rich.text import Text

    what, next_step = (_on_a_terminal(text) for text in (what, next_step))
    console = Console(stderr=True, highlight=False)
    try:
        console.print(Text.assemble((f"{label}: ", "bold red"), what), soft_wrap=True)
        if next_step:
            console.print(Text.assemble(("next: ", "bold"), next_step), soft_wrap=True)
    except OSError:
        pass  # nobody reads stderr any more; the exit code still tells


def _on_a_terminal(text: str) -> str:
    """Without control characters, which would colour or move what follows, and not endless."""
    plain = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}..."


def reported(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose failures end in a message and an exit code instead of a traceback.

    Wrapped round each command, inside typer, which would turn every KeyboardInterrupt into 130.
    """

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except typer.Exit:
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(explain(error, kwargs.get("as_json", False), kwargs.get("verbose", False))) from error

    return wrapper


def explain(error: BaseException, as_json: bool = False, verbose: bool = False) -> int:
    """Say what happened, with `as_json` also on stdout; returns the exit code."""
    if verbose and not isinstance(error, Magic3DError | KeyboardInterrupt):
        traceback.print_exception(error)
    failure = _failure(error)
    if is_main_process() or not isinstance(error, Magic3DError):  # all processes come upon the same
        say(failure.what, failure.next_step, failure.label)
    if as_json and is_main_process():
        json_failure(failure.what, failure.next_step, failure.code)
    return failure.code


def json_failure(what: str, next_step: str, code: int) -> None:
    """The one object on stdout that --json promises, whatever happens."""
    put(json.dumps({"error": {"what": what, "next": next_step, "exit_code": code}}))


class _Failure(NamedTuple):
    code: int
    what: str
    next_step: str
    label: str = "error"


def _failure(error: BaseException) -> _Failure:
    run = run_of(error)
    if isinstance(error, Magic3DError):
        return _Failure(error.exit_code, error.what, error.next_step)
    if isinstance(error, KeyboardInterrupt):
        code = error.exit_code if isinstance(error, Interrupted) else 130
        return _Failure(code, f"Stopped on request. {_kept(run)}", _again(), "interrupted")
    if out_of_memory(error):
        smaller = "Close other programs, or use a smaller --preset, --texture-size or --prior."
        return _Failure(OutOfMemory.exit_code, f"Out of memory. {_kept(run)}", smaller)
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        place = f" while writing {error.filename}" if error.filename else ""
        return _Failure(1, f"The disk is full{place}. {_kept(run)}", f"Free some space, then: {_again()}")
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return _Failure(2, f"{error.strerror}: {checks.shown(str(error.filename))}", "Give another name.")
    if isinstance(error, OSError) and error.errno is not None:
        return _Failure(1, f"{error.strerror}: {error.filename or 'a file'}. {_kept(run)}", _again())
    what = f"Something unexpected went wrong: {type(error).__name__}: {_short(error)}"
    return _Failure(1, what, _details(error, run))


def _kept(run: RunDirectory | None) -> str:
    """What the run folder holds."""
    if run is None or run.furthest is None:
        return "Nothing had been computed yet."
    from magic3d_cli.run.checkpoint import read_header

    try:
        header = read_header(run.furthest)
    except Magic3DError:
        return f"{run.path} is kept."
    return f"{run.furthest} keeps the {header['stage']} stage at step {header['step']} of {header['total']}."


def _again() -> str:
    """The command that goes on from here: the same one, without --fresh."""
    return shlex.join(["magic3d", *(a for a in sys.argv[1:] if a != "--fresh")])


def _details(error: BaseException, run: RunDirectory | None) -> str:
    """Where the traceback is, for a bug report."""
    if run is not None and run.log_path.is_file():
        return f"Report it with the last line of {run.log_path}"
    with tempfile.NamedTemporaryFile("w", prefix="magic3d-", suffix=".log", delete=False) as file:
        file.write("".join(traceback.format_exception(error)))
    return f"Report it with {Path(file.name)}"


def _short(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:300]
