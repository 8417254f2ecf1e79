"""`magic3d edit RUN PROMPT`: change a finished asset to another prompt, where the two prompts differ or in a box."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from magic3d_cli import checks, precheck
from magic3d_cli.cli import options
from magic3d_cli.cli.failures import reported
from magic3d_cli.cli.plan import begins, goes_on
from magic3d_cli.cli.session import answer, session
from magic3d_cli.guidance.adapters import check_shown, edited, marks, read_adapters
from magic3d_cli.guidance.diffusers.catalogue import NAMES


@reported
def edit(
    source: Annotated[
        Path, typer.Argument(help="What to change: a .run folder, its asset or a checkpoint.", show_default=False)
    ],
    prompt: Annotated[str, typer.Argument(help="What it is to be, as a whole.", show_default=False)],
    output: options.Output = None,
    recolour: Annotated[bool, typer.Option("--recolour", help="Keep the shape as it is; only colours change.")] = False,
    box: Annotated[
        str | None,
        typer.Option(
            metavar="BOX",
            help=f"Change only a part of the object: {', '.join(checks.HALVES)}, several of them joined by + "
            "(top+front), or X0,Y0,Z0,X1,Y1,Z1 in shares 0 to 1 of its width (from its right hand to its left), "
            "height (upwards) and depth (to the front).",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="draft, standard or paper; default: the run's own.",
            autocompletion=options.one_of(checks.PRESETS),
        ),
    ] = None,
    style: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A picture whose colours or look it gets, see generate; default: the run's own."
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="As for generate; default: the run's.", autocompletion=options.one_of(NAMES)),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[=WEIGHT]",
            help="As for generate, beside the run's own; an IP-Adapter in place of its. May be given several times.",
        ),
    ] = None,
    perp_neg: options.PerpNeg = None,
    small_encoder: options.SmallEncoder = None,
    device: options.Device = "auto",
    faces: options.Faces = None,
    texture_size: options.TextureSize = None,
    height: options.Height = None,
    lod: options.Lod = None,
    ao: options.Occlusion = None,
    normal_map: options.NormalMap = None,
    fresh: options.Fresh = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Change a finished asset to what another prompt asks.

    What both prompts agree on stays as it is; so does the edited run, whatever comes of it.
    """
    prompt = checks.check_prompt(prompt)
    if preset is not None:
        checks.check_choice("--preset", preset, checks.PRESETS)
    checks.check_choice("--device", device, checks.DEVICES)
    checks.check_sizes(faces, texture_size, height, lod)
    corners = None if box is None else checks.check_box(box)
    checkpoint, header = precheck.find_finished(source)
    _, adapters = edited(header.get("adapters", []), read_adapters(adapter or []), checkpoint)
    name = prior or precheck.prior_of(header)
    check_shown(adapters, style is not None or bool(header.get("style")))
    palette = precheck.styled(style, [name], device, adapters) if style is not None else None
    digest = precheck.edit_digest(checkpoint, corners, recolour, palette.digest if palette else None)
    seed, own = header["seed"], header["settings"]["preset"]
    added = marks(adapters, palette.digest if palette else (header.get("style") or {}).get("digest"))
    out = precheck.choose_output(output, prompt, seed, preset or own, force, digest, prompt, adapters=added, lod=lod)
    precheck.check_generate(prompt, seed, [name], device, out, adapters=adapters)
    with session(quiet, verbose) as work:
        from magic3d_cli import job
        from magic3d_cli.editing import EditRequest
        from magic3d_cli.plan import plan_edit
        from magic3d_cli.request import Request

        request = Request(
            out,
            preset=preset,
            fine_prior=prior,
            device=device,
            perp_neg=perp_neg,
            small_encoder=small_encoder,
            faces=faces,
            texture_size=texture_size,
            height=height,
            lod=lod,
            occlusion=ao,
            normal_map=normal_map,
            fresh=fresh,
            adapters=tuple(adapter or ()),
            style=palette,
        )
        wanted = yes or (goes_on(out) and not fresh)
        foresee = partial(plan_edit, checkpoint, request, recolour, work.observer)
        if not begins(foresee, out, prompt, work.observer, dry_run=dry_run, wanted=wanted, as_json=as_json):
            return
        asked = EditRequest(checkpoint, digest, corners, recolour)
        _, result = job.edit(prompt, asked, request, work.observer, work.interrupts)
    answer(result, as_json)
