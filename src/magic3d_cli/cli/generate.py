"""`magic3d generate PROMPT`: the whole job."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from magic3d_cli.cli import checks, options
from magic3d_cli.cli.failures import reported
from magic3d_cli.cli.session import answer, choose_device, opened, session
from magic3d_cli.run.directory import RunDirectory


@reported
def generate(
    prompt: Annotated[str, typer.Argument(help='What to make: "a metal dragon".', show_default=False)],
    output: options.Output = None,
    preset: options.Preset = "draft",
    prior: options.Prior = "auto",
    coarse_prior: options.CoarsePrior = None,
    fine_prior: options.FinePrior = None,
    perp_neg: options.PerpNeg = None,
    small_encoder: options.SmallEncoder = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    faces: options.Faces = None,
    texture_size: options.TextureSize = None,
    fresh: options.Fresh = False,
    strict: options.Strict = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a textured 3D model from a sentence.

    The same command again goes on where an interrupted run stopped.
    """
    prompt = checks.check_prompt(prompt)
    out = checks.check_output(output or checks.default_output(prompt))
    checks.check_choice("--preset", preset, checks.PRESETS)
    checks.check_choice("--device", device, checks.DEVICES)
    checks.check_seed(seed)
    sizes = checks.check_sizes(faces, texture_size)
    with session(quiet) as work:
        from magic3d_cli import pipeline, settings
        from magic3d_cli.ranks import joined
        from magic3d_cli.run.guide import PriorGuide

        chosen = replace(settings.preset(preset), seed=seed)
        chosen = settings.asked_for(chosen, perp_neg=perp_neg, small_encoder=small_encoder)
        chosen = replace(chosen, asset=replace(chosen.asset, **sizes))
        where = choose_device(device, work.observer.note)
        guide = PriorGuide(coarse_prior or prior, fine_prior or prior, prompt, seed, where, work.observer.note, strict)
        for note in guide.understood.notes if guide.understood else ():
            work.observer.note(note)
        chosen = guide.suited(chosen)
        if where == "cuda" and prior == "auto" and guide.name("fine") == "builtin":
            work.observer.note("On this GPU --prior sd15 makes anything that words can say (4.3 GB, downloaded once).")
        with joined(where, chosen) as ranks, opened(RunDirectory.for_output(out), ranks) as run:
            job = pipeline.Job(
                prompt, chosen, out, run, guide, where, ranks.leads, observer=work.observer, interrupts=work.interrupts
            )
            work.observer.note(f"Watch the shape appear: {run.preview}")
            result = pipeline.generate(job, fresh=fresh)
    if guide.understood:
        result["understood"] = guide.understood.to_json()
    answer(result, as_json)
