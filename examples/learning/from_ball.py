"""An open-vocabulary prior's mesh at a CPU's size: `python from_ball.py "a red car" -o car.glb`, in minutes.

What `magic3d generate --prior FOLDER --init ball` does in hours of the preset draft, with fewer and smaller steps, from
cameras that see the whole thing. Beside the mesh lies a sheet of eight sides, as they look and in grey; printed is how
like the models that the practice prior was taught with it is, and whether its two ends differ as theirs do.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from captioned import taught_models
from jaxtyping import Bool
from PIL import Image
from practice import Kind, kind_of
from renders import load_volume
from torch import Tensor

from magic3d_cli import job, pipeline, presets
from magic3d_cli.guidance.guide import PriorGuide
from magic3d_cli.guidance.priors import STAGES, ChosenPrior, WeightedPrior, choose_priors
from magic3d_cli.initial_shapes import named_shape
from magic3d_cli.run.interrupts import Interrupts
from magic3d_cli.run.observer import Observer
from magic3d_cli.run.resume import Saved
from magic3d_cli.scene.views import TEXTURELESS, ViewSampling, turntable
from magic3d_cli.settings import BALL, Settings

PRIOR = Path(__file__).parent / "practice"
SIDES, SIDE, SILHOUETTE = 8, 96, 48
WHOLE = ViewSampling(elevation=(-10.0, 60.0), half_height=(0.75, 1.15))
"""Things fill the picture as they do in the practice prior's."""


def small_settings(args: argparse.Namespace, priors: dict[str, list[ChosenPrior]]) -> Settings:
    """The preset draft as it is guided with these priors, in the built-in prior's few steps and small grids."""
    small = presets.preset("draft")
    chosen = presets.resolve(replace(small, seed=args.seed), priors, init=args.init, perp_neg=args.perp_neg)
    sampling = WHOLE if args.cameras == "whole" else chosen.coarse.sampling
    coarse = replace(
        chosen.coarse,
        steps=args.steps,
        views=args.views,
        render_size=args.size,
        samples_per_ray=small.coarse.samples_per_ray,
        occupancy_size=small.coarse.occupancy_size,
        normal_samples=256,
        sampling=sampling,
        guidance=replace(chosen.coarse.guidance, scale=(args.scale, args.scale)),
    )
    if args.init == BALL:
        coarse = replace(coarse, field=small.coarse.field, occupancy_start=small.coarse.occupancy_start)
    fine = replace(
        chosen.fine,
        steps=args.fine_steps,
        render_size=128,
        grid_size=small.fine.grid_size,
        surface_resolution=small.fine.surface_resolution,
        sampling=replace(sampling, albedo_first=0.0),
        guidance=replace(chosen.fine.guidance, scale=(args.scale, args.scale)),
    )
    return replace(chosen, coarse=coarse, fine=fine, asset=small.asset)


def framed(opacity: Tensor) -> Bool[Tensor, "V s s"]:
    """Silhouettes, each alone in the middle of its square; empty ones stay empty."""
    found = []
    for mask in opacity > 0.5:
        row, column = (mask.any(axis).nonzero().flatten() for axis in (1, 0))
        if len(row) == 0:
            found.append(torch.zeros(SILHOUETTE, SILHOUETTE, dtype=torch.bool))
            continue
        part = mask[row[0] : row[-1] + 1, column[0] : column[-1] + 1].float()
        spare = max(part.shape) - torch.tensor(part.shape)
        up, left = (spare // 2).tolist()
        square = F.pad(part, (left, int(spare[1]) - left, up, int(spare[0]) - up))
        found.append(F.interpolate(square[None, None], size=(SILHOUETTE,) * 2, mode="area")[0, 0] > 0.5)
    return torch.stack(found)


def overlap(one: Bool[Tensor, "V s s"], other: Bool[Tensor, "V s s"]) -> float:
    """Intersection over union, the mean over views."""
    return float(((one & other).sum((1, 2)) / (one | other).sum((1, 2)).clamp(min=1)).mean())


def ends_differ(silhouettes: Bool[Tensor, "V s s"]) -> float:
    """How unlike its mirror image it is from its two sides: near 0 where its front has come a second time."""
    sides = silhouettes[[SIDES // 4, 3 * SIDES // 4]]
    return 1 - overlap(sides, sides.flip(2))


@torch.no_grad()
def judged(opacity: Tensor, kind: Kind) -> dict[str, float]:
    """Overlap of the silhouettes with those of every taught noun from the same sides; whether its ends differ.

    Of a noun's models the one that is most like it counts.
    """
    seen, network = framed(opacity.cpu()), load_volume("cpu")
    told: dict[str, float] = {"ends_differ": ends_differ(seen)}
    for model in taught_models(kind.nouns, kind.styles):
        noun = model.caption.noun
        maps = network.render(network.volume_of(network.latent(model.number))[None], turntable(SIDES), SIDE)
        taught = framed(maps[:, 0])
        if (found := overlap(seen, taught)) > told.get(noun, -1):
            told |= {noun: found, f"{noun}_ends_differ": ends_differ(taught)}
    return {key: round(value, 3) for key, value in told.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt")
    parser.add_argument("-o", "--output", type=Path, default=Path("from_ball.glb"))
    parser.add_argument("--prior", type=Path, default=PRIOR)
    parser.add_argument("--also-prior", default="", help="NAME=WEIGHT")
    parser.add_argument("--init", default=BALL, help="ball, or builtin:a car")
    parser.add_argument("--scale", type=float, default=20.0)
    parser.add_argument("--perp-neg", action="store_true")
    parser.add_argument("--cameras", choices=["whole", "draft"], default="whole")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--fine-steps", type=int, default=50)
    parser.add_argument("--views", type=int, default=4, help="a step of the coarse stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kind = kind_of(args.prior)
    args.size = kind.size
    names = [WeightedPrior(str(args.prior))]
    if args.also_prior:
        name, weight = args.also_prior.split("=")
        names.append(WeightedPrior(name, float(weight)))
    begun = time.monotonic()
    priors = choose_priors({stage: names for stage in STAGES}, args.prompt, args.seed, args.device, print)
    chosen = small_settings(args, priors)
    guide = PriorGuide(priors, args.prompt, args.seed, args.device)
    named = named_shape(args.init, "y", args.seed, args.device, print)
    shape = named.load if named else None
    with job.opened(
        args.prompt, chosen, args.output, guide, args.device, Observer(), Interrupts(), shape=shape
    ) as opened:
        pipeline.generate(opened, fresh=True)
        stage = Saved.load(opened.run.fine).stage(chosen, args.device)
    views = turntable(SIDES).to(args.device)
    white = torch.full((SIDES,), TEXTURELESS, device=args.device)
    looks = [stage.render(seen, SIDE) for seen in (views, views.replace(shading=white))]
    rows = [np.concatenate(list((look.rgb.clamp(0, 1).cpu().numpy() * 255).astype(np.uint8)), 1) for look in looks]
    Image.fromarray(np.concatenate(rows)).save(args.output.with_suffix(".png"))
    told = {"prompt": args.prompt, "seconds": round(time.monotonic() - begun), **judged(looks[0].opacity, kind)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
