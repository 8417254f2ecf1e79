"""What each kind of distillation makes of single pictures: `python two_scores.py PRIOR PROMPT sheet.png [--steps N]`.

No 3D: the pixels of four pictures are optimised from noise, seen from the front. Rows of the sheet: the prior's own
samples, score distillation at scale 100 and at 7.5, variational score distillation at 7.5. Of each row it is told how
much of it is as bright or dark as a pixel can be, and how far its pictures differ; the samples' numbers are the right
ones.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from magic3d_cli.guidance.conditioning import Conditioning, condition
from magic3d_cli.guidance.diffusers.denoising import sample
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior, load_prior
from magic3d_cli.guidance.guide import distillation_of
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import turntable
from magic3d_cli.settings import SDS, VSD, GuidanceSettings, VariationalSettings
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.terms import LearningLoss, Step

PICTURES, EDGE = 4, 0.02
"""Of a row; from black or white, within which a colour counts as clipped."""


def optimise(
    prior: DiffusersPrior, told: Conditioning, settings: GuidanceSettings, steps: int, seed: int
) -> Float[Tensor, "S S 3"]:
    """A picture that begins as noise, after some steps."""
    loss = distillation_of(prior, told, settings, seed)
    generator, nothing, front = torch.Generator().manual_seed(seed), torch.zeros(0), turntable(1)
    pixels = (0.3 * torch.randn(1, prior.image_size, prior.image_size, 3, generator=generator)).requires_grad_()
    adam = torch.optim.Adam([pixels], lr=0.05)
    for step in range(steps):
        adam.zero_grad()
        if isinstance(loss, LearningLoss):
            loss.zero_grad()
        render = Render(pixels.sigmoid(), nothing, nothing, nothing, nothing)
        value, _ = loss(render, Step(front, step / steps, generator, Processes()))
        value.backward()
        adam.step()
        if isinstance(loss, LearningLoss):
            loss.finish_step(Processes())
    return pixels.detach().sigmoid()[0]


def samples(prior: DiffusersPrior, told: Conditioning) -> Float[Tensor, "N S S 3"]:
    """The prior's own pictures; only of one that works on pixels."""
    generator, side = torch.Generator().manual_seed(0), prior.image_size
    text = told.text(turntable(1))
    drawn = [sample(prior, text, told.unconditional, (3, side, side), generator) for _ in range(PICTURES)]
    return (torch.cat(drawn).permute(0, 2, 3, 1) + 1) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prior")
    parser.add_argument("prompt")
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=1e-3, help="of the LoRA: ten times the usual for so few steps")
    asked = parser.parse_args()
    prior = load_prior(asked.prior)
    told = condition(prior, asked.prompt, plain=True)
    rows = {"samples": samples(prior, told)} if prior.kind == "pixel" else {}
    for method, scale in ((SDS, 100.0), (SDS, 7.5), (VSD, 7.5)):
        own = VariationalSettings(scale=scale, rate=asked.rate)
        settings = GuidanceSettings(scale=(scale, scale), method=method, variational=own)
        made = [optimise(prior, told, settings, asked.steps, seed) for seed in range(PICTURES)]
        rows[f"{method} at {scale:g}"] = torch.stack(made)
    for name, row in rows.items():
        clipped = ((row < EDGE) | (row > 1 - EDGE)).float().mean()
        print(json.dumps({"row": name, "clipped": float(clipped), "differ": float(row.std(0).mean())}))
    sheet = torch.cat([torch.cat(list(row), 1) for row in rows.values()])
    pixels = Image.fromarray((sheet.clamp(0, 1).numpy() * 255).round().astype(np.uint8))
    pixels.resize((4 * pixels.width, 4 * pixels.height), Image.Resampling.NEAREST).save(asked.sheet)


if __name__ == "__main__":
    main()
