"""What a practice prior imagines: `python sheet.py FOLDER -o sheet.png`, nouns by views, sampled by DDIM."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from practice import kind_of
from renders import SET, random_sets
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel

from magic3d_cli.guidance.conditioning import VIEW_WORDS
from magic3d_cli.guidance.diffusers.mvdream import attend_across_views


@torch.no_grad()
def sample(folder: Path, prompts: list[str], steps: int, scale: float, seed: int, camera: Tensor | None) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1]; with classifier-free guidance."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").float().eval()
    text = CLIPTextModel.from_pretrained(folder / "text_encoder").float().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler", clip_sample=not (folder / "vae").exists())
    if camera is not None:
        attend_across_views(unet, SET)
    tokens = tokenizer([*prompts, *[""] * len(prompts)], padding="max_length", truncation=True, return_tensors="pt")
    states = text(tokens.input_ids).last_hidden_state
    size, channels = unet.config.sample_size, unet.config.in_channels
    x = torch.randn(len(prompts), channels, size, size, generator=torch.Generator().manual_seed(seed))
    scheduler.set_timesteps(steps)
    told = None if camera is None else torch.cat([camera, camera])
    for step in scheduler.timesteps:
        with_text, without = unet(torch.cat([x, x]), step, states, class_labels=told).sample.chunk(2)
        x = scheduler.step(without + scale * (with_text - without), step, x).prev_sample
    if channels % 3 == 0:  # pixels, packed or not
        x = F.pixel_shuffle(x, math.isqrt(channels // 3))
    if (folder / "vae").exists():
        vae = AutoencoderKL.from_pretrained(folder / "vae").float().eval()
        x = vae.decode(x / vae.config.scaling_factor).sample
    return (x / 2 + 0.5).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("sheet.png"))
    parser.add_argument("--colour", default="")
    parser.add_argument("--nouns", nargs="+", help="some of those that it was taught")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--scale", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    kind = kind_of(args.folder)
    things = [f"a {args.colour} {noun}".replace("  ", " ") for noun in args.nouns or kind.nouns]
    camera = None
    if kind.cameras:
        prompts = [thing for thing in things for _ in range(SET)]
        views = random_sets(1, (15.0, 15.0), torch.Generator().manual_seed(0))
        camera = views.replace(azimuth=views.azimuth - views.azimuth[0]).camera_matrix().repeat(len(things), 1)
    else:
        prompts = [f"{thing}, {words}" for thing in things for words in VIEW_WORDS]
    pictures = sample(args.folder, prompts, args.steps, args.scale, args.seed, camera)
    pixels = (pictures.movedim(1, -1).numpy() * 255).round().astype(np.uint8)
    rows = [np.concatenate(list(pixels[i : i + 4]), 1) for i in range(0, len(pixels), 4)]
    half = (len(rows) + 1) // 2
    Image.fromarray(np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half:])], 1)).save(args.output)
    print(args.output)


if __name__ == "__main__":
    main()
