"""A loss of one's own beside the prior's: the front of the object has to look like a picture.

    python examples/own_loss.py "a red car" front.png -o car.glb

The picture is square, the object is as large in it as in a view of `turntable`, and what is not the object is
transparent.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from magic3d_cli import generate
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import turntable
from magic3d_cli.training.terms import LossTerm, Step, ViewGroup, fixed_views

WEIGHT = 10.0  # the picture against the prior; both are sums over an image's pixels


def like_picture(path: str, size: int = 64) -> ViewGroup:
    """The front view in every step, with its squared error against a picture."""
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGBA").resize((size, size)))) / 255

    def loss(render: Render, step: Step) -> Tensor:
        backdrop = step.views.backdrop[:, None, None].to(render.rgb)
        picture = pixels.to(render.rgb)
        target = picture[..., :3] * picture[..., 3:] + (1 - picture[..., 3:]) * backdrop
        return (render.rgb - target).square().sum() / len(render.rgb)

    return fixed_views(turntable(1, elevation=0), size, [LossTerm("picture", loss, WEIGHT)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt")
    parser.add_argument("picture")
    parser.add_argument("-o", "--output", default="asset.glb")
    args = parser.parse_args()
    asset = generate(args.prompt, output=args.output, on_note=print, more_views=[like_picture(args.picture)])
    print(asset.report["output"])
