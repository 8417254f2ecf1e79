"""A small real run in a process of its own, with a fault in it, and what became of it.

The parent imports everything once and forks: a trial costs the run alone, and nothing of it stays in the parent. The
prior is the built-in one; sizes and numbers of steps are small. A checkpoint is written after every step.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from magic3d_cli import job, presets
from magic3d_cli.cli.failures import explain
from magic3d_cli.coarse import initial
from magic3d_cli.errors import Magic3DError, out_of_memory
from magic3d_cli.request import Request
from magic3d_cli.run import context
from magic3d_cli.run.callbacks import Intervals
from magic3d_cli.run.interrupts import Interrupts
from magic3d_cli.run.observer import Observer

PROMPT, SEED = "a red car", 3
HANG = 300.0
"""Seconds after which a trial counts as hung."""
SAME, OTHER, REFUSED, STOPPED, KILLED, CRASHED, HUNG = (
    "same",
    "other",
    "refused",
    "stopped",
    "killed",
    "crashed",
    "hung",
)
"""Ends of a trial: the undisturbed run's bytes; other bytes; a message with a next step; a message of the system's
(a full disk or memory); killed from outside; an error that nobody expected; no end within HANG seconds."""


@dataclass(frozen=True)
class End:
    """How a trial ended."""

    kind: str
    detail: str = ""
    seconds: float = 0.0


def make_small() -> None:
    """Every draft of this process takes seconds."""
    draft = presets.PRESETS["draft"]
    presets.PRESETS["draft"] = replace(
        draft,
        coarse=replace(draft.coarse, views=1, render_size=16, samples_per_ray=24, occupancy_size=16),
        fine=replace(draft.fine, views=1, render_size=32),
        asset=replace(draft.asset, faces=400, texture_size=64, padding=1),
    )
    field = replace(draft.coarse.field, levels=4, log2_size=12, base_resolution=4, finest_resolution=32, hidden=16)
    coarse = {"steps": 4, "samples_per_ray": 24, "occupancy_size": 16, "field": field}
    presets._SHAPED["draft"] = (coarse, {"steps": 4, "grid_size": 20, "surface_resolution": 24})
    initial.STEPS, initial.COLOUR_STEPS, initial.POOL, initial.POINTS = 20, 10, 1 << 13, 2048
    often = Intervals(checkpoint=0.0, preview=1e9, preview_size=16)
    context.Job.__dataclass_fields__["intervals"].default = often
    job.Intervals = lambda: often  # type: ignore[assignment, misc]


def run(output: Path, *, fresh: bool = False, prior: str = "builtin", observer: Observer | None = None) -> None:
    """The run itself, in the process that calls. Raises what `job.generate` does."""
    torch.set_num_threads(1)  # or sums would round differently
    make_small()
    request = Request(
        output, preset="draft", coarse_prior=prior, fine_prior=prior, device="cpu", fresh=fresh
    )  # fmt: skip
    with Interrupts().installed() as interrupts:
        job.generate(PROMPT, SEED, request, observer or Observer(), interrupts)


def start(work: Callable[[], None], report: Path) -> int:
    """Do the work in a forked process; returns its id. How it ended is written to `report`."""
    child = os.fork()
    if child:
        return child
    code = 70  # even where what follows fails
    try:
        quiet = os.open(report.with_suffix(".err"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        try:
            work()
            end, code = {"kind": "done"}, 0
        except Magic3DError as error:
            end = {"kind": REFUSED if error.what and error.next_step else CRASHED, "detail": error.what}
        except (MemoryError, RuntimeError) as error:
            end = {
                "kind": STOPPED if out_of_memory(error) else CRASHED,
                "detail": f"{error!r}\n{traceback.format_exc()}",
            }
        except OSError as error:
            known = error.errno is not None and explain(error) in (1, 2)
            end = {"kind": STOPPED if known else CRASHED, "detail": repr(error)}
        except BaseException as error:
            end = {"kind": CRASHED, "detail": f"{error!r}\n{traceback.format_exc()}"}
        _forget_limits()
        report.write_text(json.dumps(end))
    finally:
        os._exit(code)
    raise AssertionError


def _forget_limits() -> None:
    """A trial's own faults must not hit its report."""
    import faults

    faults.off()


def wait(child: int, report: Path, expected: str, output: Path, kill_after: float | None = None) -> End:
    """Wait for a trial's end; `kill_after` seconds it is killed without warning. `expected` is `digest`'s."""
    begun = time.monotonic()
    limit = HANG if kill_after is None else kill_after
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - begun
        if done:
            break
        if seconds > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return End(HUNG if kill_after is None else KILLED, f"after {seconds:.1f} s", seconds)
        time.sleep(0.01)
    if os.WIFSIGNALED(status):
        return End(CRASHED, f"signal {os.WTERMSIG(status)}", seconds)
    if not report.is_file():
        return End(CRASHED, f"exit code {os.WEXITSTATUS(status)} and no word", seconds)
    end: dict[str, Any] = json.loads(report.read_text())
    if end["kind"] != "done":
        return End(end["kind"], end.get("detail", ""), seconds)
    found = digest(output)
    return End(SAME if found == expected else OTHER, found, seconds)


def trial(
    folder: Path,
    expected: str,
    *,
    kill_after: float | None = None,
    before: Callable[[], None] = lambda: None,
    **more: Any,
) -> End:
    """One run of `folder`/car.glb; `before` is done in its process first, `more` goes to `run`."""
    output, report = folder / "car.glb", folder.with_name(f"{folder.name}.end")
    report.unlink(missing_ok=True)

    def work() -> None:
        before()
        run(output, **more)

    return wait(start(work, report), report, expected, output, kill_after)


def digest(output: Path) -> str:
    """SHA-256 of the asset; empty where there is none."""
    return hashlib.sha256(output.read_bytes()).hexdigest() if output.is_file() else ""


if os.name != "posix":
    sys.exit("The campaign forks and kills processes: it needs Linux or macOS.")
