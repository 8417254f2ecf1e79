"""What a job would do and how long it takes, told before it begins; and a question before hours."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from magic3d_cli import checks
from magic3d_cli.cli.progress import Display, clock
from magic3d_cli.cli.session import put
from magic3d_cli.environment import is_main_process
from magic3d_cli.errors import UsageError
from magic3d_cli.run.directory import RunDirectory

if TYPE_CHECKING:  # would import torch
    from magic3d_cli.plan import Plan

LONG = 3600.0
"""Seconds from which on a job is begun only when it is wanted for certain."""


def goes_on(output: Path) -> bool:
    """Whether the run was begun already: then it is wanted."""
    return RunDirectory.for_output(output).furthest is not None


def described(output: Path, prompt: str, plan: Plan, as_json: bool) -> str:
    """The answer to --dry-run."""
    coarse, fine, asset = plan.settings.coarse, plan.settings.fine, plan.settings.asset
    run = RunDirectory.for_output(output)
    found: dict[str, Any] = {
        "output": str(output),
        "prompt": prompt,
        "preset": plan.settings.preset,
        "seed": plan.settings.seed,
        "device": plan.device,
        "priors": plan.priors,
        "download_gigabytes": plan.download_gigabytes,
        "steps": {"coarse": coarse.steps, "fine": fine.steps},
        "faces": asset.faces,
        "texture_size": asset.texture_size,
        "begun": str(run.furthest) if run.furthest else None,
        "estimated_seconds": round(plan.seconds, 1),
        "adapters": [adapter.to_json() for adapter in plan.adapters],
        "style": plan.style.name if plan.style else None,
    }
    if as_json:
        return json.dumps(found)
    lines = [
        f"{output}: {checks.shown(prompt)}, preset {plan.settings.preset}, "
        f"seed {plan.settings.seed}, on the {plan.device}",
        f"coarse: {coarse.steps} steps of {coarse.views} views at {coarse.render_size} px by {plan.priors['coarse']}",
        f"fine: {fine.steps} steps of {fine.views} views at {fine.render_size} px by {plan.priors['fine']}",
        f"asset: at most {asset.faces:,} triangles, texture {asset.texture_size} px",
        *(f"adapter: {adapter.path} ({adapter.kind}, {adapter.weight:g})" for adapter in plan.adapters),
        *([f"style: {plan.style.name}"] if plan.style else []),
        *([f"download: {plan.download_gigabytes:g} GB, once"] if plan.download_gigabytes else []),
        *([f"goes on from {run.furthest}"] if run.furthest else []),
        f"time: {_about(plan.seconds)}; nothing was made",
    ]
    return "\n".join(lines)


def _about(seconds: float) -> str:
    if seconds > 3 * 86_400:
        return f"about {seconds / 86_400:.0f} days"
    return f"about {clock(seconds)}"


def begins(
    foresee: Callable[[], Plan],
    output: Path,
    prompt: str,
    observer: Display,
    *,
    dry_run: bool,
    wanted: bool,
    as_json: bool,
) -> bool:
    """Whether a job is to begin: not where --dry-run is answered instead; hours are asked about unless `wanted`."""
    if wanted and not dry_run:
        return True
    foreseen = foresee()
    if dry_run:
        put(described(output, prompt, foreseen, as_json))
        return False
    ask(foreseen.seconds, observer)
    return True


def ask(seconds: float, observer: Display) -> None:
    """A question before hours. Raises UsageError where the answer is no or nobody can answer."""
    if seconds < LONG or not is_main_process():
        return
    what = f"This takes {_about(seconds)} on this machine."
    # A live line would draw over the question.
    with observer.paused():
        if sys.stdin.isatty() and sys.stderr.isatty():
            if typer.confirm(f"{what} Begin?", err=True):
                return
            raise UsageError("Nothing was begun.", "A smaller --preset is quicker.")
    raise UsageError(what, f"Add --yes to begin: {shlex.join(['magic3d', *sys.argv[1:], '--yes'])}")
