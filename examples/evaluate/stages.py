"""Where on the way from the prior's volume to the written file is likeness lost?

    python stages.py DATA "a grand piano" "a metal dragon" [--preset draft] [--sheet stages.png] [-o stages.json]

For each prompt: the prior's volume, the field fitted to it, the field after distillation, the mesh at hand-over, the
mesh after the fine stage, and the written GLB, each from the same eight sides as the real, painted model in DATA
(the unpacked models). Measured as in evaluate.py: overlap of silhouettes, error of colours and of white shading, and

- detail: energy of the picture's Laplacian inside the silhouette as a share of the real model's (1: as sharp);
- ImageNet: mean probability of the noun's classes, where ImageNet knows the noun (imagenet.py, an outside judge).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import torch
from imagenet import CLASSES, can_judge, probabilities
from pictures import Look, alike, cut_out
from PIL import Image
from torch import Tensor

from magic3d_cli import generate
from magic3d_cli.coarse.initial import fit
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.guidance.builtin.shape import VolumeShape
from magic3d_cli.guidance.builtin.volume import picture
from magic3d_cli.guidance.conditioning import condition, read_prompt
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior, load_prior
from magic3d_cli.run.resume import Saved

SIDE = 224


def of_stage(stage: CoarseStage | FineStage) -> Look:
    """How a stage's scene looks as it is now; each view is rendered once."""

    @cache
    def look(textured: bool) -> tuple[Tensor, Tensor]:
        render = stage.render(pictures.views(textured), SIDE)
        return render.rgb.movedim(-1, 1).clamp(0, 1), render.opacity

    return look


def stages(prompt: str, preset: str, folder: Path, prior: DiffusersPrior, seed: int) -> Iterator[tuple[str, Look]]:
    """Names of the stages of one run, in order, and how each looks."""
    text = condition(prior, read_prompt(prior, prompt, seed)).states
    volume = prior.volume
    assert volume is not None

    @torch.no_grad()
    def of_volume(textured: bool) -> tuple[Tensor, Tensor]:
        views = pictures.views(textured)
        maps = volume.render(volume.imagine(text), views, SIDE)
        return picture(maps[:, :1], maps[:, 1:4], volume.paint(maps, text), views) / 2 + 0.5, maps[:, 0]

    path = folder / f"{prompt.replace(' ', '-')}.glb"
    generate(prompt, output=path, preset=preset, seed=seed)
    run = path.with_suffix(".run")
    coarse, fine = (Saved.load(run / name) for name in ("coarse.ckpt", "fine.ckpt"))
    begun = CoarseStage(coarse.settings, seed)
    fit(begun, VolumeShape(volume, text))
    distilled = coarse.stage(coarse.settings, "cpu")
    assert isinstance(distilled, CoarseStage)
    yield "prior's volume", of_volume
    yield "initial field", of_stage(begun)
    yield "field, distilled", of_stage(distilled)
    yield "mesh at hand-over", of_stage(FineStage.from_coarse(fine.settings, distilled, VolumeShape(volume, text)))
    yield "mesh, refined", of_stage(fine.stage(fine.settings, "cpu"))
    yield "written GLB", lambda textured: pictures.of_mesh(path, textured, SIDE)


def compare(real: Look, mine: Look) -> dict[str, float]:
    """Likeness of one stage, and its share of the real model's detail."""
    one, other = (cut_out(*look(True)) for look in (real, mine))
    return alike(real, mine) | {"detail": _detail(other) / _detail(one)}


def named(look: Look, noun: str) -> dict[str, float]:
    """Probability that ImageNet's classifier gives the noun; empty where it does not know it or is not installed."""
    if noun not in CLASSES or not can_judge():
        return {}
    return {"ImageNet": float(probabilities(look(True)[0])[:, CLASSES[noun]].sum(1).mean())}


def _detail(cut: Tensor) -> float:
    """Mean square of the Laplacian of the luminance, away from the outline."""
    grey = cut[:, :3].mean(1, keepdim=True)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    inside = -torch.nn.functional.max_pool2d(-cut[:, 3:], 7, 1, 3) > 0.5
    return float(torch.nn.functional.conv2d(grey, kernel, padding=1)[inside].square().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="a PNG: one row a stage, eight sides, the last prompt's")
    parser.add_argument("-o", "--out", type=Path, default=Path("stages.json"))
    args = parser.parse_args()
    prior = load_prior("builtin")
    table: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for prompt in args.prompts:
            caption = read_prompt(prior, prompt, args.seed)
            assert not isinstance(caption, str)

            def real(textured: bool, caption: Any = caption) -> tuple[Tensor, Tensor]:
                return pictures.of_model(args.data, caption, textured, SIDE)

            table[prompt], rows = {}, []
            looks = [("real model", real), *stages(prompt, args.preset, Path(folder), prior, args.seed)]
            for name, look in looks:
                table[prompt][name] = compare(real, look) | named(look, caption.noun)
                sheet = cut_out(*look(True))
                rows.append(torch.cat(list(sheet[:, :3] * sheet[:, 3:] + 1 - sheet[:, 3:]), -1))
                print(f"{prompt:20} {name:18}", *(f"{k} {v:.3f}" for k, v in table[prompt][name].items()), flush=True)
            if args.sheet:
                grid = torch.cat(rows, 1).movedim(0, -1).clamp(0, 1) * 255
                place = args.sheet.with_stem(f"{args.sheet.stem}-{prompt.replace(' ', '-')}")
                Image.fromarray(grid.numpy().astype(np.uint8)).save(place)
    names = list(next(iter(table.values())))
    means = {
        name: {
            key: float(np.mean([found[name][key] for found in table.values() if key in found[name]]))
            for key in {key for found in table.values() for key in found[name]}
        }
        for name in names
    }
    args.out.write_text(json.dumps({"preset": args.preset, "mean": means, "prompts": table}, indent=1) + "\n")
    for name in names:
        print(f"{name:18}", *(f"{k} {v:.3f}" for k, v in sorted(means[name].items())))


if __name__ == "__main__":
    main()
