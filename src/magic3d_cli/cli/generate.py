"""`magic3d generate PROMPT`: the whole job."""

from __future__ import annotations

from typing import Annotated

import typer

from magic3d_cli import checks, precheck
from magic3d_cli.cli import options
from magic3d_cli.cli.failures import reported
from magic3d_cli.cli.plan import ask, goes_on, told
from magic3d_cli.cli.session import answer, put, session


@reported
def generate(
    prompt: Annotated[str, typer.Argument(help='What to make: "a metal dragon".', show_default=False)],
    output: options.Output = None,
    preset: options.Preset = "draft",
    prior: options.Prior = "auto",
    coarse_prior: options.CoarsePrior = None,
    fine_prior: options.FinePrior = None,
    also_prior: options.AlsoPrior = None,
    init: options.Init = "auto",
    init_up: options.InitUp = "y",
    perp_neg: options.PerpNeg = None,
    small_encoder: options.SmallEncoder = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    faces: options.Faces = None,
    texture_size: options.TextureSize = None,
    height: options.Height = None,
    fresh: options.Fresh = False,
    force: options.Force = False,
    strict: options.Strict = False,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Make a textured 3D model from a sentence.

    The same command again goes on where an interrupted run stopped.
    """
    prompt = checks.check_prompt(prompt)
    checks.check_choice("--preset", preset, checks.PRESETS)
    init = checks.check_init(init)
    checks.check_choice("--init-up", init_up, checks.UPS)
    checks.check_choice("--device", device, checks.DEVICES)
    checks.check_seed(seed)
    checks.check_sizes(faces, texture_size, height)
    added = checks.check_added(also_prior or [])
    names = (coarse_prior or prior, fine_prior or prior, *(name for name, _ in added))
    out = precheck.choose_output(output, prompt, seed, preset, force)
    precheck.check_generate(prompt, seed, names, device, out, strict=strict)
    precheck.check_init(init, seed)
    with session(quiet, verbose) as work:
        from magic3d_cli import job

        request = job.Request(
            out,
            preset=preset,
            coarse_prior=coarse_prior or prior,
            fine_prior=fine_prior or prior,
            more_priors=tuple(job.WeightedPrior(name, weight) for name, weight in added),
            init=init,
            init_up=init_up,
            device=device,
            perp_neg=perp_neg,
            small_encoder=small_encoder,
            faces=faces,
            texture_size=texture_size,
            height=height,
            fresh=fresh,
            strict=strict,
        )
        if dry_run or not (yes or goes_on(out)):
            foreseen = job.plan(request, seed, work.observer)
            if dry_run:
                put(told(out, prompt, foreseen, as_json))
                return
            ask(foreseen.seconds, work.observer)
        _, result = job.generate(prompt, seed, request, work.observer, work.interrupts)
    answer(result, as_json)
