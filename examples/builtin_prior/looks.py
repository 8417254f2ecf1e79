"""Small pictures of every model of the built-in prior from many sides: `python looks.py`.

Writes `looks.webp` beside the prior's weights: one row of thumbnails a model, in the order of the vocabulary, with its
own colours over transparency, cut to the model and as large as the square allows. A picture's thing is looked up in
them (`magic3d_cli.guidance.builtin.looks`). Five minutes; to be run again after the prior was trained or packed anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from magic3d_cli.guidance.builtin.looks import PER_LINE, SIDE, VIEWS, Looks, looks_views, thumbnail
from magic3d_cli.guidance.builtin.vocabulary import Caption, Vocabulary
from magic3d_cli.guidance.conditioning import condition
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN, of_stage
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import describe

RENDERED = 96  # pixels, before they are cut out


def row(prior: DiffusersPrior, caption: Caption) -> np.ndarray:
    """The thumbnails of a caption, uint8 [SIDE, VIEWS SIDE, 4]."""
    text = condition(prior, caption).states
    volume = prior.volume
    with torch.no_grad():
        maps = volume.render(volume.imagine(text), looks_views(), RENDERED)
    opacity = maps[:, 0]
    rgb = (maps[:, 4:7] / opacity[:, None].clamp(min=0.05)).clamp(0, 1).movedim(1, -1)
    images = torch.cat([rgb, opacity[..., None]], -1)
    return np.concatenate([thumbnail((image.numpy() * 255).round().astype(np.uint8)) for image in images], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=BUILTIN / "looks.webp")
    parser.add_argument("--quality", type=int, default=30)
    parser.add_argument(
        "--old", type=Path, help="a prior whose pictures of the same models are kept: seconds, a little loss"
    )
    args = parser.parse_args()
    prior = DiffusersPrior(describe(of_stage(BUILTIN, "coarse"), "builtin"), torch.device("cpu"), torch.float32)
    vocabulary = Vocabulary.load(BUILTIN / "vocabulary.json")
    captions = [Caption(noun, style=style) for noun, styles in vocabulary.styles.items() for style in styles]
    kept = {}
    if args.old:
        old = Looks.load(args.old, Vocabulary.load(args.old / "vocabulary.json"))
        kept = {caption.style: images for caption, images in zip(old.captions, old.thumbnails, strict=True)}
    lines = -(-len(captions) // PER_LINE)
    sheet = np.zeros((lines * SIDE, PER_LINE * VIEWS * SIDE, 4), np.uint8)
    for number, caption in enumerate(captions):
        line, column = divmod(number, PER_LINE)
        images = kept.get(caption.style)
        shown = row(prior, caption) if images is None else np.concatenate(list(images), 1)
        sheet[line * SIDE :, column * VIEWS * SIDE :][:SIDE, : VIEWS * SIDE] = shown
        if images is None:
            print(number, caption.text, flush=True)
    solid = sheet[..., 3] >= 128  # hard masks: soft ones take another 3 MB
    sheet[..., 3] = 255 * solid
    sheet[~solid] = 0
    Image.fromarray(sheet).save(args.output, "WEBP", quality=args.quality, method=4)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
