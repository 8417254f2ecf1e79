"""What every command does around its work: progress, signals, the answer."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from magic3d_cli.cli.progress import Display, Lines
from magic3d_cli.environment import is_main_process
from magic3d_cli.kernels import ON_COMPILE
from magic3d_cli.run.interrupts import Interrupts


@dataclass(frozen=True)
class Session:
    """What a command works with."""

    observer: Display
    interrupts: Interrupts


@contextmanager
def session(quiet: bool, verbose: bool = False) -> Iterator[Session]:
    """Progress shown and signals handled for the duration; torch is not imported yet."""
    if not verbose:
        _hush_libraries()
    with ExitStack() as stack:
        observer = stack.enter_context(display(quiet or not is_main_process(), verbose))
        interrupts = stack.enter_context(Interrupts().installed())
        observer.phase("load libraries")
        ON_COMPILE.append(observer.compiling)
        stack.callback(ON_COMPILE.remove, observer.compiling)
        yield Session(observer, interrupts)


def display(quiet: bool, verbose: bool = False) -> Display:
    """The right one for this terminal. NO_COLOR is honoured by rich."""
    if quiet:
        return Display()
    live = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    if not live:
        return Lines(verbose)
    from magic3d_cli.cli.bar import Bar  # rich takes longer to import than --help may take

    return Bar(verbose=verbose)


def answer(result: dict[str, Any], as_json: bool) -> None:
    """The only thing that goes to stdout."""
    if is_main_process():
        put(json.dumps(result) if as_json else result["output"])


def put(text: str) -> None:
    """A command's answer, on stdout. A reader that has seen enough (`| head`) is no failure.

    Nor is a name that the stream's encoding cannot say: bytes that are no text are written as they are, letters that it
    lacks are escaped.
    """
    try:
        try:
            print(text, flush=True)
        except UnicodeEncodeError:
            sys.stdout.buffer.write(_encoded(text + "\n", sys.stdout.encoding))
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends


def _encoded(text: str, encoding: str) -> bytes:
    try:
        return text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace")


def _hush_libraries() -> None:
    """Messages of libraries that a person cannot act on; set before the libraries are imported."""
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
