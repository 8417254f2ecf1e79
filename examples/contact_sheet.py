"""See written assets from all sides: python examples/contact_sheet.py a.glb b.glb -o sheet.png

One row a file, four views a row, drawn from the files' own bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from magic3d_cli.asset.preview import render_glb
from magic3d_cli.scene.views import DIFFUSE, turntable

SIDES = ("front", "right", "back", "left")
LABEL = 18  # pixels


def contact_sheet(
    paths: list[Path], size: int, elevation: float = 15.0, shaded: bool = False, columns: int = 1
) -> Image.Image:
    """One strip of views a file, `columns` strips side by side; cameras at azimuth 0, 90, 180 and 270 degrees."""
    views = turntable(len(SIDES), elevation)
    if shaded:  # from above the camera's right shoulder
        light = torch.nn.functional.normalize(views.light + torch.stack(views.axes()[:2]).sum(0) * 0.5, dim=-1)
        views = views.replace(shading=torch.full((len(SIDES),), DIFFUSE), light=light)
    rows = -(-len(paths) // columns)
    sheet = Image.new("RGB", (size * len(SIDES) * columns, (size + LABEL) * rows), "white")
    draw = ImageDraw.Draw(sheet)
    for index, path in enumerate(paths):
        row, column = divmod(index, columns)
        top, left = row * (size + LABEL), column * size * len(SIDES)
        for side, image in enumerate(render_glb(path, views, size)):
            sheet.paste(Image.fromarray(image), (left + side * size, top + LABEL))
            label = f"{path.stem} - {SIDES[side]}" if side == 0 else SIDES[side]
            draw.text((left + side * size + 4, top + 3), label, fill="black")
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("sheet.png"))
    parser.add_argument("--size", type=int, default=256, help="pixels a view")
    parser.add_argument("--elevation", type=float, default=15.0, help="degrees")
    parser.add_argument("--shaded", action="store_true", help="with a light")
    parser.add_argument("--columns", type=int, default=1, help="files side by side")
    options = parser.parse_args()
    contact_sheet(options.files, options.size, options.elevation, options.shaded, options.columns).save(options.output)
    print(options.output)


if __name__ == "__main__":
    main()
