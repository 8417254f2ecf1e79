"""Teach the image encoder of the built-in prior to name what a picture shows: `python encoder.py FOLDER`.

It is shown the prior's own models, every one as often as any other, in random colours, materials, lights and cameras,
stretched, tilted, blurred, tinted and with rough masks. Training ends after `--minutes`; the rate falls to zero by the
clock. To be run again when the prior has learned new models.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from practice import Average, by_the_clock
from renders import Pictures, all_models, draw, dress, lit, load_volume
from torch import Tensor

from magic3d_cli.guidance.builtin.encoder import BINS, PictureEncoder, glanced
from magic3d_cli.guidance.builtin.paint import COLOURS, MATERIALS

BUFFER = 96
PAINTED, MADE = 0.4, 0.15
"""Shares of the pictures that are of a colour, and of a material, that was asked for."""
SAME_NOUN = 0.3
"""Of the target, what is spread over the models of the same noun."""


def bin_of(azimuth: Tensor) -> Tensor:
    """The direction's number, of BINS; radians."""
    return (azimuth / (2 * math.pi) * BINS).round().long() % BINS


def roughened(rgb: Tensor, opacity: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures as cameras and cutting tools make them: tints, contrast, blur, noise, masks a little off."""
    count, device = len(rgb), rgb.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator, device=device)

    rgb = rgb * uniform(0.8, 1.2, 3, 1, 1) * uniform(0.75, 1.25, 1, 1, 1) + uniform(-0.08, 0.08, 1, 1, 1)
    grey = rgb.mean(1, keepdim=True)
    rgb = grey + (rgb - grey) * uniform(0.6, 1.3, 1, 1, 1)
    blurred = F.avg_pool2d(F.pad(rgb * opacity, (1,) * 4, mode="replicate"), 3, 1)
    cover = F.avg_pool2d(F.pad(opacity, (1,) * 4, mode="replicate"), 3, 1)
    soft = uniform(0, 1, 1, 1, 1) < 0.4
    rgb = torch.where(soft, blurred / cover.clamp(min=1e-3), rgb)
    rgb = rgb + uniform(0, 0.06, 1, 1, 1) * torch.randn(rgb.shape, generator=generator, device=device)
    rough = F.interpolate(
        torch.rand(count, 1, 12, 12, generator=generator, device=device), rgb.shape[-2:], mode="bilinear"
    )
    opacity = torch.where(soft, cover, opacity) * (1 - uniform(0, 0.7, 1, 1, 1) * (rough > 0.75))
    return rgb.clamp(0, 1), opacity.clamp(0, 1)


def batch(pictures: Pictures, count: int, generator: torch.Generator, rough: bool = True) -> tuple[Tensor, ...]:
    """What the encoder is shown, and what it should say: model, colour, bin of the azimuth, elevation."""
    device = pictures.buffers.device
    of, views_each = pictures.buffers.shape[:2]
    model = torch.randint(of, (count,), generator=generator, device=device)
    buffers, views = pictures.pick(model, torch.randint(views_each, (count,), generator=generator, device=device))
    views = lit(views, (0.25, 0.7, 0.05), generator)
    chance = torch.rand(2, count, generator=generator, device=device)
    colour = torch.randint(len(COLOURS), (count,), generator=generator, device=device)
    material = torch.randint(len(MATERIALS), (count,), generator=generator, device=device)
    colour = torch.where(chance[0] < PAINTED, colour, -1)
    material = torch.where(chance[1] < MADE, material, -1)
    rgb, opacity = dress(buffers, views, pictures.tones[model], colour, material, buffers.shape[-1])
    turn = None
    if rough:
        rgb, opacity = roughened(rgb, opacity, generator)
        angle = (torch.rand(count, generator=generator, device=device) * 2 - 1) * 0.12
        stretch = torch.exp((torch.rand(2, count, generator=generator, device=device) * 2 - 1) * 0.18)
        cos, sin = torch.cos(angle), torch.sin(angle)
        turn = torch.stack([cos * stretch[0], -sin * stretch[1], sin * stretch[0], cos * stretch[1]], 1).view(-1, 2, 2)
    unknown = (material >= 0) & (colour < 0)
    said = torch.where(unknown, -100, torch.where(colour < 0, len(COLOURS), colour))
    seen, azimuth = glanced(rgb, opacity, turn), bin_of(views.azimuth)
    if rough:  # mirrored things are things too
        mirrored = torch.rand(count, generator=generator, device=device) < 0.5
        seen = torch.where(mirrored[:, None, None, None], seen.flip(3), seen)
        azimuth = torch.where(mirrored, -azimuth % BINS, azimuth)
    return seen, model, said, azimuth, views.elevation


def neighbours(nouns: list[str], device: torch.device) -> Tensor:
    """Of every model, the target's share of each: most its own, the rest all of its noun."""
    _, noun = torch.unique(torch.tensor([sorted(set(nouns)).index(n) for n in nouns]), return_inverse=True)
    same = (noun[:, None] == noun).float()
    return ((1 - SAME_NOUN) * torch.eye(len(nouns)) + SAME_NOUN * same / same.sum(1, keepdim=True)).to(device)


@torch.no_grad()
def report(encoder: PictureEncoder, pictures: Pictures, nouns: list[str], rough: bool) -> str:
    """Shares that are right on fresh pictures."""
    generator = torch.Generator(pictures.buffers.device).manual_seed(99)
    names, hits = sorted(set(nouns)), []
    noun = torch.tensor([names.index(n) for n in nouns], device=pictures.buffers.device)
    for _ in range(8):
        seen, model, colour, azimuth, elevation = batch(pictures, 256, generator, rough)
        told = encoder(seen)
        best = told.models.argmax(1)
        apart = (told.azimuths.argmax(1) - azimuth + BINS // 2) % BINS - BINS // 2
        known = colour >= 0
        right = [best == model, noun[best] == noun[model], apart.abs() <= 1]
        hits.append(torch.stack([r.float().mean() for r in right]
                    + [(told.colours.argmax(1) == colour)[known].float().mean(),
                       (told.elevation - elevation).abs().rad2deg().mean()]))  # fmt: skip
    m, n, a, c, e = torch.stack(hits).mean(0).tolist()
    return (
        f"model {m:.3f}, noun {n:.3f}, azimuth within a bin {a:.3f}, colour {c:.3f}, elevation off by {e:.1f} degrees"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", type=Path, help="an encoder to go on from")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--sets", type=int, default=12, help="sets of four views rendered of each model")
    parser.add_argument("--models", type=int, help="only the first few")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    shown, begun = all_models()[: args.models], time.monotonic()
    pictures = draw(load_volume(device), shown, args.sets, BUFFER, (-15.0, 60.0))
    print(f"{len(shown)} models: {time.monotonic() - begun:.0f} s", flush=True)
    nouns = [model.caption.noun for model in shown]
    encoder = PictureEncoder(styles=tuple(model.caption.style or "" for model in shown))
    if args.start:
        encoder.load_state_dict(PictureEncoder.from_pretrained(args.start).float().state_dict())
    encoder = encoder.train().to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(encoder.parameters(), args.rate, weight_decay=0.02)
    average, targets = Average([encoder], 0.998), neighbours(nouns, device)
    generator = torch.Generator(device).manual_seed(2)
    for step in by_the_clock(args.minutes * 60, args.rate, optimiser):
        seen, model, colour, azimuth, elevation = batch(pictures, args.batch, generator)
        with torch.autocast(device.type, torch.bfloat16):
            told = encoder(seen.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(told.models.float(), targets[model])
        loss = loss + 0.3 * F.cross_entropy(told.colours.float(), colour)
        loss = loss + F.cross_entropy(told.azimuths.float(), azimuth)
        loss = loss + F.smooth_l1_loss(told.elevation.float(), elevation, beta=0.1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimiser.step()
        average.update()
        if step % 200 == 0:
            print(f"{step}: {loss.item():.3f}", flush=True)
    average.install()
    print(f"{step + 1} steps of {args.batch}", flush=True)
    with torch.no_grad():  # the averaged weights' own statistics
        for _ in range(20):
            encoder(batch(pictures, args.batch, generator)[0])
    encoder.eval()
    for rough in (False, True):
        print("rough:" if rough else "clean:", report(encoder, pictures, nouns, rough), flush=True)
    encoder.half().save_pretrained(args.folder)


if __name__ == "__main__":
    main()
