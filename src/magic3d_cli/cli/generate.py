"""`magic3d generate PROMPT`, or with a picture `magic3d generate --image FILE`: the whole job."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magic3d_cli import checks, precheck
from magic3d_cli.cli import options
from magic3d_cli.cli import picture_options as pictures
from magic3d_cli.cli.failures import reported, say
from magic3d_cli.cli.plan import begins, goes_on
from magic3d_cli.cli.session import answer, session
from magic3d_cli.cli.variations import check_variations, choose, summaries
from magic3d_cli.errors import Collapsed, UsageError
from magic3d_cli.guidance.adapters import check_company, marks, read_adapters

if TYPE_CHECKING:
    from magic3d_cli.picture_request import PictureRequest


@reported
def generate(
    prompt: Annotated[
        str, typer.Argument(help='What to make: "a metal dragon". May be left out with --image.', show_default=False)
    ] = "",
    output: options.Output = None,
    preset: options.Preset = "draft",
    prior: options.Prior = "auto",
    coarse_prior: options.CoarsePrior = None,
    fine_prior: options.FinePrior = None,
    also_prior: options.AlsoPrior = None,
    adapter: options.Adapter = None,
    init: options.Init = "auto",
    init_up: options.InitUp = "y",
    perp_neg: options.PerpNeg = None,
    small_encoder: options.SmallEncoder = None,
    distillation: options.Distillation = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    faces: options.Faces = None,
    texture_size: options.TextureSize = None,
    height: options.Height = None,
    lod: options.Lod = None,
    ao: options.Occlusion = None,
    normal_map: options.NormalMap = None,
    fresh: options.Fresh = False,
    force: options.Force = False,
    strict: options.Strict = False,
    image: pictures.Image = None,
    images: pictures.Images = None,
    mask: pictures.Mask = None,
    depth: pictures.Depth = None,
    normals: pictures.Normals = None,
    elevation: pictures.Elevation = None,
    fov: pictures.Fov = None,
    imagine: pictures.Imagine = None,
    recipe: pictures.Recipe = None,
    style: pictures.Style = None,
    variations: options.Variations = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Make a textured 3D model from a sentence, a picture, or both.

    The same command again goes on where an interrupted run stopped.
    """
    shown = pictures.requested(image, images, mask, depth, normals, elevation, fov, imagine)
    pictured = shown is not None or images is not None
    if prompt or not pictured:
        prompt = checks.check_prompt(prompt)
    checks.check_recipe(recipe, pictured)
    checks.check_distillation(distillation, recipe)
    checks.check_choice("--preset", preset, checks.PRESETS)
    checks.check_choice("--init-up", init_up, checks.UPS)
    checks.check_choice("--device", device, checks.DEVICES)
    checks.check_seed(seed)
    checks.check_sizes(faces, texture_size, height, lod)
    check_variations(variations, pictured or recipe is not None)
    added = checks.check_added(also_prior or [])
    adapters = read_adapters(adapter or [])
    check_company(adapters, pictured, variations)
    names = (coarse_prior or prior, fine_prior or prior, *(name for name, _ in added))
    palette = precheck.styled(style, names, device, adapters, pictured or recipe is not None, variations)
    added_marks = marks(adapters, palette.digest if palette else None)
    init = precheck.check_init(init, seed)
    precheck.check_distilled(distillation, names[0], names[1], names[2:], device)

    def make(output: Path | None, shown: PictureRequest | None) -> None:
        """One asset."""
        digest = shown.digest if shown else precheck.drawn_digest(recipe, prompt, seed)
        name = shown.cutouts[0].name if shown else ""
        out = precheck.choose_output(
            output, prompt or Path(name).stem, seed, preset, force, digest, prompt, variations or 1, added_marks, lod
        )
        precheck.check_generate(
            prompt,
            seed,
            names,
            device,
            out,
            strict=strict,
            words=digest is None,
            adapters=adapters,
        )
        with session(quiet, verbose) as work:
            from magic3d_cli import job
            from magic3d_cli.guidance.priors import WeightedPrior
            from magic3d_cli.plan import plan
            from magic3d_cli.request import Request

            choices: dict[str, Any] = {
                "coarse_prior": coarse_prior or prior,
                "fine_prior": fine_prior or prior,
                "more_priors": added,
                "init": init,
                "init_up": init_up,
                "perp_neg": perp_neg,
                "small_encoder": small_encoder,
                "distillation": distillation,
                "device": device,
                "faces": faces,
                "texture_size": texture_size,
                "height": height,
                "lod": lod,
                "occlusion": ao,
                "normal_map": normal_map,
                "strict": strict,
            }
            more_priors = tuple(WeightedPrior(name, weight) for name, weight in added)
            own = choices | {
                "more_priors": more_priors,
                "preset": preset,
                "fresh": fresh,
                "pictures": shown,
                "recipe": recipe,
                "adapters": tuple(adapter or ()),
                "style": palette,
            }
            request = Request(out, **own)
            wanted = yes or (goes_on(out) and not fresh)
            foresee = partial(plan, request, seed, work.observer)
            if not begins(foresee, out, prompt, work.observer, dry_run=dry_run, wanted=wanted, as_json=as_json):
                return
            best, records = seed, None
            if variations is not None:
                best, records = choose(prompt, seed, variations, out, preset, choices, work)
            _, result = job.generate(prompt, best, request, work.observer, work.interrupts)
        answer(result | ({"variations": summaries(records)} if records else {}), as_json)

    if images is None:
        make(output, shown)
        return
    failed = []
    for path, target in pictures.outputs_of(images, output):
        try:
            make(target, pictures.requested([str(path)], None, None, depth, None, elevation, fov, imagine))
        except (UsageError, Collapsed) as error:
            failed.append(path.name)
            say(error.what, error.next_step)
    if failed:
        raise UsageError(f"Nothing was made of {', '.join(failed)}.", "The reasons are above.")
