"""A sample sheet of the built-in prior: `python sample.py [PRIOR] -o samples.jpg`; every noun from four sides.

The four views of a row are denoised from the same noise and style, by deterministic DDIM (Song et al. 2021). With
--compose, rows are the prompts given on the command line instead of the nouns.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from magic3d_cli.guidance.conditioning import Conditioning, condition, read_prompt
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior, load_prior
from magic3d_cli.guidance.distillation import classifier_free_guidance
from magic3d_cli.scene.views import Views, turntable

LABEL = 12  # pixels


@torch.inference_mode()
def ddim(
    prior: DiffusersPrior, text: Conditioning, views: Views, steps: int, scale: float, seed: int
) -> Float[Tensor, "B 3 S S"]:
    """Images in [0, 1], one for each view."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, 3, prior.image_size, prior.image_size)
    x = torch.randn(shape, generator=generator).repeat(len(views), 1, 1, 1)
    told, plain, features = text.text(views), text.without(views), views.camera_embedding()
    times = torch.linspace(0.98, 0.02, steps).mul(len(prior.alphas_cumprod)).long()
    for i, time in enumerate(times):
        t = time.repeat(2 * len(views))
        clean, _ = prior.denoise(torch.cat([x, x]), t, torch.cat([plain, told]), torch.cat([features, features]))
        guess = classifier_free_guidance(*clean.chunk(2), scale).clamp(-1, 1)
        here = prior.alphas_cumprod[time]
        noise = (x - here.sqrt() * guess) / (1 - here).sqrt()
        ahead = prior.alphas_cumprod[times[i + 1]] if i + 1 < steps else torch.tensor(1.0)
        x = ahead.sqrt() * guess + (1 - ahead).sqrt() * noise
    return (x + 1) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prior", nargs="?", type=Path, default=BUILTIN, help="folder with vocabulary.json")
    parser.add_argument("-o", "--out", type=Path, default=Path("samples.jpg"))
    parser.add_argument("--compose", nargs="+", help="prompts to sample instead of every noun")
    parser.add_argument("--nouns", type=int, help="only so many of them, evenly spread over the alphabet")
    parser.add_argument("--cell", type=int, default=96, help="pixels of a view")
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--scale", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    prior = load_prior(str(args.prior), stage="coarse")
    prompts = args.compose or list(json.loads((args.prior / "vocabulary.json").read_text())["nouns"])
    if args.nouns:
        prompts = prompts[:: max(1, len(prompts) // args.nouns)][: args.nouns]
    views = turntable(4, elevation=20, start=20)
    cell, columns = args.cell, args.columns
    rows = -(-len(prompts) // columns)
    sheet = Image.new("RGB", (columns * (4 * cell + 8), rows * (cell + LABEL)), "white")
    for i, prompt in enumerate(prompts):
        text = condition(prior, read_prompt(prior, prompt, args.seed))
        images = ddim(prior, text, views, args.steps, args.scale, args.seed)
        left, top = i % columns * (4 * cell + 8), i // columns * (cell + LABEL)
        ImageDraw.Draw(sheet).text((left + 2, top), prompt, fill="black")
        for k, image in enumerate((images.clamp(0, 1) * 255).round().byte()):
            tile = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((cell, cell))
            sheet.paste(tile, (left + k * cell, top + LABEL))
    sheet.save(args.out)
    print(args.out)


if __name__ == "__main__":
    main()
