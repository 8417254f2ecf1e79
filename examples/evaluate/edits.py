"""Ten edits: what changed, and what had to stay and did.

    python edits.py FOLDER [--sheet edits.jpg]

Makes every parent and its edit with the preset draft (what is there already is taken as it is), renders both from eight
sides and compares them where the edit was allowed to change anything and where it was not. Silhouettes are compared as
a whole: an edit that keeps the shape has to keep them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from magic3d_cli.fine.stage import FineStage
from magic3d_cli.run.resume import Saved
from magic3d_cli.scene.region import COLOUR, Region, RegionField
from magic3d_cli.scene.views import turntable

EDITS = (
    ("a metal dragon", "a golden dragon", ()),
    ("a metal dragon", "a red dragon", ("--box", "top")),
    ("a red car", "a blue car", ()),
    ("a red car", "a green bus", ()),
    ("a wooden chair", "a stone chair", ("--recolour",)),
    ("a wooden chair", "a white chair", ("--box", "bottom")),
    ("a white horse", "a bronze horse", ()),
    ("a white horse", "a black horse", ("--box", "front")),
    ("a teapot", "a jade teapot", ()),
    ("a house", "a pink house", ()),
)
"""Prompt of the parent, prompt of the edit, options."""
SIZE, SIDES, BACKDROP = 256, 8, 0.75


def make(folder: Path, parent: str, prompt: str, options: tuple[str, ...]) -> tuple[Path, Path]:
    """The runs of both."""
    first = folder / f"{parent.replace(' ', '-')}.glb"
    name = "-".join([*parent.split(), "to", *prompt.split(), *(word.strip("-") for word in options)])
    second = folder / f"{name}.glb"
    program = [sys.executable, "-m", "magic3d_cli"]
    for target, command in ((first, ["generate", parent]), (second, ["edit", str(first), prompt, *options])):
        if not target.exists():  # written last
            subprocess.run([*program, *command, "-o", str(target), "-q"], check=True, stdout=subprocess.DEVNULL)
    return first.with_suffix(".run"), second.with_suffix(".run")


def stage_of(run: Path) -> FineStage:
    saved = Saved.load(run / "fine.ckpt")
    stage = saved.stage(saved.settings, "cpu")
    assert isinstance(stage, FineStage)
    return stage


def compare(old: FineStage, new: FineStage) -> tuple[dict[str, float], np.ndarray]:
    """Figures, and four sides of each: uint8 [h, 8 SIZE, 3]."""
    views = turntable(SIDES).replace(backdrop=torch.full((SIDES, 3), BACKDROP))
    before, after = old.render(views, SIZE), new.render(views, SIZE)
    solid = [render.opacity > 0.5 for render in (before, after)]
    both = solid[0] & solid[1]
    origins, directions = views.rays(SIZE)
    points = (origins + before.depth[..., None] * directions)[both]
    region = new.field.region if isinstance(new.field, RegionField) else Region.everywhere()
    share = region.share(points, COLOUR)
    apart = (old.albedo(points) - new.albedo(points)).abs().mean(1) * 255  # at the same places, whatever the meshes
    inside, outside = apart[share == 1], apart[share == 0]
    figures = {
        "share": float((share > 0.5).float().mean()),
        "inside": float(inside.mean()) if len(inside) else float("nan"),
        "outside": float(outside.mean()) if len(outside) else float("nan"),
        "outside_most": float(outside.quantile(0.99)) if len(outside) else float("nan"),
        "silhouettes": float(both.sum() / (solid[0] | solid[1]).sum()),
    }
    sides = torch.cat([before.rgb[::2], after.rgb[::2]]).clamp(0, 1)
    covered = (solid[0] | solid[1]).any(0).any(1).nonzero()[:, 0]
    strip = np.concatenate(list((sides[:, covered[0] : covered[-1] + 1] * 255).byte().numpy()), 1)
    return figures, np.pad(strip, ((SIZE // 32,) * 2, (0, 0), (0, 0)), constant_values=round(255 * BACKDROP))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sheet", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    print("| parent | edit | share | levels inside | outside | outside, 99 % | silhouettes |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for parent, prompt, options in EDITS:
        runs = make(arguments.folder, parent, prompt, options)
        found, strip = compare(*(stage_of(run) for run in runs))
        rows.append(strip)
        print(
            f"| {parent} | {prompt} {' '.join(options)} | {found['share']:.2f} | {found['inside']:.0f} | "
            f"{found['outside']:.1f} | {found['outside_most']:.1f} | {found['silhouettes']:.3f} |",
            flush=True,
        )
    if arguments.sheet:
        Image.fromarray(np.concatenate(rows, 0)).save(arguments.sheet, quality=85)


if __name__ == "__main__":
    main()
