"""`magic3d bench`: what a step costs on this machine, and how long each preset would take."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from magic3d_cli import checks
from magic3d_cli.cli import options
from magic3d_cli.cli.failures import reported
from magic3d_cli.cli.progress import clock
from magic3d_cli.cli.session import put, session
from magic3d_cli.errors import UsageError
from magic3d_cli.settings import BSD

PROMPT = "a car"
"""Every prior knows it."""
_LEGEND = """\
encoder: both its passes; backward: of the scene; rest: what neither the prior nor its encoder takes.
samples: all that are marched, seen or not. GB: highest use, of the host since the start, of a GPU in that part."""


@reported
def bench(
    preset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only this one; may be given several times.",
            autocompletion=options.one_of(checks.PRESETS),
        ),
    ] = None,
    prior: options.Prior = "auto",
    coarse_prior: options.CoarsePrior = None,
    fine_prior: options.FinePrior = None,
    perp_neg: options.PerpNeg = None,
    small_encoder: options.SmallEncoder = None,
    distillation: options.Distillation = None,
    device: options.Device = "auto",
    steps: Annotated[int, typer.Option(metavar="N", help="Steps timed of each kind.")] = 5,
    views: Annotated[
        int | None, typer.Option(metavar="N", help="Views of a step measured at most; by default 4 on a CPU, else all.")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Measure how fast this machine is.

    Tells what a step's time goes to, and how long each preset would take.

    A big prior that is not downloaded is measured with random weights of the same shape: its speed, not its taste.
    """
    for name in preset or ():
        checks.check_choice("--preset", name, checks.PRESETS)
    checks.check_choice("--device", device, checks.DEVICES)
    checks.check_distillation(distillation)
    if distillation == BSD:
        raise UsageError(
            "bench measures steps, and much of bootstrapping's work is in rounds between them.",
            "Measure --distillation vsd, whose steps are the same; generate --dry-run counts the rounds too.",
        )
    for option, value in (("--steps", steps), ("--views", views)):
        if value is not None and value < 1:
            raise UsageError(f"{option} {value} is out of range.", "Use a whole number from 1 up.")
    with session(quiet, verbose) as work, tempfile.TemporaryDirectory() as folder:
        from magic3d_cli import presets
        from magic3d_cli.assembly import choose_device
        from magic3d_cli.bench import measure
        from magic3d_cli.bench.priors import SpeedGuide

        chosen_device = choose_device(device, work.observer)
        names = {"coarse": coarse_prior or prior, "fine": fine_prior or prior}
        guide = SpeedGuide(names, PROMPT, bool(small_encoder), chosen_device, Path(folder), work.observer.note)
        chosen = [
            guide.resolve(presets.preset(name), perp_neg, small_encoder, distillation)
            for name in preset or checks.PRESETS
        ]
        most = views or (4 if chosen_device == "cpu" else max(max(s.coarse.views, s.fine.views) for s in chosen))
        priors = {stage: guide.name(stage) for stage in ("coarse", "fine")}
        result = {"priors": priors, **measure.run(chosen, guide, chosen_device, steps, most, work.observer)}
    put(json.dumps(result) if as_json else _table(result))


def _table(result: dict[str, Any]) -> str:
    """The measurements for people."""
    kernels = ", ".join(f"{name} by {kernel}" for name, kernel in result["kernels"].items())
    lines = [f"{result['device']}, torch {result['torch']}; {kernels}"]
    lines += [f"{stage} prior: {told}" for stage, told in result["priors"].items()]
    for name, measured in result["presets"].items():
        views, seen = measured["views"], measured["views_measured"]
        scaled = "" if views == seen else f" ({seen[0]} and {seen[1]} of {views[0]} and {views[1]} views measured)"
        lines += ["", f"{name}: about {clock(measured['predicted_seconds'])}{scaled}"]
        for part, found in measured["parts"].items():
            told = _step(found) if "step" in found else [f"{found['seconds']:8.2f} s"]
            if "peak_memory_bytes" in found:
                memory = (f"{value / 1e9:.1f} GB {where}" for where, value in found["peak_memory_bytes"].items())
                told[-1] += f"; {', '.join(memory)}"
            lines += [f"  {title:14}{line}" for title, line in zip((part, ""), told, strict=False)]
    return "\n".join([*lines, "", _LEGEND])


def _step(found: dict[str, Any]) -> list[str]:
    """Two lines: where a step's time goes, and what is done in it."""
    split = "  ".join(f"{kind} {1000 * seconds:.0f}" for kind, seconds in found["seconds"].items())
    rates = "  ".join(
        f"{name} {found[f'{name}_per_second']:.2g}/s"
        for name in ("rays", "samples", "triangles")
        if f"{name}_per_second" in found
    )
    teraflops = found["prior_flops_per_second"] / 1e12
    use = f"prior at {teraflops:.3g} TFLOP/s, {found['prior_utilisation']:.0%} of a matrix product"
    return [f"{found['step']:8.3f} s a step: {split} ms; rest {found['rest']:.0%}", f"   {rates}; {use}"]
