"""Contact sheets of the manifest's models, as turned: `python survey.py DATA OUT`. Front and azimuth 50 of each.

Look at them after every change of the manifest: a model that does not face the camera in its left picture teaches
the prior a second face.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from gbuffer import draw, pack
from manifest import NOUNS
from PIL import Image, ImageDraw
from render import load, normalise

from magic3d_cli.scene.views import turntable

SIDE, LABEL, COLUMNS, ROWS = 96, 13, 8, 12


def pictures(data: Path, source: str, yaw: float) -> Image.Image:
    """The model from the front and from azimuth 50, side by side, softly lit."""
    views = turntable(2, elevation=15)
    clip = views.replace(azimuth=torch.tensor([0.0, math.radians(50)])).world_to_clip().numpy()
    arrays = pack(normalise(load(data, source), yaw))
    shown = []
    for matrix in clip:
        buffer = draw(*arrays, matrix, SIDE, 2).astype(np.float32)
        light = 0.55 + 0.45 * np.clip((buffer[..., 3:6] - 128) / 127 @ np.array([0.4, 0.7, 0.6]), 0, 1)
        pale = (255 - buffer[..., 9:]) * np.array([0.8, 0.85, 0.9])
        shown.append(np.clip(buffer[..., :3] * light[..., None] + pale, 0, 255).astype(np.uint8))
    return Image.fromarray(np.concatenate(shown, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    models = [(style.strip("<>"), *model) for n in NOUNS for style, model in zip(n.styles, n.models, strict=True)]
    for start in range(0, len(models), COLUMNS * ROWS):
        sheet = Image.new("RGB", (COLUMNS * 2 * SIDE, ROWS * (SIDE + LABEL)), "white")
        pen = ImageDraw.Draw(sheet)
        for place, (name, source, yaw) in enumerate(models[start : start + COLUMNS * ROWS]):
            x, y = place % COLUMNS * 2 * SIDE, place // COLUMNS * (SIDE + LABEL)
            sheet.paste(pictures(args.data, source, yaw), (x, y + LABEL))
            pen.text((x + 2, y), name, fill="black")
        sheet.save(args.out / f"models-{start // (COLUMNS * ROWS) + 1}.jpg", quality=60)


if __name__ == "__main__":
    main()
