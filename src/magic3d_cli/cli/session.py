"""What every command does around its work: progress, signals, the run folder, the device, the answer."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from magic3d_cli.cli.failures import follows, recorded
from magic3d_cli.cli.progress import Display, display
from magic3d_cli.errors import EnvironmentFault
from magic3d_cli.kernels import ON_COMPILE
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.interrupts import Interrupts

if TYPE_CHECKING:
    from magic3d_cli.ranks import Ranks


@dataclass(frozen=True)
class Session:
    """What a command works with."""

    observer: Display
    interrupts: Interrupts


@contextmanager
def session(quiet: bool) -> Iterator[Session]:
    """Progress shown and signals handled for the duration; torch is not imported yet."""
    _hush_libraries()
    with ExitStack() as stack:
        observer = stack.enter_context(display(quiet or follows()))
        interrupts = stack.enter_context(Interrupts().installed())
        observer.phase("load libraries")
        ON_COMPILE.append(observer.compiling)
        stack.callback(ON_COMPILE.remove, observer.compiling)
        yield Session(observer, interrupts)


@contextmanager
def opened(run: RunDirectory, ranks: Ranks) -> Iterator[RunDirectory]:
    """The run folder, made and locked; failures inside are written to its log."""
    from magic3d_cli.ranks import run_directory

    with run_directory(ranks, run) as own, own, recorded(own):
        yield own


def choose_device(name: str, tell: Callable[[str], None]) -> str:
    """ "cpu" or "cuda"; tells what is not used. Raises EnvironmentFault when there is no GPU for what was asked."""
    import torch

    from magic3d_cli.kernels.cuda import refusal, tinycudann_refusal
    from magic3d_cli.kernels.rasterize import nvdiffrast_refusal

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise EnvironmentFault(
            "There is no CUDA GPU that PyTorch can use on this machine.",
            "Use --device cpu, or install a CUDA build of PyTorch: https://pytorch.org/get-started",
        )
    chosen = "cuda" if available and name != "cpu" else "cpu"
    if follows():  # of torchrun's processes only the first asks: the others have not taken their own GPU yet
        return chosen
    if (reason := refusal(torch.device(chosen))) is not None:
        tell(f"Plain PyTorch does the work of the CUDA kernels, which is slower: {reason}")
    for library, wrong in (("tinycudann", tinycudann_refusal), ("nvdiffrast", nvdiffrast_refusal)):
        if (reason := wrong(torch.device(chosen))) is not None:
            tell(f"{library} is not used: {reason}")
    return chosen


def answer(result: dict[str, Any], as_json: bool) -> None:
    """The only thing that goes to stdout."""
    if not follows():
        put(json.dumps(result) if as_json else result["output"])


def put(text: str) -> None:
    """A command's answer, on stdout. A reader that has seen enough (`| head`) is no failure."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends


def _hush_libraries() -> None:
    """Messages of libraries that a person cannot act on; set before the libraries are imported."""
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
