"""The ablations of Magic3D's section 5, with the built-in prior from the paper's ball.

    python paper_ablations.py -o FOLDER [--prompts "a red car" "a wooden chair"] [--data DATA]

Each prompt is made in four ways: the coarse NeRF alone; the same refined as a mesh (the paper's way); the same refined
as a NeRF, with the fine stage's prior, resolution, views and number of steps; and a mesh from a ball in a single stage,
with the fine prior and the steps of both stages. Each is made in a process of its own and kept in FOLDER, so the
command can be stopped and given again. FOLDER/table.md compares renders with the real, painted model behind the prior's
noun (DATA holds the unpacked models, see builtin_prior/render.py) as stages.py does, and has the probability that
ImageNet's classifier gives the noun where it is installed (imagenet.py); FOLDER/sheet.png shows them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import torch
from pictures import Look
from PIL import Image, ImageDraw
from prompts import TUNING
from stages import SIDE, compare, named, of_stage

from magic3d_cli import presets
from magic3d_cli.checks import PRESETS
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.errors import Magic3DError
from magic3d_cli.fine.geometry import Geometry
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.fine.tetrahedra import Lattice
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN
from magic3d_cli.guidance.guide import PriorGuide
from magic3d_cli.guidance.priors import STAGES, WeightedPrior, choose_priors
from magic3d_cli.run import checkpoint
from magic3d_cli.run.timings import peak_memory
from magic3d_cli.scene.background import Background
from magic3d_cli.scene.field import HashField
from magic3d_cli.settings import BALL, Settings, TimestepSchedule

COARSE, MESH, NERF, SINGLE = "coarse NeRF alone", "mesh after it (paper)", "NeRF after it", "mesh in a single stage"
REAL = "real model"
SHOWN, SMALL, MARGIN, CROP = 4, 112, 150, 20
"""Of the eight sides those on the sheet; pixels of each, of the names beside them, and of SIDE that are cut off."""
Scene = CoarseStage | FineStage
Row = tuple[str, str, Look]
"""Prompt, the way that a scene was made, how it looks."""


def coarse(settings: Settings, _: CoarseStage | None) -> CoarseStage:
    """Magic3D section 4.1."""
    return CoarseStage(settings, settings.seed)


def mesh(settings: Settings, before: CoarseStage | None) -> FineStage:
    """Magic3D section 4.2."""
    assert before is not None
    return FineStage.from_coarse(settings, before)


def nerf(settings: Settings, before: CoarseStage | None) -> CoarseStage:
    """The coarse scene, optimised on as the fine stage is: its prior, times, views, resolution and number of steps."""
    assert before is not None
    fine = settings.fine
    own = replace(
        settings.coarse,
        steps=fine.steps,
        views=fine.views,
        render_size=fine.render_size,
        warmup=0.0,
        lr=fine.lr,
        sampling=fine.sampling,
        guidance=fine.guidance,
        added_guidance=fine.added_guidance,
    )
    stage = CoarseStage(replace(settings, coarse=own), settings.seed + 1)
    for name, module in stage.modules().items():
        module.load_state_dict(before.modules()[name].state_dict())
    return stage


def single(settings: Settings, _: CoarseStage | None) -> FineStage:
    """A mesh from a ball by the fine prior, with the steps of both stages; times begin as the coarse stage's, because
    there is no shape yet, and end as the fine one's."""
    first, last = settings.coarse.guidance, settings.fine.guidance
    times = TimestepSchedule(first.times.start, last.times.end, first.times.anneal)
    steps = settings.coarse.steps + settings.fine.steps
    fine = replace(settings.fine, steps=steps, guidance=replace(last, scale=first.scale, times=times))
    settings = replace(settings, fine=fine)
    radius = settings.coarse.field.bias_radius  # of the coarse stage's ball
    low, high = torch.full((3,), -radius), torch.full((3,), radius)
    lattice = Lattice.around(low, high, fine.grid_size)
    generator = torch.Generator().manual_seed(settings.seed)
    geometry = Geometry(lattice, lattice.vertices().norm(dim=1) - radius)
    field = HashField(settings.coarse.field, generator)
    return FineStage(settings, geometry, field, Background(generator), generator, {})


BEGIN: dict[str, Callable[[Settings, CoarseStage | None], Scene]] = {
    COARSE: coarse, MESH: mesh, NERF: nerf, SINGLE: single,
}  # fmt: skip
AFTER_COARSE = (MESH, NERF)


def place(folder: Path, prompt: str, name: str) -> Path:
    """The checkpoint of a scene; a report lies beside it."""
    return folder / prompt.replace(" ", "-") / f"{name.replace(' ', '-')}.ckpt"


def make(name: str, prompt: str, preset: str, seed: int, folder: Path) -> None:
    """Optimise one scene, in a process of its own: its processor time and peak memory are that scene's alone."""
    begun, path = time.process_time(), place(folder, prompt, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {}
    try:
        priors = choose_priors({stage: [WeightedPrior("builtin")] for stage in STAGES}, prompt, seed, "cpu", print)
        settings = presets.resolve(replace(presets.preset(preset), seed=seed), priors, init=BALL)
        guide = PriorGuide(priors, prompt, seed, "cpu")
        before = load(place(folder, prompt, COARSE)) if name in AFTER_COARSE else None
        assert before is None or isinstance(before, CoarseStage)
        stage = BEGIN[name](settings, before)
        own = stage.settings.coarse if isinstance(stage, CoarseStage) else stage.settings.fine
        terms = guide.terms("coarse" if name == COARSE else "fine", own)
        stage.run([stage.random_views(*terms)])
        tensors, state = stage.state()
        checkpoint.save(path, tensors, {"state": state, "settings": stage.settings.to_json()})
    except Magic3DError as error:
        report["failed"] = error.what
    report |= {"seconds": time.process_time() - begun, "gigabytes": peak_memory()["host"] / 1e9}
    path.with_suffix(".json").write_text(json.dumps(report) + "\n")


def load(path: Path) -> Scene:
    """A scene as `make` left it."""
    tensors, header = checkpoint.load(path)
    kind = CoarseStage if header["state"]["stage"] == CoarseStage.name else FineStage
    return kind.from_state(Settings.from_json(header["settings"]), tensors, header["state"])


def make_all(prompts: Sequence[str], preset: str, seed: int, folder: Path) -> None:
    """Every scene that is not there yet, one after the other."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for prompt in prompts:
            for name in BEGIN:
                begun = time.monotonic()
                missing = not place(folder, prompt, name).with_suffix(".json").exists()
                if name in AFTER_COARSE and not place(folder, prompt, COARSE).exists():
                    print(f"{prompt}, {name}: there is no coarse scene to begin with", flush=True)
                elif missing:
                    pool.submit(make, name, prompt, preset, seed, folder).result()
                    print(f"{prompt}, {name}: {time.monotonic() - begun:.0f} s", flush=True)


def judge(
    prompts: Sequence[str], folder: Path, data: Path | None
) -> tuple[dict[str, list[dict[str, float]]], list[Row]]:
    """Figures of every scene by the way it was made, and the sheet's rows."""
    vocabulary = Vocabulary.load(BUILTIN / "vocabulary.json")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ([REAL] if data else []) + list(BEGIN)}
    rows: list[Row] = []
    for prompt in prompts:
        caption = vocabulary.parse(prompt)
        looks: dict[str, Look] = {}
        if data:
            looks[REAL] = partial(pictures.of_model, data, caption, side=SIDE)
        looks |= {name: of_stage(load(path)) for name in BEGIN if (path := place(folder, prompt, name)).exists()}
        for name, look in looks.items():
            figures = named(look, caption.noun) | (compare(looks[REAL], look) if data else {})
            if name != REAL:
                figures |= cost(folder, prompt, name)
            found[name].append(figures)
            rows.append((prompt, name, look))
    return found, rows


def cost(folder: Path, prompt: str, name: str) -> dict[str, float]:
    """Processor seconds from nothing, and the most memory on the way."""
    names = [COARSE, name] if name in AFTER_COARSE else [name]
    reports = [json.loads(place(folder, prompt, one).with_suffix(".json").read_text()) for one in names]
    return {"CPU s": sum(r["seconds"] for r in reports), "peak, GB": max(r["gigabytes"] for r in reports)}


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Means over prompts, in Markdown."""
    keys = list(dict.fromkeys(key for some in found.values() for figures in some for key in figures))
    lines = ["| made as | prompts | " + " | ".join(keys) + " |", "| --- " * (len(keys) + 2) + "|"]
    for name, some in found.items():
        cells = []
        for key in keys:
            values = [figures[key] for figures in some if key in figures]
            digits = 0 if key == "CPU s" else 2 if key == "peak, GB" else 3
            cells.append(f"{np.mean(values):.{digits}f}" if values else "")
        lines.append(f"| {name} | {len(some)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sheet(rows: Sequence[Row]) -> Image.Image:
    """A row for each scene: its name, four sides as they look, the same four white and lit."""
    image = Image.new("RGB", (MARGIN + 2 * SHOWN * SMALL, SMALL * len(rows)), "white")
    draw = ImageDraw.Draw(image)
    for row, (prompt, name, look) in enumerate(rows):
        draw.text((6, row * SMALL + SMALL // 2 - 12), f"{prompt}\n{name}", "black")
        sides = torch.cat([look(textured)[0][:: pictures.COUNT // SHOWN] for textured in (True, False)])
        sides = sides[..., CROP:-CROP, CROP:-CROP]
        small = torch.nn.functional.interpolate(sides, size=(SMALL, SMALL), mode="area")
        strip = torch.cat(list(small.clamp(0, 1)), -1).movedim(0, -1).numpy()
        image.paste(Image.fromarray((strip * 255).round().astype(np.uint8)), (MARGIN, row * SMALL))
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--prompts", nargs="+", default=list(TUNING[:3]))
    parser.add_argument("--data", type=Path, help="the unpacked models: adds likeness to them")
    parser.add_argument("--preset", choices=PRESETS, default="draft")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    make_all(args.prompts, args.preset, args.seed, args.out)
    found, rows = judge(args.prompts, args.out, args.data)
    told = table(found)
    (args.out / "table.md").write_text(told + "\n")
    sheet(rows).save(args.out / "sheet.png")
    print(told)


if __name__ == "__main__":
    main()
