"""See written assets from all sides: python examples/contact_sheet.py a.glb b.glb -o sheet.png

One row a file, four views a row, drawn from the files' own bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from magic3d_cli.asset.preview import render_glb
from magic3d_cli.views import DIFFUSE, turntable

SIDES = ("front", "right", "back", "left")
LABEL = 18  # pixels


def contact_sheet(paths: list[Path], size: int, elevation: float = 15.0, shaded: bool = False) -> Image.Image:
    """One row of views a file; cameras at azimuth 0, 90, 180 and 270 degrees."""
    views = turntable(len(SIDES), elevation)
    if shaded:
        views = views.replace(shading=torch.full((len(SIDES),), DIFFUSE))
    sheet = Image.new("RGB", (size * len(SIDES), (size + LABEL) * len(paths)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, path in enumerate(paths):
        top = row * (size + LABEL)
        for column, image in enumerate(render_glb(path, views, size)):
            sheet.paste(Image.fromarray(image), (column * size, top + LABEL))
            label = f"{path.stem} - {SIDES[column]}" if column == 0 else SIDES[column]
            draw.text((column * size + 4, top + 3), label, fill="black")
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("sheet.png"))
    parser.add_argument("--size", type=int, default=256, help="pixels a view")
    parser.add_argument("--elevation", type=float, default=15.0, help="degrees")
    parser.add_argument("--shaded", action="store_true", help="with a headlight")
    options = parser.parse_args()
    contact_sheet(options.files, options.size, options.elevation, options.shaded).save(options.output)
    print(options.output)


if __name__ == "__main__":
    main()
