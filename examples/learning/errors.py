"""How much a practice prior minds what is said: `python errors.py FOLDER`.

Errors of the noise over the share of the signal (as of v) on fresh pictures, with the true caption, without one, and
with a wrong colour, noun or view; and how often the truth has the smaller error. The noise is the same for all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from captioned import Pool, view_of
from jaxtyping import Float
from practice import Kind, Training, kind_of, make_pool
from torch import Tensor

from magic3d_cli.guidance.builtin.paint import COLOURS
from magic3d_cli.guidance.conditioning import VIEW_WORDS

TIMESTEPS = (50, 200, 500, 700, 800, 900, 950)


def captions(pool: Pool, kind: Kind) -> dict[str, list[str]]:
    """True ones, and with one word wrong: the next noun or colour, the opposite view (a front for all others)."""
    views = [view_of(azimuth, elevation) for _, _, azimuth, elevation in pool.told]
    things = [(pool.captions.shown[model].caption.noun, colour) for model, colour, *_ in pool.told]
    colours = list(COLOURS)

    def said(noun: str, colour: int, view: int) -> str:
        paint = f"{colours[colour]} " if colour >= 0 else ""
        return f"a {paint}{noun}, {VIEW_WORDS[view]}"

    def other_noun(noun: str) -> str:
        return kind.nouns[(kind.nouns.index(noun) + 1) % len(kind.nouns)]

    def other_colour(colour: int) -> int:
        number = kind.paints.index(colours[colour]) if colour >= 0 else -1
        return colours.index(kind.paints[(number + 1) % len(kind.paints)])

    rows = [(noun, colour, view) for (noun, colour), view in zip(things, views, strict=True)]
    return {
        "true": [said(*row) for row in rows],
        "none": [""] * len(rows),
        "wrong colour": [said(noun, other_colour(colour), view) for noun, colour, view in rows],
        "wrong noun": [said(other_noun(noun), colour, view) for noun, colour, view in rows],
        "wrong view": [said(noun, colour, 0 if view else 2) for noun, colour, view in rows],
    }


@torch.no_grad()
def errors(
    prior: Training, clean: Float[Tensor, "B C h w"], said: list[str], step: int, noise: Float[Tensor, "B C h w"]
) -> Float[Tensor, "B"]:
    """Of v's scale, at one timestep."""
    level = prior.scheduler.alphas_cumprod[step]
    noisy, steps = level.sqrt() * clean + (1 - level).sqrt() * noise, torch.full((len(clean),), step)
    guess = prior.unet(noisy, steps, prior.text(prior.tokens(said)).last_hidden_state, return_dict=False)[0]
    return (guess - noise).square().mean((1, 2, 3)) / level


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=192, help="pictures")
    args = parser.parse_args()
    torch.manual_seed(0)
    kind = kind_of(args.folder)
    prior = Training(kind, args.folder, torch.device("cpu"))
    prior.begin(args.folder)
    pool = make_pool(kind, 12, args.count, 99, "cpu")
    alpha = pool.opacity / 255
    clean = prior.seen((pool.rgb / 255 * alpha + 0.8 * (1 - alpha)) * 2 - 1)
    said, noise = captions(pool, kind), torch.randn_like(clean)
    print("| timestep | " + " | ".join(said) + " | truth beats colour, noun, view |")
    print("| --- " * (len(said) + 2) + "|")
    for step in TIMESTEPS:
        found = {name: errors(prior, clean, text, step, noise) for name, text in said.items()}
        beats = [f"{(found[name] > found['true']).float().mean():.0%}" for name in list(said)[2:]]
        print(f"| {step} | " + " | ".join(f"{e.mean():.4f}" for e in found.values()) + f" | {', '.join(beats)} |")


if __name__ == "__main__":
    main()
